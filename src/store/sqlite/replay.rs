//! Refused messages: read back to be replayed, and what came of that; the tombstones that they are held against.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{SqliteConnection, SqlitePool};

use super::{classify, json_array, now};
use crate::row::replay::{RejectedMessage, RejectedRef, RejectedResult, RejectedSelection, ReplayOutcome, ReplayedRow};
use crate::store::StoreError;
use crate::store::decode::{self, RejectedColumns};

pub(super) async fn rejected_rows(
    pool: &SqlitePool,
    selection: &RejectedSelection,
) -> Result<Vec<RejectedRef>, StoreError> {
    let (reasons, ids) = decode::selection(selection);
    let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "select rejected_event_id, partition_id, record_offset, min(payload_bytes, 1048576)
         from rejected_events
         where ($1 is null or reason in (select value from json_each($1)))
           and (rejected_event_id in (select value from json_each($2)) or $2 is null
                and (replay_outcome is null or replay_outcome glob 'refused: *'))
         order by rejected_event_id",
    )
    .bind(reasons.map(json_array))
    .bind(ids.map(|ids| serde_json::Value::from(ids).to_string()))
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot read the refused events", error))?;
    Ok(rows.into_iter().map(decode::rejected_ref).collect())
}

pub(super) async fn rejected_messages(
    pool: &SqlitePool,
    rows: &[RejectedRef],
) -> Result<Vec<RejectedMessage>, StoreError> {
    let failed = |error| classify("cannot read refused messages", error);
    let mut messages = Vec::with_capacity(rows.len());
    for row in rows {
        let columns: Option<RejectedColumns> = sqlx::query_as(
            "select rejected_event_id, partition_id, record_offset, cluster_id, message_key,
                    ifnull(payload, (select f.payload from rejected_events as f
                                     where f.partition_id = r.partition_id and f.record_offset = r.record_offset
                                       and f.payload is not null limit 1)),
                    payload_bytes
             from rejected_events as r where rejected_event_id = $1",
        )
        .bind(row.rejected_event_id)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
        // Somebody may have tidied up.
        let Some(columns) = columns else { continue };
        let results: Vec<(i64, Option<i32>, String)> = sqlx::query_as(
            "select rejected_event_id, result_index, reason from rejected_events
             where partition_id = $1 and record_offset = $2 order by rejected_event_id",
        )
        .bind(row.partition_id)
        .bind(row.offset)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
        let result =
            |(rejected_event_id, result_index, reason)| RejectedResult { rejected_event_id, result_index, reason };
        messages.push(decode::rejected_message(columns, results.into_iter().map(result).collect()));
    }
    Ok(messages)
}

pub(super) async fn retracted(
    connection: &mut SqliteConnection,
    messages: &[(i64, String)],
) -> Result<BTreeSet<i64>, StoreError> {
    let mut retracted = BTreeSet::new();
    for (rejected_event_id, experiment_id) in messages {
        let is_retracted: bool = sqlx::query_scalar(
            "select exists (
                 select 1 from rejected_events as r join tombstones as t on t.experiment_id = $2
                 where r.rejected_event_id = $1
                   and case when t.partition_id = r.partition_id then t.record_offset > r.record_offset
                            else t.retracted_at >= r.rejected_at end)",
        )
        .bind(rejected_event_id)
        .bind(experiment_id)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| classify("cannot read tombstones", error))?;
        if is_retracted {
            retracted.insert(*rejected_event_id);
        }
    }
    Ok(retracted)
}

pub(super) async fn write_replayed(connection: &mut SqliteConnection, rows: &[ReplayedRow]) -> Result<(), StoreError> {
    for ReplayedRow { rejected_event_id, outcome } in rows {
        let refusal = match outcome {
            ReplayOutcome::Refused(refusal) => Some(refusal),
            _ => None,
        };
        sqlx::query(
            "update rejected_events
             set replayed_at = $2, replay_outcome = $3, reason = ifnull($4, reason), detail = ifnull($5, detail)
             where rejected_event_id = $1 and (replay_outcome is null or replay_outcome glob 'refused: *')",
        )
        .bind(rejected_event_id)
        .bind(now())
        .bind(outcome.to_string())
        .bind(refusal.map(|refusal| refusal.reason.as_str()))
        .bind(refusal.map(|refusal| refusal.detail.as_str()))
        .execute(&mut *connection)
        .await
        .map_err(|error| classify("cannot note what came of a replay", error))?;
    }
    Ok(())
}

pub(super) async fn write_tombstones(
    connection: &mut SqliteConnection,
    tombstones: &BTreeMap<String, (i64, i64)>,
) -> Result<(), StoreError> {
    for (experiment_id, (partition_id, offset)) in tombstones {
        sqlx::query(
            "insert or replace into tombstones (experiment_id, partition_id, record_offset, retracted_at)
             values ($1, $2, $3, $4)",
        )
        .bind(experiment_id)
        .bind(partition_id)
        .bind(offset)
        .bind(now())
        .execute(&mut *connection)
        .await
        .map_err(|error| classify("cannot keep tombstones", error))?;
    }
    Ok(())
}
