//! Priors of mu, tau and icc, and what follows from them for the posterior's existence.
//!
//! As tau grows the likelihood with mu integrated out falls like `tau^-p`, `p = N - 1` under a flat prior of mu and N
//! under a normal or fixed one, and the prior of tau adds its own exponent (the table below). The posterior is proper iff
//! `p > 1`, and the k-th moment of tau exists iff `p > k + 1`; that of mu likewise under a flat prior of mu, always under
//! another one (compare Gelman, Bayesian Analysis 1, 2006, section 3).
//!
//! | prior of tau | density | adds to p |
//! | --- | --- | --- |
//! | flat | 1 | 0 |
//! | fixed | all mass at one value | infinity |
//! | half-normal | `exp(-tau^2 / 2 s^2)` | infinity |
//! | half-Cauchy | `1 / (s^2 + tau^2)` | 2 |
//! | half-t | `(nu s^2 + tau^2)^(-(nu + 1) / 2)` | nu + 1 |
//! | DuMouchel | `s / (s + tau)^2` (DuMouchel & Normand, in: Meta-Analysis in Medicine and Health Policy, 2000) | 2 |
//! | uniform shrinkage | `2 s^2 tau / (s^2 + tau^2)^2` (Daniels, Canad. J. Statistics 27, 1999) | 3 |
//! | inverse gamma, of tau^2 | `tau^-(2 a + 1) exp(-b / tau^2)` | 2 a + 1 |
//! | log-normal | `exp(-(log tau - m)^2 / 2 s^2) / tau` | infinity |

mod quantity;
mod text;

use std::f64::consts::{LN_2, PI};

pub use quantity::{DataScale, Quantity, ScaleError};
pub use text::PriorError;

use crate::icc::PriorIcc;

/// Prior of mu. `Q` is a number in the effects' unit, or a [`Quantity`], which may be in units taken from the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PriorMu<Q = f64> {
    Flat,
    /// mu is known.
    Fixed {
        mu: Q,
    },
    Normal {
        mean: Q,
        sd: Q,
    },
}

/// Prior of tau >= 0. `Q` is as in [`PriorMu`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PriorTau<Q = f64> {
    Flat,
    /// tau is known; 0 is the common-effect model.
    Fixed {
        tau: Q,
    },
    HalfNormal {
        scale: Q,
    },
    HalfCauchy {
        scale: Q,
    },
    HalfT {
        df: f64,
        scale: Q,
    },
    /// Its median is the scale.
    DuMouchel {
        scale: Q,
    },
    /// `s^2 / (s^2 + tau^2)` is uniform: the shrinkage of an effect whose standard error is the scale.
    UniformShrinkage {
        scale: Q,
    },
    /// tau^2 is inverse-gamma with density proportional to `t^-(shape + 1) exp(-scale / t)`; the scale is in the square of
    /// the effects' unit.
    InverseGamma {
        shape: f64,
        scale: f64,
    },
    /// log tau, tau in the effects' unit, is normal.
    LogNormal {
        mean: f64,
        sd: f64,
    },
}

/// The priors of a fit. `Q` is as in [`PriorMu`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Priors<Q = f64> {
    pub mu: PriorMu<Q>,
    pub tau: PriorTau<Q>,
    pub icc: PriorIcc,
}

impl<Q> Default for Priors<Q> {
    fn default() -> Priors<Q> {
        Priors { mu: PriorMu::Flat, tau: PriorTau::Flat, icc: PriorIcc::default() }
    }
}

impl<Q> PriorMu<Q> {
    /// The same prior with other quantities.
    pub(crate) fn try_map<T, E>(&self, f: impl Fn(&Q) -> Result<T, E>) -> Result<PriorMu<T>, E> {
        Ok(match self {
            PriorMu::Flat => PriorMu::Flat,
            PriorMu::Fixed { mu } => PriorMu::Fixed { mu: f(mu)? },
            PriorMu::Normal { mean, sd } => PriorMu::Normal { mean: f(mean)?, sd: f(sd)? },
        })
    }
}

