//! What both stores read back in the same way: names, packed columns, cells.

use std::collections::BTreeMap;

use shrinkd_core::{Latest, PopulationName, ResultKey, Scale, unpack};
use shrinkd_model::{Cell, Correlation, Measure, Node, Summary, Verdict, cell_from_bytes};
use time::OffsetDateTime;

use super::{DuePass, RawEstimates, StoreError};
use crate::row::replay::{RejectedMessage, RejectedRef, RejectedResult, RejectedSelection};
use crate::row::{
    BlockToPublish, CurrentFit, CurrentPopulation, FitStatus, Judged, PublishedEffect, PublishedFit, RawEstimate,
    StoredBlock, StoredExperiment,
};

fn damaged(what: &'static str, detail: impl ToString) -> StoreError {
    StoreError::Damaged { what, detail: detail.to_string() }
}

pub(super) fn population(name: &str) -> Result<PopulationName, StoreError> {
    name.parse().map_err(|error| damaged("population_id", error))
}

fn scale(name: &str) -> Result<Scale, StoreError> {
    let scale = Scale::ALL.into_iter().find(|scale| scale.as_str() == name);
    scale.ok_or_else(|| damaged("scale", format!("`{name}` is none")))
}

pub(super) fn correlation(name: &str) -> Result<Correlation, StoreError> {
    let correlation = Correlation::ALL.into_iter().find(|correlation| correlation.as_str() == name);
    correlation.ok_or_else(|| damaged("correlation", format!("`{name}` is none")))
}

fn status(name: &str) -> Result<FitStatus, StoreError> {
    FitStatus::from_name(name).ok_or_else(|| damaged("status", format!("`{name}` is none")))
}

fn verdict(name: &str) -> Result<Verdict, StoreError> {
    let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == name);
    verdict.ok_or_else(|| damaged("verdict", format!("`{name}` is none")))
}

fn measure(name: &str) -> Result<Measure, StoreError> {
    let measure = Measure::ALL.into_iter().find(|measure| measure.as_str() == name);
    measure.ok_or_else(|| damaged("verdict_rests_on", format!("`{name}` is none")))
}

fn nodes(bytes: &[u8]) -> Result<Vec<Node>, StoreError> {
    unpack("nodes", bytes).map_err(|error| damaged("population_fits.nodes", error))
}

pub(super) fn labels_to_json(labels: &BTreeMap<String, String>) -> String {
    // A map from text to text has no value that JSON could not hold.
    serde_json::to_string(labels).unwrap_or_else(|_| "{}".to_owned())
}

fn labels_from_json(text: &str) -> Result<BTreeMap<String, String>, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged("experiments.labels", error))
}

/// `{"topic/partition": offset}`, for people who ask what a fit has seen.
pub(super) fn input_offsets_to_json(offsets: &[(String, i32, i64)]) -> String {
    let entry = |(topic, partition, offset): &(String, i32, i64)| (format!("{topic}/{partition}"), (*offset).into());
    serde_json::Value::Object(offsets.iter().map(entry).collect()).to_string()
}

/// Adds a stored cell to a change.
pub(super) fn add_cell(change: &mut Cell, moments: &[u8]) -> Result<(), StoreError> {
    let stored = cell(moments)?;
    for (x, y) in change.as_flattened_mut().iter_mut().zip(stored.as_flattened()) {
        *x = x.wrapping_add(*y);
    }
    Ok(())
}

pub(super) fn cell(moments: &[u8]) -> Result<Cell, StoreError> {
    cell_from_bytes(moments).ok_or_else(|| damaged("sketch_cells.moments", format!("{} bytes", moments.len())))
}

