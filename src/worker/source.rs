//! Where events come from: Kafka, or a file. Either runs on a thread of its own and speaks to the worker through one
//! bounded channel, so that what it says arrives in order and a slow store holds it back.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`kafka`] | a member of a consumer group: partitions are claimed and given away with the group's rebalances |
//! | [`mod@file`] | NDJSON: partition 0, whose offsets are byte positions |
//! | `assembly` | records are gathered into a batch, until it is large or old enough |

mod assembly;
pub mod file;
pub mod kafka;

use shrinkd_core::{MAX_MESSAGE_BYTES, Message, Refusal};
use time::OffsetDateTime;
use tokio::sync::oneshot;

pub use assembly::BatchLimits;

use crate::stream::{Claim, NextOffset};

/// How much is kept of a message that is too large.
const KEPT_BYTES: usize = 64 << 10;

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

impl Record {
    /// The bytes that are kept of a payload: all of it, or the beginning of one that is too large to be decoded.
    fn kept(payload: &[u8]) -> &[u8] {
        if payload.len() > MAX_MESSAGE_BYTES { &payload[..KEPT_BYTES] } else { payload }
    }

    /// What the record holds in memory, as far as it varies.
    fn bytes(&self) -> usize {
        [&self.key, &self.payload].into_iter().flatten().map(Vec::len).sum()
    }

    /// Results of its event.
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
    /// How far the batch goes in each partition that it touches, holes (aborted or compacted records) included.
    pub ends: Vec<(i32, NextOffset)>,
}

/// What a source says.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are owned from now on, beside those owned before. Can be none: others have them all.
    Assigned(Vec<Claim>),
    Batch(Batch),
    /// These partitions are given away. Whoever answers has committed all that came before, or never will.
    Revoked {
        partitions: Vec<i32>,
        drained: oneshot::Sender<()>,
    },
    /// The broker has not, or no more, the records where this partition goes on; it is not read until it is claimed again.
    OutOfRange {
        partition: i32,
        detail: String,
    },
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
    #[error(
        "{path} has {length} bytes, but reading goes on at byte {next}: it was cut or replaced. Put the whole file back, or \
         give the new one a name of its own"
    )]
    Shrunk { path: String, length: u64, next: u64 },
    #[error("{0} is halted: `shrinkd partitions` says why, and how it goes on")]
    Halted(String),
    #[error("{0}")]
    Kafka(String),
}
