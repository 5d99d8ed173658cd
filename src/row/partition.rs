//! Partitions as operators see them: how far each was taken in, and why one is not read.

use time::OffsetDateTime;

use crate::stream::{Claim, NextOffset};

/// Why a partition is not read any more, until an operator says what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltReason {
    /// Too many of its messages were refused: somebody should look before all of them are.
    DeadLetters,
    /// The broker has not, or no more, the records where reading goes on.
    OffsetOutOfRange,
}

/// A partition that its owner is to stop reading.
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
    /// Since when it is not read, why, and what was found; `None` while it is read.
    pub halted: Option<(OffsetDateTime, String, String)>,
}

/// Records that an operator has passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    pub partition_id: i64,
    pub to: NextOffset,
    pub because: String,
    /// Who gave the command.
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
