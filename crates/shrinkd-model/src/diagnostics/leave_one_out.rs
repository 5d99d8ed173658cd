//! Leaving one out: what the other experiments predict for each one.
//!
//! A block that matters little is left out by taking its own sums from the population's at the nodes of the posterior and
//! weighting these anew (importance weights; Gelfand, Dey & Chang, Bayesian Statistics 4, 1992). Where that leaves the weights an
//! effective size (Kong, 1992) that is too small, the rest is fitted for itself, from cells from which the block is subtracted
//! without error. Each of its effects is then compared with a predictive distribution that does not depend on it, a
//! mixture of `N(mu, 1 / A + V_ii)` (Gelman, Meng & Stern, Statistica Sinica 6, 1996; leave-one-out
//! predictive checks: Marshall & Spiegelhalter, Stat. Med. 22, 2003).

use super::block::BlockSums;
use crate::block::Block;
use crate::fit::{Correlation, Fit, Method};
use crate::likelihood::SketchLikelihood;
use crate::normal::{self, Part};
use crate::population::{Member, Sketches};
use crate::posterior::{Node, effective_effects, quadrature};
use crate::prior::Priors;
use crate::sketch::Sketch;
use crate::spectrum::Component;

/// One effect relative to what the other experiments predict for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// (effect - predictive mean) / predictive sd.
    pub z: f64,
    /// Probability integral transform: the predictive probability of an effect below this one.
    pub pit: f64,
}

/// A block relative to what the other experiments predict for it.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut {
    /// One for each effect; empty where the rest has no predictive sd.
    pub predictions: Vec<Prediction>,
    /// The mean over its effects of the log of each one's marginal predictive density, in nats.
    pub score: f64,
    /// How far the block's effects lie together from the others: the normal score of the PIT of their generalised least squares
    /// mean. Standard normal where the model is right. `None` for one effect, which says nothing about its control.
    pub control_shift_z: Option<f64>,
}

/// A population's posterior, ready to leave blocks out.
pub struct LeaveOneOut<'a> {
    sketch: Sketch,
    /// Where true effects of an experiment are alike: those at every node of icc.
    alike: Option<&'a Sketches>,
    priors: &'a Priors,
    nodes: &'a [Node],
    effects: u64,
}

/// From this many effects on the condensed nodes will do.
const LARGE: u64 = 1_000;

/// The effective size of the weights without a block, as a share of the posterior's, below which its nodes no longer resolve the
/// posterior of the rest. At 0.8 z and PIT are off by 1e-8 at most (measured over adversarial populations), and below 0.5 by as
/// much as one likes.
const LEAST_EFFECTIVE: f64 = 0.8;

/// The same where the nodes are those of icc, too, which are few. At 0.98 z is off by some 1e-4.
const LEAST_EFFECTIVE_ALIKE: f64 = 0.98;

/// The least share of the precision of mu that may be left without a block: the rest is a difference.
const LEAST_PRECISION: f64 = 1e-3;

/// The largest squared distance of a block from mu, in standard errors, whose rounding does not matter in the weights.
const MOST_MISFIT: f64 = 1e6;

