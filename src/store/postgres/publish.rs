//! Whole publishes: a pass through the blocks of a population, page by page.

use shrinkd_core::PopulationName;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;

use super::{INGEST_LOCK, PostgresStore, Transaction, classify, estimates, fits, settings};
use crate::row::{
    BlockToPublish, CellDiagnostics, CurrentFit, CurrentPopulation, EstimateRow, PassDiagnostics, PublishedEffect,
};
use crate::store::decode::{
    self, BlockToPublishColumns, CurrentFitColumns, CurrentPopulationColumns, PublishedEffectColumns,
};
use crate::store::{ABANDONED, DuePass, Pass, StoreError};

pub(super) async fn due_passes(
    pool: &PgPool,
    diagnosed_before: OffsetDateTime,
    owner: &str,
) -> Result<Vec<DuePass>, StoreError> {
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "select population_id, is_diagnosis_due
         from (select *, diagnosed_at is null or diagnosed_at < $1 and diagnosed_changes <> refitted_changes
                   as is_diagnosis_due
               from populations) as p
         where published_fit_id is not null and (publish_cursor is not null or is_diagnosis_due)
           and (pass_owner is null or pass_owner = $3 or pass_touched_at < now() - $2)
         order by population_id",
    )
    .bind(diagnosed_before)
    .bind(ABANDONED)
    .bind(owner)
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot look for due publishes", error))?;
    rows.into_iter().map(decode::due_pass).collect()
}

pub(super) async fn begin_pass(
    store: &PostgresStore,
    population: &PopulationName,
    owner: &str,
) -> Result<Option<Pass>, StoreError> {
    let failed = |error| classify("cannot begin a pass", error);
    let mut transaction = store.begin().await?;
    let cursor: Option<Option<String>> = sqlx::query_scalar(
        "update populations set pass_owner = $2, pass_touched_at = now()
         where population_id = $1 and published_fit_id is not null
           and (pass_owner is null or pass_owner = $2 or pass_touched_at < now() - $3)
         returning publish_cursor",
    )
    .bind(population.to_string())
    .bind(owner)
    .bind(ABANDONED)
    .fetch_optional(&mut *transaction)
    .await
    .map_err(failed)?;
    let Some(cursor) = cursor else { return Ok(None) };
    // After the row, for which a rebuild is waited for.
    settings::check(&mut transaction, &store.settings).await?;
    let rows = sqlx::query_as(
        "select f.population_id, f.fit_id, f.correlation, f.status, f.nodes
         from populations as p
         join population_fits as f on f.population_id = p.population_id and f.fit_id = p.published_fit_id
         where p.population_id = $1 and f.correlation in ('modelled', 'ignored')",
    )
    .bind(population.to_string())
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    let Some(fit) = decode::published_fits(rows)?.remove(population) else { return Ok(None) };
    wait_for_ingests(store).await?;
    Ok(Some(Pass {
        population: population.clone(),
        owner: owner.to_owned(),
        fit,
        is_publish: cursor.is_some(),
        cursor: cursor.unwrap_or_default(),
    }))
}

