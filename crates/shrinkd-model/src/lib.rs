//! The statistical model, pure: no I/O, no clock, no configuration, nothing of the rest of the crate.
//!
//! The data's way: [`block`] (one experiment's effects and their joint sampling error) -> [`spectrum`] (its
//! independent components) -> [`sketch`] (the exact, order-free sum of all components of a population).

#![forbid(unsafe_code)]

pub mod best;
pub mod block;
pub mod diagnostics;
mod double_double;
pub mod fit;
pub mod likelihood;
pub mod normal;
pub mod parallel;
pub mod population;
pub mod posterior;
pub mod prior;
pub mod shrinkage;
pub mod sketch;
pub mod spectrum;
