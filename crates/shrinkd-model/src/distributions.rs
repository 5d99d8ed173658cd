//! The chi-squared and the binomial distribution and Student's t, as far as tests and intervals of a meta-analysis need them.
//!
//! Chi-squared by the series and the continued fraction of the incomplete gamma function (Gautschi, ACM TOMS 5, 1979), with
//! the common factor in a form that keeps its digits however many degrees of freedom there are (Loader, 2000); t by the
//! finite sums for whole degrees of freedom (Abramowitz & Stegun, 1964, 26.7.3 and 26.7.4); both to some 1e-12. The binomial by the
//! continued fraction of the incomplete beta function, whose factor is made of three of the gamma function's: to 1e-10 up to 2^40 trials,
//! in a number of steps that grows with their root.

use std::f64::consts::{FRAC_PI_2, PI};

use super::normal::{self, Z_975};

/// The probability that a chi-squared variable is above `x`.
pub(crate) fn chi_squared_above(x: f64, df: u64) -> f64 {
    let (_, above) = incomplete_gamma(0.5 * df as f64, 0.5 * x);
    above
}

/// The quantile of a chi-squared variable whose standard normal counterpart is `z`, with `below` of the probability below it.
pub(crate) fn chi_squared_quantile(below: f64, z: f64, df: u64) -> f64 {
    let a = 0.5 * df as f64;
    // Wilson & Hilferty (PNAS 17, 1931); where few degrees of freedom leave it no room, the first term of the series.
    let ninth = 2.0 / (9.0 * df as f64);
    let cube_root = 1.0 - ninth + z * ninth.sqrt();
    let mut x = if cube_root > 0.3 { a * cube_root.powi(3) } else { ((below.ln() + libm::lgamma(a + 1.0)) / a).exp() };
    // Halley's method on the distribution function, whose second derivative is (a - 1 - x) / x times its first.
    for _ in 0..50 {
        let (probability, _) = incomplete_gamma(a, x);
        let newton = (probability - below) / (factor(a, x) * a / x);
        let step = newton / (1.0 - 0.5 * newton * ((a - 1.0) / x - 1.0)).max(0.5);
        x = (x - step).max(0.1 * x);
        if step.abs() <= 1e-9 * x {
            break;
        }
    }
    2.0 * x
}

/// The regularised incomplete gamma functions P(a, x) and Q(a, x), each accurate where it is small.
fn incomplete_gamma(a: f64, x: f64) -> (f64, f64) {
    if x <= 0.0 {
        return (0.0, 1.0);
    }
    let factor = factor(a, x);
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0, 1.0, a);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        let below = (factor * sum).min(1.0);
        return (below, 1.0 - below);
    }
    if factor == 0.0 {
        return (1.0, 0.0);
    }
    // Lentz's evaluation of Legendre's fraction.
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (f64::INFINITY, 1.0 / b);
    let mut fraction = d;
    let mut i = 0.0;
    let mut is_moving = true;
    while is_moving {
        i += 1.0;
        let numerator = i * (a - i);
        b += 2.0;
        d = 1.0 / (numerator * d + b);
        c = b + numerator / c;
        let change = c * d;
        fraction *= change;
        is_moving = (change - 1.0).abs() > 4.0 * f64::EPSILON;
    }
    let above = (factor * a * fraction).min(1.0);
    (1.0 - above, above)
}

/// `x^a e^-x / Gamma(a + 1)`.
fn factor(a: f64, x: f64) -> f64 {
    if a < 10.0 {
        return (a * x.ln() - x - libm::lgamma(a + 1.0)).exp();
    }
    // With Stirling's series for the gamma function what is large cancels before it is formed.
    let stirling = (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * a * a)) / (a * a)) / (a * a)) / a;
    let distance = (x - a) / a;
    (a * (distance.ln_1p() - distance) - stirling).exp() / (2.0 * PI * a).sqrt()
}

/// The probability of at least `k` successes in `n` trials of success `p`. Neither need be whole: `I_p(k, n - k + 1)` goes through the
/// binomial's values.
pub(crate) fn binomial_at_least(k: f64, n: f64, p: f64) -> f64 {
    match k {
        k if k <= 0.0 => 1.0,
        k if k > n => 0.0,
        k => incomplete_beta(k, n - k + 1.0, p),
    }
}

