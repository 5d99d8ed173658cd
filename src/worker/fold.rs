//! The pure core of ingest: records and the stored state of the experiments they name in, changes out. No I/O, no clock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{
    Applied, Change, Counts, DamagedBytes, Event, ExperimentLedger, Grouping, Measured, Message, Outcome,
    PopulationName, Refusal, ReportedResult, ResultKey, StoredResult, chosen_variant, pack, unpack,
};
use shrinkd_model::{Component, Member, MemberError, Sketches};

use crate::row::{
    BlockRow, ChangedBlock, Changes, ExperimentRow, RejectedRow, RetiredEstimate, StoredBlock, StoredExperiment,
};
use crate::worker::source::Record;

/// What records change, and what became of them.
#[derive(Debug, Default)]
pub struct Folded {
    pub changes: Changes,
    /// A message that is refused whole has no results, and is not among the refused.
    pub counts: Counts,
    /// What became of each record's results; none of a record that was passed over, refused whole, or a tombstone.
    pub outcomes: Vec<Vec<Outcome>>,
}

/// A stored experiment that cannot be read back, or a block that does not fit its population: neither can come from input.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(
        "experiment {experiment_id}: {source}; `shrinkd verify` lists what is, docs/operations.md says how it is mended"
    )]
    Damaged { experiment_id: String, source: DamagedBytes },
    #[error("experiment {experiment_id}: a measured block does not fit its population: {source} (a bug)")]
    Member { experiment_id: String, source: MemberError },
}

/// The experiments that records name: what a store has to read before they can be folded. `is_ours` as for [`fold`].
pub fn named_experiments(records: &[Record], is_ours: impl Fn(&Record) -> Option<i64>) -> BTreeSet<String> {
    records
        .iter()
        .filter(|record| is_ours(record).is_some())
        .filter_map(|record| match &record.message {
            Ok(Message::Event(event)) => Some(event.experiment_id.clone()),
            Ok(Message::Tombstone { experiment_id }) => Some(experiment_id.clone()),
            Err(_) => None,
        })
        .collect()
}

/// Folds records, in their order, into what is stored of their experiments.
///
/// `is_ours` gives the store's key of a record's partition; `None` passes the record over.
///
/// # Errors
/// [`FoldError`], which input cannot cause.
pub fn fold(
    records: &[Record],
    stored: BTreeMap<String, StoredExperiment>,
    grouping: &Grouping,
    is_ours: impl Fn(&Record) -> Option<i64>,
) -> Result<Folded, FoldError> {
    let mut experiments = BTreeMap::new();
    for (experiment_id, stored) in stored {
        let working = Working::restore(stored)
            .map_err(|source| FoldError::Damaged { experiment_id: experiment_id.clone(), source })?;
        experiments.insert(experiment_id, working);
    }
    let mut changes = Changes::default();
    let mut counts = Counts::default();
    let mut outcomes = vec![Vec::new(); records.len()];
    for (record, outcomes) in records.iter().zip(&mut outcomes) {
        let Some(partition_id) = is_ours(record) else { continue };
        counts.messages += 1;
        let (experiment_id, refusals) = match record.message.clone() {
            Err(refusal) => (None, vec![(None, refusal)]),
            Ok(Message::Tombstone { experiment_id }) => {
                counts.tombstones += 1;
                changes.tombstones.insert(experiment_id.clone(), (partition_id, record.offset));
                if let Some(working) = experiments.get_mut(&experiment_id) {
                    working.tombstone();
                }
                continue;
            }
            Ok(Message::Event(event)) => {
                let experiment_id = event.experiment_id.clone();
                let working = experiments.entry(experiment_id.clone()).or_insert_with(Working::new);
                let (own, refusals) = working.apply(event, &mut counts);
                *outcomes = own;
                (Some(experiment_id), refusals)
            }
        };
        // A thousand results of a message can be refused: its bytes are kept once.
        let mut payload = record.payload.as_ref().filter(|_| !refusals.is_empty()).cloned();
        changes.rejected.extend(refusals.into_iter().map(|(result_index, refusal)| RejectedRow {
            partition_id,
            offset: record.offset,
            result_index,
            experiment_id: experiment_id.clone(),
            refusal,
            key: record.key.clone(),
            payload: payload.take(),
            payload_bytes: record.payload_bytes as i64,
            produced_at: record.produced_at,
        }));
    }
    for (experiment_id, working) in experiments {
        working.finish(&experiment_id, grouping, &mut changes)?;
    }
    Ok(Folded { changes, counts, outcomes })
}

