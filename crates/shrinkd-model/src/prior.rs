//! Priors of mu and tau, and what follows from them for the posterior's existence.
//!
//! As tau grows the likelihood with mu integrated out falls like `tau^-p`, `p = N - 1` under a flat prior of mu and N
//! under a normal one, and the prior of tau adds 0 (flat), 2 (half-Cauchy), nu + 1 (half-t) or infinity (half-normal).
//! The posterior is proper iff `p > 1`, and the k-th moment of tau exists iff `p > k + 1`; that of mu likewise under a
//! flat prior of mu, always under a normal one (compare Gelman, Bayesian Analysis 1, 2006, section 3).

use std::f64::consts::{LN_2, PI};
use std::fmt;
use std::str::FromStr;

/// Prior of mu, in the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PriorMu {
    Flat,
    Normal { mean: f64, sd: f64 },
}

/// Prior of tau >= 0, in the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PriorTau {
    Flat,
    HalfNormal { scale: f64 },
    HalfCauchy { scale: f64 },
    HalfT { df: f64, scale: f64 },
}

/// The priors of a fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Priors {
    pub mu: PriorMu,
    pub tau: PriorTau,
}

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

impl Default for Priors {
    fn default() -> Priors {
        Priors { mu: PriorMu::Flat, tau: PriorTau::Flat }
    }
}

impl Priors {
    /// Whether both priors are proper, so that the evidence is defined.
    pub fn are_proper(&self) -> bool {
        self.mu != PriorMu::Flat && self.tau != PriorTau::Flat
    }

    /// The exponent p: the posterior density of tau falls like `tau^-p`.
    pub(crate) fn tail_exponent(&self, effects: u64) -> f64 {
        let likelihood = match self.mu {
            PriorMu::Flat => effects as f64 - 1.0,
            PriorMu::Normal { .. } => effects as f64,
        };
        likelihood
            + match self.tau {
                PriorTau::Flat => 0.0,
                PriorTau::HalfNormal { .. } => f64::INFINITY,
                PriorTau::HalfCauchy { .. } => 2.0,
                PriorTau::HalfT { df, .. } => df + 1.0,
            }
    }

    /// Whether N effects give a posterior that integrates to one.
    pub(crate) fn give_proper_posterior(&self, effects: u64) -> bool {
        self.tail_exponent(effects) > 1.0
    }

    /// Whether the posterior's k-th moment of tau exists.
    pub(crate) fn tau_moment_exists(&self, effects: u64, k: u32) -> bool {
        self.tail_exponent(effects) > f64::from(k) + 1.0
    }

    /// Whether the posterior's k-th moment of mu exists.
    pub(crate) fn mu_moment_exists(&self, effects: u64, k: u32) -> bool {
        self.mu != PriorMu::Flat || self.tau_moment_exists(effects, k)
    }
}

impl PriorTau {
    /// Log density at tau >= 0; 0 for the flat prior, which has none.
    pub fn log_density(&self, tau: f64) -> f64 {
        match *self {
            PriorTau::Flat => 0.0,
            PriorTau::HalfNormal { scale } => 0.5 * (2.0 / PI).ln() - scale.ln() - 0.5 * (tau / scale).powi(2),
            PriorTau::HalfCauchy { scale } => (2.0 / PI).ln() - scale.ln() - (tau / scale).powi(2).ln_1p(),
            PriorTau::HalfT { df, scale } => {
                LN_2 + libm::lgamma(0.5 * (df + 1.0))
                    - libm::lgamma(0.5 * df)
                    - 0.5 * (df * PI).ln()
                    - scale.ln()
                    - 0.5 * (df + 1.0) * ((tau / scale).powi(2) / df).ln_1p()
            }
        }
    }

