//! A history of events folded in memory: the state that a run of the worker would end with, without a store.

use std::collections::BTreeMap;

use shrinkd_model::{Direction, Member, MemberError, Sketches};

use crate::decision::ShippedDecisions;
use crate::event::{
    ControlVarianceSource, Event, ExperimentKind, Measured, Message, Properties, Refusal, ResultKey, Warning,
};
use crate::ledger::{Applied, Counts, CurrentBlock, ExperimentLedger, Outcome};
use crate::population::{Grouping, PopulationName};

/// The experiments of a history, and counts of the outcomes of its events.
#[derive(Debug, Default)]
pub struct History {
    experiments: BTreeMap<String, ExperimentLedger>,
    pub counts: Counts,
}

/// The experiments of one population.
#[derive(Debug, Default)]
pub struct Population {
    /// By experiment id.
    pub experiments: Vec<Experiment>,
    /// Their blocks, in the same order.
    pub members: Vec<Member>,
    pub sketches: Sketches,
}

/// One experiment of a population.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    pub experiment_id: String,
    pub revision: u64,
    /// One for each effect of the block.
    pub variants: Vec<String>,
    /// Likewise: see [`Measured::raw_variances`].
    pub raw_variances: Vec<f64>,
    pub is_continuity_corrected: bool,
    pub control_variance_source: ControlVarianceSource,
    /// What the result says of its effects.
    pub properties: Properties,
    /// What the platform decided at the largest revision.
    pub decision: Option<String>,
}

/// A block of a ledger that does not fit its population, which measuring rules out.
#[derive(Debug, thiserror::Error)]
pub enum UnfitBlock {
    #[error("experiment {experiment_id}: {source}")]
    Member { experiment_id: String, source: MemberError },
    #[error("population {population}: {source}")]
    Sketch { population: PopulationName, source: Box<MemberError> },
}

impl History {
    /// Applies one message, decoded or refused, and returns what it was refused for, and what it warns of.
    pub fn take(&mut self, message: Result<Message, Refusal>) -> (Vec<Refusal>, Vec<Warning>) {
        self.counts.messages += 1;
        match message {
            Ok(Message::Event(event)) => self.apply(event),
            Ok(Message::Tombstone { experiment_id }) => {
                self.counts.tombstones += 1;
                self.experiments.remove(&experiment_id);
                (Vec::new(), Vec::new())
            }
            Err(refusal) => {
                self.counts.refused += 1;
                (vec![refusal], Vec::new())
            }
        }
    }

    fn apply(&mut self, event: Event) -> (Vec<Refusal>, Vec<Warning>) {
        let ledger = self.experiments.entry(event.experiment_id.clone()).or_default();
        let Applied { outcomes, refused_treatments, warnings, .. } = ledger.apply(event);
        let mut refusals = Vec::new();
        for outcome in outcomes {
            self.counts.add(&outcome);
            if let Outcome::Refused(refusal) = outcome {
                refusals.push(refusal);
            }
        }
        refusals.extend(refused_treatments.into_iter().map(|(_, refusal)| refusal));
        (refusals, warnings)
    }

    /// The sums of parts that cannot be estimated yet: experiment, key, and why.
    pub fn pending(&self) -> impl Iterator<Item = (&str, &ResultKey, &Refusal)> {
        // Most histories never had any, and looking for them costs a pass over all results.
        let experiments = (self.counts.pending > 0).then_some(&self.experiments);
        experiments.into_iter().flatten().flat_map(|(experiment_id, ledger)| {
            ledger.pending().map(move |(key, refusal)| (experiment_id.as_str(), key, refusal))
        })
    }

    /// How many holdouts there are. They are in no population.
    pub fn holdouts(&self) -> usize {
        self.experiments.values().filter(|ledger| ledger.kind() == ExperimentKind::Holdout).count()
    }

    /// The populations that the blocks form, one per metric x segment x scale, by name. Consumes the ledgers.
    ///
    /// # Errors
    /// [`UnfitBlock`], which measuring rules out.
    pub fn into_populations(self, threads: usize) -> Result<BTreeMap<PopulationName, Population>, UnfitBlock> {
        let grouping = Grouping::default();
        let mut populations: BTreeMap<PopulationName, Population> = BTreeMap::new();
        for (experiment_id, ledger) in self.experiments {
            if ledger.kind() == ExperimentKind::Holdout {
                continue;
            }
            let decision = ledger.decision().map(str::to_owned);
            for (key, CurrentBlock { revision, measured }, properties) in ledger.into_blocks() {
                let Measured { variants, block, raw_variances, is_continuity_corrected, control_variance_source } =
                    measured;
                let chosen = grouping.chosen_variant(&experiment_id, &variants);
                let member = Member::new(block, chosen)
                    .map(|member| member.with_direction(properties.direction.unwrap_or_default()))
                    .map_err(|source| UnfitBlock::Member { experiment_id: experiment_id.clone(), source })?;
                let population = populations.entry(PopulationName::from(key)).or_default();
                population.members.push(member);
                let (experiment_id, decision) = (experiment_id.clone(), decision.clone());
                population.experiments.push(Experiment {
                    experiment_id,
                    revision,
                    variants,
                    raw_variances,
                    is_continuity_corrected,
                    control_variance_source,
                    properties,
                    decision,
                });
            }
        }
        for (name, population) in &mut populations {
            population.sketches = Sketches::of_members(&population.members, threads)
                .map_err(|source| UnfitBlock::Sketch { population: name.clone(), source: source.into() })?;
        }
        Ok(populations)
    }
}

impl Population {
    /// Which way of the effects is better where a result does not say it.
    pub fn set_direction(&mut self, direction: Direction) {
        let members = std::mem::take(&mut self.members).into_iter().zip(&self.experiments);
        let members = members
            .map(|(member, experiment)| member.with_direction(experiment.properties.direction.unwrap_or(direction)));
        self.members = members.collect();
    }

    /// The share of experiments with one of these decisions; `None` where no experiment has a decision.
    pub fn shipped_share(&self, shipped: &ShippedDecisions) -> Option<f64> {
        let decided = self.experiments.iter().filter_map(|experiment| experiment.decision.as_deref());
        let shipped = decided.clone().filter(|decision| shipped.contains(decision)).count();
        (decided.count() > 0).then(|| shipped as f64 / self.experiments.len() as f64)
    }
}
