//! What an audit reads of a store: everything as of one moment, as it stands in the tables. Nothing is taken for granted:
//! what cannot be read back is for the audit to find, so that names and packed columns come as they are.

use shrinkd_core::PopulationName;

use super::columns::Columns;
use super::database::Transaction;
use super::estimates::{FITTED, RAW, RAW_COLUMNS};
use super::experiments::read_properties;
use super::query::{Row, record, values};
use super::{Store, StoreError, fits, partitions};
use crate::row::audit::{
    AuditedBlock, AuditedChange, AuditedEstimate, AuditedFit, AuditedPopulation, Registered, SkippedOffsets,
};
use crate::row::{Counters, EstimateRow, FitRow, PartitionStatus, PublishedFit};
pub use fits::{pack_iccs, unpack_nodes};

/// A store as of one moment. It holds no lock that a worker waits for, and ends when it is dropped.
pub struct Audit {
    transaction: Transaction,
}

/// The columns of an estimate that follow from its block alone, and those that follow from its fit, too.
const ESTIMATE: Columns<EstimateRow> = Columns(&[], &[RAW, FITTED]);
const FIT: Columns<fits::PopulationFit> = Columns(&[], &[fits::FIT]);

/// How many of the figures of an estimate follow from its block alone: the first ones.
pub fn raw_figure_count() -> usize {
    RAW_COLUMNS.figure_names().count()
}

/// The figures of an estimate, by the names of their columns.
pub fn estimate_figures(row: &EstimateRow) -> impl Iterator<Item = (&'static str, Option<f64>)> {
    ESTIMATE.figure_names().zip(ESTIMATE.figures(row))
}

/// The texts and booleans of an estimate, by the names of their columns.
pub fn estimate_words(row: &EstimateRow) -> impl Iterator<Item = (&'static str, Option<String>)> {
    ESTIMATE.word_names().zip(ESTIMATE.words(row))
}

/// The posterior mean of a row; `None` where it has only raw figures.
pub fn posterior_mean(row: &AuditedEstimate) -> Option<f64> {
    let mut figures = ESTIMATE.figure_names().zip(&row.figures);
    *figures.find(|(name, _)| *name == "posterior_mean")?.1
}

/// The figures of a fit, by the names of their columns.
pub fn fit_figures(row: &FitRow) -> impl Iterator<Item = (&'static str, Option<f64>)> {
    FIT.figure_names().zip(FIT.figures(&row.into()))
}

impl Store {
    /// Begins to read everything as of one moment, beside the workers and without a lock that they would wait for.
    pub async fn begin_audit(&self) -> Result<Audit, StoreError> {
        Ok(Audit { transaction: self.pools.read().await? })
    }
}

impl Audit {
    pub async fn partitions(&mut self) -> Result<Vec<PartitionStatus>, StoreError> {
        partitions::all(&mut self.transaction).await
    }

    pub async fn skipped_offsets(&mut self) -> Result<Vec<SkippedOffsets>, StoreError> {
        let sql = "select topic, partition_number, from_offset, to_offset, because, skipped_by,
                          cast(skipped_at as text) as skipped_at
                   from skipped_offsets order by skipped_offsets_id";
        let skipped = record!(SkippedOffsets:
            topic, partition = "partition_number", from = "from_offset", to = "to_offset", because, by = "skipped_by",
            at = "skipped_at");
        self.transaction.query("audit: skipped offsets", sql, []).all(skipped).await
    }

    /// The name of every population that any table mentions, in order.
    pub async fn population_ids(&mut self) -> Result<Vec<String>, StoreError> {
        let sql = "select population_id from populations
                   union select population_id from blocks where population_id is not null
                   union select population_id from block_changes
                   union select population_id from population_cells
                   union select population_id from effect_estimates
                   union select population_id from current_population_fits
                   order by 1";
        self.transaction.query("audit: populations", sql, []).all(|row| row.get("population_id")).await
    }

    /// The experiments that have a block in no population although they are no holdouts.
    pub async fn without_population(&mut self) -> Result<Vec<String>, StoreError> {
        let sql = "select distinct b.experiment_id
                   from blocks as b left join experiments as e on e.experiment_id = b.experiment_id
                   where b.population_id is null and coalesce(e.kind, '') <> 'holdout' order by 1";
        self.transaction.query("audit: without a population", sql, []).all(|row| row.get("experiment_id")).await
    }

    /// How many blocks are in a population.
    pub async fn count_blocks(&mut self) -> Result<i64, StoreError> {
        let sql = "select count(*) as blocks from blocks where population_id is not null";
        self.transaction.query("audit: count blocks", sql, []).one(|row| row.get("blocks")).await
    }

