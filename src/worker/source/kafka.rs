//! Kafka: one member of a consumer group, on a thread of its own.
//!
//! The store decides where reading continues, never Kafka: partitions are claimed in the store while the group assigns
//! them, and read at the offsets of the claims. Before a partition is revoked, the worker gets what was read of it and the
//! time to commit it.
//!
//! Back pressure: while the worker's channel is full, the source waits for it. If that takes long, it pauses the partitions
//! and goes on polling, so that the group does not take the member for dead. Pausing at once would be simpler, but
//! librdkafka discards what it has fetched ahead of a paused partition.

mod assignment;
mod claimer;
mod client;
mod commands;
mod context;
mod end_offsets;
mod errors;
mod native;
mod outbox;
mod partitions;
mod probe;
mod range;
mod watermarks;

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use shrinkd_core::{KeyRule, decode_keyed};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::assembly::Assembly;
use super::{BatchLimits, Record, SourceError, SourceEvent};
use crate::config::{IngestConfig, KafkaConfig};
use crate::stream::{Claim, Topic};
use crate::telemetry::Telemetry;
use assignment::{Assignment, FULL_POLL_INTERVAL};
use claimer::Claimer;
pub use commands::Commands;
use context::Context;
use errors::{RateLimitedLog, Severity, severity};
use outbox::Outbox;
pub use probe::{Probe, Right};
pub use range::{RecordRange, read_range};
pub use watermarks::{partition_watermarks, watermarks};

/// How often offsets are committed to Kafka, and parked partitions claimed.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// A topic to read as a member of a group.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    pub kafka: KafkaConfig,
    pub limits: BatchLimits,
    /// How long a rebalance, or the end, waits for the worker to commit what was read.
    pub drain_budget: Duration,
}

impl KafkaSource {
    /// The source of a configuration.
    pub fn new(kafka: &KafkaConfig, ingest: &IngestConfig) -> KafkaSource {
        KafkaSource { kafka: kafka.clone(), limits: BatchLimits::new(ingest), drain_budget: ingest.drain_budget }
    }
}

/// Starts to read a topic on the thread `kafka-source`, and returns the way to send it commands.
///
/// `claim` is called on that thread while the group assigns partitions. It may block, and nothing is read without it. The
/// last event is [`SourceEvent::Ended`] after `stop`, or [`SourceEvent::Failed`]; the thread ends once it was received, or
/// when the receiver is gone.
///
/// # Errors
/// If a property is refused or the thread cannot be started. Brokers that cannot be reached are no error: the source waits
/// for them.
pub fn spawn(
    config: KafkaSource,
    claim: impl Fn(&Topic, &[i32]) -> Result<Vec<Claim>, SourceError> + Send + 'static,
    events: mpsc::Sender<SourceEvent>,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> Result<(JoinHandle<()>, Commands), SourceError> {
    let KafkaSource { kafka, limits, drain_budget } = config;
    let commands = Commands::default();
    let assignment = Assignment::new(
        kafka.topic.clone(),
        Claimer::new(&kafka, claim)?,
        Assembly::new(limits),
        Outbox::new(events),
        commands.clone(),
        telemetry.clone(),
        drain_budget,
    );
    end_offsets::spawn(&kafka, telemetry, stop.clone())?;
    let consumer = client::consumer(&kafka, Context::new(assignment, kafka.properties.clone()))?;
    let thread = std::thread::Builder::new()
        .name("kafka-source".to_owned())
        .spawn(move || run(consumer, &kafka, &stop))
        .map_err(|error| SourceError::Kafka(format!("cannot start the thread kafka-source: {error}")))?;
    Ok((thread, commands))
}

fn run(consumer: BaseConsumer<Context>, kafka: &KafkaConfig, stop: &CancellationToken) {
    let failure = match consumer.subscribe(&[&kafka.topic]) {
        Ok(()) => read(&consumer, kafka.key, stop),
        Err(error) => Some(SourceError::Kafka(format!("cannot subscribe to {}: {error}", kafka.topic))),
    };
    let outbox = consumer.context().assignment().stop(&consumer);
    outbox.finish(failure.map_or(SourceEvent::Ended, SourceEvent::Failed));
    // Leaves the group, which can take seconds; the worker has ended by then. Its last rebalance finds no partition to revoke.
    drop(consumer);
}

/// Reads until it is stopped, the worker is gone, or the source cannot continue: then it returns why.
fn read(consumer: &BaseConsumer<Context>, key: KeyRule, stop: &CancellationToken) -> Option<SourceError> {
    let context = consumer.context();
    let mut last_housekeeping = Instant::now();
    let mut log = RateLimitedLog::default();
    while !stop.is_cancelled() {
        let timeout = {
            let mut assignment = context.assignment();
            if assignment.is_over() {
                return assignment.take_failure();
            }
            assignment.park_as_commanded(consumer);
            if last_housekeeping.elapsed() >= HOUSEKEEPING_INTERVAL {
                last_housekeeping = Instant::now();
                assignment.commit_offsets(consumer);
                assignment.claim_parked(consumer);
                if assignment.is_reading() { log.clear() } else { log.repeat() }
            }
            assignment.poll_timeout(consumer)
        };
        let Some(timeout) = timeout else {
            std::thread::sleep(FULL_POLL_INTERVAL);
            continue;
        };
        match consumer.poll(timeout) {
            None => {}
            Some(Ok(message)) => context.assignment().accept(record(&message, key)),
            Some(Err(KafkaError::PartitionEOF(partition))) => context.assignment().reach_end(partition),
            Some(Err(error)) => {
                let reason = context.reason();
                match severity(&error, &reason) {
                    Severity::Transient => {
                        log.warn(&error, &reason);
                        context.assignment().report_joining(&format!("{error}: {reason}"));
                    }
                    Severity::Refused => {
                        log.warn(&error, &reason);
                        context.assignment().park_refused(consumer, &format!("{error}: {reason}"));
                    }
                    Severity::Fatal(failure) => return Some(failure),
                    Severity::OutOfRange => {
                        if let Err(failure) = context.assignment().park_out_of_range(consumer, &reason) {
                            return Some(failure);
                        }
                    }
                }
            }
        }
    }
    None
}

/// A message, decoded and checked against its key. Its bytes are kept as they came, in their frame if they have one.
fn record(message: &BorrowedMessage<'_>, rule: KeyRule) -> Record {
    let (key, payload) = (message.key(), message.payload());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        produced_at: produced_at(message),
        key: key.map(<[u8]>::to_vec),
        payload: payload.map(|payload| Record::kept(payload).to_vec()),
        payload_bytes: payload.map_or(0, <[u8]>::len),
        message: decode_keyed(rule, key, payload),
    }
}

/// When a message was produced.
fn produced_at(message: &BorrowedMessage<'_>) -> Option<OffsetDateTime> {
    let millis = message.timestamp().to_millis()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}
