//! Whether correlation matters: what the shared controls did to a population, and to each of its blocks.
//!
//! | module | contents |
//! | --- | --- |
//! | this file | the population: information, effective number of effects, shifts between the models, the verdict |
//! | `block` | one block: its information and influence, whether its control looks shifted |
//! | `leave_one_out` | what the other experiments predict for each one |
//! | `calibration` | whether these predictions are borne out |
//! | `selection` | whether the losers arrive |
//!
//! The design effect is that of the weighted mean that the naive model would use (Kish, Survey Sampling, 1965, section
//! 8.2, with V for the covariance); the test of the shift is that of Hausman (Econometrica 46, 1978): under the block
//! model the naive estimate is consistent and inefficient, so that the variance of the difference is the difference of
//! the variances.

mod block;
mod calibration;
mod leave_one_out;
mod selection;

use super::block::{Block, Covariance};
use super::likelihood::Likelihood;
use super::posterior::Posterior;
use super::shrinkage::Estimate;
use super::sketch::{self, Sketch};
pub use block::{BlockDiagnostics, set_q_values};
pub use calibration::{Calibration, Miscalibration, PIT_BINS};
pub use leave_one_out::{LeaveOneOut, Prediction};
pub use selection::{Selection, SelectionCounts};

/// Diagnostics of a population that its sketches determine, without a pass over its blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostics {
    /// `I = E[A]` under the block model, averaged over tau, in the effects' unit^-2.
    pub information: f64,
    /// `I0 = E[A]` under the naive model, over the same tau.
    pub information_independent: f64,
    /// `N I / I0`: how many independent effects carry as much information about mu.
    pub effective_effects: f64,
    /// Bias of the naive moment estimate of tau^2: `-sum_k sum_{i != j} Sigma_k,ij / (N (N - 1))`; `None` for one effect.
    pub tau_squared_moment_bias: Option<f64>,
    /// (mu naive - mu) in posterior sds of mu.
    pub mu_shift: Option<f64>,
    /// (log of tau's median naive - log of tau's median) in posterior sds of log tau.
    pub log_tau_shift: Option<f64>,
}

impl Diagnostics {
    /// Compares the fits of the two models of one population.
    pub fn new(
        modelled: (&Sketch, &impl Likelihood, &Posterior),
        ignored: (&impl Likelihood, &Posterior),
    ) -> Diagnostics {
        let (cells, likelihood, posterior) = modelled;
        let (naive_likelihood, naive) = ignored;
        let average = |information: &dyn Fn(f64) -> f64| -> f64 {
            posterior.nodes.iter().map(|node| node.weight * information(node.tau * node.tau)).sum()
        };
        let information = average(&|t| likelihood.at(t).a);
        let information_independent = average(&|t| naive_likelihood.at(t).a);
        let effects = likelihood.effects() as f64;
        let off_diagonal = off_diagonal_sum(cells);
        let centre = |p: &Posterior| p.mu.mean.or(p.mu.median);
        let mu_sd =
            posterior.mu.sd.or_else(|| Some((posterior.mu.q75? - posterior.mu.q25?) / (2.0 * super::normal::Z_75)));
        Diagnostics {
            information,
            information_independent,
            effective_effects: effects * information / information_independent,
            tau_squared_moment_bias: (effects > 1.0).then(|| -off_diagonal / (effects * (effects - 1.0))),
            mu_shift: shift(centre(naive), centre(posterior), mu_sd),
            log_tau_shift: shift(
                naive.tau.median.map(f64::ln),
                posterior.tau.median.map(f64::ln),
                Some(posterior.tau_distribution.log_sd()),
            ),
        }
    }
}

impl Diagnostics {
    /// Whether every figure that exists is a finite number.
    pub fn is_finite(&self) -> bool {
        let Diagnostics {
            information,
            information_independent,
            effective_effects,
            tau_squared_moment_bias,
            mu_shift,
            log_tau_shift,
        } = *self;
        let always = [information, information_independent, effective_effects].map(Some);
        let others = [tau_squared_moment_bias, mu_shift, log_tau_shift];
        always.into_iter().chain(others).flatten().all(f64::is_finite)
    }
}

/// `(naive - block model) / sd`, where there is such a number.
fn shift(naive: Option<f64>, modelled: Option<f64>, sd: Option<f64>) -> Option<f64> {
    Some((naive? - modelled?) / sd?).filter(|shift| shift.is_finite())
}

