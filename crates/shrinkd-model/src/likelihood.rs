//! The marginal likelihood of (mu, tau): four sums over all components of a population, as functions of t = tau^2.
//!
//! With mu about a reference value, the centre, `log p(delta | mu, tau) = -(N log 2 pi + L + C - 2 mu B + mu^2 A) / 2`.
//! The sums come from a [`Sketch`], at a cost that does not grow with the population, or from the components one by
//! one, against which the sketch is tested and timed.

use std::iter::Sum;
use std::ops::Add;

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

impl Add for Terms {
    type Output = Terms;

    fn add(self, other: Terms) -> Terms {
        let Terms { log_det, a, b, c } = other;
        Terms { log_det: self.log_det + log_det, a: self.a + a, b: self.b + b, c: self.c + c }
    }
}

impl Sum for Terms {
    fn sum<I: Iterator<Item = Terms>>(terms: I) -> Terms {
        terms.fold(Terms::default(), Terms::add)
    }
}

impl Sum for Derivatives {
    fn sum<I: Iterator<Item = Derivatives>>(derivatives: I) -> Derivatives {
        derivatives.fold(Derivatives::default(), |sum, Derivatives { value, first, second }| Derivatives {
            value: sum.value + value,
            first: sum.first + first,
            second: sum.second + second,
        })
    }
}

/// A population's likelihood, as a function of t = tau^2.
pub trait Likelihood {
    /// Number of effects, N.
    fn effects(&self) -> u64;

    /// A lower bound of every lambda, within a factor of 2 of the smallest.
    fn smallest_lambda(&self) -> f64;

    /// An upper bound of every lambda, within a factor of 2 of the largest.
    fn largest_lambda(&self) -> f64;

    /// The value of mu that B and C are about, in the effects' unit: near the data, so that `C - B^2 / A` does not cancel for
    /// effects far from 0.
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
    /// The coefficient of `q^m` for log det (m >= 1), a^2, a b and b^2; the last is 0 and makes the powers pairs.
    coefficients: [[f64; 4]; MOMENTS + 1],
}

impl SketchLikelihood {
    /// The likelihood of the effects in the sketch.
    pub fn new(sketch: &Sketch) -> SketchLikelihood {
        let about_zero = SketchLikelihood::about(sketch, 0.0);
        let Terms { a, b, .. } = about_zero.at(0.0);
        // The precision-weighted mean, so that no component lies farther from the centre than it must in its own
        // standard errors. 24 bits are near enough.
        let centre = if a > 0.0 { f64::from((b / a) as f32) } else { 0.0 };
        if centre == 0.0 || !centre.is_finite() { about_zero } else { SketchLikelihood::about(sketch, centre) }
    }

    /// Mean of the raw effects b, and their standard deviation with N - 1, where every a is 1. There is no sd of a single
    /// effect, nor where it is 0 to the rounding of the sketch.
    pub(crate) fn raw_moments(&self, sketch: &Sketch) -> (f64, Option<f64>) {
        let effects = self.effects as f64;
        let sum = |likelihood: &SketchLikelihood, series: usize| -> f64 {
            likelihood.octaves.iter().map(|octave| octave.coefficients[0][series]).sum()
        };
        let mean = self.centre + sum(self, 2) / effects;
        let about_mean = SketchLikelihood::about(sketch, mean);
        // b is rounded to some 2^-40 of its standard error.
        let rounding: f64 =
            self.octaves.iter().map(|octave| octave.coefficients[0][0] * octave.s).sum::<f64>() * 2_f64.powi(-38);
        let squares = sum(&about_mean, 3);
        let has_spread = self.effects > 1 && squares > rounding;
        (mean, has_spread.then(|| (squares / (effects - 1.0)).sqrt()))
    }

    /// The same about a given centre.
    pub(crate) fn about(sketch: &Sketch, centre: f64) -> SketchLikelihood {
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
        let b_unit = sketch::power_of_two(half);
        let mut coefficients = [[0.0; 4]; MOMENTS + 1];
        for (m, (coefficient, moment)) in coefficients.iter_mut().zip(cell).enumerate() {
            let [aa, ab, bb] = if shift.abs() < NEAR { moved_near(moment, shift) } else { moved_far(moment, shift) };
            let sign = if m % 2 == 0 { 1.0 } else { -1.0 };
            let twice = if m == 0 { sign } else { 2.0 * sign };
            let log_weight = if m == 0 { 1.0 } else { -twice / m as f64 };
            *coefficient = [
                log_weight * (moment[0] as f64 * sketch::power_of_two(-sketch::COUNT_BITS)),
                twice * aa,
                twice * ab * b_unit,
                twice * bb * b_unit * b_unit,
            ];
        }
        Octave { s, coefficients }
    }

