//! The transaction of a refit, of many populations at once.
//!
//! It sees what is committed while it lasts (read committed): a snapshot that is older than the lock of a population would not see
//! what the worker that had it locked has written. What belongs together is read by one statement.

use std::collections::BTreeMap;
use std::time::Duration;

use shrinkd_core::{Grouping, PopulationName};
use shrinkd_model::{Cell, Correlation};

use super::cells::CellRow;
use super::changes::Floor;
use super::columns::{Column, Columns, NONE, boolean, integer, text};
use super::database::{Pools, Transaction};
use super::query::{Row, record, values};
use super::{Store, StoreError, cells, changes, fits, ingest, settings};
use crate::refit::{Judged, Publication, RefitState, Unpublished, apply};
use crate::row::{Counters, FitRow, Statistics, TakenChanges};

/// Most populations that are looked for at a time.
const MOST_DUE: i64 = 10_000;

/// Populations whose refits one transaction requests.
const REQUESTED: usize = 1_000;

/// How long a population whose publish is postponed waits for its next refit, unless the publish under way ends before, s.
const POSTPONED: i64 = 1;

/// The same where batches are still far behind: the pass begins as soon as none of them has changed the population for so long.
const CATCHING_UP: i64 = 2;

/// How long one that could not be refitted waits, s.
const FAILED: i64 = 10;

/// How long a refit should take, for which its populations are locked: on SQLite so is everything.
const TIME: Duration = Duration::from_millis(100);
const SQLITE_TIME: Duration = Duration::from_millis(20);

/// A refit under way: its populations are locked.
pub struct Refit {
    transaction: Transaction,
    floor: Floor,
    grouping: Grouping,
    populations: Vec<String>,
    /// Those whose changes are still to be taken: of populations that are summed from their blocks, and of the others.
    of_blocks: Vec<PopulationName>,
    of_changes: Vec<PopulationName>,
}

/// A population that was refitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Refitted {
    pub population: PopulationName,
    pub state: RefitState,
    pub fits: Vec<FitRow>,
    /// The settings that the fits were made with.
    pub fit_settings: String,
    pub publication: Publication,
}

impl Store {
    /// Populations for which a refit is due or which have changed since their last one, those that have waited longest first.
    pub async fn populations_with_news(&self) -> Result<Vec<PopulationName>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select population_id from populations where refit_due_at <= {now}
                   order by refit_due_at, population_id limit $1";
        let due = reader.query("refit: due", sql, values![MOST_DUE]).all(|row| row.get("population_id"));
        let mut due: Vec<PopulationName> = due.await?;
        due.extend(changes::waiting(&mut reader, &self.floor).await?);
        Ok(due)
    }

    /// Requests refits of these populations.
    pub async fn request_refits(&self, populations: &[PopulationName]) -> Result<(), StoreError> {
        for part in populations.chunks(REQUESTED) {
            let mut transaction = self.pools.begin().await?;
            let sql = "update populations set refit_due_at = {now}
                       where population_id in (select population_id from populations where population_id {any $1}
                                               order by population_id {for no key update})";
            transaction.query("refit: request", sql, values![changes::names(part)]).await?;
            transaction.commit("refit: commit").await?;
        }
        Ok(())
    }

    /// How long one refit, of however many populations, should take.
    pub fn refit_time(&self) -> Duration {
        match self.pools {
            Pools::Postgres { .. } => TIME,
            Pools::Sqlite { .. } => SQLITE_TIME,
        }
    }

    /// Begins a refit of those of these populations that no other worker has.
    ///
    /// # Errors
    /// [`StoreError::Settings`] where the store was rebuilt with other settings.
    pub async fn begin_refit(&self, populations: &[PopulationName]) -> Result<Refit, StoreError> {
        let mut transaction = self.pools.begin().await?;
        let sql = "select population_id from populations where population_id {any $1}
                   order by population_id {for no key update skip locked}";
        let locked = transaction.query("refit: lock populations", sql, values![changes::names(populations)]);
        let populations = locked.all(|row| row.get("population_id")).await?;
        // After the rows, which a rebuild holds until its settings can be seen.
        settings::check(&mut transaction, &self.settings).await?;
        let (floor, grouping) = (self.floor.clone(), self.settings.grouping.clone());
        Ok(Refit { transaction, floor, grouping, populations, of_blocks: Vec::new(), of_changes: Vec::new() })
    }

    /// A population as a refit would find it now, outside of any.
    pub async fn population_state(&self, population: &PopulationName) -> Result<RefitState, StoreError> {
        let mut states = self.population_states(std::slice::from_ref(population)).await?;
        Ok(states.remove(population).unwrap_or_default())
    }

    /// The same of several, as of one moment. Of one that has no row there is none.
    pub async fn population_states(
        &self,
        populations: &[PopulationName],
    ) -> Result<BTreeMap<PopulationName, RefitState>, StoreError> {
        let on = &mut self.pools.read().await?;
        let mut states = registered(on, &changes::names(populations)).await?;
        let mut taken = changes::of(on, populations).await?;
        let of_blocks: Vec<PopulationName> =
            states.iter().filter(|(_, state)| state.is_of_blocks()).map(|(name, _)| name.clone()).collect();
        taken.changes.retain(|change| !of_blocks.contains(&change.population));
        if !of_blocks.is_empty() {
            taken.changes.extend(changes::blocks(on, &of_blocks, &self.settings.grouping).await?);
        }
        taken.input_offsets = changes::input_offsets(on).await?;
        states.values_mut().for_each(RefitState::begin);
        read_cells(on, &mut states).await?;
        apply(&mut states, taken).map_err(StoreError::unfit)?;
        Ok(states)
    }

    /// Requests refits of the populations that wait for a pass, which would be due later.
    pub async fn request_refits_of_unpublished(&self) -> Result<(), StoreError> {
        let sql = "select population_id from populations where refit_due_at > {now} and unpublished > pass_unpublished";
        let mut reader = self.pools.read().await?;
        let waiting: Vec<PopulationName> =
            reader.query("refit: unpublished", sql, []).all(|row| row.get("population_id")).await?;
        drop(reader);
        self.request_refits(&waiting).await
    }
}

