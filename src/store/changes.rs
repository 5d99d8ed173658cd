//! Statements on `block_changes`, the log of what batches changed in the blocks. A batch only appends to it; whoever refits a
//! population takes its changes out, in the transaction that adds them to its statistics.
//!
//! On PostgreSQL, rows that were taken out stay in the indexes as long as any transaction may still see them, and reading past
//! them takes ever longer while somebody keeps an old snapshot. Each row therefore says by which transaction it was written, and
//! a store knows from which on there is anything to find: see [`Floor`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use shrinkd_core::{Grouping, Measured, PopulationName, pack, unpack};

use super::StoreError;
use super::columns::{Columns, bytes, text};
use super::copy::Target;
use super::database::Transaction;
use super::error::unreadable;
use super::query::{Row, Value, values};
use crate::row::{BlockChange, CountedBlock, InputOffset, TakenChanges};

/// Changes that one statement takes out of the log.
const PAGE: usize = 20_000;

const CHANGES: Columns<BlockChange> = Columns::of(&[&[
    text("population_id", |change| Some(change.population.to_string().into())),
    bytes("before", |change| change.before.as_ref().map(|block| pack(block).into())),
    bytes("after", |change| change.after.as_ref().map(|block| pack(block).into())),
]]);

/// Appends what a batch has changed.
pub(super) async fn append(on: &mut Transaction, changes: &[BlockChange]) -> Result<u64, StoreError> {
    let sql = "insert into block_changes ({columns}) select {columns} from n";
    CHANGES.insert(on, "ingest: changes", changes, Target::table("block_changes"), sql).await
}

/// Every 60th look scans the whole log.
const WHOLE_LOOK: u64 = 60;

/// The earliest transaction of which the log can still have a change (0 on SQLite, which keeps no rows that were deleted).
///
/// A server that has crashed, a standby that was promoted and a copy that was restored may give numbers of transactions once
/// more, or hold rows of lower ones. What that leaves below the floor is found by the next look at everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Floor(Arc<Looks>);

#[derive(Debug, Default)]
struct Looks {
    floor: AtomicI64,
    count: AtomicU64,
}

impl Floor {
    fn get(&self) -> i64 {
        self.0.floor.load(Ordering::Relaxed)
    }

    /// From where on the next look has to look.
    fn begin(&self) -> i64 {
        let is_whole = self.0.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(WHOLE_LOOK);
        if is_whole { 0 } else { self.get() }
    }

    /// All changes that a snapshot can see are of the transaction `oldest` or of later ones, and all that it cannot see are of
    /// `unfinished` or later ones. A database whose transactions have lower numbers than before is another one.
    fn set(&self, oldest: Option<i64>, unfinished: i64) {
        let floor = if unfinished < self.get() { 0 } else { oldest.unwrap_or(unfinished).min(unfinished) };
        self.0.floor.store(floor, Ordering::Relaxed);
    }
}

/// The populations that have the oldest changes of the log, those that have waited longest first. One whose next refit is due
/// at a certain time waits for that, and keeps none of the others waiting, however many changes it has. One that has lost its row
/// cannot be refitted, and is for the audit to find.
pub(super) async fn waiting(on: &mut Transaction, floor: &Floor) -> Result<Vec<PopulationName>, StoreError> {
    let unfinished = match on.is_postgres() {
        true => "cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint)",
        false => "0",
    };
    // Returns a row even if the log is empty.
    let sql = format!(
        "with first as (select min(transaction_id) as oldest from block_changes where transaction_id >= $1)
         select {unfinished} as unfinished, first.oldest, p.population_id
         from first
         left join (select population_id, min(transaction_id) as oldest, min(change_id) as first
                    from (select population_id, transaction_id, change_id from block_changes
                          where transaction_id >= (select oldest from first) and population_id not in
                              (select population_id from populations where refit_due_at is not null)
                          order by transaction_id, change_id limit {PAGE}) as c
                    group by population_id) as c on true
         left join populations as p on p.population_id = c.population_id
         order by c.oldest, c.first"
    );
    let read = |row: &Row| Ok((row.get("unfinished")?, row.get("oldest")?, row.get("population_id")?));
    let found: Vec<(i64, Option<i64>, Option<PopulationName>)> =
        on.query("refit: waiting", sql, values![floor.begin()]).all(read).await?;
    if let Some((unfinished, oldest, _)) = found.first() {
        floor.set(*oldest, *unfinished);
    }
    Ok(found.into_iter().filter_map(|(.., population)| population).collect())
}

