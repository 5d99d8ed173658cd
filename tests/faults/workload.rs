//! What is sent: the simulated traffic of a platform without an end, and everything that producers do to it.
//!
//! Whatever is sent of an experiment goes to one partition, so that its order is the same for everybody who reads the
//! topic. Where partitions are added, experiments move to others in the middle of what is said of them: revisions do not
//! mind that, but tombstones and revision conflicts would, so that experiments which have those stay where they began.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use shrinkd::simulate::portfolio::Messages;
use shrinkd::simulate::{Draws, Portfolio};

/// Bad results, one a line, each with the reason for which it is refused.
const BAD_RESULTS: &str = include_str!("../data/bad_results.ndjson");

/// A message to send.
pub struct Sent {
    /// Decides on the partition.
    pub hash: u64,
    /// Never moves to another partition.
    pub stays: bool,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
}

/// What becomes of an experiment beyond what the portfolio does to it.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    /// A tombstone after each message, and then the message again at revision 0, which counts only because the tombstone
    /// has come before it.
    Tombstone,
    /// The same revision with other content: refused.
    Conflict,
    /// A larger revision, before or after.
    Revision,
    /// One metric is retracted by a larger revision, and comes back by one that is larger still.
    Retraction,
    None,
}

/// An endless stream.
pub struct Workload {
    messages: Messages,
    draws: Draws,
    /// Messages under way, by when they arrive.
    queue: BTreeMap<(u64, u64), Sent>,
    /// When the last message of an experiment that stays arrives: those keep their order.
    latest: HashMap<u64, u64>,
    now: u64,
    count: u64,
    bad_results: Vec<&'static str>,
}

impl Workload {
    pub fn new(seed: u64) -> Workload {
        let portfolio = Portfolio { experiments: 100_000_000, ..Portfolio::default() };
        let bad_results = BAD_RESULTS.lines().filter_map(|line| line.split_once("\"result\":")?.1.strip_suffix('}'));
        Workload {
            messages: portfolio.messages(seed),
            draws: Draws::new(seed, 1),
            queue: BTreeMap::new(),
            latest: HashMap::new(),
            now: 0,
            count: 0,
            bad_results: bad_results.collect(),
        }
    }

    /// Lets one message of the portfolio in, with what follows from it.
    fn draw(&mut self) {
        let Some(message) = self.messages.next() else { return };
        let mut event = serde_json::to_value(&message).expect("messages are JSON");
        let id = message.experiment_id().to_owned();
        let hash = hash(id.as_bytes());
        let trouble = match (hash >> 8) % 20 {
            _ if event.get("event_id").is_some() => Trouble::None,
            0..2 => Trouble::Tombstone,
            2 => Trouble::Conflict,
            3..8 => Trouble::Revision,
            8 => Trouble::Retraction,
            _ => Trouble::None,
        };
        let revision = event["revision"].as_u64().unwrap_or(0);
        let bytes = event.to_string().into_bytes();
        match trouble {
            Trouble::Tombstone => {
                self.send(&id, true, 0, Some(bytes));
                let is_null = self.draws.chance(0.5);
                let json = format!("{{\"schema_version\":1,\"experiment_id\":\"{id}\",\"retracted\":true}}");
                self.send(&id, true, 20, (!is_null).then(|| json.into_bytes()));
                event["revision"] = 0.into();
                self.send(&id, true, 20, Some(event.to_string().into_bytes()));
            }
            Trouble::Conflict => {
                self.send(&id, true, 0, Some(bytes));
                vary(&mut event, 1.5);
                self.send(&id, true, 20, Some(event.to_string().into_bytes()));
            }
            Trouble::Revision => {
                self.send(&id, false, 30, Some(bytes));
                vary(&mut event, 1.25);
                event["revision"] = (revision + 10).into();
                self.send(&id, false, 60, Some(event.to_string().into_bytes()));
            }
            Trouble::Retraction => {
                self.send(&id, false, 10, Some(bytes));
                let back = event.clone();
                event["results"] = serde_json::json!([{"metric": "conversion", "status": "retracted"}]);
                event["revision"] = (revision + 20).into();
                self.send(&id, false, 40, Some(event.to_string().into_bytes()));
                if self.draws.chance(0.5) {
                    self.send(&id, false, 40, Some(Value::to_string(&with_revision(back, revision + 30)).into_bytes()));
                }
            }
            Trouble::None => {
                if self.draws.chance(0.08) {
                    self.send(&id, false, 50, Some(bytes.clone()));
                }
                self.send(&id, false, 10, Some(bytes));
            }
        }
        if self.draws.chance(0.02) {
            self.send_bad();
        }
    }

