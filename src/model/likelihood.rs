//! The marginal likelihood of (mu, tau): four sums over all components of a population, as functions of t = tau^2.
//!
//! With mu about a reference value, the centre, `log p(delta | mu, tau) = -(N log 2 pi + L + C - 2 mu B + mu^2 A) / 2`.
//! The sums come from a [`Sketch`], at a cost that does not grow with the population, or from the components one by
//! one, which is what the sketch is tested and timed against.

use super::double_double::DoubleDouble;
use super::sketch::{self, Cell, MOMENTS, Sketch};
use super::spectrum::Component;

/// The four sums at one t, or a derivative of each in t. Units: the effects' unit is u.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// `L = sum log(lambda + t)`.
    pub log_det: f64,
    /// `A = sum a^2 / (lambda + t)`, the information about mu, u^-2.
    pub a: f64,
    /// `B = sum a b / (lambda + t)` with b about the centre, u^-1.
    pub b: f64,
    /// `C = sum b^2 / (lambda + t)` with b about the centre.
    pub c: f64,
}

/// The sums with their first and second derivatives in t.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Derivatives {
    pub value: Terms,
    pub first: Terms,
    pub second: Terms,
}

/// A population's likelihood, as a function of t = tau^2.
pub trait Likelihood {
    /// Number of effects, N.
    fn effects(&self) -> u64;

    /// A lower bound of every lambda, within a factor of 2 of the smallest.
    fn smallest_lambda(&self) -> f64;

    /// An upper bound of every lambda, within a factor of 2 of the largest.
    fn largest_lambda(&self) -> f64;

    /// The value of mu that B and C are about, in the effects' unit. Near the data, so that `C - B^2 / A` does not
    /// cancel for effects far from 0.
    fn centre(&self) -> f64;

    /// The four sums at t >= 0.
    fn at(&self, t: f64) -> Terms;

    /// The four sums and their derivatives at t >= 0.
    fn derivatives(&self, t: f64) -> Derivatives;
}

/// The likelihood from a sketch: some 20 multiply-adds per octave, series and t, whatever the population's size.
///
/// **Promise**: against the sum over the components, 1e-13 of each sum about the centre, for every t >= 0.
#[derive(Debug, Clone)]
pub struct SketchLikelihood {
    octaves: Vec<Octave>,
    effects: u64,
    centre: f64,
}

/// One cell, in floating point about the centre.
#[derive(Debug, Clone)]
struct Octave {
    /// `s = 2^e`.
    s: f64,
    /// The coefficient of `q^m` for log det (m >= 1), a^2, a b and b^2.
    coefficients: [[f64; 4]; MOMENTS],
}

impl SketchLikelihood {
    /// The likelihood of all that the sketch holds.
    pub fn new(sketch: &Sketch) -> SketchLikelihood {
        let about_zero = SketchLikelihood::about(sketch, 0.0);
        let Terms { a, b, .. } = about_zero.at(0.0);
        // The precision-weighted mean, so that no component lies farther from the centre than it must in its own
        // standard errors. 24 bits are near enough.
        let centre = if a > 0.0 { f64::from((b / a) as f32) } else { 0.0 };
        if centre == 0.0 || !centre.is_finite() { about_zero } else { SketchLikelihood::about(sketch, centre) }
    }

    fn about(sketch: &Sketch, centre: f64) -> SketchLikelihood {
        SketchLikelihood {
            octaves: sketch.cells().map(|(octave, cell)| Octave::new(octave, cell, centre)).collect(),
            effects: sketch.effects(),
            centre,
        }
    }
}

impl Octave {
    /// Moves the centre, `b - centre a`, before the moments lose their last bits to floating point.
    fn new(octave: i16, cell: &Cell, centre: f64) -> Octave {
        let half = i32::from(sketch::half_octave(octave));
        let s = sketch::power_of_two(i32::from(octave));
        let shift = centre * sketch::power_of_two(-half);
        let unit = |bits: i32| sketch::power_of_two(-bits);
        let b_unit = sketch::power_of_two(half);
        let mut coefficients = [[0.0; 4]; MOMENTS];
        for (m, (coefficient, moment)) in coefficients.iter_mut().zip(cell).enumerate() {
            let [count, aa, ab, bb] = moment.map(DoubleDouble::from_integer);
            let aa = aa.times(unit(sketch::AA_BITS));
            let ab = ab.times(unit(sketch::AB_BITS));
            let bb = bb.times(unit(sketch::BB_BITS));
            let ab_shifted = ab.plus(aa.times(-shift));
            let bb_shifted = bb.plus(ab.times(-shift)).plus(ab_shifted.times(-shift));
            let sign = if m % 2 == 0 { 1.0 } else { -1.0 };
            let twice = if m == 0 { sign } else { 2.0 * sign };
            let log_weight = if m == 0 { 1.0 } else { -twice / m as f64 };
            *coefficient = [
                log_weight * count.value() * unit(sketch::COUNT_BITS),
                twice * aa.value(),
                twice * ab_shifted.value() * b_unit,
                twice * bb_shifted.value() * b_unit * b_unit,
            ];
        }
        Octave { s, coefficients }
    }

    /// `q`, `z = 3 + 2 t / s` and `r = sqrt(z^2 - 1)`, and how many powers of q still count.
    fn frame(&self, t: f64) -> Frame {
        let z = 3.0 + 2.0 * (t / self.s);
        let r = (z - 1.0).sqrt() * (z + 1.0).sqrt();
        let q = 1.0 / (z + r);
        // q <= 0.172 and q^m < 2^-56 from here on: powers that cannot be seen in the sum.
        let powers = ((-39.0 / q.ln()) as usize + 2).min(MOMENTS);
        Frame { z, r, q, powers }
    }
}

