//! Shrunken estimates: each effect given its whole block and the posterior of (mu, tau). Shrinkage is what corrects for the
//! winner's curse.
//!
//! Given (mu, tau), with `v_i = d_i + tau^2`, `r = delta - mu` and `S = sum 1 / v_i`, the control's error shifted the
//! effects by about `e = c sum(r_i / v_i) / (1 + c S)`, and
//!
//! `theta_i = mu + (tau^2 / v_i) (r_i - e)`: **first take the control's error out of every variant, then shrink by
//! the treatment's own noise** (Sherman & Morrison, Ann. Math. Stat. 21, 1950, applied to the normal-normal model of
//! Lindley & Smith, JRSS B 34, 1972). Its variance is `tau^2 d_i / v_i + tau^4 c / (v_i^2 (1 + c S))`; mu's own
//! variance adds that times `h_i^2`, `h = Sigma V^-1 1`. Averaging over the posterior of tau gives a mixture of
//! normals for every effect, from which its mean, sd, intervals and probabilities are read.

use super::axes::Axes;
use super::block::{Block, Covariance};
use super::normal::{self, Part, Z_90, Z_975};
use super::posterior::Node;

/// One effect's posterior, in the unit of the effects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub sd: f64,
    /// P(theta > 0 | data).
    pub prob_positive: f64,
    /// `E[(Sigma V^-1)_ii]`, averaged over tau: how much of a change of the effect's own raw estimate is taken back. 0 leaves the
    /// effect as it is, 1 ignores it. For one variant `Sigma / (Sigma + tau^2)`.
    pub shrinkage_factor: f64,
    /// `E[(Sigma V^-1 1)_i]`, averaged over tau: how much of a change of mu the estimate follows. Equal to the shrinkage factor for
    /// one variant.
    pub weight_of_mu: f64,
    /// `E[(tau^2 V^-1 Sigma)_ii]`, averaged over tau: the part of the variance that stays where mu and tau are known.
    pub conditional_variance: f64,
}

impl Estimate {
    /// Local false sign rate: the probability that the more probable sign is wrong (Stephens, Biostatistics 18, 2017).
    pub fn lfsr(&self) -> f64 {
        self.prob_positive.min(1.0 - self.prob_positive)
    }
}

/// Equal-tailed credible intervals of one effect, from its mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    pub ci80: (f64, f64),
    pub ci95: (f64, f64),
}

/// The estimated shift that the control's error put into every effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ControlShift {
    pub mean: f64,
    pub sd: f64,
}

/// What an effect has at one tau, averaged over the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Averages {
    shrinkage_factor: f64,
    weight_of_mu: f64,
    conditional_variance: f64,
}

impl Averages {
    fn add(&mut self, weight: f64, at: Averages) {
        self.shrinkage_factor += weight * at.shrinkage_factor;
        self.weight_of_mu += weight * at.weight_of_mu;
        self.conditional_variance += weight * at.conditional_variance;
    }
}

/// A block's effects as mixtures over the posterior's nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockPosterior {
    /// Effect by effect, one part for each node.
    parts: Vec<Part>,
    nodes: usize,
    /// Effect by effect.
    averages: Vec<Averages>,
    /// `None` where the block is dense or has no shared control.
    pub control_shift: Option<ControlShift>,
}

impl BlockPosterior {
    /// The joint posterior of a block's effects, averaged over `nodes`, which must not be empty.
    pub fn new(block: &Block, nodes: &[Node]) -> BlockPosterior {
        let n = block.len();
        let mut posterior = BlockPosterior {
            parts: vec![Part { weight: 0.0, mean: 0.0, sd: 0.0 }; n * nodes.len()],
            nodes: nodes.len(),
            averages: vec![Averages::default(); n],
            control_shift: None,
        };
        match block.covariance() {
            Covariance::SharedControl { treatment_variances, control_variance } => {
                posterior.shared_control(block.effects(), treatment_variances, *control_variance, nodes);
            }
            Covariance::Dense { matrix } => posterior.dense(block.effects(), matrix, nodes),
        }
        posterior
    }

    /// The posterior of effect `i`.
    pub fn estimate(&self, i: usize) -> Estimate {
        let parts = self.parts(i);
        let mean: f64 = parts.iter().map(|part| part.weight * part.mean).sum();
        let variance: f64 =
            parts.iter().map(|part| part.weight * (part.sd * part.sd + (part.mean - mean).powi(2))).sum();
        // The weights of the nodes add up to 1 to rounding.
        let at_most_1 = |weight: f64| if weight - 1.0 < 1e-12 { weight.min(1.0) } else { weight };
        let Averages { shrinkage_factor, weight_of_mu, conditional_variance } = self.averages[i];
        Estimate {
            mean,
            sd: variance.sqrt(),
            prob_positive: normal::mixture_above(parts, 0.0),
            shrinkage_factor: at_most_1(shrinkage_factor),
            weight_of_mu: at_most_1(weight_of_mu),
            conditional_variance,
        }
    }

