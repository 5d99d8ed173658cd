//! Statements on fits and on what is diagnosed of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use shrinkd_core::{PopulationName, pack, unpack};
use shrinkd_model::{Node, Summary};

use super::columns::{Column, Columns, NONE, boolean, bytes, float, integer, json, text};
use super::database::Transaction;
use super::error::unreadable;
use super::query::{Row, Value, record, values};
use super::{StoreError, changes};
use crate::refit::RefitState;
use crate::row::{CellDiagnostics, EndedPass, FitRow, InputOffset, PassDiagnostics, PublishedFit};

/// A fit with its population, as it is written.
pub(super) struct PopulationFit {
    population_id: String,
    fit_id: i64,
    experiments: i64,
    /// `{"topic/partition": offset}`, for people who ask what a fit has seen.
    input_offsets: Arc<str>,
    fit: FitRow,
}

impl From<&FitRow> for PopulationFit {
    /// A fit of no population, for its figures.
    fn from(fit: &FitRow) -> PopulationFit {
        let (population_id, input_offsets) = (String::new(), "{}".into());
        PopulationFit { population_id, fit_id: 0, experiments: 0, input_offsets, fit: fit.clone() }
    }
}

const KEY: &[Column<PopulationFit>] = &[
    text("population_id", |row| Some(row.population_id.as_str().into())),
    text("correlation", |row| Some(row.fit.correlation.as_str().into())),
];

const SEEN: &[Column<PopulationFit>] = &[
    integer("fit_id", |row| Some(row.fit_id)),
    integer("experiments", |row| Some(row.experiments)),
    json("input_offsets", |row| Some((&*row.input_offsets).into())),
];

/// What a fit says, and the audit compares.
pub(super) const FIT: &[Column<PopulationFit>] = &[
    text("status", |row| Some(row.fit.status.as_str().into())),
    text("message", |row| row.fit.message.as_deref().map(Into::into)),
    text("direction", |row| Some(row.fit.direction.as_str().into())),
    boolean("is_prior_far", |row| Some(row.fit.is_prior_far)),
    integer("effects", |row| Some(row.fit.effects as i64)),
    integer("multi_variant_experiments", |row| Some(row.fit.multi_variant_experiments as i64)),
    float("mu_mean", |row| row.fit.mu.mean),
    float("mu_median", |row| row.fit.mu.median),
    float("mu_sd", |row| row.fit.mu.sd),
    float("mu_q025", |row| row.fit.mu.q025),
    float("mu_q25", |row| row.fit.mu.q25),
    float("mu_q75", |row| row.fit.mu.q75),
    float("mu_q975", |row| row.fit.mu.q975),
    float("tau_mean", |row| row.fit.tau.mean),
    float("tau_median", |row| row.fit.tau.median),
    float("tau_sd", |row| row.fit.tau.sd),
    float("tau_q025", |row| row.fit.tau.q025),
    float("tau_q25", |row| row.fit.tau.q25),
    float("tau_q75", |row| row.fit.tau.q75),
    float("tau_q975", |row| row.fit.tau.q975),
    float("icc_mean", |row| row.fit.icc?.icc.mean),
    float("icc_median", |row| row.fit.icc?.icc.median),
    float("icc_sd", |row| row.fit.icc?.icc.sd),
    float("icc_q025", |row| row.fit.icc?.icc.q025),
    float("icc_q25", |row| row.fit.icc?.icc.q25),
    float("icc_q75", |row| row.fit.icc?.icc.q75),
    float("icc_q975", |row| row.fit.icc?.icc.q975),
    text("icc_status", |row| Some(row.fit.icc_status?.as_str().into())),
    float("prob_icc_above_090", |row| Some(row.fit.icc?.prob_above_090)),
    float("icc_log_bayes_factor", |row| Some(row.fit.icc?.log_bayes_factor)),
    float("icc_log_bayes_factor_half", |row| Some(row.fit.icc?.log_bayes_factor_half)),
    float("tau_within_median", |row| Some(row.fit.icc?.tau_within_median)),
    float("tau_shared_median", |row| Some(row.fit.icc?.tau_shared_median)),
    float("log_tau_sd", |row| row.fit.log_tau_sd),
    float("tau_shortest95_low", |row| Some(row.fit.tau_shortest95?.0)),
    float("tau_shortest95_high", |row| Some(row.fit.tau_shortest95?.1)),
    float("prob_tau_negligible", |row| row.fit.prob_tau_negligible),
    text("prior_mu", |row| row.fit.prior_mu.as_deref().map(Into::into)),
    text("prior_tau", |row| row.fit.prior_tau.as_deref().map(Into::into)),
    text("prior_icc", |row| row.fit.prior_icc.as_deref().map(Into::into)),
    float("mu_tau_correlation", |row| row.fit.mu_tau_correlation),
    float("log_evidence", |row| row.fit.log_evidence),
    float("predictive_mean", |row| row.fit.predictive.mean),
    float("predictive_sd", |row| row.fit.predictive.sd),
    float("predictive_median", |row| row.fit.predictive.median),
    float("predictive_q025", |row| row.fit.predictive.q025),
    float("predictive_q975", |row| row.fit.predictive.q975),
    float("laplace_mu_distance", |row| row.fit.laplace?.mu_mean),
    float("laplace_tau_distance", |row| row.fit.laplace?.tau_median),
    float("variational_mu_distance", |row| row.fit.variational?.mu_mean),
    float("variational_tau_distance", |row| row.fit.variational?.tau_median),
    bytes("nodes", |row| Some(pack(&row.fit.nodes).into())),
    bytes("node_iccs", |row| pack_iccs(&row.fit.nodes).map(Into::into)),
];