    /// First and second derivative of the log density in t = tau^2.
    pub fn derivatives(&self, t: f64) -> (f64, f64) {
        match *self {
            PriorTau::Flat => (0.0, 0.0),
            PriorTau::HalfNormal { scale } => (-0.5 / (scale * scale), 0.0),
            PriorTau::HalfCauchy { scale } => student(t, 1.0, scale),
            PriorTau::HalfT { df, scale } => student(t, df, scale),
        }
    }

    /// Its scale, beyond a few times which the density falls; infinite for the flat prior.
    pub(super) fn scale(&self) -> f64 {
        match *self {
            PriorTau::Flat => f64::INFINITY,
            PriorTau::HalfNormal { scale } | PriorTau::HalfCauchy { scale } | PriorTau::HalfT { scale, .. } => scale,
        }
    }

    /// How near to the real axis the density is analytic: its poles are at `tau = +- i` times this.
    pub(super) fn pole(&self) -> f64 {
        match *self {
            PriorTau::Flat | PriorTau::HalfNormal { .. } => f64::INFINITY,
            PriorTau::HalfCauchy { scale } => scale,
            PriorTau::HalfT { df, scale } => scale * df.sqrt(),
        }
    }
}

/// Derivatives in t of `-(nu + 1) / 2 log(1 + t / (nu s^2))`.
fn student(t: f64, df: f64, scale: f64) -> (f64, f64) {
    let weight = 1.0 / (df * scale * scale + t);
    (-0.5 * (df + 1.0) * weight, 0.5 * (df + 1.0) * weight * weight)
}

impl fmt::Display for PriorMu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriorMu::Flat => write!(f, "flat"),
            PriorMu::Normal { mean, sd } => write!(f, "normal:{mean},{sd}"),
        }
    }
}

impl fmt::Display for PriorTau {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriorTau::Flat => write!(f, "flat"),
            PriorTau::HalfNormal { scale } => write!(f, "half-normal:{scale}"),
            PriorTau::HalfCauchy { scale } => write!(f, "half-cauchy:{scale}"),
            PriorTau::HalfT { df, scale } => write!(f, "half-t:{df},{scale}"),
        }
    }
}

impl FromStr for PriorMu {
    type Err = PriorError;

    fn from_str(text: &str) -> Result<PriorMu, PriorError> {
        let prior = match split(text) {
            ("flat", None) => Some(PriorMu::Flat),
            ("normal", Some(parameters)) => match numbers(parameters).as_deref() {
                Some(&[mean, sd]) if sd > 0.0 => Some(PriorMu::Normal { mean, sd }),
                _ => None,
            },
            _ => None,
        };
        prior.ok_or_else(|| PriorError {
            text: text.to_owned(),
            parameter: "mu",
            expected: "flat or normal:MEAN,SD with SD > 0",
        })
    }
}

impl FromStr for PriorTau {
    type Err = PriorError;

    fn from_str(text: &str) -> Result<PriorTau, PriorError> {
        let prior = match split(text) {
            ("flat", None) => Some(PriorTau::Flat),
            (name, Some(parameters)) => match (name, numbers(parameters).as_deref()) {
                ("half-normal", Some(&[scale])) if scale > 0.0 => Some(PriorTau::HalfNormal { scale }),
                ("half-cauchy", Some(&[scale])) if scale > 0.0 => Some(PriorTau::HalfCauchy { scale }),
                ("half-t", Some(&[df, scale])) if df > 0.0 && scale > 0.0 => Some(PriorTau::HalfT { df, scale }),
                _ => None,
            },
            _ => None,
        };
        prior.ok_or_else(|| PriorError {
            text: text.to_owned(),
            parameter: "tau",
            expected: "flat, half-normal:SCALE, half-cauchy:SCALE or half-t:DF,SCALE, all above 0",
        })
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((name, parameters)) => (name, Some(parameters)),
        None => (text, None),
    }
}

fn numbers(text: &str) -> Option<Vec<f64>> {
    text.split(',').map(|part| part.trim().parse().ok().filter(|x: &f64| x.is_finite())).collect()
}
