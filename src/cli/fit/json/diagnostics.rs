//! What is diagnosed of a population, as JSON.

use serde::Serialize;
use shrinkd_model::{Analysis, Calibration, Comparison, Distance, Miscalibration, PIT_BINS, Selection};

use super::super::report::FittedPopulation;

#[derive(Serialize, Default)]
pub(super) struct DiagnosticsDocument {
    verdict: Option<&'static str>,
    verdict_rests_on: Option<&'static str>,
    verdict_value: Option<f64>,
    deff: Option<f64>,
    deff_control: Option<f64>,
    naive_coverage: Option<f64>,
    rmse_excess: Option<f64>,
    changed_decisions: Option<u64>,
    changed_decision_share: Option<f64>,
    value_given_up: Option<f64>,
    information: Option<f64>,
    information_ignored: Option<f64>,
    effective_effects: Option<f64>,
    tau_squared_moment_bias: Option<f64>,
    mu_shift: Option<f64>,
    log_tau_shift: Option<f64>,
    hausman_z: Option<f64>,
    largest_correlation: Option<f64>,
    largest_estimate_shift: Option<f64>,
    sign_calls: Option<u64>,
    sign_flips: Option<u64>,
    shipped_share: Option<f64>,
    selection: Option<SelectionDocument>,
    calibration: Option<CalibrationDocument>,
    laplace: Option<DistanceDocument>,
    variational: Option<DistanceDocument>,
}

#[derive(Serialize)]
struct CalibrationDocument {
    effects: u64,
    rms_z: f64,
    coverage50: f64,
    coverage80: f64,
    coverage95: f64,
    coverage50_low: f64,
    coverage50_high: f64,
    coverage80_low: f64,
    coverage80_high: f64,
    coverage95_low: f64,
    coverage95_high: f64,
    pit_histogram: [u64; PIT_BINS],
    /// The likely cause where a coverage or a bin is out of its bounds.
    cause: Option<&'static str>,
}

#[derive(Serialize)]
struct SelectionDocument {
    log_lr: f64,
    eta: f64,
    missing_share: f64,
    caliper_p: Option<f64>,
    is_suspected: bool,
}

/// Distance of an approximation from the exact posterior, in posterior sds.
#[derive(Serialize)]
struct DistanceDocument {
    mu_mean: Option<f64>,
    mu_sd: Option<f64>,
    tau_median: Option<f64>,
    tau_sd: Option<f64>,
    log_evidence: Option<f64>,
}

impl DiagnosticsDocument {
    pub(super) fn new(fitted: &FittedPopulation, analysis: Option<&Analysis>) -> DiagnosticsDocument {
        let mut document =
            DiagnosticsDocument { shipped_share: fitted.shipped_share, ..DiagnosticsDocument::default() };
        let Some(analysis) = analysis else { return document };
        if let Some(comparison) = &analysis.comparison {
            document.add_comparison(comparison);
        }
        let cause = analysis.miscalibration.map(Miscalibration::as_str);
        document.calibration = analysis.calibration.map(|calibration| CalibrationDocument::new(&calibration, cause));
        document.selection = analysis.selection.map(SelectionDocument::from);
        let [laplace, variational] = analysis.distances.unwrap_or_default();
        document.laplace = laplace.map(DistanceDocument::from);
        document.variational = variational.map(DistanceDocument::from);
        document
    }

    fn add_comparison(&mut self, comparison: &Comparison) {
        let Comparison { diagnostics, consequences, hausman_z, verdict, rests_on, .. } = comparison;
        self.verdict = Some(verdict.as_str());
        self.verdict_rests_on = Some(rests_on.0.as_str());
        self.verdict_value = Some(rests_on.1);
        self.deff = Some(consequences.deff());
        self.deff_control = Some(consequences.deff_control());
        self.naive_coverage = Some(consequences.naive_coverage());
        self.rmse_excess = consequences.rmse_excess();
        self.changed_decisions = Some(consequences.changed_decisions());
        self.changed_decision_share = Some(consequences.changed_decision_share());
        self.value_given_up = consequences.value_given_up();
        self.information = Some(diagnostics.information);
        self.information_ignored = Some(diagnostics.information_ignored);
        self.effective_effects = Some(diagnostics.effective_effects);
        self.tau_squared_moment_bias = diagnostics.tau_squared_moment_bias;
        self.mu_shift = diagnostics.mu_shift;
        self.log_tau_shift = diagnostics.log_tau_shift;
        self.hausman_z = *hausman_z;
        self.largest_correlation = Some(consequences.largest_correlation());
        self.largest_estimate_shift = Some(consequences.largest_estimate_shift());
        self.sign_calls = Some(consequences.sign_calls());
        self.sign_flips = Some(consequences.sign_flips());
    }
}

impl CalibrationDocument {
    fn new(calibration: &Calibration, cause: Option<&'static str>) -> CalibrationDocument {
        let Calibration { effects, rms_z, coverage50, coverage80, coverage95, pit_histogram, .. } = *calibration;
        let (coverage50_low, coverage50_high) = calibration.bounds(0.5);
        let (coverage80_low, coverage80_high) = calibration.bounds(0.8);
        let (coverage95_low, coverage95_high) = calibration.bounds(0.95);
        CalibrationDocument {
            effects,
            rms_z,
            coverage50,
            coverage80,
            coverage95,
            coverage50_low,
            coverage50_high,
            coverage80_low,
            coverage80_high,
            coverage95_low,
            coverage95_high,
            pit_histogram,
            cause,
        }
    }
}

impl From<Selection> for SelectionDocument {
    fn from(selection: Selection) -> SelectionDocument {
        let Selection { log_lr, eta, missing_share, caliper_p, .. } = selection;
        SelectionDocument { log_lr, eta, missing_share, caliper_p, is_suspected: selection.is_suspected() }
    }
}

impl From<Distance> for DistanceDocument {
    fn from(distance: Distance) -> DistanceDocument {
        let Distance { mu_mean, mu_sd, tau_median, tau_sd, log_evidence } = distance;
        DistanceDocument { mu_mean, mu_sd, tau_median, tau_sd, log_evidence }
    }
}
