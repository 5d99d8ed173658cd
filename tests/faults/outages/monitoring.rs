//! A Prometheus that watches the workers of all outages, and how long its alerts take against what docs/operations.md states.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::prometheus::{Prometheus, Sighting, free_address, lock};
use crate::common::folder::Folder;
use crate::common::worker::Worker;
use crate::run::say;

/// Added to the stated times where they are shortened: servers, workers and a busy machine are not any faster for it.
const ALLOWANCE: Duration = Duration::from_secs(20);
/// How long after its end a worker is restarted.
const RESTART: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(50);

pub struct Monitoring {
    speedup: u32,
    pub prometheus: Prometheus,
    /// By alert: how long after the start of an outage it fires at the latest, and how long after its end it is over.
    times: BTreeMap<String, (Duration, Duration)>,
    started: Instant,
    /// By job and alert.
    took: Mutex<BTreeMap<(String, String), Took>>,
    // Dropped last: it holds the logs.
    pub folder: Folder,
}

/// How long an alert took to fire, and to be over.
struct Took {
    fired: Duration,
    over: Option<Duration>,
}

impl Monitoring {
    /// `None`, with a message, where there is no Prometheus.
    pub fn start(name: &str, speedup: u32) -> Option<Arc<Monitoring>> {
        let folder = Folder::new(name);
        let prometheus = Prometheus::start(&folder.path("prometheus"), speedup)?;
        let (times, took) = (stated_times(), Mutex::default());
        Some(Arc::new(Monitoring { speedup, prometheus, times, started: Instant::now(), took, folder }))
    }

    /// Starts a worker. `number` tells those of a job apart.
    pub fn worker(&self, job: &str, number: u32, environment: &[(&'static str, String)]) -> Worker {
        Worker::start(environment, self.folder.path(&format!("{job}-{number}.log")))
    }

    /// Runs the worker of a job, and restarts it whenever it ends, as a supervisor would.
    pub async fn keep_running(&self, job: &str, environment: &[(&'static str, String)]) {
        let address = free_address();
        self.prometheus.scrape(job, &[&address]);
        let environment = [environment, &[("SHRINKD__HTTP__LISTEN", address)]].concat();
        for number in 1.. {
            let mut worker = self.worker(job, number, &environment);
            while worker.ended().is_none() {
                tokio::time::sleep(PACE).await;
            }
            tokio::time::sleep(RESTART).await;
        }
    }

    /// Makes these, and no others, the workers of a job that are scraped.
    pub fn watch(&self, job: &str, workers: &[&Worker]) {
        let addresses: Vec<String> = workers.iter().map(|worker| worker.http()).collect();
        self.prometheus.scrape(job, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Waits until an alert fires, at most for the time that docs/operations.md states, since the start of an outage.
    pub async fn fires(&self, job: &str, began: Instant, alert: &str) {
        let (latest, _) = self.times[alert];
        let took = self.wait(job, began, alert, "does not fire", latest, |sighting| sighting.is_firing).await;
        let Sighting { severity, description, .. } = self.prometheus.sighting(job, alert);
        self.say(&format!("{job}: {alert} ({severity}) fires after {took:.1?}: {description}"));
        lock(&self.took).insert((job.to_owned(), alert.to_owned()), Took { fired: took, over: None });
    }

    /// Waits until an alert is over, at most for the time that docs/operations.md states, since the end of an outage.
    pub async fn clears(&self, job: &str, ended: Instant, alert: &str) {
        let (_, latest) = self.times[alert];
        let is_over = |sighting: &Sighting| !sighting.is_firing && !sighting.is_pending;
        let took = self.wait(job, ended, alert, "is not over", latest, is_over).await;
        self.say(&format!("{job}: {alert} is over after {took:.1?}"));
        if let Some(earlier) = lock(&self.took).get_mut(&(job.to_owned(), alert.to_owned())) {
            earlier.over = Some(took);
        }
    }

    async fn wait(
        &self,
        job: &str,
        since: Instant,
        alert: &str,
        fault: &str,
        latest: Duration,
        is_so: impl Fn(&Sighting) -> bool,
    ) -> Duration {
        let latest = if self.is_shortened() { latest / self.speedup + ALLOWANCE } else { latest };
        loop {
            let sighting = self.prometheus.sighting(job, alert);
            if is_so(&sighting) {
                return since.elapsed();
            }
            let others = self.prometheus.sightings(job);
            assert!(
                since.elapsed() < latest,
                "{job}: {alert} {fault} within {latest:.1?}: {sighting:?} of {others:#?}\nscraped: {}",
                self.prometheus.scraped(job)
            );
            tokio::time::sleep(PACE).await;
        }
    }

    /// The critical alerts of a job that have fired.
    pub fn pages(&self, job: &str) -> Vec<String> {
        let fired = self.prometheus.sightings(job).into_iter().filter(|(_, sighting)| sighting.fired.is_some());
        fired.filter(|(_, sighting)| sighting.severity == "critical").map(|(alert, _)| alert).collect()
    }

    /// How long each alert took, as a table in Markdown.
    pub fn report(&self) {
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "\n| outage | alert | fires after | is over after |\n| --- | --- | --- | --- |");
        for ((job, alert), Took { fired, over }) in &*lock(&self.took) {
            let over = over.map_or(String::new(), |over| format!("{:.0} s", over.as_secs_f64()));
            let _ = writeln!(stdout, "| {job} | {alert} | {:.0} s | {over} |", fired.as_secs_f64());
        }
    }

    /// Whether the durations in the rules are shortened.
    pub fn is_shortened(&self) -> bool {
        self.speedup > 1
    }

    pub fn say(&self, what: &str) {
        say(self.started, what);
    }

    /// Sleeps for a duration that is shortened like those in the rules.
    pub async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration / self.speedup).await;
    }
}

/// The times in the table of alerts in docs/operations.md.
fn stated_times() -> BTreeMap<String, (Duration, Duration)> {
    let page = include_str!("../../../docs/operations.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| [Shrinkd"));
    let minutes = |cell: &str| {
        let number = cell.trim().strip_suffix(" min").and_then(|number| number.parse::<u64>().ok());
        Duration::from_secs(60 * number.unwrap_or_else(|| panic!("`{cell}` is not in minutes")))
    };
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let name = cells[0].split(']').next().expect("a link");
        (format!("Shrinkd{name}"), (minutes(cells[2]), minutes(cells[3])))
    })
    .collect()
}
