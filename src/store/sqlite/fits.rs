//! Statements on fits and on what is diagnosed of them.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{PopulationName, pack};
use sqlx::SqliteConnection;

use super::{classify, json_array, now};
use crate::row::{CellDiagnostics, FitRow, Judged, PassDiagnostics, PublishedFit};
use crate::store::decode::{self, JudgedColumns};
use crate::store::{RefitState, StoreError};

/// Replaces the current fits of a population.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    population_id: &str,
    fit_id: i64,
    state: &RefitState,
    rows: &[FitRow],
) -> Result<(), StoreError> {
    let failed = |error| classify("cannot write a fit", error);
    sqlx::query("delete from current_population_fits where population_id = $1")
        .bind(population_id)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    for row in rows {
        sqlx::query(
            "insert into current_population_fits
                 (population_id, fit_id, experiments, input_offsets, correlation, status, message, effects,
                  mu_mean, mu_median, mu_sd, mu_q025, mu_q25, mu_q75, mu_q975,
                  tau_mean, tau_median, tau_sd, tau_q025, tau_q25, tau_q75, tau_q975, log_tau_sd, mu_tau_correlation,
                  log_evidence, predictive_mean, predictive_sd, predictive_median, predictive_q025, predictive_q975,
                  laplace_mu_distance, laplace_tau_distance, variational_mu_distance, variational_tau_distance, nodes,
                  computed_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                     $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)",
        )
        .bind(population_id)
        .bind(fit_id)
        .bind(state.counters.experiments)
        .bind(decode::input_offsets_to_json(&state.input_offsets))
        .bind(row.correlation.as_str())
        .bind(row.status.as_str())
        .bind(&row.message)
        .bind(row.effects as i64)
        .bind(row.mu.mean)
        .bind(row.mu.median)
        .bind(row.mu.sd)
        .bind(row.mu.q025)
        .bind(row.mu.q25)
        .bind(row.mu.q75)
        .bind(row.mu.q975)
        .bind(row.tau.mean)
        .bind(row.tau.median)
        .bind(row.tau.sd)
        .bind(row.tau.q025)
        .bind(row.tau.q25)
        .bind(row.tau.q75)
        .bind(row.tau.q975)
        .bind(row.log_tau_sd)
        .bind(row.mu_tau_correlation)
        .bind(row.log_evidence)
        .bind(row.predictive.mean)
        .bind(row.predictive.sd)
        .bind(row.predictive.median)
        .bind(row.predictive.q025)
        .bind(row.predictive.q975)
        .bind(row.laplace.and_then(|distance| distance.mu_mean))
        .bind(row.laplace.and_then(|distance| distance.tau_median))
        .bind(row.variational.and_then(|distance| distance.mu_mean))
        .bind(row.variational.and_then(|distance| distance.tau_median))
        .bind(pack(&row.nodes))
        .bind(now())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    }
    Ok(())
}

/// Appends the current fits of a population to the history. Both tables have the same columns.
pub(super) async fn append(connection: &mut SqliteConnection, population_id: &str) -> Result<(), StoreError> {
    sqlx::query("insert into population_fits select * from current_population_fits where population_id = $1")
        .bind(population_id)
        .execute(connection)
        .await
        .map_err(|error| classify("cannot append a fit to the history", error))?;
    Ok(())
}

/// What the published fit of a population is judged by.
pub(super) async fn published(
    connection: &mut SqliteConnection,
    population_id: &str,
) -> Result<Option<Judged>, StoreError> {
    let row: Option<JudgedColumns> = sqlx::query_as(
        "select f.status, coalesce(f.mu_mean, f.mu_median), f.mu_sd, f.tau_median, f.log_tau_sd
         from populations as p
         join population_fits as f on f.population_id = p.population_id and f.fit_id = p.published_fit_id
         where p.population_id = $1 and f.correlation = 'modelled'",
    )
    .bind(population_id)
    .fetch_optional(connection)
    .await
    .map_err(|error| classify("cannot read the published fit", error))?;
    row.map(decode::judged).transpose()
}

