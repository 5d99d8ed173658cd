//! The profile likelihood: mu at its best for each tau, with derivatives in t = tau^2.
//!
//! Given tau, `-(C - 2 m B + m^2 A) / 2` and a normal prior of mu add up to a parabola in m, so that mu's best value
//! and its precision are closed forms.

use crate::likelihood::{Derivatives, Terms};
use crate::prior::PriorMu;

/// The prior of mu, about the likelihood's centre: precision 0 is flat, an infinite one fixes mu.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct MuPrior {
    precision: f64,
    mean: f64,
}

impl MuPrior {
    pub(in super::super) const FLAT: MuPrior = MuPrior { precision: 0.0, mean: 0.0 };

    pub(in super::super) fn new(prior: PriorMu, centre: f64) -> MuPrior {
        match prior {
            PriorMu::Flat => MuPrior::FLAT,
            PriorMu::Fixed { mu } => MuPrior { precision: f64::INFINITY, mean: mu - centre },
            PriorMu::Normal { mean, sd } => MuPrior { precision: (1.0 / sd).powi(2), mean: mean - centre },
        }
    }

    /// How far the prior's mean is from the likelihood's centre; 0 for a flat one.
    pub(super) fn distance(&self) -> f64 {
        self.mean.abs()
    }
}

/// The parabola in mu at one t.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Profile {
    /// Best value of mu, about the likelihood's centre: its mean given tau.
    pub mean: f64,
    /// Precision of mu given tau, u^-2 in the effects' unit u; infinite where mu is fixed.
    pub precision: f64,
    /// Squared standardised residuals that the best mu leaves, its own from the prior among them.
    pub misfit: f64,
    /// The size of what is added up and subtracted in the misfit: its rounding error is relative to this.
    pub summed: f64,
    log_det: f64,
}

/// Partial derivatives of `log p(effects | mu, t)` in t at a fixed mu, and mixed with mu.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Partials {
    pub slope: f64,
    pub curvature: f64,
    pub cross: f64,
}

impl Profile {
    pub(in super::super) fn new(terms: &Terms, prior: MuPrior) -> Profile {
        let precision = terms.a + prior.precision;
        let (mean, from_prior) = if precision.is_finite() {
            let mean = (terms.b + prior.precision * prior.mean) / precision;
            (mean, prior.precision * (mean - prior.mean).powi(2))
        } else {
            (prior.mean, 0.0)
        };
        let misfit = terms.c - mean * (2.0 * terms.b - mean * terms.a) + from_prior;
        Profile { mean, precision, misfit, summed: terms.c + from_prior, log_det: terms.log_det }
    }

    /// Log density of the effects and the best mu, without its constants.
    pub(in super::super) fn log_density(&self) -> f64 {
        -0.5 * (self.log_det + self.misfit)
    }

    /// Log density of the effects with mu integrated out, without its constants. Nothing is to be integrated where mu is
    /// fixed.
    pub(in super::super) fn log_mass(&self) -> f64 {
        if self.precision.is_finite() { self.log_density() - 0.5 * self.precision.ln() } else { self.log_density() }
    }

    /// Derivative of the misfit at a fixed mu, from those of the sums; of any order.
    pub(in super::super) fn misfit_slope(&self, derivative: &Terms) -> f64 {
        derivative.c - self.mean * (2.0 * derivative.b - self.mean * derivative.a)
    }

    /// At the best mu these are also the derivatives along the ridge (envelope theorem), but for the curvature, which
    /// is there `curvature + cross^2 / precision`.
    pub(in super::super) fn partials(&self, derivatives: &Derivatives) -> Partials {
        let along = |d: &Terms| -0.5 * (d.log_det + self.misfit_slope(d));
        Partials {
            slope: along(&derivatives.first),
            curvature: along(&derivatives.second),
            cross: derivatives.first.b - self.mean * derivatives.first.a,
        }
    }
}
