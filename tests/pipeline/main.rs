//! The whole way, with real parts: events produced to Apache Kafka or kept in a file, worker processes, PostgreSQL or SQLite,
//! and tables that must say what a fit of the same history says.
//!
//! `scripts/services run -- cargo test` starts the servers. Where none is named by SHRINKD_TEST_KAFKA the broker is
//! librdkafka's own mock, in this process; where none is named by SHRINKD_TEST_POSTGRES_URL these tests skip.

#[path = "../common/mod.rs"]
mod common;

mod embedded;
mod halts;
mod kafka;
mod restarts;
mod stream;
mod topic;
mod truth;
mod worker;

use std::path::PathBuf;

/// A folder of one test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("shrinkd-pipeline-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        Folder(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
