//! The normal distribution and finite mixtures of normals.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Standard normal quantiles of 2.5%, 10%, 25%, by symmetry also of 75%, 90% and 97.5%.
pub(crate) const Z_975: f64 = 1.959_963_984_540_054;
pub(crate) const Z_90: f64 = 1.281_551_565_544_600_4;
pub(crate) const Z_75: f64 = 0.674_489_750_196_081_7;

/// Standard normal distribution function, accurate in both tails.
pub(crate) fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// Log of the distribution function, to 1e-11 also where that underflows.
pub(crate) fn log_cdf(z: f64) -> f64 {
    if z > -30.0 {
        return cdf(z).ln();
    }
    // Abramowitz & Stegun 26.2.12.
    let inverse = 1.0 / (z * z);
    let series = -inverse * (1.0 - inverse * (3.0 - 15.0 * inverse));
    -0.5 * z * z - (-z).ln() - 0.5 * (2.0 * PI).ln() + series.ln_1p()
}

/// Standard normal density.
pub(crate) fn pdf(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The z above which lies this much of the standard normal distribution, for `0 < above <= 1/2`, to some 1e-14 of itself.
/// Newton's method on the logarithm, which is concave, from above: it cannot overshoot.
pub fn upper_quantile(above: f64) -> f64 {
    let log = above.ln();
    let mut z = (-2.0 * log).sqrt();
    for _ in 0..60 {
        let tail = cdf(-z);
        let step = (tail.ln() - log) * tail / pdf(z);
        z += step;
        if step.abs() <= 1e-15 * z.abs().max(1.0) {
            break;
        }
    }
    z
}

/// One normal of a mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    pub weight: f64,
    pub mean: f64,
    /// 0 for a point mass.
    pub sd: f64,
}

/// The probability that a mixture (weights adding up to 1) puts above `x`; a point mass at `x` counts half.
pub(crate) fn mixture_above(parts: &[Part], x: f64) -> f64 {
    // Rounded, the weights may add up to a little more.
    parts.iter().map(|part| part.weight * above(part, x)).sum::<f64>().min(1.0)
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

/// The part in the middle of a mixture, its weights added up in order; `None` of none.
pub(crate) fn middle(parts: &[Part]) -> Option<&Part> {
    let mut below = 0.0;
    parts.iter().find(|part| {
        below += part.weight;
        below >= 0.5
    })
}

/// The quantile of a mixture at the level whose standard normal quantile is `z`, starting from `start`.
///
/// Within a bracket (no quantile of a mixture lies outside those of its parts) by the inverted Taylor series of the
/// distribution function to third order, which the density's own derivatives give for next to nothing (Traub, Iterative
/// Methods for the Solution of Equations, 1964, section 5.1). Accurate to some 1e-12 of the distribution's spread there.
pub(crate) fn mixture_quantile(parts: &[Part], z: f64, start: f64) -> f64 {
    let quantiles = parts.iter().filter(|part| part.weight > 0.0).map(|part| part.mean + z * part.sd);
    let (mut low, mut high) =
        quantiles.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), q| (low.min(q), high.max(q)));
    let level = cdf(-z);
    let smaller_level = level.min(1.0 - level);
    let mut x = if start > low && start < high { start } else { 0.5 * low + 0.5 * high };
    for _ in 0..200 {
        if high - low <= 4.0 * f64::EPSILON * low.abs().max(high.abs()) {
            break;
        }
        let Expansion { excess, density, slope, curvature } = Expansion::new(parts, x, level);
        if excess > 0.0 {
            low = x;
        } else {
            high = x;
        }
        let newton = excess / density;
        let (second, third) = (0.5 * slope / density * newton, curvature / (6.0 * density) * newton * newton);
        let correction = 1.0 - second + 2.0 * second * second - third;
        let is_near = (0.5..2.0).contains(&correction);
        let proposal = x + if is_near { newton * correction } else { newton };
        if proposal > low && proposal < high {
            // What the series leaves out is of the order of its variable's cube.
            let left_out = second.abs().max(third.abs().sqrt()).powi(3);
            if is_near && excess.abs() * left_out <= 1e-12 * smaller_level {
                return proposal;
            }
            x = proposal;
        } else if excess.abs() <= 1e-14 {
            return x;
        } else {
            x = 0.5 * low + 0.5 * high;
        }
    }
    x
}

/// A mixture about one x: how much more than a level lies above it, the density, and the density's derivatives.
struct Expansion {
    excess: f64,
    density: f64,
    slope: f64,
    curvature: f64,
}

impl Expansion {
    fn new(parts: &[Part], x: f64, level: f64) -> Expansion {
        let mut sum = Expansion { excess: -level, density: 0.0, slope: 0.0, curvature: 0.0 };
        for part in parts {
            if part.sd > 0.0 {
                let precision = 1.0 / part.sd;
                let z = (part.mean - x) * precision;
                let density = part.weight * pdf(z) * precision;
                sum.excess += part.weight * cdf(z);
                sum.density += density;
                sum.slope += density * z * precision;
                sum.curvature += density * (z * z - 1.0) * precision * precision;
            } else {
                sum.excess += part.weight * above(part, x);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_quantile_leaves_its_share_above_it() {
        for z in [0.0, 1e-9, 0.1, Z_75, Z_90, Z_975, 5.0, 20.0, 37.0] {
            let got = upper_quantile(cdf(-z));
            assert!((got - z).abs() < 1e-12 * z.max(1.0), "{got} {z}");
        }
    }

    #[test]
    fn the_log_of_a_probability_is_continuous_where_its_series_begins_and_as_published_beyond() {
        for (z, want) in
            [(-40.0, -804.608_442_013_753_9), (-5.0, -15.064_998_393_988_727), (3.0, -0.001_350_809_964_748_202)]
        {
            assert!((log_cdf(z) / want - 1.0).abs() < 1e-11, "{z}: {}", log_cdf(z));
        }
        let step = log_cdf(-30.0 + 1e-9) - log_cdf(-30.0 - 1e-9);
        assert!((step - 2e-9 * 30.033_259_667_433_674).abs() < 1e-9, "{step}");
    }

    #[test]
    fn a_quantile_of_a_mixture_leaves_its_level_above_it() {
        let part = |weight, mean, sd| Part { weight, mean, sd };
        let mixtures = [
            vec![part(1.0, 3.0, 2.0)],
            vec![part(0.5, -1.0, 1e-3), part(0.5, 1.0, 1.0)],
            vec![part(0.3, 0.0, 1.0), part(0.3, 1e-9, 1e-6), part(0.4, 5.0, 100.0)],
            vec![part(0.4, 0.0, 0.0), part(0.6, 0.1, 1.0)],
        ];
        for parts in mixtures {
            for z in [-Z_975, -Z_90, Z_75, Z_975] {
                let quantile = mixture_quantile(&parts, z, 0.3);
                assert!((mixture_above(&parts, quantile) - cdf(-z)).abs() < 1e-12, "{parts:?} {z}: {quantile}");
            }
        }
    }
}
