//! A file of events, a database, and the commands that operators run on them. Real processes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::database::Database;

/// How long anything may take that should be done in seconds: what hangs is found, on a machine with ten times as much to do as cores, too.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Keys of the configuration as the environment has them, without SHRINKD__.
pub type Keys<'a> = &'a [(&'a str, &'a str)];

/// A file of events that grows, and the commands on it and on a database.
pub struct Site {
    pub events: PathBuf,
    url: String,
}

impl Site {
    pub fn new(database: &impl Database) -> Site {
        let folder = std::env::temp_dir().join(format!("shrinkd-site-{}-{}", std::process::id(), unique()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let site = Site { events: folder.join("events.ndjson"), url: database.url() };
        site.append("");
        site
    }

    /// The same events in another database.
    pub fn of(&self, database: &impl Database) -> Site {
        let site = Site::new(database);
        site.append(&std::fs::read_to_string(&self.events).expect("the events are there"));
        site
    }

    pub fn append(&self, lines: &str) {
        let file = OpenOptions::new().create(true).append(true).open(&self.events);
        file.expect("the file opens").write_all(lines.as_bytes()).expect("the lines are written");
    }

    pub fn start(&self, command: &str, keys: Keys<'_>) -> Running {
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
    pub fn run(&self, keys: Keys<'_>) {
        self.start("run", keys).ends_with(0);
    }

    /// Rebuilds, after which an audit finds nothing; returns what the rebuild said.
    pub fn rebuild(&self, keys: Keys<'_>) -> String {
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
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Waits for its end, which must have this exit code; returns what it said.
    pub fn ends_with(mut self, code: i32) -> String {
        let deadline = Instant::now() + TIMEOUT;
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
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub fn said(&self) -> String {
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
