//! The transaction of a refit, of many populations at once.
//!
//! It sees what is committed while it lasts (read committed): a snapshot that is older than the lock of a population would not see
//! what the worker that had it locked has written. What belongs together is read by one statement.

use std::collections::BTreeMap;
use std::time::Duration;

use shrinkd_core::{Grouping, PopulationName};

use super::cells::CellRow;
use super::changes::{ChangeId, Floor};
use super::columns::{Column, Columns, NONE, boolean, integer, text};
use super::database::{Pools, Transaction};
use super::query::{Row, record, values};
use super::{Store, StoreError, cells, changes, fits, ingest, settings};
use crate::refit::{Judged, MOST_CHANGES, Publication, RefitState, Unpublished};
use crate::row::{BlockChange, Counters, FitRow, Statistics, TakenChanges};

/// Most populations that are looked for at a time.
const MOST_DUE: i64 = 10_000;

/// Populations whose refits one transaction requests.
const REQUESTED: usize = 1_000;

/// How long a population whose publish is postponed waits for its next refit, unless the publish under way ends before, s. Where batches
/// have been far behind, a pass begins as soon as none of them has changed anything for so long.
const POSTPONED: i64 = 1;

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
    /// The transaction from which on changes are taken.
    from: i64,
    to_take: Vec<Take>,
}