/// The published fits of some populations: what their rows are computed with.
pub(super) async fn published_of(
    connection: &mut SqliteConnection,
    populations: &BTreeSet<PopulationName>,
) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
    let rows = sqlx::query_as(
        "select f.population_id, f.fit_id, f.correlation, f.status, f.nodes
         from populations as p
         join population_fits as f on f.population_id = p.population_id and f.fit_id = p.published_fit_id
         where p.population_id in (select value from json_each($1)) and f.correlation in ('modelled', 'ignored')",
    )
    .bind(json_array(populations.iter().map(PopulationName::to_string)))
    .fetch_all(connection)
    .await
    .map_err(|error| classify("cannot read the published fits", error))?;
    decode::published_fits(rows)
}

/// Opens the row of a published fit, with what the last pass through the blocks found.
pub(super) async fn append_diagnostics(
    connection: &mut SqliteConnection,
    population_id: &str,
    fit_id: i64,
    cells: &CellDiagnostics,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into population_diagnostics
             (population_id, fit_id, information, information_independent, effective_effects, tau_squared_moment_bias,
              mu_shift, log_tau_shift, experiments, design_effect, largest_correlation, largest_estimate_shift, sign_calls,
              sign_flips, sign_flip_share, hausman_z, calibration_effects, calibration_rms_z, coverage50, coverage80,
              coverage95, shipped_share, verdict, verdict_rests_on, verdict_value, diagnosed_at, computed_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, last.experiments, last.design_effect, last.largest_correlation,
                last.largest_estimate_shift, last.sign_calls, last.sign_flips, last.sign_flip_share, last.hausman_z,
                last.calibration_effects, last.calibration_rms_z, last.coverage50, last.coverage80, last.coverage95,
                last.shipped_share, last.verdict, last.verdict_rests_on, last.verdict_value, last.diagnosed_at,
                $9
         from (select 1) as one
         left join (select * from population_diagnostics where population_id = $1 order by fit_id desc limit 1) as last
             on true",
    )
    .bind(population_id)
    .bind(fit_id)
    .bind(cells.information)
    .bind(cells.information_independent)
    .bind(cells.effective_effects)
    .bind(cells.tau_squared_moment_bias)
    .bind(cells.mu_shift)
    .bind(cells.log_tau_shift)
    .bind(now())
    .execute(connection)
    .await
    .map_err(|error| classify("cannot write diagnostics", error))?;
    Ok(())
}

/// Puts what a pass found into the row of the fit that it was about.
pub(super) async fn write_diagnostics(
    connection: &mut SqliteConnection,
    population_id: &str,
    fit_id: i64,
    cells: &CellDiagnostics,
    pass: &PassDiagnostics,
) -> Result<(), StoreError> {
    let calibration = pass.calibration;
    sqlx::query(
        "insert or replace into population_diagnostics
             (population_id, fit_id, information, information_independent, effective_effects, tau_squared_moment_bias,
              mu_shift, log_tau_shift, experiments, design_effect, largest_correlation, largest_estimate_shift, sign_calls,
              sign_flips, sign_flip_share, hausman_z, calibration_effects, calibration_rms_z, coverage50, coverage80,
              coverage95, shipped_share, verdict, verdict_rests_on, verdict_value, diagnosed_at, computed_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
                 $24, $25, $26, $26)",
    )
    .bind(population_id)
    .bind(fit_id)
    .bind(cells.information)
    .bind(cells.information_independent)
    .bind(cells.effective_effects)
    .bind(cells.tau_squared_moment_bias)
    .bind(cells.mu_shift)
    .bind(cells.log_tau_shift)
    .bind(pass.experiments as i64)
    .bind(pass.design_effect)
    .bind(pass.largest_correlation)
    .bind(pass.largest_estimate_shift)
    .bind(pass.sign_calls as i64)
    .bind(pass.sign_flips as i64)
    .bind(pass.sign_flip_share)
    .bind(pass.hausman_z)
    .bind(calibration.map(|calibration| calibration.effects as i64))
    .bind(calibration.map(|calibration| calibration.rms_z))
    .bind(calibration.map(|calibration| calibration.coverage50))
    .bind(calibration.map(|calibration| calibration.coverage80))
    .bind(calibration.map(|calibration| calibration.coverage95))
    .bind(pass.shipped_share)
    .bind(pass.verdict.as_str())
    .bind(pass.verdict_rests_on.as_str())
    .bind(pass.verdict_value)
    .bind(now())
    .execute(connection)
    .await
    .map_err(|error| classify("cannot write diagnostics", error))?;
    Ok(())
}
