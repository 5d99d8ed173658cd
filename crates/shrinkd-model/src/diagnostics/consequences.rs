//! What the naive model, which takes the variants of one experiment as independent, would do to whoever reads its figures: judged
//! under the block model's own posterior, from a pass over the blocks.
//!
//! - *interval*: the design effect is that of the weighted mean that the naive model uses for mu (Kish, Survey Sampling, 1965, section 8.2,
//!   with V for the covariance). An interval that is `sqrt(DEFF)` times too narrow covers `2 Phi(1.96 / sqrt(DEFF)) - 1`.
//! - *accuracy*: the expected squared error of an estimate that is `shift` away from the posterior mean is `sd^2 + shift^2`.
//! - *decisions*: calls of a sign that change, and what is given up by picking the variant with the largest naive estimate.
//!
//! The test of the shift of mu is that of Hausman (Econometrica 46, 1978): under the block model the naive estimate is consistent and
//! inefficient, so that the variance of the difference is the difference of the variances.

use crate::block::{Block, Covariance};
use crate::direction::Direction;
use crate::icc::IccLikelihood;
use crate::likelihood::Likelihood;
use crate::normal::{self, Z_975};
use crate::population::Sketches;
use crate::posterior::Node;
use crate::shrinkage::Estimate;

/// A sign is called where the local false sign rate is below this: where the equal-tailed 95% interval excludes 0.
const SIGN_CALL: f64 = 0.025;

/// By how much P(theta > 0) must differ between the models for a changed call to count: the rest are borderline in both.
const MARGIN: f64 = 0.02;

/// What the naive model would do to a population's readers, accumulated block by block.
#[derive(Debug, Clone, PartialEq)]
pub struct Consequences {
    at_nodes: Vec<NaiveMean>,
    /// At the posterior median of tau.
    at_median: NaiveMean,
    largest_correlation: f64,
    /// Effects with an estimate under both models.
    compared: u64,
    squared_shift: f64,
    variance: f64,
    largest_estimate_shift: f64,
    sign_calls: u64,
    sign_flips: u64,
    changed_decisions: u64,
    picks: Picks,
}

/// The naive variance of the weighted mean of all effects at one tau, and its true one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct NaiveMean {
    probability: f64,
    t: f64,
    icc: f64,
    weight: f64,
    /// `sum_k g'V_k g` with independent true effects.
    variance: f64,
    /// What of it comes from their being alike: `sum_k icc t sum_{i != j} g_i g_j`.
    shared: f64,
}

impl NaiveMean {
    fn new(probability: f64, tau: f64, icc: f64) -> NaiveMean {
        NaiveMean { probability, t: tau * tau, icc, weight: 0.0, variance: 0.0, shared: 0.0 }
    }

    /// Adds a block, given room for its weights.
    fn add(&mut self, block: &Block, weights: &mut [f64]) {
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = 1.0 / (block.sampling_variance(i) + self.t);
        }
        let sum: f64 = weights.iter().sum();
        self.weight += sum;
        // g_i V_ii g_i = g_i on the diagonal.
        self.variance += sum + off_diagonal_sum(block, weights);
        self.shared += self.icc * self.t * pairs_sum(weights);
    }

    fn merge(&mut self, other: &NaiveMean) {
        self.weight += other.weight;
        self.variance += other.variance;
        self.shared += other.shared;
    }

    fn deff(&self) -> f64 {
        (self.variance + self.shared) / self.weight
    }

    fn deff_control(&self) -> f64 {
        self.variance / self.weight
    }
}

/// The variants (or controls, whose effect is 0) that look best, experiment by experiment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Picks {
    /// How much better than their controls those are that look best under the block model, by posterior mean, and their posterior variances.
    value: f64,
    variance: f64,
    /// By how much less those are that look best under the naive model.
    given_up: f64,
}

impl Consequences {
    /// Of a population with a posterior on these nodes, and these medians of tau and icc.
    pub fn new(nodes: &[Node], (tau, icc): (f64, f64)) -> Consequences {
        Consequences {
            at_nodes: nodes.iter().map(|node| NaiveMean::new(node.weight, node.tau, node.icc)).collect(),
            at_median: NaiveMean::new(1.0, tau, icc),
            largest_correlation: 0.0,
            compared: 0,
            squared_shift: 0.0,
            variance: 0.0,
            largest_estimate_shift: 0.0,
            sign_calls: 0,
            sign_flips: 0,
            changed_decisions: 0,
            picks: Picks::default(),
        }
    }

