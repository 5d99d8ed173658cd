//! Statements on the cells of populations, which whoever has locked the population reads and writes.

use std::collections::BTreeMap;

use shrinkd_core::PopulationName;
use shrinkd_model::{Cell, Correlation, Sketches, cell_to_bytes};

use super::StoreError;
use super::columns::{Columns, NONE, bytes, integer, text};
use super::database::Transaction;
use super::query::{Row, values};

/// A cell of a population: see [`Sketches`].
pub(super) struct CellRow {
    pub population: PopulationName,
    pub correlation: Correlation,
    pub octave: i16,
    pub cell: Cell,
}

const CELLS: Columns<CellRow> = Columns(
    &[&[
        text("population_id", |row| Some(row.population.to_string().into())),
        text("correlation", |row| Some(row.correlation.as_str().into())),
        integer("octave", |row| Some(i64::from(row.octave))),
    ]],
    &[&[bytes("moments", |row| Some(cell_to_bytes(&row.cell).into()))]],
);

/// The cells of some populations.
pub(super) async fn read(
    on: &mut Transaction,
    populations: Vec<String>,
) -> Result<BTreeMap<PopulationName, Sketches>, StoreError> {
    let sql = "select population_id, correlation, octave, moments from population_cells where population_id {any $1}";
    let read = |row: &Row| {
        let population: PopulationName = row.get("population_id")?;
        Ok((population, row.get("correlation")?, row.get("octave")?, row.get::<Cell>("moments")?))
    };
    let mut sketches: BTreeMap<PopulationName, Sketches> = BTreeMap::new();
    for (population, correlation, octave, cell) in
        on.query("refit: read cells", sql, values![populations]).all(read).await?
    {
        sketches.entry(population).or_default().add_cell(correlation, octave, &cell);
    }
    Ok(sketches)
}

/// Puts in or replaces cells.
pub(super) async fn write(on: &mut Transaction, cells: &[CellRow]) -> Result<u64, StoreError> {
    let sql = "insert into population_cells ({columns}) select {columns} from n where true
               on conflict (population_id, correlation, octave) do update set {set from excluded}";
    CELLS.execute(on, "refit: cells", cells, sql, NONE).await
}

/// Deletes all cells.
pub(super) async fn delete(on: &mut Transaction) -> Result<(), StoreError> {
    on.query("rebuild: delete cells", "delete from population_cells", []).await.map(drop)
}
