//! The ledger: what currently stands of one experiment, folded from its events.
//!
//! A pure fold, without I/O or clock. Each key (metric x segment x scale) holds the newest statement about it, and
//! what arrives is judged by its revision against the one that the key holds:
//!
//! | what arrives | smaller | equal | larger |
//! | --- | --- | --- | --- |
//! | a whole result | stale | equal content: duplicate; else `revision_conflict` | replaces |
//! | a part | stale | new event id: added; equal content: duplicate; else `revision_conflict` | replaces |
//! | a retraction | stale | of a retraction: duplicate; of a result: `revision_conflict` | withdraws |
//!
//! - Events of distinct revisions, and the parts of one revision, may arrive in any order: the ledger ends the same.
//! - Whatever was applied since the last tombstone may be applied again, in any order: nothing changes.
//! - In a conflict the first to arrive stands. Results that an event does not mention, or is refused for, stay.
//! - Retractions are statements like results: they are remembered, also for keys not seen yet.

mod results;
mod retraction;
mod statistics;
mod stored;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use crate::event::{
    Arms, Event, Measured, Measurement, Reason, Refusal, ReportedResult, ResultKey, measure, merge_parts,
};
use results::Results;
use retraction::{Retractions, Scope};
use statistics::Statistics;
pub use statistics::remeasure;
pub use stored::{DamagedBytes, StoredResult, pack, unpack};

/// The current state of one experiment: plain data, empty until its first event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentLedger {
    /// The keys whose newest statement is a result: no retraction that covers an entry is newer than it.
    results: Results,
    retractions: Retractions,
    latest: Option<Latest>,
}

/// What the events of the largest revision say of the experiment itself. Events of one revision (the parts of a sum) may
/// differ in it: their maximum does not depend on their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Latest {
    pub revision: u64,
    pub decision: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub completed_at: OffsetDateTime,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    revision: u64,
    statistics: Statistics,
    /// The block, or why the parts cannot be estimated yet.
    estimate: Result<Measured, Refusal>,
}

/// What one event did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// One for each result of the event, in its order.
    pub outcomes: Vec<Outcome>,
    /// The blocks that moved, in the order in which they did.
    pub changes: Vec<Change>,
}

/// What became of one result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Accepted,
    /// Taken as a part of a sum that cannot be estimated yet, for this reason; until it can, the key has no block.
    Pending(Refusal),
    /// Already there, with equal content.
    Duplicate,
    /// Older than what stands.
    Stale,
    /// Not taken. A retraction of several keys is refused only for those that hold a result of its own revision.
    Refused(Refusal),
}

/// What became of some messages and of their results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub messages: u64,
    pub tombstones: u64,
    pub accepted: u64,
    pub duplicates: u64,
    pub stale: u64,
    pub pending: u64,
    pub refused: u64,
}

/// A block that was put in, replaced or withdrawn: subtract `before`, add `after`. At least one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub key: ResultKey,
    pub before: Option<CurrentBlock>,
    pub after: Option<CurrentBlock>,
}

/// A block and the revision that last changed it. Parts of one revision change the block under the same revision.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrentBlock {
    pub revision: u64,
    pub measured: Measured,
}

impl Counts {
    /// Counts one result.
    pub fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Accepted => &mut self.accepted,
            Outcome::Pending(_) => &mut self.pending,
            Outcome::Duplicate => &mut self.duplicates,
            Outcome::Stale => &mut self.stale,
            Outcome::Refused(_) => &mut self.refused,
        } += 1;
    }
}

impl ExperimentLedger {
    /// The ledger that was stored as these entries.
    ///
    /// # Errors
    /// Where bytes are not what they should be.
    pub fn restore(
        latest: Option<Latest>,
        retractions: Option<&[u8]>,
        results: impl IntoIterator<Item = StoredResult>,
    ) -> Result<ExperimentLedger, DamagedBytes> {
        let retractions = retractions.map(|bytes| unpack("retractions", bytes)).transpose()?.unwrap_or_default();
        let mut ledger = ExperimentLedger { retractions, latest, ..ExperimentLedger::default() };
        for StoredResult { key, revision, statistics, measured } in results {
            let statistics: Statistics = unpack("statistics", &statistics)?;
            let estimate = match measured {
                Some(measured) => Ok(measured),
                None => Err(statistics.pending(key.scale)),
            };
            ledger.results.insert(key, Entry { revision, statistics, estimate });
        }
        Ok(ledger)
    }