impl<Q> PriorTau<Q> {
    /// The same prior with other quantities.
    pub(crate) fn try_map<T, E>(&self, f: impl Fn(&Q) -> Result<T, E>) -> Result<PriorTau<T>, E> {
        Ok(match self {
            PriorTau::Flat => PriorTau::Flat,
            PriorTau::Fixed { tau } => PriorTau::Fixed { tau: f(tau)? },
            PriorTau::HalfNormal { scale } => PriorTau::HalfNormal { scale: f(scale)? },
            PriorTau::HalfCauchy { scale } => PriorTau::HalfCauchy { scale: f(scale)? },
            PriorTau::HalfT { df, scale } => PriorTau::HalfT { df: *df, scale: f(scale)? },
            PriorTau::DuMouchel { scale } => PriorTau::DuMouchel { scale: f(scale)? },
            PriorTau::UniformShrinkage { scale } => PriorTau::UniformShrinkage { scale: f(scale)? },
            PriorTau::InverseGamma { shape, scale } => PriorTau::InverseGamma { shape: *shape, scale: *scale },
            PriorTau::LogNormal { mean, sd } => PriorTau::LogNormal { mean: *mean, sd: *sd },
        })
    }
}

impl Priors {
    /// Whether both priors are proper, so that the evidence is defined.
    pub fn are_proper(&self) -> bool {
        self.mu != PriorMu::Flat && self.tau != PriorTau::Flat
    }

    /// The exponent p: the posterior density of tau falls like `tau^-p`.
    pub(crate) fn tail_exponent(&self, effects: f64) -> f64 {
        let likelihood = match self.mu {
            PriorMu::Flat => effects - 1.0,
            PriorMu::Fixed { .. } | PriorMu::Normal { .. } => effects,
        };
        likelihood
            + match self.tau {
                PriorTau::Flat => 0.0,
                PriorTau::Fixed { .. } | PriorTau::HalfNormal { .. } | PriorTau::LogNormal { .. } => f64::INFINITY,
                PriorTau::HalfCauchy { .. } | PriorTau::DuMouchel { .. } => 2.0,
                PriorTau::HalfT { df, .. } => df + 1.0,
                PriorTau::UniformShrinkage { .. } => 3.0,
                PriorTau::InverseGamma { shape, .. } => 2.0 * shape + 1.0,
            }
    }

    /// Whether N effects give a posterior that integrates to one.
    pub(crate) fn give_proper_posterior(&self, effects: f64) -> bool {
        self.tail_exponent(effects) > 1.0
    }

    /// Whether the posterior's k-th moment of tau exists.
    pub(crate) fn tau_moment_exists(&self, effects: f64, k: u32) -> bool {
        self.tail_exponent(effects) > f64::from(k) + 1.0
    }

    /// Whether the posterior's k-th moment of mu exists.
    pub(crate) fn mu_moment_exists(&self, effects: f64, k: u32) -> bool {
        self.mu != PriorMu::Flat || self.tau_moment_exists(effects, k)
    }
}

impl PriorTau {
    /// Log density at tau >= 0; 0 for the flat prior and for the fixed one, which have none.
    pub fn log_density(&self, tau: f64) -> f64 {
        match *self {
            PriorTau::Flat | PriorTau::Fixed { .. } => 0.0,
            PriorTau::HalfNormal { scale } => 0.5 * (2.0 / PI).ln() - scale.ln() - 0.5 * (tau / scale).powi(2),
            PriorTau::HalfCauchy { scale } => (2.0 / PI).ln() - scale.ln() - (tau / scale).powi(2).ln_1p(),
            PriorTau::HalfT { df, scale } => {
                LN_2 + libm::lgamma(0.5 * (df + 1.0))
                    - libm::lgamma(0.5 * df)
                    - 0.5 * (df * PI).ln()
                    - scale.ln()
                    - 0.5 * (df + 1.0) * ((tau / scale).powi(2) / df).ln_1p()
            }
            PriorTau::DuMouchel { scale } => -scale.ln() - 2.0 * (tau / scale).ln_1p(),
            PriorTau::UniformShrinkage { scale } => {
                LN_2 - scale.ln() + (tau / scale).ln() - 2.0 * (tau / scale).powi(2).ln_1p()
            }
            // Both are 0 at 0, where the terms of their logs would be infinities of either sign.
            PriorTau::InverseGamma { .. } | PriorTau::LogNormal { .. } if tau == 0.0 => f64::NEG_INFINITY,
            PriorTau::InverseGamma { shape, scale } => {
                let root = scale.sqrt();
                LN_2 - root.ln() - libm::lgamma(shape) - (2.0 * shape + 1.0) * (tau / root).ln() - (root / tau).powi(2)
            }
            PriorTau::LogNormal { mean, sd } => {
                -0.5 * (2.0 * PI).ln() - sd.ln() - 0.5 * ((tau.ln() - mean) / sd).powi(2) - tau.ln()
            }
        }
    }

