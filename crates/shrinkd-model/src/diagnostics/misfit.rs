//! Whether the block model itself is borne out by the data that it was fitted to. Where variants of one experiment are alike, control
//! variances are wrong or tails are heavy, it may do worse than the naive model, and the consequences of that one say nothing.
//!
//! - *risk*: Stein's unbiased estimate of the squared error of the shrunken estimates (Ann. Stat. 9, 1981), each in units of the
//!   effect's own sampling variance: `((thetahat_i - delta_i)^2 - Sigma_ii + 2 (T V^-1 Sigma)_ii) / Sigma_ii`, with mu and tau taken as
//!   known. It is 1 for a raw estimate, and needs no model of the true effects. The derivative of an estimate under the naive model
//!   is diagonal, so that the same formula holds with that model's own V and the variances of Sigma.
//! - *score*: the log predictive density of an experiment that is left out (Gelfand, Dey & Chang, 1992; Vehtari, Gelman & Gabry, Stat. Comput.
//!   27, 2017), of each effect for itself, so that models that differ in correlation can be compared, averaged over its variants.
//!
//! Both are compared in pairs, experiment by experiment, as effects of one experiment share their errors.

use crate::block::Block;
use crate::fit::Correlation;
use crate::shrinkage::Estimate;

/// How many standard errors a difference must be above 0.
const STANDARD_ERRORS: f64 = 2.0;

/// The same against one variant per experiment, whose choice adds noise: with 2, 1.3% of sound populations would misfit at worst, with
/// 2.5 it is 0.9% (`make verdicts`; t_3 effects, 20 to 80 experiments).
const STANDARD_ERRORS_OF_ONE: f64 = 2.5;

/// By how much the risk must be larger, as a share of the one that it is compared with.
const RISK_EXCESS: f64 = 0.02;

/// By how much the score must be lower, in nats over all experiments.
const SCORE_DEFICIT: f64 = 3.0;

/// From how many experiments on their standard deviation is known well enough.
const FEWEST: u64 = 10;

/// The risk and the score of a population's fits, accumulated block by block.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Misfit {
    /// In the order of [`Correlation::ALL`].
    risks: [Total; Correlation::COUNT],
    scores: [Total; Correlation::COUNT],
    /// By how much the risk of `modelled` is larger than that of the raw estimates, and of `ignored`.
    risk_excesses: [Differences; 2],
    /// By how much the score of `modelled` is lower than those of the others.
    score_deficits: [Differences; Correlation::COUNT - 1],
}

/// A sum over some effects, or experiments.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Total {
    count: u64,
    sum: f64,
}

/// Differences between two fits, one of each experiment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Differences {
    count: u64,
    sum: f64,
    squares: f64,
    /// Of risks, the sum of those that they are compared with.
    base: f64,
}

impl Misfit {
    /// Adds one block, with its estimates and [scores](super::LeftOut::score) under each model of correlation, in the order of
    /// [`Correlation::ALL`]; under [`Correlation::OnePerExperiment`] there is one estimate, of effect `chosen`. Estimates are empty
    /// and scores `None` where a model has no posterior.
    pub fn add(
        &mut self,
        block: &Block,
        chosen: usize,
        estimates: [&[Estimate]; Correlation::COUNT],
        scores: [Option<f64>; Correlation::COUNT],
    ) {
        let firsts = [0, 0, 0, chosen];
        let mut risks = [None; Correlation::COUNT];
        for ((risk, estimates), first) in risks.iter_mut().zip(estimates).zip(firsts) {
            *risk = (!estimates.is_empty())
                .then(|| estimates.iter().zip(first..).map(|(estimate, i)| risk_of(estimate, block, i)).sum::<f64>());
        }
        for ((total, risk), estimates) in self.risks.iter_mut().zip(risks).zip(estimates) {
            total.add(estimates.len() as u64, risk.unwrap_or(0.0));
        }
        let [modelled, _, ignored, _] = risks;
        // A raw estimate has risk 1.
        let against_risks = [Some(block.len() as f64), ignored];
        for (differences, other) in self.risk_excesses.iter_mut().zip(against_risks) {
            if let Some((modelled, other)) = modelled.zip(other) {
                differences.add(modelled - other, other);
            }
        }
        let [Some(modelled), Some(control_only), Some(ignored), Some(one)] = scores else { return };
        for (total, score) in self.scores.iter_mut().zip([modelled, control_only, ignored, one]) {
            total.add(1, score);
        }
        for (differences, other) in self.score_deficits.iter_mut().zip([control_only, ignored, one]) {
            differences.add(other - modelled, 0.0);
        }
    }

