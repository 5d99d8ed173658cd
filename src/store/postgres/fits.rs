//! Statements on fits and on what is diagnosed of them.

use shrinkd_core::pack;
use sqlx::PgConnection;

use super::{classify, column};
use crate::row::{CellDiagnostics, FitRow, Judged, PassDiagnostics};
use crate::store::decode::{self, JudgedColumns};
use crate::store::{RefitState, StoreError};

/// Replaces the current fits of a population.
pub(super) async fn write(
    connection: &mut PgConnection,
    population_id: &str,
    fit_id: i64,
    state: &RefitState,
    rows: &[FitRow],
) -> Result<(), StoreError> {
    let laplace = |row: &FitRow| row.laplace.map_or((None, None), |d| (d.mu_mean, d.tau_median));
    let variational = |row: &FitRow| row.variational.map_or((None, None), |d| (d.mu_mean, d.tau_median));
    sqlx::query("delete from current_population_fits where population_id = $1 and correlation <> all($2)")
        .bind(population_id)
        .bind(column(rows, |row| row.correlation.as_str()))
        .execute(&mut *connection)
        .await
        .map_err(|error| classify("cannot write a fit", error))?;
    sqlx::query(
        "insert into current_population_fits
             (population_id, fit_id, experiments, input_offsets, correlation, status, message, effects,
              mu_mean, mu_median, mu_sd, mu_q025, mu_q25, mu_q75, mu_q975,
              tau_mean, tau_median, tau_sd, tau_q025, tau_q25, tau_q75, tau_q975, log_tau_sd, mu_tau_correlation,
              log_evidence, predictive_mean, predictive_sd, predictive_median, predictive_q025, predictive_q975,
              laplace_mu_distance, laplace_tau_distance, variational_mu_distance, variational_tau_distance, nodes)
         select $1, $2, $3, $4::jsonb, n.*
         from unnest($5::text[], $6::text[], $7::text[], $8::bigint[],
                     $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::float8[], $14::float8[], $15::float8[],
                     $16::float8[], $17::float8[], $18::float8[], $19::float8[], $20::float8[], $21::float8[],
                     $22::float8[], $23::float8[], $24::float8[], $25::float8[], $26::float8[], $27::float8[],
                     $28::float8[], $29::float8[], $30::float8[], $31::float8[], $32::float8[], $33::float8[],
                     $34::float8[], $35::bytea[]) as n
         on conflict (population_id, correlation) do update
         set fit_id = excluded.fit_id, experiments = excluded.experiments, input_offsets = excluded.input_offsets,
             status = excluded.status, message = excluded.message, effects = excluded.effects,
             mu_mean = excluded.mu_mean, mu_median = excluded.mu_median, mu_sd = excluded.mu_sd,
             mu_q025 = excluded.mu_q025, mu_q25 = excluded.mu_q25, mu_q75 = excluded.mu_q75,
             mu_q975 = excluded.mu_q975, tau_mean = excluded.tau_mean, tau_median = excluded.tau_median,
             tau_sd = excluded.tau_sd, tau_q025 = excluded.tau_q025, tau_q25 = excluded.tau_q25,
             tau_q75 = excluded.tau_q75, tau_q975 = excluded.tau_q975, log_tau_sd = excluded.log_tau_sd,
             mu_tau_correlation = excluded.mu_tau_correlation, log_evidence = excluded.log_evidence,
             predictive_mean = excluded.predictive_mean, predictive_sd = excluded.predictive_sd,
             predictive_median = excluded.predictive_median, predictive_q025 = excluded.predictive_q025,
             predictive_q975 = excluded.predictive_q975, laplace_mu_distance = excluded.laplace_mu_distance,
             laplace_tau_distance = excluded.laplace_tau_distance,
             variational_mu_distance = excluded.variational_mu_distance,
             variational_tau_distance = excluded.variational_tau_distance, nodes = excluded.nodes,
             computed_at = now()",
    )
    .bind(population_id)
    .bind(fit_id)
    .bind(state.counters.experiments)
    .bind(decode::input_offsets_to_json(&state.input_offsets))
    .bind(column(rows, |row| row.correlation.as_str()))
    .bind(column(rows, |row| row.status.as_str()))
    .bind(column(rows, |row| row.message.as_deref()))
    .bind(column(rows, |row| row.effects as i64))
    .bind(column(rows, |row| row.mu.mean))
    .bind(column(rows, |row| row.mu.median))
    .bind(column(rows, |row| row.mu.sd))
    .bind(column(rows, |row| row.mu.q025))
    .bind(column(rows, |row| row.mu.q25))
    .bind(column(rows, |row| row.mu.q75))
    .bind(column(rows, |row| row.mu.q975))
    .bind(column(rows, |row| row.tau.mean))
    .bind(column(rows, |row| row.tau.median))
    .bind(column(rows, |row| row.tau.sd))
    .bind(column(rows, |row| row.tau.q025))
    .bind(column(rows, |row| row.tau.q25))
    .bind(column(rows, |row| row.tau.q75))
    .bind(column(rows, |row| row.tau.q975))
    .bind(column(rows, |row| row.log_tau_sd))
    .bind(column(rows, |row| row.mu_tau_correlation))
    .bind(column(rows, |row| row.log_evidence))
    .bind(column(rows, |row| row.predictive.mean))
    .bind(column(rows, |row| row.predictive.sd))
    .bind(column(rows, |row| row.predictive.median))
    .bind(column(rows, |row| row.predictive.q025))
    .bind(column(rows, |row| row.predictive.q975))
    .bind(column(rows, |row| laplace(row).0))
    .bind(column(rows, |row| laplace(row).1))
    .bind(column(rows, |row| variational(row).0))
    .bind(column(rows, |row| variational(row).1))
    .bind(column(rows, |row| pack(&row.nodes)))
    .execute(connection)
    .await
    .map_err(|error| classify("cannot write a fit", error))?;
    Ok(())
}

