//! Sends events to a Kafka topic, and knows of each one whether it arrived.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use crate::cli::CliError;

/// How long the brokers may take to say whether they have the topic.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a broker may not know yet of a topic that was made.
const NEWS: Duration = Duration::from_secs(3);
/// How long to wait for reports at a time.
const POLL: Duration = Duration::from_millis(100);

/// What holds unless `--set` says otherwise.
const DEFAULTS: [(&str, &str); 7] = [
    ("client.id", "shrinkd-simulate"),
    ("enable.idempotence", "true"),
    ("allow.auto.create.topics", "false"),
    // Where Java's producers put the same key.
    ("partitioner", "murmur2_random"),
    ("linger.ms", "5"),
    ("queue.buffering.max.kbytes", "65536"),
    // The largest message of the contract, and what is sent beside it. The broker may allow less.
    ("message.max.bytes", "2000000"),
];

pub(super) struct Producer<'a> {
    producer: BaseProducer<Reports>,
    topic: &'a str,
    pace: Pace,
    progress: ProgressBar,
    sent: u64,
}

/// What became of the messages.
#[derive(Default)]
struct Reports(Mutex<Undelivered>);

#[derive(Default)]
struct Undelivered {
    count: u64,
    /// Why the first one was not delivered.
    reason: Option<KafkaError>,
}

impl ClientContext for Reports {
    /// What goes wrong for good is in the reports; librdkafka's own log would tear the progress display.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.note(error.clone());
        }
    }
}

impl Reports {
    fn note(&self, error: KafkaError) {
        let mut undelivered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        undelivered.count += 1;
        undelivered.reason.get_or_insert(error);
    }
}

impl<'a> Producer<'a> {
    /// Connects to the brokers, at `rate` events a second or as fast as they are taken.
    ///
    /// # Errors
    /// Where a property is wrong, no broker answers, or the topic is not there: it is not made.
    pub(super) fn connect(
        brokers: &str,
        topic: &'a str,
        properties: &[(String, String)],
        rate: Option<f64>,
    ) -> Result<Producer<'a>, CliError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        for (name, value) in DEFAULTS {
            config.set(name, value);
        }
        for (name, value) in properties {
            config.set(name, value);
        }
        let producer: BaseProducer<Reports> = config
            .create_with_context(Reports::default())
            .map_err(|error| CliError::Usage(format!("{error}; check what --set says")))?;
        check_topic(&producer, topic)
            .map_err(|reason| CliError::Kafka(format!("cannot send to the topic {topic} on {brokers}: {reason}")))?;
        Ok(Producer { producer, topic, pace: Pace::new(rate), progress: progress(), sent: 0 })
    }

    /// Sends one message when it is due; a payload of `None` is a tombstone.
    ///
    /// # Errors
    /// Where the producer cannot go on at all. What is wrong with one message alone is told at the end.
    pub(super) fn send(&mut self, key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<(), CliError> {
        while let Some(wait) = self.pace.wait() {
            self.producer.poll(wait.min(POLL));
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(self.topic);
        (record.key, record.payload) = (key, payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => {
                    self.producer.context().note(error);
                    break;
                }
            }
        }
        self.sent += 1;
        self.pace.step();
        self.progress.inc(1);
        self.producer.poll(Duration::ZERO);
        match self.producer.client().fatal_error() {
            Some((code, reason)) => Err(CliError::Kafka(format!("the producer cannot go on: {code}: {reason}"))),
            None => Ok(()),
        }
    }

    /// Waits until each message is reported on, and gives their number.
    ///
    /// # Errors
    /// Where messages were not delivered: how many, and why the first one was not.
    pub(super) fn finish(self) -> Result<u64, CliError> {
        // librdkafka gives up each message after message.timeout.ms.
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(POLL);
        }
        self.progress.finish_and_clear();
        let undelivered = self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner);
        match &undelivered.reason {
            None => Ok(self.sent),
            Some(reason) => Err(CliError::Kafka(format!(
                "{} of {} events were not delivered to {}, the first because of this: {reason}",
                undelivered.count, self.sent, self.topic
            ))),
        }
    }
}

/// Makes sure that the topic is there. A topic that was made just now may be news to the broker that answers: it is asked
/// again for a while.
fn check_topic(producer: &BaseProducer<Reports>, topic: &str) -> Result<(), String> {
    let deadline = Instant::now() + NEWS;
    loop {
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), PATIENCE)
            .map_err(|error| format!("{error}; check that a broker listens there"))?;
        match metadata.topics().iter().find_map(|topic| topic.error()) {
            None => return Ok(()),
            Some(_) if Instant::now() < deadline => std::thread::sleep(POLL),
            Some(error) => {
                return Err(format!("{}; nothing is made here: make it first", RDKafkaErrorCode::from(error)));
            }
        }
    }
}

/// Keeps to a rate over the whole run: what comes late is made up for.
struct Pace {
    interval: Option<Duration>,
    due: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Pace {
        Pace { interval: rate.map(|rate| Duration::from_secs_f64(rate.recip())), due: Instant::now() }
    }

    /// How long until the next message is due; `None` when it is.
    fn wait(&self) -> Option<Duration> {
        self.interval.and_then(|_| self.due.checked_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn step(&mut self) {
        self.due += self.interval.unwrap_or_default();
    }
}

/// A count on stderr where that is a terminal.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} events sent, {per_sec:0}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
