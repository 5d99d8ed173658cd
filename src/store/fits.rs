//! Statements on fits and on what is diagnosed of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use shrinkd_core::{PopulationName, pack};
use shrinkd_model::{Node, Summary};

use super::StoreError;
use super::columns::{Column, Columns, boolean, bytes, float, integer, json, text};
use super::database::Transaction;
use super::query::{Row, Value, record, values};
use crate::refit::{Judged, RefitState};
use crate::row::{CellDiagnostics, FitRow, PassDiagnostics, PublishedFit};

const KEY: &[Column<FitRow>] = &[text("correlation", |row| Some(row.correlation.as_str().into()))];

pub(super) const FIT: &[Column<FitRow>] = &[
    text("status", |row| Some(row.status.as_str().into())),
    text("message", |row| row.message.as_deref().map(Into::into)),
    text("direction", |row| Some(row.direction.as_str().into())),
    boolean("is_prior_far", |row| Some(row.is_prior_far)),
    integer("effects", |row| Some(row.effects as i64)),
    float("mu_mean", |row| row.mu.mean),
    float("mu_median", |row| row.mu.median),
    float("mu_sd", |row| row.mu.sd),
    float("mu_q025", |row| row.mu.q025),
    float("mu_q25", |row| row.mu.q25),
    float("mu_q75", |row| row.mu.q75),
    float("mu_q975", |row| row.mu.q975),
    float("tau_mean", |row| row.tau.mean),
    float("tau_median", |row| row.tau.median),
    float("tau_sd", |row| row.tau.sd),
    float("tau_q025", |row| row.tau.q025),
    float("tau_q25", |row| row.tau.q25),
    float("tau_q75", |row| row.tau.q75),
    float("tau_q975", |row| row.tau.q975),
    float("log_tau_sd", |row| row.log_tau_sd),
    float("tau_shortest95_low", |row| Some(row.tau_shortest95?.0)),
    float("tau_shortest95_high", |row| Some(row.tau_shortest95?.1)),
    float("prob_tau_negligible", |row| row.prob_tau_negligible),
    text("prior_mu", |row| row.prior_mu.as_deref().map(Into::into)),
    text("prior_tau", |row| row.prior_tau.as_deref().map(Into::into)),
    float("mu_tau_correlation", |row| row.mu_tau_correlation),
    float("log_evidence", |row| row.log_evidence),
    float("predictive_mean", |row| row.predictive.mean),
    float("predictive_sd", |row| row.predictive.sd),
    float("predictive_median", |row| row.predictive.median),
    float("predictive_q025", |row| row.predictive.q025),
    float("predictive_q975", |row| row.predictive.q975),
    float("laplace_mu_distance", |row| row.laplace?.mu_mean),
    float("laplace_tau_distance", |row| row.laplace?.tau_median),
    float("variational_mu_distance", |row| row.variational?.mu_mean),
    float("variational_tau_distance", |row| row.variational?.tau_median),
    bytes("nodes", |row| Some(pack(&row.nodes).into())),
];

/// Replaces the current fits of a population.
///
/// # Errors
/// Where the store fails. [`StoreError::NotFinite`] where a figure is not finite, also of a node.
pub(super) async fn write(
    on: &mut Transaction,
    population_id: &str,
    fit_id: i64,
    state: &RefitState,
    rows: &[FitRow],
) -> Result<(), StoreError> {
    if let Some(row) = rows.iter().find(|row| !row.nodes.iter().all(Node::is_finite)) {
        let row = format!("{population_id} {}", row.correlation.as_str());
        return Err(StoreError::NotFinite { statement: "refit: fits", column: "nodes", row });
    }
    let correlations: Vec<String> = rows.iter().map(|row| row.correlation.as_str().to_owned()).collect();
    let sql = "delete from current_population_fits where population_id = $1 and not correlation {any $2}";
    on.query("refit: delete other fits", sql, values![population_id, correlations]).await?;
    let sql = "insert into current_population_fits
                   (population_id, fit_id, experiments, input_offsets, {columns}, computed_at)
               select $1, $2, $3, {json $4}, {columns}, {now} from n where true
               on conflict (population_id, correlation) do update
               set fit_id = excluded.fit_id, experiments = excluded.experiments, input_offsets = excluded.input_offsets,
                   {set from excluded}, computed_at = excluded.computed_at";
    let values = [population_id.into(), fit_id.into(), state.counters.experiments.into(), input_offsets(state).into()];
    Columns(&[KEY], &[FIT]).execute(on, "refit: fits", rows, sql, &values).await.map(drop)
}

