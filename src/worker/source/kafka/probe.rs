//! What a worker needs of the brokers, asked for before anything is read: that they answer, that the topic exists, and that it may
//! be read as a member of the group. Nothing is joined, and nothing is changed.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use super::client::{Quiet, client};
use super::native::{self, TopicDescription};
use crate::config::KafkaConfig;
use crate::worker::source::SourceError;

/// How long an answer is waited for at a time, before errors are looked at.
const STEP: Duration = Duration::from_millis(300);
/// How long after the start an error of a connection is believed: another broker may answer.
const FIRST_ERROR: Duration = Duration::from_secs(1);
/// How long after the start an answer is waited for at once: brokers may be far away.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Whether this client has a right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    Granted,
    /// With how to grant it.
    Denied(String),
    /// The brokers do not tell, for this reason.
    Unknown(String),
}

/// Questions to the brokers, each with an answer that says what to do about what is missing.
pub struct Probe {
    client: BaseConsumer<Quiet>,
    kafka: KafkaConfig,
    deadline: Instant,
}

impl Probe {
    /// A probe that takes no longer than `timeout` in all.
    ///
    /// # Errors
    /// If a property is refused.
    pub fn new(kafka: &KafkaConfig, timeout: Duration) -> Result<Probe, SourceError> {
        Ok(Probe { client: client(kafka)?, kafka: kafka.clone(), deadline: Instant::now() + timeout })
    }

    /// Asks everything that a worker needs. A right that the brokers do not tell of is taken for granted.
    ///
    /// # Errors
    /// With the first thing that is missing.
    pub fn run(&self) -> Result<(), SourceError> {
        let needed = || -> Result<(), String> {
            self.brokers()?;
            self.topic()?;
            match (self.read_topic()?, self.join_group()) {
                (Right::Denied(problem), _) | (_, Right::Denied(problem)) => Err(problem),
                _ => Ok(()),
            }
        };
        let KafkaConfig { brokers, topic, .. } = &self.kafka;
        needed()
            .map_err(|problem| SourceError::Unavailable(format!("cannot read topic {topic} at {brokers}: {problem}")))
    }

    /// Connects and authenticates, and returns how many brokers the cluster has.
    ///
    /// # Errors
    /// With why no broker answers, and what to do.
    pub fn brokers(&self) -> Result<usize, String> {
        Ok(self.metadata()?.brokers().len())
    }

    /// The number of partitions of the topic.
    ///
    /// # Errors
    /// With what is wrong with it, and what to do.
    pub fn topic(&self) -> Result<usize, String> {
        let metadata = self.metadata()?;
        let topic = metadata.topics().first().ok_or("the brokers say nothing of the topic")?;
        let name = &self.kafka.topic;
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                return Err(format!("topic {name} does not exist: create it, or correct source.kafka.topic"));
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => return Err(self.not_authorised("topic", name)),
            Some(error) => return Err(format!("topic {name} cannot be read: {error}")),
        }
        let lost = topic.partitions().iter().filter(|partition| partition.leader() < 0);
        let lost: Vec<String> = lost.map(|partition| partition.id().to_string()).collect();
        match lost.is_empty() {
            true => Ok(topic.partitions().len()),
            false => Err(format!("partitions {} of {name} have no leader: see the brokers' logs", lost.join(", "))),
        }
    }

    /// Whether the topic may be read.
    ///
    /// # Errors
    /// With why no broker answers, and what to do.
    pub fn read_topic(&self) -> Result<Right, String> {
        let metadata = self.metadata()?;
        let broker = metadata.brokers().first().ok_or("no broker is known")?.id();
        let client = self.client.client().native_client();
        let name = &self.kafka.topic;
        Ok(match native::describe_topic(client, broker, name, true, self.time_left()) {
            Ok(TopicDescription { may_read: Some(true), .. }) => Right::Granted,
            Ok(TopicDescription { may_read: Some(false), .. }) => Right::Denied(self.not_authorised("topic", name)),
            Ok(TopicDescription { may_read: None, .. }) => Right::Unknown("they are too old".to_owned()),
            Err(error) => Right::Unknown(error),
        })
    }

    /// Whether the group may be joined.
    pub fn join_group(&self) -> Right {
        let group = &self.kafka.group;
        loop {
            match native::may_join(self.client.client().native_client(), group, self.time_left()) {
                Ok(Some(true)) => return Right::Granted,
                Ok(Some(false)) => return Right::Denied(self.not_authorised("group", group)),
                Ok(None) => return Right::Unknown("they are too old".to_owned()),
                // A coordinator that has just become it loads the group first.
                Err(_) if Instant::now() < self.deadline => std::thread::sleep(STEP),
                Err(error) => return Right::Unknown(error),
            }
        }
    }

    fn not_authorised(&self, kind: &str, name: &str) -> String {
        let user = self.kafka.properties.get("sasl.username").unwrap_or("ANONYMOUS");
        format!(
            "not authorised to read {kind} {name}: `kafka-acls --add --allow-principal User:{user} --operation READ --{kind} \
             {name}` grants it"
        )
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(STEP)
    }

    /// The metadata of the topic, and of the cluster.
    fn metadata(&self) -> Result<Metadata, String> {
        let started = Instant::now();
        loop {
            let step = if started.elapsed() < LAST_ANSWER { STEP } else { self.time_left() };
            let error = match self.client.client().fetch_metadata(Some(&self.kafka.topic), step) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            // Hands errors of connections to the context.
            while self.client.poll(Duration::ZERO).is_some() {}
            match self.client.context().last_error() {
                Some((code, reason)) if started.elapsed() >= FIRST_ERROR => {
                    return Err(format!("{reason}; {}", advice(code)));
                }
                None if Instant::now() >= self.deadline => {
                    return Err(format!("no broker has answered ({error}); {}", advice(RDKafkaErrorCode::Unknown)));
                }
                _ => {}
            }
        }
    }
}

/// What to do about an error of a connection.
fn advice(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::Authentication => {
            "check sasl.mechanism, sasl.username and sasl.password in source.kafka.properties"
        }
        RDKafkaErrorCode::SSL => "check security.protocol and the certificates in source.kafka.properties",
        RDKafkaErrorCode::Resolve => "check the hosts in source.kafka.brokers",
        _ => "check that brokers run at source.kafka.brokers, and security.protocol in source.kafka.properties",
    }
}
