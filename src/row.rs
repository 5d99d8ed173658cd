//! The rows of the store's tables, as plain data. What the columns mean is documented in the migrations and in
//! `docs/tables.md`.

pub mod audit;
mod fit;
mod partition;
mod pass;
pub mod replay;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use shrinkd_core::{ControlVarianceSource, Grouping, Latest, Measured, PopulationName, Properties, Refusal, ResultKey};
use shrinkd_model::{Block, Direction, Member, MemberError, Sketches};
use time::OffsetDateTime;

pub use fit::{CellDiagnostics, CurrentFit, FitRow, FitStatus, PassDiagnostics, PublishedFit};
pub use partition::{Halt, HaltReason, PartitionStatus, Skip};
pub use pass::{BlockToPublish, DuePass, EndedPass, Pass, ReadBlock, UnreadableBlock};

/// The settings that the cells and blocks of a store were computed with. They do not mix with those of other settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    pub arithmetic_version: u8,
    pub grouping: Grouping,
}

impl std::fmt::Display for StoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let StoreSettings { arithmetic_version, grouping: Grouping { labels, one_per_experiment_seed } } = self;
        write!(
            f,
            "arithmetic version {arithmetic_version}, labels {labels:?}, one-per-experiment seed {one_per_experiment_seed}"
        )
    }
}

/// The stored state of an experiment: everything from which its ledger is restored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredExperiment {
    pub latest: Latest,
    /// See [`ExperimentLedger::retractions`](shrinkd_core::ExperimentLedger::retractions).
    pub retractions: Option<Vec<u8>>,
    pub blocks: Vec<StoredBlock>,
}

/// A current result as stored: a block, or a sum of parts that cannot be estimated yet.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBlock {
    pub key: ResultKey,
    /// `None` of a holdout.
    pub population: Option<PopulationName>,
    pub revision: u64,
    pub statistics: Vec<u8>,
    pub properties: Properties,
    /// Packed [`Measured`]; `None` while pending.
    pub block: Option<Vec<u8>>,
}

/// An experiment to insert or replace.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentRow {
    pub experiment_id: String,
    pub latest: Latest,
    pub retractions: Option<Vec<u8>>,
}

/// A block to insert or replace.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockRow {
    pub experiment_id: String,
    pub block: StoredBlock,
    pub pending: Option<Refusal>,
}

/// A block as it is counted in the statistics of its population.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountedBlock {
    pub block: Block,
    /// The variant that represents it under [`Correlation::OnePerExperiment`](shrinkd_model::Correlation::OnePerExperiment).
    pub chosen: usize,
}

/// What a batch changed about one block of a population: put in, replaced or withdrawn.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockChange {
    pub population: PopulationName,
    pub before: Option<CountedBlock>,
    pub after: Option<CountedBlock>,
}

/// Topic, partition and next offset.
pub type InputOffset = (String, i32, i64);

/// What a refit has taken out of the log of changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TakenChanges {
    /// To be applied to the statistics of their populations. Of a population without cells the blocks that stand, as changes of
    /// nothing.
    pub changes: Vec<BlockChange>,
    /// How many changes were taken of each population that was asked for.
    pub counts: BTreeMap<PopulationName, TakenCount>,
    /// How far each partition had been read when they were taken.
    pub input_offsets: Vec<InputOffset>,
}

impl TakenChanges {
    /// Nothing of these populations.
    pub fn of(populations: &[PopulationName]) -> TakenChanges {
        let counts = populations.iter().map(|population| (population.clone(), TakenCount::default())).collect();
        TakenChanges { counts, ..TakenChanges::default() }
    }

    /// Adds a change, and whether the batch that made it has written the estimates of the block.
    pub fn push(&mut self, change: BlockChange, is_published: bool) {
        let count = self.counts.entry(change.population.clone()).or_default();
        count.changes += 1;
        count.unpublished += i64::from(!is_published);
        self.changes.push(change);
    }
}

/// How many changes of a population were taken, and of how many of them a pass has to write the estimates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenCount {
    pub changes: i64,
    pub unpublished: i64,
}

/// The sufficient statistics of a population, or of some of its blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    pub sketches: Sketches,
    pub counters: Counters,
}

