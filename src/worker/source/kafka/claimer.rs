//! Claims partitions in the store under the identity of their topic: a topic that is deleted and created again has the
//! same name and another id.
//!
//! A client of its own asks for the identity. A request of the consumer would wait behind the fetches on its connection,
//! which take half a second while no records arrive.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::client::{Quiet, client};
use super::native;
use crate::config::KafkaConfig;
use crate::stream::{Claim, Topic};
use crate::worker::source::SourceError;

/// How long the brokers may take to identify the topic, over all attempts.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long they may take to confirm the topic's id while a batch waits for it.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// Claims partitions of a topic in the store.
type ClaimPartitions = Box<dyn Fn(&Topic, &[i32]) -> Result<Vec<Claim>, SourceError> + Send>;

pub(super) struct Claimer {
    client: BaseConsumer<Quiet>,
    topic: String,
    claim: ClaimPartitions,
    /// The topic's id when partitions were last claimed.
    claimed_id: Option<String>,
}

impl Claimer {
    /// # Errors
    /// If a property is refused.
    pub(super) fn new(
        kafka: &KafkaConfig,
        claim: impl Fn(&Topic, &[i32]) -> Result<Vec<Claim>, SourceError> + Send + 'static,
    ) -> Result<Claimer, SourceError> {
        let topic = kafka.topic.clone();
        Ok(Claimer { client: client(kafka)?, topic, claim: Box::new(claim), claimed_id: None })
    }

    /// Claims partitions of the topic that has the name now.
    ///
    /// # Errors
    /// If the topic cannot be identified, or the store does not grant a claim for each partition.
    pub(super) fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claim>, SourceError> {
        let topic = identify(&self.client, &self.topic)?;
        let claims = (self.claim)(&topic, partitions)?;
        self.claimed_id = Some(topic.id);
        match partitions.iter().find(|partition| !claims.iter().any(|claim| claim.partition == **partition)) {
            None => Ok(claims),
            Some(partition) => Err(SourceError::Claim(format!("the store did not claim partition {partition}"))),
        }
    }

    /// Whether the topic is still the one whose partitions were claimed.
    ///
    /// # Errors
    /// If no broker answers.
    pub(super) fn is_same_topic(&self) -> Result<bool, String> {
        // Connection errors of this client; the consumer reports its own.
        while self.client.poll(Duration::ZERO).is_some() {}
        let topic = request(&self.client, &self.topic, CONFIRM_TIMEOUT)?;
        Ok(self.claimed_id.as_ref() == Some(&topic.id))
    }
}

/// Asks the brokers for a topic's identity, repeatedly if they do not answer.
pub(super) fn identify(client: &BaseConsumer<impl ConsumerContext>, name: &str) -> Result<Topic, SourceError> {
    let deadline = Instant::now() + IDENTIFY_TIMEOUT;
    loop {
        match request(client, name, deadline.saturating_duration_since(Instant::now())) {
            Ok(topic) => return Ok(topic),
            Err(reason) if Instant::now() < deadline => {
                tracing::warn!("cannot identify the topic {name}: {reason}; trying again");
                std::thread::sleep(RETRY_INTERVAL);
            }
            Err(reason) => {
                return Err(SourceError::Unavailable(format!(
                    "cannot identify the topic {name}: {reason}; start again when the brokers answer"
                )));
            }
        }
    }
}

fn request(client: &BaseConsumer<impl ConsumerContext>, name: &str, timeout: Duration) -> Result<Topic, String> {
    let client = client.client();
    let cluster_id = client.fetch_cluster_id(timeout).ok_or("no broker has answered with the id of its cluster")?;
    let metadata = client.fetch_metadata(Some(name), timeout).map_err(|error| error.to_string())?;
    // The broker that has just answered, if its number was known by then.
    let known = metadata.brokers().first().map(|broker| broker.id());
    let broker = Some(metadata.orig_broker_id()).filter(|id| *id >= 0).or(known).ok_or("no broker is known")?;
    let id = native::describe_topic(client.native_client(), broker, name, false, timeout)?.id;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    Ok(Topic { cluster_id, name: name.to_owned(), id, partitions })
}
