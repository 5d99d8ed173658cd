//! The ledger: the current results of one experiment, folded from its events.
//!
//! A pure fold, without I/O or clock. Each key (metric x segment x scale) holds its newest result or retraction. What
//! arrives is judged by its revision, compared with the one that the key holds:
//!
//! | what arrives | smaller | equal | larger |
//! | --- | --- | --- | --- |
//! | a whole result | stale | equal content: duplicate; else `revision_conflict` | replaces |
//! | a part | stale | new event id: added; equal content: duplicate; else `revision_conflict` | replaces |
//! | a retraction | stale | of a retraction: duplicate; of a result: `revision_conflict` | withdraws |
//!
//! - Events of distinct revisions, and the parts of one revision, may arrive in any order: the ledger ends the same.
//! - What was applied since the last tombstone may be applied again, in any order, without effect.
//! - In a conflict the first to arrive is kept. Results that an event does not contain, or that are refused, do not change.
//! - Retractions have revisions like results: they are remembered, also for keys not seen yet.

mod results;
mod retraction;
mod statistics;
mod stored;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use crate::event::{
    Arms, Event, ExperimentKind, Findings, Measured, Measurement, Properties, Reason, Refusal, ReportedResult,
    ResultKey, Warning, examine, merge_parts,
};
use results::Results;
use retraction::{Retractions, Scope};
use statistics::Statistics;
pub use statistics::{remeasure, with_successes};
pub use stored::{DamagedBytes, StoredResult, pack, unpack};

/// The current state of one experiment: plain data, empty until its first event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentLedger {
    /// The keys that hold a result: no retraction that covers an entry is newer than it.
    results: Results,
    retractions: Retractions,
    latest: Option<Latest>,
}

/// The properties of the experiment itself at its largest revision. Events of one revision (the parts of a sum) may differ in
/// them; their maximum does not depend on the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Latest {
    pub revision: u64,
    pub decision: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub completed_at: OffsetDateTime,
    pub kind: ExperimentKind,
    pub started_at: Option<OffsetDateTime>,
    pub shipped_variant: Option<String>,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    revision: u64,
    statistics: Statistics,
    properties: Properties,
    /// The block, or why the parts cannot be estimated yet.
    estimate: Result<Measured, Refusal>,
}

/// The effect of one event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// One for each result of the event, in its order.
    pub outcomes: Vec<Outcome>,
    /// The blocks that changed, in the order of the changes.
    pub changes: Vec<Change>,
    /// The treatments that are refused although their result is accepted, each with the result's place in the event. Those of a
    /// duplicate were refused when the result was accepted.
    pub refused_treatments: Vec<(usize, Refusal)>,
    /// What the blocks that were taken warn of.
    pub warnings: Vec<Warning>,
}

/// The outcome of one result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted.
    Accepted,
    /// Accepted as a part of a sum that cannot be estimated yet, for this reason; until it can, the key has no block.
    Pending(Refusal),
    /// Already present, with equal content.
    Duplicate,
    /// Older than what the key holds.
    Stale,
    /// Refused. A retraction of several keys is refused only for those that hold a result of its own revision.
    Refused(Refusal),
}

/// Counts of messages and of the outcomes of their results.
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

