//! Calibration: whether the population predicts an experiment that is left out.
//!
//! A block is left out exactly, by subtracting its own sums from the population's at the nodes of the posterior and
//! reweighting these. Each of its effects is then compared with a predictive distribution that does not depend on it, a
//! mixture of `N(mu, 1 / A + V_ii)` (Gelman, Meng & Stern, Statistica Sinica 6, 1996; leave-one-out
//! predictive checks: Marshall & Spiegelhalter, Stat. Med. 22, 2003).

use super::block::block_terms;
use crate::block::Block;
use crate::likelihood::{Likelihood, Terms};
use crate::normal::{self, Part};
use crate::posterior::Node;
use crate::posterior::profile::{MuPrior, Profile};
use crate::prior::Priors;
use crate::spectrum::Component;

/// One effect relative to what the other experiments predict for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// (effect - predictive mean) / predictive sd.
    pub z: f64,
    /// Probability integral transform: the predictive probability of an effect below this one.
    pub pit: f64,
}

/// The population's posterior at its nodes, ready to leave blocks out.
pub struct LeaveOneOut<'a> {
    nodes: &'a [Node],
    terms: Vec<Terms>,
    /// Log of each node's weight, less the log mass of the population there.
    log_weights: Vec<f64>,
    centre: f64,
    effects: u64,
    priors: &'a Priors,
    mu_prior: MuPrior,
}

impl<'a> LeaveOneOut<'a> {
    /// From the population's likelihood, priors and posterior nodes.
    pub fn new(likelihood: &impl Likelihood, priors: &'a Priors, nodes: &'a [Node]) -> LeaveOneOut<'a> {
        let centre = likelihood.centre();
        let mu_prior = MuPrior::new(priors.mu, centre);
        let terms: Vec<Terms> = nodes.iter().map(|node| likelihood.at(node.tau * node.tau)).collect();
        let log_weight = |(node, terms): (&Node, &Terms)| node.weight.ln() - Profile::new(terms, mu_prior).log_mass();
        LeaveOneOut {
            nodes,
            log_weights: nodes.iter().zip(&terms).map(log_weight).collect(),
            terms,
            centre,
            effects: likelihood.effects(),
            priors,
            mu_prior,
        }
    }

    /// The block's effects relative to what the rest predicts; `None` where the rest has no predictive sd.
    pub fn predict(&self, block: &Block, components: &[Component]) -> Option<Vec<Prediction>> {
        let rest = self.effects.checked_sub(block.len() as u64)?;
        let has_sd = self.priors.tau_moment_exists(rest, 2) && self.priors.mu_moment_exists(rest, 2);
        if !has_sd {
            return None;
        }
        let mut without: Vec<(f64, f64, f64)> = (0..self.nodes.len()).map(|i| self.without(i, components)).collect();
        let highest = without.iter().map(|x| x.0).fold(f64::NEG_INFINITY, f64::max);
        without.iter_mut().for_each(|x| x.0 = (x.0 - highest).exp());
        let total: f64 = without.iter().map(|x| x.0).sum();
        let mut parts: Vec<Part> = Vec::with_capacity(self.nodes.len());
        let predictions = (0..block.len()).map(|i| {
            let effect = block.effects()[i];
            parts.clear();
            parts.extend(self.nodes.iter().zip(&without).map(|(node, &(weight, mean, variance))| Part {
                weight: weight / total,
                mean,
                sd: (variance + block.sampling_variance(i) + node.tau * node.tau).sqrt(),
            }));
            let mean: f64 = parts.iter().map(|p| p.weight * p.mean).sum();
            let variance: f64 = parts.iter().map(|p| p.weight * (p.sd * p.sd + (p.mean - mean).powi(2))).sum();
            Prediction { z: (effect - mean) / variance.sqrt(), pit: 1.0 - normal::mixture_above(&parts, effect) }
        });
        Some(predictions.collect())
    }

    /// Log weight of node `i`, and mean and variance of mu there, once the components are left out.
    fn without(&self, i: usize, components: &[Component]) -> (f64, f64, f64) {
        let (node, terms) = (&self.nodes[i], &self.terms[i]);
        let own = block_terms(components, node.tau * node.tau, self.centre);
        let rest = Terms {
            log_det: terms.log_det - own.log_det,
            a: (terms.a - own.a).max(0.0),
            b: terms.b - own.b,
            c: terms.c - own.c,
        };
        let rest = Profile::new(&rest, self.mu_prior);
        (self.log_weights[i] + rest.log_mass(), self.centre + rest.mean, 1.0 / rest.precision)
    }
}

/// The predictions of a population, summarised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    pub effects: u64,
    /// Root mean square of z: 1 where the predictive spread is right.
    pub rms_z: f64,
    /// Share of effects within their central 50%, 80% and 95% predictive intervals.
    pub coverage50: f64,
    pub coverage80: f64,
    pub coverage95: f64,
}

impl Calibration {
    /// Summarises predictions; `None` without any.
    pub fn new(predictions: &[Prediction]) -> Option<Calibration> {
        let count = predictions.len() as f64;
        let within =
            |level: f64| predictions.iter().filter(|p| (p.pit - 0.5).abs() <= 0.5 * level).count() as f64 / count;
        (!predictions.is_empty()).then(|| Calibration {
            effects: predictions.len() as u64,
            rms_z: (predictions.iter().map(|p| p.z * p.z).sum::<f64>() / count).sqrt(),
            coverage50: within(0.5),
            coverage80: within(0.8),
            coverage95: within(0.95),
        })
    }
}