/// The number of successes in `n` trials of success `p` that is reached with probability `tail`, interpolated between whole numbers by
/// [`binomial_at_least`]; n where even that many are likelier. To 1e-9 of n
/// or, for tails of at least 1e-5, to 0.01.
pub(crate) fn binomial_bound(n: f64, p: f64, tail: f64) -> f64 {
    /// The variance from which on the first terms of the expansion about the normal leave less.
    const LARGE: f64 = 1e6;
    let variance = n * p * (1.0 - p);
    if variance > LARGE {
        // Cornish & Fisher (Revue de l'Institut International de Statistique 5, 1938), with the correction for continuity.
        let z = normal::upper_quantile(tail);
        return n * p + 0.5 + z * variance.sqrt() + (1.0 - 2.0 * p) * (z * z - 1.0) / 6.0;
    }
    let (mut low, mut high) = (n * p, n);
    while high - low > 1e-9 * n {
        let middle = 0.5 * (low + high);
        if binomial_at_least(middle, n, p) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz & Stegun 26.5.8).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // Where the fraction converges fast.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    // `x^a (1 - x)^b / (a B(a, b))`
    let n = a + b;
    let beta_factor = factor(a, n * x) * factor(b, n * (1.0 - x)) / factor(n, n) * b / n;
    // Lentz's evaluation, two terms at a time.
    let (mut c, mut d, mut fraction) = (1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0)), 1.0);
    fraction *= d;
    let mut m = 0.0;
    let mut is_moving = true;
    while is_moving {
        m += 1.0;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for numerator in [even, odd] {
            d = 1.0 / (1.0 + numerator * d);
            c = 1.0 + numerator / c;
            change *= c * d;
        }
        fraction *= change;
        is_moving = (change - 1.0).abs() > 4.0 * f64::EPSILON;
    }
    (beta_factor * fraction).min(1.0)
}

/// Student's t of the degrees of freedom (at least 1) with 97.5% of the probability below it.
pub(crate) fn t_975(df: u64) -> f64 {
    /// From here on the four terms of the expansion about the normal leave 1e-12.
    const LARGE: u64 = 300;
    if df >= LARGE {
        let (z, n) = (Z_975, df as f64);
        let z2 = z * z;
        // Abramowitz & Stegun 26.7.5.
        let terms = [
            z * (z2 + 1.0) / 4.0,
            z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0,
            z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0,
            z * ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) / 92160.0,
        ];
        return z + terms.iter().rev().fold(0.0, |sum, term| (sum + term) / n);
    }
    // P(|T| < sqrt(df) tan(angle)) rises with the angle.
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    loop {
        let angle = 0.5 * (low + high);
        if angle <= low || angle >= high {
            return (df as f64).sqrt() * angle.tan();
        }
        if t_within(angle, df) < 0.95 {
            low = angle;
        } else {
            high = angle;
        }
    }
}

