//! The metrics of a portfolio: their truths, and how an arm of so many units comes out.

use shrinkd_core::Scale;

use crate::simulate::Draws;
use crate::simulate::message::Statistics;

/// A metric and the truth about its effects.
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
    /// A unit's mean in control, of a typical experiment.
    mean: f64,
    units: Units,
    form: Form,
}

/// How a unit's value is distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Units {
    /// 1 with the probability that is the mean, else 0.
    Binary,
    /// Any value with this standard deviation. `tail` is how much a sample's own variance scatters, as the sd of its
    /// logarithm: heavy tails make it large, and then a sample with a high mean has a high variance too.
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

/// Users who bought.
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

/// Money a user spent: most spend nothing, a few a fortune.
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

/// Milliseconds to the first answer.
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

/// Visits of a user.
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

/// Minutes a user stays: reported as effects, for its pipeline adjusts for covariates.
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
    /// Sampling variance of an arm's part in an effect, times the arm's units.
    pub unit_variance: f64,
}

/// What an arm's units add up to. Totals of disjoint units add, so half an experiment, one of its segments and the
/// whole of it agree.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    pub n: u64,
    pub sum: f64,
    pub sum_squares: f64,
}

impl Metric {
    /// The true mean of every arm, the control's first; the control's varies from experiment to experiment.
    pub fn draw_means(&self, treatments: usize, draws: &mut Draws) -> Vec<f64> {
        let control = self.mean * libm::exp(draws.normal(0.0, 0.15));
        let treatment = |effect: f64| match self.scale {
            Scale::Absolute => control + effect,
            Scale::Relative => control * (1.0 + effect),
            Scale::LogRatio => control * libm::exp(effect),
        };
        let effects = (0..treatments).map(|_| treatment(draws.normal(self.mu, self.tau)));
        std::iter::once(control).chain(effects).collect()
    }

    /// The totals of `n` units whose true mean is `mean`. The sum is drawn from its normal limit: arms have hundreds
    /// of units at least, the rarest successes some tens.
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

    /// The sample variance, by n - 1.
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