    /// `q`, `z = 3 + 2 t / s` and `r = sqrt(z^2 - 1)`, and the highest power of q that still counts, even.
    fn frame(&self, t: f64) -> Frame {
        let z = 3.0 + 2.0 * (t / self.s);
        // From 2^500 on, r is z to the last bit, and its square would overflow.
        let r = if z < 3e150 { (z * z - 1.0).sqrt() } else { z };
        let q = 1.0 / (z + r);
        // z + r >= 2^e, so that from m = 56 / e on q^m <= 2^-56 cannot be seen in the sum.
        let e = (((z + r).to_bits() >> 52) & 0x7ff) as usize - 1023;
        Frame { z, r, q, powers: (56 / e + 2).min(MOMENTS) & !1 }
    }
}

/// Where the centre is no farther than this from 0, in an octave's own standard errors, moving it cancels three digits
/// at the most, and f64 will do.
const NEAR: f64 = 30.0;

/// The moments of a^2, a b~ and b~^2 about a centre near 0.
fn moved_near(moment: &[i128; 4], shift: f64) -> [f64; 3] {
    let aa = moment[1] as f64 * sketch::power_of_two(-sketch::AA_BITS);
    let ab = moment[2] as f64 * sketch::power_of_two(-sketch::AB_BITS);
    let bb = moment[3] as f64 * sketch::power_of_two(-sketch::BB_BITS);
    let ab_moved = ab - shift * aa;
    [aa, ab_moved, bb - shift * ab - shift * ab_moved]
}

/// The same where they would cancel: in 106 bits.
fn moved_far(moment: &[i128; 4], shift: f64) -> [f64; 3] {
    let scaled = |x: i128, bits: i32| DoubleDouble::from_integer(x).times(sketch::power_of_two(-bits));
    let aa = scaled(moment[1], sketch::AA_BITS);
    let ab = scaled(moment[2], sketch::AB_BITS);
    let bb = scaled(moment[3], sketch::BB_BITS);
    let ab_moved = ab.plus(aa.times(-shift));
    let bb_moved = bb.plus(ab.times(-shift)).plus(ab_moved.times(-shift));
    [aa.value(), ab_moved.value(), bb_moved.value()]
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
            // Even and odd powers apart: two chains of half the length.
            let (mut odd, mut even) = ([0.0; 4], [0.0; 4]);
            let square = q * q;
            for pair in octave.coefficients[1..=powers].chunks_exact(2).rev() {
                for i in 0..4 {
                    odd[i] = odd[i] * square + pair[0][i];
                    even[i] = even[i] * square + pair[1][i];
                }
            }
            let sum: [f64; 4] = std::array::from_fn(|i| q * (odd[i] + q * even[i]));
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
            for (m, coefficient) in octave.coefficients[..=powers].iter().enumerate() {
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
                let [s0, s1, s2] = sums.map(|sum| sum[i]);
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

/// Components that are summed up before they join the rest.
const CHUNK: usize = 1_024;

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
        // Sums of sums: their rounding error grows with the root of either count, not with that of all.
        self.components.chunks(CHUNK).fold(Terms::default(), |total, chunk| {
            let sum = chunk.iter().fold(Terms::default(), |sum, &Component { lambda, a, b }| {
                let (b, weight) = (b - self.centre * a, 1.0 / (lambda + t));
                Terms {
                    log_det: sum.log_det + (lambda + t).ln(),
                    a: sum.a + a * a * weight,
                    b: sum.b + a * b * weight,
                    c: sum.c + b * b * weight,
                }
            });
            total + sum
        })
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let mut total = Derivatives { value: self.at(t), ..Derivatives::default() };
        for &Component { lambda, a, b } in &self.components {
            let b = b - self.centre * a;
            let weight = 1.0 / (lambda + t);
            total.first.log_det += weight;
            total.second.log_det -= weight * weight;
            let series = [a * a, a * b, b * b].map(|x| {
                let value = x * weight;
                (-value * weight, 2.0 * value * weight * weight)
            });
            for (i, (first, second)) in series.into_iter().enumerate() {
                for (terms, x) in [(&mut total.first, first), (&mut total.second, second)] {
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