impl<'a> LeaveOneOut<'a> {
    /// From the population's sketch, its priors and its exact fit under them.
    pub fn new(sketch: &Sketch, priors: &'a Priors, fit: &'a Fit) -> LeaveOneOut<'a> {
        let effects = sketch.effects();
        // Over icc the posterior has thousands.
        let is_icc_known = fit.posterior.icc.is_none_or(|icc| icc.status().is_none());
        let is_small = effects < LARGE && is_icc_known;
        let nodes = if is_small { &fit.posterior.nodes } else { &fit.nodes };
        LeaveOneOut { sketch: sketch.clone(), alike: None, priors, nodes, effects }
    }

    /// The block relative to what the population without it predicts, given its `components` where true effects are independent;
    /// `None` where the rest has no posterior, or where the components are not in the population.
    pub fn predict(&self, block: &Block, components: &[Component]) -> Option<LeftOut> {
        let mut sums = BlockSums::new(block, components);
        let nodes = self.rest(&mut sums)?;
        let rest = self.effective_without(components)?;
        let has_sd = self.priors.tau_moment_exists(rest, 2) && self.priors.mu_moment_exists(rest, 2);
        let mut parts: Vec<Part> = Vec::with_capacity(nodes.len());
        let predictions = (0..block.len()).filter(|_| has_sd).map(|i| {
            let effect = block.effects()[i];
            parts.clear();
            parts.extend(nodes.iter().map(|node| Part {
                weight: node.weight,
                mean: node.mu_mean,
                sd: (node.mu_variance + block.sampling_variance(i) + node.tau * node.tau).sqrt(),
            }));
            let mean: f64 = parts.iter().map(|p| p.weight * p.mean).sum();
            let variance: f64 = parts.iter().map(|p| p.weight * (p.sd * p.sd + (p.mean - mean).powi(2))).sum();
            // The weights may add up to a little more than 1.
            let below = |p: &Part| p.weight * normal::cdf((effect - p.mean) / p.sd);
            Prediction { z: (effect - mean) / variance.sqrt(), pit: parts.iter().map(below).sum::<f64>().min(1.0) }
        });
        Some(LeftOut {
            predictions: predictions.collect(),
            score: score(block, &nodes),
            control_shift_z: if components.len() > 1 { control_shift_z(&mut sums, &nodes) } else { None },
        })
    }

    /// [`LeftOut::score`] alone.
    pub fn score(&self, block: &Block, components: &[Component]) -> Option<f64> {
        Some(score(block, &self.rest(&mut BlockSums::new(block, components))?))
    }

    /// The posterior of the population without a block.
    fn rest(&self, sums: &mut BlockSums<'_>) -> Option<Vec<Node>> {
        let rest = self.effective_without(sums.independent)?;
        self.priors.give_proper_posterior(rest).then(|| self.reweighted(sums).or_else(|| self.refitted(sums))).flatten()
    }

    /// How many effects count for what exists without a block of these components: see [`effective_effects`].
    fn effective_without(&self, components: &[Component]) -> Option<f64> {
        let rest = self.effects.checked_sub(components.len() as u64)?;
        Some(match self.alike {
            Some(sketches) if self.priors.icc.known().is_none() => {
                effective_effects(rest, sketches.blocks().saturating_sub(1), &self.priors.icc)
            }
            _ => rest as f64,
        })
    }

    /// The posterior of the rest on the nodes of the whole; `None` where these do not resolve it.
    ///
    /// With the block's own sums a, b and c about the mean of mu at a node, and `A` the precision of mu there, the rest has
    /// precision `A - a`, mean `-b / (A - a)` from that of the whole, and a mass that is larger by the factor
    /// `exp((L + c + b^2 / (A - a)) / 2) sqrt(A / (A - a))`.
    fn reweighted(&self, sums: &mut BlockSums<'_>) -> Option<Vec<Node>> {
        let mut rest = Vec::with_capacity(self.nodes.len());
        let mut log_factors = Vec::with_capacity(self.nodes.len());
        for node in self.nodes {
            let own = sums.at(node)?;
            let share = 1.0 - own.a * node.mu_variance;
            if share < LEAST_PRECISION || own.c > MOST_MISFIT {
                return None;
            }
            let mu_variance = node.mu_variance / share;
            log_factors.push(0.5 * (own.log_det + own.c + own.b * own.b * mu_variance - share.ln()));
            rest.push(Node { mu_mean: node.mu_mean - own.b * mu_variance, mu_variance, ..*node });
        }
        let highest = log_factors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Of the nodes as they count for the mean and, where the tails are heavy, for the variance of a prediction.
        let (mut for_mean, mut for_variance) = (Effective::default(), Effective::default());
        for (node, log_factor) in rest.iter_mut().zip(log_factors) {
            let factor = (log_factor - highest).exp();
            for_mean.add(node.weight, factor);
            for_variance.add(node.weight * (node.tau * node.tau + node.mu_variance), factor);
            node.weight *= factor;
        }
        rest.iter_mut().for_each(|node| node.weight /= for_mean.sum);
        let least = if self.alike.is_some() { LEAST_EFFECTIVE_ALIKE } else { LEAST_EFFECTIVE };
        (for_mean.share() >= least && for_variance.share() >= least).then_some(rest)
    }

    /// The posterior of the rest by a fit of its own, from the cells without the block; `None` where those at the nodes' icc are not here.
    fn refitted(&self, sums: &BlockSums<'_>) -> Option<Vec<Node>> {
        if self.alike.is_none() && self.nodes.iter().any(|node| node.icc > 0.0) {
            return None;
        }
        let rest = self.sketch.without(sums.independent)?;
        let nodes = match self.alike {
            None => quadrature(&SketchLikelihood::new(&rest), self.priors).ok()?.nodes,
            Some(sketches) => {
                let mut sketches = sketches.clone();
                // Which variant stands for the block is of no account to this model.
                sketches.subtract(&Member::restore(sums.block.clone(), sums.independent.to_vec(), 0)).ok()?;
                let modelled = Correlation::Modelled;
                Fit::of(&sketches, modelled, &SketchLikelihood::new(&rest), self.priors, Method::Quadrature).ok()?.nodes
            }
        };
        nodes.iter().all(Node::is_finite).then_some(nodes)
    }
}

