//! What both stores read back in the same way: names, packed columns, cells.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::StoreError;
use crate::event::{Measured, Scale};
use crate::ledger::stored::unpack;
use crate::model::diagnostics::Verdict;
use crate::model::fit::Treatment;
use crate::model::posterior::Node;
use crate::model::sketch::{Cell, cell_from_bytes};
use crate::population::PopulationName;
use crate::row::{CurrentPopulation, FitStatus, PublishedFit};

fn damaged(what: &'static str, detail: impl ToString) -> StoreError {
    StoreError::Damaged { what, detail: detail.to_string() }
}

pub(super) fn population(name: &str) -> Result<PopulationName, StoreError> {
    name.parse().map_err(|error| damaged("population_id", error))
}

pub(super) fn scale(name: &str) -> Result<Scale, StoreError> {
    let scale = Scale::ALL.into_iter().find(|scale| scale.as_str() == name);
    scale.ok_or_else(|| damaged("scale", format!("`{name}` is none")))
}

pub(super) fn treatment(name: &str) -> Result<Treatment, StoreError> {
    let treatment = Treatment::ALL.into_iter().find(|treatment| treatment.as_str() == name);
    treatment.ok_or_else(|| damaged("treatment", format!("`{name}` is none")))
}

pub(super) fn status(name: &str) -> Result<FitStatus, StoreError> {
    FitStatus::from_name(name).ok_or_else(|| damaged("status", format!("`{name}` is none")))
}

fn verdict(name: &str) -> Result<Verdict, StoreError> {
    let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == name);
    verdict.ok_or_else(|| damaged("verdict", format!("`{name}` is none")))
}

pub(super) fn nodes(bytes: &[u8]) -> Result<Vec<Node>, StoreError> {
    unpack("nodes", bytes).map_err(|error| damaged("population_fits.nodes", error))
}

pub(super) fn measured(bytes: &[u8]) -> Result<Measured, StoreError> {
    unpack("block", bytes).map_err(|error| damaged("blocks.block", error))
}

pub(super) fn labels_to_json(labels: &BTreeMap<String, String>) -> String {
    // A map from text to text has no value that JSON could not hold.
    serde_json::to_string(labels).unwrap_or_else(|_| "{}".to_owned())
}

pub(super) fn labels_from_json(text: &str) -> Result<BTreeMap<String, String>, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged("experiments.labels", error))
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

/// The fits of two treatments (population, fit id, treatment, status, nodes) as what rows are computed with.
pub(super) fn published_fits(
    rows: Vec<(String, i64, String, String, Vec<u8>)>,
) -> Result<BTreeMap<PopulationName, PublishedFit>, StoreError> {
    let mut fits = BTreeMap::new();
    for (name, fit_id, treatment_name, status_name, bytes) in rows {
        let fit = fits.entry(population(&name)?).or_insert_with(|| PublishedFit { fit_id, ..PublishedFit::none() });
        match treatment(&treatment_name)? {
            Treatment::Correlated => {
                fit.status = status(&status_name)?;
                fit.nodes = nodes(&bytes)?;
            }
            Treatment::Independent => fit.naive_nodes = nodes(&bytes)?,
            Treatment::OnePerExperiment => {}
        }
    }
    Ok(fits)
}

/// Population, status, experiments, effects, mu, tau, design effect, verdict, what it rests on, its value, when fitted, when
/// diagnosed.
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
);

pub(super) fn current_population(columns: CurrentPopulationColumns) -> Result<CurrentPopulation, StoreError> {
    let (id, name, experiments, effects, mu, tau, design_effect, verdict, rests_on, value, fitted, diagnosed) = columns;
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
        verdict_rests_on: rests_on,
        verdict_value: value,
        fitted_at: fitted,
        diagnosed_at: diagnosed,
    })
}
