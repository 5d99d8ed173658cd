//! Whether a prior is in the unit of the effects: its scale beside that of the data.

use std::fmt;

use super::likelihood::Likelihood;
use super::prior::{PriorMu, PriorTau, Priors};

/// The factor by which the scale of a prior may differ from the data's.
const FAR: f64 = 1_000.0;

/// A proper prior whose scale is more than 1,000 times larger than the largest scale in the data, or more than 1,000 times
/// smaller than the smallest. It is mostly in another unit, such as milliseconds for seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FarPrior {
    /// `mu` or `tau`.
    pub parameter: &'static str,
    /// In the effects' unit.
    pub prior_scale: f64,
    /// The one of the data's scales that is nearer to the prior's: the typical standard error, `exp(mean log se)`, or the root
    /// mean square of the effects.
    pub data_scale: f64,
}

impl FarPrior {
    /// The priors that are far from the data: of the effects as independent ones ([`Correlation::Ignored`]), from their sums.
    ///
    /// [`Correlation::Ignored`]: crate::Correlation::Ignored
    pub fn all(priors: &Priors, ignored: &impl Likelihood) -> Vec<FarPrior> {
        let Some([smallest, largest]) = scales(ignored) else { return Vec::new() };
        let far = |(parameter, scale): (&'static str, Option<f64>)| {
            let prior_scale = scale?;
            let data_scale = prior_scale.clamp(smallest, largest);
            let is_far = prior_scale > FAR * data_scale || FAR * prior_scale < data_scale;
            is_far.then_some(FarPrior { parameter, prior_scale, data_scale })
        };
        [("mu", priors.mu.declared_scale()), ("tau", priors.tau.declared_scale())].into_iter().filter_map(far).collect()
    }
}

impl fmt::Display for FarPrior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FarPrior { parameter, prior_scale, data_scale } = self;
        write!(
            f,
            "the prior of {parameter} has scale {prior_scale:e}, but effects and standard errors are of the order of \
             {data_scale:.0e}: priors are in the unit of the effects"
        )
    }
}

/// The smaller and the larger of the typical standard error and the root mean square of the effects; `None` without effects.
fn scales(ignored: &impl Likelihood) -> Option<[f64; 2]> {
    let effects = ignored.effects() as f64;
    let standard_error = (0.5 * ignored.at(0.0).log_det / effects).exp();
    // At t far above every lambda, the sums are those of effects of equal weight.
    let t = 1e20 * ignored.largest_lambda();
    let terms = ignored.at(t);
    let mean = ignored.centre() + terms.b / terms.a;
    let variance = (t * terms.c / effects - (terms.b / terms.a).powi(2)).max(0.0);
    let root_mean_square = variance.sqrt().hypot(mean);
    let [x, y] = [standard_error, root_mean_square];
    // Effects that are all 0 have no scale of their own.
    let [x, y] = if y > 0.0 { [x, y] } else { [x, x] };
    (effects > 0.0 && x.is_finite() && y.is_finite()).then(|| [x.min(y), x.max(y)])
}

impl PriorMu {
    /// Its standard deviation; `None` for a prior that has no scale.
    fn declared_scale(&self) -> Option<f64> {
        match *self {
            PriorMu::Flat | PriorMu::Fixed { .. } => None,
            PriorMu::Normal { sd, .. } => Some(sd),
        }
    }
}

impl PriorTau {
    /// Its scale; `None` for a prior that has none.
    fn declared_scale(&self) -> Option<f64> {
        match *self {
            PriorTau::Flat => None,
            PriorTau::Fixed { tau } => (tau > 0.0).then_some(tau),
            _ => Some(self.scale()),
        }
    }
}
