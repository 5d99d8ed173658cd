//! shrinkd: empirical-Bayes estimation for experimentation platforms, exact under a shared control.
//!
//! Completed experiments arrive as events. Each effect is shrunk towards the mean of its population, by as much as its own
//! sampling error and the heterogeneity of the population imply (a random-effects model). The variants of an experiment
//! share the error of their control, and this correlation is modelled rather than ignored. `docs/method.md` has the method
//! with its formulas and sources, `docs/events.md` the event contract.
//!
//! # The map
//!
//! The steps through which an event passes, and the crate or module of each:
//!
//! | step | where |
//! | --- | --- |
//! | files as they are, plain or compressed, JSON or CSV -> messages | [`files`], [`shrinkd_csv`] |
//! | a topic or file -> records, in batches, of the partitions that this worker owns | [`worker::source`], [`stream`] |
//! | bytes -> event: the contract, with a [`Reason`](shrinkd_core::Reason) for each refusal | [`shrinkd_core`] |
//! | event -> ledger: revisions, retractions and parts, folded into the current blocks of one experiment | [`shrinkd_core`] |
//! | ledgers -> populations: which blocks share mu and tau | [`shrinkd_core`] |
//! | blocks -> components -> sketch -> likelihood -> posterior of mu and tau -> shrunken effects, diagnostics | [`shrinkd_model`] |
//! | changes of blocks -> statistics of their population -> its fits, and whether they have to be published | [`refit`] |
//! | block and published fit -> the estimates of the block | [`estimate`] |
//! | estimate -> row: the plain data of the tables | [`row`] |
//! | row -> table: [`Store`](store::Store), a struct over two databases, PostgreSQL and SQLite | [`store`] |
//!
//! [`shrinkd_model`], [`shrinkd_core`] and [`shrinkd_csv`] are crates of their own, and pure: no I/O, no clock, no configuration.
//!
//! Three modules drive these steps. [`worker`] runs all of them continuously, batch after batch (`docs/worker.md`), and retries
//! transient errors of the store in one place ([`worker::retry`]). [`cli`] runs them once over a file, without a store
//! ([`History`](shrinkd_core::History), [`Analysis`](shrinkd_model::Analysis)). `verify` recomputes everything that a store
//! holds, and compares.
//!
//! The other modules: [`config`] has the settings, [`telemetry`] and [`http`] the logs, metrics and health of a worker,
//! `sqlstate` what the error codes of PostgreSQL mean to it, `roles` the rights that its roles have there, `panics` turns panics
//! of the arithmetic into errors, [`simulate`] has seeded events with known true effects, and [`study`] compares the models of
//! correlation on them. Which module may import which is a table in `tests/operations/floors.rs`.
//!
//! # The invariants
//!
//! Of the statistics:
//!
//! - **Order does not matter.** Events of different revisions may arrive in any order, and more than once: the resulting
//!   blocks are the same ([`ExperimentLedger`](shrinkd_core::ExperimentLedger)).
//! - **Adding and subtracting are exact.** A sketch is a sum of integers. Subtracting what was added restores every bit, and
//!   the sketches of parts merge to the sketch of the whole ([`Sketch`](shrinkd_model::Sketch)).
//! - **A refused result affects nothing else.** The other results of its event are accepted, and the block that was accepted
//!   before stays ([`decode`](shrinkd_core::decode())).
//! - **Results do not depend on the number of threads** ([`map_chunks`](shrinkd_model::map_chunks)).
//! - **What does not exist is `None`**, never a large number or NaN: for example moments or evidence under improper priors, or
//!   the control shift of a block without a shared control ([`Priors`](shrinkd_model::Priors)).
//!
//! Of the worker, whatever crashes, stalls or is delivered twice (`docs/worker.md` explains how each is kept):
//!
//! 1. A record's effect and the offset that covers it commit in one transaction.
//! 2. Only the holder of (partition, epoch), the fencing token, advances `next_offset`.
//! 3. `next_offset` is the next record to read, never the last one read ([`stream::NextOffset`]).
//! 4. Of a partition, a worker keeps only its claim in memory, and changes it only after COMMIT.
//! 5. A batch only logs what it changed of blocks; whoever has locked a population takes its changes out of the log and adds
//!    them to its statistics. Blocks are locked through the row of their experiment, in the order of the keys.
//! 6. No record is skipped without a row that documents it.
//! 7. Kafka's committed offset is for dashboards only: nothing reads it.
//! 8. Applying a record twice has no further effect.

pub mod cli;
pub mod config;
pub mod estimate;
pub mod files;
pub mod http;
mod panics;
pub mod refit;
mod roles;
pub mod row;
pub mod simulate;
mod sqlstate;
pub mod store;
pub mod stream;
pub mod study;
pub mod telemetry;
pub mod verify;
pub mod worker;
