//! Statements on the cells of populations, and on the counters beside them. A batch writes both under its partition, whose
//! row it has locked; only their sums over all partitions have a meaning.

use std::collections::BTreeMap;

use shrinkd_core::PopulationName;
use shrinkd_model::{Cell, Correlation, cell_to_bytes};

use super::StoreError;
use super::columns::{Columns, bytes, integer, text};
use super::database::Transaction;
use super::query::{record, values};
use crate::row::{CellChange, Counters};

/// Population, model of correlation, octave.
type CellKey = (String, Correlation, i16);

const CELLS: Columns<(CellKey, Cell)> = Columns(
    &[&[
        text("population_id", |((population_id, ..), _)| Some(population_id.into())),
        text("correlation", |((_, correlation, _), _)| Some(correlation.as_str().into())),
        integer("octave", |((.., octave), _)| Some(i64::from(*octave))),
    ]],
    &[&[bytes("moments", |(_, cell)| Some(cell_to_bytes(cell).into()))]],
);

/// Adds changes to the cells of a partition. Returns how many were written.
pub(super) async fn write(
    on: &mut Transaction,
    changes: &BTreeMap<PopulationName, CellChange>,
    partition_id: i64,
) -> Result<u64, StoreError> {
    let mut cells: BTreeMap<CellKey, Cell> = BTreeMap::new();
    for (population, change) in changes {
        for correlation in Correlation::ALL {
            let own = change.sketches.of(correlation).cells();
            cells.extend(own.map(|(octave, cell)| ((population.to_string(), correlation, octave), *cell)));
        }
    }
    if cells.is_empty() {
        return Ok(0);
    }
    let populations: Vec<String> = changes.keys().map(PopulationName::to_string).collect();
    let sql = "select population_id, correlation, octave, moments from sketch_cells
               where population_id {any $1} and partition_id = $2";
    let stored = on.query("ingest: read cells", sql, values![populations, partition_id]).all(|row| {
        let key: CellKey = (row.get("population_id")?, row.get("correlation")?, row.get("octave")?);
        Ok((key, row.get::<Cell>("moments")?))
    });
    for (key, stored) in stored.await? {
        if let Some(change) = cells.get_mut(&key) {
            let sums = change.as_flattened_mut().iter_mut().zip(stored.as_flattened());
            sums.for_each(|(x, y)| *x = x.wrapping_add(*y));
        }
    }
    let rows: Vec<(CellKey, Cell)> = cells.into_iter().collect();
    let sql = "insert into sketch_cells (partition_id, {columns}) select $1, {columns} from n where true
               on conflict (population_id, partition_id, correlation, octave) do update set {set from excluded}";
    CELLS.execute(on, "ingest: cells", &rows, sql, &[partition_id.into()]).await
}

const COUNTERS: Columns<(PopulationName, Counters)> = Columns(
    &[&[text("population_id", |(population, _)| Some(population.to_string().into()))]],
    &[&[
        integer("changes", |(_, counters)| Some(counters.changes)),
        integer("experiments", |(_, counters)| Some(counters.experiments)),
        integer("effects", |(_, counters)| Some(counters.effects)),
    ]],
);

/// Adds changes to the counters of a partition.
pub(super) async fn count(
    on: &mut Transaction,
    changes: &BTreeMap<PopulationName, CellChange>,
    partition_id: i64,
) -> Result<(), StoreError> {
    let rows: Vec<_> = changes.iter().map(|(population, change)| (population.clone(), change.counters)).collect();
    let sql = "insert into cell_counters as c (partition_id, {columns}) select $1, {columns} from n where true
               on conflict (population_id, partition_id) do update
               set changes = c.changes + excluded.changes, experiments = c.experiments + excluded.experiments,
                   effects = c.effects + excluded.effects";
    COUNTERS.execute(on, "ingest: counters", &rows, sql, &[partition_id.into()]).await.map(drop)
}

/// The counts of a population over all partitions.
pub(super) async fn read_counters(on: &mut Transaction, population_id: &str) -> Result<Counters, StoreError> {
    let sql = "select cast(coalesce(sum(changes), 0) as bigint) as changes,
                      cast(coalesce(sum(experiments), 0) as bigint) as experiments,
                      cast(coalesce(sum(effects), 0) as bigint) as effects
               from cell_counters where population_id = $1";
    let counters = record!(Counters: changes, experiments, effects);
    on.query("refit: read counters", sql, values![population_id]).one(counters).await
}
