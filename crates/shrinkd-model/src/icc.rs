//! The intraclass correlation: how alike the true effects of one experiment's variants are.
//!
//! The true effects of a block of n are `N(mu 1, tau^2 R)`, `R = (1 - icc) I + icc 11'`: a three-level model (Konstantopoulos,
//! Research Synthesis Methods 2, 2011; Cheung, Psychological Methods 19, 2014), of which network meta-analysis takes `icc = 1/2`.
//! For a fixed icc a block is independent components (see `spectrum`), so that a sketch holds all that the likelihood needs. Sketches
//! are kept at nodes, and the likelihood between them is interpolated.

mod likelihood;
mod nodes;

pub use likelihood::{IccLikelihood, LikelihoodAtIcc};
pub use nodes::{IccNodes, LARGEST_ICC};

/// Prior of the intraclass correlation, from 0 to [`LARGEST_ICC`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum PriorIcc {
    /// It is 0: true effects are independent.
    #[default]
    None,
    Uniform,
    Fixed {
        icc: f64,
    },
    /// Density proportional to `icc^(a - 1) (1 - icc)^(b - 1)`.
    Beta {
        a: f64,
        b: f64,
    },
}

impl PriorIcc {
    /// The icc where it is known.
    pub fn known(&self) -> Option<f64> {
        match *self {
            PriorIcc::None => Some(0.0),
            PriorIcc::Fixed { icc } => Some(icc),
            PriorIcc::Uniform | PriorIcc::Beta { .. } => None,
        }
    }

    /// Whether true effects are independent.
    pub fn is_zero(&self) -> bool {
        self.known() == Some(0.0)
    }

    /// Log density, up to a constant.
    pub(crate) fn log_density(&self, icc: f64) -> f64 {
        match *self {
            PriorIcc::None | PriorIcc::Fixed { .. } | PriorIcc::Uniform => 0.0,
            PriorIcc::Beta { a, b } => {
                let log = if a == 1.0 { 0.0 } else { (a - 1.0) * icc.ln() };
                log + (b - 1.0) * (-icc).ln_1p()
            }
        }
    }

    /// The power of a variable in whose terms the density has no singularity at 0.
    pub(crate) fn power_at_zero(&self) -> f64 {
        match *self {
            PriorIcc::Beta { a, .. } if a < 1.0 => 1.0 / a,
            _ => 1.0,
        }
    }

    /// The density is like `(1 - icc)^(B - 1)` at 1: this B.
    pub(crate) fn exponent_at_one(&self) -> f64 {
        match *self {
            PriorIcc::Beta { b, .. } => b,
            _ => 1.0,
        }
    }
}

/// `log|R|` of a block of n effects.
pub(crate) fn log_det_of_correlations(n: usize, icc: f64) -> f64 {
    let others = n as f64 - 1.0;
    others * (-icc).ln_1p() + (others * icc).ln_1p()
}