/// An ingest that began before the fit was published writes rows with the fit before it. Once all of those are through,
/// the pass finds their rows; those that come later have the new fit already.
async fn wait_for_ingests(store: &PostgresStore) -> Result<(), StoreError> {
    let failed = |error| classify("cannot wait for the ingests under way", error);
    let mut transaction = store.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(INGEST_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

pub(super) async fn blocks_after(
    pool: &PgPool,
    population: &PopulationName,
    after: &str,
    limit: usize,
) -> Result<Vec<BlockToPublish>, StoreError> {
    let rows: Vec<BlockToPublishColumns> = sqlx::query_as(
        // Looked up one by one: a join reads all experiments for every page, as the planner thinks that cheaper.
        "select b.experiment_id, b.revision, b.commit_id, b.block,
                (select e.decision from experiments as e where e.experiment_id = b.experiment_id)
         from blocks as b
         where b.population_id = $1 and b.experiment_id > $2 and b.block is not null
         order by b.experiment_id limit $3",
    )
    .bind(population.to_string())
    .bind(after)
    .bind(limit as i64)
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot read the blocks of a population", error))?;
    rows.into_iter().map(decode::block_to_publish).collect()
}

pub(super) async fn write_estimates(
    mut transaction: Transaction,
    pass: &Pass,
    rows: &[EstimateRow],
    commits: &[i64],
    cursor: &str,
) -> Result<Option<u64>, StoreError> {
    let failed = |error| classify("cannot publish estimates", error);
    let is_ours = sqlx::query(
        "update populations
         set publish_cursor = case when publish_cursor is null then null else $4 end, pass_touched_at = now()
         where population_id = $1 and pass_owner = $2 and published_fit_id = $3",
    )
    .bind(pass.population.to_string())
    .bind(&pass.owner)
    .bind(pass.fit.fit_id)
    .bind(cursor)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    if is_ours.rows_affected() == 0 {
        return Ok(None);
    }
    let written = estimates::rewrite(&mut transaction, pass, rows, commits).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(Some(written))
}

pub(super) async fn end_pass(
    mut transaction: Transaction,
    pass: &Pass,
    diagnostics: Option<&(CellDiagnostics, PassDiagnostics)>,
) -> Result<(), StoreError> {
    let failed = |error| classify("cannot end a pass", error);
    let name = pass.population.to_string();
    let ended = sqlx::query(
        "update populations
         set publish_cursor = null, pass_owner = null, pass_touched_at = null,
             diagnosed_at = case when $4 then now() else diagnosed_at end,
             diagnosed_changes = case when $4 then refitted_changes else diagnosed_changes end
         where population_id = $1 and pass_owner = $2 and published_fit_id = $3",
    )
    .bind(&name)
    .bind(&pass.owner)
    .bind(pass.fit.fit_id)
    .bind(diagnostics.is_some())
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    if let (Some((cells, found)), 1..) = (diagnostics, ended.rows_affected()) {
        fits::write_diagnostics(&mut transaction, &name, pass.fit.fit_id, cells, found).await?;
    }
    transaction.commit().await.map_err(failed)
}

pub(super) async fn current_populations(pool: &PgPool) -> Result<Vec<CurrentPopulation>, StoreError> {
    let rows: Vec<CurrentPopulationColumns> = sqlx::query_as(
        "select p.population_id, f.status, coalesce(c.experiments, 0)::bigint, coalesce(c.effects, 0)::bigint,
                coalesce(f.mu_mean, f.mu_median), f.tau_median, d.design_effect, d.verdict, d.verdict_rests_on,
                d.verdict_value, f.computed_at, d.diagnosed_at, p.fit_settings
         from populations as p
         left join (select population_id, sum(experiments) as experiments, sum(effects) as effects
                    from cell_counters group by population_id) as c using (population_id)
         left join current_population_fits as f on f.population_id = p.population_id and f.correlation = 'modelled'
         left join lateral (select * from population_diagnostics as d where d.population_id = p.population_id
                            order by fit_id desc limit 1) as d on true
         order by p.population_id",
    )
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot read the populations", error))?;
    rows.into_iter().map(decode::current_population).collect()
}

pub(super) async fn current_fits(pool: &PgPool, population: &PopulationName) -> Result<Vec<CurrentFit>, StoreError> {
    let rows: Vec<CurrentFitColumns> = sqlx::query_as(
        "select correlation, effects, mu_mean, mu_median, mu_sd, mu_q025, mu_q25, mu_q75, mu_q975,
                tau_mean, tau_median, tau_sd, tau_q025, tau_q25, tau_q75, tau_q975
         from current_population_fits where population_id = $1 order by correlation",
    )
    .bind(population.to_string())
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot read the fits of a population", error))?;
    rows.into_iter().map(decode::current_fit).collect()
}

pub(super) async fn published_effects(
    pool: &PgPool,
    population: &PopulationName,
) -> Result<Vec<PublishedEffect>, StoreError> {
    let rows: Vec<PublishedEffectColumns> = sqlx::query_as(
        "select experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, ci95_low, ci95_high
         from effect_estimates where population_id = $1 and status = 'fitted'
         order by experiment_id, variant",
    )
    .bind(population.to_string())
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot read the estimates of a population", error))?;
    Ok(rows.into_iter().map(decode::published_effect).collect())
}
