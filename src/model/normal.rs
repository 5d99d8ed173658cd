//! The normal distribution and finite mixtures of normals.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Standard normal quantiles of 2.5%, 10%, 25%, by symmetry also of 75%, 90% and 97.5%.
pub const Z_975: f64 = 1.959_963_984_540_054;
pub const Z_90: f64 = 1.281_551_565_544_600_4;
pub const Z_75: f64 = 0.674_489_750_196_081_7;

/// Standard normal distribution function, accurate in both tails.
pub fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// Standard normal density.
pub fn pdf(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// One normal of a mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    pub weight: f64,
    pub mean: f64,
    /// 0 for a point mass.
    pub sd: f64,
}

/// The probability that a mixture (weights adding up to 1) puts above `x`; a point mass at `x` counts half.
pub fn mixture_above(parts: &[Part], x: f64) -> f64 {
    parts.iter().map(|part| part.weight * above(part, x)).sum()
}

fn above(part: &Part, x: f64) -> f64 {
    if part.sd > 0.0 {
        cdf((part.mean - x) / part.sd)
    } else if part.mean == x {
        0.5
    } else {
        f64::from(u8::from(part.mean > x))
    }
}

/// The quantile of a mixture at the level whose standard normal quantile is `z`, starting from `start`.
///
/// Newton within a bracket: no quantile of a mixture lies outside those of its parts. Accurate to some 1e-12 of the
/// distribution's spread there.
pub fn mixture_quantile(parts: &[Part], z: f64, start: f64) -> f64 {
    let quantiles = parts.iter().filter(|part| part.weight > 0.0).map(|part| part.mean + z * part.sd);
    let (mut low, mut high) =
        quantiles.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), q| (low.min(q), high.max(q)));
    let level = cdf(-z);
    let mut x = if start > low && start < high { start } else { 0.5 * low + 0.5 * high };
    for _ in 0..200 {
        if high - low <= 4.0 * f64::EPSILON * low.abs().max(high.abs()) {
            break;
        }
        let (mut excess, mut density) = (-level, 0.0);
        for part in parts {
            if part.sd > 0.0 {
                let standardised = (part.mean - x) / part.sd;
                excess += part.weight * cdf(standardised);
                density += part.weight / part.sd * pdf(standardised);
            } else {
                excess += part.weight * above(part, x);
            }
        }
        if excess > 0.0 {
            low = x;
        } else {
            high = x;
        }
        let step = excess / density;
        let proposal = x + step;
        if proposal > low && proposal < high {
            // Newton squares the error: what a step of 1e-7 leaves is below rounding.
            if step.abs() * density <= 1e-7 * level.min(1.0 - level) {
                return proposal;
            }
            x = proposal;
        } else if step.abs() * density <= 1e-14 {
            return x;
        } else {
            x = 0.5 * low + 0.5 * high;
        }
    }
    x
}