/// The mean over a block's effects of the log of each one's density under a mixture of `N(mu, var(mu) + Sigma_ii + tau^2)`, in nats; finite
/// however far out an effect is.
fn score(block: &Block, nodes: &[Node]) -> f64 {
    let log_weights: Vec<f64> = nodes.iter().map(|node| node.weight.ln()).collect();
    let mut logs = vec![0.0; nodes.len()];
    let total: f64 = (0..block.len())
        .map(|i| {
            for ((log, node), log_weight) in logs.iter_mut().zip(nodes).zip(&log_weights) {
                let variance = node.mu_variance + block.sampling_variance(i) + node.tau * node.tau;
                let residual = block.effects()[i] - node.mu_mean;
                *log = log_weight - 0.5 * (variance.ln() + residual * residual / variance);
            }
            let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            highest + logs.iter().map(|log| (log - highest).exp()).sum::<f64>().ln()
        })
        .sum();
    total / block.len() as f64 - 0.5 * std::f64::consts::TAU.ln()
}

/// The normal score of the probability, in the rest's predictive distribution, that the block's generalised least squares mean
/// `b / a` lies below where it does. At a node it is `N(mu, 1 / a + var(mu))`. `None` where the block has no sums there.
fn control_shift_z(sums: &mut BlockSums<'_>, nodes: &[Node]) -> Option<f64> {
    let (mut below, mut above) = (0.0, 0.0);
    for node in nodes {
        let own = sums.at(node)?;
        let z = own.b / own.a / (1.0 / own.a + node.mu_variance).sqrt();
        below += node.weight * normal::cdf(z);
        above += node.weight * normal::cdf(-z);
    }
    // From the smaller of the two, which keeps its digits; one that underflows is some 37 sds out.
    let z = |tail: f64| normal::upper_quantile(tail.clamp(f64::MIN_POSITIVE, 0.5));
    Some(if above < below { z(above) } else { -z(below) })
}

/// A population's exact fits under every model of correlation, ready to leave blocks out.
pub struct LeaveOneOuts<'a> {
    by_correlation: [Option<LeaveOneOut<'a>>; Correlation::COUNT],
    /// Whether no block has two effects, so that the models are one.
    are_one: bool,
    /// Whether the first two models are one.
    are_independent: bool,
}

impl<'a> LeaveOneOuts<'a> {
    /// From the population's sketches, its priors, and its exact fits where there are any, in the order of [`Correlation::ALL`].
    pub fn new(
        sketches: &'a Sketches,
        priors: &'a Priors,
        fits: [Option<&'a Fit>; Correlation::COUNT],
    ) -> LeaveOneOuts<'a> {
        let leave_one_out = |correlation: Correlation| {
            let leave_one_out = LeaveOneOut::new(&sketches.of(correlation), priors, fits[correlation as usize]?);
            let is_alike =
                correlation == Correlation::Modelled && !priors.icc.is_zero() && !sketches.sizes().is_empty();
            Some(LeaveOneOut { alike: is_alike.then_some(sketches), ..leave_one_out })
        };
        let effects = |correlation| sketches.of(correlation).effects();
        LeaveOneOuts {
            by_correlation: Correlation::ALL.map(leave_one_out),
            are_one: effects(Correlation::Ignored) == effects(Correlation::OnePerExperiment),
            are_independent: priors.icc.is_zero(),
        }
    }

