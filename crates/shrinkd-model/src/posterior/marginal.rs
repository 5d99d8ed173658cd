//! The marginal posterior of tau, mu integrated out in closed form.
//!
//! Given tau, mu is normal with precision `A` and mean `B / A` (a normal prior adds its own precision to `A`, and to
//! `B` and `C` accordingly), so that `log p(tau | data) = log p(tau) - (L + log A + C - B^2 / A) / 2 + const`
//! (Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.4).

use super::profile::{MuPrior, Profile};
use crate::likelihood::Likelihood;
use crate::prior::{PriorMu, Priors};

/// The marginal posterior of tau of one population under its priors.
pub(super) struct Marginal<'a, L> {
    pub(super) likelihood: &'a L,
    pub(super) priors: &'a Priors,
    mu_prior: MuPrior,
}

/// The marginal at one tau.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// Log density of tau, up to the constant of [`Marginal::log_evidence`].
    pub(super) log_density: f64,
    /// Mean of mu given tau.
    pub(super) mu_mean: f64,
    /// Variance of mu given tau.
    pub(super) mu_variance: f64,
    /// The size of the terms of the log density beside its determinants: its rounding error is relative to this.
    pub(super) summed: f64,
}

impl<'a, L: Likelihood> Marginal<'a, L> {
    pub(super) fn new(likelihood: &'a L, priors: &'a Priors) -> Marginal<'a, L> {
        Marginal { likelihood, priors, mu_prior: MuPrior::new(priors.mu, likelihood.centre()) }
    }

    pub(super) fn at(&self, tau: f64) -> Point {
        let profile = Profile::new(&self.likelihood.at(tau * tau), self.mu_prior);
        let log_prior = self.priors.tau.log_density(tau);
        Point {
            log_density: log_prior + profile.log_mass(),
            mu_mean: match self.priors.mu {
                PriorMu::Fixed { mu } => mu,
                _ => self.likelihood.centre() + profile.mean,
            },
            mu_variance: 1.0 / profile.precision,
            summed: log_prior.abs() + 0.5 * profile.summed,
        }
    }

    /// How far the prior of mu is from the effects; 0 for a flat one.
    pub(super) fn prior_distance(&self) -> f64 {
        self.mu_prior.distance()
    }

    /// First and second derivative of the log density of tau in t = tau^2.
    pub(super) fn derivatives(&self, t: f64) -> (f64, f64) {
        let derivatives = self.likelihood.derivatives(t);
        let profile = Profile::new(&derivatives.value, self.mu_prior);
        let ridge = profile.partials(&derivatives);
        let log_slope = derivatives.first.a / profile.precision;
        let log_curvature = derivatives.second.a / profile.precision - log_slope * log_slope;
        let (prior_slope, prior_curvature) = self.priors.tau.derivatives(t);
        (
            prior_slope + ridge.slope - 0.5 * log_slope,
            prior_curvature + ridge.curvature + ridge.cross * ridge.cross / profile.precision - 0.5 * log_curvature,
        )
    }

    /// Log evidence from the log of the integral of `exp(log_density)`, where the priors are proper.
    pub(super) fn log_evidence(&self, log_integral: f64) -> Option<f64> {
        let log_mu = match self.priors.mu {
            PriorMu::Flat => return None,
            PriorMu::Fixed { .. } => 0.0,
            // So narrow that it fixes mu: see `Profile`.
            PriorMu::Normal { sd, .. } if (1.0 / sd).powi(2).is_infinite() => 0.0,
            PriorMu::Normal { sd, .. } => sd.ln(),
        };
        let normalisation = -0.5 * self.likelihood.effects() as f64 * (2.0 * std::f64::consts::PI).ln() - log_mu;
        self.priors.are_proper().then_some(log_integral + normalisation)
    }
}
