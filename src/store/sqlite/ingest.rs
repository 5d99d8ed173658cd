//! The transaction of one batch: fence, read, changes, estimates.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{PopulationName, ResultKey};
use shrinkd_model::{Cell, Correlation, cell_to_bytes};

use super::rows::{self, Columns};
use super::{Transaction, classify, estimates, fits, json_array, now, replay, settings, timestamp};
use crate::row::replay::ReplayedRow;
use crate::row::{
    BlockRow, CellChange, Changes, EstimateRow, ExperimentRow, PublishedFit, RejectedRow, StoredExperiment,
};
use crate::store::decode::{self, BlockColumns, ExperimentColumns};
use crate::store::{Advance, Ingest, StoreError, StoreSettings, Written};

/// A batch under way. Dropped without a commit, nothing of it has happened.
pub struct SqliteIngest {
    pub(super) transaction: Transaction,
    /// Of this batch alone, and larger than that of any batch before it.
    pub(super) commit_id: i64,
    /// The partition under which the batch is counted: the first of those that it advances.
    pub(super) partition_id: i64,
}

impl SqliteIngest {
    pub(super) async fn begin(
        mut transaction: Transaction,
        advances: &[Advance],
        settings: &StoreSettings,
    ) -> Result<SqliteIngest, StoreError> {
        settings::check(&mut transaction, settings).await?;
        let failed = |error| classify("cannot advance the partitions", error);
        let mut lost = Vec::new();
        for advance in advances {
            let advanced = sqlx::query(
                "update partition_progress set next_offset = $4, committed_at = $5
                 where partition_id = $1 and epoch = $2 and next_offset is $3",
            )
            .bind(advance.partition_id)
            .bind(advance.epoch.0)
            .bind(advance.from.map(|offset| offset.0))
            .bind(advance.to.0)
            .bind(now())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
            if advanced.rows_affected() == 0 {
                lost.push(advance.partition);
            }
        }
        if !lost.is_empty() {
            transaction.rollback().await.map_err(failed)?;
            return Err(StoreError::Fenced { partitions: lost });
        }
        let commit_id = sqlx::query_scalar("update last_ids set commit_id = commit_id + 1 returning commit_id")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let partition_id = advances.iter().map(|advance| advance.partition_id).min().unwrap_or_default();
        Ok(SqliteIngest { transaction, commit_id, partition_id })
    }

