//! The metrics whose pipelines compute effects themselves, and how these are drawn and reported.

use shrinkd_core::Scale;
use shrinkd_model::Direction;

use super::experiment::CONTROL;
use crate::simulate::Draws;
use crate::simulate::message::{ArmSize, Effect, Measurement, SamplingError};

/// A metric whose effects the producer computes itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EffectMetric {
    pub name: &'static str,
    pub scale: Scale,
    pub direction: Direction,
    /// Mean of the true effects, in the unit of the scale.
    pub mu: f64,
    /// Their standard deviation.
    pub tau: f64,
    /// The share of experiments that report it.
    pub reported: f64,
    /// Sampling variance that an arm contributes to an effect, times the arm's units.
    pub unit_variance: f64,
    form: Form,
}

/// How a pipeline reports its effects.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// Standard errors, and the units of every arm.
    ErrorAndUnits,
    /// Intervals, and the units of every arm.
    IntervalAndUnits,
    /// A bootstrapped covariance matrix.
    Covariance,
    /// Variances that contain the control's part alike.
    Scaled,
    /// What each treatment alone brings, beside the control's part.
    TreatmentVariance,
}

/// Minutes per user: its pipeline adjusts for covariates.
pub const ENGAGEMENT: EffectMetric = EffectMetric {
    name: "engagement",
    scale: Scale::Absolute,
    direction: Direction::Increase,
    mu: 0.2,
    tau: 0.5,
    reported: 0.3,
    unit_variance: 900.0,
    form: Form::ErrorAndUnits,
};

/// The 95th percentile of latency.
pub const LATENCY_P95: EffectMetric = EffectMetric {
    name: "latency_p95",
    scale: Scale::LogRatio,
    direction: Direction::Decrease,
    mu: -0.01,
    tau: 0.03,
    reported: 0.25,
    unit_variance: 4.0,
    form: Form::Covariance,
};

/// Median time to load a page.
pub const LOAD_TIME: EffectMetric = EffectMetric {
    name: "load_time",
    scale: Scale::LogRatio,
    direction: Direction::Decrease,
    mu: -0.01,
    tau: 0.02,
    reported: 0.2,
    unit_variance: 2.0,
    form: Form::IntervalAndUnits,
};

/// Days with a visit in the four weeks after sign-up, adjusted for the channel that users came by.
pub const RETENTION: EffectMetric = EffectMetric {
    name: "retention",
    scale: Scale::Relative,
    direction: Direction::Increase,
    mu: 0.005,
    tau: 0.02,
    reported: 0.2,
    unit_variance: 1.5,
    form: Form::Scaled,
};

/// Profit per user in the first week, which is below 0.
pub const FIRST_WEEK_PROFIT: EffectMetric = EffectMetric {
    name: "first_week_profit",
    scale: Scale::Relative,
    direction: Direction::Increase,
    mu: 0.01,
    tau: 0.04,
    reported: 0.2,
    unit_variance: 5.0,
    form: Form::TreatmentVariance,
};

/// The level of intervals, and the quantile of the normal distribution that belongs to it.
const LEVEL: f64 = 0.9;
const QUANTILE: f64 = 1.644_853_626_951_472_2;

impl EffectMetric {
    /// The effects of one experiment, each with the error of its own arm and that of the control. `sizes` are the units of every arm,
    /// the control first.
    pub(super) fn draw(&self, variants: &[String], sizes: &[u64], draws: &mut Draws) -> Measurement {
        let mut variances = sizes.iter().map(|&n| self.unit_variance / n as f64);
        let control_variance = variances.next().unwrap_or_default();
        let control_error = draws.normal(0.0, control_variance.sqrt());
        let treatment_variances: Vec<f64> = variances.collect();
        let estimates: Vec<f64> = treatment_variances
            .iter()
            .map(|own| {
                let true_effect = draws.normal(self.mu, self.tau);
                draws.normal(true_effect, own.sqrt()) - control_error
            })
            .collect();
        let (control_units, units) = sizes.split_first().map_or((0, sizes), |(control, units)| (*control, units));
        let has_units = matches!(self.form, Form::ErrorAndUnits | Form::IntervalAndUnits);
        let arms = variants.iter().zip(units).zip(estimates.iter().zip(&treatment_variances));
        let effects = arms.map(|((variant, &n), (&estimate, &own))| Effect {
            variant: variant.clone(),
            n: has_units.then_some(n),
            estimate,
            error: self.form.error(estimate, own, control_variance),
        });
        let has_control_variance = matches!(self.form, Form::Scaled | Form::TreatmentVariance);
        Measurement::Effects {
            control: has_units.then(|| ArmSize { variant: CONTROL.to_owned(), n: control_units }),
            effects: effects.collect(),
            control_variance: has_control_variance.then_some(control_variance),
            variance_form: (self.form == Form::Scaled).then_some("scaled"),
            covariance: (self.form == Form::Covariance).then(|| covariance(&treatment_variances, control_variance)),
        }
    }
}

impl Form {
    /// How the error of an effect is reported, to which the treatment brings the variance `own`.
    fn error(self, estimate: f64, own: f64, control_variance: f64) -> Option<SamplingError> {
        let variance = own + control_variance;
        match self {
            Form::ErrorAndUnits => Some(SamplingError::StandardError { standard_error: variance.sqrt() }),
            Form::IntervalAndUnits => {
                let half = QUANTILE * variance.sqrt();
                let (ci_low, ci_high) = (estimate - half, estimate + half);
                Some(SamplingError::Interval { ci_low, ci_high, ci_level: LEVEL })
            }
            Form::Covariance => None,
            Form::Scaled => Some(SamplingError::Variance { variance }),
            Form::TreatmentVariance => Some(SamplingError::TreatmentVariance { treatment_variance: own }),
        }
    }
}

/// `diag(d) + c 11'`, row by row.
fn covariance(treatment_variances: &[f64], control_variance: f64) -> Vec<Vec<f64>> {
    let row = |i| {
        let entry = |(j, own): (usize, &f64)| if i == j { own + control_variance } else { control_variance };
        treatment_variances.iter().enumerate().map(entry).collect()
    };
    (0..treatment_variances.len()).map(row).collect()
}