/// The fits under two models of correlation (population, fit id, correlation, status, nodes) as what rows are computed with.
pub(super) fn published_fits(
    rows: Vec<(String, i64, String, String, Vec<u8>)>,
) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
    let mut fits = BTreeMap::new();
    for (name, fit_id, correlation_name, status_name, bytes) in rows {
        let fit = fits.entry(population(&name)?).or_insert_with(|| PublishedFit { fit_id, ..PublishedFit::none() });
        match correlation(&correlation_name)? {
            Correlation::Modelled => {
                fit.status = status(&status_name)?;
                fit.nodes = nodes(&bytes)?;
            }
            Correlation::Ignored => fit.naive_nodes = nodes(&bytes)?,
            Correlation::OnePerExperiment => {}
        }
    }
    Ok(fits)
}

/// Rejected event, partition, offset, cluster, key, payload, length of the whole payload.
pub(super) type RejectedColumns = (i64, i64, i64, String, Option<Vec<u8>>, Option<Vec<u8>>, i64);

pub(super) fn rejected_message(columns: RejectedColumns, rows: Vec<RejectedResult>) -> RejectedMessage {
    let (rejected_event_id, _, _, cluster_id, key, payload, payload_bytes) = columns;
    RejectedMessage { rejected_event_id, cluster_id, key, payload, payload_bytes, rows }
}

/// Rejected event, partition, offset, length of what is kept.
pub(super) fn rejected_ref((rejected_event_id, partition_id, offset, kept_bytes): (i64, i64, i64, i64)) -> RejectedRef {
    RejectedRef { rejected_event_id, partition_id, offset, kept_bytes }
}

/// The reasons or the ids that are selected; rows of any where there are none.
pub(super) fn selection(selection: &RejectedSelection) -> (Option<Vec<&'static str>>, Option<Vec<i64>>) {
    match selection {
        RejectedSelection::All => (None, None),
        RejectedSelection::Reasons(reasons) => (Some(reasons.iter().map(|reason| reason.as_str()).collect()), None),
        RejectedSelection::Ids(ids) => (None, Some(ids.clone())),
    }
}

/// Experiment, revision, decision, labels, completed at, retractions.
pub(super) type ExperimentColumns = (String, i64, Option<String>, String, OffsetDateTime, Option<Vec<u8>>);

/// Experiment, metric, segment, scale, population, revision, statistics, block, components.
pub(super) type BlockColumns = (String, String, String, String, String, i64, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Experiments with their blocks, as a batch reads them.
pub(super) fn experiments(rows: Vec<ExperimentColumns>) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
    let mut experiments = BTreeMap::new();
    for (experiment_id, revision, decision, labels, completed_at, retractions) in rows {
        let labels = labels_from_json(&labels)?;
        let latest = Latest { revision: revision as u64, decision, labels, completed_at };
        experiments.insert(experiment_id, StoredExperiment { latest, retractions, blocks: Vec::new() });
    }
    Ok(experiments)
}

/// Puts blocks into their experiments.
pub(super) fn blocks(
    rows: Vec<BlockColumns>,
    experiments: &mut BTreeMap<String, StoredExperiment>,
) -> Result<(), StoreError> {
    for (experiment_id, metric, segment, scale_name, name, revision, statistics, block, components) in rows {
        let key = ResultKey { metric, segment, scale: scale(&scale_name)? };
        let (population, revision) = (population(&name)?, revision as u64);
        if let Some(experiment) = experiments.get_mut(&experiment_id) {
            experiment.blocks.push(StoredBlock { key, population, revision, statistics, block, components });
        }
    }
    Ok(())
}

/// Population, experiment, variant, block revision, raw estimate and standard error, d, c, w.
pub(super) type RawEstimateColumns = (String, String, String, i64, f64, f64, Option<f64>, Option<f64>, Option<f64>);

pub(super) fn raw_estimates(rows: Vec<RawEstimateColumns>) -> RawEstimates {
    let mut estimates = RawEstimates::new();
    for (population, experiment, variant, block_revision, raw_estimate, raw_se, d, c, w) in rows {
        let figures = [Some(raw_estimate), Some(raw_se), d, c, w];
        let own = estimates.entry((population, experiment)).or_default();
        own.push(RawEstimate { variant, block_revision, figures });
    }
    estimates.values_mut().for_each(|own| own.sort_by(|x, y| x.variant.cmp(&y.variant)));
    estimates
}

