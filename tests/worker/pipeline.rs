//! The whole way, with real parts: events produced to Apache Kafka or kept in a file, worker processes, PostgreSQL or SQLite,
//! and tables that must say what a fit of the same history says.
//!
//! `scripts/services run -- cargo test` starts the servers. Where none is named by SHRINKD_TEST_KAFKA the broker is
//! librdkafka's own mock, in this process; where none is named by SHRINKD_TEST_POSTGRES_URL these tests skip.

mod embedded;
mod ends;
mod halts;
mod kafka;
mod operators;
mod pages;
mod pooler;
mod restarts;
mod starts;
mod stream;
mod truth;

use crate::common::folder::Folder;