/// One experiment while a batch is folded.
struct Working {
    ledger: ExperimentLedger,
    /// What the store holds, by key.
    held: BTreeMap<ResultKey, Held>,
    /// The keys that moved, and the block that each held before.
    touched: BTreeMap<ResultKey, Option<Measured>>,
    is_stored: bool,
    is_moved: bool,
}

struct Held {
    population: PopulationName,
    components: Option<Vec<u8>>,
}

impl Working {
    fn new() -> Working {
        Working {
            ledger: ExperimentLedger::default(),
            held: BTreeMap::new(),
            touched: BTreeMap::new(),
            is_stored: false,
            is_moved: false,
        }
    }

    fn restore(stored: StoredExperiment) -> Result<Working, DamagedBytes> {
        let mut results = Vec::with_capacity(stored.blocks.len());
        let mut held = BTreeMap::new();
        for StoredBlock { key, population, revision, statistics, block, components } in stored.blocks {
            let measured = block.map(|bytes| unpack("block", &bytes)).transpose()?;
            held.insert(key.clone(), Held { population, components });
            results.push(StoredResult { key, revision, statistics, measured });
        }
        let ledger = ExperimentLedger::restore(Some(stored.latest), stored.retractions.as_deref(), results)?;
        Ok(Working { ledger, held, is_stored: true, ..Working::new() })
    }

    /// Applies an event; returns what became of its results, and what was refused of them, with its place in the event.
    fn apply(&mut self, event: Event, counts: &mut Counts) -> (Vec<Outcome>, Vec<(Option<i32>, Refusal)>) {
        let parts: Vec<Option<ResultKey>> = event.results.iter().map(|result| part_key(result).cloned()).collect();
        let latest = self.ledger.latest().cloned();
        let Applied { outcomes, changes } = self.ledger.apply(event);
        self.is_moved |= self.ledger.latest() != latest.as_ref() || !changes.is_empty();
        for Change { key, before, .. } in changes {
            self.touch(key, before.map(|block| block.measured));
        }
        let mut refusals = Vec::new();
        for (index, (outcome, part)) in outcomes.iter().zip(parts).enumerate() {
            counts.add(outcome);
            match outcome {
                // A retraction is remembered with its experiment, and a part is kept, even where no block moves.
                Outcome::Accepted | Outcome::Pending(_) => {
                    self.is_moved = true;
                    part.into_iter().for_each(|key| self.touch(key, None));
                }
                // A retraction that conflicts with one key is remembered for the others.
                Outcome::Refused(refusal) => {
                    self.is_moved = true;
                    refusals.push((i32::try_from(index).ok(), refusal.clone()));
                }
                Outcome::Duplicate | Outcome::Stale => {}
            }
        }
        (outcomes, refusals)
    }

    fn tombstone(&mut self) {
        for Change { key, before, .. } in self.ledger.tombstone() {
            self.touch(key, before.map(|block| block.measured));
        }
        self.is_moved = true;
    }

    /// The first to touch a key knows what the store holds there.
    fn touch(&mut self, key: ResultKey, before: Option<Measured>) {
        if let Entry::Vacant(vacant) = self.touched.entry(key) {
            vacant.insert(before);
        }
    }