/// The intraclass correlations of nodes, which are stored apart from the rest; `None` where all are 0.
pub fn pack_iccs(nodes: &[Node]) -> Option<Vec<u8>> {
    let iccs: Vec<f64> = nodes.iter().map(|node| node.icc).collect();
    iccs.iter().any(|icc| *icc != 0.0).then(|| pack(&iccs))
}

/// The nodes that [`pack`] and [`pack_iccs`] wrote.
///
/// # Errors
/// Where the bytes are damaged.
pub fn unpack_nodes(nodes: &[u8], iccs: Option<&[u8]>) -> Result<Vec<Node>, String> {
    let mut nodes: Vec<Node> = unpack("nodes", nodes).map_err(|error| error.to_string())?;
    if let Some(iccs) = iccs {
        let iccs: Vec<f64> = unpack("node_iccs", iccs).map_err(|error| error.to_string())?;
        if iccs.len() != nodes.len() {
            return Err(format!("{} nodes have {} node_iccs", nodes.len(), iccs.len()));
        }
        nodes.iter_mut().zip(iccs).for_each(|(node, icc)| node.icc = icc);
    }
    Ok(nodes)
}

/// The fits of a population as rows, under this id.
pub(super) fn rows(
    population: &PopulationName,
    fit_id: i64,
    state: &RefitState,
    fits: Vec<FitRow>,
) -> impl Iterator<Item = PopulationFit> {
    let (population_id, experiments) = (population.to_string(), state.statistics.counters.experiments);
    let input_offsets: Arc<str> = input_offsets(state).into();
    fits.into_iter().map(move |fit| PopulationFit {
        population_id: population_id.clone(),
        fit_id,
        experiments,
        input_offsets: Arc::clone(&input_offsets),
        fit,
    })
}

/// Replaces the current fits of populations. Each has one under every model of correlation.
///
/// # Errors
/// Where the store fails. [`StoreError::NotFinite`] where a figure is not finite, also of a node.
pub(super) async fn write(on: &mut Transaction, rows: &[PopulationFit]) -> Result<(), StoreError> {
    if let Some(row) = rows.iter().find(|row| !row.fit.nodes.iter().all(Node::is_finite)) {
        let row = format!("{} {}", row.population_id, row.fit.correlation.as_str());
        return Err(StoreError::NotFinite { statement: "refit: fits", column: "nodes", row });
    }
    let sql = "insert into current_population_fits ({columns}, computed_at) select {columns}, {now} from n where true
               on conflict (population_id, correlation) do update
               set {set from excluded}, computed_at = excluded.computed_at";
    Columns(&[KEY], &[SEEN, FIT]).execute(on, "refit: fits", rows, sql, NONE).await.map(drop)
}

fn input_offsets(state: &RefitState) -> String {
    let entry = |(topic, partition, offset): &InputOffset| (format!("{topic}/{partition}"), (*offset).into());
    serde_json::Value::Object(state.input_offsets.iter().map(entry).collect()).to_string()
}

