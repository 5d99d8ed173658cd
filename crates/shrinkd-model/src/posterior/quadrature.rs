//! The exact posterior of (mu, tau): mu is integrated out in closed form, tau by adaptive Gauss-Legendre panels.
//!
//! With mu integrated out the likelihood is an even analytic function of tau with its poles at `+- i sqrt(lambda_j)`.
//! The map `tau = a sinh(x)`, with a no larger than the smallest `sqrt(lambda)`, the standard error of mu at tau = 0 and
//! the scale of a heavy-tailed prior, moves what is singular to `|Im x| >= pi / 2` or so, makes a power-law tail an
//! exponential one and leaves a pile-up at tau = 0 as smooth as any other place. Panels begin at 0, so that odd
//! functions of tau (its mean, its distribution function) have no kink inside one.
//!
//! **Promise**: means, medians and quantiles within 1e-7 posterior sd, sds to 1e-7, log evidence to 1e-8, wherever they
//! exist, from one effect to 10 million, up to 1e4 standard errors from 0. Beyond that the rounding of a log likelihood
//! that large is added, some 1e-15 for each effect.

use super::condense::NEGLIGIBLE;
use super::distribution::{Map, Panels, TauDistribution};
use super::marginal::{Marginal, Point};
use super::panel::{NODES, Panel};
use super::scan::{FARTHEST, STEP, Scan};
use super::{Mode, Node, Posterior, PosteriorError, Summary, check};
use crate::likelihood::Likelihood;
use crate::normal::{self, Part, Z_75, Z_975};
use crate::prior::{PriorMu, PriorTau, Priors};

/// The exact posterior of (mu, tau).
///
/// # Errors
/// [`PosteriorError::Empty`] without effects, [`PosteriorError::Improper`] where the posterior does not integrate,
/// [`PosteriorError::OutOfRange`] where a part of it lies beyond f64.
pub fn quadrature(likelihood: &impl Likelihood, priors: &Priors) -> Result<Posterior, PosteriorError> {
    check(likelihood.effects(), priors)?;
    Ok(match priors.tau {
        PriorTau::Fixed { tau } => given_tau(likelihood, priors, tau),
        _ => {
            let axis = Axis::new(likelihood, priors);
            let scan = axis.scan()?;
            axis.summarise(&scan, &axis.panels(&scan))
        }
    })
}

/// The posterior where tau is known: mu's, in closed form.
pub(super) fn given_tau(likelihood: &impl Likelihood, priors: &Priors, tau: f64) -> Posterior {
    let marginal = Marginal::new(likelihood, priors);
    let Point { log_density, mu_mean, mu_variance, .. } = marginal.at(tau);
    Posterior {
        mu: Summary::of_normal(mu_mean, mu_variance.sqrt()),
        tau: Summary::of_normal(tau, 0.0),
        icc: None,
        correlation: None,
        log_evidence: marginal.log_evidence(log_density),
        tau_distribution: TauDistribution::known(tau),
        modes: vec![Mode { tau, relative_log_density: 0.0 }],
        nodes: vec![Node { weight: 1.0, tau, icc: 0.0, mu_mean, mu_variance }],
    }
}

/// The axis of x on which the marginal posterior of tau is integrated.
pub(super) struct Axis<'a, L> {
    pub(super) marginal: Marginal<'a, L>,
    pub(super) effects: u64,
    pub(super) map: Map,
    /// Beyond this t the density only falls: above every lambda and the mean square of the effects.
    pub(super) far: f64,
}

/// The largest `a` in scales of the prior of tau: a narrower prior would hide between 0 and the first step of a scan.
pub(super) const WIDEST_SCALE: f64 = 100.0;

/// Rounding error of a log density, per effect and relative to its terms.
const NOISE: f64 = 16.0 * f64::EPSILON;

/// Integrals of moments beyond the support.
#[derive(Default)]
struct Tail {
    tau: f64,
    tau_squared: f64,
    mu_squared: f64,
}

/// A resolved panel with the posterior of mu at each of its nodes.
struct Resolved {
    panel: Panel,
    points: [Point; NODES],
    masses: [f64; NODES],
    /// What rounding may do to the log density: the panel is not halved in search of more.
    noise: f64,
    /// The highest moment of tau that exists, in units of `a`: its integral over the panel.
    moment: f64,
    /// How much of it the panel's nodes may have missed.
    missed_moment: f64,
}

impl Resolved {
    fn mass(&self) -> f64 {
        self.masses.iter().sum()
    }
}

