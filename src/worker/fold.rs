//! The pure core of ingest: from records and the stored state of their experiments to the changes to store. No I/O, no clock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{
    Applied, Change, Counts, DamagedBytes, Event, ExperimentKind, ExperimentLedger, Grouping, Measured, Message,
    Outcome, PopulationName, Properties, Refusal, ReportedResult, ResultKey, StoredResult, UnknownField, Warning, pack,
    unpack,
};
use shrinkd_model::{Member, MemberError};

use crate::row::{
    BlockChange, BlockRow, BlockToEstimate, Changes, CountedBlock, ExperimentRow, RejectedRow, RetiredEstimate,
    StoredBlock, StoredExperiment,
};
use crate::worker::admission::Admission;
use crate::worker::source::Record;

/// The changes that some records make, and the outcomes of the records.
#[derive(Debug, Default)]
pub struct Folded {
    pub changes: Changes,
    /// `refused` counts results only, not messages that are refused as a whole.
    pub counts: Counts,
    /// The outcomes of each record's results. Empty if the record was skipped, was refused as a whole, or is a tombstone.
    pub outcomes: Vec<Vec<Outcome>>,
    /// What the results that were taken warn of.
    pub warnings: Vec<Warning>,
    /// The fields of events that the contract does not have.
    pub unknown_fields: Vec<UnknownField>,
}

/// Damaged stored data, or a block that does not fit its population. Input cannot cause either.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(
        "experiment {experiment_id}: {source}; `shrinkd verify` lists all damage, docs/operations.md explains repairs"
    )]
    Damaged { experiment_id: String, source: DamagedBytes },
    #[error("experiment {experiment_id}: a measured block does not fit its population: {source} (a bug)")]
    Member { experiment_id: String, source: MemberError },
}

/// The experiments of some records, whose stored state [`fold`] needs. `is_ours` as for [`fold`].
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

/// Applies records, in their order, to the stored state of their experiments.
///
/// `admission` refuses what there is no room for; `is_ours` returns the store's key of a record's partition, or `None` to
/// skip the record.
///
/// # Errors
/// [`FoldError`], which input cannot cause.
pub fn fold(
    records: &[Record],
    stored: BTreeMap<String, StoredExperiment>,
    grouping: &Grouping,
    mut admission: Admission,
    is_ours: impl Fn(&Record) -> Option<i64>,
) -> Result<Folded, FoldError> {
    let mut experiments = BTreeMap::new();
    for (experiment_id, stored) in stored {
        experiments.insert(experiment_id.clone(), Working::restore(experiment_id, stored, grouping)?);
    }
    let mut changes = Changes::default();
    let mut counts = Counts::default();
    let mut outcomes = vec![Vec::new(); records.len()];
    let mut warnings = Vec::new();
    let mut unknown_fields = Vec::new();
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
            Ok(Message::Event(mut event)) => {
                unknown_fields.append(&mut event.unknown_fields);
                let experiment_id = event.experiment_id.clone();
                let new = || Working::new(experiment_id.clone(), grouping);
                let working = experiments.entry(experiment_id.clone()).or_insert_with(new);
                let (own, refusals) = working.apply(event, &mut admission, &mut counts, &mut warnings);
                *outcomes = own;
                (Some(experiment_id), refusals)
            }
        };
        // Many results of one message can be refused: its payload is kept with the first of them only.
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
    for working in experiments.into_values() {
        working.finish(&mut changes)?;
    }
    changes.new_populations = admission.into_admitted();
    Ok(Folded { changes, counts, outcomes, warnings, unknown_fields })
}

/// One experiment while a batch is folded.
struct Working<'a> {
    experiment_id: String,
    grouping: &'a Grouping,
    ledger: ExperimentLedger,
    /// The population of each result that the store holds; `None` of a holdout.
    held: BTreeMap<ResultKey, Option<PopulationName>>,
    /// The keys that may have changed, and the block that the store holds there.
    touched: BTreeMap<ResultKey, Option<Measured>>,
    is_stored: bool,
    /// As it is stored.
    shipped_variant: Option<String>,
    has_changed: bool,
}

/// A block of a population.
struct Placed {
    population: PopulationName,
    measured: Measured,
    counted: CountedBlock,
}

impl<'a> Working<'a> {
    fn new(experiment_id: String, grouping: &'a Grouping) -> Working<'a> {
        Working {
            experiment_id,
            grouping,
            ledger: ExperimentLedger::default(),
            held: BTreeMap::new(),
            touched: BTreeMap::new(),
            is_stored: false,
            shipped_variant: None,
            has_changed: false,
        }
    }

    fn restore(
        experiment_id: String,
        stored: StoredExperiment,
        grouping: &'a Grouping,
    ) -> Result<Working<'a>, FoldError> {
        let shipped_variant = stored.latest.shipped_variant.clone();
        let mut working = Working { is_stored: true, shipped_variant, ..Working::new(experiment_id, grouping) };
        let mut results = Vec::with_capacity(stored.blocks.len());
        for StoredBlock { key, population, revision, statistics, properties, block } in stored.blocks {
            let measured = block.map(|bytes| unpack("block", &bytes)).transpose();
            let measured = measured.map_err(|source| working.damaged(source))?;
            working.held.insert(key.clone(), population);
            results.push(StoredResult { key, revision, statistics, properties, measured });
        }
        working.ledger = ExperimentLedger::restore(Some(stored.latest), stored.retractions.as_deref(), results)
            .map_err(|source| working.damaged(source))?;
        Ok(working)
    }

