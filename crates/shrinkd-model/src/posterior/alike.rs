//! The exact posterior of (mu, tau, icc): mu in closed form, tau and icc by adaptive Gauss-Legendre panels.
//!
//! At each icc the posterior of tau is integrated as by the exact quadrature of a known icc. The icc is integrated along u in
//! [0, 1], `s = S u^k` in the s of `icc`, with k = 1 but where the prior of icc is singular at 0. The distribution of tau is that
//! of the nodes of icc together, integrated once more.

use super::adaptive::{Pieces, Promise};
use super::condense::{condense_to, gauss_rule};
use super::distribution::{Panels, TauDistribution};
use super::given_icc::{Axis, Inner};
use super::icc_posterior::IccPosterior;
use super::marginal::Marginal;
use super::panel::Panel;
use super::quadrature::mu_summary;
use super::scan::CUT;
use super::{Mode, Node, Posterior, PosteriorError, Summary};
use crate::icc::{IccLikelihood, IccNodes, LARGEST_ICC, LikelihoodAtIcc, PriorIcc};
use crate::prior::{PriorTau, Priors};

/// Nodes of icc over which effects are averaged, and how near those of tau come at each: their means and probabilities to some 1e-4.
const EFFECT_NODES: usize = 5;
const EFFECT_TOLERANCE: f64 = 3e-4;

/// Shares of the posterior below this are left out of what follows from all nodes.
const LEAST_SHARE: f64 = 1e-13;
const LEAST_SHARE_OF_MEDIANS: f64 = 1e-9;

/// icc along u.
struct IccAxis {
    nodes: &'static IccNodes,
    power: f64,
    largest: f64,
}

impl IccAxis {
    fn new(nodes: &'static IccNodes, prior: &PriorIcc) -> IccAxis {
        IccAxis { nodes, power: prior.power_at_zero(), largest: nodes.s(LARGEST_ICC) }
    }

    fn icc(&self, u: f64) -> f64 {
        self.nodes.icc(self.largest * u.powf(self.power))
    }

    fn u(&self, icc: f64) -> f64 {
        (self.nodes.s(icc) / self.largest).powf(1.0 / self.power)
    }

    /// Log of `d icc / du`.
    fn log_slope(&self, u: f64) -> f64 {
        let power = if self.power == 1.0 { 0.0 } else { self.power.ln() + (self.power - 1.0) * u.ln() };
        (self.nodes.slope(self.icc(u)) * self.largest).ln() + power
    }
}

/// Edges of the first panels in u.
const EDGES: [f64; 4] = [0.0, 0.35, 0.7, 1.0];

/// Edges of panels over all of u that counts, judged by the log density at the nodes of icc and the polynomial through them.
fn edges(iccs: &IccAxis, at_nodes: &[f64]) -> [f64; 4] {
    const STEPS: usize = 400;
    let at = |i: usize| {
        let icc = iccs.icc(i as f64 / STEPS as f64);
        iccs.nodes.coefficients(icc).iter().zip(at_nodes).map(|(weight, log)| weight * log).sum::<f64>()
    };
    let seen: Vec<f64> = (0..=STEPS).map(at).collect();
    let peak = seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let counts = |log: &f64| *log > peak - CUT - 10.0;
    let first = seen.iter().position(counts).unwrap_or(0).saturating_sub(1);
    let last = (seen.iter().rposition(counts).unwrap_or(STEPS) + 1).min(STEPS);
    let (low, high) = (first as f64 / STEPS as f64, last as f64 / STEPS as f64);
    EDGES.map(|edge| low + (high - low) * edge)
}

/// The root of a function that rises, in a bracket (Dowell & Jarratt, BIT 11, 1971).
fn root((mut low, mut high): (f64, f64), f: impl Fn(f64) -> f64) -> f64 {
    let (mut below, mut above) = (f(low), f(high));
    for _ in 0..60 {
        if !(below < 0.0 && above > 0.0) || high - low < 1e-11 {
            break;
        }
        let x = (low * above - high * below) / (above - below);
        let y = f(x);
        if y.abs() < 1e-12 {
            return x;
        }
        // Illinois: the end that stays counts for half the next time.
        if y > 0.0 {
            (high, above) = (x, y);
            below *= 0.5;
        } else {
            (low, below) = (x, y);
            above *= 0.5;
        }
    }
    0.5 * (low + high)
}

