//! The marginal posterior of tau, mu integrated out in closed form.
//!
//! Given tau, mu is normal with precision `A` and mean `B / A` (a normal prior adds its own precision to `A`, and to
//! `B` and `C` accordingly), so that `log p(tau | data) = log p(tau) - (L + log A + C - B^2 / A) / 2 + const`
//! (Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.4).

use crate::model::likelihood::{Derivatives, Likelihood, Terms};
use crate::model::prior::{PriorMu, Priors};

/// The prior of mu as the normal that is multiplied into the likelihood; precision 0 where it is flat.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct MuPrior {
    precision: f64,
    /// About the likelihood's centre.
    mean: f64,
}

/// What is left of the likelihood at one tau once mu is integrated out.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct Integrated {
    /// Log of the integral over mu, up to a constant that does not depend on tau.
    pub(in crate::model) log_mass: f64,
    /// Mean of mu given tau, about the likelihood's centre.
    pub(in crate::model) mu_mean: f64,
    /// Variance of mu given tau.
    pub(in crate::model) mu_variance: f64,
}

impl MuPrior {
    pub(in crate::model) fn new(prior: &PriorMu, centre: f64) -> MuPrior {
        match *prior {
            PriorMu::Flat => MuPrior { precision: 0.0, mean: 0.0 },
            PriorMu::Normal { mean, sd } => MuPrior { precision: 1.0 / (sd * sd), mean: mean - centre },
        }
    }

    /// Integrates mu out of the likelihood with these sums.
    pub(in crate::model) fn integrate(&self, terms: &Terms) -> Integrated {
        let Terms { log_det, a, b, c } = *terms;
        let precision = a + self.precision;
        // The two quadratics in mu, the data's about B / A and the prior's about its mean, without the cancellation
        // of C - B^2 / A where the prior sits far from the data.
        let distance = b / a - self.mean;
        let disagreement = a * (self.precision / precision) * distance * distance;
        Integrated {
            log_mass: -0.5 * (log_det + precision.ln() + (c - b * b / a) + disagreement),
            mu_mean: self.mean(a, b),
            mu_variance: 1.0 / precision,
        }
    }

    fn mean(&self, a: f64, b: f64) -> f64 {
        (b + self.precision * self.mean) / (a + self.precision)
    }
}

/// The marginal posterior of tau of one population under its priors.
pub(super) struct Marginal<'a, L> {
    likelihood: &'a L,
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
}

impl<'a, L: Likelihood> Marginal<'a, L> {
    pub(super) fn new(likelihood: &'a L, priors: &'a Priors) -> Marginal<'a, L> {
        Marginal { likelihood, priors, mu_prior: MuPrior::new(&priors.mu, likelihood.centre()) }
    }

    pub(super) fn at(&self, tau: f64) -> Point {
        let Integrated { log_mass, mu_mean, mu_variance } = self.mu_prior.integrate(&self.likelihood.at(tau * tau));
        Point {
            log_density: self.priors.tau.log_density(tau) + log_mass,
            mu_mean: self.likelihood.centre() + mu_mean,
            mu_variance,
        }
    }

    /// First and second derivative of the log density of tau in t = tau^2.
    pub(super) fn derivatives(&self, t: f64) -> (f64, f64) {
        let Derivatives { value, first, second } = self.likelihood.derivatives(t);
        let a = value.a + self.mu_prior.precision;
        let mean = self.mu_prior.mean(value.a, value.b);
        let (log_slope, residual) = (first.a / a, first.b - mean * first.a);
        let slope = first.log_det + log_slope + first.c - 2.0 * mean * first.b + mean * mean * first.a;
        let curvature = second.log_det + second.a / a - log_slope * log_slope + second.c
            - 2.0 * residual * residual / a
            - 2.0 * mean * second.b
            + mean * mean * second.a;
        let (prior_slope, prior_curvature) = self.priors.tau.derivatives(t);
        (prior_slope - 0.5 * slope, prior_curvature - 0.5 * curvature)
    }

    /// Log evidence from the log of the integral of `exp(log_density)`, where the priors are proper.
    pub(super) fn log_evidence(&self, log_integral: f64) -> Option<f64> {
        let PriorMu::Normal { sd, .. } = self.priors.mu else { return None };
        let normalisation = -0.5 * self.likelihood.effects() as f64 * (2.0 * std::f64::consts::PI).ln() - sd.ln();
        self.priors.are_proper().then_some(log_integral + normalisation)
    }
}