    /// Applies an event. Returns the outcomes of its results and its refusals, those of single treatments included, each with
    /// the result's index.
    fn apply(
        &mut self,
        event: Event,
        admission: &mut Admission,
        counts: &mut Counts,
        warnings: &mut Vec<Warning>,
    ) -> (Vec<Outcome>, Vec<(Option<i32>, Refusal)>) {
        let event = match admission.admit(&self.ledger, self.grouping, event) {
            Ok(event) => event,
            Err(refusal) => return (Vec::new(), vec![(None, refusal)]),
        };
        let parts = event.results.iter().map(|result| {
            let key = part_key(result)?.clone();
            let said = self.ledger.properties(&key);
            Some((key, said))
        });
        let parts: Vec<Option<(ResultKey, Option<Properties>)>> = parts.collect();
        let latest = self.ledger.latest().cloned();
        let Applied { outcomes, changes, refused_treatments, warnings: own } = self.ledger.apply(event);
        warnings.extend(own);
        self.has_changed |= self.ledger.latest() != latest.as_ref() || !changes.is_empty();
        for Change { key, before, .. } in changes {
            self.touch(key, before.map(|block| block.measured));
        }
        let mut refusals = Vec::new();
        for (index, (outcome, part)) in outcomes.iter().zip(parts).enumerate() {
            counts.add(outcome);
            match outcome {
                // A retraction is stored with its experiment, and a part with its sum, even where no block changes.
                Outcome::Accepted | Outcome::Pending(_) => {
                    self.has_changed = true;
                    part.into_iter().for_each(|(key, _)| self.touch(key, None));
                }
                // A retraction that conflicts with one key still applies to the others.
                Outcome::Refused(refusal) => {
                    self.has_changed = true;
                    refusals.push((i32::try_from(index).ok(), refusal.clone()));
                }
                // Of a sum that waits for its parts, what a duplicate says of the effects changes no block either.
                Outcome::Duplicate => {
                    if let Some((key, _)) = part.filter(|(key, said)| self.ledger.properties(key) != *said) {
                        self.has_changed = true;
                        self.touch(key, None);
                    }
                }
                Outcome::Stale => {}
            }
        }
        refusals.extend(refused_treatments.into_iter().map(|(index, refusal)| (i32::try_from(index).ok(), refusal)));
        (outcomes, refusals)
    }

    fn tombstone(&mut self) {
        for Change { key, before, .. } in self.ledger.tombstone() {
            self.touch(key, before.map(|block| block.measured));
        }
        self.has_changed = true;
    }

    /// Only the first change of a key starts from what the store holds: later ones are ignored.
    fn touch(&mut self, key: ResultKey, before: Option<Measured>) {
        if let Entry::Vacant(vacant) = self.touched.entry(key) {
            vacant.insert(before);
        }
    }

    /// Adds the differences between what is stored and what the ledger holds now.
    fn finish(mut self, changes: &mut Changes) -> Result<(), FoldError> {
        if !self.has_changed {
            return Ok(());
        }
        self.touch_withdrawn_sums();
        self.touch_moved_blocks();
        for (key, before) in std::mem::take(&mut self.touched) {
            let held = self.held.remove(&key);
            let is_held = held.is_some();
            let after = self.block_now(&key)?;
            let before = self.block_before(before, held.flatten());
            if let Some(before) = &before {
                changes.retired.extend(self.retired(before, after.as_ref()));
            }
            changes.block_changes.extend(block_changes(before, after.as_ref()));
            match self.row(&key) {
                Some(row) => {
                    changes.changed.extend(after.map(|Placed { population, measured, .. }| BlockToEstimate {
                        population,
                        experiment_id: self.experiment_id.clone(),
                        revision: row.block.revision,
                        measured,
                        properties: row.block.properties,
                        shipped_variant: self.shipped_variant_now().cloned(),
                    }));
                    changes.blocks.push(row);
                }
                None if is_held => changes.withdrawn_blocks.push((self.experiment_id.clone(), key)),
                None => {}
            }
        }
        self.finish_experiment(changes);
        Ok(())
    }

    /// A sum of parts that cannot be estimated yet has no block, so no block changes when the sum is retracted.
    fn touch_withdrawn_sums(&mut self) {
        let withdrawn = self.held.keys().filter(|key| self.ledger.estimate(key).is_none());
        let withdrawn: Vec<ResultKey> = withdrawn.cloned().collect();
        withdrawn.into_iter().for_each(|key| self.touch(key, None));
    }

