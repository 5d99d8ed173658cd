//! shrinkd: empirical-Bayes estimation for experimentation platforms, exact under a shared control.
//!
//! Completed experiments come in as events. Their effects are shrunk towards the mean of their population, by as much
//! as their own noise and the population's spread say, and the error of the control that the variants of an experiment
//! share is modelled rather than ignored. The method, with its formulas and sources, is in `docs/method.md`; the event
//! contract in `docs/events.md`.
//!
//! # The map
//!
//! The rooms in the order in which what an event says passes through them:
//!
//! | step | room |
//! | --- | --- |
//! | a stream -> records, in batches, of the partitions that are owned | [`worker::source`] |
//! | bytes -> event: the contract, one [`Reason`](event::Reason) for each refusal | [`event`] |
//! | event -> ledger: revisions, retractions and parts, folded into the current blocks of one experiment | [`ledger`] |
//! | ledgers -> populations: which blocks share mu and tau | [`history`], [`population`] |
//! | effects -> block: what one experiment measured, with its joint sampling error | [`model::block`] |
//! | block -> components: independent for every tau at once | [`model::spectrum`] |
//! | components -> sketch: a population of any size in a few cells of integers | [`model::sketch`] |
//! | sketch -> likelihood: four sums, as functions of tau | [`model::likelihood`] |
//! | likelihood -> posterior of mu and tau: exact, approximate, or a point | [`model::posterior`], [`model::fit`] |
//! | block + posterior -> estimate: every effect, shrunk | [`model::shrinkage`], [`model::best`], [`estimate`] |
//! | blocks + posterior -> diagnostics: did correlation matter, is a control off, is it calibrated | [`model::diagnostics`] |
//! | estimate -> row: plain data, as tables hold it | [`row`] |
//! | row -> table: one trait, PostgreSQL and SQLite behind it | [`store`] |
//!
//! Who walks that way: [`worker`] all of it, batch after batch, without an end (`docs/worker.md`); [`cli`] with a file at
//! once and without a store ([`history`], [`model::population`]); [`verify`] once more through all that a store holds, to
//! compare. What the worker is told is in [`config`], what it shows of itself in [`telemetry`] and [`http`].
//!
//! Beside that way stand [`simulate`] (seeded events with known truths) and [`study`] (what the treatments of
//! correlation make of them). [`model`] is pure: it imports nothing from the rest of the crate, reads no clock and no
//! configuration. Of [`store`] the [`worker`] knows the trait alone.
//!
//! # The invariants
//!
//! Of the statistics:
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
//! Of the worker, whatever crashes, stalls or is asked twice (`docs/worker.md` says how each is kept):
//!
//! 1. A record's effect and the offset that covers it commit in one transaction.
//! 2. Only the holder of (partition, epoch) advances `next_offset`.
//! 3. `next_offset` is the next record to read, never the last one read ([`stream::NextOffset`]).
//! 4. Of a partition a worker keeps in memory only its claim, changed only after COMMIT.
//! 5. A batch's cells and counters are written under one partition, which it holds locked: only the sum over partitions
//!    has a meaning. Blocks are locked through their experiment's row, in the order of the keys.
//! 6. No record is skipped without a row that says so.
//! 7. Kafka's committed offset is for dashboards: nothing reads it.
//! 8. Applying a record twice is a no-op.
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
pub mod refit;
pub mod retry;
pub mod row;
pub mod simulate;
pub mod store;
pub mod stream;
pub mod study;
pub mod telemetry;
pub mod verify;
pub mod worker;
