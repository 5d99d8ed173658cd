//! Point estimates of (mu, tau) without priors, as in meta-analysis software: maximum likelihood, restricted maximum
//! likelihood (Viechtbauer, J. Educational and Behavioral Statistics 30, 2005), and the two moment estimators, of
//! DerSimonian & Laird (Controlled Clinical Trials 7, 1986) and of Paule & Mandel (J. Research of the National Bureau of
//! Standards 87, 1982), for whole blocks.

use std::iter;

use super::heterogeneity::{q, q_falls_to, typical_variance};
use super::maxima::{Sample, maxima};
use super::profile::{MuPrior, Profile};
use crate::likelihood::{Derivatives, Likelihood};

/// An estimate of mu and tau >= 0, in the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PointEstimate {
    pub mu: f64,
    pub tau: f64,
    /// Sampling variance of mu were tau known, `1 / A`.
    pub mu_variance: f64,
}

/// Maximum likelihood: the maximum of `-(L + C - B^2 / A) / 2`. `None` without effects.
pub fn ml(likelihood: &impl Likelihood) -> Option<PointEstimate> {
    maximum(likelihood, 1, |t, derivatives| {
        let profile = Profile::new(&derivatives.value, MuPrior::FLAT);
        let partials = profile.partials(derivatives);
        Sample {
            x: t,
            value: profile.log_density(),
            slope: partials.slope,
            curvature: partials.curvature + partials.cross * (partials.cross / profile.precision),
            // t L' rises and the misfit falls, of which no more than itself is in the slope.
            is_past: t * derivatives.first.log_det >= profile.misfit,
        }
    })
}

/// Restricted maximum likelihood: the maximum of `-(L + C - B^2 / A + ln A) / 2`. `None` below two effects, whose
/// residuals say nothing about tau.
pub fn reml(likelihood: &impl Likelihood) -> Option<PointEstimate> {
    maximum(likelihood, 2, |t, derivatives| {
        let profile = Profile::new(&derivatives.value, MuPrior::FLAT);
        let partials = profile.partials(derivatives);
        let relative_slope = derivatives.first.a / profile.precision;
        let relative_curvature = derivatives.second.a / profile.precision - relative_slope * relative_slope;
        Sample {
            x: t,
            value: profile.log_density() - 0.5 * profile.precision.ln(),
            slope: partials.slope - 0.5 * relative_slope,
            curvature: partials.curvature + partials.cross * (partials.cross / profile.precision)
                - 0.5 * relative_curvature,
            // As above; -t A' / A stays below 1.
            is_past: t * derivatives.first.log_det >= 1.0 + profile.misfit,
        }
    })
}

/// DerSimonian and Laird's estimator: the tau^2 under which the expectation of Q, `N - 1 + tau^2 tr P`, is its value.
/// `None` below two effects.
pub fn dl(likelihood: &impl Likelihood) -> Option<PointEstimate> {
    let df = likelihood.effects().checked_sub(1).filter(|&df| df > 0)? as f64;
    let t = typical_variance(likelihood) * (q(likelihood, 0.0) / df - 1.0).max(0.0);
    Some(estimate(likelihood, t))
}

/// Paule and Mandel's estimator: the tau^2 at which Q is its expectation there, N - 1. `None` below two effects.
pub fn pm(likelihood: &impl Likelihood) -> Option<PointEstimate> {
    let df = likelihood.effects().checked_sub(1).filter(|&df| df > 0)? as f64;
    Some(estimate(likelihood, q_falls_to(likelihood, df)))
}

/// mu by generalised least squares at t = tau^2.
fn estimate(likelihood: &impl Likelihood, t: f64) -> PointEstimate {
    let profile = Profile::new(&likelihood.at(t), MuPrior::FLAT);
    PointEstimate { mu: likelihood.centre() + profile.mean, tau: t.sqrt(), mu_variance: 1.0 / profile.precision }
}

/// The maximum over t = tau^2 >= 0 of a criterion with at least `effects_needed` effects: 0 against every local maximum.
fn maximum(
    likelihood: &impl Likelihood,
    effects_needed: u64,
    criterion: impl Fn(f64, &Derivatives) -> Sample,
) -> Option<PointEstimate> {
    if likelihood.effects() < effects_needed {
        return None;
    }
    let at = |t: f64| criterion(t, &likelihood.derivatives(t));
    // Below a small part of the smallest lambda all sums are nearly linear in t; then in eighths of log tau: two maxima can lie
    // within half a unit of it.
    let first = likelihood.smallest_lambda() / 64.0;
    let factor = 0.25_f64.exp();
    let steps = iter::successors(Some(first), |t| Some(t * factor)).take_while(|&t| t < 1e290);
    let t = maxima(iter::once(0.0).chain(steps), at)
        .into_iter()
        .fold(at(0.0), |best, sample| if sample.value > best.value { sample } else { best })
        .x;
    Some(estimate(likelihood, t))
}