/// The populations as their latest refits have left them, without cells.
async fn registered(
    on: &mut Transaction,
    populations: &[String],
) -> Result<BTreeMap<PopulationName, RefitState>, StoreError> {
    let sql = "select p.population_id, p.has_cells, p.changes, p.experiments, p.effects,
                      coalesce(p.refit_due_at <= {now}, false) as is_due, p.publish_cursor is not null as is_publishing,
                      p.unpublished - p.pass_unpublished as waiting, {s since p.unpublished_at} as waited,
                      (select f.message from current_population_fits as f
                       where f.population_id = p.population_id and f.correlation = 'modelled') as message,
                      f.status, coalesce(f.mu_mean, f.mu_median) as mu, f.mu_sd, f.tau_median, f.log_tau_sd, f.direction
               from populations as p
               left join population_fits as f
                   on f.population_id = p.population_id and f.fit_id = p.published_fit_id and f.correlation = 'modelled'
               where p.population_id {any $1}";
    let counters = record!(Counters: changes, experiments, effects);
    let judged = record!(Judged: status, mu, mu_sd, tau = "tau_median", log_tau_sd, direction);
    let read = |row: &Row| {
        let statistics = Statistics { counters: counters(row)?, ..Statistics::default() };
        let refitted_changes = statistics.counters.changes;
        let is_published = row.get::<Option<String>>("status")?.is_some();
        let published = if is_published { Some(judged(row)?) } else { None };
        let state = RefitState { statistics, refitted_changes, published, ..RefitState::default() };
        let state = RefitState {
            has_cells: row.get("has_cells")?,
            is_due: row.get("is_due")?,
            is_publishing: row.get("is_publishing")?,
            message: row.get("message")?,
            unpublished: Unpublished { waiting: row.get("waiting")?, waited: row.get("waited")?, new: 0 },
            ..state
        };
        Ok((row.get("population_id")?, state))
    };
    let states = on.query("refit: read populations", sql, values![populations.to_vec()]).all(read).await?;
    Ok(states.into_iter().collect())
}

/// Adds the cells of those populations that have some.
async fn read_cells(on: &mut Transaction, states: &mut BTreeMap<PopulationName, RefitState>) -> Result<(), StoreError> {
    let with_cells: Vec<String> =
        states.iter().filter(|(_, state)| state.has_cells).map(|(name, _)| name.to_string()).collect();
    if with_cells.is_empty() {
        return Ok(());
    }
    for (population, sketches) in cells::read(on, with_cells).await? {
        if let Some(state) = states.get_mut(&population) {
            state.statistics.sketches = sketches;
        }
    }
    Ok(())
}

const POPULATION: &[Column<Refitted>] = &[text("population_id", |row| Some(row.population.to_string().into()))];

const NOTED: &[Column<Refitted>] = &[
    boolean("has_cells", |row| Some(row.state.has_cells)),
    integer("changes", |row| Some(row.state.statistics.counters.changes)),
    integer("experiments", |row| Some(row.state.statistics.counters.experiments)),
    integer("effects", |row| Some(row.state.statistics.counters.effects)),
    text("fit_settings", |row| Some(row.fit_settings.as_str().into())),
];

