//! The promises of the model, one module for each part of it.

mod alike;
mod alike_best;
mod alike_estimates;
mod alike_left_out;
mod approximations;
mod best;
mod block;
mod calibration;
mod design;
mod diagnostics;
mod double_double;
mod golden;
mod hard_cases;
mod heterogeneity;
mod known_priors;
mod miscalibration;
mod mix_ups;
mod point_estimates;
mod posterior;
mod prior_scale;
mod priors;
mod random;
mod reference;
mod selection;
mod shrinkage;
mod sketch;