    /// First and second derivative of the log density in t = tau^2.
    pub fn derivatives(&self, t: f64) -> (f64, f64) {
        match *self {
            PriorTau::Flat | PriorTau::Fixed { .. } => (0.0, 0.0),
            PriorTau::HalfNormal { scale } => (-0.5 / (scale * scale), 0.0),
            PriorTau::HalfCauchy { scale } => student(t, 1.0, scale),
            PriorTau::HalfT { df, scale } => student(t, df, scale),
            PriorTau::DuMouchel { scale } => {
                let tau = t.sqrt();
                let weight = 1.0 / (tau * (scale + tau));
                (-weight, 0.5 * weight * weight * (2.0 + scale / tau))
            }
            PriorTau::UniformShrinkage { scale } => {
                let weight = 1.0 / (scale * scale + t);
                (0.5 / t - 2.0 * weight, 2.0 * weight * weight - 0.5 / t / t)
            }
            PriorTau::InverseGamma { shape, scale } => {
                let (power, ratio) = (shape + 0.5, scale / t);
                ((ratio - power) / t, (power - 2.0 * ratio) / t / t)
            }
            PriorTau::LogNormal { mean, sd } => {
                let precision = 1.0 / (sd * sd);
                let slope = -(0.5 * t.ln() - mean) * precision - 1.0;
                (0.5 * slope / t, (-0.25 * precision - 0.5 * slope) / t / t)
            }
        }
    }

    /// The tau at which the density of log tau is highest; infinite for the flat prior.
    pub(super) fn scale(&self) -> f64 {
        match *self {
            PriorTau::Flat => f64::INFINITY,
            PriorTau::Fixed { tau } => tau,
            PriorTau::HalfNormal { scale }
            | PriorTau::HalfCauchy { scale }
            | PriorTau::HalfT { scale, .. }
            | PriorTau::DuMouchel { scale }
            | PriorTau::UniformShrinkage { scale } => scale,
            PriorTau::InverseGamma { shape, scale } => (scale / shape).sqrt(),
            PriorTau::LogNormal { mean, .. } => mean.exp(),
        }
    }

    /// How near to the real axis the density is singular: at `tau = +- i` times this, DuMouchel's at minus this.
    pub(super) fn pole(&self) -> f64 {
        match *self {
            PriorTau::HalfCauchy { scale } | PriorTau::DuMouchel { scale } => scale,
            PriorTau::HalfT { df, scale } => scale * df.sqrt(),
            _ => f64::INFINITY,
        }
    }

    /// Whether the density is 0 at 0, in a way that is smooth in log tau alone.
    pub(super) fn vanishes_at_zero(&self) -> bool {
        matches!(self, PriorTau::UniformShrinkage { .. } | PriorTau::InverseGamma { .. } | PriorTau::LogNormal { .. })
    }
}

/// Derivatives in t of `-(nu + 1) / 2 log(1 + t / (nu s^2))`.
fn student(t: f64, df: f64, scale: f64) -> (f64, f64) {
    let weight = 1.0 / (df * scale * scale + t);
    (-0.5 * (df + 1.0) * weight, 0.5 * (df + 1.0) * weight * weight)
}
