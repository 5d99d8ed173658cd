//! The transaction of a batch: fence, locked read, changes, estimates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{Latest, PopulationName, ResultKey, Scale};
use shrinkd_model::{Cell, Correlation, cell_from_bytes, cell_to_bytes};

use super::columns::{Column, Columns, NONE, bytes, integer, json, text, time};
use super::database::{Executor, Pools, Session, Transaction};
use super::error::unreadable;
use super::query::{Row, Value, values};
use super::{Advance, Store, StoreError, estimates, fits, partitions, replay, settings};
use crate::row::{
    BlockRow, CellChange, Changes, Counters, EstimateRow, ExperimentRow, PublishedFit, RejectedRow, StoredBlock,
    StoredExperiment,
};

/// Rows written, by table.
pub type Written = Vec<(&'static str, u64)>;

/// Every ingest on PostgreSQL holds this advisory lock shared; whoever takes it alone has waited for all that were under
/// way.
const INGEST_LOCK: i64 = i64::from_be_bytes(*b"shrinkd\0");

/// How a transaction holds the lock of ingests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IngestLock {
    Shared,
    Exclusive,
}

/// A batch under way. Dropped without a commit, nothing of it has happened.
pub struct Ingest {
    pub(super) transaction: Transaction,
    /// Of this batch alone, and larger than that of any batch before it that has touched the same experiment.
    commit_id: i64,
    /// The partition under which the batch is counted: the first of those that it advances, and so holds locked.
    partition_id: i64,
}

impl Store {
    /// Begins the transaction of a batch with the fence: every partition is advanced if the epoch and the offset are still
    /// those of the claim.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where they are not, [`StoreError::Settings`] where the store was rebuilt with other settings;
    /// nothing is changed then.
    pub async fn begin_ingest(&self, advances: &[Advance]) -> Result<Ingest, StoreError> {
        Ingest::begin(self, advances, IngestLock::Shared).await
    }

    /// Begins the transaction of a batch that is replayed, as [`begin_ingest`](Store::begin_ingest) does, but alone: no other
    /// batch is under way while it lasts, so that none retracts an experiment unseen that the replay puts in.
    ///
    /// # Errors
    /// As there.
    pub async fn begin_replay(&self, advance: &Advance) -> Result<Ingest, StoreError> {
        Ingest::begin(self, std::slice::from_ref(advance), IngestLock::Exclusive).await
    }

    /// Returns once every ingest has ended that was under way.
    pub(super) async fn wait_for_ingests(&self) -> Result<(), StoreError> {
        // On SQLite whoever has written a row has waited for all of them.
        let Pools::Postgres(_) = self.pools else { return Ok(()) };
        let mut transaction = self.pools.begin().await?;
        lock(&mut transaction, IngestLock::Exclusive).await?;
        transaction.commit("ingest: unlock").await
    }
}

/// Takes the lock of ingests until the transaction ends. On SQLite, where a writer is alone, there is none.
pub(super) async fn lock(transaction: &mut Transaction, lock: IngestLock) -> Result<(), StoreError> {
    let Session::Postgres(_) = transaction.session() else { return Ok(()) };
    let (name, sql) = match lock {
        IngestLock::Shared => ("ingest: lock shared", "select pg_advisory_xact_lock_shared($1)"),
        IngestLock::Exclusive => ("ingest: lock alone", "select pg_advisory_xact_lock($1)"),
    };
    transaction.query(name, sql, values![INGEST_LOCK]).await.map(drop)
}

/// The next id of a `commit` or of a `fit`.
pub(super) async fn next_id(transaction: &mut Transaction, of: &str) -> Result<i64, StoreError> {
    let sql = match transaction.is_postgres() {
        true => format!("select nextval('{of}_ids') as id"),
        false => format!("update last_ids set {of}_id = {of}_id + 1 returning {of}_id as id"),
    };
    transaction.query("next id", sql, []).one(|row| row.get("id")).await
}

impl Ingest {
    async fn begin(store: &Store, advances: &[Advance], held: IngestLock) -> Result<Ingest, StoreError> {
        let mut transaction = store.pools.begin().await?;
        lock(&mut transaction, held).await?;
        // After the lock, which a rebuild holds alone until its settings can be seen.
        settings::check(&mut transaction, &store.settings).await?;
        if let Err(error) = partitions::advance(&mut transaction, advances).await {
            transaction.roll_back().await?;
            return Err(error);
        }
        let partition_id = advances.iter().map(|advance| advance.partition_id).min().unwrap_or_default();
        Ingest::within(transaction, partition_id).await
    }