/// `{"topic/partition": offset}`, for people who ask what a fit has seen.
fn input_offsets(state: &RefitState) -> String {
    let entry = |(topic, partition, offset): &(String, i32, i64)| (format!("{topic}/{partition}"), (*offset).into());
    serde_json::Value::Object(state.input_offsets.iter().map(entry).collect()).to_string()
}

/// Appends the current fits of a population to the history. Both tables have the same columns.
pub(super) async fn append(on: &mut Transaction, population_id: &str) -> Result<(), StoreError> {
    let sql = "insert into population_fits select * from current_population_fits where population_id = $1";
    on.query("refit: append to the history", sql, values![population_id]).await.map(drop)
}

/// What the published fit of a population is judged by.
pub(super) async fn judged(on: &mut Transaction, population_id: &str) -> Result<Option<Judged>, StoreError> {
    let sql = "select f.status, coalesce(f.mu_mean, f.mu_median) as mu, f.mu_sd, f.tau_median, f.log_tau_sd,
                      f.direction
               from populations as p
               join population_fits as f on f.population_id = p.population_id and f.fit_id = p.published_fit_id
               where p.population_id = $1 and f.correlation = 'modelled'";
    let read = record!(Judged: status, mu, mu_sd, tau = "tau_median", log_tau_sd, direction);
    on.query("refit: published fit", sql, values![population_id]).optional(read).await
}

/// The message of a population's latest fit with the correlation modelled.
pub(super) async fn latest_message(on: &mut Transaction, population_id: &str) -> Result<Option<String>, StoreError> {
    let sql = "select message from current_population_fits where population_id = $1 and correlation = 'modelled'";
    let message = on.query("refit: latest message", sql, values![population_id]).optional(|row| row.get("message"));
    Ok(message.await?.flatten())
}

/// The published fits of some populations: what their rows are computed with.
pub(super) async fn published(
    on: &mut Transaction,
    populations: &[PopulationName],
) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
    let names: Vec<String> = populations.iter().map(PopulationName::to_string).collect();
    let fits = "populations as p
                join population_fits as f on f.population_id = p.population_id and f.fit_id = p.published_fit_id
                    and p.population_id {any $1}";
    Ok(read(on, "read published fits", fits, values![names].into()).await?.into_iter().collect())
}

/// One fit that was published once; `None` where the history has none of that id.
pub(super) async fn published_once(
    on: &mut Transaction,
    population: &PopulationName,
    fit_id: i64,
) -> Result<Option<PublishedFit>, StoreError> {
    let fits = "(select * from population_fits where population_id = $1 and fit_id = $2) as f";
    let fits = read(on, "audit: published fit", fits, values![population.to_string(), fit_id].into()).await?;
    Ok(fits.into_iter().next().map(|(_, fit)| fit))
}

/// Some fits of the history, `f`. Each was made under all models of correlation.
async fn read(
    on: &mut Transaction,
    name: &'static str,
    fits: &str,
    values: Vec<Value<'_>>,
) -> Result<Vec<(PopulationName, PublishedFit)>, StoreError> {
    let sql = format!(
        "select f.population_id, f.fit_id, f.status, f.direction, f.nodes, i.nodes as naive_nodes
         from {fits} join population_fits as i on i.population_id = f.population_id and i.fit_id = f.fit_id
         where f.correlation = 'modelled' and i.correlation = 'ignored'"
    );
    let fit = |row: &Row| {
        let fit = record!(PublishedFit:
            fit_id, status, direction;
            nodes: |row: &Row| row.unpack("population_fits", "nodes"),
            naive_nodes: |row: &Row| row.unpack("population_fits", "naive_nodes"));
        let fit = fit(row)?;
        Ok((row.get("population_id")?, fit))
    };
    on.query(name, sql, values).all(fit).await
}

