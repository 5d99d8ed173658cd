//! The statistical model, pure: no I/O, no clock, no configuration, nothing of the rest of the crate.
//!
//! The data's way: [`block`] (one experiment's effects and their joint sampling error) -> [`spectrum`] (its
//! independent components) -> [`sketch`] (the exact, order-free sum of all components of a population).

#![forbid(unsafe_code)]

mod best;
mod block;
mod diagnostics;
mod double_double;
mod fit;
mod likelihood;
mod normal;
mod parallel;
mod population;
mod posterior;
mod prior;
mod shrinkage;
mod sketch;
mod spectrum;

pub use best::{BestProbabilities, prob_best};
pub use block::{Block, BlockError, Covariance};
pub use diagnostics::{
    BlockDiagnostics, BlockPass, Calibration, Diagnostics, LeaveOneOut, Measure, Prediction, Threshold, Thresholds,
    Verdict, log_tau_sd, set_q_values,
};
pub use fit::{Correlation, Distance, Fit, Method};
pub use likelihood::{Derivatives, DirectLikelihood, Likelihood, SketchLikelihood, Terms};
pub use parallel::{available_threads, map_chunks};
pub use population::{
    Analysis, BlockAnalysis, Comparison, EffectAnalysis, Member, MemberError, Request, Sketches, loo_nodes,
};
pub use posterior::{
    Mode, Node, PointEstimate, Posterior, PosteriorError, Summary, condense, laplace, ml, quadrature, reml, variational,
};
pub use prior::{PriorError, PriorMu, PriorTau, Priors};
pub use shrinkage::{BlockPosterior, ControlShift, Estimate, Intervals};
pub use sketch::{ARITHMETIC_VERSION, Cell, OutOfRange, Sketch, cell_from_bytes, cell_to_bytes};
pub use spectrum::Component;
