//! Statements on `effect_estimates`. Its columns are listed once, in [`bind`] and the two statements beside it.

use shrinkd_core::PopulationName;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};

use super::{classify, column};
use crate::row::{EstimateRow, RetiredEstimate, ShrunkEstimate};
use crate::store::{Pass, StoreError};

/// Puts in or replaces rows of blocks that one commit changed.
pub(super) async fn upsert(
    connection: &mut PgConnection,
    rows: &[EstimateRow],
    commit_id: i64,
) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(
        "insert into effect_estimates
             (population_id, experiment_id, variant, block_revision, fit_id, status, raw_estimate, raw_se,
              treatment_variance, control_variance, control_loading, posterior_mean, posterior_sd, ci80_low, ci80_high,
              ci95_low, ci95_high, prob_positive, lfsr, shrinkage_factor, naive_posterior_mean, prob_best, control_shift,
              control_shift_sd, commit_id)
         select n.*
         from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::float8[],
                     $8::float8[], $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::float8[],
                     $14::float8[], $15::float8[], $16::float8[], $17::float8[], $18::float8[], $19::float8[],
                     $20::float8[], $21::float8[], $22::float8[], $23::float8[], $24::float8[], $25::bigint[]) as n
         on conflict (population_id, experiment_id, variant) do update
         set block_revision = excluded.block_revision, fit_id = excluded.fit_id, status = excluded.status,
             raw_estimate = excluded.raw_estimate, raw_se = excluded.raw_se,
             treatment_variance = excluded.treatment_variance, control_variance = excluded.control_variance,
             control_loading = excluded.control_loading, posterior_mean = excluded.posterior_mean,
             posterior_sd = excluded.posterior_sd, ci80_low = excluded.ci80_low, ci80_high = excluded.ci80_high,
             ci95_low = excluded.ci95_low, ci95_high = excluded.ci95_high, prob_positive = excluded.prob_positive,
             lfsr = excluded.lfsr, shrinkage_factor = excluded.shrinkage_factor,
             naive_posterior_mean = excluded.naive_posterior_mean, prob_best = excluded.prob_best,
             control_shift = excluded.control_shift, control_shift_sd = excluded.control_shift_sd,
             commit_id = excluded.commit_id, computed_at = now()",
    );
    let commits = vec![commit_id; rows.len()];
    let written = bind(query, rows, &commits).execute(connection).await;
    Ok(written.map_err(|error| classify("cannot write estimates", error))?.rows_affected())
}

/// Rewrites the figures of rows whose block is still the one that they were computed from and whose fit is older. A row
/// that a retraction has removed stays away.
pub(super) async fn rewrite(
    connection: &mut PgConnection,
    pass: &Pass,
    rows: &[EstimateRow],
    commits: &[i64],
) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(
        "update effect_estimates as e
         set fit_id = n.fit_id, status = n.status, posterior_mean = n.posterior_mean, posterior_sd = n.posterior_sd,
             ci80_low = n.ci80_low, ci80_high = n.ci80_high, ci95_low = n.ci95_low, ci95_high = n.ci95_high,
             prob_positive = n.prob_positive, lfsr = n.lfsr, shrinkage_factor = n.shrinkage_factor,
             naive_posterior_mean = n.naive_posterior_mean, prob_best = n.prob_best, control_shift = n.control_shift,
             control_shift_sd = n.control_shift_sd, computed_at = now()
         from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::float8[],
                     $8::float8[], $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::float8[],
                     $14::float8[], $15::float8[], $16::float8[], $17::float8[], $18::float8[], $19::float8[],
                     $20::float8[], $21::float8[], $22::float8[], $23::float8[], $24::float8[], $25::bigint[])
             as n (population_id, experiment_id, variant, block_revision, fit_id, status, raw_estimate, raw_se,
                   treatment_variance, control_variance, control_loading, posterior_mean, posterior_sd, ci80_low, ci80_high,
                   ci95_low, ci95_high, prob_positive, lfsr, shrinkage_factor, naive_posterior_mean, prob_best,
                   control_shift, control_shift_sd, commit_id)
         where e.population_id = $26 and e.experiment_id = n.experiment_id and e.variant = n.variant
           and e.commit_id = n.commit_id and e.fit_id < n.fit_id",
    );
    let written = bind(query, rows, commits).bind(pass.population.to_string()).execute(connection).await;
    Ok(written.map_err(|error| classify("cannot publish estimates", error))?.rows_affected())
}

/// Removes rows that no longer stand for anything.
pub(super) async fn retire(connection: &mut PgConnection, rows: &[RetiredEstimate]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "delete from effect_estimates as e using unnest($1::text[], $2::text[], $3::text[])
             as n (population_id, experiment_id, variant)
         where (e.population_id, e.experiment_id, e.variant) = (n.population_id, n.experiment_id, n.variant)",
    )
    .bind(column(rows, |row| row.population.to_string()))
    .bind(column(rows, |row| row.experiment_id.as_str()))
    .bind(column(rows, |row| row.variant.as_str()))
    .execute(connection)
    .await
    .map_err(|error| classify("cannot remove estimates", error))?;
    Ok(())
}

/// The columns $1 to $25, in the order of both statements.
fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    rows: &'q [EstimateRow],
    commits: &'q [i64],
) -> Query<'q, Postgres, PgArguments> {
    let figure = |value: fn(&ShrunkEstimate) -> Option<f64>| column(rows, |row| row.shrunk.as_ref().and_then(value));
    query
        .bind(names(rows.iter().map(|row| &row.population)))
        .bind(column(rows, |row| row.experiment_id.as_str()))
        .bind(column(rows, |row| row.variant.as_str()))
        .bind(column(rows, |row| row.block_revision as i64))
        .bind(column(rows, |row| row.fit_id))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.raw_estimate))
        .bind(column(rows, |row| row.raw_se))
        .bind(column(rows, |row| row.treatment_variance))
        .bind(column(rows, |row| row.control_variance))
        .bind(column(rows, |row| row.control_loading))
        .bind(figure(|shrunk| Some(shrunk.posterior_mean)))
        .bind(figure(|shrunk| Some(shrunk.posterior_sd)))
        .bind(figure(|shrunk| Some(shrunk.ci80.0)))
        .bind(figure(|shrunk| Some(shrunk.ci80.1)))
        .bind(figure(|shrunk| Some(shrunk.ci95.0)))
        .bind(figure(|shrunk| Some(shrunk.ci95.1)))
        .bind(figure(|shrunk| Some(shrunk.prob_positive)))
        .bind(figure(|shrunk| Some(shrunk.lfsr)))
        .bind(figure(|shrunk| Some(shrunk.shrinkage_factor)))
        .bind(figure(|shrunk| shrunk.naive_posterior_mean))
        .bind(figure(|shrunk| shrunk.prob_best))
        .bind(figure(|shrunk| shrunk.control_shift))
        .bind(figure(|shrunk| shrunk.control_shift_sd))
        .bind(commits)
}

/// The names of populations, formatted once where one follows itself.
fn names<'a>(populations: impl Iterator<Item = &'a PopulationName>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut last = None;
    for population in populations {
        let name = match names.last() {
            Some(name) if last == Some(population) => name.clone(),
            _ => population.to_string(),
        };
        names.push(name);
        last = Some(population);
    }
    names
}