impl<'a, L: Likelihood> Axis<'a, L> {
    pub(super) fn new(likelihood: &'a L, priors: &'a Priors) -> Axis<'a, L> {
        let marginal = Marginal::new(likelihood, priors);
        let smallest = likelihood.smallest_lambda();
        let scale = match priors.mu {
            PriorMu::Fixed { .. } => smallest.sqrt(),
            _ => smallest.sqrt().min(marginal.at(0.0).mu_variance.sqrt()),
        };
        let scale = scale.min(priors.tau.pole()).min(WIDEST_SCALE * priors.tau.scale());
        // At t far above every lambda, t C / N is the mean square of the effects about the centre.
        let huge = 1e20 * likelihood.largest_lambda().max(smallest);
        let mean_square = huge * likelihood.at(huge).c / likelihood.effects() as f64;
        Axis {
            effects: likelihood.effects(),
            map: Map { scale, is_log: priors.tau.vanishes_at_zero() },
            // The density may rise once more where tau explains how far mu's prior is from the effects.
            far: 4.0 * likelihood.largest_lambda() + 4.0 * mean_square + 4.0 * marginal.prior_distance().powi(2),
            marginal,
        }
    }

    pub(super) fn tau(&self, x: f64) -> f64 {
        self.map.tau(x)
    }

    pub(super) fn x(&self, tau: f64) -> f64 {
        self.map.x(tau)
    }

    /// The marginal at x and its log density in x.
    pub(super) fn at(&self, x: f64) -> (Point, f64) {
        let point = self.marginal.at(self.tau(x));
        (point, point.log_density + self.map.log_slope(x))
    }

    /// The highest power of tau whose moment exists, up to the second: the tail is cut by that moment's integrand.
    pub(super) fn moment(&self) -> f64 {
        let exists = |k| self.marginal.priors.tau_moment_exists(self.effects as f64, k);
        f64::from((1..=2).filter(|&k| exists(k)).count() as u8)
    }

    /// Panels over the support, halved until each is resolved.
    fn panels(&self, scan: &Scan) -> Vec<Resolved> {
        let count = ((scan.high - scan.low) / 2.0).ceil().clamp(4.0, 64.0) as usize;
        let width = (scan.high - scan.low) / count as f64;
        let edge = |i: usize| if i == count { scan.high } else { scan.low + width * i as f64 };
        let mut pending: Vec<Resolved> =
            (0..count).rev().map(|i| self.panel(edge(i), edge(i + 1), scan.peak)).collect();
        let mut total: f64 = pending.iter().flat_map(|p| p.masses).sum();
        let mut total_moment: f64 = pending.iter().map(|p| p.moment).sum();
        let mut resolved = Vec::with_capacity(count);
        while let Some(candidate) = pending.pop() {
            let Panel { low, high, .. } = candidate.panel;
            let mass = candidate.mass();
            let is_narrow = high - low < 1e-6 * width;
            let is_resolved = candidate.panel.is_resolved(mass, total, candidate.noise)
                && candidate.missed_moment <= candidate.noise.max(1e-4) * total_moment;
            if is_narrow || is_resolved || !total.is_finite() {
                resolved.push(candidate);
                continue;
            }
            let middle = 0.5 * (low + high);
            let halves = [self.panel(middle, high, scan.peak), self.panel(low, middle, scan.peak)];
            total += halves.iter().flat_map(|p| p.masses).sum::<f64>() - mass;
            total_moment += halves.iter().map(|p| p.moment).sum::<f64>() - candidate.moment;
            pending.extend(halves);
        }
        resolved
    }

    fn panel(&self, low: f64, high: f64, peak: f64) -> Resolved {
        let evaluated = Panel::nodes(low, high).map(|x| self.at(x));
        let panel = Panel::new(low, high, evaluated.map(|(_, log_density)| log_density - peak));
        let masses = panel.masses();
        let power = self.moment() as i32;
        let powers = Panel::nodes(low, high).map(|x| (self.tau(x) / self.map.scale).powi(power));
        let moment = masses.iter().zip(powers).map(|(mass, power)| mass * power).sum();
        let missed_moment = panel.missed(powers);
        let points = evaluated.map(|(point, _)| point);
        let noise = NOISE * points.iter().map(|point| point.summed).fold(self.effects as f64, f64::max);
        Resolved { masses, noise, moment, missed_moment, panel, points }
    }

    fn summarise(&self, scan: &Scan, panels: &[Resolved]) -> Posterior {
        let total: f64 = panels.iter().flat_map(|p| p.masses).sum();
        let nodes: Vec<Node> = panels
            .iter()
            .flat_map(|resolved| {
                let x = Panel::nodes(resolved.panel.low, resolved.panel.high);
                (0..NODES).map(move |i| Node {
                    weight: resolved.masses[i] / total,
                    tau: self.tau(x[i]),
                    icc: 0.0,
                    mu_mean: resolved.points[i].mu_mean,
                    mu_variance: resolved.points[i].mu_variance,
                })
            })
            .collect();
        let priors = self.marginal.priors;
        let tail = self.tail(scan);
        let tau_mean = nodes.iter().map(|n| n.weight * n.tau).sum::<f64>() + tail.tau / total;
        let tau_variance =
            nodes.iter().map(|n| n.weight * (n.tau - tau_mean).powi(2)).sum::<f64>() + tail.tau_squared / total;
        let with_masses = panels.iter().map(|resolved| (resolved.panel.clone(), resolved.mass())).collect();
        let distribution = Panels::new(with_masses, total);
        let tau_at = |level| Some(self.tau(distribution.quantile(level)));
        let tau = Summary {
            mean: priors.tau_moment_exists(self.effects as f64, 1).then_some(tau_mean),
            sd: priors.tau_moment_exists(self.effects as f64, 2).then(|| tau_variance.sqrt()),
            median: tau_at(0.5),
            q025: tau_at(0.025),
            q25: tau_at(0.25),
            q75: tau_at(0.75),
            q975: tau_at(0.975),
        };
        let (mu, mu_mean) = mu_summary(priors, self.effects as f64, &nodes, tail.mu_squared / total);
        let covariance = nodes.iter().map(|n| n.weight * (n.tau - tau_mean) * (n.mu_mean - mu_mean)).sum::<f64>();
        let has_spread = |&(mu_sd, tau_sd): &(f64, f64)| mu_sd > 0.0 && tau_sd > 0.0;
        let correlation = mu.sd.zip(tau.sd).filter(has_spread).map(|(mu_sd, tau_sd)| covariance / (mu_sd * tau_sd));
        let highest = scan.modes.first().map_or(0.0, |mode| mode.1);
        let mode = |&(tau, log_density): &(f64, f64)| Mode { tau, relative_log_density: log_density - highest };
        Posterior {
            mu,
            tau,
            icc: None,
            correlation,
            log_evidence: self.marginal.log_evidence(total.ln() + scan.peak + self.map.scale.ln()),
            tau_distribution: TauDistribution::integrated(self.map, distribution, scan.modes.len() < 2),
            modes: scan.modes.iter().map(mode).collect(),
            nodes,
        }
    }

    /// What moments have beyond a support that ends at the last x: there all that is left is a power of tau.
    fn tail(&self, scan: &Scan) -> Tail {
        if scan.high < FARTHEST - STEP {
            return Tail::default();
        }
        let p = self.marginal.priors.tail_exponent(self.effects as f64);
        let (point, log_density) = self.at(scan.high);
        let (mass, tau) = ((log_density - scan.peak).exp(), self.tau(scan.high));
        let moment = |k: f64| if p > k + 1.0 { mass * tau.powf(k) / (p - k - 1.0) } else { 0.0 };
        Tail { tau: moment(1.0), tau_squared: moment(2.0), mu_squared: point.mu_variance / tau / tau * moment(2.0) }
    }
}

