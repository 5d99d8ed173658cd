//! Commands of the worker to its source.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stream::NextOffset;

/// Sends commands to a source. Clones send to the same one.
#[derive(Debug, Clone, Default)]
pub struct Commands(Arc<Mutex<Pending>>);

/// Commands that the source has not carried out yet.
#[derive(Debug, Default)]
struct Pending {
    commits: BTreeMap<i32, NextOffset>,
    parked: Vec<i32>,
}

impl Commands {
    /// Commits to Kafka the offsets that were committed to the store. They serve dashboards and autoscalers; nothing here
    /// reads them back. The source sends them within a second, without blocking the caller. For a revoked partition it
    /// sends only what was passed in before the worker confirmed that it is drained.
    pub fn commit(&self, ends: &[(i32, NextOffset)]) {
        self.pending().commits.extend(ends.iter().copied());
    }

    /// Stops reading partitions until they have been claimed again, which the source does after a few seconds.
    pub fn park(&self, partitions: &[i32]) {
        self.pending().parked.extend_from_slice(partitions);
    }

    pub(super) fn take_commits(&self) -> BTreeMap<i32, NextOffset> {
        std::mem::take(&mut self.pending().commits)
    }

    pub(super) fn take_parked(&self) -> Vec<i32> {
        std::mem::take(&mut self.pending().parked)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
