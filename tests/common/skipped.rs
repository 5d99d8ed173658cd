//! Tests that need what a machine does not have say so. `make test` counts them.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Says that the test that is running skips, or leaves out a part: on stderr, past the test harness, which would show it to nobody, and
/// in the file that SHRINKD_SKIPPED names.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(format!("SKIPPED: {line}").as_bytes());
    if let Some(path) = std::env::var_os("SHRINKD_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file that SHRINKD_SKIPPED names");
    }
}

/// The folder of data sets beside the checkout, or `None` with a message: users do not have it.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SHRINKD_SHARED").map_or_else(beside_the_repository, PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    skipped(&format!("{} is not there (SHRINKD_SHARED names the folder of large data sets)", path.display()));
    None
}

fn beside_the_repository() -> PathBuf {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = member.ancestors().filter(|folder| folder.join("Cargo.toml").is_file()).last();
    repository.unwrap_or(member).join("../shared")
}