    /// Adds one block, which way of its effects is better, and its estimates under the two models; both are empty where one of them
    /// has no posterior.
    pub fn add(&mut self, block: &Block, direction: Direction, estimates: &[Estimate], naive: &[Estimate]) {
        let mut weights = vec![0.0; block.len()];
        for mean in &mut self.at_nodes {
            mean.add(block, &mut weights);
        }
        self.at_median.add(block, &mut weights);
        self.largest_correlation =
            self.largest_correlation.max(largest_correlation(block, &weights, self.at_median.icc * self.at_median.t));
        self.compared += estimates.len().min(naive.len()) as u64;
        for (estimate, naive) in estimates.iter().zip(naive) {
            let shift = naive.mean - estimate.mean;
            self.squared_shift += shift * shift;
            self.variance += estimate.sd * estimate.sd;
            self.largest_estimate_shift = self.largest_estimate_shift.max(shift.abs() / estimate.sd);
            let (sign, naive_sign) = (sign_call(estimate), sign_call(naive));
            let moved = (naive.prob_positive - estimate.prob_positive).abs();
            self.sign_calls += u64::from(sign != 0);
            self.sign_flips += u64::from(sign != naive_sign);
            self.changed_decisions += u64::from(sign != naive_sign && moved > MARGIN);
        }
        self.picks.add(direction, estimates, naive);
    }

    /// Adds the consequences for other blocks of the same population.
    pub fn merge(&mut self, other: &Consequences) {
        self.at_nodes.iter_mut().zip(&other.at_nodes).for_each(|(mine, theirs)| mine.merge(theirs));
        self.at_median.merge(&other.at_median);
        self.largest_correlation = self.largest_correlation.max(other.largest_correlation);
        self.compared += other.compared;
        self.squared_shift += other.squared_shift;
        self.variance += other.variance;
        self.largest_estimate_shift = self.largest_estimate_shift.max(other.largest_estimate_shift);
        self.sign_calls += other.sign_calls;
        self.sign_flips += other.sign_flips;
        self.changed_decisions += other.changed_decisions;
        self.picks.value += other.picks.value;
        self.picks.variance += other.picks.variance;
        self.picks.given_up += other.picks.given_up;
    }

    /// `DEFF = sum_k g'V_k g / sum g`, `g_i = 1 / V_ii`, averaged over the posterior: by how much the naive variance of mu must be
    /// multiplied.
    pub fn deff(&self) -> f64 {
        // About 1, so that it is 1 where nothing is shared, although the probabilities add up to 1 to rounding.
        self.average(NaiveMean::deff)
    }

    /// The same from the shared control alone. All of it is where true effects are independent.
    pub fn deff_control(&self) -> f64 {
        self.average(NaiveMean::deff_control)
    }

    fn average(&self, deff: fn(&NaiveMean) -> f64) -> f64 {
        1.0 + self.at_nodes.iter().map(|mean| mean.probability * (deff(mean) - 1.0)).sum::<f64>()
    }

    /// What the naive 95% interval of mu would cover: `2 Phi(1.96 / sqrt(DEFF)) - 1`.
    pub fn naive_coverage(&self) -> f64 {
        naive_coverage(self.deff())
    }

    /// By what share the expected root mean squared error of the naive shrunken estimates is larger: `sqrt(1 + sum shift^2 / sum sd^2) - 1`.
    /// `None` where an estimate without any error is shifted.
    pub fn rmse_excess(&self) -> Option<f64> {
        let excess = if self.squared_shift == 0.0 { 0.0 } else { self.squared_shift / self.variance };
        Some((1.0 + excess).sqrt() - 1.0).filter(|excess| excess.is_finite())
    }

    /// Effects whose call of a sign (lfsr < 0.025) differs between the models and whose P(theta > 0) differs by more than 0.02.
    pub fn changed_decisions(&self) -> u64 {
        self.changed_decisions
    }

    /// The share of effects whose call changes with that margin.
    pub fn changed_decision_share(&self) -> f64 {
        self.changed_decisions as f64 / self.compared.max(1) as f64
    }

    /// The share of the value of the variants that look best (posterior means, summed over experiments; a control is worth 0) that is
    /// given up by picking those that look best under the naive model. `None` where the value is within one posterior sd of 0.
    pub fn value_given_up(&self) -> Option<f64> {
        let Picks { value, variance, given_up } = self.picks;
        (value > 0.0 && value >= variance.sqrt()).then(|| given_up / value)
    }

    /// The largest `|V_ij| / sqrt(V_ii V_jj)` of two effects of one block, at the posterior medians of tau and icc.
    pub fn largest_correlation(&self) -> f64 {
        self.largest_correlation
    }

    /// The largest difference of a shrunken estimate between the models, in posterior sds.
    pub fn largest_estimate_shift(&self) -> f64 {
        self.largest_estimate_shift
    }

    /// Effects whose sign is called under the block model.
    pub fn sign_calls(&self) -> u64 {
        self.sign_calls
    }

    /// Effects whose sign call differs between the models, by however little.
    pub fn sign_flips(&self) -> u64 {
        self.sign_flips
    }