    /// A batch that is counted under a partition, in a transaction that holds what it needs.
    pub(super) async fn within(mut transaction: Transaction, partition_id: i64) -> Result<Ingest, StoreError> {
        let commit_id = next_id(&mut transaction, "commit").await?;
        Ok(Ingest { transaction, commit_id, partition_id })
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
        let sql = "where experiment_id {any $1} order by experiment_id {for update}";
        let ids = vec![Value::from(experiment_ids.iter().cloned().collect::<Vec<_>>())];
        let experiments = read_experiments(&mut self.transaction, sql, ids).await?;
        if experiments.is_empty() {
            return Ok(experiments);
        }
        let stored = vec![Value::from(experiments.keys().cloned().collect::<Vec<_>>())];
        read_blocks(&mut self.transaction, "where experiment_id {any $1}", stored, experiments).await
    }

    /// The published fits of these populations; those that are new to the store are put in.
    pub async fn published_fits(
        &mut self,
        populations: &BTreeSet<PopulationName>,
    ) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
        let names: Vec<PopulationName> = populations.iter().cloned().collect();
        let sql = "insert into populations (population_id, metric, segment, scale, created_at)
                   select population_id, metric, segment, scale, {now} from n
                   where not exists (select 1 from populations as p where p.population_id = n.population_id)
                   on conflict do nothing";
        POPULATIONS.execute(&mut self.transaction, "ingest: new populations", &names, sql, NONE).await?;
        fits::published(&mut self.transaction, &names).await
    }

    /// Writes everything but the estimates.
    pub async fn write_changes(&mut self, changes: &Changes) -> Result<Written, StoreError> {
        let on = &mut self.transaction;
        write_experiments(on, &changes.new_experiments, &changes.experiments).await?;
        let sql = "delete from blocks where (experiment_id, metric, segment, scale) in
                   (select experiment_id, metric, segment, scale from n)";
        WITHDRAWN.execute(on, "ingest: withdraw blocks", &changes.withdrawn_blocks, sql, NONE).await?;
        let sql = "delete from experiments where experiment_id in (select experiment_id from n)";
        FORGOTTEN.execute(on, "ingest: forget experiments", &changes.forgotten_experiments, sql, NONE).await?;
        replay::write_tombstones(on, &changes.tombstones).await?;
        let blocks = write_blocks(on, &changes.blocks, self.commit_id, self.partition_id).await?;
        let cells = write_cells(on, &changes.cells, self.partition_id).await?;
        write_counters(on, &changes.cells, self.partition_id).await?;
        let rejected = write_rejected(on, &changes.rejected).await?;
        Ok(vec![("blocks", blocks), ("sketch_cells", cells), ("rejected_events", rejected)])
    }

    /// Writes the estimates of changed blocks, and removes those that no longer stand for anything.
    pub async fn write_estimates(&mut self, changes: &Changes, rows: &[EstimateRow]) -> Result<Written, StoreError> {
        estimates::retire(&mut self.transaction, &changes.retired).await?;
        Ok(vec![("effect_estimates", estimates::upsert(&mut self.transaction, rows).await?)])
    }

    /// # Errors
    /// Where the store fails. After a transient error it is open whether the commit was made: see [`Store::is_committed`].
    pub async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit("ingest: commit").await
    }
}

/// Experiments without their blocks, as `condition` selects them.
pub(super) async fn read_experiments(
    on: &mut impl Executor,
    condition: &str,
    values: Vec<Value<'_>>,
) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
    let sql = format!(
        "select experiment_id, revision, decision, cast(labels as text) as labels, completed_at, retractions
         from experiments {condition}"
    );
    let read = |row: &Row| {
        let labels: String = row.get("labels")?;
        let latest = Latest {
            revision: row.unsigned("revision")?,
            decision: row.get("decision")?,
            labels: serde_json::from_str(&labels).map_err(|error| unreadable("experiments.labels", error))?,
            completed_at: row.get("completed_at")?,
        };
        let retractions = row.get("retractions")?;
        Ok((row.get("experiment_id")?, StoredExperiment { latest, retractions, blocks: Vec::new() }))
    };
    Ok(on.query("ingest: read experiments", sql, values).all(read).await?.into_iter().collect())
}

/// Puts the blocks that `condition` selects into their experiments.
pub(super) async fn read_blocks(
    on: &mut impl Executor,
    condition: &str,
    values: Vec<Value<'_>>,
    mut experiments: BTreeMap<String, StoredExperiment>,
) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
    let sql = format!(
        "select experiment_id, metric, segment, scale, population_id, revision, statistics, block, components
         from blocks {condition}"
    );
    let read = |row: &Row| {
        let scale = |name: &str| Scale::ALL.into_iter().find(|scale| scale.as_str() == name);
        let key =
            ResultKey { metric: row.get("metric")?, segment: row.get("segment")?, scale: row.named("scale", scale)? };
        let block = StoredBlock {
            key,
            population: row.population()?,
            revision: row.unsigned("revision")?,
            statistics: row.get("statistics")?,
            block: row.get("block")?,
            components: row.get("components")?,
        };
        Ok((row.get::<String>("experiment_id")?, block))
    };
    for (experiment_id, block) in on.query("ingest: read blocks", sql, values).all(read).await? {
        if let Some(experiment) = experiments.get_mut(&experiment_id) {
            experiment.blocks.push(block);
        }
    }
    Ok(experiments)
}

