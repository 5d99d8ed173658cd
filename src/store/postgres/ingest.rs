//! The transaction of one batch: fence, locked read, changes, estimates.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{PopulationName, ResultKey};
use shrinkd_model::{Cell, Correlation, cell_to_bytes};

use super::{Company, INGEST_LOCK, Transaction, classify, column, estimates, replay, settings};
use crate::row::replay::ReplayedRow;
use crate::row::{
    BlockRow, CellChange, Changes, EstimateRow, ExperimentRow, PublishedFit, RejectedRow, StoredExperiment,
};
use crate::store::decode::{self, BlockColumns, ExperimentColumns};
use crate::store::{Advance, Ingest, StoreError, StoreSettings, Written};

/// A batch under way. Dropped without a commit, nothing of it has happened.
pub struct PostgresIngest {
    pub(super) transaction: Transaction,
    /// Of this batch alone, and larger than that of any batch before it that has touched the same experiment.
    pub(super) commit_id: i64,
    /// The partition under which the batch is counted: the first of those that it advances, and so holds locked.
    pub(super) partition_id: i64,
}

impl PostgresIngest {
    pub(super) async fn begin(
        mut transaction: Transaction,
        advances: &[Advance],
        company: Company,
        settings: &StoreSettings,
    ) -> Result<PostgresIngest, StoreError> {
        let failed = |error| classify("cannot advance the partitions", error);
        let lock = match company {
            Company::Others => "select pg_advisory_xact_lock_shared($1)",
            Company::Alone => "select pg_advisory_xact_lock($1)",
        };
        sqlx::query(lock).bind(INGEST_LOCK).execute(&mut *transaction).await.map_err(failed)?;
        // After the lock, which a rebuild holds alone until its settings can be seen.
        settings::check(&mut transaction, settings).await?;
        let advanced: Vec<i64> = sqlx::query_scalar(
            "update partition_progress as p set next_offset = a.next_offset, committed_at = now()
             from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                 as a (partition_id, epoch, from_offset, next_offset)
             where p.partition_id = a.partition_id and p.epoch = a.epoch
               and p.next_offset is not distinct from a.from_offset
             returning p.partition_id",
        )
        .bind(column(advances, |advance| advance.partition_id))
        .bind(column(advances, |advance| advance.epoch.0))
        .bind(column(advances, |advance| advance.from.map(|offset| offset.0)))
        .bind(column(advances, |advance| advance.to.0))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        if advanced.len() < advances.len() {
            let lost = advances.iter().filter(|advance| !advanced.contains(&advance.partition_id));
            let partitions = lost.map(|advance| advance.partition).collect();
            transaction.rollback().await.map_err(failed)?;
            return Err(StoreError::Fenced { partitions });
        }
        let commit_id =
            sqlx::query_scalar("select nextval('commit_ids')").fetch_one(&mut *transaction).await.map_err(failed)?;
        let partition_id = advances.iter().map(|advance| advance.partition_id).min().unwrap_or_default();
        Ok(PostgresIngest { transaction, commit_id, partition_id })
    }

