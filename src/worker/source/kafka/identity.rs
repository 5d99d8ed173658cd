//! Which topic is read: under the same name there may be another one by now.
//!
//! A client of its own asks. A request of the consumer would wait behind the fetches on its connection: half a second where
//! nothing comes.

use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, ClientContext};

use super::native;
use crate::stream::Topic;
use crate::worker::source::SourceError;

/// How long the broker may take to say which topic it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon it is asked again.
const PACE: Duration = Duration::from_millis(200);
/// How long it may take to say so while a batch waits for that.
const CONFIRMATION: Duration = Duration::from_secs(2);

pub(super) struct Identity {
    client: BaseConsumer<Quiet>,
    name: String,
    /// The id under which partitions were claimed.
    claimed: Option<String>,
}

impl Identity {
    /// Of a topic, to be learnt from the brokers that a consumer reads from.
    pub(super) fn new(consumer: &ClientConfig, name: &str) -> KafkaResult<Identity> {
        let mut config = consumer.clone();
        config.remove("group.id");
        Ok(Identity { client: config.create_with_context(Quiet)?, name: name.to_owned(), claimed: None })
    }

    pub(super) fn learn(&self) -> Result<Topic, SourceError> {
        identify(&self.client, &self.name)
    }

    /// Notes under which id partitions were claimed.
    pub(super) fn claimed(&mut self, topic: Topic) {
        self.claimed = Some(topic.id);
    }

    /// Whether the topic is still the one that was claimed.
    pub(super) fn is_still(&self) -> Result<bool, String> {
        // What this client has to say of brokers that come and go, the consumer says too.
        while self.client.poll(Duration::ZERO).is_some() {}
        let topic = ask(&self.client, &self.name, CONFIRMATION)?;
        Ok(self.claimed.as_ref() == Some(&topic.id))
    }
}

/// Asks the brokers which topic this is. Asks again where there is no answer, because brokers come and go.
pub(super) fn identify<C: ConsumerContext>(consumer: &BaseConsumer<C>, name: &str) -> Result<Topic, SourceError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask(consumer, name, deadline.saturating_duration_since(Instant::now())) {
            Ok(topic) => return Ok(topic),
            Err(reason) if Instant::now() < deadline => {
                tracing::warn!("cannot learn the id of the topic {name}: {reason}; asking again");
                std::thread::sleep(PACE);
            }
            Err(reason) => {
                let then = "start again when the brokers answer";
                return Err(SourceError::Kafka(format!("cannot learn the id of the topic {name}: {reason}; {then}")));
            }
        }
    }
}

fn ask<C: ConsumerContext>(consumer: &BaseConsumer<C>, name: &str, timeout: Duration) -> Result<Topic, String> {
    let client = consumer.client();
    let cluster_id = client.fetch_cluster_id(timeout).ok_or("no broker says which cluster it is")?;
    let metadata = client.fetch_metadata(Some(name), timeout).map_err(|error| error.to_string())?;
    // The one that has just answered, where it was known by its number already.
    let known = metadata.brokers().first().map(|broker| broker.id());
    let broker = Some(metadata.orig_broker_id()).filter(|id| *id >= 0).or(known).ok_or("no broker is known")?;
    let id = native::topic_id(client.native_client(), broker, name, timeout)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    Ok(Topic { cluster_id, name: name.to_owned(), id, partitions })
}

/// Of a client beside the consumer, which would say everything twice.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka, asking for the topic: {message}");
    }

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}
