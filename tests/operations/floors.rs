//! Which rooms of `src/` may import which: a room uses those below it, and none above. Between the crates the compiler holds
//! that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the bottom to the top, and what each of them may import.
const ROOMS: [(&str, &[&str]); 17] = [
    ("files", &[]),
    ("panics", &[]),
    ("roles", &[]),
    ("sqlstate", &[]),
    ("stream", &[]),
    ("row", &["stream"]),
    ("config", &["row"]),
    ("estimate", &["panics", "row"]),
    ("refit", &["config", "panics", "row"]),
    ("store", &["config", "refit", "roles", "row", "sqlstate", "stream"]),
    ("telemetry", &["config"]),
    ("http", &["telemetry"]),
    ("simulate", &[]),
    ("study", &["simulate"]),
    ("verify", &["config", "estimate", "files", "refit", "row", "store", "stream"]),
    ("worker", &["config", "estimate", "files", "panics", "refit", "row", "store", "stream", "telemetry"]),
    (
        "cli",
        &[
            "config",
            "files",
            "http",
            "panics",
            "row",
            "simulate",
            "store",
            "stream",
            "study",
            "telemetry",
            "verify",
            "worker",
        ],
    ),
];

#[test]
fn no_room_imports_one_above_it() {
    let allowed = BTreeMap::from(ROOMS);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&src) {
        let name = path.strip_prefix(&src).expect("below src").with_extension("");
        let room = name.iter().next().and_then(|room| room.to_str()).expect("a room");
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let may =
            allowed.get(room).unwrap_or_else(|| panic!("src/{room} is not in the table of tests/operations/floors.rs"));
        for import in imports(&fs::read_to_string(&path).expect("text")) {
            assert!(
                import == room || may.contains(&import.as_str()),
                "{} imports crate::{import}, which `{room}` may not: move what both need to a room below them",
                path.display()
            );
        }
    }
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The rooms that a source names after `crate::`, comments left out.
fn imports(source: &str) -> BTreeSet<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let paths = code.split("crate::").skip(1);
    paths.map(|path| path.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()).collect()
}
