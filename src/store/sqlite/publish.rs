//! Whole publishes: a pass through the blocks of a population, page by page.

use std::collections::BTreeSet;

use shrinkd_core::PopulationName;
use sqlx::sqlite::SqlitePool;
use time::OffsetDateTime;

use super::{Transaction, classify, estimates, fits, now, settings, timestamp};
use crate::row::{
    BlockToPublish, CellDiagnostics, CurrentFit, CurrentPopulation, EstimateRow, PassDiagnostics, PublishedEffect,
};
use crate::store::decode::{
    self, BlockToPublishColumns, CurrentFitColumns, CurrentPopulationColumns, PublishedEffectColumns,
};
use crate::store::{ABANDONED, DuePass, Pass, StoreError, StoreSettings};

/// Passes that were last touched before this are abandoned.
fn abandoned() -> String {
    timestamp(OffsetDateTime::now_utc() - ABANDONED)
}

pub(super) async fn due_passes(
    pool: &SqlitePool,
    diagnosed_before: OffsetDateTime,
    owner: &str,
) -> Result<Vec<DuePass>, StoreError> {
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "select population_id, is_diagnosis_due
         from (select *, diagnosed_at is null or diagnosed_at < $1 and diagnosed_changes <> refitted_changes
                   as is_diagnosis_due
               from populations) as p
         where published_fit_id is not null and (publish_cursor is not null or is_diagnosis_due)
           and (pass_owner is null or pass_owner = $3 or pass_touched_at < $2)
         order by population_id",
    )
    .bind(timestamp(diagnosed_before))
    .bind(abandoned())
    .bind(owner)
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot look for due publishes", error))?;
    rows.into_iter().map(decode::due_pass).collect()
}

/// The transaction has waited for every ingest that had read an earlier fit: the pass finds their rows, and those that come
/// later have the new fit already.
pub(super) async fn begin_pass(
    mut transaction: Transaction,
    population: &PopulationName,
    owner: &str,
    settings: &StoreSettings,
) -> Result<Option<Pass>, StoreError> {
    let failed = |error| classify("cannot begin a pass", error);
    settings::check(&mut transaction, settings).await?;
    let cursor: Option<Option<String>> = sqlx::query_scalar(
        "update populations set pass_owner = $2, pass_touched_at = $3
         where population_id = $1 and published_fit_id is not null
           and (pass_owner is null or pass_owner = $2 or pass_touched_at < $4)
         returning publish_cursor",
    )
    .bind(population.to_string())
    .bind(owner)
    .bind(now())
    .bind(abandoned())
    .fetch_optional(&mut *transaction)
    .await
    .map_err(failed)?;
    let Some(cursor) = cursor else { return Ok(None) };
    let mut published = fits::published_of(&mut transaction, &BTreeSet::from([population.clone()])).await?;
    transaction.commit().await.map_err(failed)?;
    let Some(fit) = published.remove(population) else { return Ok(None) };
    Ok(Some(Pass {
        population: population.clone(),
        owner: owner.to_owned(),
        fit,
        is_publish: cursor.is_some(),
        cursor: cursor.unwrap_or_default(),
    }))
}

pub(super) async fn blocks_after(
    pool: &SqlitePool,
    population: &PopulationName,
    after: &str,
    limit: usize,
) -> Result<Vec<BlockToPublish>, StoreError> {
    let rows: Vec<BlockToPublishColumns> = sqlx::query_as(
        "select b.experiment_id, b.revision, b.commit_id, b.block, e.decision
         from blocks as b join experiments as e using (experiment_id)
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
         set publish_cursor = case when publish_cursor is null then null else $4 end, pass_touched_at = $5
         where population_id = $1 and pass_owner = $2 and published_fit_id = $3",
    )
    .bind(pass.population.to_string())
    .bind(&pass.owner)
    .bind(pass.fit.fit_id)
    .bind(cursor)
    .bind(now())
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    if is_ours.rows_affected() == 0 {
        return Ok(None);
    }
    let written = estimates::rewrite(&mut transaction, rows, commits).await?;
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
             diagnosed_at = case when $4 then $5 else diagnosed_at end,
             diagnosed_changes = case when $4 then refitted_changes else diagnosed_changes end
         where population_id = $1 and pass_owner = $2 and published_fit_id = $3",
    )
    .bind(&name)
    .bind(&pass.owner)
    .bind(pass.fit.fit_id)
    .bind(diagnostics.is_some())
    .bind(now())
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    if let (Some((cells, found)), 1..) = (diagnostics, ended.rows_affected()) {
        fits::write_diagnostics(&mut transaction, &name, pass.fit.fit_id, cells, found).await?;
    }
    transaction.commit().await.map_err(failed)
}

pub(super) async fn current_populations(pool: &SqlitePool) -> Result<Vec<CurrentPopulation>, StoreError> {
    let rows: Vec<CurrentPopulationColumns> = sqlx::query_as(
        "select p.population_id, f.status, coalesce(c.experiments, 0), coalesce(c.effects, 0),
                coalesce(f.mu_mean, f.mu_median), f.tau_median, d.design_effect, d.verdict, d.verdict_rests_on,
                d.verdict_value, f.computed_at, d.diagnosed_at, p.fit_settings
         from populations as p
         left join (select population_id, sum(experiments) as experiments, sum(effects) as effects
                    from cell_counters group by population_id) as c using (population_id)
         left join current_population_fits as f on f.population_id = p.population_id and f.correlation = 'modelled'
         left join population_diagnostics as d on d.population_id = p.population_id
             and d.fit_id = (select max(fit_id) from population_diagnostics as l where l.population_id = p.population_id)
         order by p.population_id",
    )
    .fetch_all(pool)
    .await
    .map_err(|error| classify("cannot read the populations", error))?;
    rows.into_iter().map(decode::current_population).collect()
}

pub(super) async fn current_fits(
    pool: &SqlitePool,
    population: &PopulationName,
) -> Result<Vec<CurrentFit>, StoreError> {
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
    pool: &SqlitePool,
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
