//! The real program as a process, its metrics, and its resource usage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::topic::Topic;
use crate::{Outcome, report};

/// Clock ticks per second in /proc, the same on every Linux system.
const TICKS: f64 = 100.0;

/// The source and the store of a worker.
pub struct Setting<'a> {
    pub topic: &'a Topic,
    pub group: &'a str,
    pub store_url: &'a str,
    /// Properties of librdkafka, by their names in the environment.
    pub properties: &'a [(&'a str, &'a str)],
    /// Other settings, likewise.
    pub settings: &'a [(&'a str, &'a str)],
    pub log_level: &'a str,
}

/// `shrinkd run`, which is killed with this value.
pub struct Worker {
    child: Child,
    pub started: Instant,
    address: String,
    log: PathBuf,
}

impl Setting<'_> {
    /// Starts a worker.
    pub fn start(&self) -> Outcome<Worker> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", report::unique("worker")));
        let mut command = self.command("run", &address);
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let started = Instant::now();
        Ok(Worker { child: command.spawn()?, started, address, log })
    }

    /// Runs another command on the same store, and returns how long that took.
    pub fn run(&self, name: &str) -> Outcome<Duration> {
        let started = Instant::now();
        let output = self.command(name, "127.0.0.1:0").output()?;
        match output.status.success() {
            true => Ok(started.elapsed()),
            false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    fn command(&self, name: &str, address: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
        command.arg(name).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SHRINKD_") {
                command.env_remove(name);
            }
        }
        for (name, value) in [
            ("SOURCE__KAFKA__BROKERS", self.topic.brokers.as_str()),
            ("SOURCE__KAFKA__TOPIC", &self.topic.name),
            ("SOURCE__KAFKA__GROUP", self.group),
            ("STORE__URL", self.store_url),
            ("HTTP__LISTEN", address),
            ("LOG__LEVEL", self.log_level),
        ] {
            command.env(format!("SHRINKD__{name}"), value);
        }
        for (name, value) in self.settings {
            command.env(format!("SHRINKD__{name}"), value);
        }
        for (name, value) in self.properties {
            command.env(format!("SHRINKD__SOURCE__KAFKA__PROPERTIES__{name}"), value);
        }
        command
    }
}

impl Worker {
    /// Fails, with the end of the log, if the worker has ended by itself.
    pub fn check(&mut self) -> Outcome<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.obituary(status).into()),
        }
    }

    /// Sends SIGTERM, and returns how long the worker took to end.
    pub fn stop(mut self) -> Outcome<Duration> {
        let asked = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let status = self.child.wait()?;
        match sent.success() && status.success() {
            true => Ok(asked.elapsed()),
            false => Err(self.obituary(status).into()),
        }
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The series of /metrics by name and labels.
    pub fn metrics(&self) -> Outcome<BTreeMap<String, f64>> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let lines = answer.lines().filter(|line| line.starts_with("shrinkd_"));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        Ok(series.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// The peak resident set size in bytes; `None` if the system does not report it.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
    }

    /// CPU seconds, also of threads that have ended.
    pub fn cpu(&self) -> f64 {
        i32::try_from(self.child.id()).ok().and_then(cpu).unwrap_or_default()
    }

    /// CPU seconds by the names of its threads, as far as they have not ended.
    pub fn cpu_by_thread(&self) -> BTreeMap<String, f64> {
        let mut by_name = BTreeMap::new();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        for stat in tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok()) {
            if let Some((name, seconds)) = parse_stat(&stat) {
                // librdkafka's threads are numbered.
                let name = if name.starts_with("rdk:") { "librdkafka" } else { name };
                *by_name.entry(name.to_owned()).or_insert(0.0) += seconds;
            }
        }
        by_name
    }

    fn obituary(&self, status: ExitStatus) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the worker ended with {status}:\n{}", lines[lines.len().saturating_sub(5)..].join("\n"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Unless something failed, it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The error contains the end of the log.
        let _ = std::fs::remove_file(&self.log);
    }
}

/// CPU seconds that a process has used; `None` if it is not visible here.
pub fn cpu(process: i32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    parse_stat(&stat).map(|(_, seconds)| seconds)
}

/// Name and CPU seconds, from /proc/PID/stat: the name is in brackets and may hold anything.
fn parse_stat(stat: &str) -> Option<(&str, f64)> {
    let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some((name, (ticks(11)? + ticks(12)?) / TICKS))
}
