//! What the worker has its source do, besides reading.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stream::NextOffset;

/// What the worker has its source do. Clones give orders to the same one.
#[derive(Debug, Clone, Default)]
pub struct Orders(Arc<Mutex<Pending>>);

/// Orders that the source has not carried out yet.
#[derive(Debug, Default)]
struct Pending {
    commits: BTreeMap<i32, NextOffset>,
    aside: Vec<i32>,
}

impl Orders {
    /// Notes how far partitions are committed in the store, for the offsets that Kafka holds for the group: they are for
    /// dashboards and autoscalers, nothing here reads them back. Kafka hears of it within a second, without a wait here; of a
    /// partition that is given away only what was noted before the worker said that it is drained.
    pub fn commit(&self, ends: &[(i32, NextOffset)]) {
        self.pending().commits.extend(ends.iter().copied());
    }

    /// Has partitions not be read until they have been claimed again, which the source does after a few seconds.
    pub fn set_aside(&self, partitions: &[i32]) {
        self.pending().aside.extend_from_slice(partitions);
    }

    pub(super) fn take_commits(&self) -> BTreeMap<i32, NextOffset> {
        std::mem::take(&mut self.pending().commits)
    }

    pub(super) fn take_aside(&self) -> Vec<i32> {
        std::mem::take(&mut self.pending().aside)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
