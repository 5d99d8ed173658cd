#![doc = include_str!("../README.md")]
//!
//! # The map
//!
//! In the order in which data passes through:
//!
//! | step | items |
//! | --- | --- |
//! | effects -> block: what one experiment measured, with its joint sampling error | [`Block`], [`Covariance`] |
//! | block -> components, which are independent for every tau at once | [`Component`] |
//! | components -> sketch: a population of any size in a few cells of integers | [`Sketch`], [`Cell`] |
//! | sketch -> likelihood: four sums, as functions of tau | [`Likelihood`], [`SketchLikelihood`] |
//! | likelihood and priors -> posterior of mu and tau | [`Priors`], [`Posterior`], [`quadrature()`], [`Fit`] |
//! | block and posterior -> every effect, shrunk; P(best) | [`BlockPosterior`], [`prob_best`] |
//! | blocks and posterior -> diagnostics of correlation, controls and calibration | [`Diagnostics`], [`BlockDiagnostics`], [`Calibration`], [`MixUp`] |
//! | all of these for a population at once | [`Member`], [`Sketches`], [`Analysis`] |
//! | before there are data: what a design makes of the naive model | [`Design`] |

#![forbid(unsafe_code)]

mod analysis;
mod axes;
mod best;
mod block;
mod design;
mod diagnostics;
mod direction;
mod distributions;
mod double_double;
mod fit;
mod icc;
mod likelihood;
mod mix_up;
mod normal;
mod parallel;
mod pass;
mod population;
mod posterior;
mod prior;
mod prior_scale;
mod secular;
mod shrinkage;
mod sketch;
mod spectrum;

// One experiment.
pub use block::{Block, BlockError, Covariance};
pub use spectrum::Component;
// A population: its data, its likelihood, its posterior.
pub use likelihood::{Derivatives, DirectLikelihood, Likelihood, SketchLikelihood, Terms};
pub use posterior::{
    Heterogeneity, IccPosterior, IccStatus, KnappHartung, Mode, Node, PointEstimate, Posterior, PosteriorError,
    Summary, TauDistribution, condense, dl, laplace, ml, pm, quadrature, quadrature_with_icc, reml, variational,
};
pub use prior::{DataScale, PriorError, PriorMu, PriorTau, Priors, Quantity, ScaleError};
pub use prior_scale::FarPrior;
pub use sketch::{ARITHMETIC_VERSION, Cell, OutOfRange, Sketch, cell_from_bytes, cell_to_bytes};
// What follows for its effects.
pub use best::{BestProbabilities, prob_best};
pub use diagnostics::{
    BlockDiagnostics, Calibration, CalibrationCounts, Consequences, Diagnostics, LeaveOneOut, LeaveOneOuts, LeftOut,
    Measure, Miscalibration, Misfit, NOMINAL_COVERAGE, PIT_BINS, Prediction, Selection, SelectionCounts, Threshold,
    Thresholds, Verdict, set_q_values,
};
pub use direction::Direction;
pub use mix_up::{MedianError, MixUp};
pub use normal::upper_quantile as normal_upper_quantile;
pub use shrinkage::{BlockPosterior, ControlShift, Estimate, Intervals, SharedEffect};
// What to expect before there are data.
pub use design::{Design, rho_of_control_share};
// All at once, under each model of correlation.
pub use analysis::{Analysis, BlockAnalysis, Comparison, EffectAnalysis, Request};
pub use fit::{Correlation, Distance, Fit, Method};
pub use icc::{IccLikelihood, IccNodes, LARGEST_ICC, LikelihoodAtIcc, PriorIcc};
pub use parallel::{available_threads, chunk_of_exact_sums, map_chunks};
pub use pass::BlockPass;
pub use population::{Member, MemberError, Part, Sketches};