impl Statistics {
    /// Takes away the block before a change and adds the one after it.
    ///
    /// # Errors
    /// If a block has no place in a sketch. None that a batch has logged does.
    pub fn apply(&mut self, before: Option<&CountedBlock>, after: Option<&CountedBlock>) -> Result<(), MemberError> {
        for (block, sign) in before.map(|block| (block, -1)).into_iter().chain(after.map(|block| (block, 1))) {
            let member = Member::new(block.block.clone(), block.chosen)?;
            match sign {
                1 => self.sketches.add(&member)?,
                _ => self.sketches.subtract(&member)?,
            }
            self.counters.experiments += sign;
            self.counters.effects += sign * member.block().len() as i64;
        }
        Ok(())
    }

    /// Adds the statistics of other blocks.
    pub fn merge(&mut self, other: &Statistics) {
        self.sketches.merge(&other.sketches);
        self.counters.add(&other.counters);
    }
}

/// Counts of a population, or changes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks put in, replaced or withdrawn: grows with every change.
    pub changes: i64,
    pub experiments: i64,
    pub effects: i64,
}

impl Counters {
    /// Adds other counts.
    pub fn add(&mut self, other: &Counters) {
        self.changes += other.changes;
        self.experiments += other.experiments;
        self.effects += other.effects;
    }
}

/// A refused message or result, with the message as it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedRow {
    pub partition_id: i64,
    pub offset: i64,
    /// The index of the result in its message; `None` if the message was refused as a whole.
    pub result_index: Option<i32>,
    pub experiment_id: Option<String>,
    pub refusal: Refusal,
    pub key: Option<Vec<u8>>,
    /// Only in the first row of a message.
    pub payload: Option<Vec<u8>>,
    pub payload_bytes: i64,
    pub produced_at: Option<OffsetDateTime>,
}

/// The populations that a batch names and the store does not have, and for how many of them there is room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPopulations {
    pub names: BTreeSet<PopulationName>,
    pub room: usize,
    /// Most populations in the store.
    pub limit: u64,
}

/// A block whose estimates are to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockToEstimate {
    pub population: PopulationName,
    pub experiment_id: String,
    pub revision: u64,
    pub measured: Measured,
    pub properties: Properties,
    /// Of the experiment.
    pub shipped_variant: Option<String>,
}

/// An estimate to delete, because its variant no longer has a block in this population.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredEstimate {
    pub population: PopulationName,
    pub experiment_id: String,
    pub variant: String,
}

/// All changes of one batch except the estimates.
#[derive(Debug, Default)]
pub struct Changes {
    /// Experiments that were not stored when the batch was folded. Writing them fails if they have been stored since.
    pub new_experiments: Vec<ExperimentRow>,
    pub experiments: Vec<ExperimentRow>,
    pub forgotten_experiments: Vec<String>,
    pub blocks: Vec<BlockRow>,
    pub withdrawn_blocks: Vec<(String, ResultKey)>,
    pub block_changes: Vec<BlockChange>,
    pub rejected: Vec<RejectedRow>,
    /// Experiments that were retracted as a whole, with the partition and offset of the last tombstone.
    pub tombstones: BTreeMap<String, (i64, i64)>,
    pub changed: Vec<BlockToEstimate>,
    /// Populations that the batch created, also those from which it has withdrawn its block again.
    pub new_populations: BTreeSet<PopulationName>,
    pub retired: Vec<RetiredEstimate>,
}

impl Changes {
    /// The ids of the experiments that are put in: nothing is stored of their blocks and estimates yet.
    pub fn new_ids(&self) -> HashSet<&str> {
        self.new_experiments.iter().map(|row| row.experiment_id.as_str()).collect()
    }
}

/// A row of `effect_estimates`: one effect, raw and shrunk, in the unit of the effect.
#[derive(Debug, Clone, PartialEq)]
pub struct EstimateRow {
    pub population: PopulationName,
    pub experiment_id: String,
    pub variant: String,
    pub block_revision: u64,
    /// The commit that last changed the block.
    pub commit_id: i64,
    pub status: FitStatus,
    pub raw_estimate: f64,
    /// The delta method's, from the arms' own variances: see [`Measured::raw_variances`].
    pub raw_se: f64,
    /// Whether half an event was added to every arm.
    pub is_continuity_corrected: bool,
    /// Whether the effect is a lift beyond +50% on `relative`.
    pub lift_too_large_for_relative: bool,
    /// d and c of the block, from which a query can compute plug-in estimates; `None` if the covariance is dense.
    pub treatment_variance: Option<f64>,
    pub control_variance: Option<f64>,
    pub control_variance_source: ControlVarianceSource,
    /// Which way of the effect is better; `None` where neither the result nor a published fit says.
    pub direction: Option<Direction>,
    /// The share of the whole traffic that the effect applies to.
    pub coverage: f64,
    /// Whether all users have got the variant since; `None` where the experiment does not say which was shipped.
    pub is_shipped: Option<bool>,
    /// `None` unless fitted.
    pub shrunk: Option<ShrunkEstimate>,
    /// 0 before the first fit.
    pub fit_id: i64,
}

