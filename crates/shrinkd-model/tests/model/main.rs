//! The promises of the model, one module for each part of it.

mod approximations;
mod best;
mod calibration;
mod diagnostics;
mod golden;
mod hard_cases;
mod heterogeneity;
mod known_priors;
mod mix_ups;
mod point_estimates;
mod posterior;
mod prior_scale;
mod priors;
mod reference;
mod shrinkage;
mod sketch;
