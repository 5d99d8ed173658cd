//! The posterior of (mu, tau), given all experiments of a population.
//!
//! | module | contents |
//! | --- | --- |
//! | `quadrature` | the exact answer: mu in closed form, tau by adaptive Gauss-Legendre panels |
//! | `scan` | where these panels lie: support and modes of tau |
//! | `distribution` | what follows from tau's distribution beside its summary |
//! | `laplace` | a Gaussian at the joint mode of (mu, log tau) |
//! | `variational` | the Gaussian on (mu, log tau) that maximises the evidence lower bound |
//! | `point` | REML, ML and the moment estimators of meta-analysis software |
//! | `heterogeneity` | what that software reports with them: Q, I^2, the intervals of tau and mu |
//!
//! Every method ends in the same form: summaries of mu and tau, and a few [`Node`]s, a mixture over tau with mu normal
//! given tau, over which the effects' posteriors are averaged.

mod adaptive;
mod alike;
mod condense;
mod distribution;
mod gaussian;
mod given_icc;
mod heterogeneity;
mod icc_posterior;
mod joint;
mod laplace;
mod marginal;
mod maxima;
pub(crate) mod panel;
mod point;
pub(crate) mod profile;
mod quadrature;
mod scan;
mod variational;

use serde::{Deserialize, Serialize};

use super::normal::{Z_75, Z_975};
use super::prior::{Priors, ScaleError};
pub(crate) use alike::effective_effects;
pub use alike::{known_icc, quadrature_with_icc};
pub(super) use condense::NEGLIGIBLE;
pub use condense::condense;
pub use distribution::TauDistribution;
pub use heterogeneity::{Heterogeneity, KnappHartung};
pub use icc_posterior::{IccPosterior, IccStatus};
pub use laplace::laplace;
pub use point::{PointEstimate, dl, ml, pm, reml};
pub use quadrature::quadrature;
pub use variational::variational;

/// Location and spread of one parameter, in the effects' unit; what does not exist is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    pub mean: Option<f64>,
    pub median: Option<f64>,
    pub sd: Option<f64>,
    pub q025: Option<f64>,
    pub q25: Option<f64>,
    pub q75: Option<f64>,
    pub q975: Option<f64>,
}

/// One point of the mixture over (tau, icc): weight `w`, and mu normal given both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Weights of a posterior's nodes add up to 1.
    pub weight: f64,
    pub tau: f64,
    /// Intraclass correlation: that of the true effects of one experiment's variants. Nodes that are stored have 0.
    #[serde(skip)]
    pub icc: f64,
    /// Mean of mu given tau and icc, in the effects' unit.
    pub mu_mean: f64,
    /// Variance of mu given tau and icc.
    pub mu_variance: f64,
}

/// A local maximum of the marginal posterior density of tau.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    pub tau: f64,
    /// Log density below that of the highest mode, <= 0.
    pub relative_log_density: f64,
}

/// The posterior of (mu, tau) by one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    pub mu: Summary,
    pub tau: Summary,
    /// Of the intraclass correlation where that is not known.
    pub icc: Option<IccPosterior>,
    /// Correlation of mu and tau, where both variances exist.
    pub correlation: Option<f64>,
    /// Log of the marginal likelihood (for `variational` its lower bound); `None` under an improper prior.
    pub log_evidence: Option<f64>,
    /// All of tau's distribution.
    pub tau_distribution: TauDistribution,
    /// Local modes of tau, highest first; more than one is worth a look.
    pub modes: Vec<Mode>,
    /// The mixture over tau.
    pub nodes: Vec<Node>,
}

/// Why a population has no posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PosteriorError {
    #[error("a population without effects has nothing to fit")]
    Empty,
    #[error(
        "{effects} {} the posterior improper under these priors: give tau a proper prior, such as half-normal:1se",
        if *effects == 1 { "effect leaves" } else { "effects leave" }
    )]
    Improper { effects: u64 },
    #[error(
        "with {experiments} experiment(s), whose variants may be alike, the posterior is improper under these priors: give tau a proper \
         prior, such as half-normal:1se, or icc one with less probability near 1, such as beta:1,2"
    )]
    ImproperAlike { experiments: u64 },
    #[error(
        "one effect says nothing about the spread of the true effects: reml, dl and pm need at least two; quadrature with a \
         proper prior of tau needs one"
    )]
    OneEffect,
    #[error(
        "the posterior cannot be computed in double precision, because tau may be larger or smaller than any effect and \
         standard error by too many orders of magnitude: check the units of effects and priors"
    )]
    OutOfRange,
    #[error(
        "laplace and variational take an intraclass correlation that is known: use quadrature, or the prior none or fixed:VALUE of icc"
    )]
    UnknownIcc,
    #[error(transparent)]
    Scale(#[from] ScaleError),
    #[error("log tau has no curvature at its mode, so that no Gaussian approximates it: use quadrature")]
    Degenerate,
    #[error(
        "{figure} came out as no finite number: check the units of effects and priors. If these are right, it is a bug of shrinkd: \
         please report it with these priors and data"
    )]
    NotFinite { figure: &'static str },
}

impl Summary {
    /// A normal distribution's; with sd 0 a known value's.
    pub(super) fn of_normal(mean: f64, sd: f64) -> Summary {
        let at = |z: f64| Some(mean + z * sd);
        Summary {
            mean: Some(mean),
            median: Some(mean),
            sd: Some(sd),
            q025: at(-Z_975),
            q25: at(-Z_75),
            q75: at(Z_75),
            q975: at(Z_975),
        }
    }

    /// Whether every figure that exists is a finite number.
    pub fn is_finite(&self) -> bool {
        let Summary { mean, median, sd, q025, q25, q75, q975 } = *self;
        [mean, median, sd, q025, q25, q75, q975].into_iter().flatten().all(f64::is_finite)
    }
}

impl Node {
    /// Whether every figure is a finite number.
    pub fn is_finite(&self) -> bool {
        let Node { weight, tau, icc, mu_mean, mu_variance } = *self;
        [weight, tau, icc, mu_mean, mu_variance].into_iter().all(f64::is_finite)
    }
}

/// Refuses a population without a posterior, before any method begins.
fn check(effects: u64, priors: &Priors) -> Result<(), PosteriorError> {
    if effects == 0 {
        Err(PosteriorError::Empty)
    } else if !priors.give_proper_posterior(effects as f64) {
        Err(PosteriorError::Improper { effects })
    } else {
        Ok(())
    }
}