/// Experiment, revision, commit, block, decision.
pub(super) type BlockToPublishColumns = (String, i64, i64, Vec<u8>, Option<String>);

pub(super) fn block_to_publish(columns: BlockToPublishColumns) -> Result<BlockToPublish, StoreError> {
    let (experiment_id, revision, commit_id, block, decision) = columns;
    let measured = unpack("block", &block).map_err(|error| damaged("blocks.block", error))?;
    Ok(BlockToPublish { experiment_id, revision: revision as u64, commit_id, measured, decision })
}

/// Status, mu, its sd, tau, the sd of its logarithm.
pub(super) type JudgedColumns = (String, Option<f64>, Option<f64>, Option<f64>, Option<f64>);

pub(super) fn judged((name, mu, mu_sd, tau, log_tau_sd): JudgedColumns) -> Result<Judged, StoreError> {
    Ok(Judged { status: status(&name)?, mu, mu_sd, tau, log_tau_sd })
}

/// Population, status, experiments, effects, mu, tau, design effect, verdict, what it rests on, its value, when fitted, when
/// diagnosed, what it was fitted with.
pub(super) type CurrentPopulationColumns = (
    String,
    Option<String>,
    i64,
    i64,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<String>,
    Option<String>,
    Option<f64>,
    Option<OffsetDateTime>,
    Option<OffsetDateTime>,
    Option<String>,
);

pub(super) fn current_population(columns: CurrentPopulationColumns) -> Result<CurrentPopulation, StoreError> {
    let (
        id,
        name,
        experiments,
        effects,
        mu,
        tau,
        design_effect,
        verdict,
        rests_on,
        value,
        fitted,
        diagnosed,
        fit_settings,
    ) = columns;
    let status = name.as_deref().map(status).transpose()?;
    Ok(CurrentPopulation {
        population: population(&id)?,
        status,
        experiments,
        effects,
        mu,
        tau,
        design_effect,
        verdict: verdict.as_deref().map(self::verdict).transpose()?,
        verdict_rests_on: rests_on.as_deref().map(measure).transpose()?,
        verdict_value: value,
        fitted_at: fitted,
        fit_settings,
        diagnosed_at: diagnosed,
    })
}

/// Population, and whether its diagnosis is due.
pub(super) fn due_pass((name, is_diagnosis_due): (String, bool)) -> Result<DuePass, StoreError> {
    Ok(DuePass { population: population(&name)?, is_diagnosis_due })
}

/// Correlation, effects, then of mu and of tau: mean, median, sd, 2.5, 25, 75 and 97.5% quantiles.
pub(super) type CurrentFitColumns = (
    String,
    i64,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
);

pub(super) fn current_fit(columns: CurrentFitColumns) -> Result<CurrentFit, StoreError> {
    let (name, effects, m1, m2, m3, m4, m5, m6, m7, t1, t2, t3, t4, t5, t6, t7) = columns;
    let summary =
        |[mean, median, sd, q025, q25, q75, q975]: [Option<f64>; 7]| Summary { mean, median, sd, q025, q25, q75, q975 };
    let (mu, tau) = (summary([m1, m2, m3, m4, m5, m6, m7]), summary([t1, t2, t3, t4, t5, t6, t7]));
    Ok(CurrentFit { correlation: correlation(&name)?, effects, mu, tau })
}

/// Experiment, variant, raw estimate, its standard error, posterior mean, its sd, ends of the 95% interval.
pub(super) type PublishedEffectColumns = (String, String, f64, f64, f64, f64, f64, f64);

pub(super) fn published_effect(columns: PublishedEffectColumns) -> PublishedEffect {
    let (experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, low, high) = columns;
    PublishedEffect { experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, ci95: (low, high) }
}
