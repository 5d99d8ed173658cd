//! Priors as text: `name:PARAMETER,PARAMETER`.

use std::fmt;
use std::str::FromStr;

use super::{PriorIcc, PriorMu, PriorTau, Quantity};
use crate::icc::LARGEST_ICC;

/// Text that names no prior.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a prior of {parameter}: expected {expected}")]
pub struct PriorError {
    text: String,
    parameter: &'static str,
    expected: &'static str,
}

impl PriorError {
    /// What is a prior of this parameter, for a message that must not repeat the text.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

/// The largest sd of log tau under a log-normal prior. Already under this one tau spans 17 orders of magnitude.
const LARGEST_LOG_SD: f64 = 10.0;

impl<Q: fmt::Display> fmt::Display for PriorMu<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriorMu::Flat => write!(f, "flat"),
            PriorMu::Fixed { mu } => write!(f, "fixed:{mu}"),
            PriorMu::Normal { mean, sd } => write!(f, "normal:{mean},{sd}"),
        }
    }
}

impl<Q: fmt::Display> fmt::Display for PriorTau<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriorTau::Flat => write!(f, "flat"),
            PriorTau::Fixed { tau } => write!(f, "fixed:{tau}"),
            PriorTau::HalfNormal { scale } => write!(f, "half-normal:{scale}"),
            PriorTau::HalfCauchy { scale } => write!(f, "half-cauchy:{scale}"),
            PriorTau::HalfT { df, scale } => write!(f, "half-t:{df},{scale}"),
            PriorTau::DuMouchel { scale } => write!(f, "dumouchel:{scale}"),
            PriorTau::UniformShrinkage { scale } => write!(f, "uniform-shrinkage:{scale}"),
            PriorTau::InverseGamma { shape, scale } => write!(f, "inverse-gamma:{shape},{scale}"),
            PriorTau::LogNormal { mean, sd } => write!(f, "log-normal:{mean},{sd}"),
        }
    }
}

impl fmt::Display for PriorIcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriorIcc::None => write!(f, "none"),
            PriorIcc::Uniform => write!(f, "uniform"),
            PriorIcc::Fixed { icc } => write!(f, "fixed:{icc}"),
            PriorIcc::Beta { a, b } => write!(f, "beta:{a},{b}"),
        }
    }
}

impl FromStr for PriorIcc {
    type Err = PriorError;

    fn from_str(text: &str) -> Result<PriorIcc, PriorError> {
        let is_icc = |icc: f64| (0.0..=LARGEST_ICC).contains(&icc);
        let is_shape = |shape: f64| (0.1..=100.0).contains(&shape);
        let prior = match split(text) {
            ("none", None) => Some(PriorIcc::None),
            ("uniform", None) => Some(PriorIcc::Uniform),
            (name, Some(parameters)) => match (name, quantities(parameters).as_deref()) {
                ("fixed", Some(&[Quantity::Absolute(0.0)])) => Some(PriorIcc::None),
                ("fixed", Some(&[Quantity::Absolute(icc)])) if is_icc(icc) => Some(PriorIcc::Fixed { icc }),
                ("beta", Some(&[Quantity::Absolute(a), Quantity::Absolute(b)])) if is_shape(a) && is_shape(b) => {
                    Some(PriorIcc::Beta { a, b })
                }
                _ => None,
            },
            _ => None,
        };
        prior.ok_or_else(|| PriorError {
            text: text.to_owned(),
            parameter: "icc",
            expected: "none, uniform, fixed:VALUE (0 to 0.98) or beta:A,B (each 0.1 to 100)",
        })
    }
}

impl FromStr for PriorMu<Quantity> {
    type Err = PriorError;