    /// Folds an event of this experiment in.
    pub fn apply(&mut self, event: Event) -> Applied {
        let Event { revision, event_id, decision, labels, completed_at, results, experiment_id: _ } = event;
        // What every store keeps of a timestamp, so that the one that is read back compares equal.
        let completed_at = completed_at.truncate_to_microsecond();
        self.latest = self.latest.take().max(Some(Latest { revision, decision, labels, completed_at }));
        let mut changes = Vec::with_capacity(results.len());
        let outcomes = results
            .into_iter()
            .map(|result| match result {
                Ok(ReportedResult::Whole { key, measurement, measured }) => {
                    self.replace(revision, key, measurement, measured, &mut changes)
                }
                Ok(ReportedResult::Part { key, arms }) => {
                    self.accumulate(revision, event_id.as_deref(), key, arms, &mut changes)
                }
                Ok(ReportedResult::Retraction { metric, segment, scale }) => {
                    self.retract(revision, Scope { metric, segment, scale }, &mut changes)
                }
                Err(refusal) => Outcome::Refused(refusal),
            })
            .collect();
        Applied { outcomes, changes }
    }

    /// Withdraws every block and forgets everything, revisions included: what comes next is taken as if for the first
    /// time.
    pub fn tombstone(&mut self) -> Vec<Change> {
        let forgotten = std::mem::take(self);
        forgotten.results.into_iter().filter_map(|(key, entry)| Change::new(key, entry.into_block(), None)).collect()
    }

    /// The current blocks in the order of their keys, each with the revision that last changed it.
    pub fn blocks(&self) -> impl Iterator<Item = (&ResultKey, u64, &Measured)> {
        self.results.iter().filter_map(|(key, entry)| Some((key, entry.revision, entry.estimate.as_ref().ok()?)))
    }

    /// The same, taken out of the ledger.
    pub(crate) fn into_blocks(self) -> impl Iterator<Item = (ResultKey, CurrentBlock)> {
        self.results.into_iter().filter_map(|(key, entry)| Some((key, entry.into_block()?)))
    }

    /// The keys whose parts cannot be estimated yet, and why.
    pub fn pending(&self) -> impl Iterator<Item = (&ResultKey, &Refusal)> {
        self.results.iter().filter_map(|(key, entry)| Some((key, entry.estimate.as_ref().err()?)))
    }

    /// What was sent of a key, in bytes, and the revision that last changed it; `None` where it holds no result.
    pub fn statistics(&self, key: &ResultKey) -> Option<(u64, Vec<u8>)> {
        let entry = self.results.get(key)?;
        Some((entry.revision, pack(&entry.statistics)))
    }

    /// The block of a key, or why its parts cannot be estimated yet; `None` where it holds no result.
    pub fn estimate(&self, key: &ResultKey) -> Option<Result<&Measured, &Refusal>> {
        Some(self.results.get(key)?.estimate.as_ref())
    }

    /// What was retracted, in bytes; `None` where nothing is remembered.
    pub fn retractions(&self) -> Option<Vec<u8>> {
        (!self.retractions.is_empty()).then(|| pack::<Retractions>(&self.retractions))
    }

    /// What was last said of the experiment itself; `None` before its first event.
    pub fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// What the platform decided at the largest revision seen.
    pub fn decision(&self) -> Option<&str> {
        self.latest.as_ref()?.decision.as_deref()
    }

    fn replace(
        &mut self,
        revision: u64,
        key: ResultKey,
        measurement: Measurement,
        measured: Measured,
        changes: &mut Vec<Change>,
    ) -> Outcome {
        let statistics = Statistics::Whole(measurement);
        match Some(revision).cmp(&self.revision(&key)) {
            Ordering::Less => Outcome::Stale,
            Ordering::Equal => match self.results.get(&key) {
                Some(held) if held.statistics == statistics => Outcome::Duplicate,
                _ => revision_conflict(revision, &key),
            },
            Ordering::Greater => {
                changes.extend(self.put(key, Entry { revision, statistics, estimate: Ok(measured) }));
                Outcome::Accepted
            }
        }
    }

