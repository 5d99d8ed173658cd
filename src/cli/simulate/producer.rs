//! Sends events to a Kafka topic, and counts those that were not delivered.

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
use crate::config::Properties;

/// How long the brokers may take to answer whether they have the topic.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a broker may take to learn of a topic that was just created.
const METADATA_DELAY: Duration = Duration::from_secs(3);
/// How long to wait for delivery reports at a time.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Properties unless `--set` sets them.
const DEFAULTS: [(&str, &str); 7] = [
    ("client.id", "shrinkd-simulate"),
    ("enable.idempotence", "true"),
    ("allow.auto.create.topics", "false"),
    // The partition that Java's producers choose for the same key.
    ("partitioner", "murmur2_random"),
    ("linger.ms", "5"),
    ("queue.buffering.max.kbytes", "65536"),
    // The largest message of the contract, and its overhead. The broker may allow less.
    ("message.max.bytes", "2000000"),
];

pub(super) struct Producer<'a> {
    producer: BaseProducer<Reports>,
    topic: &'a str,
    rate: RateLimit,
    progress: ProgressBar,
    sent: u64,
}

/// The delivery reports of the messages.
#[derive(Default)]
struct Reports(Mutex<Undelivered>);

#[derive(Default)]
struct Undelivered {
    count: u64,
    /// Why the first one was not delivered.
    reason: Option<KafkaError>,
}

impl ClientContext for Reports {
    /// Errors that last are in the delivery reports; librdkafka's log would garble the progress display.
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
    /// Connects to the brokers, to send `rate` events a second, or as many as they take.
    ///
    /// # Errors
    /// If a property is wrong, no broker answers, or the topic does not exist: it is not created.
    pub(super) fn connect(
        brokers: &str,
        topic: &'a str,
        properties: &Properties,
        rate: Option<f64>,
    ) -> Result<Producer<'a>, CliError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        for (name, value) in DEFAULTS {
            config.set(name, value);
        }
        properties.check().map_err(|error| CliError::Usage(format!("--set: {error}")))?;
        for (name, value) in properties.expose() {
            config.set(name, value);
        }
        let producer: BaseProducer<Reports> = config.create_with_context(Reports::default()).map_err(|error| {
            CliError::Usage(format!("{}; check the values of --set", properties.redact(&error.to_string())))
        })?;
        check_topic(&producer, topic)
            .map_err(|reason| CliError::Kafka(format!("cannot send to the topic {topic} on {brokers}: {reason}")))?;
        Ok(Producer { producer, topic, rate: RateLimit::new(rate), progress: progress(), sent: 0 })
    }

    /// Sends one message when it is due; a payload of `None` is a tombstone.
    ///
    /// # Errors
    /// If the producer cannot continue at all. Errors of single messages are reported by [`Producer::finish`].
    pub(super) fn send(&mut self, key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<(), CliError> {
        while let Some(wait) = self.rate.wait() {
            self.producer.poll(wait.min(POLL_TIMEOUT));
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(self.topic);
        (record.key, record.payload) = (key, payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    self.producer.poll(POLL_TIMEOUT);
                }
                Err((error, _)) => {
                    self.producer.context().note(error);
                    break;
                }
            }
        }
        self.sent += 1;
        self.rate.step();
        self.progress.inc(1);
        self.producer.poll(Duration::ZERO);
        match self.producer.client().fatal_error() {
            Some((code, reason)) => Err(CliError::Kafka(format!("the producer cannot continue: {code}: {reason}"))),
            None => Ok(()),
        }
    }

    /// Waits for the delivery report of each message, and returns how many were sent.
    ///
    /// # Errors
    /// If messages were not delivered: how many, and why the first one was not.
    pub(super) fn finish(self) -> Result<u64, CliError> {
        // librdkafka gives up on each message after message.timeout.ms.
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(POLL_TIMEOUT);
        }
        self.progress.finish_and_clear();
        let undelivered = self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner);
        match &undelivered.reason {
            None => Ok(self.sent),
            Some(reason) => Err(CliError::Kafka(format!(
                "{} of {} events were not delivered to {}; the first failed with: {reason}",
                undelivered.count, self.sent, self.topic
            ))),
        }
    }
}

/// Checks that the topic exists. The broker that answers may not have learnt yet of one that was just created, so it is
/// asked again for a while.
fn check_topic(producer: &BaseProducer<Reports>, topic: &str) -> Result<(), String> {
    let deadline = Instant::now() + METADATA_DELAY;
    loop {
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
            .map_err(|error| format!("{error}; check that a broker listens there"))?;
        match metadata.topics().iter().find_map(|topic| topic.error()) {
            None => return Ok(()),
            Some(_) if Instant::now() < deadline => std::thread::sleep(POLL_TIMEOUT),
            Some(error) => {
                return Err(format!("{}; create the topic first", RDKafkaErrorCode::from(error)));
            }
        }
    }
}

/// Keeps to a rate on average over the whole run: delays are made up for.
struct RateLimit {
    interval: Option<Duration>,
    due: Instant,
}

impl RateLimit {
    fn new(rate: Option<f64>) -> RateLimit {
        RateLimit { interval: rate.map(|rate| Duration::from_secs_f64(rate.recip())), due: Instant::now() }
    }

    /// How long until the next message is due; `None` when it is.
    fn wait(&self) -> Option<Duration> {
        self.interval.and_then(|_| self.due.checked_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn step(&mut self) {
        self.due += self.interval.unwrap_or_default();
    }
}

/// A count on stderr if that is a terminal.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} events sent, {per_sec:0}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
