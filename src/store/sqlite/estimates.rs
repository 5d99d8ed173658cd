//! Statements on `effect_estimates`. The figures of a fit are $1 to $16 in both, bound by [`bind_figures`].

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};

use super::{classify, now};
use crate::row::{EstimateRow, RetiredEstimate};
use crate::store::{Pass, StoreError};

/// Puts in or replaces rows of blocks that one commit changed.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    rows: &[EstimateRow],
    commit_id: i64,
) -> Result<u64, StoreError> {
    let computed_at = now();
    for row in rows {
        let query = sqlx::query(
            "insert or replace into effect_estimates
                 (fit_id, status, posterior_mean, posterior_sd, ci80_low, ci80_high, ci95_low, ci95_high, prob_positive,
                  lfsr, shrinkage_factor, naive_posterior_mean, prob_best, control_shift, control_shift_sd, computed_at,
                  population_id, experiment_id, variant, commit_id, block_revision, raw_estimate, raw_se,
                  treatment_variance, control_variance, control_loading)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                     $23, $24, $25, $26)",
        );
        bind_figures(query, row, &computed_at)
            .bind(row.population.to_string())
            .bind(&row.experiment_id)
            .bind(&row.variant)
            .bind(commit_id)
            .bind(row.block_revision as i64)
            .bind(row.raw_estimate)
            .bind(row.raw_se)
            .bind(row.treatment_variance)
            .bind(row.control_variance)
            .bind(row.control_loading)
            .execute(&mut *connection)
            .await
            .map_err(|error| classify("cannot write estimates", error))?;
    }
    Ok(rows.len() as u64)
}

/// Rewrites the figures of rows whose block is still the one that they were computed from and whose fit is older. A row
/// that a retraction has removed stays away.
pub(super) async fn rewrite(
    connection: &mut SqliteConnection,
    pass: &Pass,
    rows: &[EstimateRow],
    commits: &[i64],
) -> Result<u64, StoreError> {
    let computed_at = now();
    let population_id = pass.population.to_string();
    let mut written = 0;
    for (row, commit_id) in rows.iter().zip(commits) {
        let query = sqlx::query(
            "update effect_estimates
             set fit_id = $1, status = $2, posterior_mean = $3, posterior_sd = $4, ci80_low = $5, ci80_high = $6,
                 ci95_low = $7, ci95_high = $8, prob_positive = $9, lfsr = $10, shrinkage_factor = $11,
                 naive_posterior_mean = $12, prob_best = $13, control_shift = $14, control_shift_sd = $15,
                 computed_at = $16
             where population_id = $17 and experiment_id = $18 and variant = $19 and commit_id = $20 and fit_id < $1",
        );
        let rewritten = bind_figures(query, row, &computed_at)
            .bind(&population_id)
            .bind(&row.experiment_id)
            .bind(&row.variant)
            .bind(commit_id)
            .execute(&mut *connection)
            .await
            .map_err(|error| classify("cannot publish estimates", error))?;
        written += rewritten.rows_affected();
    }
    Ok(written)
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

fn bind_figures<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    row: &'q EstimateRow,
    computed_at: &'q str,
) -> Query<'q, Sqlite, SqliteArguments> {
    let shrunk = row.shrunk.as_ref();
    query
        .bind(row.fit_id)
        .bind(row.status.as_str())
        .bind(shrunk.map(|shrunk| shrunk.posterior_mean))
        .bind(shrunk.map(|shrunk| shrunk.posterior_sd))
        .bind(shrunk.map(|shrunk| shrunk.ci80.0))
        .bind(shrunk.map(|shrunk| shrunk.ci80.1))
        .bind(shrunk.map(|shrunk| shrunk.ci95.0))
        .bind(shrunk.map(|shrunk| shrunk.ci95.1))
        .bind(shrunk.map(|shrunk| shrunk.prob_positive))
        .bind(shrunk.map(|shrunk| shrunk.lfsr))
        .bind(shrunk.map(|shrunk| shrunk.shrinkage_factor))
        .bind(shrunk.and_then(|shrunk| shrunk.naive_posterior_mean))
        .bind(shrunk.and_then(|shrunk| shrunk.prob_best))
        .bind(shrunk.and_then(|shrunk| shrunk.control_shift))
        .bind(shrunk.and_then(|shrunk| shrunk.control_shift_sd))
        .bind(computed_at)
}
