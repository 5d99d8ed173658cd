//! A Gaussian on (mu, log tau), under which mu is normal and tau log-normal, with everything else in closed form.

use super::distribution::TauDistribution;
use super::{Mode, Node, Posterior, Summary};
use crate::normal::{Z_75, Z_975};

/// The mixture over log tau: the trapezoidal rule, which for a normal density converges geometrically
/// (Trefethen & Weideman, SIAM Review 56, 2014). 21 points reach 6 sds to either side.
const NODES: i32 = 10;
const NODE_STEP: f64 = 0.6;

/// Larger tau has a square beyond f64.
const LARGEST_TAU: f64 = 1e150;

/// `log tau ~ N(log_tau, log_tau_sd^2)`, and with z its standardised value `mu | tau ~ N(mu + mu_slope z, mu_variance)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gaussian {
    pub mu: f64,
    pub mu_slope: f64,
    pub mu_variance: f64,
    pub log_tau: f64,
    pub log_tau_sd: f64,
}

impl Gaussian {
    /// The posterior that this Gaussian stands for. Moments exist always; one beyond the range of f64 is `None`.
    pub(super) fn posterior(&self, log_evidence: Option<f64>, modes: Vec<Mode>) -> Posterior {
        let s = self.log_tau_sd;
        let mu_sd = self.mu_variance.sqrt().hypot(self.mu_slope);
        let spread = (s * s).exp_m1().sqrt();
        let tau_mean = (self.log_tau + 0.5 * s * s).exp();
        Posterior {
            mu: summary(self.mu, mu_sd, |z| self.mu + z * mu_sd),
            tau: summary(tau_mean, tau_mean * spread, |z| (self.log_tau + z * s).exp()),
            icc: None,
            correlation: finite(self.mu_slope / mu_sd * (s / spread)),
            log_evidence,
            tau_distribution: TauDistribution::log_normal(self.log_tau, s),
            modes,
            nodes: self.nodes(),
        }
    }

    fn nodes(&self) -> Vec<Node> {
        let points = || (-NODES..=NODES).map(|k| NODE_STEP * f64::from(k));
        let density = |z: f64| (-0.5 * z * z).exp();
        let total: f64 = points().map(density).sum();
        points()
            .map(|z| Node {
                weight: density(z) / total,
                tau: (self.log_tau + z * self.log_tau_sd).exp().min(LARGEST_TAU),
                icc: 0.0,
                mu_mean: self.mu + z * self.mu_slope,
                mu_variance: self.mu_variance,
            })
            .collect()
    }
}

fn summary(mean: f64, sd: f64, quantile: impl Fn(f64) -> f64) -> Summary {
    Summary {
        mean: finite(mean),
        median: finite(quantile(0.0)),
        sd: finite(sd),
        q025: finite(quantile(-Z_975)),
        q25: finite(quantile(-Z_75)),
        q75: finite(quantile(Z_75)),
        q975: finite(quantile(Z_975)),
    }
}

fn finite(x: f64) -> Option<f64> {
    Some(x).filter(|x| x.is_finite())
}
