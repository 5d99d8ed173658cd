//! Statements on `effect_estimates`. Its columns are listed once, in `columns!` and [`bind`] beside it.

use sqlx::SqliteConnection;

use super::rows::{self, Columns};
use super::{classify, now};
use crate::row::{EstimateRow, RetiredEstimate};
use crate::store::StoreError;

/// The columns, in the order in which [`bind`] binds them.
macro_rules! columns {
    () => {
        "(population_id, experiment_id, variant, commit_id, fit_id, status, posterior_mean, posterior_sd, ci80_low,
          ci80_high, ci95_low, ci95_high, prob_positive, lfsr, shrinkage_factor, naive_posterior_mean, prob_best,
          control_shift, control_shift_sd, computed_at, block_revision, raw_estimate, raw_se, treatment_variance,
          control_variance, control_loading)"
    };
}

fn bind(columns: &mut Columns<'_>, row: &EstimateRow, commit_id: i64, computed_at: &str) {
    let shrunk = row.shrunk.as_ref();
    columns
        .push_bind(row.population.to_string())
        .push_bind(&row.experiment_id)
        .push_bind(&row.variant)
        .push_bind(commit_id)
        .push_bind(row.fit_id)
        .push_bind(row.status.as_str())
        .push_bind(shrunk.map(|shrunk| shrunk.posterior_mean))
        .push_bind(shrunk.map(|shrunk| shrunk.posterior_sd))
        .push_bind(shrunk.map(|shrunk| shrunk.ci80.0))
        .push_bind(shrunk.map(|shrunk| shrunk.ci80.1))
        .push_bind(shrunk.map(|shrunk| shrunk.ci95.0))
        .push_bind(shrunk.map(|shrunk| shrunk.ci95.1))
        .push_bind(shrunk.map(|shrunk| shrunk.prob_positive))
        .push_bind(shrunk.map(|shrunk| shrunk.lfsr))
        .push_bind(shrunk.map(|shrunk| shrunk.shrinkage_factor))
        .push_bind(shrunk.and_then(|shrunk| shrunk.naive_posterior_mean))
        .push_bind(shrunk.and_then(|shrunk| shrunk.prob_best))
        .push_bind(shrunk.and_then(|shrunk| shrunk.control_shift))
        .push_bind(shrunk.and_then(|shrunk| shrunk.control_shift_sd))
        .push_bind(computed_at)
        .push_bind(row.block_revision as i64)
        .push_bind(row.raw_estimate)
        .push_bind(row.raw_se)
        .push_bind(row.treatment_variance)
        .push_bind(row.control_variance)
        .push_bind(row.control_loading);
}

/// Puts in or replaces rows of blocks that one commit changed.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    rows: &[EstimateRow],
    commit_id: i64,
) -> Result<u64, StoreError> {
    let computed_at = now();
    let head = concat!("insert or replace into effect_estimates ", columns!(), " ");
    rows::write(connection, head, rows, |columns, row| bind(columns, row, commit_id, &computed_at), "")
        .await
        .map_err(|error| classify("cannot write estimates", error))
}

/// Rewrites the figures of rows whose block is still the one that they were computed from and whose fit is older. A row
/// that a retraction has removed stays away.
pub(super) async fn rewrite(
    connection: &mut SqliteConnection,
    rows: &[EstimateRow],
    commits: &[i64],
) -> Result<u64, StoreError> {
    let computed_at = now();
    let rows: Vec<(&EstimateRow, i64)> = rows.iter().zip(commits.iter().copied()).collect();
    let head = concat!("with n ", columns!(), " as (");
    let tail = ")
        update effect_estimates as e
        set fit_id = n.fit_id, status = n.status, posterior_mean = n.posterior_mean, posterior_sd = n.posterior_sd,
            ci80_low = n.ci80_low, ci80_high = n.ci80_high, ci95_low = n.ci95_low, ci95_high = n.ci95_high,
            prob_positive = n.prob_positive, lfsr = n.lfsr, shrinkage_factor = n.shrinkage_factor,
            naive_posterior_mean = n.naive_posterior_mean, prob_best = n.prob_best, control_shift = n.control_shift,
            control_shift_sd = n.control_shift_sd, computed_at = n.computed_at
        from n
        where e.population_id = n.population_id and e.experiment_id = n.experiment_id and e.variant = n.variant
          and e.commit_id = n.commit_id and e.fit_id < n.fit_id";
    rows::write(connection, head, &rows, |columns, (row, commit)| bind(columns, row, *commit, &computed_at), tail)
        .await
        .map_err(|error| classify("cannot publish estimates", error))
}

/// Removes rows that no longer stand for anything.
pub(super) async fn retire(connection: &mut SqliteConnection, rows: &[RetiredEstimate]) -> Result<(), StoreError> {
    for row in rows {
        sqlx::query("delete from effect_estimates where (population_id, experiment_id, variant) = ($1, $2, $3)")
            .bind(row.population.to_string())
            .bind(&row.experiment_id)
            .bind(&row.variant)
            .execute(&mut *connection)
            .await
            .map_err(|error| classify("cannot remove estimates", error))?;
    }
    Ok(())
}