/// Appends the current fits of a population to the history. Both tables have the same columns.
pub(super) async fn append(connection: &mut PgConnection, population_id: &str) -> Result<(), StoreError> {
    sqlx::query("insert into population_fits select * from current_population_fits where population_id = $1")
        .bind(population_id)
        .execute(connection)
        .await
        .map_err(|error| classify("cannot append a fit to the history", error))?;
    Ok(())
}

/// What the published fit of a population is judged by.
pub(super) async fn published(
    connection: &mut PgConnection,
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

/// Opens the row of a published fit, with what the last pass through the blocks found.
pub(super) async fn append_diagnostics(
    connection: &mut PgConnection,
    population_id: &str,
    fit_id: i64,
    cells: &CellDiagnostics,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into population_diagnostics
             (population_id, fit_id, information, information_independent, effective_effects, tau_squared_moment_bias,
              mu_shift, log_tau_shift, experiments, design_effect, largest_correlation, largest_estimate_shift, sign_calls,
              sign_flips, sign_flip_share, hausman_z, calibration_effects, calibration_rms_z, coverage50, coverage80,
              coverage95, shipped_share, verdict, verdict_rests_on, verdict_value, diagnosed_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, last.experiments, last.design_effect, last.largest_correlation,
                last.largest_estimate_shift, last.sign_calls, last.sign_flips, last.sign_flip_share, last.hausman_z,
                last.calibration_effects, last.calibration_rms_z, last.coverage50, last.coverage80, last.coverage95,
                last.shipped_share, last.verdict, last.verdict_rests_on, last.verdict_value, last.diagnosed_at
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
    .execute(connection)
    .await
    .map_err(|error| classify("cannot write diagnostics", error))?;
    Ok(())
}

/// Puts what a pass found into the row of the fit that it was about.
pub(super) async fn write_diagnostics(
    connection: &mut PgConnection,
    population_id: &str,
    fit_id: i64,
    cells: &CellDiagnostics,
    pass: &PassDiagnostics,
) -> Result<(), StoreError> {
    let calibration = pass.calibration;
    sqlx::query(
        "insert into population_diagnostics
             (population_id, fit_id, information, information_independent, effective_effects, tau_squared_moment_bias,
              mu_shift, log_tau_shift, experiments, design_effect, largest_correlation, largest_estimate_shift, sign_calls,
              sign_flips, sign_flip_share, hausman_z, calibration_effects, calibration_rms_z, coverage50, coverage80,
              coverage95, shipped_share, verdict, verdict_rests_on, verdict_value, diagnosed_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
                 $24, $25, now())
         on conflict (population_id, fit_id) do update
         set information = excluded.information, information_independent = excluded.information_independent,
             effective_effects = excluded.effective_effects, tau_squared_moment_bias = excluded.tau_squared_moment_bias,
             mu_shift = excluded.mu_shift, log_tau_shift = excluded.log_tau_shift, experiments = excluded.experiments,
             design_effect = excluded.design_effect, largest_correlation = excluded.largest_correlation,
             largest_estimate_shift = excluded.largest_estimate_shift, sign_calls = excluded.sign_calls,
             sign_flips = excluded.sign_flips, sign_flip_share = excluded.sign_flip_share,
             hausman_z = excluded.hausman_z, calibration_effects = excluded.calibration_effects,
             calibration_rms_z = excluded.calibration_rms_z, coverage50 = excluded.coverage50,
             coverage80 = excluded.coverage80, coverage95 = excluded.coverage95, shipped_share = excluded.shipped_share,
             verdict = excluded.verdict, verdict_rests_on = excluded.verdict_rests_on,
             verdict_value = excluded.verdict_value, diagnosed_at = now(), computed_at = now()",
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
    .execute(connection)
    .await
    .map_err(|error| classify("cannot write diagnostics", error))?;
    Ok(())
}
