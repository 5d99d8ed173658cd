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
//!
//! Where true effects have an intraclass correlation rho, the variants of an experiment share a part u of their true effects, of
//! variance `rho tau^2`. With `t = (1 - rho) tau^2`, `v_i = d_i + t`, `C = c + rho tau^2` and `g = 1 / (1 + C S)`, what shifts all
//! effects of an experiment is split between the control's error, `e = c g sum(r_i / v_i)`, and `u = rho tau^2 g sum(r_i / v_i)`, and
//!
//! `theta_i = mu + (t / v_i) (r_i - e) + (d_i / v_i) u`. Its variance is
//! `t d_i / v_i + g ((t / v_i)^2 c + rho tau^2 ((d_i / v_i)^2 + c S))`, a sum in which nothing cancels; `h_i = g (d_i / v_i + c S)`.
//! Those of e and u are `c g (1 + rho tau^2 S)` and `rho tau^2 g (1 + c S)`.

use std::rc::Rc;

use super::axes::{Axes, AxesByIcc};
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
    /// `E[(Sigma V^-1)_ii]`, averaged over the nodes: how much of a change of the effect's own raw estimate is taken back. 0 leaves
    /// the effect as it is, 1 ignores it. For one variant `Sigma / (Sigma + tau^2)`. Only where variants are alike and a dense
    /// covariance makes the errors of precise and noisy ones correlate can it lie outside of these.
    pub shrinkage_factor: f64,
    /// `E[(Sigma V^-1 1)_i]`, averaged over the nodes: how much of a change of mu the estimate follows. Equal to the shrinkage factor for
    /// one variant.
    pub weight_of_mu: f64,
    /// `E[(tau^2 R V^-1 Sigma)_ii]`, averaged over the nodes: the part of the variance that stays where mu, tau and the intraclass
    /// correlation are known.
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

/// The estimated part of their true effects, beside mu, that all variants of an experiment share: what its idea is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedEffect {
    pub mean: f64,
    pub sd: f64,
}

/// Mean and variance over the nodes of a quantity that is normal given each of them.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    mean: f64,
    square: f64,
}

impl Moments {
    /// Adds a node, given which the quantity has this mean and variance where mu is at its own mean, and moves by `slope` with it.
    fn add(&mut self, node: &Node, mean: f64, variance: f64, slope: f64) {
        self.mean += node.weight * mean;
        self.square += node.weight * (mean * mean + variance + slope * slope * node.mu_variance);
    }

    fn sd(&self) -> f64 {
        (self.square - self.mean * self.mean).max(0.0).sqrt()
    }
}

