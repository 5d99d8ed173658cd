//! Refused messages: read back to be replayed, and what came of that; the tombstones that they are held against.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, PgPool};

use super::{classify, column};
use crate::row::replay::{RejectedMessage, RejectedRef, RejectedResult, RejectedSelection, ReplayOutcome, ReplayedRow};
use crate::store::StoreError;
use crate::store::decode::{self, RejectedColumns};

pub(super) async fn rejected_rows(
    pool: &PgPool,
    selection: &RejectedSelection,
) -> Result<Vec<RejectedRef>, StoreError> {
    let (reasons, ids) = decode::selection(selection);
    let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "select rejected_event_id, partition_id, record_offset, least(payload_bytes, 1048576)
         from rejected_events
         where ($1::text[] is null or reason = any($1))
           and (rejected_event_id = any($2) or $2::bigint[] is null
                and (replay_outcome is null or starts_with(replay_outcome, 'refused: ')))
         order by rejected_event_id",
    )
    .bind(reasons)
    .bind(ids)
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot read the refused events", error))?;
    Ok(rows.into_iter().map(decode::rejected_ref).collect())
}

pub(super) async fn rejected_messages(pool: &PgPool, rows: &[RejectedRef]) -> Result<Vec<RejectedMessage>, StoreError> {
    let failed = |error| classify("cannot read refused messages", error);
    let messages: Vec<RejectedColumns> = sqlx::query_as(
        "select rejected_event_id, partition_id, record_offset, cluster_id, message_key,
                coalesce(payload, (select f.payload from rejected_events as f
                                   where f.partition_id = r.partition_id and f.record_offset = r.record_offset
                                     and f.payload is not null limit 1)),
                payload_bytes
         from rejected_events as r where rejected_event_id = any($1) order by rejected_event_id",
    )
    .bind(column(rows, |row| row.rejected_event_id))
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    let results: Vec<(i64, i64, i64, Option<i32>, String)> = sqlx::query_as(
        "select r.partition_id, r.record_offset, r.rejected_event_id, r.result_index, r.reason
         from unnest($1::bigint[], $2::bigint[]) as m (partition_id, record_offset)
         join rejected_events as r using (partition_id, record_offset) order by r.rejected_event_id",
    )
    .bind(column(rows, |row| row.partition_id))
    .bind(column(rows, |row| row.offset))
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    let mut by_message: BTreeMap<(i64, i64), Vec<RejectedResult>> = BTreeMap::new();
    for (partition_id, offset, rejected_event_id, result_index, reason) in results {
        let result = RejectedResult { rejected_event_id, result_index, reason };
        by_message.entry((partition_id, offset)).or_default().push(result);
    }
    let message = |columns: RejectedColumns| {
        let rows = by_message.remove(&(columns.1, columns.2)).unwrap_or_default();
        decode::rejected_message(columns, rows)
    };
    Ok(messages.into_iter().map(message).collect())
}

pub(super) async fn retracted(
    connection: &mut PgConnection,
    messages: &[(i64, String)],
) -> Result<BTreeSet<i64>, StoreError> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "select r.rejected_event_id
         from unnest($1::bigint[], $2::text[]) as m (rejected_event_id, experiment_id)
         join rejected_events as r using (rejected_event_id)
         join tombstones as t on t.experiment_id = m.experiment_id
         where case when t.partition_id = r.partition_id then t.record_offset > r.record_offset
                    else t.retracted_at >= r.rejected_at end",
    )
    .bind(column(messages, |(id, _)| *id))
    .bind(column(messages, |(_, experiment_id)| experiment_id.as_str()))
    .fetch_all(connection)
    .await
    .map_err(|error| classify("cannot read tombstones", error))?;
    Ok(ids.into_iter().collect())
}

pub(super) async fn write_replayed(connection: &mut PgConnection, rows: &[ReplayedRow]) -> Result<(), StoreError> {
    let refusal = |row: &ReplayedRow| match &row.outcome {
        ReplayOutcome::Refused(refusal) => Some((refusal.reason.as_str(), refusal.detail.clone())),
        _ => None,
    };
    sqlx::query(
        "update rejected_events as r
         set replayed_at = now(), replay_outcome = n.outcome,
             reason = coalesce(n.reason, r.reason), detail = coalesce(n.detail, r.detail)
         from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) as n (rejected_event_id, outcome, reason, detail)
         where r.rejected_event_id = n.rejected_event_id
           and (r.replay_outcome is null or starts_with(r.replay_outcome, 'refused: '))",
    )
    .bind(column(rows, |row| row.rejected_event_id))
    .bind(column(rows, |row| row.outcome.to_string()))
    .bind(column(rows, |row| refusal(row).map(|(reason, _)| reason)))
    .bind(column(rows, |row| refusal(row).map(|(_, detail)| detail)))
    .execute(connection)
    .await
    .map_err(|error| classify("cannot note what came of a replay", error))?;
    Ok(())
}

pub(super) async fn write_tombstones(
    connection: &mut PgConnection,
    tombstones: &BTreeMap<String, (i64, i64)>,
) -> Result<(), StoreError> {
    if tombstones.is_empty() {
        return Ok(());
    }
    let rows: Vec<(&String, &(i64, i64))> = tombstones.iter().collect();
    sqlx::query(
        "insert into tombstones (experiment_id, partition_id, record_offset)
         select * from unnest($1::text[], $2::bigint[], $3::bigint[])
         on conflict (experiment_id) do update
         set partition_id = excluded.partition_id, record_offset = excluded.record_offset,
             retracted_at = excluded.retracted_at",
    )
    .bind(column(&rows, |(experiment_id, _)| experiment_id.as_str()))
    .bind(column(&rows, |(_, (partition_id, _))| *partition_id))
    .bind(column(&rows, |(_, (_, offset))| *offset))
    .execute(connection)
    .await
    .map_err(|error| classify("cannot keep tombstones", error))?;
    Ok(())
}