/// Appends the current fits of populations, which become the published ones with these ids, to the history, whose columns are the
/// same, and what their cells say where they have a posterior.
pub(super) async fn publish(
    on: &mut Transaction,
    due: &[(PopulationName, i64, Option<CellDiagnostics>)],
) -> Result<(), StoreError> {
    if due.is_empty() {
        return Ok(());
    }
    const DUE: Columns<(PopulationName, i64, Option<CellDiagnostics>)> =
        Columns::of(&[&[text("population_id", |(population, ..)| Some(population.to_string().into()))]]);
    let sql = "insert into population_fits
               select f.* from n join current_population_fits as f on f.population_id = n.population_id";
    DUE.execute(on, "refit: append to the history", due, sql, NONE).await?;
    let with_cells = due.iter().filter_map(|(population, fit_id, cells)| {
        Some(Diagnosed { population_id: population.to_string(), fit_id: *fit_id, cells: cells.clone()?, pass: None })
    });
    append_diagnostics(on, &with_cells.collect::<Vec<_>>()).await
}

/// The published fits of some populations: what their rows are computed with.
pub(super) async fn published(
    on: &mut Transaction,
    populations: &[PopulationName],
) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
    let names = changes::names(populations);
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
        "select f.population_id, f.fit_id, f.status, f.direction, f.nodes, f.node_iccs, i.nodes as naive_nodes
         from {fits} join population_fits as i on i.population_id = f.population_id and i.fit_id = f.fit_id
         where f.correlation = 'modelled' and i.correlation = 'ignored'"
    );
    let fit = |row: &Row| {
        let fit = record!(PublishedFit:
            fit_id, status, direction;
            nodes: |row: &Row| {
                let (nodes, iccs) = (row.get::<Vec<u8>>("nodes")?, row.get::<Option<Vec<u8>>>("node_iccs")?);
                unpack_nodes(&nodes, iccs.as_deref()).map_err(|error| unreadable("population_fits.nodes", error))
            },
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

/// What is diagnosed of a published fit.
struct Diagnosed {
    population_id: String,
    fit_id: i64,
    cells: CellDiagnostics,
    pass: Option<PassDiagnostics>,
}

const DIAGNOSED_KEY: &[Column<Diagnosed>] =
    &[text("population_id", |row| Some(row.population_id.as_str().into())), integer("fit_id", |row| Some(row.fit_id))];

const CELLS: &[Column<Diagnosed>] = &[
    float("information", |row| Some(row.cells.information)),
    float("information_ignored", |row| Some(row.cells.information_ignored)),
    float("effective_effects", |row| Some(row.cells.effective_effects)),
    float("tau_squared_moment_bias", |row| row.cells.tau_squared_moment_bias),
    float("mu_shift", |row| row.cells.mu_shift),
    float("log_tau_shift", |row| row.cells.log_tau_shift),
];

const PASS: &[Column<Diagnosed>] = &[
    integer("experiments", |row| Some(row.pass.as_ref()?.experiments as i64)),
    float("deff", |row| Some(row.pass.as_ref()?.deff)),
    float("deff_control", |row| Some(row.pass.as_ref()?.deff_control)),
    float("naive_coverage", |row| Some(row.pass.as_ref()?.naive_coverage)),
    float("rmse_excess", |row| row.pass.as_ref()?.rmse_excess),
    integer("changed_decisions", |row| Some(row.pass.as_ref()?.changed_decisions as i64)),
    float("changed_decision_share", |row| Some(row.pass.as_ref()?.changed_decision_share)),
    float("value_given_up", |row| row.pass.as_ref()?.value_given_up),
    float("risk_modelled", |row| row.pass.as_ref()?.risk[0]),
    float("risk_control_only", |row| row.pass.as_ref()?.risk[1]),
    float("risk_ignored", |row| row.pass.as_ref()?.risk[2]),
    float("risk_one_per_experiment", |row| row.pass.as_ref()?.risk[3]),
    float("score_modelled", |row| row.pass.as_ref()?.score[0]),
    float("score_control_only", |row| row.pass.as_ref()?.score[1]),
    float("score_ignored", |row| row.pass.as_ref()?.score[2]),
    float("score_one_per_experiment", |row| row.pass.as_ref()?.score[3]),
    float("largest_correlation", |row| Some(row.pass.as_ref()?.largest_correlation)),
    float("largest_estimate_shift", |row| Some(row.pass.as_ref()?.largest_estimate_shift)),
    integer("sign_calls", |row| Some(row.pass.as_ref()?.sign_calls as i64)),
    integer("sign_flips", |row| Some(row.pass.as_ref()?.sign_flips as i64)),
    float("sign_flip_share", |row| Some(row.pass.as_ref()?.sign_flip_share)),
    float("hausman_z", |row| row.pass.as_ref()?.hausman_z),
    integer("calibration_effects", |row| Some(row.pass.as_ref()?.calibration?.effects as i64)),
    float("calibration_rms_z", |row| Some(row.pass.as_ref()?.calibration?.rms_z)),
    float("coverage50", |row| Some(row.pass.as_ref()?.calibration?.coverage50)),
    float("coverage80", |row| Some(row.pass.as_ref()?.calibration?.coverage80)),
    float("coverage95", |row| Some(row.pass.as_ref()?.calibration?.coverage95)),
    float("coverage50_low", |row| Some(row.pass.as_ref()?.calibration?.bounds(0.5).0)),
    float("coverage50_high", |row| Some(row.pass.as_ref()?.calibration?.bounds(0.5).1)),
    float("coverage80_low", |row| Some(row.pass.as_ref()?.calibration?.bounds(0.8).0)),
    float("coverage80_high", |row| Some(row.pass.as_ref()?.calibration?.bounds(0.8).1)),
    float("coverage95_low", |row| Some(row.pass.as_ref()?.calibration?.bounds(0.95).0)),
    float("coverage95_high", |row| Some(row.pass.as_ref()?.calibration?.bounds(0.95).1)),
    json("pit_histogram", |row| {
        let histogram = row.pass.as_ref()?.calibration?.pit_histogram;
        Some(Cow::Owned(format!("{histogram:?}")))
    }),
    text("calibration_cause", |row| Some(row.pass.as_ref()?.calibration_cause?.as_str().into())),
    float("selection_log_lr", |row| Some(row.pass.as_ref()?.selection?.log_lr)),
    float("selection_eta", |row| Some(row.pass.as_ref()?.selection?.eta)),
    float("selection_missing_share", |row| Some(row.pass.as_ref()?.selection?.missing_share)),
    float("caliper_p", |row| row.pass.as_ref()?.selection?.caliper_p),
    boolean("is_selection_suspected", |row| Some(row.pass.as_ref()?.selection?.is_suspected())),
    integer("mix_ups", |row| Some(row.pass.as_ref()?.mix_ups as i64)),
    float("shipped_share", |row| row.pass.as_ref()?.shipped_share),
    text("verdict", |row| Some(row.pass.as_ref()?.verdict.as_str().into())),
    text("verdict_rests_on", |row| Some(row.pass.as_ref()?.verdict_rests_on.as_str().into())),
    float("verdict_value", |row| Some(row.pass.as_ref()?.verdict_value)),
];

/// Opens the rows of published fits, with what the last pass through the blocks found.
async fn append_diagnostics(on: &mut Transaction, rows: &[Diagnosed]) -> Result<(), StoreError> {
    let pass = Columns(&[], &[PASS]);
    let sql = format!(
        "insert into population_diagnostics ({{columns}}, {}, diagnosed_at, computed_at)
         select {{columns of n}}, {}, last.diagnosed_at, {{now}}
         from n left join population_diagnostics as last on last.population_id = n.population_id
             and last.fit_id = (select max(d.fit_id) from population_diagnostics as d
                                where d.population_id = n.population_id)",
        pass.names(""),
        pass.names("last.")
    );
    Columns(&[DIAGNOSED_KEY], &[CELLS]).execute(on, "refit: diagnostics", rows, &sql, NONE).await.map(drop)
}

/// Puts what passes found into the rows of the fits that they were about.
pub(super) async fn write_diagnostics(
    on: &mut Transaction,
    ended: impl Iterator<Item = &EndedPass>,
) -> Result<(), StoreError> {
    let sql = "insert into population_diagnostics ({columns}, diagnosed_at, computed_at)
               select {columns}, {now}, {now} from n where true
               on conflict (population_id, fit_id) do update
               set {set from excluded}, diagnosed_at = excluded.diagnosed_at, computed_at = excluded.computed_at";
    let diagnosed = ended.filter_map(|EndedPass { pass, diagnostics, .. }| {
        let (cells, found) = diagnostics.clone()?;
        Some(Diagnosed {
            population_id: pass.population.to_string(),
            fit_id: pass.fit.fit_id,
            cells,
            pass: Some(found),
        })
    });
    let rows: Vec<Diagnosed> = diagnosed.collect();
    Columns(&[DIAGNOSED_KEY], &[CELLS, PASS]).execute(on, "publish: diagnostics", &rows, sql, NONE).await.map(drop)
}
