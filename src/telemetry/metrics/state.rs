//! State beside the gauges: of partitions, and of populations.

use std::collections::BTreeMap;
use std::time::Instant;

use shrinkd_model::Verdict;
use time::OffsetDateTime;

use super::fields::FieldNames;
use super::populations::Reported;

/// What cannot be read back from the gauges.
#[derive(Default)]
pub(super) struct State {
    /// When the batch in hand was begun.
    pub(super) batch_since: Option<Instant>,
    pub(super) partitions: BTreeMap<i32, Lag>,
    pub(super) populations: Reported,
    pub(super) unknown_fields: FieldNames,
}

/// The lag of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Lag {
    /// Records that are not committed yet.
    pub records: u64,
    /// When the oldest of them was produced; `None` if there are none.
    pub since: Option<OffsetDateTime>,
    /// Whether it is not read until an operator resumes it.
    pub is_halted: bool,
}

/// The summary of a population. A figure that does not exist, or was not computed yet, is `None` and has no series.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PopulationSummary {
    /// Whether the latest fit failed: estimates are those of an earlier one.
    pub has_failed: bool,
    /// Posterior mean of mu under the published fit; its median if it has no mean.
    pub mu: Option<f64>,
    /// Posterior median of tau under the published fit.
    pub tau: Option<f64>,
    /// Posterior mean of the intraclass correlation of true effects under the published fit, where that is part of it.
    pub icc: Option<f64>,
    pub deff: Option<f64>,
    pub verdict: Option<Verdict>,
    pub experiments: u64,
    pub effects: u64,
}

/// How many populations there are in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PopulationCounts {
    pub all: u64,
    /// Those whose latest fit failed.
    pub failed: u64,
    /// Those with a prior that is far from their data.
    pub prior_far: u64,
    /// Those where only winners seem to arrive.
    pub selection_suspected: u64,
    /// Changes of blocks whose estimates are left to a pass.
    pub unpublished_changes: u64,
}

impl Lag {
    /// The age in seconds of the oldest record that is not committed yet; 0 if there is none.
    pub fn seconds(&self) -> f64 {
        self.since.map_or(0.0, seconds_since)
    }
}

/// The time since then in seconds. Not negative, even if a producer's clock is ahead.
pub(in crate::telemetry) fn seconds_since(then: OffsetDateTime) -> f64 {
    (OffsetDateTime::now_utc() - then).as_seconds_f64().max(0.0)
}
