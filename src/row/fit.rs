//! Rows of fits and of what a pass diagnoses.

use shrinkd_model::{Correlation, Direction, IccPosterior, IccStatus, Node, PosteriorError, ScaleError, Summary};

/// The published fit of a population, with which its estimates are computed until the next fit is published.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedFit {
    pub fit_id: i64,
    pub status: FitStatus,
    /// Which way of the effects is better where a result does not say; `None` before the first fit.
    pub direction: Option<Direction>,
    /// With the correlation modelled; empty unless fitted.
    pub nodes: Vec<Node>,
    /// With the correlation ignored; empty if that model has no posterior.
    pub naive_nodes: Vec<Node>,
}

impl PublishedFit {
    /// Stands in for a fit before the first one is published.
    pub fn none() -> PublishedFit {
        PublishedFit {
            fit_id: 0,
            status: FitStatus::ColdStart,
            direction: None,
            nodes: Vec::new(),
            naive_nodes: Vec::new(),
        }
    }
}

/// Whether a population has shrunken estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FitStatus {
    Fitted,
    /// Too few experiments for the priors in use. Rows have raw estimates only.
    ColdStart,
    /// No posterior under the priors in use. Rows have raw estimates only.
    Improper,
    /// The arithmetic failed. A population keeps its published fit, and is fitted again when its data or settings change or a
    /// worker starts; rows that have no other fit, or whose own arithmetic failed, have raw estimates only.
    Failed,
}

impl FitStatus {
    pub const ALL: [FitStatus; 4] = [FitStatus::Fitted, FitStatus::ColdStart, FitStatus::Improper, FitStatus::Failed];

    /// The status of a population without a posterior.
    pub fn without(error: &PosteriorError) -> FitStatus {
        match error {
            PosteriorError::Empty
            | PosteriorError::Improper { .. }
            | PosteriorError::ImproperAlike { .. }
            | PosteriorError::Scale(ScaleError::Empty)
            | PosteriorError::Degenerate => FitStatus::Improper,
            PosteriorError::OneEffect
            | PosteriorError::Scale(ScaleError::OneEffect | ScaleError::NoSpread)
            | PosteriorError::OutOfRange
            | PosteriorError::UnknownIcc
            | PosteriorError::NotFinite { .. } => FitStatus::Failed,
        }
    }

    /// The name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            FitStatus::Fitted => "fitted",
            FitStatus::ColdStart => "cold_start",
            FitStatus::Improper => "improper",
            FitStatus::Failed => "failed",
        }
    }
}

/// One fit of a population under one model of correlation.
#[derive(Debug, Clone, PartialEq)]
pub struct FitRow {
    pub correlation: Correlation,
    pub status: FitStatus,
    pub message: Option<String>,
    /// Which way of the effects is better where a result does not say.
    pub direction: Direction,
    /// Whether a prior is in another unit than the data, as it seems: see [`FarPrior`](shrinkd_model::FarPrior).
    pub is_prior_far: bool,
    pub effects: u64,
    /// Experiments of several variants, which are what can be said of an intraclass correlation.
    pub multi_variant_experiments: u64,
    pub mu: Summary,
    pub tau: Summary,
    /// Of the intraclass correlation where that is part of the fit.
    pub icc: Option<IccPosterior>,
    /// Whether the data say anything of it; `None` where its prior leaves nothing to be said.
    pub icc_status: Option<IccStatus>,
    pub mu_tau_correlation: Option<f64>,
    pub log_evidence: Option<f64>,
    pub predictive: Summary,
    pub log_tau_sd: Option<f64>,
    /// See [`TauDistribution::shortest95`](shrinkd_model::TauDistribution::shortest95).
    pub tau_shortest95: Option<(f64, f64)>,
    /// See [`TauDistribution::negligible`](shrinkd_model::TauDistribution::negligible).
    pub prob_tau_negligible: Option<f64>,
    /// The priors of the fit, in the unit of the effects.
    pub prior_mu: Option<String>,
    pub prior_tau: Option<String>,
    pub prior_icc: Option<String>,
    /// Distance of the approximations from exact, in exact posterior sds.
    pub laplace: Option<shrinkd_model::Distance>,
    pub variational: Option<shrinkd_model::Distance>,
    pub nodes: Vec<Node>,
}

impl FitRow {
    /// A fit that has no posterior, and why.
    pub fn without_posterior(correlation: Correlation, status: FitStatus, message: String, effects: u64) -> FitRow {
        FitRow {
            correlation,
            status,
            message: Some(message),
            direction: Direction::default(),
            is_prior_far: false,
            effects,
            multi_variant_experiments: 0,
            mu: Summary::default(),
            tau: Summary::default(),
            icc: None,
            icc_status: None,
            mu_tau_correlation: None,
            log_evidence: None,
            predictive: Summary::default(),
            log_tau_sd: None,
            tau_shortest95: None,
            prob_tau_negligible: None,
            prior_mu: None,
            prior_tau: None,
            prior_icc: None,
            laplace: None,
            variational: None,
            nodes: Vec::new(),
        }
    }
}

/// Diagnostics that follow from the cells of a population.
pub type CellDiagnostics = shrinkd_model::Diagnostics;

/// Diagnostics from a pass through all blocks of a population.
#[derive(Debug, Clone, PartialEq)]
pub struct PassDiagnostics {
    pub experiments: u64,
    pub deff: f64,
    pub deff_control: f64,
    pub naive_coverage: f64,
    pub rmse_excess: Option<f64>,
    pub changed_decisions: u64,
    pub changed_decision_share: f64,
    pub value_given_up: Option<f64>,
    /// See [`Misfit`](shrinkd_model::Misfit); these and the scores in the order of the models of correlation.
    pub risk: [Option<f64>; Correlation::COUNT],
    pub score: [Option<f64>; Correlation::COUNT],
    pub largest_correlation: f64,
    pub largest_estimate_shift: f64,
    pub sign_calls: u64,
    pub sign_flips: u64,
    pub sign_flip_share: f64,
    pub hausman_z: Option<f64>,
    pub calibration: Option<shrinkd_model::Calibration>,
    /// The likely cause where predictions are not borne out.
    pub calibration_cause: Option<shrinkd_model::Miscalibration>,
    pub selection: Option<shrinkd_model::Selection>,
    /// Effects that were likely sent in another unit.
    pub mix_ups: u64,
    /// The share of experiments whose decision means shipped; `None` if no experiment has a decision.
    pub shipped_share: Option<f64>,
    pub verdict: shrinkd_model::Verdict,
    pub verdict_rests_on: shrinkd_model::Measure,
    pub verdict_value: f64,
}

/// The latest fit of a population under one model of correlation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurrentFit {
    pub correlation: Correlation,
    pub effects: i64,
    pub mu: Summary,
    pub tau: Summary,
}
