//! Quantities of priors in units taken from the data, and these units.

use std::fmt;
use std::str::FromStr;

use super::{PriorMu, PriorTau, Priors};
use crate::likelihood::{Likelihood, SketchLikelihood};
use crate::sketch::Sketch;

/// What a number of a prior may be, or 0: its square and its ratio to whatever can be an effect fit a 64-bit float.
const RANGE: std::ops::RangeInclusive<f64> = 1e-75..=1e75;

/// A number with its unit, as in `0.5se`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// In the effects' unit.
    Absolute(f64),
    /// In typical standard errors: [`DataScale::se`].
    Se(f64),
    /// In standard deviations of the raw effects: [`DataScale::sd`].
    Sd(f64),
    /// The mean of the raw effects: [`DataScale::mean`].
    Mean,
}

/// The units that the raw effects of a population set, each in the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataScale {
    pub effects: u64,
    /// Geometric mean of the standard errors.
    pub se: f64,
    /// Mean of the raw effects, all of the same weight.
    pub mean: f64,
    /// Standard deviation of the raw effects, with N - 1; `None` for a single one, and where it is 0.
    pub sd: Option<f64>,
}

/// A prior in a unit that the data do not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    #[error("a population without effects sets no unit for its priors")]
    Empty,
    #[error(
        "a prior is in units of sd, the standard deviation of the raw effects, which one effect does not have: \
         state it in se or in the effects' unit"
    )]
    OneEffect,
    #[error(
        "a prior is in units of sd, the standard deviation of the raw effects, which is 0 here: state it in se or in \
         the effects' unit"
    )]
    NoSpread,
}

impl DataScale {
    /// The units of a population, from its sketch with the correlation ignored; `None` without effects.
    pub fn new(ignored: &Sketch) -> Option<DataScale> {
        let likelihood = SketchLikelihood::new(ignored);
        let effects = likelihood.effects();
        let (mean, sd) = likelihood.raw_moments(ignored);
        let se = || (0.5 * likelihood.at(0.0).log_det / effects as f64).exp();
        (effects > 0).then(|| DataScale { effects, se: se(), mean, sd })
    }

    /// Root mean square of the raw effects.
    pub fn root_mean_square(&self) -> f64 {
        let effects = self.effects as f64;
        self.mean.hypot(self.sd.unwrap_or(0.0) * ((effects - 1.0) / effects).sqrt())
    }
}

impl Priors<Quantity> {
    /// The priors in the effects' unit, for a population whose units these are; `None` for one without effects.
    ///
    /// # Errors
    /// Where the data do not set the unit of a quantity.
    pub fn resolve(&self, scale: Option<&DataScale>) -> Result<Priors, ScaleError> {
        let in_units = |quantity: &Quantity| match (*quantity, scale) {
            (Quantity::Absolute(value), _) => Ok(value),
            (_, None) => Err(ScaleError::Empty),
            (Quantity::Se(value), Some(scale)) => Ok(value * scale.se),
            (Quantity::Mean, Some(scale)) => Ok(scale.mean),
            (Quantity::Sd(value), Some(scale)) => match scale.sd {
                Some(sd) => Ok(value * sd),
                None if scale.effects == 1 => Err(ScaleError::OneEffect),
                None => Err(ScaleError::NoSpread),
            },
        };
        Ok(Priors { mu: self.mu.try_map(in_units)?, tau: self.tau.try_map(in_units)?, icc: self.icc })
    }
}

impl From<Priors> for Priors<Quantity> {
    fn from(priors: Priors) -> Priors<Quantity> {
        let absolute = |value: &f64| Ok::<_, std::convert::Infallible>(Quantity::Absolute(*value));
        let (Ok(mu), Ok(tau)) = (priors.mu.try_map(absolute), priors.tau.try_map(absolute));
        Priors { mu, tau, icc: priors.icc }
    }
}

impl PriorMu<Quantity> {
    /// The prior, if none of its quantities is in a unit taken from the data.
    pub(super) fn absolute(&self) -> Option<PriorMu> {
        self.try_map(|quantity| quantity.absolute().ok_or(())).ok()
    }
}

impl PriorTau<Quantity> {
    /// As [`PriorMu::absolute`].
    pub(super) fn absolute(&self) -> Option<PriorTau> {
        self.try_map(|quantity| quantity.absolute().ok_or(())).ok()
    }
}

impl Quantity {
    fn absolute(&self) -> Option<f64> {
        match *self {
            Quantity::Absolute(value) => Some(value),
            _ => None,
        }
    }

    /// Its number of units, where it is one.
    pub(super) fn number(&self) -> Option<f64> {
        match *self {
            Quantity::Absolute(value) | Quantity::Se(value) | Quantity::Sd(value) => Some(value),
            Quantity::Mean => None,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantity::Absolute(value) => write!(f, "{value}"),
            Quantity::Se(value) => write!(f, "{value}se"),
            Quantity::Sd(value) => write!(f, "{value}sd"),
            Quantity::Mean => write!(f, "mean"),
        }
    }
}

impl FromStr for Quantity {
    type Err = ();

    fn from_str(text: &str) -> Result<Quantity, ()> {
        let is_in_range = |x: &f64| *x == 0.0 || RANGE.contains(&x.abs());
        let number = |text: &str| text.trim().parse().ok().filter(is_in_range).ok_or(());
        match text.trim() {
            "mean" => Ok(Quantity::Mean),
            text => match (text.strip_suffix("se"), text.strip_suffix("sd")) {
                (Some(value), _) => number(value).map(Quantity::Se),
                (_, Some(value)) => number(value).map(Quantity::Sd),
                _ => number(text).map(Quantity::Absolute),
            },
        }
    }
}