const POPULATIONS: Columns<PopulationName> = Columns(&[&[
    text("population_id", |name| Some(name.to_string().into())),
    text("metric", |name| Some(name.key().metric.as_str().into())),
    text("segment", |name| Some(name.key().segment.as_str().into())),
    text("scale", |name| Some(name.key().scale.as_str().into())),
]]);

const WITHDRAWN: Columns<(String, ResultKey)> = Columns(&[&[
    text("experiment_id", |(experiment_id, _)| Some(experiment_id.into())),
    text("metric", |(_, key)| Some(key.metric.as_str().into())),
    text("segment", |(_, key)| Some(key.segment.as_str().into())),
    text("scale", |(_, key)| Some(key.scale.as_str().into())),
]]);

const FORGOTTEN: Columns<String> = Columns(&[&[text("experiment_id", |experiment_id| Some(experiment_id.into()))]]);

const EXPERIMENT_KEY: &[Column<ExperimentRow>] =
    &[text("experiment_id", |row| Some(row.experiment_id.as_str().into()))];
const EXPERIMENT: &[Column<ExperimentRow>] = &[
    integer("revision", |row| Some(row.latest.revision as i64)),
    text("decision", |row| row.latest.decision.as_deref().map(Cow::from)),
    // A map from text to text has no value that JSON could not hold.
    json("labels", |row| serde_json::to_string(&row.latest.labels).unwrap_or_else(|_| "{}".to_owned())),
    time("completed_at", |row| Some(row.latest.completed_at)),
    bytes("retractions", |row| row.retractions.as_deref().map(Cow::from)),
];

async fn write_experiments(
    on: &mut impl Executor,
    new: &[ExperimentRow],
    known: &[ExperimentRow],
) -> Result<(), StoreError> {
    let columns = Columns(&[EXPERIMENT_KEY, EXPERIMENT]);
    let names = columns.names();
    // Rows that were not there when they were read must not have come in between: a plain insert finds out.
    let sql = format!("insert into experiments ({names}) select {names} from n");
    columns.execute(on, "ingest: new experiments", new, &sql, NONE).await?;
    let sql = format!(
        "update experiments as e set {} from n where e.experiment_id = n.experiment_id",
        Columns(&[EXPERIMENT]).assignments("n")
    );
    columns.execute(on, "ingest: experiments", known, &sql, NONE).await.map(drop)
}

const BLOCK_KEY: &[Column<BlockRow>] = &[
    text("experiment_id", |row| Some(row.experiment_id.as_str().into())),
    text("metric", |row| Some(row.block.key.metric.as_str().into())),
    text("segment", |row| Some(row.block.key.segment.as_str().into())),
    text("scale", |row| Some(row.block.key.scale.as_str().into())),
];
const BLOCK: &[Column<BlockRow>] = &[
    text("population_id", |row| Some(row.block.population.to_string().into())),
    integer("revision", |row| Some(row.block.revision as i64)),
    bytes("statistics", |row| Some(row.block.statistics.as_slice().into())),
    bytes("block", |row| row.block.block.as_deref().map(Cow::from)),
    bytes("components", |row| row.block.components.as_deref().map(Cow::from)),
    text("pending_reason", |row| row.pending.as_ref().map(|refusal| refusal.reason.as_str().into())),
    text("pending_detail", |row| row.pending.as_ref().map(|refusal| refusal.detail.as_str().into())),
];

async fn write_blocks(
    on: &mut impl Executor,
    rows: &[BlockRow],
    commit_id: i64,
    partition_id: i64,
) -> Result<u64, StoreError> {
    let columns = Columns(&[BLOCK_KEY, BLOCK]);
    let (names, assignments) = (columns.names(), Columns(&[BLOCK]).assignments("excluded"));
    let sql = format!(
        "insert into blocks ({names}, commit_id, partition_id)
         select {names}, $1, $2 from n where true
         on conflict (experiment_id, metric, segment, scale) do update
         set {assignments}, commit_id = excluded.commit_id, partition_id = excluded.partition_id"
    );
    columns.execute(on, "ingest: blocks", rows, &sql, &[commit_id.into(), partition_id.into()]).await
}

/// A cell of one population under one model of correlation.
struct CellRow {
    population_id: String,
    correlation: Correlation,
    octave: i16,
    cell: Cell,
}

