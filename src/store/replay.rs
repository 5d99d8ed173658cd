//! Refused messages: read back to be replayed, and what came of that; the tombstones that they are held against.

use std::collections::{BTreeMap, BTreeSet};

use super::columns::{Columns, NONE, integer, text};
use super::database::Transaction;
use super::query::{Row, record};
use super::{Ingest, Store, StoreError};
use crate::row::replay::{RejectedMessage, RejectedRef, RejectedResult, RejectedSelection, ReplayedRow};

/// Rows that no replay has taken yet.
const NOT_TAKEN: &str = "(replay_outcome is null or replay_outcome like 'refused: %')";

const SELECTED: Columns<RejectedRef> =
    Columns::of(&[&[integer("rejected_event_id", |row| Some(row.rejected_event_id))]]);

impl Store {
    /// The rows of `rejected_events` that a selection takes, in their order.
    pub async fn rejected_rows(&self, selection: &RejectedSelection) -> Result<Vec<RejectedRef>, StoreError> {
        let (condition, values) = match selection {
            RejectedSelection::All => (NOT_TAKEN.to_owned(), None),
            RejectedSelection::Reasons(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(|reason| reason.as_str().to_owned()).collect();
                (format!("reason {{any $1}} and {NOT_TAKEN}"), Some(reasons.into()))
            }
            RejectedSelection::Ids(ids) => ("rejected_event_id {any $1}".to_owned(), Some(ids.clone().into())),
        };
        let sql = format!(
            "select rejected_event_id, partition_id, record_offset,
                    case when payload_bytes < 1048576 then payload_bytes else 1048576 end as kept_bytes
             from rejected_events where {condition} order by rejected_event_id"
        );
        let mut reader = self.pools.read().await?;
        let row = record!(RejectedRef: rejected_event_id, partition_id, offset = "record_offset", kept_bytes);
        reader.query("replay: select", sql, values).all(row).await
    }

    /// The messages of these rows, each with all of its rows, in their order. Every message is named by one row only; one
    /// that was deleted meanwhile is left out.
    pub async fn rejected_messages(&self, rows: &[RejectedRef]) -> Result<Vec<RejectedMessage>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select s.rejected_event_id as selected_id, s.cluster_id, s.message_key, s.payload_bytes,
                          r.payload, r.rejected_event_id, r.result_index, r.variant, r.reason
                   from n join rejected_events as s on s.rejected_event_id = n.rejected_event_id
                   join rejected_events as r on r.partition_id = s.partition_id and r.record_offset = s.record_offset
                   order by r.rejected_event_id";
        let message = record!(RejectedMessage:
            rejected_event_id = "selected_id", cluster_id, key = "message_key", payload, payload_bytes;
            rows: |_| Ok(Vec::new()));
        let result = record!(RejectedResult: rejected_event_id, result_index, variant, reason);
        let read = |row: &Row| Ok((message(row)?, result(row)?));
        let found = SELECTED.fetch(&mut reader, "replay: read messages", rows, sql, NONE, read);
        let mut messages: BTreeMap<i64, RejectedMessage> = BTreeMap::new();
        for (mut message, result) in found.await? {
            // Only one row of a message has its payload.
            let payload = message.payload.take();
            let message = messages.entry(message.rejected_event_id).or_insert(message);
            message.payload = message.payload.take().or(payload);
            message.rows.push(result);
        }
        Ok(messages.into_values().collect())
    }
}

const NAMED: Columns<(i64, String)> = Columns::of(&[&[
    integer("rejected_event_id", |&(id, _)| Some(id)),
    text("experiment_id", |(_, experiment_id)| Some(experiment_id.into())),
]]);

const REPLAYED: Columns<ReplayedRow> = Columns(
    &[&[integer("rejected_event_id", |row| Some(row.rejected_event_id))]],
    &[&[
        text("outcome", |row| Some(row.outcome.to_string().into())),
        text("reason", |row| row.outcome.refusal().map(|refusal| refusal.reason.as_str().into())),
        text("detail", |row| row.outcome.refusal().map(|refusal| refusal.detail.as_str().into())),
    ]],
);

impl Ingest {
    /// Which of these refused messages (a row of theirs, and the experiment that they are about) came before the tombstone of
    /// their experiment: by their offsets where both are of one partition, else by the times of their transactions. Of one
    /// transaction nobody knows which was produced first. Then the tombstone counts as the later one, because what was withdrawn
    /// must not come back by itself, while a message that is missing can be sent again.
    pub async fn retracted(&mut self, messages: &[(i64, String)]) -> Result<BTreeSet<i64>, StoreError> {
        let sql = "select r.rejected_event_id
                   from n
                   join rejected_events as r on r.rejected_event_id = n.rejected_event_id
                   join tombstones as t on t.experiment_id = n.experiment_id
                   where case when t.partition_id = r.partition_id then t.record_offset > r.record_offset
                              else t.retracted_at >= r.rejected_at end";
        let read = |row: &Row| row.get("rejected_event_id");
        let ids = NAMED.fetch(&mut self.transaction, "replay: read tombstones", messages, sql, NONE, read).await?;
        Ok(ids.into_iter().collect())
    }

    /// Notes what came of a replay. A row that was taken before stays as it is.
    pub async fn write_replayed(&mut self, rows: &[ReplayedRow]) -> Result<(), StoreError> {
        let sql = format!(
            "update rejected_events as r
             set replayed_at = {{now}}, replay_outcome = n.outcome,
                 reason = coalesce(n.reason, r.reason), detail = coalesce(n.detail, r.detail)
             from n where r.rejected_event_id = n.rejected_event_id and {NOT_TAKEN}"
        );
        REPLAYED.execute(&mut self.transaction, "replay: note outcomes", rows, &sql, NONE).await.map(drop)
    }
}

const TOMBSTONES: Columns<(String, (i64, i64))> = Columns(
    &[&[text("experiment_id", |(experiment_id, _)| Some(experiment_id.into()))]],
    &[&[
        integer("partition_id", |&(_, (partition_id, _))| Some(partition_id)),
        integer("record_offset", |&(_, (_, offset))| Some(offset)),
    ]],
);

/// Keeps the partition and the offset of the last message that retracted an experiment whole.
pub(super) async fn write_tombstones(
    on: &mut Transaction,
    tombstones: &BTreeMap<String, (i64, i64)>,
) -> Result<(), StoreError> {
    let rows: Vec<(String, (i64, i64))> = tombstones.clone().into_iter().collect();
    let sql = "insert into tombstones ({columns}, retracted_at) select {columns}, {now} from n where true
               on conflict (experiment_id) do update set {set from excluded}, retracted_at = excluded.retracted_at";
    TOMBSTONES.execute(on, "ingest: tombstones", &rows, sql, NONE).await.map(drop)
}
