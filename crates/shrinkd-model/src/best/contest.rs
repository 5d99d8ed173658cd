//! Variants with independent normal parts and common factors: the average over the factors.
//!
//! Weak factors, measured against the variants' own parts, are averaged by two Gauss-Hermite rules; strong or many
//! factors over a Kronecker sequence (Richtmyer's generators, as in Genz & Bretz, Computation of Multivariate Normal
//! and t Probabilities, 2009, section 4.2), made normal by the Box-Muller transform.

use std::f64::consts::PI;

use super::control::Control;
use super::maximum::{Field, Rival};
use super::normal::{MAX_ORDER, hermite_rule};

/// Jointly normal variants and the control: `centre + sd z + sum of loading f`, all z and f independent and standard
/// normal; the control has no part of its own.
pub(super) struct Contest {
    pub(super) centres: Vec<f64>,
    pub(super) sds: Vec<f64>,
    pub(super) control: f64,
    pub(super) factors: Vec<Factor>,
}

/// Loadings of a common factor.
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

impl Contest {
    /// Adds `weight` times each variant's probability of being the largest, the control among its rivals, to `wins`.
    /// `points` counts the points of the sequence used so far, so that no two contests of a posterior use the same.
    pub(super) fn add_wins(mut self, points: &mut usize, weight: f64, wins: &mut [f64]) {
        self.turn_to_principal_axes();
        let strengths: Vec<f64> = self.factors.iter().map(|factor| self.strength(factor)).collect();
        match strengths[..] {
            [first, second] if first.max(second) <= STRONG => {
                self.add_wins_by_rules([order(first), order(second)], weight, wins);
            }
            _ => self.add_wins_by_sequence(points, weight, wins),
        }
    }

    fn strength(&self, factor: &Factor) -> f64 {
        factor.variants.iter().zip(&self.sds).fold(0.0, |strongest, (loading, sd)| strongest.max(loading.abs() / sd))
    }

    /// Turns two factors so that the variants load on the first as much as they can.
    fn turn_to_principal_axes(&mut self) {
        let [first, second] = &mut self.factors[..] else { return };
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for ((x, y), sd) in first.variants.iter().zip(&second.variants).zip(&self.sds) {
            let (x, y) = (x / sd, y / sd);
            xx += x * x;
            xy += x * y;
            yy += y * y;
        }
        let (sin, cos) = (0.5 * f64::atan2(2.0 * xy, xx - yy)).sin_cos();
        let turn = |x: &mut f64, y: &mut f64| (*x, *y) = (cos * *x + sin * *y, cos * *y - sin * *x);
        first.variants.iter_mut().zip(&mut second.variants).for_each(|(x, y)| turn(x, y));
        turn(&mut first.control, &mut second.control);
    }

    fn add_wins_by_rules(&self, orders: [usize; 2], weight: f64, wins: &mut [f64]) {
        let [first, second] = &self.factors[..] else { return };
        let rules = orders.map(hermite_rule);
        let lanes: Vec<[f64; 2]> =
            rules[0].nodes.iter().flat_map(|&x| rules[1].nodes.iter().map(move |&y| [x, y])).collect();
        let variants = (0..wins.len()).map(|index| {
            let (sd, loadings) = (self.sds[index], [first.variants[index], second.variants[index]]);
            let spread = loadings.iter().fold(sd, |sum, loading| f64::hypot(sum, *loading));
            Rival { index, centre: self.centres[index], spread, sd, loadings }
        });
        let mut control = Control::new(self.control, [first.control, second.control], rules);
        Field::default().add_wins(variants, &lanes, &mut control, weight, wins);
    }

    fn add_wins_by_sequence(&self, points: &mut usize, weight: f64, wins: &mut [f64]) {
        let pairs = self.factors.len().div_ceil(2);
        let generators: Vec<f64> = primes().take(2 * pairs).map(|prime| (prime as f64).sqrt()).collect();
        let count = (POINTS * weight * (POINTS_FULL_UP_TO / wins.len() as f64).min(1.0)).ceil() as usize;
        let mut control = Control::new(self.control, [0.0; 2], [hermite_rule(1); 2]);
        let mut centres = Vec::with_capacity(wins.len());
        let mut field = Field::default();
        for point in *points..*points + count {
            let along = |generator: f64| ((point as f64 + 0.5) * generator).fract();
            centres.clone_from(&self.centres);
            control.centre = self.control;
            for (factors, generators) in self.factors.chunks(2).zip(generators.chunks_exact(2)) {
                // The tent makes the radius continuous where the sequence wraps around.
                let tent = 1.0 - (2.0 * along(generators[0]) - 1.0).abs();
                let radius = (-2.0 * tent.max(f64::MIN_POSITIVE).ln()).sqrt();
                let (sin, cos) = (2.0 * PI * along(generators[1])).sin_cos();
                for (factor, normal) in factors.iter().zip([radius * cos, radius * sin]) {
                    centres.iter_mut().zip(&factor.variants).for_each(|(centre, loading)| *centre += loading * normal);
                    control.centre += factor.control * normal;
                }
            }
            let variants = centres.iter().zip(&self.sds).enumerate().map(|(index, (&centre, &sd))| Rival {
                index,
                centre,
                spread: sd,
                sd,
                loadings: [0.0; 2],
            });
            field.add_wins(variants, &[[0.0; 2]], &mut control, weight / count as f64, wins);
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

fn primes() -> impl Iterator<Item = usize> {
    (2..).filter(|&p| (2..).take_while(|d| d * d <= p).all(|d| p % d != 0))
}
