//! Reduces a posterior's mixture over tau to as few nodes as its effects need.
//!
//! Every effect of a population is averaged over the same nodes, so their number determines the cost of an estimate and the
//! size of a stored fit. The Gauss rule of the posterior itself, as a discrete measure over the quadrature's nodes, integrates
//! twice as many degrees as it has nodes; it comes from the Lanczos process and the eigenvalues of a small tridiagonal matrix
//! (Golub & Welsch, Math. Comp. 23, 1969; Gautschi, Orthogonal Polynomials, 2004, section 2.2.3).
//!
//! What is averaged is analytic in `t = tau^2`, at infinity too, and its nearest singularities are at negative t, between minus
//! the variance of mu at tau = 0 and minus the largest lambda. The polynomials are those in `w = (t - t0) / (t + s)`, which takes
//! the whole half line to a bounded interval, so that a heavy tail needs no high degree. With s the geometric mean of these two
//! bounds, the singularities at either end are as far from the interval as they can be.

use faer::diag::{Diag, DiagRef};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd_scratch, tridiagonal_self_adjoint_evd};
use faer::{Mat, Par};

use super::Node;
use super::marginal::{Marginal, Point};
use crate::likelihood::Likelihood;
use crate::normal;
use crate::prior::{PriorMu, Priors};

/// How close a condensed rule is to the full one: in probabilities, and in posterior sds of an effect's mean.
const TOLERANCE: f64 = 1e-8;

/// Nodes with less weight than this are left out of probabilities and quantiles: thousands of them are still far below the tolerance.
pub(crate) const NEGLIGIBLE: f64 = 1e-13;

/// The degrees that are tried are at most this. More are needed only where effects are known to very different precisions and
/// leave tau open over all of that range.
const MOST: usize = 64;

/// The fewest nodes that give every effect what the posterior's own `nodes` give it, to 1e-8 on a set of probes: one
/// effect for every two octaves of sampling variance between the smallest and the largest, at 0, 1 and 3 standard
/// deviations of the predictive distribution, the probability that it is above its median and above its 98th centile.
/// All nodes that count where 64 do not.
pub fn condense(likelihood: &impl Likelihood, priors: &Priors, nodes: &[Node]) -> Vec<Node> {
    condense_to(TOLERANCE, likelihood, priors, nodes)
}

/// The same to another tolerance.
pub(super) fn condense_to(tolerance: f64, likelihood: &impl Likelihood, priors: &Priors, nodes: &[Node]) -> Vec<Node> {
    let nodes = without_negligible(nodes);
    if nodes.len() == 1 {
        return nodes;
    }
    let marginal = Marginal::new(likelihood, priors);
    let axis = Bounded::new(&marginal, &nodes);
    let probes = Probe::set(likelihood, &nodes);
    let full: Vec<[f64; 3]> = probes.iter().map(|probe| probe.summary(&nodes)).collect();
    let mut lanczos = Lanczos::new(nodes.iter().map(|node| (axis.w(node.tau), node.weight)));
    let mut degree = if tolerance > TOLERANCE { 3 } else { 6 };
    while degree <= MOST && degree < nodes.len() && lanczos.extend(degree) {
        if let Some(condensed) = lanczos.gauss(degree) {
            let node = |(w, weight)| {
                let tau = axis.tau(w);
                let Point { mu_mean, mu_variance, .. } = marginal.at(tau);
                Node { weight, tau, icc: 0.0, mu_mean, mu_variance }
            };
            let condensed: Vec<Node> = condensed.into_iter().map(node).collect();
            let error = probes.iter().zip(&full).map(|(probe, full)| probe.error(&condensed, full)).fold(0.0, largest);
            if error <= tolerance {
                return condensed;
            }
            degree = (degree + 1).max(enough(degree, error, tolerance));
        } else {
            degree += 1;
        }
    }
    nodes
}

/// The degree that is enough if each takes the same share off the error of which this one leaves so much; at most twice this one.
fn enough(degree: usize, error: f64, tolerance: f64) -> usize {
    let ratio = tolerance.ln() / error.ln();
    let ratio = if ratio > 1.0 { ratio.min(2.0) } else { 2.0 };
    (ratio * degree as f64) as usize
}

