//! Asks the brokers where the owned partitions end, to measure their lag.
//!
//! On a thread and with a client of its own, because the answer is wanted most while the consumer is paused, or its thread
//! waits for the store. It also shows whether any broker answers at all.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::client::{Quiet, client, client_of_all};
use crate::config::KafkaConfig;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Operation;
use crate::worker::source::SourceError;

/// How often the brokers are asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long they may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time until `stop` is noticed between two requests.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Starts the thread `kafka-end-offsets`, which ends after `stop`.
///
/// # Errors
/// If a property is refused or the thread cannot be started.
pub(super) fn spawn(kafka: &KafkaConfig, telemetry: Telemetry, stop: CancellationToken) -> Result<(), SourceError> {
    let (readable, all, topic) = (client(kafka)?, client_of_all(kafka)?, kafka.topic.clone());
    let run = move || {
        while !stop.is_cancelled() {
            let asked = Instant::now();
            let partitions = telemetry.lag.partitions();
            // In this order, so that what is readable is never beyond the end.
            let ends = request(&readable, &topic, &partitions)
                .and_then(|readable| Ok((readable, request(&all, &topic, &partitions)?)));
            match ends {
                Ok((readable, ends)) => {
                    telemetry.lag.readable_ends(&readable);
                    telemetry.lag.end_offsets(&ends);
                    telemetry.metrics.observe_end_offsets();
                    telemetry.health.succeeded(Operation::EndOffsets);
                }
                Err(error) => {
                    tracing::debug!("cannot ask where the partitions of {topic} end: {error}");
                    telemetry.health.failed(Operation::EndOffsets, error);
                }
            }
            // Sooner of partitions that have just been assigned: how far behind their records are decides what becomes of them.
            let lacked_ends = telemetry.lag.lacks_ends();
            while asked.elapsed() < INTERVAL && !stop.is_cancelled() && (lacked_ends || !telemetry.lag.lacks_ends()) {
                sleep(STOP_INTERVAL);
            }
        }
    };
    let thread = std::thread::Builder::new().name("kafka-end-offsets".to_owned()).spawn(run);
    thread.map(drop).map_err(|error| SourceError::Kafka(format!("cannot start the thread kafka-end-offsets: {error}")))
}

/// The ends of partitions, as the isolation level of the client lets it read them.
fn request(client: &BaseConsumer<Quiet>, topic: &str, partitions: &[i32]) -> KafkaResult<Vec<(i32, i64)>> {
    // Connection errors of this client: what matters is whether it gets an answer.
    while client.poll(Duration::ZERO).is_some() {}
    if partitions.is_empty() {
        client.fetch_metadata(Some(topic), TIMEOUT)?;
        return Ok(Vec::new());
    }
    let mut latest = TopicPartitionList::new();
    for partition in partitions {
        latest.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let answer = client.offsets_for_times(latest, TIMEOUT)?;
    answer
        .elements()
        .iter()
        .map(|element| {
            element.error()?;
            Ok((element.partition(), element.offset().to_raw().unwrap_or(-1)))
        })
        .filter(|end| !matches!(end, Ok((_, ..0))))
        .collect()
}
