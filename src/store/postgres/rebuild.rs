//! The transaction of a rebuild: a batch of all that is stored, with the store to itself.

use std::collections::BTreeMap;

use super::ingest::PostgresIngest;
use super::{INGEST_LOCK, Transaction, classify, settings};
use crate::row::StoredExperiment;
use crate::store::decode::{self, BlockColumns, ExperimentColumns, RawEstimateColumns};
use crate::store::{RawEstimates, Rebuild, StoreError, StoreSettings};

/// First batches and then populations are locked out, each in the order that everybody else keeps too. Partitions are not:
/// they can be claimed meanwhile, as rebalances want it.
pub(super) async fn begin(
    mut transaction: Transaction,
    own: &StoreSettings,
) -> Result<(PostgresIngest, Option<StoreSettings>), StoreError> {
    let failed = |error| classify("cannot begin a rebuild", error);
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(INGEST_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query("select population_id from populations order by population_id for update")
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    let replaced = settings::replace(&mut transaction, own).await?;
    for statement in ["delete from sketch_cells", "delete from cell_counters"] {
        sqlx::query(statement).execute(&mut *transaction).await.map_err(failed)?;
    }
    let commit_id =
        sqlx::query_scalar("select nextval('commit_ids')").fetch_one(&mut *transaction).await.map_err(failed)?;
    let partition_id: Option<i64> = sqlx::query_scalar("select min(partition_id) from partition_progress")
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    let partition_id = partition_id.unwrap_or_default();
    Ok((PostgresIngest { transaction, commit_id, partition_id }, replaced))
}

impl Rebuild for PostgresIngest {
    async fn count_experiments(&mut self) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("select count(*) from experiments")
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(|error| classify("cannot count experiments", error))?;
        Ok(count as u64)
    }

    async fn experiments_after(
        &mut self,
        after: &str,
        limit: usize,
    ) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
        let failed = |error| classify("cannot read experiments", error);
        let rows: Vec<ExperimentColumns> = sqlx::query_as(
            "select experiment_id, revision, decision, labels::text, completed_at, retractions
             from experiments where experiment_id > $1 order by experiment_id limit $2",
        )
        .bind(after)
        .bind(limit as i64)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        let mut experiments = decode::experiments(rows)?;
        let Some(last) = experiments.keys().next_back().cloned() else { return Ok(experiments) };
        let rows: Vec<BlockColumns> = sqlx::query_as(
            "select experiment_id, metric, segment, scale, population_id, revision, statistics, block, components
             from blocks where experiment_id > $1 and experiment_id <= $2",
        )
        .bind(after)
        .bind(last)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        decode::blocks(rows, &mut experiments)?;
        Ok(experiments)
    }

    async fn raw_estimates(&mut self, after: &str, last: &str) -> Result<RawEstimates, StoreError> {
        let rows: Vec<RawEstimateColumns> = sqlx::query_as(
            // Looked up block by block (offset 0 keeps it so): a join would read all estimates for every page.
            "select e.population_id, e.experiment_id, e.variant, e.block_revision, e.raw_estimate, e.raw_se,
                    e.treatment_variance, e.control_variance, e.control_loading
             from blocks as b
             cross join lateral (select * from effect_estimates as e
                                 where e.population_id = b.population_id and e.experiment_id = b.experiment_id
                                   and e.commit_id = b.commit_id offset 0) as e
             where b.experiment_id > $1 and b.experiment_id <= $2 and b.block is not null",
        )
        .bind(after)
        .bind(last)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(|error| classify("cannot read estimates", error))?;
        Ok(decode::raw_estimates(rows))
    }

    async fn sweep(&mut self) -> Result<u64, StoreError> {
        let failed = |error| classify("cannot end a rebuild", error);
        sqlx::query(
            "delete from effect_estimates as e
             where not exists (select from blocks as b
                               where b.population_id = e.population_id and b.experiment_id = e.experiment_id
                                 and b.commit_id = e.commit_id and b.block is not null)",
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        sqlx::query(
            "delete from current_population_fits as f
             where not exists (select from cell_counters as c where c.population_id = f.population_id)",
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        let emptied = sqlx::query(
            "delete from populations as p
             where not exists (select from cell_counters as c where c.population_id = p.population_id)",
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        // Passes under way have read blocks as they were: nobody owns them any more.
        sqlx::query(
            "update populations
             set refitted_changes = -1, diagnosed_at = null, pass_owner = null, pass_touched_at = null",
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        Ok(emptied.rows_affected())
    }
}