    /// One of the many ways in which a message is bad; a good result beside a bad one is taken.
    fn send_bad(&mut self) {
        let id = format!("bad-{}", self.count);
        let good = r#"{"metric":"beside","effects":[{"variant":"v1","estimate":0.5,"variance":0.25}]}"#;
        let event = |id: &str, results: &str| {
            format!(
                "{{\"schema_version\":1,\"experiment_id\":\"{id}\",\"revision\":1,\
                 \"completed_at\":\"2026-05-01T00:00:00Z\",\"results\":[{results}]}}"
            )
        };
        let whole = event(&id, good).into_bytes();
        let (key, payload) = match (self.draws.uniform() * 16.0) as u32 {
            0 => (Some(id.clone()), whole[..whole.len() / 2].to_vec()),
            1 => (Some(id.clone()), [&whole[..40], b"\xff\xfe", &whole[40..]].concat()),
            2 => (Some(id.clone()), b"[".repeat(50_000)),
            3 => (Some(id.clone()), event(&id, good).replace("_version\":1", "_version\":9").into_bytes()),
            4 => (Some("another".to_owned()), whole),
            5 => (None, whole),
            6 => (Some(id.clone()), event(&"x".repeat(600), good).into_bytes()),
            7 => (Some(id.clone()), Vec::new()),
            8 if self.draws.chance(0.2) => (Some(id.clone()), event(&id, &" ".repeat(1 << 20)).into_bytes()),
            _ => {
                let bad = self.draws.pick(&self.bad_results).expect("some are there");
                (Some(id.clone()), event(&id, &format!("{bad},{good}")).into_bytes())
            }
        };
        self.push(
            0,
            Sent { hash: hash(id.as_bytes()), stays: true, key: key.map(String::into_bytes), payload: Some(payload) },
        );
    }

    /// Sends a message of an experiment, at once or up to so many messages later.
    fn send(&mut self, id: &str, stays: bool, delay: u64, payload: Option<Vec<u8>>) {
        let hash = hash(id.as_bytes());
        let mut at = self.now + (self.draws.uniform() * (delay + 1) as f64) as u64;
        if stays {
            at = at.max(self.latest.get(&hash).copied().unwrap_or(0));
            self.latest.insert(hash, at);
        }
        self.push(at, Sent { hash, stays, key: Some(id.as_bytes().to_vec()), payload });
    }

    fn push(&mut self, at: u64, sent: Sent) {
        self.count += 1;
        self.queue.insert((at, self.count), sent);
    }
}

impl Iterator for Workload {
    type Item = Sent;

    fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(first) = self.queue.first_entry().filter(|first| first.key().0 < self.now) {
                return Some(first.remove());
            }
            self.draw();
            self.now += 1;
            if self.now.is_multiple_of(1_000) {
                let now = self.now;
                self.latest.retain(|_, at| *at + 1_000 > now);
            }
        }
    }
}

/// Other figures for every effect and every treatment's mean, so that it is another statement.
fn vary(event: &mut Value, factor: f64) {
    let figures = [
        ("treatments", &["mean", "sum"][..]),
        // An interval around another estimate would be refused.
        ("effects", &["estimate", "ci_low", "ci_high"]),
    ];
    for result in event["results"].as_array_mut().into_iter().flatten() {
        for (list, figures) in figures {
            for arm in result.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for figure in figures {
                    if let Some(value) = arm.get(figure).and_then(Value::as_f64) {
                        arm[figure] = (value * factor).into();
                    }
                }
            }
        }
    }
}

fn with_revision(mut event: Value, revision: u64) -> Value {
    event["revision"] = revision.into();
    event
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