/// The sum of all off-diagonal sampling covariances, `sum lambda (a^2 - 1)` over the components, from the first two
/// moments: `lambda = s (u + 3) / 2`.
fn off_diagonal_sum(cells: &Sketch) -> f64 {
    cells
        .cells()
        .map(|(octave, cell)| {
            let excess = |m: usize| {
                let [count, aa, ..] = cell[m];
                // Both in 2^-62, so that blocks of one effect cancel exactly.
                ((aa >> (sketch::AA_BITS - sketch::COUNT_BITS)) - count) as f64
                    * sketch::power_of_two(-sketch::COUNT_BITS)
            };
            0.5 * sketch::power_of_two(i32::from(octave)) * (excess(1) + 3.0 * excess(0))
        })
        .sum()
}

/// Diagnostics of a population that need a pass over its blocks, at one tau (its posterior median).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BlockPass {
    /// Effects with an estimate under both models.
    compared: u64,
    weight: f64,
    weighted_variance: f64,
    largest_correlation: f64,
    largest_estimate_shift: f64,
    sign_calls: u64,
    sign_flips: u64,
}

/// A sign is called where the local false sign rate is below this: where the equal-tailed 95% interval excludes 0.
const SIGN_CALL: f64 = 0.025;

impl BlockPass {
    /// Adds one block: its covariance at t = tau^2, and its estimates under the two models.
    pub fn add(&mut self, block: &Block, t: f64, estimates: &[Estimate], naive: &[Estimate]) {
        let n = block.len();
        let weights: Vec<f64> = (0..n).map(|i| 1.0 / (block.sampling_variance(i) + t)).collect();
        self.weight += weights.iter().sum::<f64>();
        let (quadratic, correlation) = off_diagonals(block, &weights);
        // g_i V_ii g_i = g_i on the diagonal.
        self.weighted_variance += weights.iter().sum::<f64>() + quadratic;
        self.largest_correlation = self.largest_correlation.max(correlation);
        self.compared += estimates.len().min(naive.len()) as u64;
        for (estimate, naive) in estimates.iter().zip(naive) {
            self.largest_estimate_shift =
                self.largest_estimate_shift.max((naive.mean - estimate.mean).abs() / estimate.sd);
            let (sign, naive_sign) = (sign_call(estimate), sign_call(naive));
            self.sign_calls += u64::from(sign != 0);
            self.sign_flips += u64::from(sign != naive_sign);
        }
    }

    /// Adds a pass over other blocks.
    pub fn merge(&mut self, other: &BlockPass) {
        self.compared += other.compared;
        self.weight += other.weight;
        self.weighted_variance += other.weighted_variance;
        self.largest_correlation = self.largest_correlation.max(other.largest_correlation);
        self.largest_estimate_shift = self.largest_estimate_shift.max(other.largest_estimate_shift);
        self.sign_calls += other.sign_calls;
        self.sign_flips += other.sign_flips;
    }

    /// `DEFF = sum_k g'V_k g / sum g`, `g_i = 1 / V_ii`: by how much the naive variance of mu must be multiplied.
    pub fn design_effect(&self) -> f64 {
        self.weighted_variance / self.weight
    }

    /// The largest `|V_ij| / sqrt(V_ii V_jj)` of two effects of one block.
    pub fn largest_correlation(&self) -> f64 {
        self.largest_correlation
    }

    /// The largest difference of a shrunken estimate between the models, in posterior sds.
    pub fn largest_estimate_shift(&self) -> f64 {
        self.largest_estimate_shift
    }

    /// Effects whose sign is called (lfsr < 0.025) under the block model.
    pub fn sign_calls(&self) -> u64 {
        self.sign_calls
    }

    /// Effects whose sign call differs between the models.
    pub fn sign_flips(&self) -> u64 {
        self.sign_flips
    }

    /// The share of effects whose sign call differs between the models.
    pub fn sign_flip_share(&self) -> f64 {
        self.sign_flips as f64 / self.compared.max(1) as f64
    }

    /// The Hausman z of the shift of mu at one tau under a flat prior: `(mu naive - mu) / sqrt(DEFF / I0 - 1 / I)`; `None`
    /// where the variances differ by less than 1e-12 of their size, that is where the two estimates are the same.
    pub fn hausman_z(&self, modelled: &impl Likelihood, ignored: &impl Likelihood, t: f64) -> Option<f64> {
        let (block_model, naive) = (modelled.at(t), ignored.at(t));
        let (variance, naive_variance) = (1.0 / block_model.a, self.design_effect() / naive.a);
        let difference = naive_variance - variance;
        let mu = modelled.centre() + block_model.b / block_model.a;
        let naive_mu = ignored.centre() + naive.b / naive.a;
        (difference > 1e-12 * naive_variance).then(|| (naive_mu - mu) / difference.sqrt())
    }
}