    /// The share of effects whose sign call differs between the models.
    pub fn sign_flip_share(&self) -> f64 {
        self.sign_flips as f64 / self.compared.max(1) as f64
    }

    /// The Hausman z of the shift of mu at the posterior medians of tau and icc under a flat prior, `modelled` being the likelihood at an
    /// icc of 0: `(mu naive - mu) / sqrt(DEFF / I0 - 1 / I)`;
    /// `None` where the variances differ by less than 1e-12 of their size, that is where the two estimates are the same.
    pub fn hausman_z(&self, sketches: &Sketches, modelled: &impl Likelihood, ignored: &impl Likelihood) -> Option<f64> {
        let icc = self.at_median.icc;
        match (icc > 0.0).then(|| IccLikelihood::new(sketches)).flatten() {
            Some(all) => self.hausman_z_of(&all.at(icc), ignored),
            None => self.hausman_z_of(modelled, ignored),
        }
    }

    fn hausman_z_of(&self, modelled: &impl Likelihood, ignored: &impl Likelihood) -> Option<f64> {
        let t = self.at_median.t;
        let (block_model, naive) = (modelled.at(t), ignored.at(t));
        let (variance, naive_variance) = (1.0 / block_model.a, self.at_median.deff() / naive.a);
        let difference = naive_variance - variance;
        let mu = modelled.centre() + block_model.b / block_model.a;
        let naive_mu = ignored.centre() + naive.b / naive.a;
        (difference > 1e-12 * naive_variance).then(|| (naive_mu - mu) / difference.sqrt())
    }
}

/// What a 95% interval covers that is `sqrt(deff)` times too narrow.
pub(crate) fn naive_coverage(deff: f64) -> f64 {
    1.0 - 2.0 * normal::cdf(-Z_975 / deff.sqrt())
}

impl Picks {
    fn add(&mut self, direction: Direction, estimates: &[Estimate], naive: &[Estimate]) {
        if naive.len() < estimates.len() {
            return;
        }
        let own = best(direction, estimates).map(|i| &estimates[i]);
        let naive = best(direction, naive).map(|i| &estimates[i]);
        let value = |pick: Option<&Estimate>| pick.map_or(0.0, |pick| direction.gain(pick.mean));
        self.value += value(own);
        self.variance += own.map_or(0.0, |pick| pick.sd * pick.sd);
        self.given_up += value(own) - value(naive);
    }
}

/// The variant with the best mean; `None` where that is the control, which has 0.
fn best(direction: Direction, estimates: &[Estimate]) -> Option<usize> {
    let gains = estimates.iter().map(|estimate| direction.gain(estimate.mean)).enumerate();
    let (i, best) = gains.max_by(|(_, x), (_, y)| x.total_cmp(y))?;
    (best > 0.0).then_some(i)
}

/// -1, 1, or 0 where the sign is not called.
fn sign_call(estimate: &Estimate) -> i8 {
    match estimate.prob_positive {
        p if p > 1.0 - SIGN_CALL => 1,
        p if p < SIGN_CALL => -1,
        _ => 0,
    }
}

/// `sum_{i != j} g_i Sigma_ij g_j`.
fn off_diagonal_sum(block: &Block, weights: &[f64]) -> f64 {
    match block.covariance() {
        Covariance::SharedControl { control_variance, .. } => control_variance * pairs_sum(weights),
        Covariance::Dense { .. } => {
            pairs(block.len()).map(|(i, j)| 2.0 * weights[i] * block.sampling_covariance(i, j) * weights[j]).sum()
        }
    }
}

/// `sum_{i != j} g_i g_j`.
fn pairs_sum(weights: &[f64]) -> f64 {
    let (mut pairs, mut sum) = (0.0, 0.0);
    for weight in weights {
        pairs += 2.0 * weight * sum;
        sum += weight;
    }
    pairs
}

/// The largest `|Sigma_ij + shared| sqrt(g_i g_j)`, `shared` being what true effects have in common.
fn largest_correlation(block: &Block, weights: &[f64], shared: f64) -> f64 {
    match block.covariance() {
        Covariance::SharedControl { control_variance, .. } => {
            let mut largest = [0.0_f64; 2];
            for &weight in weights {
                if weight > largest[0] {
                    largest = [weight, largest[0]];
                } else if weight > largest[1] {
                    largest[1] = weight;
                }
            }
            (control_variance + shared) * (largest[0] * largest[1]).sqrt()
        }
        Covariance::Dense { .. } => pairs(block.len())
            .map(|(i, j)| (block.sampling_covariance(i, j) + shared).abs() * (weights[i] * weights[j]).sqrt())
            .fold(0.0, f64::max),
    }
}

/// Every two of n.
fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(|i| (0..i).map(move |j| (i, j)))
}
