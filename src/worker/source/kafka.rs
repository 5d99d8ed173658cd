//! Kafka: one member of a consumer group, on a thread of its own.
//!
//! Where reading goes on is the store's to say, never Kafka's: partitions are claimed in the store while the group
//! assigns them, and read from the offsets of the claim. Before a partition is given away the worker gets what was read of
//! it and the time to commit it.
//!
//! A worker without room is waited for. If that takes long, the partitions are paused and polling goes on, so that the
//! group does not take the member for dead. Pausing at once would be simpler, but librdkafka throws away what it has
//! fetched ahead of a paused partition.

mod aside;
mod context;
mod identity;
mod native;
mod orders;
mod outbox;
mod reach;

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message as _};
use shrinkd_core::decode_keyed;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::assembly::Assembly;
use super::{BatchLimits, Record, SourceError, SourceEvent};
use crate::config::{IngestConfig, KafkaConfig};
use crate::stream::{Claim, Topic};
use context::{Assignment, Context};
use identity::Identity;
pub use orders::Orders;
use outbox::Outbox;
pub use reach::watermarks;

/// How long a poll waits where nothing else is due.
const POLL: Duration = Duration::from_millis(100);
/// How often a worker without room is asked again.
const STALL_PACE: Duration = Duration::from_millis(2);
/// How long a worker without room is waited for before the partitions are paused.
const STALL: Duration = Duration::from_secs(1);
/// How often watermarks are told and offsets are committed.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often the same error is logged.
const WARNING: Duration = Duration::from_secs(10);

/// What must hold for the store to be the one that says where reading goes on.
const REQUIRED: [(&str, &str); 3] =
    [("enable.auto.commit", "false"), ("enable.auto.offset.store", "false"), ("auto.offset.reset", "error")];
/// What holds unless the user's properties say otherwise.
const DEFAULTS: [(&str, &str); 5] = [
    // Fetching goes on so soon after the queue was full; a second, librdkafka's own default, would let it run dry.
    ("fetch.queue.backoff.ms", "10"),
    ("isolation.level", "read_committed"),
    // A topic or a partition that is made later is found within this time.
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("queued.max.messages.kbytes", "16384"),
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// A topic to read as a member of a group.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    /// `host:port`, several with commas.
    pub brokers: String,
    pub topic: String,
    pub group: String,
    /// Any other property of librdkafka.
    pub properties: BTreeMap<String, String>,
    pub limits: BatchLimits,
    /// How long a rebalance, or the end, waits for what was read to be committed.
    pub drain_budget: Duration,
}

impl KafkaSource {
    /// The source that a configuration names.
    pub fn new(kafka: &KafkaConfig, ingest: &IngestConfig) -> KafkaSource {
        KafkaSource {
            brokers: kafka.brokers.clone(),
            topic: kafka.topic.clone(),
            group: kafka.group.clone(),
            properties: kafka.properties.expose().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            limits: BatchLimits::new(ingest),
            drain_budget: ingest.drain_budget,
        }
    }