    async fn write_experiments(&mut self, rows: &[ExperimentRow]) -> Result<(), StoreError> {
        // Nobody else writes meanwhile: a row that was new when it was read still is.
        let head = "insert or replace into experiments
                        (experiment_id, revision, decision, labels, completed_at, retractions) ";
        let bind = |columns: &mut Columns<'_>, row: &ExperimentRow| {
            columns
                .push_bind(&row.experiment_id)
                .push_bind(row.latest.revision as i64)
                .push_bind(&row.latest.decision)
                .push_bind(decode::labels_to_json(&row.latest.labels))
                .push_bind(timestamp(row.latest.completed_at))
                .push_bind(&row.retractions);
        };
        let written = rows::write(&mut self.transaction, head, rows, bind, "").await;
        written.map(drop).map_err(|error| classify("cannot write experiments", error))
    }

    async fn forget_experiments(&mut self, experiment_ids: &[String]) -> Result<(), StoreError> {
        for experiment_id in experiment_ids {
            sqlx::query("delete from experiments where experiment_id = $1")
                .bind(experiment_id)
                .execute(&mut *self.transaction)
                .await
                .map_err(|error| classify("cannot forget experiments", error))?;
        }
        Ok(())
    }

    async fn write_blocks(&mut self, rows: &[BlockRow]) -> Result<u64, StoreError> {
        let head = "insert into blocks (experiment_id, metric, segment, scale, population_id, revision, statistics,
                                        block, components, pending_reason, pending_detail, commit_id, partition_id) ";
        let bind = |columns: &mut Columns<'_>, BlockRow { experiment_id, block, pending }: &BlockRow| {
            columns
                .push_bind(experiment_id)
                .push_bind(&block.key.metric)
                .push_bind(&block.key.segment)
                .push_bind(block.key.scale.as_str())
                .push_bind(block.population.to_string())
                .push_bind(block.revision as i64)
                .push_bind(&block.statistics)
                .push_bind(&block.block)
                .push_bind(&block.components)
                .push_bind(pending.as_ref().map(|refusal| refusal.reason.as_str()))
                .push_bind(pending.as_ref().map(|refusal| refusal.detail.as_str()))
                .push_bind(self.commit_id)
                .push_bind(self.partition_id);
        };
        let tail = "
            on conflict (experiment_id, metric, segment, scale) do update
            set population_id = excluded.population_id, revision = excluded.revision, statistics = excluded.statistics,
                block = excluded.block, components = excluded.components, pending_reason = excluded.pending_reason,
                pending_detail = excluded.pending_detail, commit_id = excluded.commit_id,
                partition_id = excluded.partition_id";
        let written = rows::write(&mut self.transaction, head, rows, bind, tail).await;
        written.map_err(|error| classify("cannot write blocks", error))
    }

    async fn withdraw_blocks(&mut self, blocks: &[(String, ResultKey)]) -> Result<(), StoreError> {
        for (experiment_id, key) in blocks {
            sqlx::query("delete from blocks where (experiment_id, metric, segment, scale) = ($1, $2, $3, $4)")
                .bind(experiment_id)
                .bind(&key.metric)
                .bind(&key.segment)
                .bind(key.scale.as_str())
                .execute(&mut *self.transaction)
                .await
                .map_err(|error| classify("cannot withdraw blocks", error))?;
        }
        Ok(())
    }

    /// Adds to the cells what the batch changed.
    async fn write_cells(&mut self, changes: &BTreeMap<PopulationName, CellChange>) -> Result<u64, StoreError> {
        let failed = |error| classify("cannot write cells", error);
        let mut cells: BTreeMap<(String, Correlation, i16), Cell> = BTreeMap::new();
        for (population, change) in changes {
            for correlation in Correlation::ALL {
                let own = change.sketches.of(correlation).cells();
                cells.extend(own.map(|(octave, cell)| ((population.to_string(), correlation, octave), *cell)));
            }
        }
        let stored: Vec<(String, String, i16, Vec<u8>)> = sqlx::query_as(
            "select population_id, correlation, octave, moments from sketch_cells
             where population_id in (select value from json_each($1)) and partition_id = $2",
        )
        .bind(json_array(changes.keys().map(PopulationName::to_string)))
        .bind(self.partition_id)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        for (population_id, correlation, octave, moments) in stored {
            if let Some(change) = cells.get_mut(&(population_id, decode::correlation(&correlation)?, octave)) {
                decode::add_cell(change, &moments)?;
            }
        }
        let cells: Vec<(&(String, Correlation, i16), &Cell)> = cells.iter().collect();
        let head = "insert into sketch_cells (partition_id, population_id, correlation, octave, moments) ";
        let bind = |columns: &mut Columns<'_>, (key, cell): &(&(String, Correlation, i16), &Cell)| {
            let (population_id, correlation, octave) = key;
            columns
                .push_bind(self.partition_id)
                .push_bind(population_id)
                .push_bind(correlation.as_str())
                .push_bind(octave)
                .push_bind(cell_to_bytes(cell));
        };
        let tail = "
            on conflict (population_id, partition_id, correlation, octave) do update set moments = excluded.moments";
        rows::write(&mut self.transaction, head, &cells, bind, tail).await.map_err(failed)
    }

    async fn write_counters(&mut self, changes: &BTreeMap<PopulationName, CellChange>) -> Result<(), StoreError> {
        for (population, change) in changes {
            sqlx::query(
                "insert into cell_counters (partition_id, population_id, changes, experiments, effects)
                 values ($1, $2, $3, $4, $5)
                 on conflict (population_id, partition_id) do update
                 set changes = changes + excluded.changes, experiments = experiments + excluded.experiments,
                     effects = effects + excluded.effects",
            )
            .bind(self.partition_id)
            .bind(population.to_string())
            .bind(change.counters.changes)
            .bind(change.counters.experiments)
            .bind(change.counters.effects)
            .execute(&mut *self.transaction)
            .await
            .map_err(|error| classify("cannot write counters", error))?;
        }
        Ok(())
    }

    async fn write_rejected(&mut self, rows: &[RejectedRow]) -> Result<u64, StoreError> {
        let mut written = 0;
        for row in rows {
            let kept = sqlx::query(
                "insert into rejected_events (partition_id, cluster_id, topic, partition_number, record_offset,
                                              result_index, experiment_id, reason, detail, message_key, payload,
                                              payload_bytes, produced_at, rejected_at)
                 select $1, cluster_id, topic, partition_number, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
                 from partition_progress where partition_id = $1
                 on conflict do nothing",
            )
            .bind(row.partition_id)
            .bind(row.offset)
            .bind(row.result_index)
            .bind(&row.experiment_id)
            .bind(row.refusal.reason.as_str())
            .bind(&row.refusal.detail)
            .bind(&row.key)
            .bind(row.payload.as_deref())
            .bind(row.payload_bytes)
            .bind(row.produced_at.map(timestamp))
            .bind(now())
            .execute(&mut *self.transaction)
            .await
            .map_err(|error| classify("cannot keep refused events", error))?;
            written += kept.rows_affected();
        }
        Ok(written)
    }
}

