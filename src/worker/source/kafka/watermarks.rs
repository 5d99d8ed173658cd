//! Which offsets the brokers hold of a topic.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::claimer::identify;
use super::client::client;
use crate::config::KafkaConfig;
use crate::stream::{NextOffset, Topic, Watermarks};
use crate::worker::source::SourceError;

/// How long the broker may take to answer for one partition.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while the group waits for this member's next poll.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the brokers for the topic's identity and for the watermarks of each of its partitions: the first offset that it
/// holds, and the one that its next record will get. No group is joined.
///
/// # Errors
/// If a property is refused, or the brokers do not answer or have no such topic.
pub fn watermarks(kafka: &KafkaConfig) -> Result<(Topic, Watermarks), SourceError> {
    let client = client(kafka)?;
    let topic = identify(&client, &kafka.topic)?;
    let mut watermarks = Watermarks::new();
    // The partitions of a topic are numbered from 0.
    for partition in 0..i32::try_from(topic.partitions).unwrap_or(i32::MAX) {
        watermarks.insert(partition, fetch(&client, kafka, partition)?);
    }
    Ok((topic, watermarks))
}

/// The topic's identity and the watermarks of one partition, see [`watermarks`].
///
/// # Errors
/// As for [`watermarks`].
pub fn partition_watermarks(kafka: &KafkaConfig, partition: i32) -> Result<(Topic, (i64, i64)), SourceError> {
    let client = client(kafka)?;
    Ok((identify(&client, &kafka.topic)?, fetch(&client, kafka, partition)?))
}

/// The partitions whose next offset the broker does not have, any more or yet, each with a sentence for the operator; and whether
/// the broker answered for all of them.
pub(super) fn out_of_range(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    positions: &BTreeMap<i32, Option<NextOffset>>,
) -> (Vec<(i32, String)>, bool) {
    let mut has_all = true;
    let detail = |(&partition, position): (&i32, &Option<NextOffset>)| {
        let NextOffset(next) = (*position)?;
        let watermarks = consumer.fetch_watermarks(topic, partition, CONSUMER_TIMEOUT);
        has_all &= watermarks.is_ok();
        let (low, high) = watermarks.ok()?;
        let detail = format!(
            "partition {partition} of {topic} continues at offset {next}, but the broker has {low} to {high}: the records in \
             between are lost, or the topic was created again. Nothing is skipped automatically: find out what is missing, \
             then move the partition with `shrinkd partitions skip {partition} --to OFFSET --because REASON`, which \
             records the gap in skipped_offsets"
        );
        (!(low..=high).contains(&next)).then_some((partition, detail))
    };
    let found = positions.iter().filter_map(detail).collect();
    (found, has_all)
}

fn fetch(
    client: &BaseConsumer<impl ConsumerContext>,
    KafkaConfig { brokers, topic, .. }: &KafkaConfig,
    partition: i32,
) -> Result<(i64, i64), SourceError> {
    client.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).map_err(|error| {
        SourceError::Kafka(format!(
            "cannot fetch the watermarks of partition {partition} of {topic} from {brokers}: {error}; try again when the \
             brokers answer"
        ))
    })
}