/// How many effects, were they independent, would leave the posterior the tail that this population leaves it: blocks of several
/// variants count for less where icc may be near 1.
pub(crate) fn effective_effects(effects: u64, blocks: u64, prior: &PriorIcc) -> f64 {
    (blocks as f64 + 2.0 * prior.exponent_at_one()).min(effects as f64)
}

/// The exact posterior of (mu, tau, icc), and the nodes over which effects are averaged.
///
/// # Errors
/// As [`quadrature`](super::quadrature()).
pub fn quadrature_with_icc(all: &IccLikelihood, priors: &Priors) -> Result<(Posterior, Vec<Node>), PosteriorError> {
    let effective = effective_effects(all.effects(), all.blocks(), &priors.icc);
    super::check(all.effects(), priors)?;
    if !priors.give_proper_posterior(effective) {
        return Err(PosteriorError::ImproperAlike { experiments: all.blocks() });
    }
    let (axis, iccs) = (Axis::new(all, priors, effective), IccAxis::new(all.nodes(), &priors.icc));
    let mut failed = None;
    let promise = Promise { moment: &|_| 1.0, noise: axis.noise };
    let log_prior = |u: f64| priors.icc.log_density(iccs.icc(u)) + iccs.log_slope(u);
    let mut at_nodes = Vec::new();
    for &icc in iccs.nodes.iccs() {
        at_nodes.push(axis.inner(icc)?.log_mass + log_prior(iccs.u(icc).max(1e-3)));
    }
    let edges = if iccs.power == 1.0 { edges(&iccs, &at_nodes) } else { EDGES };
    let outer = Pieces::new(&edges, &promise, |u| match axis.inner(iccs.icc(u)) {
        Ok(inner) => (log_prior(u) + inner.log_mass, Some(inner)),
        Err(error) => {
            failed = Some(error);
            (f64::NEG_INFINITY, None)
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let total = outer.total();
    let log_prior_mass = {
        let prior = Pieces::new(&EDGES, &Promise { moment: &|_| 1.0, noise: 0.0 }, |u| (log_prior(u), ()));
        prior.total().ln() + prior.peak
    };
    let log_mass = total.ln() + outer.peak - log_prior_mass;

    let mut shares: Vec<(f64, f64, Inner<'_>)> = Vec::new();
    let mut panels = Vec::new();
    for piece in outer.pieces {
        let u = Panel::nodes(piece.panel.low, piece.panel.high);
        panels.push((piece.panel, piece.masses.iter().sum()));
        for ((u, mass), inner) in u.into_iter().zip(piece.masses).zip(piece.at) {
            let share = mass / total;
            shares.extend(inner.filter(|_| share > LEAST_SHARE).map(|inner| (u, share, inner)));
        }
    }
    let by_u = Panels::new(panels, total);
    let of_icc = |power: i32, about: f64| -> f64 {
        shares.iter().map(|(_, share, inner)| share * (inner.likelihood.icc() - about).powi(power)).sum()
    };
    let icc_mean = of_icc(1, 0.0);
    let icc_at = |level| Some(iccs.icc(by_u.quantile(level)));
    let icc = Summary {
        mean: Some(icc_mean),
        sd: Some(of_icc(2, icc_mean).sqrt()),
        median: icc_at(0.5),
        q025: icc_at(0.025),
        q25: icc_at(0.25),
        q75: icc_at(0.75),
        q975: icc_at(0.975),
    };

    let mut nodes: Vec<Node> = shares.iter().flat_map(|(_, share, inner)| inner.nodes(&axis, *share)).collect();
    // Where tails are heavy nodes count for the second moment that do not for the mass.
    let square = nodes.iter().map(|node| node.weight * node.tau * node.tau).sum::<f64>().max(f64::MIN_POSITIVE);
    nodes.retain(|node| node.weight * (node.tau * node.tau / square).max(1.0) > LEAST_SHARE);
    let weight: f64 = nodes.iter().map(|node| node.weight).sum();
    nodes.iter_mut().for_each(|node| node.weight /= weight);
    let tau_mean: f64 = nodes.iter().map(|node| node.weight * node.tau).sum();
    let tau_variance: f64 = nodes.iter().map(|node| node.weight * (node.tau - tau_mean).powi(2)).sum();
    let (mu, mu_mean) = mu_summary(priors, effective, &nodes, 0.0);
    let OfTau { distribution, modes, summary: quantiles } = distribution_of_tau(&axis, &shares)?;
    let tau = match priors.tau {
        PriorTau::Fixed { .. } => quantiles,
        _ => Summary {
            mean: priors.tau_moment_exists(effective, 1).then_some(tau_mean),
            sd: priors.tau_moment_exists(effective, 2).then(|| tau_variance.sqrt()),
            ..quantiles
        },
    };
    let covariance: f64 = nodes.iter().map(|n| n.weight * (n.tau - tau_mean) * (n.mu_mean - mu_mean)).sum();
    let has_spread = |&(mu_sd, tau_sd): &(f64, f64)| mu_sd > 0.0 && tau_sd > 0.0;
    let correlation = mu.sd.zip(tau.sd).filter(has_spread).map(|(mu_sd, tau_sd)| covariance / (mu_sd * tau_sd));

    let (at_zero, at_half) = (axis.inner(0.0)?, axis.inner(0.5)?);
    let log_evidence = Marginal::new(&at_zero.likelihood, priors).log_evidence(log_mass);
    let [tau_low, tau_high] = [tau.q025, tau.q975].map(|tau| tau.unwrap_or(0.0).ln());
    let part_median = |part: &dyn Fn(f64) -> f64| {
        let counted = shares.iter().filter(|(_, share, _)| *share > LEAST_SHARE_OF_MEDIANS);
        let parts: Vec<(f64, f64, &Inner<'_>)> =
            counted.map(|(_, share, inner)| (*share, part(inner.likelihood.icc()), inner)).collect();
        let below = |log: f64| -> f64 {
            parts.iter().map(|(share, part, inner)| share * inner.below(&axis, log.exp() / part)).sum::<f64>() - 0.5
        };
        root((tau_low - 14.0, tau_high), below).exp()
    };
    let icc_posterior = IccPosterior {
        icc,
        log_bayes_factor: log_mass - at_zero.log_mass,
        log_bayes_factor_half: at_half.log_mass - at_zero.log_mass,
        prob_above_090: 1.0 - by_u.share_below(iccs.u(0.9)),
        tau_within_median: part_median(&|icc| (1.0 - icc).sqrt()),
        tau_shared_median: part_median(&|icc| icc.sqrt()),
    };

    let effect_nodes = effect_nodes(&axis, &shares)?;
    let posterior = Posterior {
        mu,
        tau,
        icc: Some(icc_posterior),
        correlation,
        log_evidence,
        tau_distribution: distribution,
        modes,
        nodes,
    };
    Ok((posterior, effect_nodes))
}

/// What is said of an icc that is known, given tau's posterior with it.
///
/// # Errors
/// As [`quadrature`](super::quadrature()).
pub fn known_icc(
    all: &IccLikelihood,
    priors: &Priors,
    icc: f64,
    tau: &Summary,
) -> Result<IccPosterior, PosteriorError> {
    let axis = Axis::new(all, priors, all.effects() as f64);
    let [at_zero, at_half, own] = [0.0, 0.5, icc].map(|icc| axis.inner(icc).map(|inner| inner.log_mass));
    let (at_zero, tau_median) = (at_zero?, tau.median.unwrap_or(0.0));
    Ok(IccPosterior {
        icc: Summary::of_normal(icc, 0.0),
        log_bayes_factor: own? - at_zero,
        log_bayes_factor_half: at_half? - at_zero,
        prob_above_090: f64::from(u8::from(icc > 0.9)),
        tau_within_median: tau_median * (1.0 - icc).sqrt(),
        tau_shared_median: tau_median * icc.sqrt(),
    })
}

/// The distribution of tau, with its quantiles.
struct OfTau {
    distribution: TauDistribution,
    modes: Vec<Mode>,
    summary: Summary,
}

/// The distribution of tau whatever icc is.
fn distribution_of_tau(axis: &Axis<'_>, shares: &[(f64, f64, Inner<'_>)]) -> Result<OfTau, PosteriorError> {
    if let PriorTau::Fixed { tau } = axis.priors.tau {
        let modes = vec![Mode { tau, relative_log_density: 0.0 }];
        return Ok(OfTau { distribution: TauDistribution::known(tau), modes, summary: Summary::of_normal(tau, 0.0) });
    }
    let marginals: Vec<(f64, Marginal<'_, LikelihoodAtIcc<'_>>)> = shares
        .iter()
        .filter(|(_, share, _)| *share > 1e-11)
        .map(|(_, share, inner)| (share.ln() - inner.log_mass, Marginal::new(&inner.likelihood, axis.priors)))
        .collect();
    let log_density = |x: f64| {
        let logs: Vec<f64> = marginals.iter().map(|(weight, marginal)| weight + axis.at(marginal, x).0).collect();
        let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if highest.is_finite() {
            highest + logs.iter().map(|log| (log - highest).exp()).sum::<f64>().ln()
        } else {
            highest
        }
    };
    let edges = axis.support(log_density)?;
    let moment = |x: f64| (axis.map.tau(x) / axis.map.scale).powi(axis.power);
    let pieces = Pieces::new(&edges, &Promise { moment: &moment, noise: axis.noise }, |x| (log_density(x), ()));
    // In its own terms.
    let density: Vec<(f64, f64)> = pieces
        .pieces
        .iter()
        .flat_map(|piece| {
            let x = Panel::nodes(piece.panel.low, piece.panel.high);
            x.map(|x| (axis.map.tau(x), piece.panel.log_density(x) - axis.map.log_slope(x)))
        })
        .collect();
    let is_mode = |i: usize| {
        let at = |i: Option<usize>| i.and_then(|i| density.get(i)).map_or(f64::NEG_INFINITY, |(_, log)| *log);
        density[i].1 >= at(i.checked_sub(1)) && density[i].1 > at(Some(i + 1))
    };
    let mut modes: Vec<(f64, f64)> = (0..density.len()).filter(|&i| is_mode(i)).map(|i| density[i]).collect();
    modes.sort_by(|left, right| right.1.total_cmp(&left.1));
    let highest = modes.first().map_or(0.0, |mode| mode.1);
    // The mixture is over the nodes of icc: where tau given icc is narrow and moves with it, each of them has a mode that is none of the whole.
    modes.truncate(1);
    let modes: Vec<Mode> =
        modes.into_iter().map(|(tau, log)| Mode { tau, relative_log_density: log - highest }).collect();
    let total = pieces.total();
    let with_masses: Vec<(Panel, f64)> =
        pieces.pieces.into_iter().map(|piece| (piece.panel, piece.masses.iter().sum())).collect();
    let panels = Panels::new(with_masses, total);
    let at = |level: f64| Some(axis.map.tau(panels.quantile(level)));
    let summary = Summary {
        median: at(0.5),
        q025: at(0.025),
        q25: at(0.25),
        q75: at(0.75),
        q975: at(0.975),
        ..Summary::default()
    };
    Ok(OfTau { distribution: TauDistribution::integrated(axis.map, panels, modes.len() < 2), modes, summary })
}

/// A Gauss rule over icc, and at each of its nodes one over tau.
fn effect_nodes(axis: &Axis<'_>, shares: &[(f64, f64, Inner<'_>)]) -> Result<Vec<Node>, PosteriorError> {
    // In this s what is averaged is smooth, whatever the number of variants and wherever the prior has its probability.
    let nodes_in_s = IccNodes::few();
    let measure = || shares.iter().map(|(_, share, inner)| (nodes_in_s.s(inner.likelihood.icc()), *share));
    let rule = (1..=EFFECT_NODES).rev().find_map(|degree| gauss_rule(measure(), degree));
    let mut nodes = Vec::new();
    for (s, weight) in rule.unwrap_or_default() {
        let inner = axis.inner(nodes_in_s.icc(s.max(0.0)))?;
        let of_tau = inner.nodes(axis, 1.0);
        let icc = inner.likelihood.icc();
        let condensed = condense_to(EFFECT_TOLERANCE, &inner.likelihood, axis.priors, &of_tau);
        nodes.extend(condensed.into_iter().map(|node| Node { weight: node.weight * weight, icc, ..node }));
    }
    let total: f64 = nodes.iter().map(|node| node.weight).sum();
    nodes.iter_mut().for_each(|node| node.weight /= total);
    Ok(nodes)
}
