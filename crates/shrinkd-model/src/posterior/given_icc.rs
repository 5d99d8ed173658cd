//! The posterior of tau and mu at one intraclass correlation, on panels of its own.

use super::adaptive::{Pieces, Promise};
use super::distribution::Map;
use super::marginal::{Marginal, Point};
use super::panel::{NODES, Panel};
use super::quadrature::{WIDEST_SCALE, given_tau};
use super::scan::{CUT, FARTHEST, LARGEST_TAU, STEP};
use super::{Node, PosteriorError};
use crate::icc::{IccLikelihood, LikelihoodAtIcc};
use crate::likelihood::Likelihood;
use crate::prior::{PriorMu, PriorTau, Priors};

/// How near the integrals are, relative to the whole: interpolation over icc is no nearer.
const NOISE: f64 = 1e-7;

/// The posterior at one icc.
pub(super) struct Inner<'a> {
    pub likelihood: LikelihoodAtIcc<'a>,
    /// Log of the integral over tau of prior and likelihood.
    pub log_mass: f64,
    /// Along x. Empty where tau is known.
    pub pieces: Vec<(Panel, [f64; NODES], [Point; NODES])>,
    pub total: f64,
}

/// All that the integrals over tau have in common.
pub(super) struct Axis<'a> {
    pub all: &'a IccLikelihood,
    pub priors: &'a Priors,
    pub map: Map,
    pub far: f64,
    pub power: i32,
    pub noise: f64,
}

impl<'a> Axis<'a> {
    pub fn new(all: &'a IccLikelihood, priors: &'a Priors, effective: f64) -> Axis<'a> {
        let at_zero = all.at(0.0);
        let marginal = Marginal::new(&at_zero, priors);
        let (smallest, largest) = (at_zero.smallest_lambda(), at_zero.largest_lambda());
        let scale = match priors.mu {
            PriorMu::Fixed { .. } => smallest.sqrt(),
            _ => smallest.sqrt().min(marginal.at(0.0).mu_variance.sqrt()),
        };
        let scale = scale.min(priors.tau.pole()).min(WIDEST_SCALE * priors.tau.scale());
        let huge = 1e20 * largest;
        let mean_square = huge * at_zero.at(huge).c / all.effects() as f64;
        let far = 4.0 * largest + 4.0 * mean_square + 4.0 * marginal.prior_distance().powi(2);
        let power = (1..=2).filter(|&k| priors.tau_moment_exists(effective, k)).count() as i32;
        let map = Map { scale, is_log: priors.tau.vanishes_at_zero() };
        Axis { all, priors, map, far, power, noise: (1e-13 * all.effects() as f64).max(NOISE) }
    }

    /// The posterior at x, and its log density there.
    pub fn at(&self, marginal: &Marginal<'_, LikelihoodAtIcc<'_>>, x: f64) -> (f64, Point) {
        let point = marginal.at(self.map.tau(x));
        (point.log_density + self.map.log_slope(x) + self.map.scale.ln(), point)
    }

    pub fn inner(&self, icc: f64) -> Result<Inner<'a>, PosteriorError> {
        let likelihood = self.all.at(icc);
        let marginal = Marginal::new(&likelihood, self.priors);
        if let PriorTau::Fixed { tau } = self.priors.tau {
            let log_mass = marginal.at(tau).log_density;
            return Ok(Inner { likelihood, log_mass, pieces: Vec::new(), total: 1.0 });
        }
        let edges = self.support(|x| self.at(&marginal, x).0)?;
        let moment = |x: f64| (self.map.tau(x) / self.map.scale).powi(self.power);
        let promise = Promise { moment: &moment, noise: self.noise };
        let pieces = Pieces::new(&edges, &promise, |x| self.at(&marginal, x));
        let total = pieces.total();
        let log_mass = total.ln() + pieces.peak;
        let pieces = pieces.pieces.into_iter().map(|piece| (piece.panel, piece.masses, piece.at)).collect();
        Ok(Inner { likelihood, log_mass, pieces, total })
    }

    /// Edges of panels over all that counts of a log density in x.
    pub fn support(&self, log_density: impl Fn(f64) -> f64) -> Result<Vec<f64>, PosteriorError> {
        let start = if self.map.is_log { self.start(&log_density) } else { 0.0 };
        let mut seen: Vec<(f64, f64, f64)> = Vec::with_capacity(100);
        let (mut peak, mut moment_peak) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        loop {
            let x = start + STEP * seen.len() as f64;
            let (log, tau) = (log_density(x), self.map.tau(x));
            let log_moment = if self.power > 0 { log + f64::from(self.power) * tau.ln() } else { log };
            (peak, moment_peak) = (peak.max(log), moment_peak.max(log_moment));
            seen.push((x, log, log_moment));
            let is_at_the_end = x > FARTHEST || tau > LARGEST_TAU;
            if is_at_the_end || (tau * tau > self.far && log < peak - CUT && log_moment < moment_peak - CUT) {
                if log > peak - 0.5 * CUT || !peak.is_finite() {
                    return Err(PosteriorError::OutOfRange);
                }
                break;
            }
        }
        let first = seen.iter().position(|(_, log, _)| *log >= peak - CUT).unwrap_or(0).saturating_sub(1);
        let counts = |(_, log, log_moment): &(f64, f64, f64)| *log >= peak - CUT || *log_moment >= moment_peak - CUT;
        let last = (seen.iter().rposition(counts).unwrap_or(0) + 1).min(seen.len() - 1);
        let (low, high) = (seen[first].0, seen[last].0);
        let count = ((high - low) / 2.0).ceil().clamp(2.0, 64.0) as usize;
        Ok((0..=count).map(|i| low + (high - low) * i as f64 / count as f64).collect())
    }

    /// Where nothing is left of the posterior to the left.
    fn start(&self, log_density: &impl Fn(f64) -> f64) -> f64 {
        let flat = -0.5 * (self.all.effects() as f64).ln() - 1.0;
        let mut x = self.map.x(self.priors.tau.scale()).min(flat);
        let here = log_density(x);
        while log_density(x) > here - CUT - 2.0 {
            x -= STEP;
        }
        x
    }
}