/// What an effect has at one node, averaged over all.
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
    /// `None` where true effects are independent at every node, and for one effect, of which it would be a guess.
    pub shared_effect: Option<SharedEffect>,
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
            shared_effect: None,
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
        let (mut control_shift, mut shared_effect) = (Moments::default(), Moments::default());
        for (j, node) in nodes.iter().enumerate() {
            let icc = icc_within(effects.len(), node);
            let common = icc * (node.tau * node.tau);
            let t = (1.0 - icc) * (node.tau * node.tau);
            let (mut sum, mut sum_r) = (0.0, 0.0);
            if c + common > 0.0 {
                for (effect, d) in effects.iter().zip(d) {
                    let weight = 1.0 / (d + t);
                    sum += weight;
                    sum_r += weight * (effect - node.mu_mean);
                }
            }
            // Of what shifts all effects, a unit of sum_r is gain of the control's error and common_gain of the shared effect.
            let spread = 1.0 + (c + common) * sum;
            let (gain, common_gain) = (c / spread, common / spread);
            let (shift, shift_slope) = (gain * sum_r, gain * sum);
            let shared = common_gain * sum_r;
            let (without_common, without_control) = (1.0 + c * sum, 1.0 + common * sum);
            control_shift.add(node, shift, gain * without_control, shift_slope);
            shared_effect.add(node, shared, common_gain * without_common, common_gain * sum);
            for (i, (effect, d)) in effects.iter().zip(d).enumerate() {
                let inverse = 1.0 / (d + t);
                let (kept, pulled) = (t * inverse, d * inverse);
                let h = pulled * (without_common / spread) + kept * shift_slope;
                let conditional_variance = kept * d + kept * kept * gain + common_gain * (pulled * pulled + c * sum);
                self.parts[i * self.nodes + j] = Part {
                    weight: node.weight,
                    mean: node.mu_mean + kept * (effect - node.mu_mean - shift) + pulled * shared,
                    sd: (conditional_variance + h * h * node.mu_variance).sqrt(),
                };
                let shrinkage_factor = pulled * (1.0 - common_gain * inverse) + kept * (gain * inverse);
                self.averages[i].add(node.weight, Averages { shrinkage_factor, weight_of_mu: h, conditional_variance });
            }
        }
        if c > 0.0 {
            self.control_shift = Some(ControlShift { mean: control_shift.mean, sd: control_shift.sd() });
        }
        self.set_shared_effect(shared_effect, nodes);
    }

    fn set_shared_effect(&mut self, moments: Moments, nodes: &[Node]) {
        let is_shared = nodes.iter().any(|node| icc_within(self.averages.len(), node) > 0.0);
        self.shared_effect = is_shared.then(|| SharedEffect { mean: moments.mean, sd: moments.sd() });
    }

    /// The same through the common axes of `Sigma = H diag(lambda) H'` and `R = H H'`: `theta = mu + H diag(t / (lambda + t)) H^-1 r`,
    /// here with `t = tau^2`.
    fn dense(&mut self, effects: &[f64], matrix: &[f64], nodes: &[Node]) {
        let n = effects.len();
        let mut shared_effect = Moments::default();
        let mut axes = AxesByIcc::new(matrix, n);
        for (j, node) in nodes.iter().enumerate() {
            let icc = icc_within(n, node);
            // The decomposition that the block's components were made by, so that no lambda is 0. It does not fail for a
            // block that has components; were it to, the effects stand as if they were independent.
            let independent = || Axes::of_diagonal((0..n).map(|k| matrix[k * n + k]).collect());
            let axes = axes.at(icc).unwrap_or_else(|_| Rc::new(independent()));
            let lambda = &axes.lambda;
            let t = node.tau * node.tau;
            let along =
                |k: usize, x: &dyn Fn(usize) -> f64| axes.dual(k).iter().zip(0..n).map(|(q, i)| q * x(i)).sum::<f64>();
            let rotated: Vec<Along> = (0..n)
                .map(|k| {
                    let (kept, pulled) = (t / (lambda[k] + t), lambda[k] / (lambda[k] + t));
                    let residual = kept * along(k, &|i| effects[i] - node.mu_mean);
                    let one = along(k, &|_| 1.0);
                    Along { residual, spread: kept * lambda[k], one, kept, pulled }
                })
                .collect();
            for i in 0..n {
                let (mut mean, mut variance, mut h, mut own) = (node.mu_mean, 0.0, 0.0, 0.0);
                for (k, Along { residual, spread, one, pulled, .. }) in rotated.iter().enumerate() {
                    let q = axes.direction(k)[i];
                    mean += q * residual;
                    variance += q * q * spread;
                    h += q * (pulled * one);
                    own += q * axes.dual(k)[i] * pulled;
                }
                let sd = (variance + h * h * node.mu_variance).sqrt();
                self.parts[i * self.nodes + j] = Part { weight: node.weight, mean, sd };
                let at = Averages { shrinkage_factor: own, weight_of_mu: h, conditional_variance: variance };
                self.averages[i].add(node.weight, at);
            }
            // u = rho t 1'V^-1 r, of variance rho t - (rho t)^2 1'V^-1 1.
            let mean = icc * rotated.iter().map(|along| along.one * along.residual).sum::<f64>();
            let slope = icc * rotated.iter().map(|along| along.one * along.one * along.kept).sum::<f64>();
            shared_effect.add(node, mean, icc * t * (1.0 - slope).max(0.0), slope);
        }
        self.set_shared_effect(shared_effect, nodes);
    }
}

/// The intraclass correlation that a node gives a block of `n` effects: one effect is alike to none.
fn icc_within(n: usize, node: &Node) -> f64 {
    if n == 1 { 0.0 } else { node.icc }
}

/// What a node makes of a dense block along one of its axes.
struct Along {
    /// Of the effects about mu, shrunk.
    residual: f64,
    /// Variance given mu and tau.
    spread: f64,
    /// Of 1.
    one: f64,
    /// `t / (lambda + t)`.
    kept: f64,
    /// `lambda / (lambda + t)`.
    pulled: f64,
}
