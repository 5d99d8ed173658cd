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
//! | bytes -> event: the contract, one [`Reason`](shrinkd_core::Reason) for each refusal | [`shrinkd_core`] |
//! | event -> ledger: revisions, retractions and parts, folded into the current blocks of one experiment | [`shrinkd_core`] |
//! | ledgers -> populations: which blocks share mu and tau | [`shrinkd_core`] |
//! | blocks -> components -> sketch -> likelihood -> posterior of mu and tau -> shrunken effects, diagnostics | [`shrinkd_model`] |
//! | block + published fit -> the estimates of one block | [`estimate`] |
//! | estimate -> row: plain data, as tables hold it | [`row`] |
//! | row -> table: one trait, PostgreSQL and SQLite behind it | [`store`] |
//!
//! Who walks that way: [`worker`] all of it, batch after batch, without an end (`docs/worker.md`); [`cli`] with a file at
//! once and without a store ([`History`](shrinkd_core::History), [`Analysis`](shrinkd_model::Analysis)); `verify` once more through all that a store holds, to
//! compare. What the worker is told is in [`config`], what it shows of itself in [`telemetry`] and [`http`].
//!
//! Beside that way stand [`simulate`] (seeded events with known truths) and [`study`] (what the models of correlation
//! make of them). [`shrinkd_model`] and [`shrinkd_core`] are crates of their own and pure: no I/O, no clock, no
//! configuration. Of [`store`] the [`worker`] knows the trait alone.
//!
//! # The invariants
//!
//! Of the statistics:
//!
//! - **Order cannot matter.** Events of distinct revisions may arrive in any order, and again: the blocks that stand in
//!   the end are the same ([`ExperimentLedger`](shrinkd_core::ExperimentLedger)).
//! - **Adding and subtracting are exact.** A sketch is a sum of integers: whatever was added and is subtracted again
//!   leaves not one bit behind, and sketches of parts merge to the sketch of the whole ([`Sketch`](shrinkd_model::Sketch)).
//! - **A refused result takes nothing else down.** The other results of its event are taken, and the block that was
//!   accepted before stands ([`decode`](shrinkd_core::decode())).
//! - **Results do not depend on the number of threads** ([`map_chunks`](shrinkd_model::map_chunks)).
//! - **What does not exist is `None`**, never a large number or NaN: moments, evidence under improper priors, shifts of
//!   a control that is not there ([`Priors`](shrinkd_model::Priors)).
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

pub mod cli;
pub mod config;
pub mod estimate;
pub mod http;
pub mod refit;
pub mod row;
pub mod simulate;
pub mod store;
pub mod stream;
pub mod study;
pub mod telemetry;
mod verify;
pub mod worker;
