//! Partitions: who owns them, how far they are, and what operators have them do.

use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};
use time::OffsetDateTime;

use super::{Transaction, classify, column};
use crate::row::{Halt, PartitionStatus, Skip};
use crate::store::{Advance, Skipped, StoreError, check_topic, judge_commit};
use crate::stream::{Claim, Epoch, NextOffset, Topic};

pub(super) async fn claim(
    mut transaction: Transaction,
    topic: &Topic,
    partitions: &[i32],
    owner: &str,
) -> Result<Vec<Claim>, StoreError> {
    let failed = |error| classify("cannot claim partitions", error);
    // Sorted, so that two workers that claim the same partitions wait for each other in one order only.
    let mut partitions = partitions.to_vec();
    partitions.sort_unstable();
    let rows = sqlx::query(
        "insert into partition_progress (cluster_id, topic, topic_id, partition_number, epoch, owner)
         select $1, $2, $3, partition_number, 1, $5 from unnest($4::int[]) as partition_number
         on conflict (cluster_id, topic, partition_number) do update
         set epoch = partition_progress.epoch + 1, owner = excluded.owner, claimed_at = now(),
             topic_id = case when partition_progress.topic_id = '' then excluded.topic_id
                             else partition_progress.topic_id end
         returning partition_id, partition_number, epoch, next_offset, topic_id, halted_at is not null as is_halted",
    )
    .bind(&topic.cluster_id)
    .bind(&topic.name)
    .bind(&topic.id)
    .bind(&partitions)
    .bind(owner)
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    let mut claims = Vec::with_capacity(rows.len());
    for row in &rows {
        let claim = || -> Result<(Claim, String), sqlx::Error> {
            let claim = Claim {
                partition: row.try_get("partition_number")?,
                partition_id: row.try_get("partition_id")?,
                epoch: Epoch(row.try_get("epoch")?),
                next_offset: row.try_get::<Option<i64>, _>("next_offset")?.map(NextOffset),
                is_halted: row.try_get("is_halted")?,
            };
            Ok((claim, row.try_get("topic_id")?))
        };
        let (claim, stored_id) = claim().map_err(failed)?;
        check_topic(topic, &stored_id)?;
        claims.push(claim);
    }
    transaction.commit().await.map_err(failed)?;
    Ok(claims)
}

pub(super) async fn is_committed(pool: &PgPool, advances: &[Advance]) -> Result<bool, StoreError> {
    let rows: Vec<(i64, i64, Option<i64>)> =
        sqlx::query_as("select partition_id, epoch, next_offset from partition_progress where partition_id = any($1)")
            .bind(column(advances, |advance| advance.partition_id))
            .fetch_all(pool)
            .await
            .map_err(|error| classify("cannot tell whether the last commit arrived", error))?;
    judge_commit(advances, &rows)
}

pub(super) async fn halt(pool: &PgPool, halt: &Halt) -> Result<(), StoreError> {
    let halted = sqlx::query(
        "update partition_progress set halted_at = now(), halt_reason = $3, halt_detail = $4
         where partition_id = $1 and epoch = $2",
    )
    .bind(halt.claim.partition_id)
    .bind(halt.claim.epoch.0)
    .bind(halt.reason.as_str())
    .bind(&halt.detail)
    .execute(pool)
    .await
    .map_err(|error| classify("cannot halt a partition", error))?;
    match halted.rows_affected() {
        0 => Err(StoreError::Fenced { partitions: vec![halt.claim.partition] }),
        _ => Ok(()),
    }
}

pub(super) async fn all(executor: impl sqlx::PgExecutor<'_>) -> Result<Vec<PartitionStatus>, StoreError> {
    let failed = |error| classify("cannot read the partitions", error);
    let status = |row: &PgRow| -> Result<PartitionStatus, sqlx::Error> {
        let halted_at: Option<OffsetDateTime> = row.try_get("halted_at")?;
        let halted = match halted_at {
            Some(at) => Some((at, row.try_get("halt_reason")?, row.try_get("halt_detail")?)),
            None => None,
        };
        Ok(PartitionStatus {
            partition_id: row.try_get("partition_id")?,
            cluster_id: row.try_get("cluster_id")?,
            topic: row.try_get("topic")?,
            topic_id: row.try_get("topic_id")?,
            partition: row.try_get("partition_number")?,
            next_offset: row.try_get::<Option<i64>, _>("next_offset")?.map(NextOffset),
            owner: row.try_get("owner")?,
            committed_at: row.try_get("committed_at")?,
            halted,
        })
    };
    let rows = sqlx::query("select * from partition_progress order by cluster_id, topic, partition_number")
        .fetch_all(executor)
        .await
        .map_err(failed)?;
    rows.iter().map(|row| status(row).map_err(failed)).collect()
}

pub(super) async fn resume(pool: &PgPool, partition_id: i64) -> Result<bool, StoreError> {
    let resumed = sqlx::query(
        "update partition_progress set halted_at = null, halt_reason = null, halt_detail = null
         where partition_id = $1 and halted_at is not null",
    )
    .bind(partition_id)
    .execute(pool)
    .await
    .map_err(|error| classify("cannot resume a partition", error))?;
    Ok(resumed.rows_affected() > 0)
}

pub(super) async fn skip(mut transaction: Transaction, skip: &Skip) -> Result<Option<Skipped>, StoreError> {
    let failed = |error| classify("cannot pass over records", error);
    let from: Option<Option<i64>> =
        sqlx::query_scalar("select next_offset from partition_progress where partition_id = $1 for update")
            .bind(skip.partition_id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?;
    let Some(from) = from.filter(|from| from.is_none_or(|from| from < skip.to.0)) else { return Ok(None) };
    sqlx::query(
        "insert into skipped_offsets
             (partition_id, cluster_id, topic, partition_number, from_offset, to_offset, because, skipped_by)
         select partition_id, cluster_id, topic, partition_number, next_offset, $2, $3, $4
         from partition_progress where partition_id = $1",
    )
    .bind(skip.partition_id)
    .bind(skip.to.0)
    .bind(&skip.because)
    .bind(&skip.skipped_by)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    sqlx::query(
        "update partition_progress set next_offset = $2, epoch = epoch + 1, halted_at = null, halt_reason = null,
             halt_detail = null
         where partition_id = $1",
    )
    .bind(skip.partition_id)
    .bind(skip.to.0)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(Some(Skipped { from: from.map(NextOffset) }))
}
