//! What a database promises when the settings that it was filled with change: `shrinkd run` refuses it, `shrinkd rebuild`
//! makes it one that was filled with the new ones, and nothing is lost or doubled on the way. Real processes, on both stores.

#[path = "../common/mod.rs"]
mod common;

mod beside_workers;
mod interrupted;
mod priors;
mod settings;
mod tables;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::database::Database;

/// Makes two tests of every promise, an `async fn promise<D: Database>(database: &D)`: one for each store.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod on_sqlite { $(crate::promises!(@test $promise, crate::common::database::SqliteDatabase);)* }
        mod on_postgres { $(crate::promises!(@test $promise, crate::common::database::PostgresDatabase);)* }
    };
    (@test $promise:ident, $database:ty) => {
        #[tokio::test]
        async fn $promise() {
            use crate::common::database::Database;
            let Some(database) = <$database>::create().await else { return };
            super::$promise(&database).await;
            database.remove().await;
        }
    };
}
use promises;

/// How long anything may take that should be done in seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys of the configuration as the environment has them, without SHRINKD__.
type Keys<'a> = &'a [(&'a str, &'a str)];

const BY_TEAM: Keys<'_> = &[("POPULATIONS__LABELS", r#"["team"]"#)];

/// A file of events that grows, and the commands on it and on a database.
struct Site {
    events: PathBuf,
    url: String,
}

impl Site {
    fn new(database: &impl Database) -> Site {
        let folder = std::env::temp_dir().join(format!("shrinkd-rebuild-{}-{}", std::process::id(), unique()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let site = Site { events: folder.join("events.ndjson"), url: database.url() };
        site.append("");
        site
    }

    /// The same events in another database.
    fn of(&self, database: &impl Database) -> Site {
        let site = Site::new(database);
        site.append(&std::fs::read_to_string(&self.events).expect("the events are there"));
        site
    }

    fn append(&self, lines: &str) {
        let file = OpenOptions::new().create(true).append(true).open(&self.events);
        file.expect("the file opens").write_all(lines.as_bytes()).expect("the lines are written");
    }

    fn start(&self, command: &str, keys: Keys<'_>) -> Running {
        let log = self.events.with_file_name(format!("{}.log", unique()));
        let file = File::create(&log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_shrinkd"))
            .arg(command)
            .env("SHRINKD__SOURCE__FILE__PATH", &self.events)
            .env("SHRINKD__STORE__URL", &self.url)
            .env("SHRINKD__HTTP__LISTEN", "127.0.0.1:0")
            .envs(keys.iter().map(|(name, value)| (format!("SHRINKD__{name}"), *value)))
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file)
            .stdin(Stdio::null())
            .spawn();
        Running { child: child.expect("shrinkd starts"), log }
    }

    /// Runs the worker to the end of the file.
    fn run(&self, keys: Keys<'_>) {
        self.start("run", keys).ends_with(0);
    }

    /// Rebuilds, after which an audit finds nothing; returns what the rebuild said.
    fn rebuild(&self, keys: Keys<'_>) -> String {
        let said = self.start("rebuild", keys).ends_with(0);
        self.start("verify", keys).ends_with(0);
        said
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(folder) = self.events.parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// A command that was started.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Waits for its end, which must have this exit code; returns what it said.
    fn ends_with(mut self, code: i32) -> String {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = self.said();
        assert_eq!(status.code(), Some(code), "{said}");
        said
    }

    /// Ends it without a warning.
    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    /// A test that failed leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number that nothing else in this process has.
fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The events of a platform: revisions, repetitions, retractions, tombstones, parts and results to refuse, in two halves.
fn events() -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_shrinkd"))
        .args(["simulate", "--scenario", "portfolio", "--seed", "11", "--experiments", "90"])
        .output()
        .expect("shrinkd runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines.split_at(lines.len() / 2);
    (first.join("\n") + "\n", rest.join("\n") + "\n")
}

/// Another database, which nobody has filled.
async fn fresh<D: Database>() -> D {
    let fresh = D::create().await.expect("another database");
    fresh.execute("delete from store_settings").await;
    fresh
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