/// The part of an estimate that follows from its block alone, whatever the fit.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEstimate {
    pub variant: String,
    pub block_revision: i64,
    /// Texts and booleans, in the order of the columns.
    pub words: Vec<Option<String>>,
    /// In the order of the columns.
    pub figures: Vec<Option<f64>>,
}

/// The shrunken estimate of one effect under a fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShrunkEstimate {
    pub posterior_mean: f64,
    pub posterior_sd: f64,
    pub ci80: (f64, f64),
    pub ci95: (f64, f64),
    pub prob_positive: f64,
    pub lfsr: f64,
    pub shrinkage_factor: f64,
    pub weight_of_mu: f64,
    pub naive_posterior_mean: Option<f64>,
    pub prob_best: Option<f64>,
    pub control_shift: Option<f64>,
    pub control_shift_sd: Option<f64>,
}

impl ShrunkEstimate {
    /// Whether every figure that exists is a finite number.
    pub fn is_finite(&self) -> bool {
        let ShrunkEstimate { posterior_mean, posterior_sd, ci80, ci95, prob_positive, lfsr, .. } = *self;
        let ShrunkEstimate { shrinkage_factor, weight_of_mu, naive_posterior_mean, prob_best, .. } = *self;
        let ShrunkEstimate { control_shift, control_shift_sd, .. } = *self;
        let intervals = [ci80.0, ci80.1, ci95.0, ci95.1];
        let others = [posterior_mean, posterior_sd, prob_positive, lfsr, shrinkage_factor, weight_of_mu];
        let optional = [naive_posterior_mean, prob_best, control_shift, control_shift_sd];
        intervals.into_iter().chain(others).chain(optional.into_iter().flatten()).all(f64::is_finite)
    }
}

/// How many populations there are, how many of them need attention, and what all of them hold together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PopulationTotals {
    pub populations: u64,
    /// Populations whose latest fit failed under some model of correlation.
    pub failed: u64,
    /// Populations with a prior that is far from their data.
    pub prior_far: u64,
    /// Populations where only winners seem to arrive.
    pub selection_suspected: u64,
    /// Changes of blocks whose estimates are left to a pass.
    pub unpublished_changes: u64,
    pub experiments: u64,
    pub effects: u64,
}

/// The current state of a population.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrentPopulation {
    pub population: PopulationName,
    /// `None` before the first fit.
    pub status: Option<FitStatus>,
    pub experiments: u64,
    pub effects: u64,
    pub mu: Option<f64>,
    pub tau: Option<f64>,
    pub icc: Option<f64>,
    pub deff: Option<f64>,
    pub verdict: Option<shrinkd_model::Verdict>,
    /// The measure that the verdict rests on.
    pub verdict_rests_on: Option<shrinkd_model::Measure>,
    pub verdict_value: Option<f64>,
    pub fitted_at: Option<OffsetDateTime>,
    /// The settings of the latest fit: see [`fit_settings`](crate::refit::fit_settings).
    pub fit_settings: Option<String>,
    pub diagnosed_at: Option<OffsetDateTime>,
    /// Whether the latest fit failed under some model of correlation.
    pub has_failed: bool,
    /// Whether a prior is far from the data.
    pub is_prior_far: bool,
    /// Whether only winners seem to arrive.
    pub is_selection_suspected: bool,
    /// Changes of its blocks whose estimates are left to a pass.
    pub unpublished_changes: u64,
}

/// The populations that have changed since some time.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedPopulations {
    /// The store's clock at the moment as of which they were read.
    pub read_at: OffsetDateTime,
    /// How many populations there are, changed or not.
    pub count: u64,
    pub populations: Vec<CurrentPopulation>,
}

/// A published effect that has a shrunken estimate, in the unit of the effect.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedEffect {
    pub experiment_id: String,
    pub variant: String,
    pub raw_estimate: f64,
    pub raw_se: f64,
    pub posterior_mean: f64,
    pub posterior_sd: f64,
    pub ci95_low: f64,
    pub ci95_high: f64,
}
