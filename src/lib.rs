//! shrinkd: empirical-Bayes estimation for experimentation platforms.

pub mod cli;
pub mod event;
pub mod model;
pub mod simulate;
