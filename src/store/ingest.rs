//! The transaction of a batch: fence, locked read, changes, estimates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::PopulationName;

use super::columns::{Columns, NONE, bytes, integer, text, time};
use super::database::Transaction;
use super::query::values;
use super::{Store, StoreError, changes, estimates, experiments, fits, partitions, populations, replay, settings};
use crate::row::{Changes, EstimateRow, NewPopulations, PublishedFit, RejectedRow, StoredExperiment};
use crate::stream::Advance;

/// Rows written, by table.
pub type Written = Vec<(&'static str, u64)>;

/// Every ingest on PostgreSQL holds this advisory lock shared; whoever takes it alone has waited for all that were under
/// way.
const INGEST_LOCK: i64 = i64::from_be_bytes(*b"shrinkd\0");

/// An advisory lock: the name of the statement that takes it, the statement, and the key.
type Lock = (&'static str, &'static str, i64);
const SHARED: Lock = ("ingest: lock shared", "select pg_advisory_xact_lock_shared($1)", INGEST_LOCK);
pub(super) const ALONE: Lock = ("ingest: lock alone", "select pg_advisory_xact_lock($1)", INGEST_LOCK);

/// Held by the ingest that puts populations in: others would count them before they can be seen. It is taken after the rows
/// of the experiments are locked and before anything is written, so that whoever holds it waits for nobody who waits for it.
const NEW_POPULATIONS: Lock =
    ("ingest: lock new populations", "select pg_advisory_xact_lock($1)", i64::from_be_bytes(*b"shrinkdP"));

/// A batch under way. Dropped without a commit, nothing of it has happened.
pub struct Ingest {
    pub(super) transaction: Transaction,
    /// Of this batch alone. It is drawn before the experiments are locked: a batch that locks them later may have a smaller one.
    commit_id: i64,
}

impl Store {
    /// Begins the transaction of a batch with the fence: every partition is advanced if the epoch and the offset are still
    /// those of the claim.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where they are not, [`StoreError::Settings`] where the store was rebuilt with other settings;
    /// nothing is changed then.
    pub async fn begin_ingest(&self, advances: &[Advance]) -> Result<Ingest, StoreError> {
        Ingest::begin(self, advances, SHARED).await
    }

    /// Begins the transaction of a batch that is replayed, as [`begin_ingest`](Store::begin_ingest) does, but alone: no other
    /// batch is under way while it lasts, so that none retracts an experiment unseen that the replay puts in.
    ///
    /// # Errors
    /// As there.
    pub async fn begin_replay(&self, advance: &Advance) -> Result<Ingest, StoreError> {
        Ingest::begin(self, std::slice::from_ref(advance), ALONE).await
    }

    /// Returns once every ingest has ended that was under way.
    pub(super) async fn wait_for_ingests(&self) -> Result<(), StoreError> {
        let mut transaction = self.pools.begin().await?;
        lock(&mut transaction, ALONE).await?;
        transaction.commit("ingest: unlock").await
    }
}

/// Takes a lock until the transaction ends. On SQLite, where a writer is alone, there is none.
pub(super) async fn lock(transaction: &mut Transaction, (name, sql, key): Lock) -> Result<(), StoreError> {
    if !transaction.is_postgres() {
        return Ok(());
    }
    transaction.query(name, sql, values![key]).await.map(drop)
}

/// The next id of a `commit` or of a `fit`.
pub(super) async fn next_id(transaction: &mut Transaction, of: &str) -> Result<i64, StoreError> {
    next_ids(transaction, of, 1).await.map(|ids| ids.into_iter().next().unwrap_or_default())
}

/// The same, of so many at once.
pub(super) async fn next_ids(transaction: &mut Transaction, of: &str, count: usize) -> Result<Vec<i64>, StoreError> {
    let count = count as i64;
    if transaction.is_postgres() {
        let sql = format!("select nextval('{of}_ids') as id from generate_series(1, $1)");
        return transaction.query("next ids", sql, values![count]).all(|row| row.get("id")).await;
    }
    let sql = format!("update last_ids set {of}_id = {of}_id + $1 returning {of}_id as id");
    let last: i64 = transaction.query("next ids", sql, values![count]).one(|row| row.get("id")).await?;
    Ok((last - count + 1..=last).collect())
}

impl Ingest {
    async fn begin(store: &Store, advances: &[Advance], held: Lock) -> Result<Ingest, StoreError> {
        let mut transaction = store.pools.begin().await?;
        lock(&mut transaction, held).await?;
        // After the lock, which a rebuild holds alone until its settings can be seen.
        settings::check(&mut transaction, &store.settings).await?;
        partitions::advance(&mut transaction, advances).await?;
        Ingest::within(transaction).await
    }

    /// A batch in a transaction that holds what it needs.
    pub(super) async fn within(mut transaction: Transaction) -> Result<Ingest, StoreError> {
        let commit_id = next_id(&mut transaction, "commit").await?;
        Ok(Ingest { transaction, commit_id })
    }

    /// The batch's id, which its estimates carry.
    pub fn commit_id(&self) -> i64 {
        self.commit_id
    }

    /// What is stored of these experiments, locked in the order of their ids.
    pub async fn experiments(
        &mut self,
        experiment_ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
        let ids: Vec<String> = experiment_ids.iter().cloned().collect();
        let condition = "where experiment_id {any $1} order by experiment_id";
        experiments::read(&mut self.transaction, condition, vec![ids.into()], true).await
    }

    /// Which of these populations the store does not have, and how many of them it has room for. Where that is any, no other
    /// batch puts populations in before this one has ended.
    pub async fn new_populations(
        &mut self,
        named: &BTreeSet<PopulationName>,
        limit: u64,
    ) -> Result<NewPopulations, StoreError> {
        let on = &mut self.transaction;
        let new = populations::new(on, named, limit).await?;
        if new.names.is_empty() || new.room == 0 {
            return Ok(new);
        }
        lock(on, NEW_POPULATIONS).await?;
        populations::new(on, named, limit).await
    }

    /// Puts in those of these populations that are new to the store.
    pub async fn put_populations(&mut self, populations: &[PopulationName]) -> Result<(), StoreError> {
        let sql = "insert into populations ({columns}, created_at, changed_at)
                   select {columns}, {now}, {clock} from n
                   where not exists (select 1 from populations as p where p.population_id = n.population_id)
                   on conflict do nothing";
        POPULATIONS.execute(&mut self.transaction, "ingest: new populations", populations, sql, NONE).await.map(drop)
    }

    /// The published fits of populations.
    pub async fn published_fits(
        &mut self,
        populations: &[PopulationName],
    ) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
        fits::published(&mut self.transaction, populations).await
    }

    /// Writes everything but the estimates; whether these follow, or are left to a pass, is logged with the changes.
    pub async fn write_changes(&mut self, changes: &Changes, is_published: bool) -> Result<Written, StoreError> {
        let on = &mut self.transaction;
        let blocks = experiments::write(on, changes, self.commit_id).await?;
        replay::write_tombstones(on, &changes.tombstones).await?;
        let block_changes = changes::append(on, &changes.block_changes, is_published).await?;
        let rejected = write_rejected(on, &changes.rejected).await?;
        Ok(vec![("blocks", blocks), ("block_changes", block_changes), ("rejected_events", rejected)])
    }

    /// Writes the estimates of changed blocks, and removes those that no longer stand for anything.
    pub async fn write_estimates(&mut self, changes: &Changes, rows: &[EstimateRow]) -> Result<Written, StoreError> {
        estimates::retire(&mut self.transaction, &changes.retired).await?;
        let written = estimates::upsert(&mut self.transaction, rows, &changes.new_ids()).await?;
        Ok(vec![("effect_estimates", written)])
    }

    /// # Errors
    /// Where the store fails. After a transient error it is open whether the commit was made: see [`Store::is_committed`].
    pub async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit("ingest: commit").await
    }
}