    pub async fn population(&mut self, population_id: &str) -> Result<AuditedPopulation, StoreError> {
        let on = &mut self.transaction;
        let sql = "select changes, experiments, effects, cast(block_sizes as text) as block_sizes, has_cells, refit_due_at is not null as is_refit_due,
                          published_fit_id, publish_cursor is not null as is_publish_due, unpublished,
                          pass_unpublished, fit_settings,
                          exists (select 1 from block_changes as c
                                  where c.population_id = p.population_id and not c.is_published) as is_log_unpublished
                   from populations as p where population_id = $1";
        let registered = record!(Registered:
            block_sizes, has_cells, is_refit_due, published_fit_id, is_publish_due, unpublished, pass_unpublished,
            is_log_unpublished, fit_settings;
            counters: record!(Counters: changes, experiments, effects));
        let registered = on.query("audit: population", sql, values![population_id]).optional(registered).await?;
        let sql = "select part, moments from population_cells where population_id = $1 order by part";
        let cell = |row: &Row| Ok((row.get("part")?, row.get("moments")?));
        let cells = on.query("audit: cells", sql, values![population_id]).all(cell).await?;
        let sql = "select * from current_population_fits where population_id = $1 order by correlation";
        let fit = record!(AuditedFit:
            correlation, status, message, experiments, effects, nodes, node_iccs;
            figures: |row| FIT.read_figures(row));
        let fits = on.query("audit: fits", sql, values![population_id]).all(fit).await?;
        Ok(AuditedPopulation { registered, cells, fits })
    }

    /// The changes of a population that are in the log after one of them, in their order, at most `limit`.
    pub async fn changes_after(
        &mut self,
        population_id: &str,
        (transaction_id, change_id): (i64, i64),
        limit: usize,
    ) -> Result<Vec<AuditedChange>, StoreError> {
        let sql = "select transaction_id, change_id, before, after from block_changes
                   where population_id = $1 and transaction_id >= $2 and (transaction_id, change_id) > ($2, $3)
                   order by transaction_id, change_id limit $4";
        let values = values![population_id, transaction_id, change_id, limit as i64];
        let query = self.transaction.query("audit: changes", sql, values);
        query.all(record!(AuditedChange: transaction_id, change_id, before, after)).await
    }

    /// A population's blocks after an experiment, in the order of their experiments, at most `limit`.
    pub async fn blocks_after(
        &mut self,
        population_id: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<AuditedBlock>, StoreError> {
        // The experiment is looked up for each block: a join reads all experiments for every page.
        let sql =
            "select b.experiment_id, b.metric, b.segment, b.scale, b.revision, b.commit_id, b.statistics, b.block,
                    b.pending_reason, b.direction, b.coverage,
                    (select e.kind from experiments as e where e.experiment_id = b.experiment_id) as kind,
                    (select e.shipped_variant from experiments as e where e.experiment_id = b.experiment_id)
                        as shipped_variant,
                    (select e.revision from experiments as e where e.experiment_id = b.experiment_id)
                        as experiment_revision,
                    (select cast(e.labels as text) from experiments as e where e.experiment_id = b.experiment_id)
                        as labels
             from blocks as b
             where b.population_id = $1 and b.experiment_id > $2
             order by b.experiment_id limit $3";
        let query = self.transaction.query("audit: blocks", sql, values![population_id, after, limit as i64]);
        let block = record!(AuditedBlock:
            experiment_id, metric, segment, scale, revision, commit_id, statistics, block, pending_reason,
            experiment_revision, labels, kind, shipped_variant; properties: read_properties);
        query.all(block).await
    }

    /// A population's estimates after an experiment, up to another and with it (`None`: to the end), in the order of their
    /// keys.
    pub async fn estimates_between(
        &mut self,
        population_id: &str,
        after: &str,
        to: Option<&str>,
    ) -> Result<Vec<AuditedEstimate>, StoreError> {
        let up_to = if to.is_some() { "and experiment_id <= $3" } else { "" };
        let sql = format!(
            "select experiment_id, variant, commit_id, {} from effect_estimates
             where population_id = $1 and experiment_id > $2 {up_to} order by experiment_id, variant",
            ESTIMATE.names("")
        );
        let values = values![population_id, after].into_iter().chain(to.map(Into::into));
        let estimate = record!(AuditedEstimate:
            experiment_id, variant, block_revision, commit_id, fit_id, status;
            words: |row| ESTIMATE.read_words(row), figures: |row| ESTIMATE.read_figures(row));
        self.transaction.query("audit: estimates", sql, values).all(estimate).await
    }

    /// A fit that was published once; `None` where the history has none of that id.
    ///
    /// # Errors
    /// Where the store fails, or the fit cannot be read.
    pub async fn published_fit(
        &mut self,
        population: &PopulationName,
        fit_id: i64,
    ) -> Result<Option<PublishedFit>, StoreError> {
        fits::published_once(&mut self.transaction, population, fit_id).await
    }
}