    async fn write_experiments(&mut self, rows: &[ExperimentRow]) -> Result<(), StoreError> {
        let failed = |error| classify("cannot write experiments", error);
        // Rows that were not there when they were read must not have come in between: a plain insert finds out.
        const INSERT: &str =
            "insert into experiments (experiment_id, revision, decision, labels, completed_at, retractions)
             select experiment_id, revision, decision, labels::jsonb, completed_at, retractions
             from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::bytea[])
                 as n (experiment_id, revision, decision, labels, completed_at, retractions)";
        const UPDATE: &str = "update experiments as e
             set revision = n.revision, decision = n.decision, labels = n.labels::jsonb, completed_at = n.completed_at,
                 retractions = n.retractions
             from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::bytea[])
                 as n (experiment_id, revision, decision, labels, completed_at, retractions)
             where e.experiment_id = n.experiment_id";
        for (statement, is_new) in [(INSERT, true), (UPDATE, false)] {
            let rows: Vec<&ExperimentRow> = rows.iter().filter(|row| row.is_new == is_new).collect();
            if rows.is_empty() {
                continue;
            }
            sqlx::query(statement)
                .bind(column(&rows, |row| row.experiment_id.as_str()))
                .bind(column(&rows, |row| row.latest.revision as i64))
                .bind(column(&rows, |row| row.latest.decision.as_deref()))
                .bind(column(&rows, |row| decode::labels_to_json(&row.latest.labels)))
                .bind(column(&rows, |row| row.latest.completed_at))
                .bind(column(&rows, |row| row.retractions.as_deref()))
                .execute(&mut *self.transaction)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    async fn forget_experiments(&mut self, experiment_ids: &[String]) -> Result<(), StoreError> {
        if experiment_ids.is_empty() {
            return Ok(());
        }
        sqlx::query("delete from experiments where experiment_id = any($1)")
            .bind(experiment_ids)
            .execute(&mut *self.transaction)
            .await
            .map_err(|error| classify("cannot forget experiments", error))?;
        Ok(())
    }

    async fn write_blocks(&mut self, rows: &[BlockRow]) -> Result<u64, StoreError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let written = sqlx::query(
            "insert into blocks (experiment_id, metric, segment, scale, population_id, revision, statistics, block,
                                 components, pending_reason, pending_detail, commit_id, partition_id)
             select n.*, $12, $13
             from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bytea[],
                         $8::bytea[], $9::bytea[], $10::text[], $11::text[]) as n
             on conflict (experiment_id, metric, segment, scale) do update
             set population_id = excluded.population_id, revision = excluded.revision,
                 statistics = excluded.statistics, block = excluded.block, components = excluded.components,
                 pending_reason = excluded.pending_reason, pending_detail = excluded.pending_detail,
                 commit_id = excluded.commit_id, partition_id = excluded.partition_id",
        )
        .bind(column(rows, |row| row.experiment_id.as_str()))
        .bind(column(rows, |row| row.block.key.metric.as_str()))
        .bind(column(rows, |row| row.block.key.segment.as_str()))
        .bind(column(rows, |row| row.block.key.scale.as_str()))
        .bind(column(rows, |row| row.block.population.to_string()))
        .bind(column(rows, |row| row.block.revision as i64))
        .bind(column(rows, |row| row.block.statistics.as_slice()))
        .bind(column(rows, |row| row.block.block.as_deref()))
        .bind(column(rows, |row| row.block.components.as_deref()))
        .bind(column(rows, |row| row.pending.as_ref().map(|refusal| refusal.reason.as_str())))
        .bind(column(rows, |row| row.pending.as_ref().map(|refusal| refusal.detail.as_str())))
        .bind(self.commit_id)
        .bind(self.partition_id)
        .execute(&mut *self.transaction)
        .await
        .map_err(|error| classify("cannot write blocks", error))?;
        Ok(written.rows_affected())
    }

    async fn withdraw_blocks(&mut self, blocks: &[(String, ResultKey)]) -> Result<(), StoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "delete from blocks as b using unnest($1::text[], $2::text[], $3::text[], $4::text[])
                 as n (experiment_id, metric, segment, scale)
             where (b.experiment_id, b.metric, b.segment, b.scale) = (n.experiment_id, n.metric, n.segment, n.scale)",
        )
        .bind(column(blocks, |(experiment_id, _)| experiment_id.as_str()))
        .bind(column(blocks, |(_, key)| key.metric.as_str()))
        .bind(column(blocks, |(_, key)| key.segment.as_str()))
        .bind(column(blocks, |(_, key)| key.scale.as_str()))
        .execute(&mut *self.transaction)
        .await
        .map_err(|error| classify("cannot withdraw blocks", error))?;
        Ok(())
    }

    /// Adds to the cells what the batch changed. They are read and written under the row lock of the batch's partition.
    async fn write_cells(&mut self, changes: &BTreeMap<PopulationName, CellChange>) -> Result<u64, StoreError> {
        let failed = |error| classify("cannot write cells", error);
        let mut cells: BTreeMap<(String, Correlation, i16), Cell> = BTreeMap::new();
        for (population, change) in changes {
            for correlation in Correlation::ALL {
                let own = change.sketches.of(correlation).cells();
                cells.extend(own.map(|(octave, cell)| ((population.to_string(), correlation, octave), *cell)));
            }
        }
        if cells.is_empty() {
            return Ok(0);
        }
        let populations = column(&changes.keys().collect::<Vec<_>>(), |population| population.to_string());
        let stored: Vec<(String, String, i16, Vec<u8>)> = sqlx::query_as(
            "select population_id, correlation, octave, moments from sketch_cells
             where population_id = any($1) and partition_id = $2",
        )
        .bind(populations)
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
        let written = sqlx::query(
            "insert into sketch_cells (partition_id, population_id, correlation, octave, moments)
             select $1, n.* from unnest($2::text[], $3::text[], $4::smallint[], $5::bytea[]) as n
             on conflict (population_id, partition_id, correlation, octave) do update set moments = excluded.moments",
        )
        .bind(self.partition_id)
        .bind(column(&cells, |((population_id, ..), _)| population_id.as_str()))
        .bind(column(&cells, |((_, correlation, _), _)| correlation.as_str()))
        .bind(column(&cells, |((.., octave), _)| *octave))
        .bind(column(&cells, |(_, cell)| cell_to_bytes(cell)))
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        Ok(written.rows_affected())
    }

    async fn write_counters(&mut self, changes: &BTreeMap<PopulationName, CellChange>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let rows: Vec<(&PopulationName, &CellChange)> = changes.iter().collect();
        sqlx::query(
            "insert into cell_counters as c (partition_id, population_id, changes, experiments, effects)
             select $1, n.* from unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) as n
             on conflict (population_id, partition_id) do update
             set changes = c.changes + excluded.changes, experiments = c.experiments + excluded.experiments,
                 effects = c.effects + excluded.effects",
        )
        .bind(self.partition_id)
        .bind(column(&rows, |(population, _)| population.to_string()))
        .bind(column(&rows, |(_, change)| change.counters.changes))
        .bind(column(&rows, |(_, change)| change.counters.experiments))
        .bind(column(&rows, |(_, change)| change.counters.effects))
        .execute(&mut *self.transaction)
        .await
        .map_err(|error| classify("cannot write counters", error))?;
        Ok(())
    }

    /// In pages, because the rows of one message each carry all of it, and a statement holds at most 1 GiB.
    async fn write_rejected(&mut self, rows: &[RejectedRow]) -> Result<u64, StoreError> {
        let mut written = 0;
        for rows in pages(rows) {
            written += self.write_rejected_page(rows).await?;
        }
        Ok(written)
    }

    async fn write_rejected_page(&mut self, rows: &[RejectedRow]) -> Result<u64, StoreError> {
        // In the order of the records, which a replay goes by.
        let written = sqlx::query(
            "insert into rejected_events (partition_id, cluster_id, topic, partition_number, record_offset, result_index,
                                          experiment_id, reason, detail, message_key, payload, payload_bytes, produced_at)
             select n.partition_id, p.cluster_id, p.topic, p.partition_number, n.record_offset, n.result_index,
                    n.experiment_id, n.reason, n.detail, n.message_key, n.payload, n.payload_bytes, n.produced_at
             from unnest($1::bigint[], $2::bigint[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bytea[],
                         $8::bytea[], $9::bigint[], $10::timestamptz[]) with ordinality
                 as n (partition_id, record_offset, result_index, experiment_id, reason, detail, message_key, payload,
                       payload_bytes, produced_at, place)
             join partition_progress as p using (partition_id)
             order by n.place
             on conflict do nothing",
        )
        .bind(column(rows, |row| row.partition_id))
        .bind(column(rows, |row| row.offset))
        .bind(column(rows, |row| row.result_index))
        .bind(column(rows, |row| row.experiment_id.as_deref()))
        .bind(column(rows, |row| row.refusal.reason.as_str()))
        .bind(column(rows, |row| row.refusal.detail.as_str()))
        .bind(column(rows, |row| row.key.as_deref()))
        .bind(column(rows, |row| row.payload.as_deref()))
        .bind(column(rows, |row| row.payload_bytes))
        .bind(column(rows, |row| row.produced_at))
        .execute(&mut *self.transaction)
        .await
        .map_err(|error| classify("cannot keep refused events", error))?;
        Ok(written.rows_affected())
    }
}

