//! Refused messages as a replay reads them, and the outcomes of the replay.

use shrinkd_core::{Reason, Refusal};

/// Which refused messages to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectedSelection {
    /// All that no replay has accepted yet.
    All,
    /// Those of them that were refused for one of these reasons.
    Reasons(Vec<Reason>),
    /// The messages of these rows, even if a replay has accepted them.
    Ids(Vec<i64>),
}

/// A row of `rejected_events`, without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRef {
    pub rejected_event_id: i64,
    pub partition_id: i64,
    pub offset: i64,
    /// The length of the stored payload.
    pub kept_bytes: i64,
}

/// A stored message that was refused as a whole or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedMessage {
    /// The row by which it was selected.
    pub rejected_event_id: i64,
    pub cluster_id: String,
    pub key: Option<Vec<u8>>,
    /// Only the beginning of a message that was too large.
    pub payload: Option<Vec<u8>>,
    pub payload_bytes: i64,
    /// All rows of the message.
    pub rows: Vec<RejectedResult>,
}

/// The result, or the whole message, that a row of `rejected_events` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedResult {
    pub rejected_event_id: i64,
    /// `None` for the whole message.
    pub result_index: Option<i32>,
    /// The variant that was refused, where it was one.
    pub variant: Option<String>,
    /// A reason code, which another build may have written.
    pub reason: String,
}

/// The outcome of the replay for a row of `rejected_events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedRow {
    pub rejected_event_id: i64,
    pub outcome: ReplayOutcome,
}

/// The outcome of the replay of a refused message or result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    Accepted,
    /// Accepted as a part of a sum that cannot be estimated yet.
    Pending,
    /// It had been received and accepted again in the meantime.
    Duplicate,
    /// A larger revision has been accepted since.
    Stale,
    /// The experiment was retracted as a whole after it.
    Retracted,
    /// A tombstone, which is not replayed: it would also withdraw what was accepted after it.
    Tombstone,
    /// Refused again.
    Refused(Refusal),
}

impl ReplayOutcome {
    /// Why it was refused again; `None` if it was not.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            ReplayOutcome::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl std::fmt::Display for ReplayOutcome {
    /// The text in the column `replay_outcome`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ReplayOutcome::Accepted => "accepted",
            ReplayOutcome::Pending => "pending",
            ReplayOutcome::Duplicate => "duplicate",
            ReplayOutcome::Stale => "stale",
            ReplayOutcome::Retracted => "retracted",
            ReplayOutcome::Tombstone => "tombstone",
            ReplayOutcome::Refused(refusal) => return write!(f, "refused: {}", refusal.reason.as_str()),
        })
    }
}