impl Inner<'_> {
    /// The mixture over tau, each with its share.
    pub fn nodes(&self, axis: &Axis<'_>, share: f64) -> Vec<Node> {
        let icc = self.likelihood.icc();
        if let PriorTau::Fixed { tau } = axis.priors.tau {
            let known = given_tau(&self.likelihood, axis.priors, tau);
            return known.nodes.into_iter().map(|node| Node { weight: share, icc, ..node }).collect();
        }
        let node = |x: f64, mass: f64, point: &Point| Node {
            weight: share * mass / self.total,
            tau: axis.map.tau(x),
            icc,
            mu_mean: point.mu_mean,
            mu_variance: point.mu_variance,
        };
        let of_piece = |(panel, masses, points): &(Panel, [f64; NODES], [Point; NODES])| {
            let x = Panel::nodes(panel.low, panel.high);
            (0..NODES).map(|i| node(x[i], masses[i], &points[i])).collect::<Vec<_>>()
        };
        self.pieces.iter().flat_map(of_piece).collect()
    }

    /// The probability that tau is below this.
    pub fn below(&self, axis: &Axis<'_>, tau: f64) -> f64 {
        if let PriorTau::Fixed { tau: known } = axis.priors.tau {
            return f64::from(u8::from(known < tau));
        }
        let x = axis.map.x(tau);
        let mass = |(panel, masses, _): &(Panel, [f64; NODES], [Point; NODES])| match x {
            x if x >= panel.high => masses.iter().sum(),
            x if x > panel.low => panel.mass_below(x),
            _ => 0.0,
        };
        self.pieces.iter().map(mass).sum::<f64>() / self.total
    }
}