/// The changes of some populations (`$1`) from the floor on (`$2`), as a condition.
const OF_POPULATIONS: &str = "population_id {any $1} and transaction_id >= $2";

/// Takes the changes that a condition selects out of the log, and executes a statement that has them as `taken`: of one
/// snapshot.
async fn take<T>(
    on: &mut Transaction,
    name: &'static str,
    condition: &str,
    rest: &str,
    values: &[Value<'_>],
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let values = || values.iter().cloned();
    if on.is_postgres() {
        let taken = format!("delete from block_changes where {condition} returning population_id, before, after");
        return on.query(name, format!("with taken as ({taken}) {rest}"), values()).all(read).await;
    }
    let taken = format!("select population_id, before, after from block_changes where {condition}");
    let found = on.query(name, format!("with taken as ({taken}) {rest}"), values()).all(read).await?;
    on.query(name, format!("delete from block_changes where {condition}"), values()).await?;
    Ok(found)
}

const OFFSETS: &str = "topic, partition_number, next_offset from partition_progress where next_offset is not null";

/// Takes the next changes of some populations out of the log, and says whether more may follow.
pub(super) async fn take_page(
    on: &mut Transaction,
    populations: &[PopulationName],
    floor: &Floor,
) -> Result<(TakenChanges, bool), StoreError> {
    let page = format!(
        "{OF_POPULATIONS} and change_id <= coalesce((select change_id from block_changes where {OF_POPULATIONS}
                                                     order by change_id limit 1 offset {}), change_id)",
        PAGE - 1
    );
    let rest = format!(
        "select population_id, before, after, cast(null as text) as topic, cast(null as int) as partition_number,
                cast(null as bigint) as next_offset
         from taken
         union all select null, null, null, {OFFSETS}"
    );
    let read = |row: &Row| match row.get::<Option<PopulationName>>("population_id")? {
        Some(population) => Ok(Ok(read_change(population, row)?)),
        None => Ok(Err(read_offset(row)?)),
    };
    let values = values![names(populations), floor.get()];
    let mut taken = TakenChanges::of(populations);
    for change_or_offset in take(on, "refit: take changes", &page, &rest, &values, read).await? {
        match change_or_offset {
            Ok(change) => {
                *taken.counts.entry(change.population.clone()).or_default() += 1;
                taken.changes.push(change);
            }
            Err(offset) => taken.input_offsets.push(offset),
        }
    }
    let is_full = taken.changes.len() >= PAGE;
    Ok((taken, is_full))
}

