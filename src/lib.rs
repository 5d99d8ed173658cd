//! shrinkd: empirical-Bayes estimation for experimentation platforms, exact under a shared control.
//!
//! Completed experiments come in as events. Their effects are shrunk towards the mean of their population, by as much
//! as their own noise and the population's spread say, and the error of the control that the variants of an experiment
//! share is modelled rather than ignored. The method, with its formulas and sources, is in `docs/method.md`; the event
//! contract in `docs/events.md`.
//!
//! # The map
//!
//! The rooms in the order in which an event passes through them:
//!
//! | step | room |
//! | --- | --- |
//! | bytes -> event: the contract, one [`Reason`](event::Reason) for each refusal | [`event`] |
//! | event -> ledger: revisions, retractions and parts, folded into the current blocks of one experiment | [`ledger`] |
//! | ledgers -> populations: which blocks share mu and tau | [`history`], [`population`] |
//! | effects -> block: what one experiment measured, with its joint sampling error | [`model::block`] |
//! | block -> components: independent for every tau at once | [`model::spectrum`] |
//! | components -> sketch: a population of any size in a few cells of integers | [`model::sketch`] |
//! | sketch -> likelihood: four sums, as functions of tau | [`model::likelihood`] |
//! | likelihood -> posterior of mu and tau: exact, approximate, or a point | [`model::posterior`], [`model::fit`] |
//! | block + posterior -> estimate: every effect, shrunk | [`model::shrinkage`], [`model::best`] |
//! | blocks + posterior -> diagnostics: did correlation matter, is a control off, is it calibrated | [`model::diagnostics`] |
//! | all of a population at once -> rows, for people and for programs | [`model::population`], [`cli`] |
//! | what the worker is told, and what it shows of itself | [`config`], [`telemetry`], [`http`] |
//!
//! Beside that way stand [`simulate`] (seeded events with known truths) and [`study`] (what the treatments of
//! correlation make of them). [`model`] is pure: it imports nothing from the rest of the crate, reads no clock and no
//! configuration.
//!
//! # The invariants
//!
//! - **Order cannot matter.** Events of distinct revisions may arrive in any order, and again: the blocks that stand in
//!   the end are the same ([`ledger`]).
//! - **Adding and subtracting are exact.** A sketch is a sum of integers: whatever was added and is subtracted again
//!   leaves not one bit behind, and sketches of parts merge to the sketch of the whole ([`model::sketch`]).
//! - **A refused result takes nothing else down.** The other results of its event are taken, and the block that was
//!   accepted before stands ([`event::decode()`], [`ledger`]).
//! - **Results do not depend on the number of threads** ([`model::parallel`]).
//! - **What does not exist is `None`**, never a large number or NaN: moments, evidence under improper priors, shifts of
//!   a control that is not there ([`model::prior`]).
//!
//! # A fit in ten lines
//!
//! ```
//! use shrinkd::model::block::Block;
//! use shrinkd::model::fit::{Fit, Method};
//! use shrinkd::model::likelihood::SketchLikelihood;
//! use shrinkd::model::prior::Priors;
//! use shrinkd::model::shrinkage::BlockPosterior;
//! use shrinkd::model::sketch::Sketch;
//!
//! // Three variants against one control, whose variance 0.5 is in the error of all three.
//! let block = Block::shared_control(vec![1.2, 0.4, 0.9], vec![0.3, 0.2, 0.4], 0.5, vec![1.0; 3])?;
//! let mut sketch = Sketch::new();
//! sketch.add(&block.components()?)?;
//! for effect in [0.1, 0.7, -0.3, 1.1] {
//!     sketch.add(&Block::shared_control(vec![effect], vec![0.2], 0.2, vec![1.0])?.components()?)?;
//! }
//!
//! let fit = Fit::new(&SketchLikelihood::new(&sketch), &Priors::default(), Method::Quadrature)?;
//! let shrunk = BlockPosterior::new(&block, &fit.nodes).estimate(0);
//! assert!(shrunk.mean < 1.2 && shrunk.sd < 0.8_f64.sqrt());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cli;
pub mod config;
pub mod estimate;
pub mod event;
pub mod history;
pub mod http;
pub mod ledger;
pub mod model;
pub mod population;
pub mod row;
pub mod simulate;
pub mod store;
pub mod study;
pub mod telemetry;
pub mod worker;
