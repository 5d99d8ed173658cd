//! Events for one topic: a few at once, or a steady stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::common::topic::Topic;

/// How long what was sent may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends events until it is dropped.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// How many of each hundred messages are invalid.
    refused: AtomicU64,
}

impl Load {
    /// Starts to send `rate` messages a second.
    pub fn start(topic: &Topic, rate: u32) -> Load {
        let (producer, name) = (producer(topic), topic.name.clone());
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                if own.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let is_refused = number % 100 < own.refused.load(Ordering::Relaxed);
                send(&producer, &name, &event(&name, number, is_refused));
                producer.poll(Duration::ZERO);
                std::thread::sleep(Duration::from_secs(1) / rate);
            }
        });
        Load { shared, thread: Some(thread) }
    }

    /// Sets how many of each hundred messages are invalid, and will be refused.
    pub fn set_refused(&self, percent: u64) {
        self.shared.refused.store(percent, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends `count` messages, and waits until they are delivered.
pub fn produce(topic: &Topic, what: &str, count: u64, is_refused: bool) {
    let producer = producer(topic);
    for number in 0..count {
        send(&producer, &topic.name, &event(what, number, is_refused));
    }
    producer.flush(TIMEOUT).expect("they arrive");
}

/// Sends an event for each of `count` populations.
pub fn produce_populations(topic: &Topic, count: u64) {
    let producer = producer(topic);
    for number in 0..count {
        let (key, payload) = event("population", number, false);
        let payload = payload.replace(r#""metric":"m""#, &format!(r#""metric":"m{number}""#));
        send(&producer, &topic.name, &(key, payload));
    }
    producer.flush(TIMEOUT).expect("they arrive");
}

/// Sends an event of a new experiment for each of these z.
pub fn produce_z(topic: &Topic, what: &str, z: impl IntoIterator<Item = f64>) {
    let producer = producer(topic);
    for (number, z) in (0..).zip(z) {
        send(&producer, &topic.name, &event_of(what, number, 0.5 * z, 0.25));
    }
    producer.flush(TIMEOUT).expect("they arrive");
}

/// Sends messages in one transaction after another, which end like this, or stay open. Where the last ones are aborted, the last
/// offsets of each partition are control records, and records that no consumer gets.
pub fn produce_in_transactions(topic: &Topic, count: u64, ends: &[&str]) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &topic.brokers)
        .set("transactional.id", &topic.name)
        .set("transaction.timeout.ms", "900000")
        .create()
        .expect("a producer");
    producer.init_transactions(TIMEOUT).expect("transactions");
    for &end in ends {
        producer.begin_transaction().expect("a transaction");
        for number in 0..count {
            send(&producer, &topic.name, &event(end, number, false));
        }
        producer.flush(TIMEOUT).expect("they arrive");
        match end {
            "committed" => producer.commit_transaction(TIMEOUT).expect("it is committed"),
            "aborted" => producer.abort_transaction(TIMEOUT).expect("it is aborted"),
            _ => {}
        }
    }
    producer
}

fn producer(topic: &Topic) -> BaseProducer {
    ClientConfig::new().set("bootstrap.servers", &topic.brokers).set("linger.ms", "5").create().expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, (key, payload): &(String, String)) {
    // The queue is full while the broker is down: then the message is dropped.
    let _ = producer.send(BaseRecord::to(topic).key(key).payload(payload));
}

/// An event of a new experiment, which is refused for its negative variance if it is to be.
fn event(what: &str, number: u64, is_refused: bool) -> (String, String) {
    event_of(what, number, (number % 7) as f64 / 10.0, if is_refused { -1.0 } else { 0.25 })
}

fn event_of(what: &str, number: u64, estimate: f64, variance: f64) -> (String, String) {
    let key = format!("{what}-{number}");
    let effects = format!(r#"{{"variant":"v","estimate":{estimate},"variance":{variance}}}"#);
    let payload = format!(
        r#"{{"schema_version":1,"experiment_id":"{key}","revision":1,"completed_at":"2026-05-01T00:00:00Z","results":[{{"metric":"m","effects":[{effects}]}}]}}"#
    );
    (key, payload)
}
