//! Where events come from: Kafka, or a file. Either runs on a thread of its own and speaks to the worker through one
//! bounded channel, so that what it says arrives in order and a slow store holds it back.

use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::event::{Message, Refusal};

/// Names a stream of records. Offsets of one stream mean nothing in another, not even in one of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The Kafka cluster's own id; `file` for files.
    pub cluster_id: String,
    /// The topic's name; the canonical path of a file.
    pub name: String,
    /// The id that the broker gave the topic when it was made, empty where there is none: a topic that is deleted and
    /// made again has another one.
    pub id: String,
}

/// The offset of the next record to read, never of the last one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

/// Counts the owners that a partition has had. Whoever holds the largest one may advance it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// A partition that this worker owns, as the store gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The partition's number within its topic; 0 for files.
    pub partition: i32,
    /// The store's own key of (topic, partition).
    pub partition_id: i64,
    pub epoch: Epoch,
    /// `None` where nothing was ever read: begin at the beginning.
    pub next_offset: Option<NextOffset>,
}

/// One message as it was read, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub partition: i32,
    /// The record's own offset; of a file, the position of its first byte.
    pub offset: i64,
    /// When it was produced, where the source knows.
    pub produced_at: Option<OffsetDateTime>,
    pub key: Option<Vec<u8>>,
    /// Kept until the record is committed, for the case that it is refused. Of a message that is too large, its beginning.
    pub payload: Option<Vec<u8>>,
    /// The length of the whole payload.
    pub payload_bytes: usize,
    pub message: Result<Message, Refusal>,
}

/// Records that are committed together, in the order in which they were read.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// How far the batch goes in each partition that it touches, holes (aborted or compacted records) included.
    pub ends: Vec<(i32, NextOffset)>,
}

/// What a source says.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are owned from now on, beside those owned before.
    Assigned(Vec<Claim>),
    Batch(Batch),
    /// These partitions are given away. Whoever answers has committed all that came before, or never will.
    Revoked { partitions: Vec<i32>, drained: oneshot::Sender<()> },
    /// How far each partition reaches on the broker: the offset that its next record will get.
    HighWatermarks(Vec<(i32, i64)>),
    /// There is nothing more to come (a file that is not followed).
    Ended,
    /// The source cannot go on.
    Failed(SourceError),
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0}")]
    Claim(String),
    #[error("cannot read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{0}")]
    Kafka(String),
}