/// Summary of the mixture that mu is, and its mean whether or not that exists.
pub(super) fn mu_summary(priors: &Priors, effects: f64, nodes: &[Node], tail: f64) -> (Summary, f64) {
    if let PriorMu::Fixed { mu } = priors.mu {
        return (Summary::of_normal(mu, 0.0), mu);
    }
    let mean = nodes.iter().map(|n| n.weight * n.mu_mean).sum::<f64>();
    let variance = nodes.iter().map(|n| n.weight * (n.mu_variance + (n.mu_mean - mean).powi(2))).sum::<f64>() + tail;
    let parts: Vec<Part> = nodes
        .iter()
        .filter(|n| n.weight > NEGLIGIBLE)
        .map(|n| Part { weight: n.weight, mean: n.mu_mean, sd: n.mu_variance.sqrt() })
        .collect();
    let sd = priors.mu_moment_exists(effects, 2).then(|| variance.sqrt());
    // The nodes' means hardly differ, and where the variance is large or infinite it is no guide.
    let middle = normal::middle(&parts);
    let at = |z: f64| middle.map(|part| normal::mixture_quantile(&parts, z, part.mean + z * part.sd));
    let summary = Summary {
        mean: priors.mu_moment_exists(effects, 1).then_some(mean),
        sd,
        median: at(0.0),
        q025: at(-Z_975),
        q25: at(-Z_75),
        q75: at(Z_75),
        q975: at(Z_975),
    };
    (summary, mean)
}
