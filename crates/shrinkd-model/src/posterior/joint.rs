//! The joint density of (mu, log tau), Jacobian included: what `laplace` and `variational` approximate.

use super::Mode;
use super::maxima::{Sample, maxima};
use super::profile::{MuPrior, Profile};
use crate::likelihood::Likelihood;
use crate::prior::{PriorMu, PriorTau, Priors};

/// `ln(2 pi)`.
pub(super) const LN_2_PI: f64 = 1.837_877_066_409_345_3;

/// Log tau is sought between minus this and this: t would leave the range of f64, and no density is left there.
const LARGEST_LOG_TAU: f64 = 330.0;

/// Grid of log tau: a sum over components in which t enters as `1 / (lambda + t)` does not turn faster.
const STEP: f64 = 0.5;

/// `log p(effects, mu, log tau)`.
pub(super) struct Joint<'a, L> {
    likelihood: &'a L,
    priors: &'a Priors,
    mu_prior: MuPrior,
    constant: f64,
}

/// The density along the ridge of best mu, at one log tau.
#[derive(Debug, Clone, Copy)]
pub(super) struct RidgePoint {
    /// Mean of mu given tau, about [`Joint::centre`].
    pub mean: f64,
    /// Precision of mu given tau; 1 where mu is fixed, for which see [`Joint::spread_of_mu`].
    pub precision: f64,
    /// Log density at the mean.
    pub log_density: f64,
}

/// The negative Hessian of the log density at a mode, with mu in units of its sd given tau.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curvature {
    pub mixed: f64,
    pub log_tau: f64,
}

impl<'a, L: Likelihood> Joint<'a, L> {
    pub(super) fn new(likelihood: &'a L, priors: &'a Priors) -> Joint<'a, L> {
        let mu_constant = match priors.mu {
            PriorMu::Flat => 0.0,
            // As if mu had, apart from all else, a normal density of variance 1.
            PriorMu::Fixed { .. } => -0.5 * LN_2_PI,
            PriorMu::Normal { sd, .. } => -0.5 * LN_2_PI - sd.ln(),
        };
        Joint {
            likelihood,
            priors,
            mu_prior: MuPrior::new(priors.mu, likelihood.centre()),
            constant: mu_constant - 0.5 * LN_2_PI * likelihood.effects() as f64,
        }
    }

    /// The value that means of mu are about.
    pub(super) fn centre(&self) -> f64 {
        self.likelihood.centre()
    }

    fn is_mu_fixed(&self) -> bool {
        matches!(self.priors.mu, PriorMu::Fixed { .. })
    }

    /// A measure of the spread of mu, which is 0 where mu is fixed.
    pub(super) fn spread_of_mu(&self, spread: f64) -> f64 {
        if self.is_mu_fixed() { 0.0 } else { spread }
    }

    /// Whether the density of log tau falls as steeply to the left as a half-normal prior's to the right.
    pub(super) fn is_steep_to_the_left(&self) -> bool {
        matches!(self.priors.tau, PriorTau::InverseGamma { .. })
    }

    pub(super) fn at(&self, log_tau: f64) -> RidgePoint {
        let tau = log_tau.min(LARGEST_LOG_TAU).exp();
        let profile = Profile::new(&self.likelihood.at(tau * tau), self.mu_prior);
        self.ridge_point(&profile, log_tau, tau)
    }

    fn ridge_point(&self, profile: &Profile, log_tau: f64, tau: f64) -> RidgePoint {
        let log_prior = self.priors.tau.log_density(tau) + log_tau;
        RidgePoint {
            mean: profile.mean,
            precision: if self.is_mu_fixed() { 1.0 } else { profile.precision },
            log_density: profile.log_density() + log_prior + self.constant,
        }
    }

    /// Slope and curvature in log tau along the ridge, and the Hessian that they come from.
    fn expand(&self, log_tau: f64) -> (Sample, Curvature) {
        let tau = log_tau.min(LARGEST_LOG_TAU).exp();
        let t = tau * tau;
        let derivatives = self.likelihood.derivatives(t);
        let profile = Profile::new(&derivatives.value, self.mu_prior);
        let partials = profile.partials(&derivatives);
        let (prior_slope, prior_curvature) = self.priors.tau.derivatives(t);
        // d/d log tau = 2 t d/dt
        let slope = 2.0 * t * (partials.slope + prior_slope);
        let fixed_mu = 2.0 * slope + 4.0 * t * (t * (partials.curvature + prior_curvature));
        let mixed = 2.0 * t * (partials.cross / profile.precision.sqrt());
        let sample = Sample {
            x: log_tau,
            value: self.ridge_point(&profile, log_tau, tau).log_density,
            slope: slope + 1.0,
            curvature: fixed_mu + mixed * mixed,
            // t L' rises, the misfit falls, and the misfit's share of the slope is below the misfit itself: once
            // true, true for every larger tau.
            is_past: t * (derivatives.first.log_det - 2.0 * prior_slope) >= 1.0 + profile.misfit,
        };
        (sample, Curvature { mixed: -mixed, log_tau: -fixed_mu })
    }

    /// The negative Hessian at a mode.
    pub(super) fn curvature(&self, mode: &Sample) -> Curvature {
        self.expand(mode.x).1
    }

    /// The local modes in log tau, highest first.
    pub(super) fn modes(&self) -> Vec<Sample> {
        let log_det_slope = self.likelihood.derivatives(0.0).first.log_det;
        let prior_slope = self.priors.tau.derivatives(0.0).0;
        let start = if prior_slope.is_finite() {
            // Left of t = 1 / (L' - 2 prior') at t = 0 the Jacobian outweighs all that falls.
            -0.5 * (log_det_slope - 2.0 * prior_slope).ln() - 0.5 * STEP
        } else {
            // The prior of log tau rises here, and outweighs what falls of a likelihood that is all but flat.
            self.priors.tau.scale().ln().min(-0.5 * log_det_slope.ln()) - 5.0
        };
        let start = start.max(-LARGEST_LOG_TAU);
        let grid = (0..).map(|k| start + STEP * f64::from(k)).take_while(|&x| x < LARGEST_LOG_TAU);
        let mut modes = maxima(grid, |log_tau| self.expand(log_tau).0);
        modes.sort_by(|x, y| y.value.total_cmp(&x.value));
        modes
    }
}

/// Modes as they are reported.
pub(super) fn reported(modes: &[Sample]) -> Vec<Mode> {
    let highest = modes.first().map_or(0.0, |mode| mode.value);
    modes.iter().map(|mode| Mode { tau: mode.x.exp(), relative_log_density: mode.value - highest }).collect()
}
