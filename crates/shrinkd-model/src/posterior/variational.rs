//! The Gaussian on (mu, log tau) closest to the posterior: it maximises the evidence lower bound (ELBO; Blei,
//! Kucukelbir & McAuliffe, JASA 112, 2017), which here needs no sampling.
//!
//! mu enters the joint log density as a parabola whose top `m(x)` and precision `A(x)` depend on `x = log tau` alone.
//! So for `x ~ N(x0, s^2)`, `z = (x - x0) / s` and `mu | x ~ N(line(z), v)`, with `g` the log density along the top,
//!
//! `ELBO = E[g - A ((line - m)^2 + v) / 2] + log s + log(v) / 2 + 1 + log 2 pi`:
//!
//! the best line is the regression of m on z with weights A, the best v is `1 / E[A]`, and two parameters are left. The
//! expectations are trapezoidal sums over a fixed table of x (geometrically convergent; Trefethen & Weideman, SIAM
//! Review 56, 2014), so that the likelihood is evaluated once per table, not once per step, and the sums' derivatives
//! in x0 and s, by Hermite polynomials, are exact.

use super::gaussian::Gaussian;
use super::joint::{self, Joint, LN_2_PI, RidgePoint};
use super::quadrature::given_tau;
use super::{Posterior, PosteriorError, check};
use crate::likelihood::Likelihood;
use crate::prior::{PriorTau, Priors};

/// How many sds of x a table must hold to either side, and holds when it is new.
const REACH: f64 = 7.5;
const NEW_REACH: f64 = 9.5;

/// Steps of a table: the widest for a smooth log density, whose poles are at Im x = pi / 2; the widest in sds; and that
/// of a new table in sds.
const WIDEST_STEP: f64 = 1.0 / 3.0;
const WIDEST_STEP_IN_SDS: f64 = 0.7;
const NEW_STEP_IN_SDS: f64 = 0.5;

/// Bounds of s: beyond the upper one the posterior of tau spans more than 20 orders of magnitude.
const LARGEST_SD: f64 = 12.0;
const LARGEST_FIRST_SD: f64 = 1.5;

/// The Gaussian on (mu, log tau) with the highest ELBO, from every joint mode on. `log_evidence` is the ELBO, a lower
/// bound of it; `modes` are those of the joint density, each with mu at its best.
///
/// # Errors
/// As [`super::laplace()`].
pub fn variational(likelihood: &impl Likelihood, priors: &Priors) -> Result<Posterior, PosteriorError> {
    check(likelihood.effects(), priors)?;
    if let PriorTau::Fixed { tau } = priors.tau {
        return Ok(given_tau(likelihood, priors, tau));
    }
    let joint = Joint::new(likelihood, priors);
    let modes = joint.modes();
    let best = modes
        .iter()
        .map(|mode| {
            let sd = (-mode.curvature).max(0.0).sqrt().recip().min(LARGEST_FIRST_SD);
            Search::new(&joint, mode.x, sd).climb()
        })
        .max_by(|x, y| x.elbo.total_cmp(&y.elbo))
        .ok_or(PosteriorError::Degenerate)?;
    let gaussian = Gaussian {
        mu: joint.centre() + best.mu,
        mu_slope: joint.spread_of_mu(best.mu_slope),
        mu_variance: joint.spread_of_mu(best.mu_variance),
        log_tau: best.x,
        log_tau_sd: best.sd,
    };
    Ok(gaussian.posterior(priors.are_proper().then_some(best.elbo), joint::reported(&modes)))
}

/// The ELBO at one (x0, s), the rest at its best, with its derivatives in (x0 / s, log s).
#[derive(Debug, Clone, Copy)]
struct Expansion {
    x: f64,
    sd: f64,
    mu: f64,
    mu_slope: f64,
    mu_variance: f64,
    elbo: f64,
    gradient: [f64; 2],
    /// Second derivatives: in x0 / s, mixed, in log s.
    hessian: [f64; 3],
}

/// The ridge of the joint density on evenly spaced x.
struct Table {
    start: f64,
    step: f64,
    points: Vec<RidgePoint>,
}

impl Table {
    fn new(joint: &Joint<'_, impl Likelihood>, x: f64, sd: f64) -> Table {
        let step = (NEW_STEP_IN_SDS * sd).min(WIDEST_STEP);
        let start = x - left_reach(joint, NEW_REACH, 1.25 * sd) * sd;
        let end = x + right_reach(NEW_REACH, 1.25 * sd) * sd;
        let count = ((end - start) / step).ceil() as usize + 1;
        let points = (0..count).map(|k| joint.at(start + step * k as f64)).collect();
        Table { start, step, points }
    }

    fn holds(&self, joint: &Joint<'_, impl Likelihood>, x: f64, sd: f64) -> bool {
        let end = self.start + self.step * (self.points.len() - 1) as f64;
        self.step <= WIDEST_STEP_IN_SDS * sd
            && self.start <= x - left_reach(joint, REACH, sd) * sd
            && end >= x + right_reach(REACH, sd) * sd
    }

    /// Weights of N(x, sd^2) on the table with the standardised values and points they belong to.
    fn weighted(&self, x: f64, sd: f64) -> impl Iterator<Item = (f64, f64, &RidgePoint)> + Clone {
        let scale = self.step / sd * (-0.5 * LN_2_PI).exp();
        self.points.iter().enumerate().map(move |(k, point)| {
            let z = (self.start + self.step * k as f64 - x) / sd;
            (scale * (-0.5 * z * z).exp(), z, point)
        })
    }
}

