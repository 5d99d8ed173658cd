//! A factor model of a block's effects, and the average over its common factors.
//!
//! Factors that are weak beside the variants' own standard deviations are averaged by two Gauss-Hermite rules. Strong ones are averaged
//! by quasi-Monte Carlo over a Kronecker sequence (Richtmyer's generators, as in Genz & Bretz, Computation of Multivariate Normal and t
//! Probabilities, 2009, section 4.2), made normal by the Box-Muller transform.

use std::f64::consts::PI;

use super::control::Control;
use super::maximum::{Candidate, MaximumIntegral};
use super::normal::{MAX_ORDER, hermite_rule};

/// Effects that are independent given their common factors: `centre + sd z + sum of loading f`, all z and f independent
/// and standard normal. The control has no z of its own.
pub(super) struct FactorModel {
    pub(super) centres: Vec<f64>,
    pub(super) sds: Vec<f64>,
    pub(super) control: f64,
    pub(super) factors: [Factor; 2],
}

/// The loadings on a common factor.
pub(super) struct Factor {
    pub(super) variants: Vec<f64>,
    pub(super) control: f64,
}

/// The strongest factor that the rules resolve, in units of a variant's own standard deviation.
const STRONG: f64 = 4.0;

/// Points of the sequence for a whole posterior, and the number of variants from which on there are fewer: among many
/// variants each probability is small, and so is its error.
const POINTS: f64 = 32_768.0;
const POINTS_FULL_UP_TO: f64 = 64.0;

impl FactorModel {
    /// Adds `weight` times each variant's probability of being the largest, the control included in the comparison, to
    /// `probabilities`. `points` counts the points of the sequence used so far, so that the nodes of a posterior share none.
    pub(super) fn add_probabilities(mut self, points: &mut usize, weight: f64, probabilities: &mut [f64]) {
        self.rotate_to_principal_axes();
        let strengths = self.factors.each_ref().map(|factor| self.strength(factor));
        if strengths.iter().all(|strength| *strength <= STRONG) {
            self.add_by_quadrature(strengths.map(order), weight, probabilities);
        } else {
            self.add_by_quasi_monte_carlo(points, weight, probabilities);
        }
    }

    fn strength(&self, factor: &Factor) -> f64 {
        factor.variants.iter().zip(&self.sds).fold(0.0, |strongest, (loading, sd)| strongest.max(loading.abs() / sd))
    }

    /// Rotates two factors so that the variants load on the first as much as possible.
    fn rotate_to_principal_axes(&mut self) {
        let [first, second] = &mut self.factors;
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for ((x, y), sd) in first.variants.iter().zip(&second.variants).zip(&self.sds) {
            let (x, y) = (x / sd, y / sd);
            xx += x * x;
            xy += x * y;
            yy += y * y;
        }
        let (sin, cos) = (0.5 * f64::atan2(2.0 * xy, xx - yy)).sin_cos();
        let rotate = |x: &mut f64, y: &mut f64| (*x, *y) = (cos * *x + sin * *y, cos * *y - sin * *x);
        first.variants.iter_mut().zip(&mut second.variants).for_each(|(x, y)| rotate(x, y));
        rotate(&mut first.control, &mut second.control);
    }

    fn add_by_quadrature(&self, orders: [usize; 2], weight: f64, probabilities: &mut [f64]) {
        let [first, second] = &self.factors;
        let rules = orders.map(hermite_rule);
        let lanes: Vec<[f64; 2]> =
            rules[0].nodes.iter().flat_map(|&x| rules[1].nodes.iter().map(move |&y| [x, y])).collect();
        let variants = (0..probabilities.len()).map(|index| {
            let (sd, loadings) = (self.sds[index], [first.variants[index], second.variants[index]]);
            let spread = loadings.iter().fold(sd, |sum, loading| f64::hypot(sum, *loading));
            Candidate { index, centre: self.centres[index], spread, sd, loadings }
        });
        let mut control = Control::new(self.control, [first.control, second.control], rules);
        MaximumIntegral::default().add_probabilities(variants, &lanes, &mut control, weight, probabilities);
    }

    fn add_by_quasi_monte_carlo(&self, points: &mut usize, weight: f64, probabilities: &mut [f64]) {
        let count = (POINTS * weight * (POINTS_FULL_UP_TO / probabilities.len() as f64).min(1.0)).ceil() as usize;
        let mut control = Control::new(self.control, [0.0; 2], [hermite_rule(1); 2]);
        let mut centres = Vec::with_capacity(probabilities.len());
        let mut integral = MaximumIntegral::default();
        for point in *points..*points + count {
            let along = |generator: f64| ((point as f64 + 0.5) * generator).fract();
            centres.clone_from(&self.centres);
            control.centre = self.control;
            // The tent makes the radius continuous where the sequence wraps around.
            let tent = 1.0 - (2.0 * along(2.0_f64.sqrt()) - 1.0).abs();
            let radius = (-2.0 * tent.max(f64::MIN_POSITIVE).ln()).sqrt();
            let (sin, cos) = (2.0 * PI * along(3.0_f64.sqrt())).sin_cos();
            for (factor, normal) in self.factors.iter().zip([radius * cos, radius * sin]) {
                centres.iter_mut().zip(&factor.variants).for_each(|(centre, loading)| *centre += loading * normal);
                control.centre += factor.control * normal;
            }
            let variants = centres.iter().zip(&self.sds).enumerate().map(|(index, (&centre, &sd))| Candidate {
                index,
                centre,
                spread: sd,
                sd,
                loadings: [0.0; 2],
            });
            integral.add_probabilities(variants, &[[0.0; 2]], &mut control, weight / count as f64, probabilities);
        }
        *points += count;
    }
}

/// The order of the rule that averages over a factor to 1e-4.
fn order(strength: f64) -> usize {
    if strength < 3e-3 {
        return 1;
    }
    ((1.0 + strength * (8.0 + 2.0 * strength)).ceil() as usize).min(MAX_ORDER)
}