struct Frame {
    z: f64,
    r: f64,
    q: f64,
    powers: usize,
}

impl Likelihood for SketchLikelihood {
    fn effects(&self) -> u64 {
        self.effects
    }

    fn smallest_lambda(&self) -> f64 {
        self.octaves.first().map_or(1.0, |octave| octave.s)
    }

    fn largest_lambda(&self) -> f64 {
        self.octaves.last().map_or(1.0, |octave| 2.0 * octave.s)
    }

    fn centre(&self) -> f64 {
        self.centre
    }

    fn at(&self, t: f64) -> Terms {
        let mut terms = Terms::default();
        for octave in &self.octaves {
            let Frame { z, r, q, powers } = octave.frame(t);
            let mut sum = [0.0; 4];
            for coefficient in octave.coefficients[1..powers].iter().rev() {
                for (sum, x) in sum.iter_mut().zip(coefficient) {
                    *sum = (*sum + x) * q;
                }
            }
            let first = &octave.coefficients[0];
            let scale = 2.0 / (octave.s * r);
            terms.log_det += first[0] * (0.25 * octave.s * (z + r)).ln() + sum[0];
            terms.a += scale * (first[1] + sum[1]);
            terms.b += scale * (first[2] + sum[2]);
            terms.c += scale * (first[3] + sum[3]);
        }
        terms
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let mut total = Derivatives { value: self.at(t), ..Derivatives::default() };
        for octave in &self.octaves {
            let Frame { z, r, q, powers } = octave.frame(t);
            // The series sum of m^k c_m (-q)^m x, k = 0, 1, 2. That of x = 1 is the log series times -m.
            let mut sums = [[0.0; 4]; 3];
            let mut power = 1.0;
            for (m, coefficient) in octave.coefficients[..powers].iter().enumerate() {
                let m_f64 = m as f64;
                let count = if m == 0 { coefficient[0] } else { -m_f64 * coefficient[0] };
                for (i, x) in [count, coefficient[1], coefficient[2], coefficient[3]].into_iter().enumerate() {
                    let term = x * power;
                    sums[0][i] += term;
                    sums[1][i] += m_f64 * term;
                    sums[2][i] += m_f64 * m_f64 * term;
                }
                power *= q;
            }
            // F(z) = sum x / (z + u) = S0 / r with dq/dz = -q / r and dr/dz = z / r; t enters by z = 3 + 2 t / s and
            // lambda + t = s (z + u) / 2. The factors 2 / s go in one at a time, so that none overflows.
            let k = 2.0 / octave.s;
            let (inverse, ratio) = (1.0 / r, z / r);
            let per_r = k * inverse;
            for i in 0..4 {
                let [s0, s1, s2] = [sums[0][i], sums[1][i], sums[2][i]];
                let value = per_r * s0;
                let first = -(ratio * s0 + s1) * per_r * per_r;
                let second =
                    ((2.0 * ratio * ratio + inverse * inverse) * s0 + 3.0 * ratio * s1 + s2) * per_r * per_r * per_r;
                match i {
                    0 => {
                        total.first.log_det += value;
                        total.second.log_det += first;
                    }
                    1 => {
                        total.first.a += first;
                        total.second.a += second;
                    }
                    2 => {
                        total.first.b += first;
                        total.second.b += second;
                    }
                    _ => {
                        total.first.c += first;
                        total.second.c += second;
                    }
                }
            }
        }
        total
    }
}

/// The likelihood from the components themselves, one by one.
#[derive(Debug, Clone)]
pub struct DirectLikelihood {
    components: Vec<Component>,
    centre: f64,
}

impl DirectLikelihood {
    /// The likelihood of these components.
    pub fn new(components: Vec<Component>) -> DirectLikelihood {
        let mut likelihood = DirectLikelihood { components, centre: 0.0 };
        let Terms { a, b, .. } = likelihood.at(0.0);
        likelihood.centre = if a > 0.0 { b / a } else { 0.0 };
        likelihood
    }
}

impl Likelihood for DirectLikelihood {
    fn effects(&self) -> u64 {
        self.components.len() as u64
    }

    fn smallest_lambda(&self) -> f64 {
        self.components.iter().map(|component| component.lambda).fold(f64::INFINITY, f64::min)
    }

    fn largest_lambda(&self) -> f64 {
        self.components.iter().map(|component| component.lambda).fold(0.0, f64::max)
    }

    fn centre(&self) -> f64 {
        self.centre
    }

    fn at(&self, t: f64) -> Terms {
        self.derivatives(t).value
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let mut total = Derivatives::default();
        for &Component { lambda, a, b } in &self.components {
            let b = b - self.centre * a;
            let weight = 1.0 / (lambda + t);
            total.value.log_det += (lambda + t).ln();
            total.first.log_det += weight;
            total.second.log_det -= weight * weight;
            let series = [a * a, a * b, b * b].map(|x| {
                let value = x * weight;
                (value, -value * weight, 2.0 * value * weight * weight)
            });
            for (i, (value, first, second)) in series.into_iter().enumerate() {
                for (terms, x) in
                    [(&mut total.value, value), (&mut total.first, first), (&mut total.second, second)]
                {
                    match i {
                        0 => terms.a += x,
                        1 => terms.b += x,
                        _ => terms.c += x,
                    }
                }
            }
        }
        total
    }
}