/// Takes all changes of some populations out of the log, and returns the blocks that stand in their stead, each as one that was
/// put in: what populations without cells are refitted from. It takes all changes, whatever the floor: a block that is counted here must
/// not come out of the log once more.
pub(super) async fn take_for_blocks(
    on: &mut Transaction,
    populations: &[PopulationName],
    grouping: &Grouping,
) -> Result<TakenChanges, StoreError> {
    let rest = format!(
        "select population_id, cast(null as text) as experiment_id, cast(null as {}) as block, count(*) as changes,
                cast(null as text) as topic, cast(null as int) as partition_number, cast(null as bigint) as next_offset
         from taken group by population_id
         union all select population_id, experiment_id, block, null, null, null, null
         from blocks where population_id {{any $1}} and block is not null
         union all select null, null, null, null, {OFFSETS}",
        if on.is_postgres() { "bytea" } else { "blob" },
    );
    enum Found {
        Changes(PopulationName, i64),
        Block(BlockChange),
        Offset(InputOffset),
    }
    let read = |row: &Row| match (row.get::<Option<PopulationName>>("population_id")?, row.get("changes")?) {
        (Some(population), Some(changes)) => Ok(Found::Changes(population, changes)),
        (Some(population), None) => Ok(Found::Block(read_block(population, row, grouping)?)),
        (None, _) => Ok(Found::Offset(read_offset(row)?)),
    };
    let values = values![names(populations), 0_i64];
    let mut taken = TakenChanges::of(populations);
    for found in take(on, "refit: take changes of blocks", OF_POPULATIONS, &rest, &values, read).await? {
        match found {
            Found::Changes(population, changes) => drop(taken.counts.insert(population, changes)),
            Found::Block(block) => taken.changes.push(block),
            Found::Offset(offset) => taken.input_offsets.push(offset),
        }
    }
    Ok(taken)
}

/// The blocks of a population after an experiment, at most so many in the order of their experiments, each as one that was put in;
/// and the last of the experiments.
pub(super) async fn blocks_after(
    on: &mut Transaction,
    population: &PopulationName,
    after: &str,
    limit: i64,
    grouping: &Grouping,
) -> Result<(Vec<BlockChange>, Option<String>), StoreError> {
    let sql = "select experiment_id, block from blocks
               where population_id = $1 and experiment_id > $2 and block is not null order by experiment_id limit $3";
    let read = |row: &Row| Ok((row.get("experiment_id")?, read_block(population.clone(), row, grouping)?));
    let values = values![population.to_string(), after, limit];
    let (mut experiments, blocks): (Vec<String>, Vec<BlockChange>) =
        on.query("read blocks", sql, values).all(read).await?.into_iter().unzip();
    Ok((blocks, experiments.pop()))
}

/// The changes of a population that are still in the log.
pub(super) async fn of(on: &mut Transaction, population: &PopulationName) -> Result<Vec<BlockChange>, StoreError> {
    let sql = format!("select before, after from block_changes where {OF_POPULATIONS}");
    let values = values![vec![population.to_string()], 0_i64];
    on.query("read changes", sql, values).all(|row| read_change(population.clone(), row)).await
}

pub(super) fn names(populations: &[PopulationName]) -> Vec<String> {
    populations.iter().map(PopulationName::to_string).collect()
}

/// How far each partition has been read.
pub(super) async fn input_offsets(on: &mut Transaction) -> Result<Vec<InputOffset>, StoreError> {
    on.query("read offsets", format!("select {OFFSETS}"), []).all(read_offset).await
}

/// Empties the log.
pub(super) async fn delete(on: &mut Transaction) -> Result<(), StoreError> {
    on.query("rebuild: delete changes", "delete from block_changes", []).await.map(drop)
}

fn read_change(population: PopulationName, row: &Row) -> Result<BlockChange, StoreError> {
    let block = |column: &'static str| {
        let bytes: Option<Vec<u8>> = row.get(column)?;
        let block = bytes.map(|bytes| unpack::<CountedBlock>(column, &bytes)).transpose();
        block.map_err(|error| unreadable(&format!("block_changes.{column}"), error))
    };
    Ok(BlockChange { population, before: block("before")?, after: block("after")? })
}

fn read_block(population: PopulationName, row: &Row, grouping: &Grouping) -> Result<BlockChange, StoreError> {
    let measured: Measured = row.unpack("blocks", "block")?;
    let chosen = grouping.chosen_variant(&row.get::<String>("experiment_id")?, &measured.variants);
    Ok(BlockChange { population, before: None, after: Some(CountedBlock { block: measured.block, chosen }) })
}

fn read_offset(row: &Row) -> Result<InputOffset, StoreError> {
    Ok((row.get("topic")?, row.get("partition_number")?, row.get("next_offset")?))
}
