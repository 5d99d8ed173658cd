//! Statements on `block_changes`, the log of what batches changed in the blocks. A batch only appends to it; whoever refits a
//! population takes its changes out, in the transaction that adds them to its statistics.
//!
//! On PostgreSQL, rows that were taken out stay in the indexes as long as any transaction may still see them, and reading past
//! them takes ever longer while somebody keeps an old snapshot. Each row therefore says by which transaction it was written, and
//! a store knows from which on there is anything to find: see [`Floor`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use shrinkd_core::{Grouping, Measured, PopulationName, pack, unpack};
use shrinkd_model::MemberError;

use super::StoreError;
use super::columns::{Column, Columns, boolean, bytes, text};
use super::copy::Target;
use super::database::Transaction;
use super::error::unreadable;
use super::query::{Row, Value, values};
use crate::refit::{MOST_CHANGES, UnfitBlock};
use crate::row::{BlockChange, CountedBlock, InputOffset, TakenChanges, TakenCount};

/// Changes that are read at a time where none is taken.
const READ: i64 = 5_000;

const CHANGE: &[Column<BlockChange>] = &[
    text("population_id", |change| Some(change.population.to_string().into())),
    bytes("before", |change| change.before.as_ref().map(|block| pack(block).into())),
    bytes("after", |change| change.after.as_ref().map(|block| pack(block).into())),
];
const PUBLISHED: &[Column<BlockChange>] = &[boolean("is_published", |_| Some(true))];
const LEFT_TO_PASS: &[Column<BlockChange>] = &[boolean("is_published", |change| Some(change.after.is_none()))];

/// The transaction of a change (0 on SQLite), and its number.
pub(super) type ChangeId = (i64, i64);

/// Appends what a batch has changed, and whether it writes the estimates of the blocks. Of one that it has withdrawn there are none.
pub(super) async fn append(
    on: &mut Transaction,
    changes: &[BlockChange],
    is_published: bool,
) -> Result<u64, StoreError> {
    let columns = if is_published { Columns::of(&[CHANGE, PUBLISHED]) } else { Columns::of(&[CHANGE, LEFT_TO_PASS]) };
    let sql = "insert into block_changes ({columns}) select {columns} from n";
    columns.insert(on, "ingest: changes", changes, Target::table("block_changes"), sql).await
}

/// Every 60th look scans the whole log.
const WHOLE_LOOK: u64 = 60;

/// The earliest transaction of which the log can still have a change (0 on SQLite, which keeps no rows that were deleted), but for
/// changes of populations that could not be refitted: their next refit takes all, and meanwhile they hold up nothing.
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
    pub fn get(&self) -> i64 {
        self.0.floor.load(Ordering::Relaxed)
    }

    /// From where on the next look has to look.
    fn begin(&self) -> i64 {
        let is_whole = self.0.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(WHOLE_LOOK);
        if is_whole { 0 } else { self.get() }
    }

    /// All changes that a snapshot can see, but for those of populations that have failed, are of the transaction `oldest` or of
    /// later ones, and all that it cannot see are of `unfinished` or later ones. A database whose transactions have lower numbers than
    /// before is another one. A change that a population is left with as it recovers while this looks is found by the next whole look.
    fn set(&self, oldest: Option<i64>, unfinished: i64) {
        let floor = if unfinished < self.get() { 0 } else { oldest.unwrap_or(unfinished).min(unfinished) };
        self.0.floor.store(floor, Ordering::Relaxed);
    }
}

/// Whether the population of a change has no time of its own for the next refit, which need not be looked for in the log.
const HAS_NOT_WAITED: &str =
    "population_id not in (select population_id from populations where refit_due_at is not null)";

/// Whether the population of a change is none that waits because it could not be refitted.
const HAS_NOT_FAILED: &str = "population_id not in (select p.population_id from populations as p
                              join current_population_fits as f on f.population_id = p.population_id and f.status = 'failed'
                              where p.refit_due_at is not null)";