/// A half-normal prior's `tau^2` moves the weight of the integrand `2 s` sds to the right.
fn right_reach(reach: f64, sd: f64) -> f64 {
    reach + 2.0 * sd
}

/// The same of an inverse-gamma prior's `tau^-2`, to the left.
fn left_reach(joint: &Joint<'_, impl Likelihood>, reach: f64, sd: f64) -> f64 {
    if joint.is_steep_to_the_left() { reach + 2.0 * sd } else { reach }
}

/// Newton's method on the ELBO, from one mode on.
struct Search<'a, L> {
    joint: &'a Joint<'a, L>,
    table: Table,
    /// Log density at the start: sums are about it, so that they do not cancel in a large population.
    reference: f64,
    here: (f64, f64),
}

impl<'a, L: Likelihood> Search<'a, L> {
    fn new(joint: &'a Joint<'a, L>, x: f64, sd: f64) -> Search<'a, L> {
        Search { joint, table: Table::new(joint, x, sd), reference: joint.at(x).log_density, here: (x, sd) }
    }

    fn climb(mut self) -> Expansion {
        let (x, sd) = self.here;
        let mut best = self.expand(x, sd);
        for _ in 0..100 {
            let [mut along, mut widen] = best.step();
            let size = along.abs().max(widen.abs());
            let mut next = self.moved(&best, along, widen);
            // Rounding is far below what is forgiven here.
            while next.elbo < best.elbo - 1e-11 && along.abs().max(widen.abs()) > 1e-9 {
                along *= 0.5;
                widen *= 0.5;
                next = self.moved(&best, along, widen);
            }
            best = next;
            if size < 1e-9 {
                break;
            }
        }
        best.elbo += self.reference;
        best
    }

    fn moved(&mut self, from: &Expansion, along: f64, widen: f64) -> Expansion {
        self.expand(from.x + along * from.sd, (from.sd * widen.exp()).min(LARGEST_SD))
    }

    /// The ELBO about the reference at (x, sd).
    fn expand(&mut self, x: f64, sd: f64) -> Expansion {
        if !self.table.holds(self.joint, x, sd) {
            self.table = Table::new(self.joint, x, sd);
        }
        let weighted = self.table.weighted(x, sd);
        let [mut a, mut az, mut am] = [0.0; 3];
        for (weight, z, point) in weighted.clone() {
            let weight = weight * point.precision;
            a += weight;
            az += weight * z;
            am += weight * point.mean;
        }
        let (z_mean, m_mean, variance) = (az / a, am / a, 1.0 / a);
        let [mut zz, mut zm] = [0.0; 2];
        for (weight, z, point) in weighted.clone() {
            let weight = weight * point.precision * (z - z_mean);
            zz += weight * (z - z_mean);
            zm += weight * (point.mean - m_mean);
        }
        let slope = zm / zz;
        // Hermite moments: of the integrand, orders 0 to 4, and of its derivatives in the line's height, its slope and
        // log v, orders 1 and 2.
        let mut integrand = [0.0; 5];
        let mut profiled = [[0.0; 2]; 3];
        for (weight, z, point) in weighted {
            let residual = m_mean + slope * (z - z_mean) - point.mean;
            let pull = -point.precision * residual;
            let spread = -0.5 * point.precision * variance;
            let value = point.log_density - self.reference + 0.5 * pull * residual + spread;
            let z2 = z * z;
            let hermite = [1.0, z, z2 - 1.0, z * (z2 - 3.0), z2 * (z2 - 6.0) + 3.0];
            for (sum, h) in integrand.iter_mut().zip(hermite) {
                *sum += weight * value * h;
            }
            for (sums, derivative) in profiled.iter_mut().zip([pull, pull * (z - z_mean), spread]) {
                sums[0] += weight * derivative * hermite[1];
                sums[1] += weight * derivative * hermite[2];
            }
        }
        let [e0, e1, e2, e3, e4] = integrand;
        let mut hessian = [e2, e3, 2.0 * e2 + e4];
        // The line and v follow (x, s): the Schur complement of their own, diagonal, curvature.
        for ([u, w], curvature) in profiled.into_iter().zip([a, zz, 0.5]) {
            hessian[0] += u * (u / curvature);
            hessian[1] += u * (w / curvature);
            hessian[2] += w * (w / curvature);
        }
        Expansion {
            x,
            sd,
            mu: m_mean - slope * z_mean,
            mu_slope: slope,
            mu_variance: variance,
            elbo: e0 + sd.ln() + 0.5 * variance.ln() + 1.0 + LN_2_PI,
            gradient: [e1, e2 + 1.0],
            hessian,
        }
    }
}

impl Expansion {
    /// Newton's step where the ELBO is concave, else one uphill; at most one sd along and half a unit of log s.
    fn step(&self) -> [f64; 2] {
        let [along, widen] = self.gradient;
        let [hxx, hxs, hss] = self.hessian;
        let determinant = hxx * hss - hxs * hxs;
        let is_concave = hxx < 0.0 && determinant > 0.0;
        let step = if is_concave {
            [(hxs * widen - hss * along) / determinant, (hxs * along - hxx * widen) / determinant]
        } else {
            // What Newton's step is for a Gaussian posterior.
            [along, 0.5 * widen]
        };
        let shrink = (1.0 / step[0].abs()).min(0.5 / step[1].abs()).min(1.0);
        step.map(|x| x * shrink)
    }
}
