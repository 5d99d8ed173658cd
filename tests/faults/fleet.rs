//! The workers of one group, each behind its own listener of the proxy, and what their logs say happened to them.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::common::database::{Database, PostgresDatabase};
use super::common::folder::Folder;
use super::common::topic::Topic;
use super::common::worker::{Worker, from_kafka};
use super::proxy::Proxy;

/// Workers at most.
pub const SLOTS: usize = 4;

/// A worker was so far behind that it left estimates to a pass, and is not any more.
pub const CAUGHT_UP: &str = "workers caught up";

/// Parts of log lines, and what each is counted as. The first that matches counts.
const MESSAGES: [(&str, &str); 15] = [
    ("retrying operation=\"ingest\"", "batches retried"),
    ("catching up: estimates are written at once again", CAUGHT_UP),
    ("fenced: another worker", "commits fenced"),
    ("only its response was lost", "lost COMMIT responses resolved"),
    ("retrying operation=\"claim\"", "claims retried"),
    ("a refit failed, retrying", "refits retried"),
    ("a publish failed, retrying", "publishes retried"),
    ("is_lost=true", "partitions lost"),
    ("shrinkd::worker::source::kafka::assignment: revoked", "revocations"),
    ("shrinkd::worker::ingest: assigned", "assignments"),
    ("not drained within the budget", "drains over budget"),
    ("cannot identify the topic", "topic asked for again"),
    ("back pressure: partitions paused", "pauses"),
    ("stopped by a fatal error", "workers ended by themselves"),
    ("panicked at", "panics"),
];

/// How often each thing was seen.
pub type Effects = BTreeMap<String, u64>;

pub struct Fleet {
    slots: Vec<Slot>,
    /// Why workers ended without being asked to.
    pub deaths: Vec<String>,
}

struct Slot {
    environment: Vec<(&'static str, String)>,
    /// The name of its logs, one for each start.
    log: PathBuf,
    starts: u32,
    /// How far the last one was read, and what was read and not counted yet.
    read: u64,
    news: String,
    worker: Option<Worker>,
    is_stopped: bool,
}

impl Fleet {
    pub fn new(folder: &Folder, topic: &Topic, database: &PostgresDatabase, proxy: &Proxy) -> Fleet {
        let slot = |i| {
            let mut environment = from_kafka(topic, &through(&database.url(), proxy.listen(i)));
            environment.extend([
                ("SHRINKD__SOURCE__KAFKA__PROPERTIES__MAX_POLL_INTERVAL_MS", "10000".to_owned()),
                // Partitions that are added are found soon.
                ("SHRINKD__SOURCE__KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS", "2000".to_owned()),
                // So are brokers that come back.
                ("SHRINKD__SOURCE__KAFKA__PROPERTIES__RECONNECT_BACKOFF_MAX_MS", "500".to_owned()),
                // Many commits, so that there is much to cut.
                ("SHRINKD__INGEST__BATCH_RECORDS", "20".to_owned()),
                // What comes while a fault lasts is a backlog.
                ("SHRINKD__CATCH_UP__RECORDS", "20".to_owned()),
                ("SHRINKD__INGEST__DRAIN_BUDGET", "4s".to_owned()),
                ("SHRINKD__REFIT__INTERVAL", "300ms".to_owned()),
            ]);
            let log = folder.path(&format!("worker-{i}"));
            Slot { environment, log, starts: 0, read: 0, news: String::new(), worker: None, is_stopped: false }
        };
        Fleet { slots: (0..SLOTS).map(slot).collect(), deaths: Vec::new() }
    }

    /// The workers that run, but for those that are stopped in their tracks.
    pub fn awake(&self) -> Vec<usize> {
        (0..SLOTS).filter(|&i| self.slots[i].worker.is_some() && !self.slots[i].is_stopped).collect()
    }

