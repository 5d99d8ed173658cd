//! The transaction of a refit, of many populations at once.
//!
//! It sees what is committed while it lasts (read committed): a snapshot that is older than the lock of a population would not see
//! what the worker that had it locked has written. What belongs together is read by one statement.

use std::collections::BTreeMap;
use std::time::Duration;

use shrinkd_core::{Grouping, PopulationName};

use super::cells::CellRow;
use super::changes::{ChangeId, Floor};
use super::database::{Pools, Transaction};
use super::query::values;
use super::statistics::{self, Noted, begins_pass, cells_to_write, due_in, note, read_cells, read_populations};
use super::{Store, StoreError, cells, changes, fits, ingest, settings};
use crate::refit::{Publication, RefitState};
use crate::row::{BlockChange, FitRow, TakenChanges};

/// Most populations that are looked for at a time.
const MOST_DUE: i64 = 10_000;

/// Populations whose refits one transaction requests.
const REQUESTED: usize = 1_000;

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

    /// Writes the statistics of populations of which changes were left in the log, and no fits: the next refit is due at once, and
    /// until the log is empty there is neither a new fit nor a pass.
    pub async fn write_statistics(&mut self, states: &BTreeMap<PopulationName, RefitState>) -> Result<(), StoreError> {
        statistics::write_statistics(&mut self.transaction, states).await
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
                due_in: due_in(&publication, &state),
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

    /// Notes in the populations whether batches go on leaving estimates to passes, of whichever population: whether the log has such
    /// changes, or this refit has just taken some out.
    pub async fn look_for_unpublished(
        &mut self,
        states: &mut BTreeMap<PopulationName, RefitState>,
    ) -> Result<(), StoreError> {
        if states.values().all(|state| state.unpublished.count() == 0) {
            return Ok(());
        }
        let sql =
            "select exists (select 1 from block_changes where not is_published and transaction_id >= $1) as is_in_log";
        let query = self.transaction.query("refit: look for unpublished changes", sql, values![self.floor.get()]);
        let is_behind =
            query.one(|row| row.get("is_in_log")).await? || states.values().any(|it| it.unpublished.new > 0);
        states.values_mut().for_each(|state| state.unpublished.is_behind = is_behind);
        Ok(())
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
