//! Sums over the units of an arm to moments: of one value of each unit, and of two.

use serde::{Deserialize, Serialize};

/// `n` units with two values each: means, `m2 = (n - 1) variance`, and `comoment = (n - 1) covariance`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedMoments {
    pub n: u64,
    /// Of the metric: the numerator where it is a ratio.
    pub mean: f64,
    pub m2: f64,
    /// Of the denominator, or of the covariate.
    pub second_mean: f64,
    pub second_m2: f64,
    pub comoment: f64,
}

/// How far sums may contradict each other, relative to the sums of squares, before it is more than the rounding of a long sum.
const SUMS_TOLERANCE: f64 = 1e-9;

/// The share of M2 up to which a residual is rounding: units of which one value is a multiple of the other leave nothing.
const ROUNDING: f64 = 1e-13;

impl PairedMoments {
    /// From the sums of either value, of their squares, and of the product of both.
    ///
    /// # Errors
    /// The sentence that says which sums no units have.
    pub(super) fn of_sums(
        n: u64,
        (sum, sum_squares): (f64, f64),
        (second_sum, second_sum_squares): (f64, f64),
        sum_product: f64,
    ) -> Result<PairedMoments, String> {
        let (mean, m2) = moments_of_sums(n, sum, sum_squares)?;
        let (second_mean, second_m2) = moments_of_sums(n, second_sum, second_sum_squares)
            .map_err(|detail| format!("of the denominator or the covariate, {detail}"))?;
        let comoment = if n == 0 { sum_product } else { centred(n, sum, second_sum, sum_product) };
        let most = m2.sqrt() * second_m2.sqrt();
        let tolerance = SUMS_TOLERANCE * sum_squares.abs().sqrt() * second_sum_squares.abs().sqrt();
        // NaN comes of a product that overflows.
        if comoment.is_nan() || comoment.abs() > most + tolerance {
            return Err(format!(
                "the sum of products is {sum_product:e}, further from sum times sum over n than the sums of squares allow"
            ));
        }
        Ok(PairedMoments { n, mean, m2, second_mean, second_m2, comoment: comoment.clamp(-most, most) })
    }

    /// The units of both, by the formulas of [`merge_parts`](super::merge_parts).
    pub(super) fn merge(self, other: PairedMoments) -> PairedMoments {
        if self.n == 0 || other.n == 0 {
            return if self.n == 0 { other } else { self };
        }
        let n = self.n + other.n;
        let weight = other.n as f64 / n as f64;
        let between = weight * self.n as f64;
        let (step, second_step) = (other.mean - self.mean, other.second_mean - self.second_mean);
        PairedMoments {
            n,
            mean: self.mean + step * weight,
            m2: self.m2 + other.m2 + step * step * between,
            second_mean: self.second_mean + second_step * weight,
            second_m2: self.second_m2 + other.second_m2 + second_step * second_step * between,
            comoment: self.comoment + other.comoment + step * second_step * between,
        }
    }

    pub(super) fn is_finite(&self) -> bool {
        let PairedMoments { n: _, mean, m2, second_mean, second_m2, comoment } = *self;
        [mean, m2, second_mean, second_m2, comoment].into_iter().all(f64::is_finite)
    }

    /// M2 of `first - slope second` over the units: what the regression leaves, and what the slope is off by, neither of which
    /// can be below 0.
    pub(super) fn residual_m2(&self, slope: f64) -> f64 {
        if self.second_m2 <= 0.0 {
            return self.m2;
        }
        let regression = self.comoment / self.second_m2;
        let left = self.m2 - self.comoment * regression;
        let left = if left > ROUNDING * self.m2 { left } else { 0.0 };
        let off = slope - regression;
        let off = if off.abs() > ROUNDING * slope.abs() { off } else { 0.0 };
        left + self.second_m2 * off * off
    }
}

/// Mean and `M2 = sum_squares - sum^2 / n`.
///
/// # Errors
/// The sentence that says why no units have such sums.
pub(super) fn moments_of_sums(n: u64, sum: f64, sum_squares: f64) -> Result<(f64, f64), String> {
    if n == 0 {
        return if sum == 0.0 && sum_squares == 0.0 {
            Ok((0.0, 0.0))
        } else {
            Err("n is 0, so sum and sum_squares must be 0".to_owned())
        };
    }
    let m2 = centred(n, sum, sum, sum_squares);
    let tolerance = SUMS_TOLERANCE * sum_squares;
    // One unit has no spread, so its M2 must be 0 from above as well. Written so that NaN, from a square that
    // overflows, is refused too.
    if !(m2 >= -tolerance && (n > 1 || m2 <= tolerance)) {
        let relation = if n == 1 { "must equal sum^2 where n is 1" } else { "must be at least sum^2 / n" };
        return Err(format!("sum_squares {relation}; sum is {sum:e}, sum_squares is {sum_squares:e}"));
    }
    Ok((sum / n as f64, if n == 1 { 0.0 } else { m2.max(0.0) }))
}

/// `sum_product - sum second / n`, with the rounding error of the second term carried along (Dekker's two-product by fma), because
/// the two cancel where means are large beside the spread.
fn centred(n: u64, sum: f64, second: f64, sum_product: f64) -> f64 {
    let count = n as f64;
    let mean = sum / count;
    let mean_error = (-mean).mul_add(count, sum) / count;
    let product = second * mean;
    let product_error = second.mul_add(mean, -product) + second * mean_error;
    (sum_product - product) - product_error
}
