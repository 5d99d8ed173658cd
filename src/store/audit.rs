//! What an audit reads of a store: everything as of one moment, as it stands in the tables. Nothing is taken for granted:
//! what cannot be read back is for the audit to find, so that names and packed columns come as they are. Statements and rows
//! are the same in both stores.

use std::future::Future;

use shrinkd_core::PopulationName;
use sqlx::{ColumnIndex, Decode, Row, Type};

use super::StoreError;
use crate::row::{Counters, PartitionStatus, PublishedFit};

/// A store as of one moment. It holds no lock that a worker waits for.
pub trait Audit: Send {
    fn partitions(&mut self) -> impl Future<Output = Result<Vec<PartitionStatus>, StoreError>> + Send;

    fn skipped_offsets(&mut self) -> impl Future<Output = Result<Vec<SkippedOffsets>, StoreError>> + Send;

    /// The name of every population that any table mentions, in order.
    fn population_ids(&mut self) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// How many blocks the counters know.
    fn counted_blocks(&mut self) -> impl Future<Output = Result<i64, StoreError>> + Send;

    fn population(&mut self, population_id: &str)
    -> impl Future<Output = Result<AuditedPopulation, StoreError>> + Send;

    /// A population's blocks after an experiment, in the order of their experiments, at most `limit`.
    fn blocks_after(
        &mut self,
        population_id: &str,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<AuditedBlock>, StoreError>> + Send;

    /// A population's estimates after an experiment, up to another and with it (`None`: to the end), in the order of their
    /// keys.
    fn estimates_between(
        &mut self,
        population_id: &str,
        after: &str,
        to: Option<&str>,
    ) -> impl Future<Output = Result<Vec<AuditedEstimate>, StoreError>> + Send;

    /// A fit that was published once; `None` where the history has none of that id.
    fn published_fit(
        &mut self,
        population: &PopulationName,
        fit_id: i64,
    ) -> impl Future<Output = Result<Option<PublishedFit>, StoreError>> + Send;
}

/// Records that an operator passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedOffsets {
    pub topic: String,
    pub partition: i32,
    pub from: Option<i64>,
    pub to: i64,
    pub because: String,
    pub by: String,
    pub at: String,
}

/// A population with its cells, its counters and its latest fits.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedPopulation {
    /// `None` where it has no row of its own.
    pub registered: Option<Registered>,
    pub counters: Counters,
    /// Of every partition: correlation, octave, moments.
    pub cells: Vec<(String, i16, Vec<u8>)>,
    pub fits: Vec<AuditedFit>,
}

/// The row of a population.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registered {
    pub refitted_changes: i64,
    pub published_fit_id: Option<i64>,
    /// Whether a whole publish is due or under way.
    pub is_publish_due: bool,
    /// What the latest fit was made with.
    pub fit_settings: Option<String>,
}

/// A row of `current_population_fits`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedFit {
    pub correlation: String,
    pub status: String,
    pub experiments: i64,
    pub effects: i64,
    /// In the order of [`FIT_FIGURES`].
    pub figures: Vec<Option<f64>>,
    pub nodes: Vec<u8>,
}

/// A row of `blocks`, and what its experiment says.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedBlock {
    pub experiment_id: String,
    pub metric: String,
    pub segment: String,
    pub scale: String,
    pub revision: i64,
    pub commit_id: i64,
    pub statistics: Vec<u8>,
    pub block: Option<Vec<u8>>,
    pub components: Option<Vec<u8>>,
    pub pending_reason: Option<String>,
    /// The experiment's revision and its labels (JSON); `None` where there is no such experiment.
    pub experiment: Option<(i64, String)>,
}

/// A row of `effect_estimates`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedEstimate {
    pub experiment_id: String,
    pub variant: String,
    pub block_revision: i64,
    pub commit_id: i64,
    pub fit_id: i64,
    pub status: String,
    /// In the order of [`ESTIMATE_FIGURES`].
    pub figures: Vec<Option<f64>>,
}

/// The columns of a list, and their names.
macro_rules! columns {
    ($list:ident, $names:ident: $first:literal, $($column:literal),* $(,)?) => {
        macro_rules! $list {
            () => { concat!($first, $(", ", $column),*) };
        }
        /// The columns that hold figures, in the order in which they are read.
        pub const $names: &[&str] = &[$first, $($column),*];
    };
}

columns!(fit_figures, FIT_FIGURES:
    "mu_mean", "mu_median", "mu_sd", "mu_q025", "mu_q25", "mu_q75", "mu_q975",
    "tau_mean", "tau_median", "tau_sd", "tau_q025", "tau_q25", "tau_q75", "tau_q975",
    "log_tau_sd", "mu_tau_correlation", "log_evidence",
    "predictive_mean", "predictive_sd", "predictive_median", "predictive_q025", "predictive_q975",
    "laplace_mu_distance", "laplace_tau_distance", "variational_mu_distance", "variational_tau_distance",
);

columns!(estimate_figures, ESTIMATE_FIGURES:
    "raw_estimate", "raw_se", "treatment_variance", "control_variance", "control_loading",
    "posterior_mean", "posterior_sd", "ci80_low", "ci80_high", "ci95_low", "ci95_high", "prob_positive", "lfsr",
    "shrinkage_factor", "naive_posterior_mean", "prob_best", "control_shift", "control_shift_sd",
);

pub(super) const SKIPPED: &str =
    "select topic, partition_number, from_offset, to_offset, because, skipped_by, cast(skipped_at as text)
     from skipped_offsets order by skipped_offsets_id";