/// The mean, median, sd and quantiles of a parameter.
pub(super) fn summary(row: &Row, parameter: &str) -> Result<Summary, StoreError> {
    let figure = |figure: &str| row.get(&format!("{parameter}_{figure}"));
    Ok(Summary {
        mean: figure("mean")?,
        median: figure("median")?,
        sd: figure("sd")?,
        q025: figure("q025")?,
        q25: figure("q25")?,
        q75: figure("q75")?,
        q975: figure("q975")?,
    })
}

const CELLS: &[Column<(CellDiagnostics, Option<PassDiagnostics>)>] = &[
    float("information", |(cells, _)| Some(cells.information)),
    float("information_ignored", |(cells, _)| Some(cells.information_ignored)),
    float("effective_effects", |(cells, _)| Some(cells.effective_effects)),
    float("tau_squared_moment_bias", |(cells, _)| cells.tau_squared_moment_bias),
    float("mu_shift", |(cells, _)| cells.mu_shift),
    float("log_tau_shift", |(cells, _)| cells.log_tau_shift),
];

const PASS: &[Column<(CellDiagnostics, Option<PassDiagnostics>)>] = &[
    integer("experiments", |(_, pass)| Some(pass.as_ref()?.experiments as i64)),
    float("deff", |(_, pass)| Some(pass.as_ref()?.deff)),
    float("deff_control", |(_, pass)| Some(pass.as_ref()?.deff_control)),
    float("naive_coverage", |(_, pass)| Some(pass.as_ref()?.naive_coverage)),
    float("rmse_excess", |(_, pass)| pass.as_ref()?.rmse_excess),
    integer("changed_decisions", |(_, pass)| Some(pass.as_ref()?.changed_decisions as i64)),
    float("changed_decision_share", |(_, pass)| Some(pass.as_ref()?.changed_decision_share)),
    float("value_given_up", |(_, pass)| pass.as_ref()?.value_given_up),
    float("risk_modelled", |(_, pass)| pass.as_ref()?.risk[0]),
    float("risk_ignored", |(_, pass)| pass.as_ref()?.risk[1]),
    float("risk_one_per_experiment", |(_, pass)| pass.as_ref()?.risk[2]),
    float("score_modelled", |(_, pass)| pass.as_ref()?.score[0]),
    float("score_ignored", |(_, pass)| pass.as_ref()?.score[1]),
    float("score_one_per_experiment", |(_, pass)| pass.as_ref()?.score[2]),
    float("largest_correlation", |(_, pass)| Some(pass.as_ref()?.largest_correlation)),
    float("largest_estimate_shift", |(_, pass)| Some(pass.as_ref()?.largest_estimate_shift)),
    integer("sign_calls", |(_, pass)| Some(pass.as_ref()?.sign_calls as i64)),
    integer("sign_flips", |(_, pass)| Some(pass.as_ref()?.sign_flips as i64)),
    float("sign_flip_share", |(_, pass)| Some(pass.as_ref()?.sign_flip_share)),
    float("hausman_z", |(_, pass)| pass.as_ref()?.hausman_z),
    integer("calibration_effects", |(_, pass)| Some(pass.as_ref()?.calibration?.effects as i64)),
    float("calibration_rms_z", |(_, pass)| Some(pass.as_ref()?.calibration?.rms_z)),
    float("coverage50", |(_, pass)| Some(pass.as_ref()?.calibration?.coverage50)),
    float("coverage80", |(_, pass)| Some(pass.as_ref()?.calibration?.coverage80)),
    float("coverage95", |(_, pass)| Some(pass.as_ref()?.calibration?.coverage95)),
    float("coverage50_low", |(_, pass)| Some(pass.as_ref()?.calibration?.bounds(0.5).0)),
    float("coverage50_high", |(_, pass)| Some(pass.as_ref()?.calibration?.bounds(0.5).1)),
    float("coverage80_low", |(_, pass)| Some(pass.as_ref()?.calibration?.bounds(0.8).0)),
    float("coverage80_high", |(_, pass)| Some(pass.as_ref()?.calibration?.bounds(0.8).1)),
    float("coverage95_low", |(_, pass)| Some(pass.as_ref()?.calibration?.bounds(0.95).0)),
    float("coverage95_high", |(_, pass)| Some(pass.as_ref()?.calibration?.bounds(0.95).1)),
    json("pit_histogram", |(_, pass)| {
        let histogram = pass.as_ref()?.calibration?.pit_histogram;
        Some(Cow::Owned(format!("{histogram:?}")))
    }),
    text("calibration_cause", |(_, pass)| Some(pass.as_ref()?.calibration_cause?.as_str().into())),
    float("selection_log_lr", |(_, pass)| Some(pass.as_ref()?.selection?.log_lr)),
    float("selection_eta", |(_, pass)| Some(pass.as_ref()?.selection?.eta)),
    float("selection_missing_share", |(_, pass)| Some(pass.as_ref()?.selection?.missing_share)),
    float("caliper_p", |(_, pass)| pass.as_ref()?.selection?.caliper_p),
    boolean("is_selection_suspected", |(_, pass)| Some(pass.as_ref()?.selection?.is_suspected())),
    integer("mix_ups", |(_, pass)| Some(pass.as_ref()?.mix_ups as i64)),
    float("shipped_share", |(_, pass)| pass.as_ref()?.shipped_share),
    text("verdict", |(_, pass)| Some(pass.as_ref()?.verdict.as_str().into())),
    text("verdict_rests_on", |(_, pass)| Some(pass.as_ref()?.verdict_rests_on.as_str().into())),
    float("verdict_value", |(_, pass)| Some(pass.as_ref()?.verdict_value)),
];

