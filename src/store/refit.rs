//! The transaction of one refit.

use shrinkd_core::PopulationName;
use shrinkd_model::Sketches;

use super::database::Transaction;
use super::query::{Row, values};
use super::{Store, StoreError, cells, fits, ingest, settings};
use crate::refit::{Publication, RefitState};
use crate::row::FitRow;

/// A refit under way: the population's row is locked, and everything is read as of one moment.
pub struct Refit {
    transaction: Transaction,
    population: PopulationName,
}

impl Store {
    /// Populations whose counters moved since their last refit, or for which one was requested.
    pub async fn populations_with_news(&self) -> Result<Vec<PopulationName>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select p.population_id
                   from populations as p
                   join (select population_id, sum(changes) as changes from cell_counters group by population_id) as c
                       on c.population_id = p.population_id
                   where c.changes <> p.refitted_changes
                   order by p.population_id";
        reader.query("refit: populations with news", sql, []).all(|row| row.get("population_id")).await
    }

    /// Requests refits of these populations, each in a transaction of its own: no more than one is locked at a time.
    pub async fn request_refits(&self, populations: &[PopulationName]) -> Result<(), StoreError> {
        for population in populations {
            let mut transaction = self.pools.begin().await?;
            let sql = "update populations set refitted_changes = -1 where population_id = $1";
            transaction.query("refit: request", sql, values![population.to_string()]).await?;
            transaction.commit("refit: commit").await?;
        }
        Ok(())
    }

    /// Begins a refit; `None` where another worker has the population.
    ///
    /// # Errors
    /// [`StoreError::Settings`] where the store was rebuilt with other settings.
    pub async fn begin_refit(&self, population: &PopulationName) -> Result<Option<Refit>, StoreError> {
        let mut transaction = self.pools.begin_snapshot().await?;
        settings::check(&mut transaction, &self.settings).await?;
        let sql = "select population_id from populations where population_id = $1 {for update skip locked}";
        let locked = transaction.query("refit: lock the population", sql, values![population.to_string()]);
        let locked = locked.optional(|row| row.get("population_id")).await?;
        Ok(locked.map(|population| Refit { transaction, population }))
    }

    /// A population's cells, outside of any refit.
    pub async fn population_state(&self, population: &PopulationName) -> Result<RefitState, StoreError> {
        read_state(&mut self.pools.read().await?, population).await
    }
}

/// Everything that a fit of a population follows from.
async fn read_state(on: &mut Transaction, population: &PopulationName) -> Result<RefitState, StoreError> {
    let name = population.to_string();
    let sql = "select correlation, octave, moments from sketch_cells where population_id = $1";
    let read = |row: &Row| Ok((row.get("correlation")?, row.get("octave")?, row.get("moments")?));
    let mut sketches = Sketches::default();
    for (correlation, octave, cell) in on.query("refit: read cells", sql, values![&name]).all(read).await? {
        sketches.add_cell(correlation, octave, &cell);
    }
    Ok(RefitState { sketches, ..read_state_without_cells(on, &name).await? })
}

async fn read_state_without_cells(on: &mut Transaction, name: &str) -> Result<RefitState, StoreError> {
    let counters = cells::read_counters(on, name).await?;
    let sql = "select topic, partition_number, next_offset from partition_progress where next_offset is not null
               order by topic, partition_number";
    let read = |row: &Row| Ok((row.get("topic")?, row.get("partition_number")?, row.get("next_offset")?));
    let input_offsets = on.query("refit: read offsets", sql, []).all(read).await?;
    let sql = "select publish_cursor is not null as is_publishing from populations where population_id = $1";
    let is_publishing =
        on.query("refit: is a publish under way", sql, values![name]).optional(|row| row.get("is_publishing")).await?;
    let published = fits::judged(on, name).await?;
    let (sketches, is_publishing) = (Sketches::default(), is_publishing.unwrap_or(false));
    Ok(RefitState { sketches, counters, published, is_publishing, input_offsets })
}

impl Refit {
    pub async fn state(&mut self) -> Result<RefitState, StoreError> {
        read_state(&mut self.transaction, &self.population).await
    }

    /// The same without the cells, which may be what cannot be read.
    pub async fn state_without_cells(&mut self) -> Result<RefitState, StoreError> {
        read_state_without_cells(&mut self.transaction, &self.population.to_string()).await
    }

    /// What the latest fit says of itself.
    pub async fn latest_message(&mut self) -> Result<Option<String>, StoreError> {
        fits::latest_message(&mut self.transaction, &self.population.to_string()).await
    }

    /// Writes the fits under all models of correlation, the settings that they were made with, and what follows for the
    /// published rows.
    pub async fn write(
        &mut self,
        state: &RefitState,
        rows: &[FitRow],
        fit_settings: &str,
        publication: &Publication,
    ) -> Result<(), StoreError> {
        let (on, name) = (&mut self.transaction, self.population.to_string());
        let fit_id = ingest::next_id(on, "fit").await?;
        fits::write(on, &name, fit_id, state, rows).await?;
        let sql = "update populations
                   set fit_settings = $2, refitted_changes = case when $4 then refitted_changes else $3 end
                   where population_id = $1";
        let is_postponed = *publication == Publication::Postponed;
        on.query("refit: note", sql, values![&name, fit_settings, state.counters.changes, is_postponed]).await?;
        let Publication::Due(diagnostics) = publication else { return Ok(()) };
        fits::append(on, &name).await?;
        let sql = "update populations
                   set published_fit_id = $2, publish_cursor = '', pass_owner = null, pass_touched_at = null
                   where population_id = $1";
        on.query("refit: begin a publish", sql, values![&name, fit_id]).await?;
        let Some(diagnostics) = diagnostics else { return Ok(()) };
        fits::append_diagnostics(on, &name, fit_id, diagnostics).await
    }

    /// # Errors
    /// Where the store fails. [`StoreError::Conflict`] where another worker has refitted the population meanwhile.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit("refit: commit").await
    }

    /// Gives the population free, as it was.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.transaction.rollback("refit: roll back").await
    }
}
