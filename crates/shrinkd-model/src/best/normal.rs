//! The standard normal where 1e-7 is enough and speed counts, and Gauss-Hermite rules for averages over it.

use std::f64::consts::{LN_2, LOG2_E};
use std::sync::OnceLock;

/// Density of the standard normal, to 1e-7 of itself.
#[inline]
pub(super) fn density(z: f64) -> f64 {
    const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
    INV_SQRT_2PI * exp(-0.5 * z * z)
}

/// Reversed hazard `phi(z) / Phi(z)` and distribution function `Phi(z)` of the standard normal; the distribution
/// function and its product with the hazard are good to 1e-7 (Abramowitz & Stegun 26.2.17).
#[inline]
pub(super) fn hazard_and_distribution(z: f64) -> (f64, f64) {
    let density = density(z);
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let mills =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = density * mills;
    let (numerator, denominator) = if z > 0.0 { (density, 1.0 - tail) } else { (1.0, mills) };
    (numerator / denominator, if z > 0.0 { 1.0 - tail } else { tail })
}

/// `e^x` for x <= 0, to 1e-8 of itself: free of calls and branches, so that loops over it become vector code.
#[inline]
fn exp(x: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let x = x.max(-700.0);
    let shifted = x * LOG2_E + ROUND;
    let r = x - (shifted - ROUND) * LN_2;
    let power_of_two = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()));
    let taylor = 1.0
        + r * (1.0
            + r * (1.0 / 2.0
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))))));
    power_of_two * taylor
}

/// Natural logarithm of a positive number, to 2e-7 where it is below 1: free of calls and branches too.
#[inline]
fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = 0x000f_ffff_ffff_ffff;
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    const TWO_TO_52: f64 = 4_503_599_627_370_496.0;
    // x is 2^exponent times a number between the root of 1/2 and that of 2.
    let bits = x.to_bits().wrapping_add(1.0_f64.to_bits() - SQRT_HALF);
    let exponent = f64::from_bits((bits >> 52) | TWO_TO_52.to_bits()) - (TWO_TO_52 + 1023.0);
    let m = f64::from_bits((bits & MANTISSA) + SQRT_HALF);
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    exponent * LN_2 + 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0))))
}

/// Quantile of the standard normal, to 4.5e-4 (Abramowitz & Stegun 26.2.23); beyond 8.2 standard deviations it is that of these.
#[inline]
pub(super) fn quantile(p: f64) -> f64 {
    let tail = p.min(1.0 - p).max(1e-16);
    let t = (-2.0 * ln(tail)).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let z = t - numerator / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    if p < 0.5 { -z } else { z }
}

/// The largest order of [`hermite_rule`].
pub(super) const MAX_ORDER: usize = 64;

/// A Gauss-Hermite rule for averages over a standard normal.
pub(super) struct HermiteRule {
    pub(super) nodes: Vec<f64>,
    /// `weighted[k][m]`: node k's weight times the orthonormal Hermite polynomial of degree m there, m below the order.
    pub(super) weighted: Vec<Vec<f64>>,
}

/// The rule of an order from 1 to [`MAX_ORDER`], computed when it is first asked for.
pub(super) fn hermite_rule(order: usize) -> &'static HermiteRule {
    static RULES: [OnceLock<HermiteRule>; MAX_ORDER] = [const { OnceLock::new() }; MAX_ORDER];
    let order = order.clamp(1, MAX_ORDER);
    RULES[order - 1].get_or_init(|| {
        let nodes: Vec<f64> = (0..order).map(|k| hermite_root(order, k)).collect();
        let weighted = nodes.iter().map(|&z| {
            let values: Vec<f64> = hermite(z).take(order).collect();
            let inverse_weight: f64 = values.iter().map(|value| value * value).sum();
            values.iter().map(|value| value / inverse_weight).collect()
        });
        HermiteRule { weighted: weighted.collect(), nodes }
    })
}

/// The orthonormal Hermite polynomials at `z`, by degree.
fn hermite(z: f64) -> impl Iterator<Item = f64> {
    let mut degree = 0.0_f64;
    let next = move |&(previous, value): &(f64, f64)| {
        degree += 1.0;
        Some((value, (z * value - (degree - 1.0).sqrt() * previous) / degree.sqrt()))
    };
    std::iter::successors(Some((0.0, 1.0)), next).map(|(_, value)| value)
}

/// Root `k`, counted from the largest, of the polynomial of degree `order`, by bisection: the polynomials up to it
/// change sign as often as it has roots above.
fn hermite_root(order: usize, k: usize) -> f64 {
    let bound = 2.0 * (order as f64).sqrt();
    let (mut low, mut high) = (-bound, bound);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let positive = || hermite(middle).take(order + 1).map(|value| value > 0.0);
        let roots_above = positive().zip(positive().skip(1)).filter(|(lower, upper)| lower != upper).count();
        if roots_above > k {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}