/// In how many seconds the next refit of a population is due even if nothing changes, and what else is added to its row.
const DUE: &[Column<Refitted>] = &[
    integer("due_in", |row| match row.publication {
        Publication::Postponed if row.state.unpublished.count() > 0 => Some(CATCHING_UP),
        Publication::Postponed => Some(POSTPONED),
        Publication::Failed => Some(FAILED),
        Publication::NotDue | Publication::Due(_) | Publication::Pass => None,
    }),
    integer("new_unpublished", |row| Some(row.state.unpublished.new)),
];

impl Refit {
    /// The populations as their latest refits have left them. What they hold may be unreadable: it is not read.
    pub async fn registered(&mut self) -> Result<BTreeMap<PopulationName, RefitState>, StoreError> {
        registered(&mut self.transaction, &self.populations).await
    }

    /// The populations with their statistics, to which all changes that [`Refit::take`] returns have to be applied.
    pub async fn states(&mut self) -> Result<BTreeMap<PopulationName, RefitState>, StoreError> {
        let mut states = self.registered().await?;
        for (population, state) in &mut states {
            let kind = if state.is_of_blocks() { &mut self.of_blocks } else { &mut self.of_changes };
            kind.push(population.clone());
            state.begin();
        }
        read_cells(&mut self.transaction, &mut states).await?;
        Ok(states)
    }

    /// Takes the next changes out of the log; `None` once all are taken that could be seen.
    pub async fn take(&mut self) -> Result<Option<TakenChanges>, StoreError> {
        let on = &mut self.transaction;
        if !self.of_blocks.is_empty() {
            let populations = std::mem::take(&mut self.of_blocks);
            return changes::take_for_blocks(on, &populations, &self.grouping).await.map(Some);
        }
        if self.of_changes.is_empty() {
            return Ok(None);
        }
        let (taken, is_full) = changes::take_page(on, &self.of_changes, &self.floor).await?;
        if !is_full {
            self.of_changes.clear();
        }
        Ok(Some(taken))
    }

    /// Writes the fits of populations, their statistics, and what follows for the published rows.
    pub async fn write(&mut self, refitted: &[Refitted]) -> Result<(), StoreError> {
        let on = &mut self.transaction;
        let ids = ingest::next_ids(on, "fit", refitted.len()).await?;
        let with_ids = || refitted.iter().zip(ids.iter().copied());
        fits::write(on, with_ids()).await?;
        let cells: Vec<CellRow> = refitted.iter().flat_map(|row| cells_to_write(&row.population, &row.state)).collect();
        cells::write(on, &cells).await?;
        let sql = "update populations as p
                   set {set from n}, changed_at = {now}, refit_due_at = {s from now n.due_in},
                       unpublished = p.unpublished + n.new_unpublished,
                       unpublished_at = case when n.new_unpublished > 0 and p.unpublished_at is null then {now}
                                             else p.unpublished_at end
                   from n where p.population_id = n.population_id";
        Columns(&[POPULATION, DUE], &[NOTED]).execute(on, "refit: note", refitted, sql, NONE).await?;
        let due = with_ids().filter_map(|(row, fit_id)| match &row.publication {
            Publication::Due(diagnostics) => Some((row.population.clone(), fit_id, diagnostics.clone())),
            _ => None,
        });
        fits::publish(on, &due.collect::<Vec<_>>()).await?;
        let passes = refitted.iter().filter(|row| matches!(row.publication, Publication::Due(_) | Publication::Pass));
        let passes: Vec<String> = passes.map(|row| row.population.to_string()).collect();
        if passes.is_empty() {
            return Ok(());
        }
        let sql = "update populations set publish_cursor = '', pass_owner = null, pass_touched_at = null
                   where population_id {any $1}";
        on.query("refit: request passes", sql, values![passes]).await.map(drop)
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit("refit: commit").await
    }

    /// Releases the populations unchanged.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.transaction.rollback("refit: roll back").await
    }
}

/// The cells of a population that are not stored as they are now. An emptied cell is written as zeros.
pub(super) fn cells_to_write(population: &PopulationName, state: &RefitState) -> Vec<CellRow> {
    if !state.has_cells {
        return Vec::new();
    }
    let cells = Correlation::ALL.map(|correlation| {
        let cells = state.statistics.sketches.of(correlation).cells();
        cells.map(|(octave, cell)| (octave, *cell)).collect::<BTreeMap<i16, Cell>>()
    });
    let changed = state.changed_cells.iter().map(|&(correlation, octave)| {
        let cell = cells[correlation as usize].get(&octave).copied().unwrap_or_default();
        CellRow { population: population.clone(), correlation, octave, cell }
    });
    changed.collect()
}
