//! Refused messages as a replay reads them, and the outcomes of the replay.

use sqlx::FromRow;

use shrinkd_core::{Reason, Refusal};

/// Which refused messages are replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectedSelection {
    /// Those that no replay has taken yet.
    All,
    /// The same, refused for one of these reasons.
    Reasons(Vec<Reason>),
    /// Those of these rows, also where a replay has taken them.
    Ids(Vec<i64>),
}

/// A row of `rejected_events`, without its message.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RejectedRef {
    pub rejected_event_id: i64,
    pub partition_id: i64,
    #[sqlx(rename = "record_offset")]
    pub offset: i64,
    /// Of the message that the row keeps.
    pub kept_bytes: i64,
}

/// A message that was refused whole or in part, as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedMessage {
    /// Of the row that it was found by.
    pub rejected_event_id: i64,
    pub cluster_id: String,
    pub key: Option<Vec<u8>>,
    /// Of a message that was too large, its beginning.
    pub payload: Option<Vec<u8>>,
    pub payload_bytes: i64,
    /// What was refused of it, by row.
    pub rows: Vec<RejectedResult>,
}

/// What a row of `rejected_events` says was refused.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RejectedResult {
    pub rejected_event_id: i64,
    /// `None` for the whole message.
    pub result_index: Option<i32>,
    /// A reason code, of this build or another.
    pub reason: String,
}

/// What came of replaying a row of `rejected_events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedRow {
    pub rejected_event_id: i64,
    pub outcome: ReplayOutcome,
}

/// What came of a refused message or result when it was replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    Accepted,
    /// Taken as a part of a sum that cannot be estimated yet.
    Pending,
    /// It had come again before.
    Duplicate,
    /// A larger revision has spoken since.
    Stale,
    /// The whole experiment was retracted after it.
    Retracted,
    /// It would retract a whole experiment, with what came after it: only a new message can.
    Tombstone,
    /// Once more.
    Refused(Refusal),
}

impl std::fmt::Display for ReplayOutcome {
    /// As it stands in `replay_outcome`.
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