    /// The posteriors of all effects of the block.
    pub fn estimates(&self) -> Vec<Estimate> {
        (0..self.averages.len()).map(|i| self.estimate(i)).collect()
    }

    /// The 80% and 95% intervals of effect `i`, given its estimate.
    pub fn intervals(&self, i: usize, estimate: &Estimate) -> Intervals {
        let parts = self.parts(i);
        let quantile = |z: f64| normal::mixture_quantile(parts, z, estimate.mean + z * estimate.sd);
        Intervals { ci80: (quantile(-Z_90), quantile(Z_90)), ci95: (quantile(-Z_975), quantile(Z_975)) }
    }

    fn parts(&self, i: usize) -> &[Part] {
        &self.parts[i * self.nodes..(i + 1) * self.nodes]
    }

    fn shared_control(&mut self, effects: &[f64], d: &[f64], c: f64, nodes: &[Node]) {
        let (mut shift_mean, mut shift_square) = (0.0, 0.0);
        for (j, node) in nodes.iter().enumerate() {
            let t = node.tau * node.tau;
            let (mut sum, mut sum_r) = (0.0, 0.0);
            if c > 0.0 {
                for (effect, d) in effects.iter().zip(d) {
                    let weight = 1.0 / (d + t);
                    sum += weight;
                    sum_r += weight * (effect - node.mu_mean);
                }
            }
            // gain = c / (1 + c S) is the variance of the control's shift given mu and tau.
            let gain = c / (1.0 + c * sum);
            let (shift, shift_slope) = (gain * sum_r, gain * sum);
            shift_mean += node.weight * shift;
            shift_square += node.weight * (shift * shift + gain + shift_slope * shift_slope * node.mu_variance);
            for (i, (effect, d)) in effects.iter().zip(d).enumerate() {
                let inverse = 1.0 / (d + t);
                let (kept, pulled) = (t * inverse, d * inverse);
                let h = pulled + kept * shift_slope;
                let conditional_variance = kept * d + kept * kept * gain;
                self.parts[i * self.nodes + j] = Part {
                    weight: node.weight,
                    mean: node.mu_mean + kept * (effect - node.mu_mean - shift),
                    sd: (conditional_variance + h * h * node.mu_variance).sqrt(),
                };
                let shrinkage_factor = pulled + kept * (gain * inverse);
                self.averages[i].add(node.weight, Averages { shrinkage_factor, weight_of_mu: h, conditional_variance });
            }
        }
        if c > 0.0 {
            let variance = (shift_square - shift_mean * shift_mean).max(0.0);
            self.control_shift = Some(ControlShift { mean: shift_mean, sd: variance.sqrt() });
        }
    }

    /// The same through the eigenvectors: `theta = mu + Q diag(t / (lambda + t)) Q' r`.
    fn dense(&mut self, effects: &[f64], matrix: &[f64], nodes: &[Node]) {
        let n = effects.len();
        // The decomposition that the block's components were made by, so that no lambda is 0. It does not fail for a
        // block that has components; were it to, the effects stand as if they were independent.
        let axes = Axes::new(matrix, n, 0.0)
            .unwrap_or_else(|_| Axes::of_diagonal((0..n).map(|k| matrix[k * n + k]).collect()));
        let lambda = &axes.lambda;
        for (j, node) in nodes.iter().enumerate() {
            let t = node.tau * node.tau;
            let along = |k: usize, x: &dyn Fn(usize) -> f64| {
                axes.direction(k).iter().zip(0..n).map(|(q, i)| q * x(i)).sum::<f64>()
            };
            let rotated: Vec<Along> = (0..n)
                .map(|k| {
                    let (kept, pulled) = (t / (lambda[k] + t), lambda[k] / (lambda[k] + t));
                    let residual = kept * along(k, &|i| effects[i] - node.mu_mean);
                    Along { residual, spread: kept * lambda[k], unit: pulled * along(k, &|_| 1.0), pulled }
                })
                .collect();
            for i in 0..n {
                let (mut mean, mut variance, mut h, mut own) = (node.mu_mean, 0.0, 0.0, 0.0);
                for (k, Along { residual, spread, unit, pulled }) in rotated.iter().enumerate() {
                    let q = axes.direction(k)[i];
                    mean += q * residual;
                    variance += q * q * spread;
                    h += q * unit;
                    own += q * q * pulled;
                }
                let sd = (variance + h * h * node.mu_variance).sqrt();
                self.parts[i * self.nodes + j] = Part { weight: node.weight, mean, sd };
                let at = Averages { shrinkage_factor: own, weight_of_mu: h, conditional_variance: variance };
                self.averages[i].add(node.weight, at);
            }
        }
    }
}

/// What a node makes of a dense block along one eigenvector of its covariance.
struct Along {
    /// Of the effects about mu, shrunk.
    residual: f64,
    /// Variance given mu and tau.
    spread: f64,
    /// Of 1: what follows mu.
    unit: f64,
    /// `lambda / (lambda + t)`.
    pulled: f64,
}