    /// New labels can move an experiment's blocks to other populations, another kind into one or out of all, and what was shipped is
    /// written with every estimate: also of blocks that no result of the event names.
    fn touch_moved_blocks(&mut self) {
        let is_shipped_anew = self.shipped_variant.as_ref() != self.shipped_variant_now();
        let moved: Vec<(ResultKey, Option<Measured>)> = self
            .held
            .iter()
            .filter(|(key, population)| is_shipped_anew || **population != self.population(key))
            .map(|(key, _)| (key.clone(), self.ledger.estimate(key).and_then(Result::ok).cloned()))
            .collect();
        moved.into_iter().for_each(|(key, measured)| self.touch(key, measured));
    }

    fn shipped_variant_now(&self) -> Option<&String> {
        self.ledger.latest()?.shipped_variant.as_ref()
    }

    /// The current block of a key in its population; `None` if it holds no result, or a sum that cannot be estimated yet, and of a
    /// holdout.
    fn block_now(&self, key: &ResultKey) -> Result<Option<Placed>, FoldError> {
        let (Some(Ok(measured)), Some(population)) = (self.ledger.estimate(key), self.population(key)) else {
            return Ok(None);
        };
        let placed = self.placed(population, measured.clone());
        // What is logged must have a place in the cells: those who fold it can refuse nothing.
        let CountedBlock { block, chosen } = &placed.counted;
        Member::new(block.clone(), *chosen).map_err(|source| self.unfit(source))?;
        Ok(Some(placed))
    }

    /// The block that its population holds.
    fn block_before(&self, before: Option<Measured>, population: Option<PopulationName>) -> Option<Placed> {
        Some(self.placed(population?, before?))
    }

    fn placed(&self, population: PopulationName, measured: Measured) -> Placed {
        let chosen = self.grouping.chosen_variant(&self.experiment_id, &measured.variants);
        let counted = CountedBlock { block: measured.block.clone(), chosen };
        Placed { population, measured, counted }
    }

    /// The row of the current result of a key; `None` if it holds none.
    fn row(&self, key: &ResultKey) -> Option<BlockRow> {
        let (revision, statistics) = self.ledger.statistics(key)?;
        let stored = StoredBlock {
            key: key.clone(),
            population: self.population(key),
            revision,
            statistics,
            properties: self.ledger.properties(key)?,
            block: self.ledger.estimate(key)?.ok().map(pack),
        };
        let pending = self.ledger.estimate(key).and_then(Result::err).cloned();
        Some(BlockRow { experiment_id: self.experiment_id.clone(), block: stored, pending })
    }

    /// The estimates of variants that the block no longer has, or all of them if it moved to another population.
    fn retired(&self, before: &Placed, after: Option<&Placed>) -> Vec<RetiredEstimate> {
        let Placed { population, measured, .. } = before;
        let after = after.filter(|after| after.population == *population);
        let is_retired = |variant: &&String| !after.is_some_and(|after| after.measured.variants.contains(*variant));
        let retired = measured.variants.iter().filter(is_retired).map(|variant| RetiredEstimate {
            population: population.clone(),
            experiment_id: self.experiment_id.clone(),
            variant: variant.clone(),
        });
        retired.collect()
    }

    fn finish_experiment(self, changes: &mut Changes) {
        match self.ledger.latest() {
            Some(latest) => {
                let rows = if self.is_stored { &mut changes.experiments } else { &mut changes.new_experiments };
                rows.push(ExperimentRow {
                    latest: latest.clone(),
                    retractions: self.ledger.retractions(),
                    experiment_id: self.experiment_id,
                });
            }
            None if self.is_stored => changes.forgotten_experiments.push(self.experiment_id),
            None => {}
        }
    }

    /// `None` of a holdout.
    fn population(&self, key: &ResultKey) -> Option<PopulationName> {
        let labels = self.ledger.latest().map(|latest| &latest.labels);
        (self.ledger.kind() == ExperimentKind::Experiment).then(|| self.grouping.population(key.clone(), labels))
    }

    fn damaged(&self, source: DamagedBytes) -> FoldError {
        FoldError::Damaged { experiment_id: self.experiment_id.clone(), source }
    }

    fn unfit(&self, source: MemberError) -> FoldError {
        FoldError::Member { experiment_id: self.experiment_id.clone(), source }
    }
}

/// What populations have to be refitted for: a change in each of two where the block has moved. Also where only what the row says
/// beside the block has changed, because the diagnostics follow that.
fn block_changes(before: Option<Placed>, after: Option<&Placed>) -> Vec<BlockChange> {
    let after = after.map(|Placed { population, counted, .. }| (population.clone(), counted.clone()));
    match (before, after) {
        (Some(before), Some((population, after))) if before.population == population => {
            vec![BlockChange { population, before: Some(before.counted), after: Some(after) }]
        }
        (before, after) => {
            let before = before.map(|Placed { population, counted, .. }| BlockChange {
                population,
                before: Some(counted),
                after: None,
            });
            let after = after.map(|(population, after)| BlockChange { population, before: None, after: Some(after) });
            before.into_iter().chain(after).collect()
        }
    }
}

/// The key of a part, which is stored even where no block changes.
fn part_key(result: &Result<ReportedResult, Refusal>) -> Option<&ResultKey> {
    match result {
        Ok(ReportedResult::Part { key, .. }) => Some(key),
        _ => None,
    }
}
