//! Gathers records into batches.

use std::time::{Duration, Instant};

use super::{Batch, Record};
use crate::config::IngestConfig;
use crate::stream::NextOffset;

/// When a batch is closed: as soon as it reaches any of these.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub records: usize,
    /// Of keys and payloads.
    pub bytes: usize,
    /// Since its first record was read.
    pub age: Duration,
}

impl BatchLimits {
    /// The limits of a configuration.
    pub fn new(ingest: &IngestConfig) -> BatchLimits {
        BatchLimits { records: ingest.batch_records.get(), bytes: ingest.batch_bytes.get(), age: ingest.batch_age }
    }
}

/// The batch that is being gathered.
#[derive(Debug)]
pub(super) struct Assembly {
    limits: BatchLimits,
    batch: Batch,
    bytes: usize,
    /// Of its events: they determine the memory that a batch takes, and a record may have a thousand.
    results: usize,
    /// When its first record was read.
    since: Option<Instant>,
}

/// Most results in a batch, unless a single record has more.
const MOST_RESULTS: usize = 20_000;

impl Assembly {
    pub(super) fn new(limits: BatchLimits) -> Assembly {
        Assembly { limits, batch: Batch::default(), bytes: 0, results: 0, since: None }
    }

    /// Adds a record, after which its partition continues at `next`.
    pub(super) fn push(&mut self, record: Record, next: NextOffset) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += record.bytes();
        self.results += record.results();
        match self.batch.ends.iter_mut().find(|(partition, _)| *partition == record.partition) {
            Some((_, end)) => *end = next,
            None => self.batch.ends.push((record.partition, next)),
        }
        self.batch.records.push(record);
    }

    /// Whether there is nothing to close.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// How long the batch may still wait for records: zero once it is large or old enough, `None` while it is empty.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let since = self.since?;
        let is_large = self.batch.records.len() >= self.limits.records
            || self.bytes >= self.limits.bytes
            || self.results >= MOST_RESULTS;
        Some(if is_large { Duration::ZERO } else { self.limits.age.saturating_sub(since.elapsed()) })
    }

    /// Discards what was gathered of some partitions.
    pub(super) fn discard(&mut self, partitions: &[i32]) {
        self.batch.discard(partitions);
        if self.batch.records.is_empty() {
            self.close();
        }
    }

    /// Takes the batch as it is, if there is one.
    pub(super) fn close(&mut self) -> Option<Batch> {
        self.since.take()?;
        (self.bytes, self.results) = (0, 0);
        Some(std::mem::take(&mut self.batch))
    }
}