impl Ingest for SqliteIngest {
    async fn experiments(
        &mut self,
        experiment_ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
        let failed = |error| classify("cannot read experiments", error);
        let rows: Vec<ExperimentColumns> = sqlx::query_as(
            "select experiment_id, revision, decision, labels, completed_at, retractions
             from experiments where experiment_id in (select value from json_each($1))",
        )
        .bind(json_array(experiment_ids))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        let mut experiments = decode::experiments(rows)?;
        if experiments.is_empty() {
            return Ok(experiments);
        }
        let rows: Vec<BlockColumns> = sqlx::query_as(
            "select experiment_id, metric, segment, scale, population_id, revision, statistics, block, components
             from blocks where experiment_id in (select value from json_each($1))",
        )
        .bind(json_array(experiments.keys()))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        decode::blocks(rows, &mut experiments)?;
        Ok(experiments)
    }

    async fn published_fits(
        &mut self,
        populations: &BTreeSet<PopulationName>,
    ) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
        for population in populations {
            sqlx::query(
                "insert into populations (population_id, metric, segment, scale, created_at)
                 values ($1, $2, $3, $4, $5)
                 on conflict do nothing",
            )
            .bind(population.to_string())
            .bind(&population.key().metric)
            .bind(&population.key().segment)
            .bind(population.key().scale.as_str())
            .bind(now())
            .execute(&mut *self.transaction)
            .await
            .map_err(|error| classify("cannot put in populations", error))?;
        }
        fits::published_of(&mut self.transaction, populations).await
    }

    async fn write_changes(&mut self, changes: &Changes) -> Result<Written, StoreError> {
        self.write_experiments(&changes.experiments).await?;
        self.withdraw_blocks(&changes.withdrawn_blocks).await?;
        self.forget_experiments(&changes.forgotten_experiments).await?;
        replay::write_tombstones(&mut self.transaction, &changes.tombstones).await?;
        let blocks = self.write_blocks(&changes.blocks).await?;
        let cells = self.write_cells(&changes.cells).await?;
        self.write_counters(&changes.cells).await?;
        let rejected = self.write_rejected(&changes.rejected).await?;
        Ok(vec![("blocks", blocks), ("sketch_cells", cells), ("rejected_events", rejected)])
    }

    async fn write_estimates(&mut self, changes: &Changes, rows: &[EstimateRow]) -> Result<Written, StoreError> {
        estimates::retire(&mut self.transaction, &changes.retired).await?;
        let written = estimates::upsert(&mut self.transaction, rows, self.commit_id).await?;
        Ok(vec![("effect_estimates", written)])
    }

    async fn retracted(&mut self, messages: &[(i64, String)]) -> Result<BTreeSet<i64>, StoreError> {
        replay::retracted(&mut self.transaction, messages).await
    }

    async fn write_replayed(&mut self, rows: &[ReplayedRow]) -> Result<(), StoreError> {
        replay::write_replayed(&mut self.transaction, rows).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await.map_err(|error| classify("cannot commit a batch", error))
    }
}