/// Changes that are still to be taken.
enum Take {
    /// All of populations that are summed from their blocks.
    ForBlocks(Vec<PopulationName>),
    /// All of others.
    Changes(Vec<PopulationName>),
    /// Of a population that has more than a refit takes.
    Part(PopulationName),
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
        Ok(Refit { transaction, floor, grouping, populations, from: 0, to_take: Vec::new() })
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
        let (on, grouping) = (&mut self.pools.read().await?, &self.settings.grouping);
        let mut states = read_populations(on, &changes::names(populations), 0).await?;
        read_cells(on, &mut states).await?;
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for (population, state) in &mut states {
            let (is_of_blocks, sum) = (state.is_of_blocks(), &mut state.statistics);
            if state.logged > 0 {
                let apply = |change: BlockChange| match is_of_blocks {
                    true => Ok(()),
                    false => sum.apply(change.before.as_ref(), change.after.as_ref()),
                };
                let (count, _) = changes::for_each_logged(on, population, apply).await?;
                sum.counters.changes += count.changes;
                state.unpublished.new += count.unpublished;
            }
            if is_of_blocks {
                state.forget_blocks();
                let kind = if state.is_for_several_refits() { &mut large } else { &mut small };
                kind.push(population.clone());
            }
        }
        if !small.is_empty() {
            for BlockChange { population, before, after } in changes::blocks(on, &small, grouping).await? {
                let Some(state) = states.get_mut(&population) else { continue };
                let applied = state.statistics.apply(before.as_ref(), after.as_ref());
                applied.map_err(|error| changes::unfit(&population, error))?;
            }
        }
        for population in large {
            let Some(state) = states.get_mut(&population) else { continue };
            let take = |block: BlockChange| state.statistics.apply(None, block.after.as_ref());
            changes::for_each_block(on, &population, grouping, take).await?;
        }
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

/// The populations as their latest refits have left them, without cells, and how many changes they have in the log.
pub(super) async fn read_populations(
    on: &mut Transaction,
    populations: &[String],
    floor: i64,
) -> Result<BTreeMap<PopulationName, RefitState>, StoreError> {
    let sql = format!(
        "select p.population_id, p.has_cells, p.changes, p.experiments, p.effects,
                coalesce(p.refit_due_at <= {{now}}, false) as is_due, p.refit_due_at is not null as has_waited,
                (select count(*)
                 from (select 1 from block_changes as c
                       where c.population_id = p.population_id
                           and c.transaction_id >= case when p.refit_due_at is null then $2 else 0 end
                       limit {MOST_CHANGES} + 1) as c) as logged,
                p.publish_cursor is not null as is_publishing,
                p.unpublished - p.pass_unpublished as waiting, {{s since p.unpublished_at}} as waited,
                (select exists (select 1 from block_changes where not is_published and transaction_id >= $2)) as is_in_log,
                (select f.message from current_population_fits as f
                 where f.population_id = p.population_id and f.correlation = 'modelled') as message,
                f.status, coalesce(f.mu_mean, f.mu_median) as mu, f.mu_sd, f.tau_median, f.log_tau_sd, f.direction
         from populations as p
         left join population_fits as f
             on f.population_id = p.population_id and f.fit_id = p.published_fit_id and f.correlation = 'modelled'
         where p.population_id {{any $1}}"
    );
    let counters = record!(Counters: changes, experiments, effects);
    let judged = record!(Judged: status, mu, mu_sd, tau = "tau_median", log_tau_sd, direction);
    let read = |row: &Row| {
        let is_published = row.get::<Option<String>>("status")?.is_some();
        let state = RefitState {
            statistics: Statistics { counters: counters(row)?, ..Statistics::default() },
            has_cells: row.get("has_cells")?,
            is_due: row.get("is_due")?,
            has_waited: row.get("has_waited")?,
            logged: row.get("logged")?,
            published: if is_published { Some(judged(row)?) } else { None },
            is_publishing: row.get("is_publishing")?,
            message: row.get("message")?,
            unpublished: Unpublished {
                waiting: row.get("waiting")?,
                waited: row.get("waited")?,
                new: 0,
                is_in_log: row.get("is_in_log")?,
            },
            ..RefitState::default()
        };
        Ok((row.get("population_id")?, state))
    };
    let states = on.query("refit: read populations", sql, values![populations.to_vec(), floor]).all(read).await?;
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

/// What the row of a population says after a refit.
struct Noted {
    population: PopulationName,
    has_cells: bool,
    counters: Counters,
    /// `None` where it was not fitted.
    fit_settings: Option<String>,
    /// In how many seconds its next refit is due even if nothing changes.
    due_in: Option<i64>,
    /// Changes whose estimates are left to a pass, which this refit has seen first.
    new_unpublished: i64,
    /// The fit that is published with it.
    published_fit_id: Option<i64>,
    /// Whether a pass is to begin with the first block.
    begins_pass: bool,
}

const NOTED_KEY: &[Column<Noted>] = &[text("population_id", |row| Some(row.population.to_string().into()))];

const GIVEN: &[Column<Noted>] = &[
    text("fit_settings", |row| row.fit_settings.as_deref().map(Into::into)),
    integer("due_in", |row| row.due_in),
    integer("new_unpublished", |row| Some(row.new_unpublished)),
    integer("published_fit_id", |row| row.published_fit_id),
    boolean("begins_pass", |row| Some(row.begins_pass)),
];

const NOTED: &[Column<Noted>] = &[
    boolean("has_cells", |row| Some(row.has_cells)),
    integer("changes", |row| Some(row.counters.changes)),
    integer("experiments", |row| Some(row.counters.experiments)),
    integer("effects", |row| Some(row.counters.effects)),
];

fn due_in(publication: &Publication) -> Option<i64> {
    match publication {
        Publication::Postponed => Some(POSTPONED),
        Publication::Failed => Some(FAILED),
        Publication::NotDue | Publication::Due(_) | Publication::Pass => None,
    }
}

/// Where a population cannot be refitted, a pass writes what batches have left to it all the same.
fn begins_pass(publication: &Publication, state: &RefitState) -> bool {
    match publication {
        Publication::Due(_) | Publication::Pass => true,
        Publication::Failed => state.unpublished.count() > 0 && !state.is_publishing,
        Publication::NotDue | Publication::Postponed => false,
    }
}

impl Noted {
    fn new(population: &PopulationName, state: &RefitState) -> Noted {
        Noted {
            population: population.clone(),
            has_cells: state.has_cells,
            counters: state.statistics.counters,
            fit_settings: None,
            due_in: None,
            new_unpublished: state.unpublished.new,
            published_fit_id: None,
            begins_pass: false,
        }
    }
}

async fn note(on: &mut Transaction, rows: &[Noted]) -> Result<(), StoreError> {
    let sql = "update populations as p
               set {set from n}, fit_settings = coalesce(n.fit_settings, p.fit_settings), changed_at = {clock},
                   refit_due_at = {s from now n.due_in}, unpublished = p.unpublished + n.new_unpublished,
                   unpublished_at = case when n.new_unpublished > 0 and p.unpublished_at is null then {now}
                                         else p.unpublished_at end,
                   published_fit_id = coalesce(n.published_fit_id, p.published_fit_id),
                   publish_cursor = case when n.begins_pass then '' else p.publish_cursor end,
                   pass_owner = case when n.begins_pass then null else p.pass_owner end,
                   pass_touched_at = case when n.begins_pass then null else p.pass_touched_at end
               from n where p.population_id = n.population_id";
    Columns(&[NOTED_KEY, GIVEN], &[NOTED]).execute(on, "refit: note", rows, sql, NONE).await.map(drop)
}

/// Writes the statistics of populations, each of which has to be fitted after that: counts, and cells of those that have some.
pub(super) async fn write_statistics(
    on: &mut Transaction,
    states: &BTreeMap<PopulationName, RefitState>,
) -> Result<(), StoreError> {
    let rows: Vec<Noted> =
        states.iter().map(|(name, state)| Noted { due_in: Some(0), ..Noted::new(name, state) }).collect();
    note(on, &rows).await?;
    let cells: Vec<CellRow> = states.iter().flat_map(|(name, state)| cells_to_write(name, state)).collect();
    cells::write(on, &cells).await.map(drop)
}

impl Refit {
    /// The populations as their latest refits have left them, without their sketches. What these hold may be unreadable: it is
    /// not read.
    pub async fn populations(&mut self) -> Result<BTreeMap<PopulationName, RefitState>, StoreError> {
        read_populations(&mut self.transaction, &self.populations, self.floor.get()).await
    }

    /// Reads the statistics of the populations that are to be refitted, to which all changes that [`Refit::take`] returns have to
    /// be applied.
    pub async fn read_statistics(
        &mut self,
        states: &mut BTreeMap<PopulationName, RefitState>,
    ) -> Result<(), StoreError> {
        read_cells(&mut self.transaction, states).await?;
        let (mut of_blocks, mut of_changes) = (Vec::new(), Vec::new());
        for (population, state) in states.iter_mut() {
            if state.is_for_several_refits() {
                self.to_take.push(Take::Part(population.clone()));
            } else if state.is_of_blocks() {
                state.forget_blocks();
                of_blocks.push(population.clone());
            } else {
                of_changes.push(population.clone());
            }
        }
        self.to_take.extend((!of_changes.is_empty()).then_some(Take::Changes(of_changes)));
        self.to_take.extend((!of_blocks.is_empty()).then_some(Take::ForBlocks(of_blocks)));
        // The log may have older changes of those that have waited than a look goes back to.
        self.from = if states.values().any(|state| state.has_waited) { 0 } else { self.floor.get() };
        Ok(())
    }

    /// Takes changes out of the log; `None` once all are taken that this refit takes.
    pub async fn take(&mut self) -> Result<Option<TakenChanges>, StoreError> {
        let (on, from) = (&mut self.transaction, self.from);
        let Some(next) = self.to_take.pop() else { return Ok(None) };
        let taken = match next {
            Take::ForBlocks(populations) => changes::take_for_blocks(on, &populations, &self.grouping).await?,
            Take::Changes(populations) => changes::take_all(on, &populations, from).await?,
            Take::Part(population) => changes::take_part(on, &population, from).await?,
        };
        Ok(Some(taken))
    }

    /// Writes the statistics of populations of which changes were left in the log, and no fits: the next refit is due at once.
    pub async fn write_statistics(&mut self, states: &BTreeMap<PopulationName, RefitState>) -> Result<(), StoreError> {
        write_statistics(&mut self.transaction, states).await
    }

    /// Writes the fits of populations, their statistics, and what follows for the published rows.
    pub async fn write(&mut self, refitted: Vec<Refitted>) -> Result<(), StoreError> {
        let on = &mut self.transaction;
        let ids = ingest::next_ids(on, "fit", refitted.len()).await?;
        let cells: Vec<CellRow> = refitted.iter().flat_map(|row| cells_to_write(&row.population, &row.state)).collect();
        let (mut fits, mut noted, mut due) = (Vec::new(), Vec::new(), Vec::new());
        for (Refitted { population, state, fits: own, fit_settings, publication }, fit_id) in
            refitted.into_iter().zip(ids)
        {
            noted.push(Noted {
                fit_settings: Some(fit_settings),
                due_in: due_in(&publication),
                published_fit_id: matches!(publication, Publication::Due(_)).then_some(fit_id),
                begins_pass: begins_pass(&publication, &state),
                ..Noted::new(&population, &state)
            });
            fits.extend(fits::rows(&population, fit_id, &state, own));
            if let Publication::Due(diagnostics) = publication {
                due.push((population, fit_id, diagnostics));
            }
        }
        fits::write(on, &fits).await?;
        cells::write(on, &cells).await?;
        note(on, &noted).await?;
        fits::publish(on, &due).await
    }

    /// Leaves the estimates of what is in the log of a population that cannot be refitted to a pass. Returns of how many changes.
    pub async fn leave_to_pass(&mut self, population: &PopulationName) -> Result<i64, StoreError> {
        changes::leave_to_pass(&mut self.transaction, population).await
    }

    /// Whether a change is in the log.
    pub(super) async fn is_logged(&mut self, (transaction_id, change_id): ChangeId) -> Result<bool, StoreError> {
        let sql = "select 1 as found from block_changes where transaction_id = $1 and change_id = $2";
        let found = self.transaction.query("refit: is it logged", sql, values![transaction_id, change_id]);
        Ok(found.optional(|row| row.get::<i32>("found")).await?.is_some())
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
fn cells_to_write(population: &PopulationName, state: &RefitState) -> Vec<CellRow> {
    if !state.has_cells {
        return Vec::new();
    }
    let changed = state.changed_cells.iter().map(|&(correlation, octave)| {
        let cell = state.statistics.sketches.of(correlation).cell(octave).copied().unwrap_or_default();
        CellRow { population: population.clone(), correlation, octave, cell }
    });
    changed.collect()
}
