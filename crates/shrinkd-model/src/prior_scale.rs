//! Whether a prior is in the unit of the effects: its scale beside that of the data.

use std::fmt;

use super::prior::{DataScale, PriorMu, PriorTau, Priors};

/// The factor by which the scale of a prior may differ from the data's.
const FAR: f64 = 1_000.0;

/// How many times its own sd, and that of the effects and their standard error, a prior of mu may be from their mean.
const FAR_OFF: f64 = 10.0;

/// A proper prior whose scale is more than 1,000 times larger than the largest scale in the data, or more than 1,000 times
/// smaller than the smallest, or a prior of mu that is centred far from the effects. It is mostly in another unit, such as
/// milliseconds for seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FarPrior {
    /// `mu` or `tau`.
    pub parameter: &'static str,
    /// What of it is far: `scale` or `mean`.
    pub aspect: &'static str,
    /// That, in the effects' unit.
    pub of_prior: f64,
    /// What it is compared with: the one of the data's scales that is nearer to the prior's, which are the typical standard error,
    /// `exp(mean log se)`, and the root mean square of the effects; or the mean of the effects.
    pub of_data: f64,
}

impl FarPrior {
    /// The priors that are far from the data.
    pub fn all(priors: &Priors, data: &DataScale) -> Vec<FarPrior> {
        let [smallest, largest] = scales(data);
        let scale = |(parameter, scale): (&'static str, Option<f64>)| {
            let of_prior = scale?;
            let of_data = of_prior.clamp(smallest, largest);
            let is_far = of_prior > FAR * of_data || FAR * of_prior < of_data;
            is_far.then_some(FarPrior { parameter, aspect: "scale", of_prior, of_data })
        };
        let mean = priors.mu.centre().and_then(|(of_prior, sd)| {
            let is_far = (of_prior - data.mean).abs() > FAR_OFF * (sd + data.sd.unwrap_or(0.0) + data.se);
            is_far.then_some(FarPrior { parameter: "mu", aspect: "mean", of_prior, of_data: data.mean })
        });
        let scales = [("mu", priors.mu.declared_scale()), ("tau", priors.tau.declared_scale())];
        scales.into_iter().filter_map(scale).chain(mean).collect()
    }
}

impl fmt::Display for FarPrior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FarPrior { parameter, aspect, of_prior, of_data } = self;
        let compared = if *aspect == "mean" {
            "the mean of the effects is"
        } else {
            "effects and standard errors are of the order of"
        };
        write!(
            f,
            "the prior of {parameter} has {aspect} {of_prior:e}, but {compared} {of_data:.0e}: priors are in the unit of the \
             effects"
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
    /// Its mean and standard deviation; `None` for the flat one.
    fn centre(&self) -> Option<(f64, f64)> {
        match *self {
            PriorMu::Flat => None,
            PriorMu::Fixed { mu } => Some((mu, 0.0)),
            PriorMu::Normal { mean, sd } => Some((mean, sd)),
        }
    }

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