impl Ingest for PostgresIngest {
    async fn experiments(
        &mut self,
        experiment_ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
        let failed = |error| classify("cannot read experiments", error);
        let ids: Vec<&str> = experiment_ids.iter().map(String::as_str).collect();
        let rows: Vec<ExperimentColumns> = sqlx::query_as(
            "select experiment_id, revision, decision, labels::text, completed_at, retractions
             from experiments where experiment_id = any($1) order by experiment_id for update",
        )
        .bind(&ids)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        let mut experiments = decode::experiments(rows)?;
        if experiments.is_empty() {
            return Ok(experiments);
        }
        let stored: Vec<&str> = experiments.keys().map(String::as_str).collect();
        let rows: Vec<BlockColumns> = sqlx::query_as(
            "select experiment_id, metric, segment, scale, population_id, revision, statistics, block, components
             from blocks where experiment_id = any($1)",
        )
        .bind(&stored)
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
        let failed = |error| classify("cannot read the published fits", error);
        let names: Vec<&PopulationName> = populations.iter().collect();
        sqlx::query(
            "insert into populations (population_id, metric, segment, scale)
             select n.* from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as n (population_id, m, s, c)
             where not exists (select from populations as p where p.population_id = n.population_id)
             on conflict do nothing",
        )
        .bind(column(&names, |name| name.to_string()))
        .bind(column(&names, |name| name.key().metric.as_str()))
        .bind(column(&names, |name| name.key().segment.as_str()))
        .bind(column(&names, |name| name.key().scale.as_str()))
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        let rows: Vec<(String, i64, String, String, Vec<u8>)> = sqlx::query_as(
            "select f.population_id, f.fit_id, f.correlation, f.status, f.nodes
             from populations as p
             join population_fits as f on f.population_id = p.population_id and f.fit_id = p.published_fit_id
             where p.population_id = any($1) and f.correlation in ('modelled', 'ignored')",
        )
        .bind(column(&names, |name| name.to_string()))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        decode::published_fits(rows)
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

/// The payloads of one statement of refused rows, in bytes (but for a single row that has more).
const PAGE_BYTES: usize = 8 << 20;

fn pages(rows: &[RejectedRow]) -> impl Iterator<Item = &[RejectedRow]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let is_within = |row: &RejectedRow| {
            bytes += row.payload.as_ref().map_or(0, |payload| payload.len());
            bytes <= PAGE_BYTES
        };
        let fitting = rest.iter().take(1_000).map(is_within).take_while(|&fits| fits).count();
        let (page, left) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = left;
        (!page.is_empty()).then_some(page)
    })
}
