//! The metrics of a portfolio: their true parameters, and how an arm's measurements are drawn.

use shrinkd_core::Scale;

use crate::simulate::Draws;
use crate::simulate::message::Statistics;

/// A metric and the true distribution of its effects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub scale: Scale,
    /// Mean of the true effects, in the unit of the scale.
    pub mu: f64,
    /// Their standard deviation.
    pub tau: f64,
    /// The share of experiments that report it.
    pub reported: f64,
    /// Mean per unit in the control of a typical experiment.
    mean: f64,
    units: Units,
    form: Form,
}

/// The distribution of a unit's value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Units {
    /// 1 with the mean as its probability, else 0.
    Binary,
    /// A continuous value with this standard deviation. `tail` is the sd of the logarithm of a sample's variance: it is
    /// large for heavy tails, where a sample with a high mean also has a high variance.
    Continuous { sd: f64, tail: f64 },
}

/// How the pipeline of a metric reports its arms.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Successes,
    MeanAndVariance,
    MeanAndError,
    Sums,
}

/// Whether a user bought something.
pub const CONVERSION: Metric = Metric {
    name: "conversion",
    scale: Scale::Relative,
    mu: 0.01,
    tau: 0.04,
    reported: 1.0,
    mean: 0.06,
    units: Units::Binary,
    form: Form::Successes,
};

/// Revenue per user, which is heavy-tailed: most users spend nothing, a few spend very much.
pub const REVENUE: Metric = Metric {
    name: "revenue",
    scale: Scale::Absolute,
    mu: 0.1,
    tau: 0.3,
    reported: 1.0,
    mean: 9.0,
    units: Units::Continuous { sd: 40.0, tail: 0.35 },
    form: Form::MeanAndVariance,
};

/// Milliseconds to the first response.
pub const LATENCY: Metric = Metric {
    name: "latency",
    scale: Scale::LogRatio,
    mu: -0.005,
    tau: 0.02,
    reported: 0.7,
    mean: 350.0,
    units: Units::Continuous { sd: 180.0, tail: 0.05 },
    form: Form::MeanAndError,
};

/// Visits per user.
pub const SESSIONS: Metric = Metric {
    name: "sessions",
    scale: Scale::Relative,
    mu: 0.004,
    tau: 0.015,
    reported: 0.5,
    mean: 4.2,
    units: Units::Continuous { sd: 6.0, tail: 0.05 },
    form: Form::Sums,
};

/// The metrics that are reported by arm.
pub const METRICS: [Metric; 4] = [CONVERSION, REVENUE, LATENCY, SESSIONS];

/// Minutes per user: reported as effects with the units of the arms, because its pipeline adjusts for covariates.
pub const ENGAGEMENT: EffectMetric =
    EffectMetric { name: "engagement", scale: Scale::Absolute, mu: 0.2, tau: 0.5, reported: 0.3, unit_variance: 900.0 };

/// The 95th percentile of latency: reported as effects with a bootstrapped covariance matrix.
pub const LATENCY_P95: EffectMetric = EffectMetric {
    name: "latency_p95",
    scale: Scale::LogRatio,
    mu: -0.01,
    tau: 0.03,
    reported: 0.25,
    unit_variance: 4.0,
};

/// A metric whose effects the producer computes itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EffectMetric {
    pub name: &'static str,
    pub scale: Scale,
    /// Mean of the true effects, in the unit of the scale.
    pub mu: f64,
    /// Their standard deviation.
    pub tau: f64,
    /// The share of experiments that report it.
    pub reported: f64,
    /// Sampling variance that an arm contributes to an effect, times the arm's units.
    pub unit_variance: f64,
}

/// Sums over an arm's units. Totals of disjoint units add up, so that interim results, segments and the complete
/// experiment are consistent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    pub n: u64,
    pub sum: f64,
    pub sum_squares: f64,
}

impl Metric {
    /// The true mean of every arm, the control first; the control's mean varies between experiments.
    pub fn draw_means(&self, treatments: usize, draws: &mut Draws) -> Vec<f64> {
        let control = self.mean * libm::exp(draws.normal(0.0, 0.15));
        let treatment = |effect: f64| match self.scale {
            Scale::Absolute => control + effect,
            Scale::Relative => control * (1.0 + effect),
            Scale::LogRatio => control * libm::exp(effect),
            Scale::LogOdds => {
                let odds = control / (1.0 - control) * libm::exp(effect);
                odds / (1.0 + odds)
            }
        };
        let effects = (0..treatments).map(|_| treatment(draws.normal(self.mu, self.tau)));
        std::iter::once(control).chain(effects).collect()
    }

    /// The totals of `n` units with true mean `mean`. The sum is drawn from its normal approximation: an arm has at least
    /// hundreds of units, and at least tens of successes.
    pub fn draw_totals(&self, n: u64, mean: f64, draws: &mut Draws) -> Totals {
        let units = n as f64;
        let error = draws.standard_normal();
        match self.units {
            Units::Binary => {
                let successes = units * mean + (units * mean * (1.0 - mean)).sqrt() * error;
                let successes = successes.round().clamp(0.0, units);
                Totals { n, sum: successes, sum_squares: successes }
            }
            Units::Continuous { sd, tail } => {
                let scatter = 0.6 * error + 0.8 * draws.standard_normal();
                let variance = sd * sd * libm::exp(tail * scatter - 0.5 * tail * tail);
                let sample_mean = mean + sd / units.sqrt() * error;
                let sum_squares = (units - 1.0) * variance + units * sample_mean * sample_mean;
                Totals { n, sum: units * sample_mean, sum_squares }
            }
        }
    }

    /// An arm's totals in the form in which the metric is reported.
    pub fn statistics(&self, totals: Totals) -> Statistics {
        let Totals { n, sum, sum_squares } = totals;
        match self.form {
            Form::Successes => Statistics::Successes { n, successes: sum as u64 },
            Form::MeanAndVariance => {
                Statistics::MeanAndVariance { n, mean: totals.mean(), variance: Some(totals.variance()) }
            }
            Form::MeanAndError => {
                Statistics::MeanAndError { mean: totals.mean(), standard_error: (totals.variance() / n as f64).sqrt() }
            }
            Form::Sums => Statistics::Sums { n, sum, sum_squares },
        }
    }
}

impl Totals {
    pub fn mean(&self) -> f64 {
        self.sum / self.n as f64
    }

    /// The sample variance, with divisor n - 1.
    pub fn variance(&self) -> f64 {
        (self.sum_squares - self.sum * self.mean()) / (self.n as f64 - 1.0)
    }
}

impl std::ops::Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        Totals { n: self.n + other.n, sum: self.sum + other.sum, sum_squares: self.sum_squares + other.sum_squares }
    }
}