    /// Says what changed between what was stored and what stands now.
    fn finish(mut self, experiment_id: &str, grouping: &Grouping, changes: &mut Changes) -> Result<(), FoldError> {
        if !self.is_moved {
            return Ok(());
        }
        let unfit = |source| FoldError::Member { experiment_id: experiment_id.to_owned(), source };
        let damaged = |source| FoldError::Damaged { experiment_id: experiment_id.to_owned(), source };
        self.touch_withdrawn_sums();
        self.touch_moved_populations(grouping);
        for (key, before) in std::mem::take(&mut self.touched) {
            let held = self.held.remove(&key);
            let population = self.population(&key, grouping);
            let mut after = None;
            if let Some((revision, statistics)) = self.ledger.statistics(&key) {
                let estimate = self.ledger.estimate(&key);
                let pending = estimate.and_then(Result::err).cloned();
                let mut block = StoredBlock {
                    key: key.clone(),
                    population: population.clone(),
                    revision,
                    statistics,
                    block: None,
                    components: None,
                };
                if let Some(measured) = estimate.and_then(Result::ok) {
                    let chosen = self.chosen(experiment_id, measured, grouping);
                    let member = Member::new(measured.block.clone(), chosen).map_err(unfit)?;
                    block.block = Some(pack(measured));
                    block.components = Some(pack(member.own_components()));
                    after = Some((revision, measured.clone(), member));
                }
                changes.blocks.push(BlockRow { experiment_id: experiment_id.to_owned(), block, pending });
            } else if held.is_some() {
                changes.withdrawn_blocks.push((experiment_id.to_owned(), key.clone()));
            }
            if let (Some(measured), Some(held)) = (&before, &held) {
                let bytes = held.components.as_deref().unwrap_or_default();
                let components: Vec<Component> = unpack("components", bytes).map_err(damaged)?;
                let chosen = self.chosen(experiment_id, measured, grouping);
                let member = Member::restore(measured.block.clone(), components, chosen);
                let cells = changes.cells.entry(held.population.clone()).or_default();
                cells.change(&member, -1, Sketches::subtract).map_err(|error| unfit(error.into()))?;
                let stands = |variant: &String| {
                    let still = after.as_ref().is_some_and(|(_, after, _)| after.variants.contains(variant));
                    still && population == held.population
                };
                changes.retired.extend(measured.variants.iter().filter(|variant| !stands(variant)).map(|variant| {
                    RetiredEstimate {
                        population: held.population.clone(),
                        experiment_id: experiment_id.to_owned(),
                        variant: variant.clone(),
                    }
                }));
            }
            if let Some((revision, measured, member)) = after {
                let cells = changes.cells.entry(population.clone()).or_default();
                cells.change(&member, 1, Sketches::add).map_err(|error| unfit(error.into()))?;
                let experiment_id = experiment_id.to_owned();
                changes.changed.push(ChangedBlock { population, experiment_id, revision, measured });
            }
        }
        match self.ledger.latest() {
            Some(latest) => {
                let rows = if self.is_stored { &mut changes.experiments } else { &mut changes.new_experiments };
                rows.push(ExperimentRow {
                    experiment_id: experiment_id.to_owned(),
                    latest: latest.clone(),
                    retractions: self.ledger.retractions(),
                });
            }
            None if self.is_stored => changes.forgotten_experiments.push(experiment_id.to_owned()),
            None => {}
        }
        Ok(())
    }

    /// A sum of parts that cannot be estimated yet has no block: none moves when it is retracted.
    fn touch_withdrawn_sums(&mut self) {
        let withdrawn = self.held.keys().filter(|key| self.ledger.estimate(key).is_none());
        let withdrawn: Vec<ResultKey> = withdrawn.cloned().collect();
        withdrawn.into_iter().for_each(|key| self.touch(key, None));
    }

    /// New labels can move an experiment's blocks to other populations, also those that no result named.
    fn touch_moved_populations(&mut self, grouping: &Grouping) {
        let moved: Vec<(ResultKey, Option<Measured>)> = self
            .held
            .iter()
            .filter(|(key, held)| held.population != self.population(key, grouping))
            .map(|(key, _)| (key.clone(), self.ledger.estimate(key).and_then(Result::ok).cloned()))
            .collect();
        moved.into_iter().for_each(|(key, measured)| self.touch(key, measured));
    }

    fn population(&self, key: &ResultKey, grouping: &Grouping) -> PopulationName {
        PopulationName::new(key.clone(), self.ledger.latest().map(|latest| &latest.labels), &grouping.labels)
    }

    fn chosen(&self, experiment_id: &str, measured: &Measured, grouping: &Grouping) -> usize {
        chosen_variant(grouping.one_per_experiment_seed, experiment_id, &measured.variants).unwrap_or(0)
    }
}

/// The key of a part: kept even where no block moves.
fn part_key(result: &Result<ReportedResult, Refusal>) -> Option<&ResultKey> {
    match result {
        Ok(ReportedResult::Part { key, .. }) => Some(key),
        _ => None,
    }
}
