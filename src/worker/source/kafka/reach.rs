//! How far a topic reaches, for whoever reads nothing of it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::KafkaSource;
use super::identity::identify;
use crate::stream::Topic;
use crate::worker::source::SourceError;

/// How long the broker may take for one partition.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the brokers which topic this is, and of each of its partitions for the first offset that is there and the next that
/// will be. No group is joined.
///
/// # Errors
/// Where the properties are wrong, the brokers do not answer, or have no such topic.
pub fn watermarks(source: &KafkaSource) -> Result<(Topic, BTreeMap<i32, (i64, i64)>), SourceError> {
    let consumer: BaseConsumer = source
        .client_config()?
        .create()
        .map_err(|error| SourceError::Kafka(format!("cannot make a Kafka consumer: {error}; check its properties")))?;
    let topic = identify(&consumer, &source.topic)?;
    let mut watermarks = BTreeMap::new();
    // The partitions of a topic are numbered from 0.
    for partition in 0..i32::try_from(topic.partitions).unwrap_or(i32::MAX) {
        let found = consumer.fetch_watermarks(&topic.name, partition, PATIENCE).map_err(|error| {
            let at = format!("partition {partition} of {} at {}", topic.name, source.brokers);
            SourceError::Kafka(format!("cannot learn how far {at} reaches: {error}; try again when the brokers answer"))
        })?;
        watermarks.insert(partition, found);
    }
    Ok((topic, watermarks))
}
