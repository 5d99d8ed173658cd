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

    /// There is no room for the batch yet: its first record waits for that, and not for others, which may still be added.
    pub(super) fn postpone(&mut self) {
        self.since = self.since.map(|_| Instant::now());
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

#[cfg(test)]
mod tests {
    use shrinkd_core::decode;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits { records: 100, bytes: 1_000, age: Duration::from_secs(3_600) };

    /// A record of so many bytes, of which `key` are its key, with an event of so many results.
    fn record(bytes: usize, key: usize, results: usize) -> Record {
        let result = r#"{"metric":"m","status":"retracted"}"#;
        let event = format!(
            r#"{{"schema_version":1,"experiment_id":"e","revision":1,"completed_at":"2026-11-01T12:00:00Z","results":[{}]}}"#,
            vec![result; results].join(",")
        );
        Record {
            partition: 0,
            offset: 0,
            produced_at: None,
            key: Some(vec![0; key]),
            payload: Some(vec![0; bytes - key]),
            payload_bytes: bytes - key,
            message: decode(event.as_bytes()),
        }
    }

    /// How many records of a kind are in a batch when it is closed.
    fn records_until_closed(assembly: &mut Assembly, record: &Record) -> usize {
        while assembly.time_left() != Some(Duration::ZERO) {
            assembly.push(record.clone(), NextOffset(1));
        }
        assembly.close().expect("a batch").records.len()
    }

    #[test]
    fn every_batch_is_bounded_by_its_records_its_bytes_and_its_results() {
        let mut assembly = Assembly::new(LIMITS);
        let results = MOST_RESULTS / 40;
        for _ in 0..2 {
            assert_eq!(records_until_closed(&mut assembly, &record(0, 0, 0)), 100);
            assert_eq!(records_until_closed(&mut assembly, &record(50, 0, 0)), 20);
            assert_eq!(records_until_closed(&mut assembly, &record(50, 50, 0)), 20, "keys count as well");
            assert_eq!(records_until_closed(&mut assembly, &record(0, 0, results)), 40);
        }
    }

    #[test]
    fn a_batch_that_there_is_no_room_for_goes_on_gathering_records() {
        let mut assembly = Assembly::new(BatchLimits { age: Duration::from_millis(20), ..LIMITS });
        assembly.postpone();
        assert_eq!(assembly.time_left(), None, "there is no batch yet");
        assembly.push(record(0, 0, 1), NextOffset(1));
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(assembly.time_left(), Some(Duration::ZERO));
        assembly.postpone();
        assert_ne!(assembly.time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn a_batch_of_few_records_is_closed_once_it_is_old_enough() {
        let mut assembly = Assembly::new(BatchLimits { age: Duration::ZERO, ..LIMITS });
        assert_eq!(assembly.time_left(), None, "there is no batch yet");
        assert_eq!(records_until_closed(&mut assembly, &record(0, 0, 1)), 1);
        assert_eq!(assembly.time_left(), None);
    }
}