/// The larger of two numbers; NaN where one of them is.
fn largest(x: f64, y: f64) -> f64 {
    if y > x || y.is_nan() { y } else { x }
}

/// The nodes that count, with weights that add up to 1.
fn without_negligible(nodes: &[Node]) -> Vec<Node> {
    let mut kept: Vec<Node> = nodes.iter().copied().filter(|node| node.weight > NEGLIGIBLE).collect();
    let total: f64 = kept.iter().map(|node| node.weight).sum();
    kept.iter_mut().for_each(|node| node.weight /= total);
    kept
}

/// The Gauss rule of a degree for a measure on points, ascending, with these weights: points and weights; `None` where the measure
/// has not so many points that can be told apart.
pub(super) fn gauss_rule(measure: impl Iterator<Item = (f64, f64)>, degree: usize) -> Option<Vec<(f64, f64)>> {
    let mut lanczos = Lanczos::new(measure);
    if !lanczos.extend(degree) {
        return None;
    }
    lanczos.gauss(degree)
}

/// The variable `w = (t - middle) / (t + s)`, in which the polynomials are.
struct Bounded {
    s: f64,
    /// A t in the middle of the posterior, about which no digits are lost.
    middle: f64,
}

impl Bounded {
    fn new<L: Likelihood>(marginal: &Marginal<'_, L>, nodes: &[Node]) -> Bounded {
        let likelihood = marginal.likelihood;
        let smallest = match marginal.priors.mu {
            PriorMu::Fixed { .. } => likelihood.smallest_lambda(),
            _ => likelihood.smallest_lambda().min(marginal.at(0.0).mu_variance),
        };
        let heaviest = nodes.iter().max_by(|x, y| x.weight.total_cmp(&y.weight));
        Bounded {
            s: smallest.sqrt() * likelihood.largest_lambda().sqrt(),
            middle: heaviest.map_or(0.0, |node| node.tau * node.tau),
        }
    }

    fn w(&self, tau: f64) -> f64 {
        let t = tau * tau;
        (t - self.middle) / (t + self.s)
    }

    fn tau(&self, w: f64) -> f64 {
        ((self.middle + self.s * w) / (1.0 - w)).max(0.0).sqrt()
    }
}

/// The Lanczos process on a discrete measure: the recurrence of the polynomials that are orthogonal under it, each
/// orthogonalised against all before it.
struct Lanczos {
    x: Vec<f64>,
    basis: Vec<Vec<f64>>,
    diagonal: Vec<f64>,
    off_diagonal: Vec<f64>,
}

impl Lanczos {
    /// From points, ascending, and their weights.
    fn new(measure: impl Iterator<Item = (f64, f64)>) -> Lanczos {
        let (x, first) = measure.map(|(x, weight)| (x, weight.sqrt())).unzip();
        Lanczos { x, basis: vec![first], diagonal: Vec::new(), off_diagonal: Vec::new() }
    }

    /// Continues to this degree; false where the measure has no more distinguishable points.
    fn extend(&mut self, degree: usize) -> bool {
        while self.diagonal.len() < degree {
            let Some(current) = self.basis.last() else { return false };
            let mut next: Vec<f64> = current.iter().zip(&self.x).map(|(q, x)| q * x).collect();
            let diagonal = dot(&next, current);
            for _ in 0..2 {
                for earlier in &self.basis {
                    let overlap = dot(&next, earlier);
                    next.iter_mut().zip(earlier).for_each(|(y, q)| *y -= overlap * q);
                }
            }
            let norm = dot(&next, &next).sqrt();
            let largest =
                self.x.first().into_iter().chain(self.x.last()).fold(0.0, |largest: f64, x| largest.max(x.abs()));
            if norm <= 1e-14 * largest || norm.is_nan() {
                return false;
            }
            next.iter_mut().for_each(|y| *y /= norm);
            self.diagonal.push(diagonal);
            self.off_diagonal.push(norm);
            self.basis.push(next);
        }
        true
    }

