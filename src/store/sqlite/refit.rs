//! The transaction of one refit.

use shrinkd_core::PopulationName;
use shrinkd_model::Sketches;
use sqlx::sqlite::SqlitePool;

use super::{Transaction, classify, fits, settings};
use crate::row::{Counters, FitRow};
use crate::store::{Publication, Refit, RefitState, StoreError, StoreSettings, decode};

/// A refit under way. It holds the write lock: nothing changes meanwhile.
pub struct SqliteRefit {
    transaction: Transaction,
    population: PopulationName,
}

pub(super) async fn populations_with_news(pool: &SqlitePool) -> Result<Vec<PopulationName>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "select p.population_id
         from populations as p
         join (select population_id, sum(changes) as changes from cell_counters group by population_id) as c
             using (population_id)
         where c.changes <> p.refitted_changes
         order by p.population_id",
    )
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot look for populations with news", error))?;
    names.iter().map(|name| decode::population(name)).collect()
}

pub(super) async fn ask_for(mut transaction: Transaction, populations: &[PopulationName]) -> Result<(), StoreError> {
    let failed = |error| classify("cannot ask for refits", error);
    for population in populations {
        sqlx::query("update populations set refitted_changes = -1 where population_id = $1")
            .bind(population.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// Everything of a population as of one moment.
pub(super) async fn read_state(
    transaction: &mut Transaction,
    population: &PopulationName,
) -> Result<RefitState, StoreError> {
    let failed = |error| classify("cannot read the cells of a population", error);
    let name = population.to_string();
    let (changes, experiments, effects): (i64, i64, i64) = sqlx::query_as(
        "select coalesce(sum(changes), 0), coalesce(sum(experiments), 0), coalesce(sum(effects), 0)
         from cell_counters where population_id = $1",
    )
    .bind(&name)
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed)?;
    let cells: Vec<(String, i16, Vec<u8>)> =
        sqlx::query_as("select correlation, octave, moments from sketch_cells where population_id = $1")
            .bind(&name)
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed)?;
    let mut sketches = Sketches::default();
    for (correlation, octave, moments) in &cells {
        sketches.add_cell(decode::correlation(correlation)?, *octave, &decode::cell(moments)?);
    }
    let input_offsets = sqlx::query_as(
        "select topic, partition_number, next_offset from partition_progress where next_offset is not null
         order by topic, partition_number",
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed)?;
    let is_publishing: Option<bool> =
        sqlx::query_scalar("select publish_cursor is not null from populations where population_id = $1")
            .bind(&name)
            .fetch_optional(&mut **transaction)
            .await
            .map_err(failed)?;
    let published = fits::published(transaction, &name).await?;
    Ok(RefitState {
        sketches,
        counters: Counters { changes, experiments, effects },
        published,
        is_publishing: is_publishing.unwrap_or(false),
        input_offsets,
    })
}

impl SqliteRefit {
    pub(super) async fn begin(
        mut transaction: Transaction,
        population: &PopulationName,
        settings: &StoreSettings,
    ) -> Result<Option<SqliteRefit>, StoreError> {
        settings::check(&mut transaction, settings).await?;
        let is_there: Option<i32> = sqlx::query_scalar("select 1 from populations where population_id = $1")
            .bind(population.to_string())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| classify("cannot find a population", error))?;
        Ok(is_there.map(|_| SqliteRefit { transaction, population: population.clone() }))
    }
}

impl Refit for SqliteRefit {
    async fn state(&mut self) -> Result<RefitState, StoreError> {
        read_state(&mut self.transaction, &self.population).await
    }

    async fn write(
        &mut self,
        state: &RefitState,
        rows: &[FitRow],
        fit_settings: &str,
        publication: &Publication,
    ) -> Result<(), StoreError> {
        let failed = |error| classify("cannot write a fit", error);
        let name = self.population.to_string();
        let fit_id: i64 = sqlx::query_scalar("update last_ids set fit_id = fit_id + 1 returning fit_id")
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(failed)?;
        fits::write(&mut self.transaction, &name, fit_id, state, rows).await?;
        sqlx::query(
            "update populations
             set fit_settings = $2, refitted_changes = case when $4 then refitted_changes else $3 end
             where population_id = $1",
        )
        .bind(&name)
        .bind(fit_settings)
        .bind(state.counters.changes)
        .bind(*publication == Publication::Postponed)
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        let Publication::Due(diagnostics) = publication else { return Ok(()) };
        fits::append(&mut self.transaction, &name).await?;
        sqlx::query(
            "update populations
             set published_fit_id = $2, publish_cursor = '', pass_owner = null, pass_touched_at = null
             where population_id = $1",
        )
        .bind(&name)
        .bind(fit_id)
        .execute(&mut *self.transaction)
        .await
        .map_err(failed)?;
        match diagnostics {
            Some(diagnostics) => fits::append_diagnostics(&mut self.transaction, &name, fit_id, diagnostics).await,
            None => Ok(()),
        }
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await.map_err(|error| classify("cannot commit a refit", error))
    }
}
