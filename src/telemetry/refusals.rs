//! What was refused since the worker started: how many for each reason, and the first of each, for the summary of a run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shrinkd_core::{Reason, Refusal};

/// The refused messages, results and treatments by reason. Clones share them.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<Reason, Refused>>>);

/// What was refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub count: u64,
    /// The offset of the first message: of a file, its first byte.
    pub offset: i64,
    /// The sentence about the first.
    pub detail: String,
}

impl Refusals {
    /// Counts what was refused in the message at an offset.
    pub fn count(&self, offset: i64, refusal: &Refusal) {
        let first = || Refused { count: 0, offset, detail: refusal.detail.clone() };
        self.refused().entry(refusal.reason).or_insert_with(first).count += 1;
    }

    /// All so far, in the order of the checks.
    pub fn by_reason(&self) -> Vec<(Reason, Refused)> {
        self.refused().iter().map(|(&reason, refused)| (reason, refused.clone())).collect()
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<Reason, Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
