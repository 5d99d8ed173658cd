//! shrinkd: empirical-Bayes estimation for experimentation platforms.

pub mod cli;
pub mod event;
pub mod history;
pub mod ledger;
pub mod model;
pub mod population;
pub mod simulate;
pub mod study;
