//! Whether a prior is in the unit of the effects: its scale beside that of the data.

use std::fmt;

use super::prior::{DataScale, PriorMu, PriorTau, Priors};

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
    /// The priors that are far from the data.
    pub fn all(priors: &Priors, data: &DataScale) -> Vec<FarPrior> {
        let [smallest, largest] = scales(data);
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

/// The smaller and the larger of the typical standard error and the root mean square of the effects.
fn scales(data: &DataScale) -> [f64; 2] {
    let (x, y) = (data.se, data.root_mean_square());
    // Effects that are all 0 have no scale of their own.
    if y > 0.0 { [x.min(y), x.max(y)] } else { [x, x] }
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