    fn accumulate(
        &mut self,
        revision: u64,
        event_id: Option<&str>,
        key: ResultKey,
        arms: Arms,
        changes: &mut Vec<Change>,
    ) -> Outcome {
        let Some(event_id) = event_id else {
            return Outcome::Refused(Refusal::new(
                Reason::NotAccumulable,
                format!("a part of {} came without an event_id: send one that names this message", name(&key)),
            ));
        };
        let mut parts = match Some(revision).cmp(&self.revision(&key)) {
            Ordering::Less => return Outcome::Stale,
            Ordering::Equal => match self.results.get(&key).map(|held| &held.statistics) {
                Some(Statistics::Parts(parts)) => parts.clone(),
                _ => return revision_conflict(revision, &key),
            },
            Ordering::Greater => BTreeMap::new(),
        };
        match parts.get(event_id) {
            Some(held) if *held == arms => return Outcome::Duplicate,
            Some(_) => return event_id_conflict(event_id, &key),
            None => parts.insert(event_id.to_owned(), arms),
        };
        let estimate = match merge_parts(parts.values()) {
            Ok(sum) => measure(key.scale, &Measurement::Arms(sum)),
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let outcome = match &estimate {
            Ok(_) => Outcome::Accepted,
            Err(refusal) => Outcome::Pending(refusal.clone()),
        };
        changes.extend(self.put(key, Entry { revision, statistics: Statistics::Parts(parts), estimate }));
        outcome
    }

    fn retract(&mut self, revision: u64, scope: Scope, changes: &mut Vec<Change>) -> Outcome {
        let retracted = self.retractions.newest(&scope);
        if retracted > Some(revision) {
            return Outcome::Stale;
        }
        let withdrawn = self
            .results
            .extract_if(scope.keys(), |key, entry| scope.covers(key) && entry.revision < revision)
            .filter_map(|(key, entry)| Change::new(key, entry.into_block(), None));
        changes.extend(withdrawn);

        let mut standing = self.results.range(scope.keys()).filter(|(key, _)| scope.covers(key)).peekable();
        let is_overtaken = scope.is_single() && standing.peek().is_some();
        let conflict = standing.find(|(_, entry)| entry.revision == revision).map(|(key, _)| key.clone());
        // Where another key may come, the retraction is remembered even if it conflicts with this one: otherwise it would
        // be taken when it is applied again after the result in its way has moved on.
        if !is_overtaken {
            self.retractions.remember(scope, revision);
        }
        match conflict {
            Some(key) => revision_conflict(revision, &key),
            None if is_overtaken => Outcome::Stale,
            None if retracted == Some(revision) => Outcome::Duplicate,
            None => Outcome::Accepted,
        }
    }

    /// The revision of the newest statement about a key.
    fn revision(&self, key: &ResultKey) -> Option<u64> {
        match self.results.get(key) {
            Some(entry) => Some(entry.revision),
            None => self.retractions.newest_of(key),
        }
    }

    fn put(&mut self, key: ResultKey, entry: Entry) -> Option<Change> {
        self.retractions.forget(&key);
        let after = entry.clone_block();
        let before = self.results.insert(key.clone(), entry).and_then(Entry::into_block);
        Change::new(key, before, after)
    }
}

impl Entry {
    fn into_block(self) -> Option<CurrentBlock> {
        Some(CurrentBlock { revision: self.revision, measured: self.estimate.ok()? })
    }

    fn clone_block(&self) -> Option<CurrentBlock> {
        Some(CurrentBlock { revision: self.revision, measured: self.estimate.as_ref().ok()?.clone() })
    }
}

impl Change {
    fn new(key: ResultKey, before: Option<CurrentBlock>, after: Option<CurrentBlock>) -> Option<Change> {
        (before.is_some() || after.is_some()).then_some(Change { key, before, after })
    }
}

fn revision_conflict(revision: u64, key: &ResultKey) -> Outcome {
    Outcome::Refused(Refusal::new(
        Reason::RevisionConflict,
        format!(
            "revision {revision} has already said something else of {}, which stands: send the correction with a larger \
             revision",
            name(key)
        ),
    ))
}

fn event_id_conflict(event_id: &str, key: &ResultKey) -> Outcome {
    Outcome::Refused(Refusal::new(
        Reason::RevisionConflict,
        format!(
            "event_id `{event_id}` has already brought another part of {}, which stands: give every part its own event_id",
            name(key)
        ),
    ))
}

fn name(key: &ResultKey) -> String {
    format!("metric `{}`, segment `{}`, scale {}", key.metric, key.segment, key.scale)
}