    /// Adds the figures of other blocks of the same population.
    pub fn merge(&mut self, other: &Misfit) {
        let totals = self.risks.iter_mut().chain(&mut self.scores);
        totals
            .zip(other.risks.iter().chain(&other.scores))
            .for_each(|(mine, theirs)| mine.add(theirs.count, theirs.sum));
        let differences = self.risk_excesses.iter_mut().chain(&mut self.score_deficits);
        differences
            .zip(other.risk_excesses.iter().chain(&other.score_deficits))
            .for_each(|(mine, theirs)| mine.merge(theirs));
    }

    /// The mean over a fit's effects of the unbiased estimate of an estimate's squared error, in units of the effect's sampling
    /// variance, which is that of the raw estimate. `None` without estimates.
    pub fn risk(&self, correlation: Correlation) -> Option<f64> {
        let Total { count, sum } = self.risks[correlation as usize];
        finite(sum / count as f64).filter(|_| count > 0)
    }

    /// The sum over experiments of a fit's leave-one-out score, in nats; `None` where any of the fits has none.
    pub fn score(&self, correlation: Correlation) -> Option<f64> {
        let Total { count, sum } = self.scores[correlation as usize];
        finite(sum).filter(|_| count > 0)
    }

    /// By how much the risk of the block model is larger than that of the naive model or of the raw estimates, where that is more than
    /// noise: the larger of the two, in units of the risk of the raw estimates.
    pub(super) fn risk_excess(&self) -> Option<f64> {
        let effects = self.risks[Correlation::Modelled as usize].count as f64;
        let of = |differences: &Differences| {
            // In small populations what it is compared with may be 0 by chance.
            let is_larger =
                differences.is_above_noise(STANDARD_ERRORS) && differences.sum > RISK_EXCESS * differences.base.abs();
            is_larger.then_some(differences.sum / effects)
        };
        self.risk_excesses.iter().filter_map(of).max_by(f64::total_cmp)
    }

    /// The largest number of nats by which the score of the block model is lower than that of another fit, where that is more than
    /// noise.
    pub(super) fn score_deficit(&self) -> Option<f64> {
        let of = |(differences, standard_errors): (&Differences, f64)| {
            let is_lower = differences.is_above_noise(standard_errors) && differences.sum > SCORE_DEFICIT;
            is_lower.then_some(differences.sum)
        };
        let standard_errors = [STANDARD_ERRORS, STANDARD_ERRORS, STANDARD_ERRORS_OF_ONE];
        self.score_deficits.iter().zip(standard_errors).filter_map(of).max_by(f64::total_cmp)
    }
}

fn risk_of(estimate: &Estimate, block: &Block, i: usize) -> f64 {
    let variance = block.sampling_variance(i);
    let moved = estimate.mean - block.effects()[i];
    (moved * moved + 2.0 * estimate.conditional_variance) / variance - 1.0
}

fn finite(figure: f64) -> Option<f64> {
    Some(figure).filter(|figure| figure.is_finite())
}

impl Total {
    fn add(&mut self, count: u64, sum: f64) {
        self.count += count;
        self.sum += sum;
    }
}

impl Differences {
    fn add(&mut self, difference: f64, base: f64) {
        self.merge(&Differences { count: 1, sum: difference, squares: difference * difference, base });
    }

    fn merge(&mut self, other: &Differences) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
        self.base += other.base;
    }

    /// Whether the sum is positive by more than so many of its standard errors over experiments.
    fn is_above_noise(&self, standard_errors: f64) -> bool {
        let count = self.count as f64;
        let variance = (self.squares - self.sum * self.sum / count).max(0.0) * count / (count - 1.0);
        self.count >= FEWEST && self.sum > standard_errors * variance.sqrt()
    }
}
