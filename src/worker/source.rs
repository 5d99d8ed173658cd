//! Sources of events: Kafka, or a file. Each runs on a thread of its own and sends to the worker through one bounded
//! channel, which keeps its events in order and gives a slow store a way to hold it back.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`kafka`] | a member of a consumer group: partitions are claimed and released with the group's rebalances |
//! | [`mod@file`] | NDJSON, plain or compressed: partition 0, whose offsets are byte positions |
//! | `assembly` | records are gathered into a batch, until it is large or old enough |

mod assembly;
pub mod file;
pub mod kafka;

use shrinkd_core::{MAX_MESSAGE_BYTES, Message, Refusal};
use time::OffsetDateTime;
use tokio::sync::oneshot;

pub use assembly::BatchLimits;

use super::retry::Retryable;
use crate::config::PropertyError;
use crate::store::StoreError;
use crate::stream::{Claim, NextOffset};

/// How many bytes are kept of a message that is too large.
const KEPT_BYTES: usize = 64 << 10;

/// One message as read, and decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub partition: i32,
    /// The record's own offset; of a file, the position of its first byte.
    pub offset: i64,
    /// When it was produced, if the source has that.
    pub produced_at: Option<OffsetDateTime>,
    pub key: Option<Vec<u8>>,
    /// Kept until the record is committed, in case it is refused. Of a message that is too large, the beginning.
    pub payload: Option<Vec<u8>>,
    /// The length of the whole payload.
    pub payload_bytes: usize,
    pub message: Result<Message, Refusal>,
}

impl Record {
    /// The bytes that are kept of a payload: all of it, or the beginning of one that is too large to be decoded.
    fn kept(payload: &[u8]) -> &[u8] {
        if payload.len() > MAX_MESSAGE_BYTES { &payload[..KEPT_BYTES] } else { payload }
    }

    /// The variable part of the record's size in memory.
    fn bytes(&self) -> usize {
        [&self.key, &self.payload].into_iter().flatten().map(Vec::len).sum()
    }

    /// The number of results of its event.
    fn results(&self) -> usize {
        match &self.message {
            Ok(Message::Event(event)) => event.results.len(),
            _ => 0,
        }
    }
}

/// Records that are committed together, in the order in which they were read.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// The next offset of each partition in the batch, past any holes (aborted or compacted records).
    pub ends: Vec<(i32, NextOffset)>,
}

impl Batch {
    /// Discards the records of some partitions.
    fn discard(&mut self, partitions: &[i32]) {
        self.records.retain(|record| !partitions.contains(&record.partition));
        self.ends.retain(|(partition, _)| !partitions.contains(partition));
    }
}

/// An event of a source.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are owned from now on, in addition to those owned before. There may be none: others own them all.
    Assigned(Vec<Claim>),
    Batch(Batch),
    /// These partitions are revoked. An answer means that everything before was committed, or never will be.
    Revoked {
        partitions: Vec<i32>,
        drained: oneshot::Sender<()>,
    },
    /// The broker does not have the record at which this partition continues, any more or yet. The partition is not read until
    /// it is claimed again.
    OutOfRange {
        partition: i32,
        detail: String,
    },
    /// No more events follow (the end of a file that is not followed).
    Ended,
    /// The source cannot continue.
    Failed(SourceError),
}

impl Retryable for SourceError {
    fn store_error(&self) -> Option<&StoreError> {
        None
    }

    fn is_transient(&self) -> bool {
        matches!(self, SourceError::Unavailable(_))
    }
}

/// Why a source cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store does not grant a claim.
    #[error("{0}")]
    Claim(String),
    /// The store or the brokers do not answer, or do not let this worker read. Trying again helps once the cause is removed.
    #[error("{0}")]
    Unavailable(String),
    #[error("cannot read {path}: {source}")]
    File { path: String, source: std::io::Error },
    /// The worker reads NDJSON; the detail says what the file is, and what to do.
    #[error("cannot take events from {path}, which is not NDJSON: {detail}")]
    NotLines { path: String, detail: String },
    #[error(
        "{path} has {length} bytes, but reading continues at byte {next}: the file was truncated or replaced. Restore the whole \
         file, or give the new one another name"
    )]
    Shrunk { path: String, length: u64, next: u64 },
    #[error("{0} is halted: `shrinkd partitions` shows why, and how to resume it")]
    Halted(String),
    #[error("source.kafka.properties: {0}")]
    Property(#[from] PropertyError),
    #[error("{0}")]
    Kafka(String),
}