/// The probability that |T| is below `sqrt(df) tan(angle)`.
fn t_within(angle: f64, df: u64) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let is_odd = df % 2 == 1;
    let first = if is_odd { cos } else { 1.0 };
    let (mut term, mut sum) = (first, 0.0);
    let mut n = if is_odd { 1 } else { 0 };
    while n + 2 <= df {
        sum += term;
        term *= cos * cos * (n + 1) as f64 / (n + 2) as f64;
        n += 2;
    }
    if is_odd { (angle + sin * sum) / FRAC_PI_2 } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chi_squared_probabilities_are_the_published_ones() {
        // Closed forms: two degrees of freedom are exponential, four are (1 + x / 2) e^(-x / 2), one is a squared normal.
        for x in [1e-8_f64, 0.1, 1.0, 3.0, 20.0, 700.0] {
            let half = 0.5 * x;
            for (df, want) in [(2, (-half).exp()), (4, (1.0 + half) * (-half).exp()), (1, libm::erfc(half.sqrt()))] {
                assert!((chi_squared_above(x, df) / want - 1.0).abs() < 1e-12, "{x} {df}");
            }
        }
        assert_eq!(chi_squared_above(0.0, 5), 1.0);
        assert_eq!(chi_squared_above(1e300, 5), 0.0);
    }

    #[test]
    fn chi_squared_quantiles_are_the_published_ones() {
        // By the closed forms for even degrees of freedom, in 40 digits, and R's qchisq.
        let published = [
            (1, 0.000982069117175, 5.02388618731489),
            (2, 0.0506356159685798, 7.37775890822787),
            (3, 0.215795282623898, 9.34840360449615),
            (12, 4.40378850698170, 23.3366641586453),
            (100, 74.2219274749237, 129.561197185837),
        ];
        for (df, low, high) in published {
            assert!((chi_squared_quantile(0.025, -Z_975, df) / low - 1.0).abs() < 1e-12, "{df}");
            assert!((chi_squared_quantile(0.975, Z_975, df) / high - 1.0).abs() < 1e-12, "{df}");
        }
        for df in (1..200).chain([1_000, 99_999, 10_000_000]) {
            for (below, z) in [(0.025, -Z_975), (0.975, Z_975)] {
                let above = chi_squared_above(chi_squared_quantile(below, z, df), df);
                assert!((above - (1.0 - below)).abs() < 1e-12, "{df} {below}: {above}");
            }
        }
    }

    #[test]
    fn binomial_probabilities_are_sums_of_their_terms() {
        for (n, p) in [(1, 0.3), (7, 0.5), (60, 0.95), (60, 0.1), (1_000, 0.8), (1_000, 0.001)] {
            let log_term = |k: i32| {
                let [choices, k, n] = [0, k, n].map(f64::from);
                choices + libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
                    + k * f64::ln(p)
                    + (n - k) * f64::ln_1p(-p)
            };
            for k in 0..=n + 1 {
                let want: f64 = (k..=n).map(|k| log_term(k).exp()).sum();
                let got = binomial_at_least(k.into(), n.into(), p);
                assert!((got - want).abs() < 1e-10, "{k} of {n} at {p}: {got} instead of {want}");
            }
        }
    }

    #[test]
    fn a_binomial_bound_leaves_its_tail() {
        for (n, p) in [(20.0, 0.5), (33.3, 0.8), (5e6, 0.1)] {
            let bound = binomial_bound(n, p, 1e-3);
            assert!((binomial_at_least(bound, n, p) - 1e-3).abs() < 1e-6, "{n} {p}: {bound}");
        }
        assert_eq!(binomial_bound(3.0, 0.5, 1e-3), 3.0);
        let n_2_40 = (1_u64 << 40) as f64;
        for n in [1.2e7, 1e9, n_2_40] {
            for p in [0.05, 0.1, 0.5, 0.95] {
                for tail in [4e-4, 1e-5] {
                    // One success more or less changes the tail by some 3 / sd of itself.
                    let sd = (n * p * (1.0 - p)).sqrt();
                    let got = binomial_at_least(binomial_bound(n, p, tail), n, p);
                    assert!((got / tail - 1.0).abs() < 0.05 / sd + 1e-8, "{n} {p} {tail}: {got}");
                }
            }
        }
    }

    #[test]
    fn binomial_probabilities_keep_their_digits_however_many_trials_there_are() {
        for n in [1e5, 5e6, 1e9, (1_u64 << 40) as f64] {
            let sd = 0.5 * f64::sqrt(n);
            for z in [-6.0, -1.0, 0.0, 0.3, 2.0, 5.0_f64] {
                // Of a fair coin the normal tail, corrected for continuity, is off by (z^3 - z) / 12n of the density, and less.
                let k = (0.5 * n + z * sd).round();
                let z = (k - 0.5 - 0.5 * n) / sd;
                let want = normal::cdf(-z) - normal::pdf(z) * (z * z - 1.0) * z / (12.0 * n);
                let got = binomial_at_least(k, n, 0.5);
                assert!(
                    (got - want).abs() < 1e-9 * want + 1e-10 / n.sqrt() + 1.0 / (n * n),
                    "{n} {z}: {got} instead of {want}"
                );
            }
        }
    }

    #[test]
    fn t_quantiles_are_the_published_ones() {
        // R's qt(0.975, df).
        let published = [
            (1, 12.7062047361747),
            (2, 4.30265272974946),
            (3, 3.18244630528371),
            (7, 2.36462425159278),
            (12, 2.17881282966723),
            (100, 1.98397151852355),
            (1_000, 1.96233908082641),
        ];
        for (df, want) in published {
            assert!((t_975(df) - want).abs() < 1e-11, "{df}: {}", t_975(df));
        }
        assert!((t_975(299) - t_975(300) - (t_975(300) - t_975(301))).abs() < 1e-6);
        assert!(t_975(1 << 40) - Z_975 < 1e-11);
    }
}
