//! The clients of a source: its consumer, and those that only ask questions.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::config::{KafkaConfig, Properties};
use crate::worker::source::SourceError;

/// A member of the consumer group. Brokers that cannot be reached are no error.
///
/// # Errors
/// If a property is refused, or librdkafka refuses their combination.
pub(super) fn consumer<C: ConsumerContext>(kafka: &KafkaConfig, context: C) -> Result<BaseConsumer<C>, SourceError> {
    kafka.consumer()?.create_with_context(context).map_err(|error| refused(kafka, &error))
}

/// A client with the same properties that joins no group.
///
/// # Errors
/// As for [`consumer`].
pub(super) fn client(kafka: &KafkaConfig) -> Result<BaseConsumer<Quiet>, SourceError> {
    let mut config = kafka.consumer()?;
    config.remove("group.id");
    config.create_with_context(Quiet(kafka.properties.clone())).map_err(|error| refused(kafka, &error))
}

/// A consumer that reads what it is told to, and joins no group.
///
/// # Errors
/// As for [`consumer`].
pub(super) fn reader(kafka: &KafkaConfig) -> Result<BaseConsumer<Quiet>, SourceError> {
    // librdkafka assigns nothing without a group id, but joins the group only on a subscription.
    let config = kafka.consumer()?;
    config.create_with_context(Quiet(kafka.properties.clone())).map_err(|error| refused(kafka, &error))
}

fn refused(kafka: &KafkaConfig, error: &KafkaError) -> SourceError {
    let error = kafka.properties.redact(&error.to_string());
    SourceError::Kafka(format!("cannot create a Kafka client: {error}; check source.kafka.properties"))
}

/// The context of a client beside the consumer, which would log everything twice.
pub(super) struct Quiet(Properties);

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka, client for requests: {}", self.0.redact(message));
    }

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}
