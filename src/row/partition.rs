//! Partitions as operators see them: how far each was committed, and why one is halted.

use time::OffsetDateTime;

use crate::stream::{Claim, NextOffset};

/// Why a partition was halted. It stays halted until an operator resumes it or skips records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltReason {
    /// Too many of its messages were refused.
    DeadLetters,
    /// The broker does not have the records at which reading continues, any more or yet.
    OffsetOutOfRange,
}

/// A partition to halt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub claim: Claim,
    pub reason: HaltReason,
    pub detail: String,
}

/// One row of `partition_progress`.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionStatus {
    pub partition_id: i64,
    pub cluster_id: String,
    pub topic: String,
    pub topic_id: String,
    pub partition: i32,
    pub next_offset: Option<NextOffset>,
    pub owner: String,
    pub committed_at: Option<OffsetDateTime>,
    /// When it was halted, the reason, and the detail; `None` unless it is halted.
    pub halted: Option<(OffsetDateTime, String, String)>,
}

/// An operator's command to skip records.
#[derive(Debug, Clone, PartialEq)]
pub struct Skip {
    /// The partition as the operator saw it when deciding.
    pub seen: PartitionStatus,
    pub to: NextOffset,
    pub because: String,
    /// The operator.
    pub skipped_by: String,
}

impl HaltReason {
    /// The name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            HaltReason::DeadLetters => "dead_letters",
            HaltReason::OffsetOutOfRange => "offset_out_of_range",
        }
    }
}