/// The populations that have the oldest changes of the log, those that have waited longest first. One whose next refit is due
/// at a certain time waits for that, and keeps none of the others waiting, however many changes it has. One that has lost its row
/// cannot be refitted, and is for the audit to find.
pub(super) async fn waiting(on: &mut Transaction, floor: &Floor) -> Result<Vec<PopulationName>, StoreError> {
    // On SQLite all transactions are 0, and the table itself is in the order of its changes.
    let (unfinished, oldest, order) = match on.is_postgres() {
        true => (
            "cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint)",
            format!("select min(transaction_id) from block_changes where transaction_id >= $1 and {HAS_NOT_FAILED}"),
            "transaction_id, change_id",
        ),
        false => ("0", "select $1".to_owned(), "change_id"),
    };
    // Returns a row even if the log is empty.
    let sql = format!(
        "with first as (select ({oldest}) as oldest)
         select {unfinished} as unfinished, first.oldest, p.population_id
         from first
         left join (select population_id, min(transaction_id) as oldest, min(change_id) as first
                    from (select population_id, transaction_id, change_id from block_changes
                          where transaction_id >= (select oldest from first) and {HAS_NOT_WAITED}
                          order by {order} limit {MOST_CHANGES}) as c
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

/// The changes of some populations (`$1`) from a transaction on (`$2`), as a condition.
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
        let taken =
            format!("delete from block_changes where {condition} returning population_id, before, after, is_published");
        return on.query(name, format!("with taken as ({taken}) {rest}"), values()).all(read).await;
    }
    let taken = format!("select population_id, before, after, is_published from block_changes where {condition}");
    let found = on.query(name, format!("with taken as ({taken}) {rest}"), values()).all(read).await?;
    on.query(name, format!("delete from block_changes where {condition}"), values()).await?;
    Ok(found)
}

const OFFSETS: &str = "topic, partition_number, next_offset from partition_progress where next_offset is not null";

/// Takes all changes of some populations out of the log.
pub(super) async fn take_all(
    on: &mut Transaction,
    populations: &[PopulationName],
    from: i64,
) -> Result<TakenChanges, StoreError> {
    let rest = format!(
        "select population_id, before, after, is_published, cast(null as text) as topic,
                cast(null as int) as partition_number, cast(null as bigint) as next_offset
         from taken
         union all select null, null, null, null, {OFFSETS}"
    );
    let read = |row: &Row| match row.get::<Option<PopulationName>>("population_id")? {
        Some(population) => Ok(Ok((read_change(population, row)?, row.get("is_published")?))),
        None => Ok(Err(read_offset(row)?)),
    };
    let values = values![names(populations), from];
    let mut taken = TakenChanges::of(populations);
    for change_or_offset in take(on, "refit: take changes", OF_POPULATIONS, &rest, &values, read).await? {
        match change_or_offset {
            Ok((change, is_published)) => taken.push(change, is_published),
            Err(offset) => taken.input_offsets.push(offset),
        }
    }
    Ok(taken)
}

/// Takes as many changes of one population out of the log as one refit takes.
pub(super) async fn take_part(
    on: &mut Transaction,
    population: &PopulationName,
    from: i64,
) -> Result<TakenChanges, StoreError> {
    let of_population = "from block_changes where population_id = $1 and transaction_id >= $2";
    let part = match on.is_postgres() {
        // For a join it would read the whole table, and without statistics of the table sort all changes. Sums need no order.
        true => format!("ctid = any(array(select ctid {of_population} limit {MOST_CHANGES}))"),
        // Two statements have to find the same.
        false => format!("change_id in (select change_id {of_population} order by change_id limit {MOST_CHANGES})"),
    };
    let values = values![population.to_string(), from];
    let read = |row: &Row| Ok((read_change(population.clone(), row)?, row.get("is_published")?));
    let mut taken = TakenChanges::of(std::slice::from_ref(population));
    let rest = "select before, after, is_published from taken";
    for (change, is_published) in take(on, "refit: take some changes", &part, rest, &values, read).await? {
        taken.push(change, is_published);
    }
    Ok(taken)
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
                sum(case when is_published then 0 else 1 end) as unpublished,
                cast(null as text) as topic, cast(null as int) as partition_number, cast(null as bigint) as next_offset
         from taken group by population_id
         union all select population_id, experiment_id, block, null, null, null, null, null
         from blocks where population_id {{any $1}} and block is not null
         union all select null, null, null, null, null, {OFFSETS}",
        if on.is_postgres() { "bytea" } else { "blob" },
    );
    enum Found {
        Changes(PopulationName, TakenCount),
        Block(BlockChange),
        Offset(InputOffset),
    }
    let read = |row: &Row| match (row.get::<Option<PopulationName>>("population_id")?, row.get("changes")?) {
        (Some(population), Some(changes)) => {
            Ok(Found::Changes(population, TakenCount { changes, unpublished: row.get("unpublished")? }))
        }
        (Some(population), None) => Ok(Found::Block(read_block(population, row, grouping)?)),
        (None, _) => Ok(Found::Offset(read_offset(row)?)),
    };
    let values = values![names(populations), 0_i64];
    let mut taken = TakenChanges::of(populations);
    for found in take(on, "refit: take changes of blocks", OF_POPULATIONS, &rest, &values, read).await? {
        match found {
            Found::Changes(population, count) => drop(taken.counts.insert(population, count)),
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

/// The blocks of populations, each as one that was put in.
pub(super) async fn blocks(
    on: &mut Transaction,
    populations: &[PopulationName],
    grouping: &Grouping,
) -> Result<Vec<BlockChange>, StoreError> {
    let sql =
        "select population_id, experiment_id, block from blocks where population_id {any $1} and block is not null";
    let read = |row: &Row| read_block(row.get("population_id")?, row, grouping);
    on.query("read blocks", sql, values![names(populations)]).all(read).await
}

/// Leaves the estimates of what is in the log of a population, or of as much as a refit takes, to a pass that will not wait for its
/// refit. Returns of how many changes.
pub(super) async fn leave_to_pass(on: &mut Transaction, population: &PopulationName) -> Result<i64, StoreError> {
    let some = format!("from block_changes where population_id = $1 and not is_published limit {MOST_CHANGES}");
    let some = match on.is_postgres() {
        true => format!("ctid = any(array(select ctid {some}))"),
        false => format!("change_id in (select change_id {some})"),
    };
    let sql = format!("update block_changes set is_published = true where {some}");
    let left = on.query("refit: leave to a pass", sql, values![population.to_string()]).await?;
    Ok(i64::try_from(left).unwrap_or(i64::MAX))
}

/// Hands over every block of a population, one after the other, as one that was put in.
pub(super) async fn for_each_block(
    on: &mut Transaction,
    population: &PopulationName,
    grouping: &Grouping,
    mut take: impl FnMut(BlockChange) -> Result<(), MemberError>,
) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let (blocks, last) = blocks_after(on, population, &after, READ, grouping).await?;
        let Some(last) = last else { return Ok(()) };
        after = last;
        blocks.into_iter().try_for_each(&mut take).map_err(|error| unfit(population, error))?;
    }
}

/// Hands over every change of a population that is in the log, one after the other. Returns how many there were, and the id of the
/// last.
pub(super) async fn for_each_logged(
    on: &mut Transaction,
    population: &PopulationName,
    mut take: impl FnMut(BlockChange) -> Result<(), MemberError>,
) -> Result<(TakenCount, ChangeId), StoreError> {
    let sql = "select transaction_id, change_id, before, after, is_published from block_changes
               where population_id = $1 and transaction_id >= $2 and (transaction_id, change_id) > ($2, $3)
               order by transaction_id, change_id limit $4";
    let (mut count, mut last) = (TakenCount::default(), (0, 0));
    loop {
        let values = values![population.to_string(), last.0, last.1, READ];
        let read = |row: &Row| {
            let change = read_change(population.clone(), row)?;
            Ok(((row.get("transaction_id")?, row.get("change_id")?), row.get("is_published")?, change))
        };
        let page: Vec<(ChangeId, bool, BlockChange)> = on.query("read changes", sql, values).all(read).await?;
        let Some((id, ..)) = page.last() else { return Ok((count, last)) };
        last = *id;
        count.changes += page.len() as i64;
        count.unpublished += page.iter().filter(|(_, is_published, _)| !is_published).count() as i64;
        let mut changes = page.into_iter().map(|(.., change)| change);
        changes.try_for_each(&mut take).map_err(|error| unfit(population, error))?;
    }
}

pub(super) fn unfit(population: &PopulationName, source: MemberError) -> StoreError {
    StoreError::unfit(UnfitBlock { population: population.to_string(), source })
}

pub(super) fn names<'p>(populations: impl IntoIterator<Item = &'p PopulationName>) -> Vec<String> {
    populations.into_iter().map(PopulationName::to_string).collect()
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
