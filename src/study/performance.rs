//! The performance of an estimator over replicates with known truth.
//!
//! Definitions and Monte Carlo standard errors after Morris, White and Crowther, "Using simulation studies to evaluate
//! statistical methods", Statistics in Medicine 38:2074-2102, 2019, table 6. Replicates are the
//! independent units: the effects of one replicate share a fit, so they are averaged before standard errors are computed.

use serde::Serialize;

/// One replicate's estimate, scored against the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Estimate less truth, in the effects' unit.
    pub error: f64,
    pub squared_error: f64,
    /// 1 if the interval contains the truth, else 0; the share of intervals that do if several effects are averaged.
    pub coverage: f64,
}

/// The performance of an estimator. Each `_mcse` is the Monte Carlo standard error of the figure before it, `None` for
/// fewer than two replicates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Performance {
    pub bias: f64,
    pub bias_mcse: Option<f64>,
    pub rmse: f64,
    pub rmse_mcse: Option<f64>,
    /// Share of the 95% credible intervals that contain the truth.
    pub coverage: f64,
    pub coverage_mcse: Option<f64>,
}

impl Score {
    /// Scores an estimate and its interval against the truth.
    pub fn new(estimate: f64, (low, high): (f64, f64), truth: f64) -> Score {
        let error = estimate - truth;
        Score { error, squared_error: error * error, coverage: f64::from(u8::from(low <= truth && truth <= high)) }
    }

    /// The average over a replicate's effects, of which there must be at least one.
    pub fn mean(scores: &[Score]) -> Score {
        let mean = |figure| mean_and_error(scores, figure).0;
        Score {
            error: mean(|score| score.error),
            squared_error: mean(|score| score.squared_error),
            coverage: mean(|score| score.coverage),
        }
    }
}

impl Performance {
    /// The performance over replicates, of which there must be at least one.
    pub fn of(scores: &[Score]) -> Performance {
        let (bias, bias_mcse) = mean_and_error(scores, |score| score.error);
        let (mean_square, mean_square_mcse) = mean_and_error(scores, |score| score.squared_error);
        let (coverage, coverage_mcse) = mean_and_error(scores, |score| score.coverage);
        let rmse = mean_square.sqrt();
        // By the delta method for the square root.
        let rmse_mcse = mean_square_mcse.filter(|_| rmse > 0.0).map(|error| error / (2.0 * rmse));
        Performance { bias, bias_mcse, rmse, rmse_mcse, coverage, coverage_mcse }
    }
}

/// A mean and its standard error.
fn mean_and_error(scores: &[Score], figure: fn(&Score) -> f64) -> (f64, Option<f64>) {
    let count = scores.len() as f64;
    let mean = scores.iter().map(figure).sum::<f64>() / count;
    let squares: f64 = scores.iter().map(|score| (figure(score) - mean).powi(2)).sum();
    (mean, (scores.len() > 1).then(|| (squares / (count * (count - 1.0))).sqrt()))
}