    /// The Gauss rule of a degree that has been reached: points and weights.
    fn gauss(&self, degree: usize) -> Option<Vec<(f64, f64)>> {
        let [diagonal, off_diagonal] =
            [&self.diagonal, &self.off_diagonal].map(|entries| DiagRef::from_slice(&entries[..degree]));
        let (mut x, mut directions) = (Diag::<f64>::zeros(degree), Mat::<f64>::zeros(degree, degree));
        let scratch = self_adjoint_evd_scratch::<f64>(degree, ComputeEigenvectors::Yes, Par::Seq, Default::default());
        tridiagonal_self_adjoint_evd(
            diagonal,
            off_diagonal,
            x.as_mut(),
            Some(directions.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        )
        .ok()?;
        Some((0..degree).map(|j| (x[j], directions[(0, j)] * directions[(0, j)])).collect())
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// A hypothetical effect for which rules are compared.
struct Probe {
    variance: f64,
    effect: f64,
    /// Where its distribution function is compared.
    thresholds: [f64; 2],
    /// Its posterior sd, the unit of its mean.
    unit: f64,
}

impl Probe {
    fn set(likelihood: &impl Likelihood, nodes: &[Node]) -> Vec<Probe> {
        let mean: f64 = nodes.iter().map(|n| n.weight * n.mu_mean).sum();
        let heaviest = nodes.iter().max_by(|x, y| x.weight.total_cmp(&y.weight));
        let t = heaviest.map_or(0.0, |n| n.tau * n.tau);
        let octaves = (likelihood.largest_lambda() / likelihood.smallest_lambda()).log2().max(0.0);
        let count = (0.5 * octaves).ceil().min(20.0) as u32;
        let variances = (0..=count).map(|i| {
            let octave = if count == 0 { 0.0 } else { octaves * f64::from(i) / f64::from(count) };
            likelihood.smallest_lambda() * octave.exp2()
        });
        variances
            .flat_map(|variance| [0.0, 1.0, 3.0].map(|z| (variance, mean + z * (variance + t).sqrt())))
            .map(|(variance, effect)| {
                let mut probe = Probe { variance, effect, thresholds: [0.0; 2], unit: 1.0 };
                let parts: Vec<(f64, f64, f64)> = nodes.iter().map(|n| probe.conditional(n)).collect();
                let mean: f64 = parts.iter().map(|(w, m, _)| w * m).sum();
                probe.unit = parts.iter().map(|(w, m, v)| w * (v + (m - mean).powi(2))).sum::<f64>().sqrt();
                probe.thresholds = [mean, mean - 2.0 * probe.unit];
                probe
            })
            .collect()
    }

    /// Weight, mean and variance of the effect's posterior at a node.
    fn conditional(&self, node: &Node) -> (f64, f64, f64) {
        let t = node.tau * node.tau;
        let (kept, pulled) = (t / (self.variance + t), self.variance / (self.variance + t));
        let mean = node.mu_mean + kept * (self.effect - node.mu_mean);
        (node.weight, mean, kept * self.variance + pulled * pulled * node.mu_variance)
    }

    /// How far `nodes` are from what all of them give it.
    fn error(&self, nodes: &[Node], full: &[f64; 3]) -> f64 {
        self.summary(nodes).iter().zip(full).map(|(x, y)| (x - y).abs()).fold(0.0, largest)
    }

    /// Its mean in posterior sds from its median, and the probabilities that it is above the thresholds.
    fn summary(&self, nodes: &[Node]) -> [f64; 3] {
        let mut summary = [0.0; 3];
        for node in nodes {
            let (weight, mean, variance) = self.conditional(node);
            summary[0] += weight * (mean - self.thresholds[0]) / self.unit;
            for (sum, threshold) in summary[1..].iter_mut().zip(self.thresholds) {
                *sum += weight * normal::cdf((mean - threshold) / variance.sqrt());
            }
        }
        summary
    }
}