const POPULATIONS: Columns<PopulationName> = Columns::of(&[&[
    text("population_id", |name| Some(name.to_string().into())),
    text("metric", |name| Some(name.key().metric.as_str().into())),
    text("segment", |name| Some(name.key().segment.as_str().into())),
    text("scale", |name| Some(name.key().scale.as_str().into())),
]]);

const REJECTED: Columns<RejectedRow> = Columns::of(&[&[
    integer("partition_id", |row| Some(row.partition_id)),
    integer("record_offset", |row| Some(row.offset)),
    integer("result_index", |row| row.result_index.map(i64::from)),
    text("experiment_id", |row| row.experiment_id.as_deref().map(Cow::from)),
    text("variant", |row| row.refusal.variant.as_deref().map(Cow::from)),
    text("reason", |row| Some(row.refusal.reason.as_str().into())),
    text("detail", |row| Some(row.refusal.detail.as_str().into())),
    bytes("message_key", |row| row.key.as_deref().map(Cow::from)),
    bytes("payload", |row| row.payload.as_deref().map(Cow::from)),
    integer("payload_bytes", |row| Some(row.payload_bytes)),
    time("produced_at", |row| row.produced_at),
]]);

/// The order of the rows is that of their ids, which a replay goes by.
async fn write_rejected(on: &mut Transaction, rows: &[RejectedRow]) -> Result<u64, StoreError> {
    let sql = "insert into rejected_events ({columns}, cluster_id, topic, partition_number, rejected_at)
               select {columns of n}, p.cluster_id, p.topic, p.partition_number, {now}
               from (select *, row_number() over () as place from n) as n
               join partition_progress as p on p.partition_id = n.partition_id
               where true order by n.place
               on conflict do nothing";
    REJECTED.execute(on, "ingest: rejected events", rows, sql, NONE).await
}