    /// The properties of the consumer.
    ///
    /// # Errors
    /// Where the user's properties contradict what the source needs.
    fn client_config(&self) -> Result<ClientConfig, SourceError> {
        let refuse = |property: &str, instead: &str| {
            Err(SourceError::Kafka(format!("the Kafka property {property} cannot be set: {instead}")))
        };
        for (name, value) in &self.properties {
            match name.as_str() {
                "bootstrap.servers" | "metadata.broker.list" => {
                    return refuse(name, "name the brokers in their own setting");
                }
                "group.id" => return refuse(name, "name the consumer group in its own setting"),
                _ => {}
            }
            if let Some((_, required)) = REQUIRED.iter().find(|(required, _)| required == name)
                && value != required
            {
                let instead =
                    format!("it is always {required}, because the store says where reading goes on; leave it out");
                return refuse(name, &instead);
            }
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", &self.group).set("client.id", "shrinkd");
        let chosen_by_broker =
            self.properties.get("group.protocol").is_some_and(|it| it.eq_ignore_ascii_case("consumer"));
        for (name, value) in DEFAULTS {
            // Under the newer protocol the broker assigns, and librdkafka refuses to be told how.
            if !(chosen_by_broker && name == "partition.assignment.strategy") {
                config.set(name, value);
            }
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for (name, value) in REQUIRED {
            config.set(name, value);
        }
        Ok(config)
    }
}

/// Starts to read a topic on the thread `kafka-source`, and gives the way to have it do something.
///
/// `claim` is called on that thread while the group assigns partitions; it may block, and nothing is read without it. The
/// last event is [`SourceEvent::Ended`] after `stop`, or [`SourceEvent::Failed`]; the thread ends when that was received,
/// or when the receiver is gone.
///
/// # Errors
/// Where the properties are wrong or the thread cannot be started. Brokers that cannot be reached are no error: they are
/// waited for.
pub fn spawn(
    config: KafkaSource,
    claim: impl Fn(&Topic, &[i32]) -> Result<Vec<Claim>, String> + Send + 'static,
    events: mpsc::Sender<SourceEvent>,
    stop: CancellationToken,
) -> Result<(JoinHandle<()>, Orders), SourceError> {
    let client_config = config.client_config()?;
    let orders = Orders::default();
    let unmade = |error| SourceError::Kafka(format!("cannot make a Kafka consumer: {error}; check its properties"));
    let context = Context::new(Assignment {
        topic: config.topic.clone(),
        identity: Identity::new(&client_config, &config.topic).map_err(unmade)?,
        claim: Box::new(claim),
        drain_budget: config.drain_budget,
        positions: BTreeMap::new(),
        aside: BTreeMap::new(),
        assembly: Assembly::new(config.limits),
        outbox: Outbox::new(events.clone()),
        orders: orders.clone(),
        is_paused: false,
        is_ending: false,
        failure: None,
    });
    let consumer: BaseConsumer<Context> = client_config.create_with_context(context).map_err(unmade)?;
    let thread = std::thread::Builder::new()
        .name("kafka-source".to_owned())
        .spawn(move || run(consumer, &config.topic, events, &stop))
        .map_err(|error| SourceError::Kafka(format!("cannot start the thread kafka-source: {error}")))?;
    Ok((thread, orders))
}

fn run(consumer: BaseConsumer<Context>, topic: &str, events: mpsc::Sender<SourceEvent>, stop: &CancellationToken) {
    let failure = match consumer.subscribe(&[topic]) {
        Ok(()) => read(&consumer, stop),
        Err(error) => Some(SourceError::Kafka(format!("cannot subscribe to {topic}: {error}"))),
    };
    let outbox = {
        let mut assignment = consumer.context().assignment();
        let owned: Vec<i32> = assignment.positions.keys().chain(assignment.aside.keys()).copied().collect();
        assignment.give_away(&consumer, &owned);
        assignment.is_ending = true;
        std::mem::replace(&mut assignment.outbox, Outbox::new(events))
    };
    // Leaves the group. Its last rebalance finds nothing that is owned.
    drop(consumer);
    outbox.finish(failure.map_or(SourceEvent::Ended, SourceEvent::Failed));
}

/// Reads until it is told to stop, or nobody listens, or it cannot go on: then says why.
fn read(consumer: &BaseConsumer<Context>, stop: &CancellationToken) -> Option<SourceError> {
    let context = consumer.context();
    let mut housekept = Instant::now();
    let mut complaints = Complaints::default();
    while !stop.is_cancelled() {
        let timeout = {
            let mut assignment = context.assignment();
            if assignment.failure.is_some() || assignment.outbox.is_closed() {
                return assignment.failure.take();
            }
            let aside = assignment.orders.take_aside();
            assignment.set_aside(consumer, &aside);
            if housekept.elapsed() >= HOUSEKEEPING {
                housekept = Instant::now();
                assignment.commit(consumer);
                assignment.tell_high_watermarks(consumer);
                assignment.claim_again(consumer);
                if assignment.positions.is_empty() {
                    complaints.repeat();
                } else {
                    complaints.last = None;
                }
            }
            assignment.pace(consumer)
        };
        let Some(timeout) = timeout else {
            std::thread::sleep(STALL_PACE);
            continue;
        };
        match consumer.poll(timeout) {
            None => {}
            Some(Ok(message)) => {
                let record = record(&message);
                context.assignment().take(record);
            }
            Some(Err(error)) if aside::is_out_of_range(&error) => {
                if let Err(failure) = aside::stop_where_out_of_range(consumer) {
                    return Some(failure);
                }
            }
            Some(Err(error)) => match judge(consumer, &error) {
                Some(failure) => return Some(failure),
                None => complaints.make(&error, &context.reason()),
            },
        }
    }
    None
}

impl Assignment {
    /// Hands on the batch where it is due, and says how long the next poll may take; `None` to wait for the worker
    /// instead.
    fn pace(&mut self, consumer: &BaseConsumer<Context>) -> Option<Duration> {
        if !self.outbox.flush() {
            if !self.is_paused && self.outbox.stalled_for().is_none_or(|stall| stall < STALL) {
                return None;
            }
            self.pause(consumer, true);
            return Some(STALL_PACE);
        }
        if self.is_paused {
            if !self.outbox.is_half_empty() {
                return Some(STALL_PACE);
            }
            self.pause(consumer, false);
        }
        let patience = self.assembly.patience();
        if patience == Some(Duration::ZERO) {
            self.hand_on();
            return Some(Duration::ZERO);
        }
        Some(patience.map_or(POLL, |patience| patience.min(POLL)))
    }

    fn pause(&mut self, consumer: &BaseConsumer<Context>, is_paused: bool) {
        if self.is_paused == is_paused {
            return;
        }
        // Those that are set aside stay paused.
        let partitions = aside::list(&self.topic, self.positions.keys());
        let changed = if is_paused { consumer.pause(&partitions) } else { consumer.resume(&partitions) };
        match changed {
            Ok(()) => {
                tracing::info!(is_paused, "the worker has no room or has some again");
                self.is_paused = is_paused;
            }
            // Tried again at the next turn.
            Err(error) => tracing::warn!(is_paused, "cannot pause or resume the partitions: {error}"),
        }
    }
}

/// What a message says, decoded and held against its key.
fn record(message: &BorrowedMessage<'_>) -> Record {
    let (key, payload) = (message.key(), message.payload());
    let produced_at = message
        .timestamp()
        .to_millis()
        .and_then(|millis| OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        produced_at,
        key: key.map(<[u8]>::to_vec),
        payload: payload.map(|payload| Record::kept(payload).to_vec()),
        payload_bytes: payload.map_or(0, <[u8]>::len),
        message: decode_keyed(key, payload),
    }
}

/// Why an error ends the source; `None` for what passes by itself.
fn judge(consumer: &BaseConsumer<Context>, error: &KafkaError) -> Option<SourceError> {
    let reason = consumer.context().reason();
    match error {
        KafkaError::MessageConsumptionFatal(code) => Some(SourceError::Kafka(format!("{code}: {reason}"))),
        KafkaError::MessageConsumption(code) => match code {
            // Whoever went on here would pass over records.
            RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::NotImplemented => {
                Some(SourceError::Kafka(format!("records cannot be read: {code}: {reason}")))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Logs errors that pass by themselves, the same one not too often.
#[derive(Default)]
struct Complaints {
    made: BTreeMap<i32, Instant>,
    last: Option<(i32, String)>,
}

impl Complaints {
    fn make(&mut self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
        self.last = Some((code, format!("{error}: {reason}")));
        self.repeat();
    }

    /// Makes the last complaint again. librdkafka tells of a topic that is not there only once, and of brokers that are
    /// not there hardly more often.
    fn repeat(&mut self) {
        let Some((code, complaint)) = &self.last else { return };
        if self.made.get(code).is_none_or(|made| made.elapsed() >= WARNING) {
            self.made.insert(*code, Instant::now());
            tracing::warn!("{complaint}; reading goes on when this is over");
        }
    }
}
