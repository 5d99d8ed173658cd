//! The servers, which these tests restart: only those that scripts/services has started for the tests can be.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::skipped::skipped;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");

/// Servers that nobody else uses while this is held.
pub struct Services {
    folder: String,
    _alone: MutexGuard<'static, ()>,
}

impl Services {
    /// `None`, with a message, where no servers are named that may be restarted.
    pub fn alone() -> Option<Services> {
        static ALONE: Mutex<()> = Mutex::new(());
        let named = |name: &str| std::env::var(name).ok();
        let (folder, kafka) = (named("SHRINKD_TEST_SERVICES"), named("SHRINKD_TEST_KAFKA"));
        let (Some(folder), Some(_), Some(_)) = (folder, kafka, named("SHRINKD_TEST_POSTGRES_URL")) else {
            skipped("faults need PostgreSQL and Apache Kafka of scripts/services, to restart them");
            return None;
        };
        Some(Services { folder, _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Restarts `postgres` or `kafka`, and says how it ended: by which signal.
    pub fn restart(&self, name: &str) -> String {
        let said = script(&["restart", &self.folder, name]);
        said.rsplit(['(', ')']).nth(1).unwrap_or_default().to_owned()
    }
}

/// A PostgreSQL and an Apache Kafka of one test's own, which end with this value.
pub struct OwnServers {
    folder: String,
    pub brokers: String,
    pub postgres_url: String,
}

impl OwnServers {
    /// Starts them, with their data in a folder that is not there yet.
    pub fn start(folder: &Path) -> OwnServers {
        let folder = folder.to_str().expect("a path in UTF-8").to_owned();
        script(&["start", &folder, "kafka", "postgres"]);
        let variables =
            std::fs::read_to_string(Path::new(&folder).join("env")).expect("the script says where they are");
        let variable = |name: &str| {
            let line = variables.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("no {name} in {variables}")).to_owned()
        };
        let (brokers, postgres_url) = (variable("SHRINKD_TEST_KAFKA"), variable("SHRINKD_TEST_POSTGRES_URL"));
        OwnServers { folder, brokers, postgres_url }
    }

    /// Ends `postgres` or `kafka`.
    pub fn down(&self, name: &str) {
        script(&["down", &self.folder, name]);
    }

    /// Starts it again, and waits until it answers.
    pub fn up(&self, name: &str) {
        script(&["up", &self.folder, name]);
    }
}

impl Drop for OwnServers {
    /// Also where the test fails, when they may not be there any more.
    fn drop(&mut self) {
        let _ = Command::new(SCRIPT).args(["stop", &self.folder]).output();
    }
}

/// What scripts/services says.
fn script(arguments: &[&str]) -> String {
    let output = Command::new(SCRIPT).args(arguments).output().expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/services {}: {said}{failed}", arguments.join(" "));
    said
}