/// -1, 1, or 0 where the sign is not called.
fn sign_call(estimate: &Estimate) -> i8 {
    match estimate.prob_positive {
        p if p > 1.0 - SIGN_CALL => 1,
        p if p < SIGN_CALL => -1,
        _ => 0,
    }
}

/// `sum_{i != j} g_i Sigma_ij g_j`, and the largest `|Sigma_ij| sqrt(g_i g_j)`.
fn off_diagonals(block: &Block, weights: &[f64]) -> (f64, f64) {
    match block.covariance() {
        Covariance::SharedControl { control_variance, .. } => {
            let (mut pairs, mut sum, mut largest) = (0.0, 0.0, [0.0_f64; 2]);
            for weight in weights {
                pairs += 2.0 * weight * sum;
                sum += weight;
                if *weight > largest[0] {
                    largest = [*weight, largest[0]];
                } else if *weight > largest[1] {
                    largest[1] = *weight;
                }
            }
            (control_variance * pairs, control_variance * (largest[0] * largest[1]).sqrt())
        }
        Covariance::Dense { .. } => {
            let (mut quadratic, mut largest) = (0.0, 0.0_f64);
            for i in 0..block.len() {
                for j in 0..i {
                    let covariance = block.sampling_covariance(i, j);
                    quadratic += 2.0 * weights[i] * covariance * weights[j];
                    largest = largest.max(covariance.abs() * (weights[i] * weights[j]).sqrt());
                }
            }
            (quadratic, largest)
        }
    }
}

/// Whether ignoring the correlation between the variants of an experiment would have changed the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Negligible,
    Noticeable,
    Material,
}

/// A measure of the effect of the correlation on the answers, on which a verdict can rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// `sqrt(DEFF)`: by how much the naive standard error of mu is too small.
    SeRatio,
    /// |shift of mu|, in posterior sds.
    MuShift,
    /// |shift of log tau|, in posterior sds.
    LogTauShift,
    /// The share of effects whose sign call flips.
    SignFlipShare,
}

/// Where a measure becomes noticeable, and material.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub noticeable: f64,
    pub material: f64,
}

/// The thresholds of the verdict, one for each [`Measure`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    pub se_ratio: Threshold,
    pub mu_shift: Threshold,
    pub log_tau_shift: Threshold,
    pub sign_flip_share: Threshold,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        let threshold = |noticeable, material| Threshold { noticeable, material };
        Thresholds {
            se_ratio: threshold(1.02, 1.10),
            mu_shift: threshold(0.05, 0.25),
            log_tau_shift: threshold(0.05, 0.25),
            sign_flip_share: threshold(0.001, 0.01),
        }
    }
}

impl Thresholds {
    /// The verdict, and the measure it rests on with its value: the one that reaches farthest.
    pub fn verdict(&self, diagnostics: &Diagnostics, pass: &BlockPass) -> (Verdict, Measure, f64) {
        let measures = [
            (Measure::SeRatio, Some(pass.design_effect().sqrt()), self.se_ratio, 1.0),
            (Measure::MuShift, diagnostics.mu_shift.map(f64::abs), self.mu_shift, 0.0),
            (Measure::LogTauShift, diagnostics.log_tau_shift.map(f64::abs), self.log_tau_shift, 0.0),
            (Measure::SignFlipShare, Some(pass.sign_flip_share()), self.sign_flip_share, 0.0),
        ];
        let mut worst = (Verdict::Negligible, Measure::SeRatio, pass.design_effect().sqrt());
        let mut reach = f64::NEG_INFINITY;
        for (measure, value, threshold, neutral) in measures {
            let Some(value) = value else { continue };
            let verdict = match value {
                v if v > threshold.material => Verdict::Material,
                v if v >= threshold.noticeable => Verdict::Noticeable,
                _ => Verdict::Negligible,
            };
            let farther = (value - neutral) / (threshold.material - neutral);
            if verdict > worst.0 || (verdict == worst.0 && farther > reach) {
                worst = (verdict, measure, value);
                reach = farther;
            }
        }
        worst
    }
}

impl Measure {
    pub const ALL: [Measure; 4] = [Measure::SeRatio, Measure::MuShift, Measure::LogTauShift, Measure::SignFlipShare];

    /// The measure's name in tables, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::SeRatio => "se_ratio",
            Measure::MuShift => "mu_shift",
            Measure::LogTauShift => "log_tau_shift",
            Measure::SignFlipShare => "sign_flip_share",
        }
    }
}

impl Verdict {
    pub const ALL: [Verdict; 3] = [Verdict::Negligible, Verdict::Noticeable, Verdict::Material];

    /// The verdict's name in tables, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Negligible => "negligible",
            Verdict::Noticeable => "noticeable",
            Verdict::Material => "material",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
