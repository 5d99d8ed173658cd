//! How many populations there may be, and which results may create one. Pure, as [`fold`](super::fold) is.
//!
//! Any producer can send another metric, segment or label value. Each of them is a population of its own, with cells, fits
//! and series of metrics, so that a mistake in one place (a user id as a label) would cost everybody. Results that would
//! create a population beyond `limits.max_populations` are therefore refused. A population exists as soon as it has had a
//! block, and counts from then on; results of existing populations are always admitted.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{
    Event, ExperimentKind, ExperimentLedger, Grouping, Message, Outcome, PopulationName, Reason, Refusal,
    ReportedResult, ResultKey,
};

use super::source::Record;
use crate::row::{NewPopulations, StoredExperiment};

/// The populations that the records of a batch may put blocks into: of each key of an experiment, stored or named by a
/// record, under the stored labels and those of each record. `is_ours` as for [`fold`](super::fold::fold()).
pub fn named_populations(
    records: &[Record],
    stored: &BTreeMap<String, StoredExperiment>,
    grouping: &Grouping,
    is_ours: impl Fn(&Record) -> Option<i64>,
) -> BTreeSet<PopulationName> {
    let mut experiments: BTreeMap<&str, Named<'_>> = BTreeMap::new();
    for record in records.iter().filter(|record| is_ours(record).is_some()) {
        let Ok(Message::Event(event)) = &record.message else { continue };
        let named = experiments.entry(&event.experiment_id).or_default();
        named.keys.extend(event.results.iter().filter_map(key));
        named.labels.insert(&event.labels);
        named.is_experiment |= event.kind == ExperimentKind::Experiment;
    }
    for (experiment_id, named) in &mut experiments {
        if let Some(stored) = stored.get(*experiment_id) {
            named.keys.extend(stored.blocks.iter().map(|block| &block.key));
            named.labels.insert(&stored.latest.labels);
            named.is_experiment |= stored.latest.kind == ExperimentKind::Experiment;
        }
    }
    let mut populations = BTreeSet::new();
    for Named { keys, labels, .. } in experiments.into_values().filter(|named| named.is_experiment) {
        for labels in labels {
            populations.extend(keys.iter().map(|&key| grouping.population(key.clone(), Some(labels))));
        }
    }
    populations
}

/// What the records and the store say of one experiment.
#[derive(Default)]
struct Named<'a> {
    keys: BTreeSet<&'a ResultKey>,
    labels: BTreeSet<&'a BTreeMap<String, String>>,
    /// Whether any of them says that it is no holdout.
    is_experiment: bool,
}

/// The key of a result that can have a block.
fn key(result: &Result<ReportedResult, Refusal>) -> Option<&ResultKey> {
    match result {
        Ok(ReportedResult::Whole { key, .. } | ReportedResult::Part { key, .. }) => Some(key),
        Ok(ReportedResult::Retraction { .. }) | Err(_) => None,
    }
}

/// Decides, event by event, which new populations there is room for.
#[derive(Debug, Default)]
pub struct Admission {
    new: NewPopulations,
    admitted: BTreeSet<PopulationName>,
}

impl Admission {
    pub fn new(new: NewPopulations) -> Admission {
        Admission { new, admitted: BTreeSet::new() }
    }

    /// The populations that were created, whether or not they still have a block.
    pub fn into_admitted(self) -> BTreeSet<PopulationName> {
        self.admitted
    }

    /// The event, with those results refused that would create a population for which there is no room. Earlier results
    /// take the room first.
    ///
    /// # Errors
    /// The refusal of the whole event, if its labels would: they move blocks of the experiment to other populations, also
    /// those that no result of the event replaces.
    pub fn admit(
        &mut self,
        ledger: &ExperimentLedger,
        grouping: &Grouping,
        mut event: Event,
    ) -> Result<Event, Refusal> {
        if !self.may_create(&event, ledger, grouping) {
            return Ok(event);
        }
        let (mut created, outcomes) = self.created_by(&event, ledger, grouping);
        if created.len() > self.new.room {
            let mut admitted: BTreeSet<ResultKey> = BTreeSet::new();
            for (result, outcome) in event.results.iter_mut().zip(outcomes) {
                let Some(key) = key(result) else { continue };
                let Some(population) = created.get(key) else { continue };
                if admitted.contains(key) || matches!(outcome, Outcome::Duplicate | Outcome::Stale) {
                    continue;
                }
                if admitted.len() < self.new.room {
                    admitted.insert(key.clone());
                } else {
                    *result = Err(self.refusal(population));
                }
            }
            (created, _) = self.created_by(&event, ledger, grouping);
        }
        match created.values().next_back() {
            Some(population) if created.len() > self.new.room => Err(self.refusal(population)),
            _ => {
                self.new.room -= created.len();
                let created: BTreeSet<PopulationName> = created.into_values().collect();
                self.new.names = &self.new.names - &created;
                self.admitted.extend(created);
                Ok(event)
            }
        }
    }

    /// Whether an event can put a block into a population that does not exist: of most batches none can.
    fn may_create(&self, event: &Event, ledger: &ExperimentLedger, grouping: &Grouping) -> bool {
        if self.new.names.is_empty() {
            return false;
        }
        let is_new = |key: &ResultKey, labels| self.new.names.contains(&grouping.population(key.clone(), Some(labels)));
        let latest = ledger.latest().map(|latest| &latest.labels);
        let mut keys = event.results.iter().filter_map(key).chain(ledger.blocks().map(|(key, ..)| key));
        keys.any(|key| is_new(key, &event.labels) || latest.is_some_and(|labels| is_new(key, labels)))
    }

    /// The new populations that hold a block of the experiment once an event is applied, by the key of the block, and the
    /// outcomes of its results.
    fn created_by(
        &self,
        event: &Event,
        ledger: &ExperimentLedger,
        grouping: &Grouping,
    ) -> (BTreeMap<ResultKey, PopulationName>, Vec<Outcome>) {
        let mut after = ledger.clone();
        let outcomes = after.apply(event.clone()).outcomes;
        let labels = after.latest().map(|latest| &latest.labels);
        let population = |key: &ResultKey| (key.clone(), grouping.population(key.clone(), labels));
        let in_populations = after.blocks().filter(|_| after.kind() == ExperimentKind::Experiment);
        let created = in_populations.map(|(key, ..)| population(key));
        (created.filter(|(_, population)| self.new.names.contains(population)).collect(), outcomes)
    }

    fn refusal(&self, population: &PopulationName) -> Refusal {
        let detail = format!(
            "population {population} would be new, and the store has as many as limits.max_populations allows ({}): \
             correct metric, segment, scale or labels, or raise the limit and replay the message",
            self.new.limit
        );
        Refusal::new(Reason::TooManyPopulations, detail)
    }
}