/// A block that was added, replaced or withdrawn: subtract `before`, add `after`. At least one of them is `Some`; both are the same
/// where only what is said of the effects has changed.
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
    /// [`DamagedBytes`] where the bytes cannot be read.
    pub fn restore(
        latest: Option<Latest>,
        retractions: Option<&[u8]>,
        results: impl IntoIterator<Item = StoredResult>,
    ) -> Result<ExperimentLedger, DamagedBytes> {
        let retractions = retractions.map(|bytes| unpack("retractions", bytes)).transpose()?.unwrap_or_default();
        let mut ledger = ExperimentLedger { retractions, latest, ..ExperimentLedger::default() };
        for StoredResult { key, revision, statistics, properties, measured } in results {
            let statistics: Statistics = unpack("statistics", &statistics)?;
            let estimate = match measured {
                Some(measured) => Ok(measured),
                None => Err(statistics.pending(key.scale)),
            };
            ledger.results.insert(key, Entry { revision, statistics, properties, estimate });
        }
        Ok(ledger)
    }

    /// Applies an event of this experiment.
    pub fn apply(&mut self, event: Event) -> Applied {
        let Event { revision, event_id, decision, labels, completed_at, kind, .. } = event;
        let Event { started_at, shipped_variant, results, experiment_id, .. } = event;
        // The precision that every store keeps, so that a timestamp that is read back compares equal.
        let completed_at = completed_at.truncate_to_microsecond();
        let started_at = started_at.map(OffsetDateTime::truncate_to_microsecond);
        let latest = Latest { revision, decision, labels, completed_at, kind, started_at, shipped_variant };
        self.latest = self.latest.take().max(Some(latest));
        let mut applied = Applied { outcomes: Vec::with_capacity(results.len()), ..Applied::default() };
        for (index, result) in results.into_iter().enumerate() {
            let mut findings = Findings::default();
            let changes = &mut applied.changes;
            let (outcome, metric) = match result {
                Ok(ReportedResult::Whole { key, measurement, measured, properties, findings: found }) => {
                    findings = found;
                    let metric = key.metric.clone();
                    let entry = Entry {
                        revision,
                        statistics: Statistics::Whole(measurement),
                        properties,
                        estimate: Ok(measured),
                    };
                    (self.replace(key, entry, changes), metric)
                }
                Ok(ReportedResult::Part { key, arms, properties }) => {
                    let metric = key.metric.clone();
                    let part = (event_id.as_deref(), arms, properties);
                    let (outcome, warnings) = self.accumulate(revision, key, part, changes);
                    findings.warnings =
                        warnings.into_iter().map(|warning| warning.named(&experiment_id, &metric)).collect();
                    (outcome, metric)
                }
                Ok(ReportedResult::Retraction { metric, segment, scale }) => {
                    let scope = Scope { metric: metric.clone(), segment, scale };
                    (self.retract(revision, scope, changes), metric)
                }
                Err(refusal) => {
                    applied.outcomes.push(Outcome::Refused(refusal));
                    continue;
                }
            };
            let outcome = match outcome {
                Outcome::Refused(refusal) => Outcome::Refused(refusal.named(&experiment_id, &metric)),
                outcome => outcome,
            };
            if matches!(outcome, Outcome::Accepted) {
                let refused = findings.refused.into_iter();
                applied.refused_treatments.extend(refused.map(|refusal| (index, refusal)));
                applied.warnings.extend(findings.warnings);
            }
            applied.outcomes.push(outcome);
        }
        applied
    }

    /// Withdraws every block and forgets everything, revisions included: the next event is treated as the first.
    pub fn tombstone(&mut self) -> Vec<Change> {
        let forgotten = std::mem::take(self);
        forgotten.results.into_iter().filter_map(|(key, entry)| Change::new(key, entry.into_block(), None)).collect()
    }

    /// The current blocks in the order of their keys, each with the revision that last changed it.
    pub fn blocks(&self) -> impl Iterator<Item = (&ResultKey, u64, &Measured)> {
        self.results.iter().filter_map(|(key, entry)| Some((key, entry.revision, entry.estimate.as_ref().ok()?)))
    }

    /// The same, by value, with what each says of its effects.
    pub(crate) fn into_blocks(self) -> impl Iterator<Item = (ResultKey, CurrentBlock, Properties)> {
        self.results.into_iter().filter_map(|(key, entry)| {
            let properties = entry.properties;
            Some((key, entry.into_block()?, properties))
        })
    }

    /// The keys whose parts cannot be estimated yet, and why.
    pub fn pending(&self) -> impl Iterator<Item = (&ResultKey, &Refusal)> {
        self.results.iter().filter_map(|(key, entry)| Some((key, entry.estimate.as_ref().err()?)))
    }

    /// What was sent for a key, packed, and the revision that last changed it; `None` where it holds no result.
    pub fn statistics(&self, key: &ResultKey) -> Option<(u64, Vec<u8>)> {
        let entry = self.results.get(key)?;
        Some((entry.revision, pack(&entry.statistics)))
    }

    /// The block of a key, or why its parts cannot be estimated yet; `None` where it holds no result.
    pub fn estimate(&self, key: &ResultKey) -> Option<Result<&Measured, &Refusal>> {
        Some(self.results.get(key)?.estimate.as_ref())
    }

    /// What the result of a key says of its effects at its largest revision; `None` where it holds no result.
    pub fn properties(&self, key: &ResultKey) -> Option<Properties> {
        Some(self.results.get(key)?.properties)
    }

    /// The retractions, packed; `None` where there are none.
    pub fn retractions(&self) -> Option<Vec<u8>> {
        (!self.retractions.is_empty()).then(|| pack::<Retractions>(&self.retractions))
    }

    /// The experiment itself at its largest revision; `None` before its first event.
    pub fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// What its events report: an experiment, before its first.
    pub fn kind(&self) -> ExperimentKind {
        self.latest.as_ref().map(|latest| latest.kind).unwrap_or_default()
    }

    /// What the platform decided at the largest revision seen.
    pub fn decision(&self) -> Option<&str> {
        self.latest.as_ref()?.decision.as_deref()
    }

    fn replace(&mut self, key: ResultKey, entry: Entry, changes: &mut Vec<Change>) -> Outcome {
        match Some(entry.revision).cmp(&self.revision(&key)) {
            Ordering::Less => Outcome::Stale,
            Ordering::Equal => match self.results.get(&key) {
                Some(held) if held.statistics.is_same(&entry.statistics) => {
                    changes.extend(self.describe(key, entry.properties));
                    Outcome::Duplicate
                }
                _ => revision_conflict(entry.revision, &key),
            },
            Ordering::Greater => {
                changes.extend(self.put(key, entry));
                Outcome::Accepted
            }
        }
    }

    /// Adds what a duplicate says of its effects to what the key holds. The block stays; whoever writes rows learns of it.
    fn describe(&mut self, key: ResultKey, properties: Properties) -> Option<Change> {
        let held = self.results.get(&key)?;
        let properties = held.properties.max(properties);
        if properties == held.properties {
            return None;
        }
        let described = Entry { properties, ..held.clone() };
        self.put(key, described)
    }

    /// The warnings are those of the sum.
    fn accumulate(
        &mut self,
        revision: u64,
        key: ResultKey,
        (event_id, arms, properties): (Option<&str>, Arms, Properties),
        changes: &mut Vec<Change>,
    ) -> (Outcome, Vec<Warning>) {
        let without_warning = |outcome: Outcome| (outcome, Vec::new());
        let Some(event_id) = event_id else {
            return without_warning(Outcome::Refused(Refusal::new(
                Reason::NotAccumulable,
                format!("a part for {} came without an event_id: send one that names this message", name(&key)),
            )));
        };
        let (mut parts, held) = match Some(revision).cmp(&self.revision(&key)) {
            Ordering::Less => return without_warning(Outcome::Stale),
            Ordering::Equal => match self.results.get(&key) {
                Some(Entry { statistics: Statistics::Parts(parts), properties, .. }) => (parts.clone(), *properties),
                _ => return without_warning(revision_conflict(revision, &key)),
            },
            Ordering::Greater => (BTreeMap::new(), Properties::default()),
        };
        match parts.get(event_id) {
            Some(known) if known.is_same(&arms) => {
                changes.extend(self.describe(key, properties));
                return without_warning(Outcome::Duplicate);
            }
            Some(_) => return without_warning(event_id_conflict(event_id, &key)),
            None => parts.insert(event_id.to_owned(), arms),
        };
        let examined = match merge_parts(parts.values()) {
            Ok(sum) => examine(key.scale, &Measurement::Arms(sum)),
            Err(refusal) => return without_warning(Outcome::Refused(refusal)),
        };
        let (outcome, estimate, warnings) = match examined {
            // A treatment that cannot be used yet is not refused: further parts may bring what it lacks.
            Ok((measured, Findings { warnings, .. })) => (Outcome::Accepted, Ok(measured), warnings),
            Err(refusal) => (Outcome::Pending(refusal.clone()), Err(refusal), Vec::new()),
        };
        let (statistics, properties) = (Statistics::Parts(parts), held.max(properties));
        changes.extend(self.put(key, Entry { revision, statistics, properties, estimate }));
        (outcome, warnings)
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
        // A retraction that can cover further keys is remembered even if it conflicts with this one: otherwise it would be
        // accepted when it is applied again after the conflicting result has been replaced.
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

    /// The revision of the newest result or retraction of a key.
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
            "revision {revision} already has another result for {}, which is kept: send the correction with a larger \
             revision",
            name(key)
        ),
    ))
}

fn event_id_conflict(event_id: &str, key: &ResultKey) -> Outcome {
    Outcome::Refused(Refusal::new(
        Reason::RevisionConflict,
        format!(
            "event_id `{event_id}` already has another part for {}, which is kept: give every part its own event_id",
            name(key)
        ),
    ))
}

/// What the names that a refusal gets do not say.
fn name(key: &ResultKey) -> String {
    format!("segment `{}`, scale {}", key.segment, key.scale)
}