    fn from_str(text: &str) -> Result<PriorMu<Quantity>, PriorError> {
        let prior = match split(text) {
            ("flat", None) => Some(PriorMu::Flat),
            (name, Some(parameters)) => match (name, quantities(parameters).as_deref()) {
                ("fixed", Some(&[mu])) => Some(PriorMu::Fixed { mu }),
                ("normal", Some(&[mean, sd])) if is_positive(&sd) => Some(PriorMu::Normal { mean, sd }),
                _ => None,
            },
            _ => None,
        };
        prior.ok_or_else(|| PriorError {
            text: text.to_owned(),
            parameter: "mu",
            expected: "flat, fixed:VALUE or normal:MEAN,SD with SD > 0, such as normal:0,0.1, or in units taken from \
                       the data: normal:0,2se or normal:mean,1sd",
        })
    }
}

impl FromStr for PriorTau<Quantity> {
    type Err = PriorError;

    fn from_str(text: &str) -> Result<PriorTau<Quantity>, PriorError> {
        let prior = match split(text) {
            ("flat", None) => Some(PriorTau::Flat),
            (name, Some(parameters)) => match (name, quantities(parameters).as_deref()) {
                ("fixed", Some(&[tau])) if tau.number().is_some_and(|tau| tau >= 0.0) => Some(PriorTau::Fixed { tau }),
                ("half-normal", Some(&[scale])) if is_positive(&scale) => Some(PriorTau::HalfNormal { scale }),
                ("half-cauchy", Some(&[scale])) if is_positive(&scale) => Some(PriorTau::HalfCauchy { scale }),
                ("half-t", Some(&[Quantity::Absolute(df), scale])) if df > 0.0 && is_positive(&scale) => {
                    Some(PriorTau::HalfT { df, scale })
                }
                ("dumouchel", Some(&[scale])) if is_positive(&scale) => Some(PriorTau::DuMouchel { scale }),
                ("uniform-shrinkage", Some(&[scale])) if is_positive(&scale) => {
                    Some(PriorTau::UniformShrinkage { scale })
                }
                ("inverse-gamma", Some(&[Quantity::Absolute(shape), Quantity::Absolute(scale)]))
                    if shape > 0.0 && scale > 0.0 =>
                {
                    Some(PriorTau::InverseGamma { shape, scale })
                }
                ("log-normal", Some(&[Quantity::Absolute(mean), Quantity::Absolute(sd)]))
                    if sd > 0.0 && sd <= LARGEST_LOG_SD =>
                {
                    Some(PriorTau::LogNormal { mean, sd })
                }
                _ => None,
            },
            _ => None,
        };
        prior.ok_or_else(|| PriorError {
            text: text.to_owned(),
            parameter: "tau",
            expected: "flat, fixed:VALUE (0 or more), half-normal:SCALE, half-cauchy:SCALE, half-t:DF,SCALE, dumouchel:SCALE, \
                       uniform-shrinkage:SCALE, inverse-gamma:SHAPE,SCALE (of tau^2) or log-normal:MEAN,SD (of log tau, \
                       SD up to 10), numbers other than MEAN from 1e-75 to 1e75; values and scales, but not those of inverse-gamma and \
                       log-normal, may be in units taken from the data, as in half-normal:0.5se",
        })
    }
}

impl FromStr for PriorMu {
    type Err = PriorError;

    fn from_str(text: &str) -> Result<PriorMu, PriorError> {
        let prior: PriorMu<Quantity> = text.parse()?;
        let expected = "a prior in the effects' unit";
        prior.absolute().ok_or_else(|| PriorError { text: text.to_owned(), parameter: "mu", expected })
    }
}

impl FromStr for PriorTau {
    type Err = PriorError;

    fn from_str(text: &str) -> Result<PriorTau, PriorError> {
        let prior: PriorTau<Quantity> = text.parse()?;
        let expected = "a prior in the effects' unit";
        prior.absolute().ok_or_else(|| PriorError { text: text.to_owned(), parameter: "tau", expected })
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((name, parameters)) => (name, Some(parameters)),
        None => (text, None),
    }
}

fn quantities(text: &str) -> Option<Vec<Quantity>> {
    text.split(',').map(|part| part.parse().ok()).collect()
}

fn is_positive(quantity: &Quantity) -> bool {
    quantity.number().is_some_and(|number| number > 0.0)
}
