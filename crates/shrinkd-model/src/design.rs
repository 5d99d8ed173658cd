//! What a design of experiments decides before there are data: how wrong the naive model would be, and what one variant per
//! experiment would cost.
//!
//! All raw effects have the sampling variance `sigma^2 = d + c`, of which the control brings c, so that the errors of two
//! effects of one experiment have the correlation `rho = c / sigma^2`. Everything is in units of sigma (`sigma = 1`, `c = rho`,
//! `d = 1 - rho`), with `v = d + tau^2`. An average E is over experiments, which differ in their number of variants n.
//!
//! The formulas hold for many experiments, where tau is known well, be it that it is 0; for variants whose true effects are independent; and for
//! controls that are off by chance alone. The number of experiments is in none of them.

use super::diagnostics::naive_coverage;

/// What the experiments of a population have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Design {
    /// The number of variants that an experiment compares with its control. One number where all have the same, else one for
    /// each of several kinds of experiment that are equally frequent. At least one number, each at least 1.
    pub variants: Vec<usize>,
    /// `c / sigma^2`, the share of an effect's sampling variance that the control brings: at least 0, below 1.
    pub rho: f64,
    /// The sd of the true effects, in standard errors of a raw effect: at least 0, finite.
    pub tau: f64,
}

/// rho where the control gets a share of the traffic, above 0 and below 1, and the variants the rest in equal parts: the
/// variance of an arm's mean is inverse to its traffic. 1/2 where the control gets as much as each variant.
pub fn rho_of_control_share(variants: usize, control_share: f64) -> f64 {
    let rest = 1.0 - control_share;
    rest / (rest + variants as f64 * control_share)
}

impl Design {
    /// `DEFF = 1 + rho_m E[n (n - 1)] / E[n]`, `rho_m = c / (sigma^2 + tau^2)`: the variance of the naive mean over the one
    /// that the naive model claims (Kish, Survey Sampling, 1965, section 8.2; all effects have the same weight).
    pub fn design_effect(&self) -> f64 {
        1.0 + self.rho / self.total_variance() * self.average(|n| n * (n - 1.0)) / self.average(|n| n)
    }

    /// The share of naive 95% intervals of mu that contain it, `2 Phi(1.96 / sqrt(DEFF)) - 1`.
    pub fn naive_coverage(&self) -> f64 {
        naive_coverage(self.design_effect())
    }

    /// By how much the root mean squared error of the naive shrunken effects is larger than that of the modelled ones, with mu
    /// and tau known, as a share: 0.05 is 5%. `None` where tau is 0 and effects share an error: what is left is the error of
    /// mu and tau themselves, which known ones do not have.
    ///
    /// The mean squared errors are `tau^2 sigma^2 / (tau^2 + sigma^2)`, and the average over effects of
    /// `tau^2 d/v + (tau^2/v)^2 c/(1 + c n/v)` (Lindley & Smith, JRSS B 34, 1972). They differ by the average of
    /// `tau^4 (n - 1) c^2 / (v (v + n c) (sigma^2 + tau^2))`, in which nothing cancels.
    pub fn rmse_excess(&self) -> Option<f64> {
        if self.tau == 0.0 && self.design_effect() > 1.0 {
            return None;
        }
        let (t, c, v) = (self.tau * self.tau, self.rho, self.v());
        // Both divided by tau^2.
        let modelled = self.average(|n| n * ((1.0 - c) / v + t / v * c / (v + n * c)));
        let difference = self.average(|n| n * (t / v * (n - 1.0) * c / (v + n * c) * c / self.total_variance()));
        Some((1.0 + difference / modelled).sqrt() - 1.0)
    }

    /// How many times as wide mu's interval is with one variant of each experiment: the square root of
    /// `(sigma^2 + tau^2) E[1 / (v/n + c)]`, the ratio of the informations about mu with tau known.
    pub fn mu_interval_ratio(&self) -> f64 {
        (self.total_variance() * self.average(|n| 1.0 / (self.v() / n + self.rho))).sqrt()
    }

    /// How many times as large the error of tau is with one variant of each experiment. That of tau^2 is larger by the square
    /// root of `(sigma^2 + tau^2)^2 E[(n - 1)/v^2 + 1/(v + n c)^2]`, the ratio of the Fisher informations about tau^2, each
    /// `tr(V^-2) / 2` (Searle, Casella & McCulloch, Variance Components, 1992, section 6.3). Where tau is above 0 its error is in
    /// proportion to that of tau^2. Where it is 0 an estimate of tau is itself as large as the root of the error of tau^2, and
    /// the ratio is the root of the other.
    pub fn tau_error_ratio(&self) -> f64 {
        let v = self.v();
        let of_square =
            self.total_variance() * self.average(|n| (n - 1.0) / (v * v) + (v + n * self.rho).powi(-2)).sqrt();
        if self.tau == 0.0 { of_square.sqrt() } else { of_square }
    }

    /// `sigma^2 + tau^2`, the variance of a raw effect about mu.
    fn total_variance(&self) -> f64 {
        1.0 + self.tau * self.tau
    }

    /// `v = d + tau^2`.
    fn v(&self) -> f64 {
        1.0 - self.rho + self.tau * self.tau
    }

    fn average(&self, of: impl Fn(f64) -> f64) -> f64 {
        self.variants.iter().map(|&n| of(n as f64)).sum::<f64>() / self.variants.len() as f64
    }
}