/// Opens the row of a published fit, with what the last pass through the blocks found.
pub(super) async fn append_diagnostics(
    on: &mut Transaction,
    population_id: &str,
    fit_id: i64,
    cells: &CellDiagnostics,
) -> Result<(), StoreError> {
    let pass = Columns(&[], &[PASS]);
    let sql = format!(
        "insert into population_diagnostics (population_id, fit_id, {{columns}}, {}, diagnosed_at, computed_at)
         select $1, $2, {{columns of n}}, {}, last.diagnosed_at, {{now}}
         from n left join (select * from population_diagnostics where population_id = $1 order by fit_id desc limit 1)
             as last on true",
        pass.names(""),
        pass.names("last.")
    );
    let rows = [(cells.clone(), None)];
    let values = [population_id.into(), fit_id.into()];
    Columns(&[], &[CELLS]).execute(on, "refit: diagnostics", &rows, &sql, &values).await.map(drop)
}

/// Puts what a pass found into the row of the fit that it was about.
pub(super) async fn write_diagnostics(
    on: &mut Transaction,
    population_id: &str,
    fit_id: i64,
    cells: &CellDiagnostics,
    pass: &PassDiagnostics,
) -> Result<(), StoreError> {
    let sql = "insert into population_diagnostics (population_id, fit_id, {columns}, diagnosed_at, computed_at)
               select $1, $2, {columns}, {now}, {now} from n where true
               on conflict (population_id, fit_id) do update
               set {set from excluded}, diagnosed_at = excluded.diagnosed_at, computed_at = excluded.computed_at";
    let rows = [(cells.clone(), Some(pass.clone()))];
    let values = [population_id.into(), fit_id.into()];
    Columns(&[], &[CELLS, PASS]).execute(on, "publish: diagnostics", &rows, sql, &values).await.map(drop)
}
