//! The streams that the tests send: a real one where the reference data is at hand, and a generated one everywhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Folder;
use crate::common::program;
use crate::common::skipped::{shared, skipped};

/// Revisions, retractions, tombstones and results to refuse, of some hundred experiments on six metrics.
pub fn portfolio(folder: &Folder, experiments: u32) -> PathBuf {
    let path = folder.path("events.ndjson");
    std::fs::write(&path, program::portfolio(7, experiments)).expect("a file");
    path
}

/// The whole ASOS history, 4,775 events of 78 experiments, and its final snapshots; `None` without the reference data or
/// Python.
pub fn asos(folder: &Folder) -> Option<(PathBuf, PathBuf)> {
    let data = shared("data")?;
    Some((convert(&data, folder.path("asos.ndjson"), &[])?, convert(&data, folder.path("final.ndjson"), &["--final"])?))
}

fn convert(data: &Path, path: PathBuf, arguments: &[&str]) -> Option<PathBuf> {
    let input = std::fs::File::open(data.join("asos_digital_experiments_dataset.csv")).expect("the data is there");
    let status = Command::new("python3")
        .arg(data.join("asos_events.py"))
        .args(arguments)
        .stdin(input)
        .stdout(std::fs::File::create(&path).expect("a file"))
        .stderr(Stdio::inherit())
        .status();
    match status {
        Ok(status) => assert!(status.success(), "the conversion failed"),
        Err(error) => {
            skipped(&format!("python3 does not run: {error}"));
            return None;
        }
    }
    Some(path)
}

/// The number of events in a file.
pub fn count(events: &Path) -> i64 {
    std::fs::read_to_string(events).expect("the events are there").lines().count() as i64
}
