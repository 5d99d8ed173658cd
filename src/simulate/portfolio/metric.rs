//! The metrics that are reported by arm: their true parameters, and how an arm's measurements are drawn.

use shrinkd_core::Scale;
use shrinkd_model::Direction;

use crate::simulate::Draws;
use crate::simulate::message::Statistics;

/// A metric and the true distribution of its effects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub scale: Scale,
    pub direction: Direction,
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
    /// The same without a tail, beside a second value: a denominator or a covariate.
    Paired { sd: f64, second: Second },
}

/// The second value of a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Second {
    mean: f64,
    sd: f64,
    /// Its correlation with the first.
    correlation: f64,
}

/// How the pipeline of a metric reports its arms.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Successes,
    MeanAndVariance,
    MeanAndDeviation,
    MeanAndError,
    Sums,
    /// The second value is the denominator, and the metric's mean the ratio.
    Ratio,
    /// The second value is the covariate, of which the treatments change nothing.
    Covariate,
}

/// Whether a user bought something.
pub const CONVERSION: Metric = Metric {
    name: "conversion",
    scale: Scale::Relative,
    direction: Direction::Increase,
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
    direction: Direction::Increase,
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
    direction: Direction::Decrease,
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
    direction: Direction::Increase,
    mu: 0.004,
    tau: 0.015,
    reported: 0.5,
    mean: 4.2,
    units: Units::Continuous { sd: 6.0, tail: 0.05 },
    form: Form::Sums,
};

/// The metrics that every portfolio has had from the first.
pub const METRICS: [Metric; 4] = [CONVERSION, REVENUE, LATENCY, SESSIONS];

/// Whether a user left within the month.
pub const CHURN: Metric = Metric {
    name: "churn",
    scale: Scale::LogOdds,
    direction: Direction::Decrease,
    mu: -0.02,
    tau: 0.06,
    reported: 0.3,
    mean: 0.05,
    units: Units::Binary,
    form: Form::Successes,
};

/// Items in the basket.
pub const BASKET_SIZE: Metric = Metric {
    name: "basket_size",
    scale: Scale::Absolute,
    direction: Direction::Increase,
    mu: 0.01,
    tau: 0.04,
    reported: 0.2,
    mean: 3.1,
    units: Units::Continuous { sd: 2.4, tail: 0.05 },
    form: Form::MeanAndDeviation,
};

/// Revenue per order, where the units are users.
pub const REVENUE_PER_ORDER: Metric = Metric {
    name: "revenue_per_order",
    scale: Scale::Relative,
    direction: Direction::Increase,
    mu: 0.005,
    tau: 0.02,
    reported: 0.3,
    mean: 40.0,
    units: Units::Paired { sd: 70.0, second: Second { mean: 1.3, sd: 1.2, correlation: 0.7 } },
    form: Form::Ratio,
};

/// Pages per user, adjusted for those of the four weeks before.
pub const PAGES: Metric = Metric {
    name: "pages",
    scale: Scale::Absolute,
    direction: Direction::Increase,
    mu: 0.1,
    tau: 0.4,
    reported: 0.3,
    mean: 18.0,
    units: Units::Paired { sd: 40.0, second: Second { mean: 20.0, sd: 30.0, correlation: 0.7 } },
    form: Form::Covariate,
};

/// Metrics of further forms.
pub const FURTHER_METRICS: [Metric; 4] = [CHURN, BASKET_SIZE, REVENUE_PER_ORDER, PAGES];

/// Sums over an arm's units. Totals of disjoint units add up, so that interim results, segments and the complete
/// experiment are consistent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    pub n: u64,
    pub sum: f64,
    pub sum_squares: f64,
    /// Of the second value, and of both multiplied; 0 where there is none.
    pub second_sum: f64,
    pub second_sum_squares: f64,
    pub product_sum: f64,
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
                Totals { n, sum: successes, sum_squares: successes, ..Totals::default() }
            }
            Units::Continuous { sd, tail } => {
                let scatter = 0.6 * error + 0.8 * draws.standard_normal();
                let variance = sd * sd * libm::exp(tail * scatter - 0.5 * tail * tail);
                let sample_mean = mean + sd / units.sqrt() * error;
                let sum_squares = (units - 1.0) * variance + units * sample_mean * sample_mean;
                Totals { n, sum: units * sample_mean, sum_squares, ..Totals::default() }
            }
            Units::Paired { sd, second } => {
                let Second { mean: second_mean, sd: second_sd, correlation } = second;
                let mean = if self.form == Form::Ratio { mean * second_mean } else { mean };
                let own = (1.0 - correlation * correlation).sqrt() * draws.standard_normal();
                let sample_mean = mean + sd / units.sqrt() * error;
                let second_mean = second_mean + second_sd / units.sqrt() * (correlation * error + own);
                let sum_over_units = |covariance: f64, product: f64| (units - 1.0) * covariance + units * product;
                Totals {
                    n,
                    sum: units * sample_mean,
                    sum_squares: sum_over_units(sd * sd, sample_mean * sample_mean),
                    second_sum: units * second_mean,
                    second_sum_squares: sum_over_units(second_sd * second_sd, second_mean * second_mean),
                    product_sum: sum_over_units(correlation * sd * second_sd, sample_mean * second_mean),
                }
            }
        }
    }

    /// An arm's totals in the form in which the metric is reported.
    pub fn statistics(&self, totals: Totals) -> Statistics {
        let Totals { n, sum, sum_squares, second_sum, second_sum_squares, product_sum } = totals;
        match self.form {
            Form::Successes => Statistics::Successes { n, successes: sum as u64 },
            Form::MeanAndVariance => {
                Statistics::MeanAndVariance { n, mean: totals.mean(), variance: Some(totals.variance()) }
            }
            Form::MeanAndDeviation => {
                let standard_deviation = totals.variance().sqrt();
                Statistics::MeanAndDeviation { n, mean: totals.mean(), standard_deviation }
            }
            Form::MeanAndError => {
                Statistics::MeanAndError { mean: totals.mean(), standard_error: (totals.variance() / n as f64).sqrt() }
            }
            Form::Sums => Statistics::Sums { n, sum, sum_squares },
            Form::Ratio => Statistics::Ratio {
                n,
                sum,
                sum_squares,
                denominator_sum: second_sum,
                denominator_sum_squares: second_sum_squares,
                numerator_denominator_sum_product: product_sum,
            },
            Form::Covariate => Statistics::Covariate {
                n,
                sum,
                sum_squares,
                covariate_sum: second_sum,
                covariate_sum_squares: second_sum_squares,
                main_covariate_sum_product: product_sum,
            },
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
        Totals {
            n: self.n + other.n,
            sum: self.sum + other.sum,
            sum_squares: self.sum_squares + other.sum_squares,
            second_sum: self.second_sum + other.second_sum,
            second_sum_squares: self.second_sum_squares + other.second_sum_squares,
            product_sum: self.product_sum + other.product_sum,
        }
    }
}