    /// What one model of correlation predicts for all effects of a block from the other experiments.
    pub fn predict(&self, member: &Member, correlation: Correlation) -> Option<LeftOut> {
        let leave_one_out = self.by_correlation[correlation as usize].as_ref()?;
        leave_one_out.predict(member.block(), &member.components(correlation))
    }

    /// The block's [score](LeftOut::score) under every model of correlation, given what the first, which models it, predicts.
    pub fn scores(&self, member: &Member, modelled: Option<&LeftOut>) -> [Option<f64>; Correlation::COUNT] {
        Correlation::ALL.map(|correlation| match correlation {
            Correlation::Modelled => Some(modelled?.score),
            Correlation::ControlOnly if self.are_independent => Some(modelled?.score),
            _ if self.are_one => Some(modelled?.score),
            _ => {
                let leave_one_out = self.by_correlation[correlation as usize].as_ref()?;
                leave_one_out.score(member.block(), &member.components(correlation))
            }
        })
    }
}

/// Kong's effective sample size of importance weights.
#[derive(Default)]
struct Effective {
    whole: f64,
    sum: f64,
    square: f64,
}

impl Effective {
    fn add(&mut self, weight: f64, factor: f64) {
        self.whole += weight;
        self.sum += weight * factor;
        self.square += weight * factor * factor;
    }

    /// As a share of that of the weights without the factors.
    fn share(&self) -> f64 {
        self.sum / self.whole * (self.sum / self.square)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Method;

    /// Ordinary experiments with this many treatments: effects about 0 with a spread of half their standard errors.
    fn ordinary(experiments: usize, treatments: usize) -> Vec<Block> {
        // Low-discrepancy points in place of random numbers.
        let uniform = |i: usize, step: f64| ((i as f64 + 0.5) * step).fract();
        let normal = |i: usize| {
            let angle = std::f64::consts::TAU * uniform(i, 0.754_877_666_246_692_8);
            (-2.0 * uniform(i, 0.569_840_290_998_053_3).ln()).sqrt() * angle.cos()
        };
        (0..experiments)
            .map(|k| {
                let effects = (0..treatments).map(|i| 1.4 * normal(treatments * k + i)).collect();
                let d = (0..treatments).map(|i| 0.5 + uniform(treatments * k + i, 0.324_717_957_244_746)).collect();
                Block::shared_control(effects, d, if treatments > 1 { 0.5 } else { 0.0 }).expect("a block")
            })
            .collect()
    }

    #[test]
    fn an_ordinary_population_is_predicted_from_one_fit_and_hardly_a_block_of_a_small_one_needs_its_own() {
        for (experiments, treatments, most_refits) in [(20, 1, 0.1), (50, 3, 0.1), (400, 1, 0.01), (4_000, 3, 0.0)] {
            let blocks = ordinary(experiments, treatments);
            let components: Vec<Vec<Component>> = blocks.iter().map(|b| b.components().expect("components")).collect();
            let mut sketch = Sketch::new();
            components.iter().for_each(|components| sketch.add(components).expect("in range"));
            let priors = Priors::default();
            let fit = Fit::new(&SketchLikelihood::new(&sketch), &priors, Method::Quadrature).expect("a posterior");
            let leave_one_out = LeaveOneOut::new(&sketch, &priors, &fit);
            let is_refitted = |(block, components): &(&Block, &Vec<Component>)| {
                leave_one_out.reweighted(&mut BlockSums::new(block, components)).is_none()
            };
            let refits = blocks.iter().zip(&components).filter(is_refitted).count();
            assert!(refits as f64 <= most_refits * experiments as f64, "{refits} of {experiments}");
        }
    }
}
