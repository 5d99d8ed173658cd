//! Laplace's approximation of the posterior: a Gaussian on (mu, log tau) at the joint mode (Tierney & Kadane, JASA 81,
//! 1986). Fast and widely used; inaccurate where the posterior of tau piles up at 0.

use faer::{Side, mat};

use super::gaussian::Gaussian;
use super::joint::{self, Joint, LN_2_PI};
use super::quadrature::given_tau;
use super::{Posterior, PosteriorError, check};
use crate::likelihood::Likelihood;
use crate::prior::{PriorTau, Priors};

/// The Gaussian at the highest joint mode of (mu, log tau), Jacobian included, whose precision is the negative Hessian
/// there. `log_evidence` is Laplace's formula; `modes` are those of the joint density, each with mu at its best.
///
/// # Errors
/// Where the exact posterior does not exist either ([`PosteriorError::Empty`], [`PosteriorError::Improper`]), or its
/// mode has no curvature ([`PosteriorError::Degenerate`]).
pub fn laplace(likelihood: &impl Likelihood, priors: &Priors) -> Result<Posterior, PosteriorError> {
    check(likelihood.effects(), priors)?;
    if let PriorTau::Fixed { tau } = priors.tau {
        return Ok(given_tau(likelihood, priors, tau));
    }
    let joint = Joint::new(likelihood, priors);
    let modes = joint.modes();
    let mode = modes.first().ok_or(PosteriorError::Degenerate)?;
    let at_mode = joint.at(mode.x);
    let curvature = joint.curvature(mode);
    // With mu in units of its sd given tau, so that no unit of the effects can over- or underflow the factorisation.
    let hessian = mat![[1.0, curvature.mixed], [curvature.mixed, curvature.log_tau]];
    let factor = hessian.llt(Side::Lower).map_err(|_| PosteriorError::Degenerate)?;
    let (mixed, log_tau) = (factor.L()[(1, 0)], factor.L()[(1, 1)]);
    let gaussian = Gaussian {
        mu: joint.centre() + at_mode.mean,
        mu_slope: joint.spread_of_mu(-mixed / log_tau / at_mode.precision.sqrt()),
        mu_variance: joint.spread_of_mu(1.0 / at_mode.precision),
        log_tau: mode.x,
        log_tau_sd: 1.0 / log_tau,
    };
    let log_evidence = at_mode.log_density + LN_2_PI - 0.5 * at_mode.precision.ln() - log_tau.ln();
    Ok(gaussian.posterior(priors.are_proper().then_some(log_evidence), joint::reported(&modes)))
}
