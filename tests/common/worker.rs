//! Worker processes, configured from the environment alone.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::topic::Topic;

/// How long anything may take that should be done in seconds.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// What a machine that is busy with other tests may add to a promised duration. What these durations tell apart from a
/// promise kept, the timeout of a pool or a drain budget, is longer.
pub const SLACK: Duration = Duration::from_secs(5);

/// Variables that configure shrinkd.
pub type Environment = Vec<(&'static str, String)>;

pub struct Worker {
    child: Child,
    log: PathBuf,
}

/// This build's program, or another one that has to stand the same tests.
pub fn program() -> PathBuf {
    std::env::var_os("SHRINKD_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_shrinkd").into(), PathBuf::from)
}

/// The environment of a worker that reads a topic as a member of its own group.
pub fn from_kafka(topic: &Topic, store: &str) -> Environment {
    vec![
        ("SHRINKD__SOURCE__KAFKA__BROKERS", topic.brokers.clone()),
        ("SHRINKD__SOURCE__KAFKA__TOPIC", topic.name.clone()),
        ("SHRINKD__SOURCE__KAFKA__GROUP", topic.name.clone()),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "6000".to_owned()),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", "500".to_owned()),
        ("SHRINKD__STORE__URL", store.to_owned()),
    ]
}

/// The environment of a worker that reads a file and ends with it.
pub fn from_file(events: &Path, store: &str) -> Environment {
    vec![("SHRINKD__SOURCE__FILE__PATH", events.display().to_string()), ("SHRINKD__STORE__URL", store.to_owned())]
}

impl Worker {
    pub fn start(environment: &[(&'static str, String)], log: PathBuf) -> Worker {
        Worker::start_at(environment, log, "info,shrinkd=debug")
    }

    /// The same with another level of its log.
    pub fn start_at(environment: &[(&'static str, String)], log: PathBuf, level: &str) -> Worker {
        let child = Command::new(program())
            .arg("run")
            .env("SHRINKD__HTTP__LISTEN", "127.0.0.1:0")
            .env("SHRINKD__LOG__LEVEL", level)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            // The summary at the end of a file.
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("shrinkd runs");
        Worker { child, log }
    }

    /// Asks for the end, and waits for it.
    pub fn stop(self) {
        self.signal("TERM");
        self.ends_well();
    }

    /// Ends it without a warning.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits until it ends by itself, with exit code 0.
    pub fn ends_well(mut self) {
        let status = self.wait();
        assert!(status.success(), "the worker ended with {status}:\n{}", self.log());
    }

    /// Waits until it ends by itself with this exit code, and gives its log.
    pub fn ends_with(mut self, code: i32) -> String {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "the worker ended with {status}:\n{}", self.log());
        self.log()
    }

    /// The address of its pages, once it has said it.
    pub fn http(&self) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(address) = self.said_http() {
                return address;
            }
            assert!(Instant::now() < deadline, "no address in its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same, if it has said it by now.
    fn said_http(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once(" http=").or_else(|| log.split_once("\"http\":\""))?;
        rest.split([' ', '\n', '"']).next().map(str::to_owned)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it was started")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "the worker has ended before:\n{}", self.log());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Worker {
    /// A test that failed leaves nothing running, and beside the log what the worker said of itself in the end: what failed may
    /// not come again.
    fn drop(&mut self) {
        if std::thread::panicking()
            && matches!(self.child.try_wait(), Ok(None))
            && let Some(address) = self.said_http()
        {
            let pages = ["/readyz", "/metrics"].map(|path| std::panic::catch_unwind(|| get(&address, path)));
            let pages: String = pages.into_iter().flatten().collect();
            let _ = std::fs::write(self.log.with_extension("pages"), pages);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer of a worker's page, with its head.
pub fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
