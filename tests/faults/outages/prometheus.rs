//! A Prometheus with the rules of deploy/prometheus, and a record of its alerts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rules::{duration, shorten};
use crate::common::forward::closed_port;
use crate::common::skipped::skipped;

/// How often its alerts are polled.
const PACE: Duration = Duration::from_millis(100);
/// How long it may take to start.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Prometheus {
    child: Child,
    address: String,
    targets: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen of an alert of a job.
#[derive(Debug, Clone, Default)]
pub struct Sighting {
    pub severity: String,
    pub description: String,
    /// When it first fired.
    pub fired: Option<Instant>,
    pub is_firing: bool,
    pub is_pending: bool,
}

/// By job (empty for an alert without one) and alert.
type Seen = BTreeMap<(String, String), Sighting>;

impl Prometheus {
    /// Starts it with every duration in the rules divided by `speedup`; `None`, with a message, if it is not installed.
    pub fn start(folder: &Path, speedup: u32) -> Option<Prometheus> {
        let Some(programs) = std::env::var_os("SHRINKD_TEST_PROMETHEUS").map(PathBuf::from) else {
            skipped("there is no Prometheus (Debian's package `prometheus` has it)");
            return None;
        };
        let targets = folder.join("targets");
        fs::create_dir_all(&targets).expect("a folder for the targets");
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file for Prometheus");
        write("alerts.yml", &shorten(include_str!("../../../deploy/prometheus/alerts.yml"), speedup).rules);
        let sample = include_str!("../../../deploy/prometheus/prometheus.yml");
        let interval = |name: &str| {
            let line = sample.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(": "));
            duration(line.unwrap_or_else(|| panic!("prometheus.yml has no {name}")), speedup)
        };
        let (scrape, evaluation) = (interval("scrape_interval"), interval("evaluation_interval"));
        let config = json!({
            "global": {"scrape_interval": scrape, "scrape_timeout": scrape, "evaluation_interval": evaluation},
            "rule_files": ["alerts.yml"],
            // A configuration in JSON is one in YAML.
            "scrape_configs": [{"job_name": "shrinkd", "file_sd_configs": [{"files": ["targets/*.json"]}]}],
        });
        write("prometheus.yml", &config.to_string());
        let address = free_address();
        let child = Command::new(programs.join("prometheus"))
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=warn", "--web.console.libraries=", "--web.console.templates="])
            .stderr(fs::File::create(folder.join("prometheus.log")).expect("a log file"))
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Prometheus { child, address: address.clone(), targets, seen: Arc::default() };
        let started = Instant::now();
        while get(&address, "/-/ready").is_none_or(|answer| !answer.starts_with("HTTP/1.0 200")) {
            let log = fs::read_to_string(folder.join("prometheus.log")).unwrap_or_default();
            assert!(started.elapsed() < TIMEOUT, "Prometheus does not start:\n{log}");
            std::thread::sleep(PACE);
        }
        let seen = Arc::downgrade(&prometheus.seen);
        std::thread::spawn(move || {
            while let Some(seen) = seen.upgrade() {
                if let Some(alerts) = get(&address, "/api/v1/alerts") {
                    note(&mut lock(&seen), &alerts);
                }
                drop(seen);
                std::thread::sleep(PACE);
            }
        });
        Some(prometheus)
    }

    /// Makes these addresses the targets of a job.
    pub fn scrape(&self, job: &str, addresses: &[&str]) {
        let target = json!([{"targets": addresses, "labels": {"job": job}}]);
        // Renamed, so that an incomplete file is never read.
        let (new, path) = (self.targets.join(format!("{job}.new")), self.targets.join(format!("{job}.json")));
        fs::write(&new, target.to_string()).and_then(|()| fs::rename(new, path)).expect("the targets are written");
    }

    /// The state of an alert of a job.
    pub fn sighting(&self, job: &str, alert: &str) -> Sighting {
        lock(&self.seen).get(&(job.to_owned(), alert.to_owned())).cloned().unwrap_or_default()
    }

    /// What it has scraped of a job lately: whether the scrapes succeeded, and a metric of its alerts, as JSON.
    pub fn scraped(&self, job: &str) -> String {
        let query = format!("{{__name__=~%22up|ALERTS%22,job=%22{job}%22}}[2m]");
        get(&self.address, &format!("/api/v1/query?query={query}")).unwrap_or_default()
    }

    /// The states of all alerts that a job has had.
    pub fn sightings(&self, job: &str) -> BTreeMap<String, Sighting> {
        let seen = lock(&self.seen);
        let of_job = seen.iter().filter(|((own, _), _)| own == job);
        of_job.map(|((_, alert), sighting)| (alert.clone(), sighting.clone())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine on which nothing listens.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", closed_port())
}

/// An answer with its head; `None` where nobody answers.
pub fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    // Of HTTP 1.0, so that the answer is not cut into chunks.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Updates the record from an answer of Prometheus.
fn note(seen: &mut Seen, answer: &str) {
    let Some((_, body)) = answer.split_once("\r\n\r\n") else { return };
    let Ok(body) = serde_json::from_str::<Value>(body) else { return };
    let Some(alerts) = body["data"]["alerts"].as_array() else { return };
    for sighting in seen.values_mut() {
        (sighting.is_firing, sighting.is_pending) = (false, false);
    }
    for alert in alerts {
        let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
        let sighting = seen.entry((label("job"), label("alertname"))).or_default();
        sighting.severity = label("severity");
        match alert["state"].as_str() {
            Some("firing") => {
                sighting.is_firing = true;
                sighting.fired.get_or_insert_with(Instant::now);
                sighting.description = alert["annotations"]["description"].as_str().unwrap_or_default().to_owned();
            }
            _ => sighting.is_pending = true,
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
