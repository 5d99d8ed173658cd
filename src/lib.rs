//! shrinkd: empirical-Bayes estimation for experimentation platforms.

pub mod event;
pub mod model;
