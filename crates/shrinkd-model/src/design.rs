//! What a design of experiments decides before there are data: how wrong the naive model would be, and what one variant per
//! experiment would cost.
//!
//! All raw effects have the sampling variance `sigma^2 = d + c`, of which the control brings c, so that the errors of two
//! effects of one experiment have the correlation `rho = c / sigma^2`. Everything is in units of sigma (`sigma = 1`, `c = rho`,
//! `d = 1 - rho`), with `v = d + tau^2`. Averages E are over the population's experiments, which say how many variants they have, n.
//!
//! The formulas hold for many experiments, where tau is known well, for variants whose true effects are independent, and for
//! controls that are off by chance alone. They depend on the number of experiments in no other way.

use super::normal::{self, Z_975};

/// How one experiment compares its variants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    /// Variants that are compared with the control: at least 1.
    pub variants: usize,
    /// `c / sigma^2`, the share of an effect's sampling variance that the control brings: at least 0, below 1.
    pub rho: f64,
}

/// A population's experiments, before they are run.
#[derive(Debug, Clone, PartialEq)]
pub struct Design {
    /// One layout where all experiments are alike, else layouts that are equally frequent: at least one.
    pub layouts: Vec<Layout>,
    /// The sd of the true effects, in standard errors of a raw effect: at least 0, finite.
    pub tau: f64,
}

impl Layout {
    /// The layout in which the control gets a share of the traffic, above 0 and below 1, and the variants the rest, split
    /// evenly. The variance of an arm's mean is inverse to its traffic.
    pub fn with_control_share(variants: usize, control_share: f64) -> Layout {
        let rest = 1.0 - control_share;
        Layout { variants, rho: rest / (rest + variants as f64 * control_share) }
    }

    /// The layout in which the control gets as much traffic as each variant.
    pub fn with_equal_shares(variants: usize) -> Layout {
        Layout { variants, rho: 0.5 }
    }

    fn n(self) -> f64 {
        self.variants as f64
    }
}

impl Design {
    /// `DEFF = 1 + E[n (n - 1) rho] / E[n] / (1 + tau^2)`: the variance of the naive mean over the one that the naive model
    /// claims (Kish, Survey Sampling, 1965, section 8.2; all effects have the same weight).
    pub fn design_effect(&self) -> f64 {
        let pairs = self.average(|layout| layout.n() * (layout.n() - 1.0) * layout.rho);
        1.0 + pairs / self.average(Layout::n) / self.total_variance()
    }

    /// The share of naive 95% intervals of mu that contain it, `2 Phi(1.96 / sqrt(DEFF)) - 1`.
    pub fn naive_coverage(&self) -> f64 {
        1.0 - 2.0 * normal::cdf(-Z_975 / self.design_effect().sqrt())
    }

    /// By how much the root mean squared error of the naive shrunken effects is larger than that of the modelled ones, mu and
    /// tau known, as a share: 0.05 is 5%.
    ///
    /// The mean squared errors are `tau^2 / (1 + tau^2)` and the average over effects of `tau^2 d/v + (tau^2/v)^2 c/(1 + c n/v)`
    /// (Lindley & Smith, JRSS B 34, 1972); where tau is 0 both are 0, and the limit is taken.
    pub fn rmse_excess(&self) -> f64 {
        let t = self.tau * self.tau;
        let modelled = self.average(|layout| {
            let (v, n) = (self.v(layout), layout.n());
            // Both divided by tau^2.
            n * ((1.0 - layout.rho) / v + t / (v * v) * layout.rho / (1.0 + layout.rho * n / v))
        });
        let ratio = self.average(Layout::n) / self.total_variance() / modelled;
        ratio.sqrt() - 1.0
    }

    /// How many times as wide mu's interval is with one variant of each experiment:
    /// `sqrt((1 + tau^2) E[1 / (v/n + c)])`, tau known.
    pub fn one_per_experiment_mu(&self) -> f64 {
        let information = self.average(|layout| 1.0 / (self.v(layout) / layout.n() + layout.rho));
        (self.total_variance() * information).sqrt()
    }

    /// How many times as large the standard error of tau is with one variant of each experiment: the square root of
    /// `(1 + tau^2)^2 E[(n - 1)/v^2 + 1/(v + n c)^2]`, the ratio of the Fisher informations `tr(V^-2) / 2` about tau^2 (Searle,
    /// Casella & McCulloch, Variance Components, 1992, section 6.3).
    pub fn one_per_experiment_tau(&self) -> f64 {
        let information = self.average(|layout| {
            let (v, n) = (self.v(layout), layout.n());
            (n - 1.0) / (v * v) + (v + n * layout.rho).powi(-2)
        });
        self.total_variance() * information.sqrt()
    }

    /// The variance of a raw effect about mu, `1 + tau^2`.
    fn total_variance(&self) -> f64 {
        1.0 + self.tau * self.tau
    }

    /// `v = d + tau^2`.
    fn v(&self, layout: Layout) -> f64 {
        1.0 - layout.rho + self.tau * self.tau
    }

    fn average(&self, of: impl Fn(Layout) -> f64) -> f64 {
        self.layouts.iter().map(|&layout| of(layout)).sum::<f64>() / self.layouts.len() as f64
    }
}