    /// Starts one more worker, and says which.
    pub fn start(&mut self) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.worker.is_none())?;
        self.slots[free].start();
        Some(free)
    }

    /// Asks a worker to end, and waits until it has. What one that is stopped in its tracks has locked may keep it from committing: it
    /// then leaves what it has read to the next.
    pub fn stop(&mut self, i: usize) {
        let Some(mut worker) = self.slots[i].worker.take() else { return };
        if !self.slots.iter().any(|slot| slot.is_stopped) {
            return worker.stop();
        }
        worker.signal("TERM");
        let status = worker.wait();
        let is_left = status.code() == Some(1) && worker.log().contains("within the drain budget");
        assert!(status.success() || is_left, "worker {i} ended with {status}:\n{}", worker.log());
    }

    /// Kills a worker, and starts it again at once.
    pub fn kill(&mut self, i: usize) {
        if let Some(worker) = self.slots[i].worker.take() {
            worker.kill();
        }
        self.slots[i].start();
    }

    /// Stops a worker in its tracks, and gives its process id.
    pub fn freeze(&mut self, i: usize) -> Option<u32> {
        let slot = &mut self.slots[i];
        let worker = slot.worker.as_ref()?;
        worker.signal("STOP");
        slot.is_stopped = true;
        Some(worker.id())
    }

    pub fn thaw(&mut self, i: usize) {
        if let Some(worker) = &self.slots[i].worker {
            worker.signal("CONT");
        }
        self.slots[i].is_stopped = false;
    }

    /// The process ids of the workers that run.
    pub fn ids(&self) -> Vec<(usize, u32)> {
        let id = |i: usize| Some((i, self.slots[i].worker.as_ref()?.id()));
        (0..SLOTS).filter_map(id).collect()
    }

    /// Starts workers again that have ended without being asked to, as whatever runs them would.
    pub fn tend(&mut self) {
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let Some(status) = slot.worker.as_mut().and_then(Worker::ended) else { continue };
            let log = slot.worker.take().map(|worker| worker.log()).unwrap_or_default();
            let last =
                log.lines().rev().find(|line| line.contains("stopped by a fatal error") || line.contains("panicked"));
            self.deaths.push(format!("worker {i} ended with {status}: {}", last.or(log.lines().last()).unwrap_or("")));
            slot.start();
        }
    }

    /// What the logs say since this was last asked.
    pub fn effects(&mut self) -> Effects {
        let mut effects = Effects::new();
        for slot in &mut self.slots {
            slot.read();
            for line in std::mem::take(&mut slot.news).lines() {
                let Some((_, effect)) = MESSAGES.iter().find(|(words, _)| line.contains(words)) else { continue };
                *effects.entry((*effect).to_owned()).or_default() += 1;
                if *effect == "batches retried" {
                    let state = line.split_once("(SQLSTATE ").and_then(|(_, rest)| rest.split(')').next());
                    *effects.entry(format!("after {}", state.unwrap_or("a broken connection"))).or_default() += 1;
                }
            }
        }
        effects
    }

    /// Asks all workers to end, one after the other.
    pub fn stop_all(&mut self) {
        (0..SLOTS).for_each(|i| self.stop(i));
    }
}

impl Drop for Fleet {
    /// Where a test fails: the last lines of each log, for whoever has to find out.
    fn drop(&mut self) {
        for slot in self.slots.iter().filter(|_| std::thread::panicking()) {
            let log = std::fs::read_to_string(slot.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
            eprintln!("--- {}\n{}\n", slot.log().display(), lines[lines.len().saturating_sub(25)..].join("\n"));
        }
    }
}

impl Slot {
    fn start(&mut self) {
        self.read();
        self.read = 0;
        self.starts += 1;
        self.worker = Some(Worker::start(&self.environment, self.log()));
    }

    fn log(&self) -> PathBuf {
        self.log.with_extension(format!("{}.log", self.starts))
    }

    /// Reads whole lines that were not read yet.
    fn read(&mut self) {
        let mut text = Vec::new();
        if let Ok(mut file) = std::fs::File::open(self.log()) {
            let read = file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut text));
            read.expect("the log can be read");
        }
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        self.read += text.len() as u64;
        self.news.push_str(&String::from_utf8_lossy(&text));
    }
}

/// The url of a database, by way of a port of this machine.
fn through(url: &str, port: u16) -> String {
    let (head, rest) = url.rsplit_once('@').expect("a url with a user");
    let (_, database) = rest.split_once('/').expect("a url with a database");
    format!("{head}@127.0.0.1:{port}/{database}?sslmode=disable")
}
