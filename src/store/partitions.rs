//! Partitions: who owns them, how far they were read, and what operators do to them.

use super::columns::{Columns, NONE, integer};
use super::database::Transaction;
use super::query::{Row, Value, record, values};
use super::{Store, StoreError};
use crate::row::{Halt, PartitionStatus, Skip};
use crate::stream::{Advance, Claim, Epoch, NextOffset, Topic};

const CLAIM: Columns<i32> = Columns::of(&[&[integer("partition_number", |&number| Some(number.into()))]]);

impl Store {
    /// Takes partitions over: raises their epochs, which are the fencing tokens that shut every earlier owner out, and
    /// returns where to read on. Waits for the open transaction of the owner before.
    ///
    /// # Errors
    /// [`StoreError::TopicChanged`] where the topic is not the one whose offsets are stored.
    pub async fn claim(&self, topic: &Topic, partitions: &[i32], owner: &str) -> Result<Vec<Claim>, StoreError> {
        let mut transaction = self.pools.begin().await?;
        // In order, so that two workers that claim the same partitions wait for each other in one order only.
        let sql =
            "insert into partition_progress (cluster_id, topic, topic_id, partition_number, epoch, owner, claimed_at)
             select $1, $2, $3, partition_number, 1, $4, {now} from n where true order by partition_number
             on conflict (cluster_id, topic, partition_number) do update
             set epoch = partition_progress.epoch + 1, owner = excluded.owner, claimed_at = excluded.claimed_at,
                 topic_id = case when partition_progress.topic_id = '' then excluded.topic_id
                                 else partition_progress.topic_id end
             returning partition_id, partition_number, epoch, next_offset, topic_id,
                       halted_at is not null as is_halted";
        let values = [topic.cluster_id.as_str(), &topic.name, &topic.id, owner].map(Value::from);
        let read = record!(Claim: partition = "partition_number", partition_id, epoch, next_offset, is_halted);
        let claimed = CLAIM.fetch(&mut transaction, "claim: raise epochs", partitions, sql, &values, |row| {
            Ok((read(row)?, row.get::<String>("topic_id")?))
        });
        let claimed = claimed.await?;
        // An id that is not known on one side decides nothing.
        let is_other = |stored: &str| !topic.is_stored_as(stored);
        if let Some((_, stored)) = claimed.iter().find(|(_, stored)| is_other(stored)) {
            let (topic, stored, found) = (topic.name.clone(), stored.clone(), topic.id.clone());
            return Err(StoreError::TopicChanged { topic, stored, found });
        }
        transaction.commit("claim: commit").await?;
        Ok(claimed.into_iter().map(|(claim, _)| claim).collect())
    }