pub(super) const POPULATION_IDS: &str = "select population_id from populations
     union select population_id from blocks
     union select population_id from sketch_cells
     union select population_id from cell_counters
     union select population_id from effect_estimates
     union select population_id from current_population_fits
     order by 1";

pub(super) const COUNTED_BLOCKS: &str = "select cast(coalesce(sum(experiments), 0) as bigint) from cell_counters";

pub(super) const REGISTERED: &str =
    "select refitted_changes, published_fit_id, publish_cursor is not null, fit_settings
     from populations where population_id = $1";

pub(super) const COUNTERS: &str =
    "select cast(coalesce(sum(changes), 0) as bigint), cast(coalesce(sum(experiments), 0) as bigint),
            cast(coalesce(sum(effects), 0) as bigint)
     from cell_counters where population_id = $1";

pub(super) const CELLS: &str =
    "select correlation, octave, moments from sketch_cells where population_id = $1 order by correlation, octave";

pub(super) const FITS: &str = concat!(
    "select correlation, status, experiments, effects, nodes, ",
    fit_figures!(),
    " from current_population_fits where population_id = $1 order by correlation"
);

/// The experiment is looked up for each block: a join reads all experiments for every page, as a planner thinks that cheaper.
pub(super) const BLOCKS: &str =
    "select b.experiment_id, b.metric, b.segment, b.scale, b.revision, b.commit_id, b.statistics, b.block, b.components,
            b.pending_reason,
            (select e.revision from experiments as e where e.experiment_id = b.experiment_id),
            (select cast(e.labels as text) from experiments as e where e.experiment_id = b.experiment_id)
     from blocks as b
     where b.population_id = $1 and b.experiment_id > $2
     order by b.experiment_id limit $3";

macro_rules! estimates {
    ($up_to:literal) => {
        concat!(
            "select experiment_id, variant, block_revision, commit_id, fit_id, status, ",
            estimate_figures!(),
            " from effect_estimates where population_id = $1 and experiment_id > $2",
            $up_to,
            " order by experiment_id, variant"
        )
    };
}
pub(super) const ESTIMATES_UP_TO: &str = estimates!(" and experiment_id <= $3");
pub(super) const ESTIMATES_TO_THE_END: &str = estimates!("");

pub(super) const PUBLISHED_FIT: &str = "select population_id, fit_id, correlation, status, nodes
     from population_fits where population_id = $1 and fit_id = $2 and correlation in ('modelled', 'ignored')";

pub(super) type SkippedColumns = (String, i32, Option<i64>, i64, String, String, String);

pub(super) fn skipped((topic, partition, from, to, because, by, at): SkippedColumns) -> SkippedOffsets {
    SkippedOffsets { topic, partition, from, to, because, by, at }
}

pub(super) type RegisteredColumns = (i64, Option<i64>, bool, Option<String>);

pub(super) fn registered(columns: RegisteredColumns) -> Registered {
    let (refitted_changes, published_fit_id, is_publish_due, fit_settings) = columns;
    Registered { refitted_changes, published_fit_id, is_publish_due, fit_settings }
}

pub(super) type BlockColumns = (
    String,
    String,
    String,
    String,
    i64,
    i64,
    Vec<u8>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<String>,
    Option<i64>,
    Option<String>,
);

pub(super) fn block(columns: BlockColumns) -> AuditedBlock {
    let (
        experiment_id,
        metric,
        segment,
        scale,
        revision,
        commit_id,
        statistics,
        block,
        components,
        pending,
        own,
        labels,
    ) = columns;
    AuditedBlock {
        experiment_id,
        metric,
        segment,
        scale,
        revision,
        commit_id,
        statistics,
        block,
        components,
        pending_reason: pending,
        experiment: own.zip(labels),
    }
}

pub(super) fn fit<R: Row>(row: &R) -> Result<AuditedFit, sqlx::Error>
where
    usize: ColumnIndex<R>,
    for<'r> String: Type<R::Database> + Decode<'r, R::Database>,
    for<'r> Vec<u8>: Type<R::Database> + Decode<'r, R::Database>,
    for<'r> i64: Type<R::Database> + Decode<'r, R::Database>,
    for<'r> Option<f64>: Type<R::Database> + Decode<'r, R::Database>,
{
    Ok(AuditedFit {
        correlation: row.try_get(0)?,
        status: row.try_get(1)?,
        experiments: row.try_get(2)?,
        effects: row.try_get(3)?,
        nodes: row.try_get(4)?,
        figures: (5..5 + FIT_FIGURES.len()).map(|i| row.try_get(i)).collect::<Result<_, _>>()?,
    })
}

pub(super) fn estimate<R: Row>(row: &R) -> Result<AuditedEstimate, sqlx::Error>
where
    usize: ColumnIndex<R>,
    for<'r> String: Type<R::Database> + Decode<'r, R::Database>,
    for<'r> i64: Type<R::Database> + Decode<'r, R::Database>,
    for<'r> Option<f64>: Type<R::Database> + Decode<'r, R::Database>,
{
    Ok(AuditedEstimate {
        experiment_id: row.try_get(0)?,
        variant: row.try_get(1)?,
        block_revision: row.try_get(2)?,
        commit_id: row.try_get(3)?,
        fit_id: row.try_get(4)?,
        status: row.try_get(5)?,
        figures: (6..6 + ESTIMATE_FIGURES.len()).map(|i| row.try_get(i)).collect::<Result<_, _>>()?,
    })
}
