//! What an audit reads, in one transaction that sees one moment and locks nothing.

use shrinkd_core::PopulationName;

use super::{Transaction, classify, partitions};
use crate::row::{Counters, PartitionStatus, PublishedFit};
use crate::store::audit::{
    self, Audit, AuditedBlock, AuditedEstimate, AuditedPopulation, BlockColumns, RegisteredColumns, SkippedColumns,
    SkippedOffsets,
};
use crate::store::{StoreError, decode};

/// An audit under way. The transaction ends with it.
pub struct PostgresAudit {
    transaction: Transaction,
}

impl PostgresAudit {
    pub(super) fn new(transaction: Transaction) -> PostgresAudit {
        PostgresAudit { transaction }
    }
}

fn failed(error: sqlx::Error) -> StoreError {
    classify("the audit cannot read on", error)
}

impl Audit for PostgresAudit {
    async fn partitions(&mut self) -> Result<Vec<PartitionStatus>, StoreError> {
        partitions::all(&mut *self.transaction).await
    }

    async fn skipped_offsets(&mut self) -> Result<Vec<SkippedOffsets>, StoreError> {
        let rows: Vec<SkippedColumns> =
            sqlx::query_as(audit::SKIPPED).fetch_all(&mut *self.transaction).await.map_err(failed)?;
        Ok(rows.into_iter().map(audit::skipped).collect())
    }

    async fn population_ids(&mut self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(audit::POPULATION_IDS).fetch_all(&mut *self.transaction).await.map_err(failed)
    }

    async fn counted_blocks(&mut self) -> Result<i64, StoreError> {
        sqlx::query_scalar(audit::COUNTED_BLOCKS).fetch_one(&mut *self.transaction).await.map_err(failed)
    }

    async fn population(&mut self, population_id: &str) -> Result<AuditedPopulation, StoreError> {
        let registered: Option<RegisteredColumns> = sqlx::query_as(audit::REGISTERED)
            .bind(population_id)
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(failed)?;
        let (changes, experiments, effects) = sqlx::query_as(audit::COUNTERS)
            .bind(population_id)
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(failed)?;
        let cells =
            sqlx::query_as(audit::CELLS).bind(population_id).fetch_all(&mut *self.transaction).await.map_err(failed)?;
        let fits =
            sqlx::query(audit::FITS).bind(population_id).fetch_all(&mut *self.transaction).await.map_err(failed)?;
        Ok(AuditedPopulation {
            registered: registered.map(audit::registered),
            counters: Counters { changes, experiments, effects },
            cells,
            fits: fits.iter().map(audit::fit).collect::<Result<_, _>>().map_err(failed)?,
        })
    }

    async fn blocks_after(
        &mut self,
        population_id: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<AuditedBlock>, StoreError> {
        let rows: Vec<BlockColumns> = sqlx::query_as(audit::BLOCKS)
            .bind(population_id)
            .bind(after)
            .bind(limit as i64)
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(failed)?;
        Ok(rows.into_iter().map(audit::block).collect())
    }

    async fn estimates_between(
        &mut self,
        population_id: &str,
        after: &str,
        to: Option<&str>,
    ) -> Result<Vec<AuditedEstimate>, StoreError> {
        let query = match to {
            Some(to) => sqlx::query(audit::ESTIMATES_UP_TO).bind(population_id).bind(after).bind(to),
            None => sqlx::query(audit::ESTIMATES_TO_THE_END).bind(population_id).bind(after),
        };
        let rows = query.fetch_all(&mut *self.transaction).await.map_err(failed)?;
        rows.iter().map(audit::estimate).collect::<Result<_, _>>().map_err(failed)
    }

    async fn published_fit(
        &mut self,
        population: &PopulationName,
        fit_id: i64,
    ) -> Result<Option<PublishedFit>, StoreError> {
        let rows = sqlx::query_as(audit::PUBLISHED_FIT)
            .bind(population.to_string())
            .bind(fit_id)
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(failed)?;
        Ok(decode::published_fits(rows)?.remove(population))
    }
}