    /// Whether a commit whose answer was lost has been made.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another owner has been there since.
    pub async fn is_committed(&self, advances: &[Advance]) -> Result<bool, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select partition_id, epoch, next_offset from partition_progress where partition_id {any $1}";
        let ids: Vec<i64> = advances.iter().map(|advance| advance.partition_id).collect();
        let read = |row: &Row| Ok((row.get("partition_id")?, row.get("epoch")?, row.get("next_offset")?));
        let rows: Vec<(i64, Epoch, Option<NextOffset>)> =
            reader.query("ingest: is it committed", sql, values![ids]).all(read).await?;
        let row = |advance: &Advance| rows.iter().find(|(partition_id, ..)| *partition_id == advance.partition_id);
        let is_fenced = |advance: &&Advance| row(advance).is_none_or(|(_, epoch, _)| *epoch != advance.epoch);
        let fenced: Vec<i32> = advances.iter().filter(is_fenced).map(|advance| advance.partition).collect();
        if !fenced.is_empty() {
            return Err(StoreError::Fenced { partitions: fenced });
        }
        // All partitions of a batch move in one transaction: one tells for all.
        Ok(advances.iter().all(|advance| row(advance).is_some_and(|(.., next)| *next == Some(advance.to))))
    }

    /// Halts a partition, if it still belongs to whoever claimed it: it is not read until an operator resumes it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where it has another owner.
    pub async fn halt(&self, halt: &Halt) -> Result<(), StoreError> {
        let mut transaction = self.pools.begin().await?;
        let sql = "update partition_progress set halted_at = {now}, halt_reason = $3, halt_detail = $4
                   where partition_id = $1 and epoch = $2";
        let Halt { claim, reason, detail } = halt;
        let values = values![claim.partition_id, claim.epoch.0, reason.as_str(), detail];
        match transaction.query("partitions: halt", sql, values).await? {
            0 => Err(StoreError::Fenced { partitions: vec![claim.partition] }),
            _ => transaction.commit("partitions: commit").await,
        }
    }

    /// Every partition that was ever claimed, by topic and number.
    pub async fn partitions(&self) -> Result<Vec<PartitionStatus>, StoreError> {
        all(&mut self.pools.read().await?).await
    }

    /// Lets a halted partition be read again from where it stopped, and records who decided so. Returns whether it was
    /// halted.
    pub async fn resume(&self, partition_id: i64, resumed_by: &str) -> Result<bool, StoreError> {
        let mut transaction = self.pools.begin().await?;
        let sql = "update partition_progress
                   set halted_at = null, halt_reason = null, halt_detail = null, resumed_at = {now}, resumed_by = $2
                   where partition_id = $1 and halted_at is not null";
        let resumed = transaction.query("partitions: resume", sql, values![partition_id, resumed_by]).await?;
        transaction.commit("partitions: commit").await?;
        Ok(resumed > 0)
    }

    /// Moves a partition forward over records that are not read, and leaves a row about it. Its owner is fenced, and claims
    /// it again; if it was halted it is not any more.
    ///
    /// Returns false, and changes nothing, unless the partition is where the operator has seen it, is halted if it was then,
    /// and moves forward.
    pub async fn skip(&self, skip: &Skip) -> Result<bool, StoreError> {
        let Skip { seen: PartitionStatus { partition_id, next_offset, halted, .. }, to, because, skipped_by } = skip;
        let mut transaction = self.pools.begin().await?;
        let sql = "select * from partition_progress where partition_id = $1 {for update}";
        let now = transaction.query("partitions: lock to skip", sql, values![*partition_id]).optional(status).await?;
        let is_as_seen = now.is_some_and(|now| (now.next_offset, &now.halted) == (*next_offset, halted));
        if !is_as_seen || next_offset.is_some_and(|from| from >= *to) {
            return Ok(false);
        }
        let sql = "insert into skipped_offsets
                       (partition_id, cluster_id, topic, partition_number, from_offset, to_offset, because, skipped_by, skipped_at)
                   select partition_id, cluster_id, topic, partition_number, next_offset, $2, $3, $4, {now}
                   from partition_progress where partition_id = $1";
        let values = values![*partition_id, to.0, because, skipped_by];
        transaction.query("partitions: note what is skipped", sql, values).await?;
        let sql = "update partition_progress
                   set next_offset = $2, epoch = epoch + 1, halted_at = null, halt_reason = null, halt_detail = null
                   where partition_id = $1";
        transaction.query("partitions: skip", sql, values![*partition_id, to.0]).await?;
        transaction.commit("partitions: commit").await?;
        Ok(true)
    }
}

pub(super) async fn all(on: &mut Transaction) -> Result<Vec<PartitionStatus>, StoreError> {
    let sql = "select * from partition_progress order by cluster_id, topic, partition_number";
    on.query("partitions: read", sql, []).all(status).await
}

fn status(row: &Row) -> Result<PartitionStatus, StoreError> {
    let halted = |row: &Row| match row.get("halted_at")? {
        Some(at) => Ok(Some((at, row.get("halt_reason")?, row.get("halt_detail")?))),
        None => Ok(None),
    };
    let status = record!(PartitionStatus:
        partition_id, cluster_id, topic, topic_id, partition = "partition_number", next_offset, owner, committed_at;
        halted: halted);
    status(row)
}

const FENCE: Columns<Advance> = Columns::of(&[&[
    integer("fenced_id", |advance| Some(advance.partition_id)),
    integer("fenced_epoch", |advance| Some(advance.epoch.0)),
    integer("from_offset", |advance| advance.from.map(|offset| offset.0)),
    integer("to_offset", |advance| Some(advance.to.0)),
]]);

/// Moves partitions forward, each if the epoch and the offset are still those of the claim.
///
/// # Errors
/// [`StoreError::Fenced`] with the others.
pub(super) async fn advance(on: &mut Transaction, advances: &[Advance]) -> Result<(), StoreError> {
    let sql = "update partition_progress as p set next_offset = n.to_offset, committed_at = {now}
               from n
               where p.partition_id = n.fenced_id and p.epoch = n.fenced_epoch
                 and p.next_offset is not distinct from n.from_offset
               returning partition_id";
    let advanced: Vec<i64> =
        FENCE.fetch(on, "ingest: fence", advances, sql, NONE, |row| row.get("partition_id")).await?;
    let lost = advances.iter().filter(|advance| !advanced.contains(&advance.partition_id));
    let partitions: Vec<i32> = lost.map(|advance| advance.partition).collect();
    if partitions.is_empty() { Ok(()) } else { Err(StoreError::Fenced { partitions }) }
}