const CELLS: Columns<CellRow> = Columns(&[&[
    text("population_id", |row| Some(row.population_id.as_str().into())),
    text("correlation", |row| Some(row.correlation.as_str().into())),
    integer("octave", |row| Some(row.octave.into())),
    bytes("moments", |row| Some(cell_to_bytes(&row.cell).into())),
]]);

/// Adds to the cells what the batch changed. They are read and written under the row lock of the batch's partition.
async fn write_cells(
    on: &mut impl Executor,
    changes: &BTreeMap<PopulationName, CellChange>,
    partition_id: i64,
) -> Result<u64, StoreError> {
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
    let sql = "select population_id, correlation, octave, moments from sketch_cells
               where population_id {any $1} and partition_id = $2";
    let stored = on
        .query(
            "ingest: read cells",
            sql,
            values![changes.keys().map(PopulationName::to_string).collect::<Vec<_>>(), partition_id],
        )
        .all(|row| {
            let key = (row.get("population_id")?, row.correlation()?, row.get("octave")?);
            Ok((key, read_cell(row)?))
        });
    for (key, stored) in stored.await? {
        if let Some(change) = cells.get_mut(&key) {
            let sums = change.as_flattened_mut().iter_mut().zip(stored.as_flattened());
            sums.for_each(|(x, y)| *x = x.wrapping_add(*y));
        }
    }
    let row = |((population_id, correlation, octave), cell)| CellRow { population_id, correlation, octave, cell };
    let rows: Vec<CellRow> = cells.into_iter().map(row).collect();
    let names = CELLS.names();
    let sql = format!(
        "insert into sketch_cells (partition_id, {names}) select $1, {names} from n where true
         on conflict (population_id, partition_id, correlation, octave) do update set moments = excluded.moments"
    );
    CELLS.execute(on, "ingest: cells", &rows, &sql, &[partition_id.into()]).await
}

/// The cell of a row.
pub(super) fn read_cell(row: &Row) -> Result<Cell, StoreError> {
    let moments: Vec<u8> = row.get("moments")?;
    cell_from_bytes(&moments).ok_or_else(|| unreadable("sketch_cells.moments", format!("{} bytes", moments.len())))
}

const COUNTERS: Columns<(PopulationName, Counters)> = Columns(&[&[
    text("population_id", |(population, _)| Some(population.to_string().into())),
    integer("changes", |(_, counters)| Some(counters.changes)),
    integer("experiments", |(_, counters)| Some(counters.experiments)),
    integer("effects", |(_, counters)| Some(counters.effects)),
]]);

async fn write_counters(
    on: &mut impl Executor,
    changes: &BTreeMap<PopulationName, CellChange>,
    partition_id: i64,
) -> Result<(), StoreError> {
    let rows: Vec<_> = changes.iter().map(|(population, change)| (population.clone(), change.counters)).collect();
    let names = COUNTERS.names();
    let sql = format!(
        "insert into cell_counters as c (partition_id, {names}) select $1, {names} from n where true
         on conflict (population_id, partition_id) do update
         set changes = c.changes + excluded.changes, experiments = c.experiments + excluded.experiments,
             effects = c.effects + excluded.effects"
    );
    COUNTERS.execute(on, "ingest: counters", &rows, &sql, &[partition_id.into()]).await.map(drop)
}

const REJECTED: Columns<RejectedRow> = Columns(&[&[
    integer("partition_id", |row| Some(row.partition_id)),
    integer("record_offset", |row| Some(row.offset)),
    integer("result_index", |row| row.result_index.map(i64::from)),
    text("experiment_id", |row| row.experiment_id.as_deref().map(Cow::from)),
    text("reason", |row| Some(row.refusal.reason.as_str().into())),
    text("detail", |row| Some(row.refusal.detail.as_str().into())),
    bytes("message_key", |row| row.key.as_deref().map(Cow::from)),
    bytes("payload", |row| row.payload.as_deref().map(Cow::from)),
    integer("payload_bytes", |row| Some(row.payload_bytes)),
    time("produced_at", |row| row.produced_at),
]]);

/// The order of the rows is that of their ids, which a replay goes by.
async fn write_rejected(on: &mut impl Executor, rows: &[RejectedRow]) -> Result<u64, StoreError> {
    let names = REJECTED.names();
    let sql = format!(
        "insert into rejected_events ({names}, cluster_id, topic, partition_number, rejected_at)
         select n.{}, p.cluster_id, p.topic, p.partition_number, {{now}}
         from (select *, row_number() over () as place from n) as n
         join partition_progress as p on p.partition_id = n.partition_id
         where true order by n.place
         on conflict do nothing",
        names.replace(", ", ", n.")
    );
    REJECTED.execute(on, "ingest: rejected events", rows, &sql, NONE).await
}
