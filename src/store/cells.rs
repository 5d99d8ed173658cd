//! Statements on the cells of populations, which whoever has locked the population reads and writes.

use std::collections::BTreeMap;

use shrinkd_core::PopulationName;
use shrinkd_model::{Part, Sketches};

use super::columns::{Columns, NONE, bytes, text};
use super::database::Transaction;
use super::error::unreadable;
use super::query::{record, values};
use super::statistics::read_populations;
use super::{Store, StoreError, changes};
use crate::row::BlockChange;

/// The cells of a part of a population: see [`Sketches`].
pub(super) struct CellRow {
    pub population: PopulationName,
    pub part: Part,
    pub moments: Vec<u8>,
}

const CELLS: Columns<CellRow> = Columns(
    &[&[
        text("population_id", |row| Some(row.population.to_string().into())),
        text("part", |row| Some(row.part.as_str().into())),
    ]],
    &[&[bytes("moments", |row| Some(row.moments.as_slice().into()))]],
);

impl Store {
    /// Gives cells to a population that was summed from its blocks, where it has more changes in the log than one refit takes: with what its
    /// blocks added up to before all of them. No lock is held while blocks and log are read; where anybody has refitted the population
    /// meanwhile, nothing is written.
    ///
    /// # Errors
    /// [`StoreError::Settings`] where the store was rebuilt with other settings.
    pub async fn give_cells(&self, population: &PopulationName) -> Result<(), StoreError> {
        let mut on = self.pools.read().await?;
        let mut states = read_populations(&mut on, &[population.to_string()], 0).await?;
        let Some(state) = states.get_mut(population) else { return Ok(()) };
        let counters = state.statistics.counters;
        state.forget_blocks();
        let sum = &mut state.statistics;
        let put_in = |block: BlockChange| sum.apply(None, block.after.as_ref());
        changes::for_each_block(&mut on, population, &self.settings.grouping, put_in).await?;
        let undo = |change: BlockChange| sum.apply(change.after.as_ref(), change.before.as_ref());
        let (_, last) = changes::for_each_logged(&mut on, population, undo).await?;
        on.rollback("cells: end reading").await?;
        state.changed_parts.extend(state.statistics.sketches.parts());
        state.has_cells = true;

        let mut refit = self.begin_refit(std::slice::from_ref(population)).await?;
        let now = refit.populations().await?;
        let is_as_before = now.get(population).is_some_and(|now| !now.has_cells && now.statistics.counters == counters);
        // A rebuild, after which the counts may be the same, has emptied the log.
        if !is_as_before || !refit.is_logged(last).await? {
            return refit.rollback().await;
        }
        refit.write_statistics(&states).await?;
        refit.commit().await
    }
}

/// The cells of some populations.
pub(super) async fn read(
    on: &mut Transaction,
    populations: Vec<String>,
) -> Result<BTreeMap<PopulationName, Sketches>, StoreError> {
    let sql = "select population_id, part, moments from population_cells where population_id {any $1}";
    let read = record!(CellRow: population = "population_id", part, moments);
    let mut sketches: BTreeMap<PopulationName, Sketches> = BTreeMap::new();
    for CellRow { population, part, moments } in
        on.query("refit: read cells", sql, values![populations]).all(read).await?
    {
        let damaged = || unreadable("population_cells.moments", format!("{} bytes of {population}", moments.len()));
        let of_population = sketches.entry(population.clone()).or_default();
        of_population.add_cells(part, &moments).ok_or_else(damaged)?;
    }
    Ok(sketches)
}

/// Puts in or replaces cells.
pub(super) async fn write(on: &mut Transaction, cells: &[CellRow]) -> Result<u64, StoreError> {
    let sql = "insert into population_cells ({columns}) select {columns} from n where true
               on conflict (population_id, part) do update set {set from excluded}";
    CELLS.execute(on, "refit: cells", cells, sql, NONE).await
}

/// Deletes all cells.
pub(super) async fn delete(on: &mut Transaction) -> Result<(), StoreError> {
    on.query("rebuild: delete cells", "delete from population_cells", []).await.map(drop)
}
