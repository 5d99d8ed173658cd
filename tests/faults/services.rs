//! The servers, which these tests restart: only those that scripts/services has started for the tests can be.

use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "SKIPPED: faults need PostgreSQL and Apache Kafka of scripts/services, to restart them"
            );
            return None;
        };
        Some(Services { folder, _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Restarts `postgres` or `kafka`, and says how it ended: by which signal.
    pub fn restart(&self, name: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        let output = Command::new(script).args(["restart", &self.folder, name]).output().expect("the script runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name} was not restarted: {said}{}", String::from_utf8_lossy(&output.stderr));
        said.rsplit(['(', ')']).nth(1).unwrap_or_default().to_owned()
    }
}
