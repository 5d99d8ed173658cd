//! The exact posterior.
use super::{Posterior, PosteriorError};
use crate::model::likelihood::Likelihood;
use crate::model::prior::Priors;
/// The exact posterior of (mu, tau).
pub fn quadrature(_likelihood: &impl Likelihood, _priors: &Priors) -> Result<Posterior, PosteriorError> {
    todo!()
}
