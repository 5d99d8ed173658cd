//! The clients of a source: its consumer, and those that only ask questions.

use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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
    config.create_with_context(Quiet::new(&kafka.properties)).map_err(|error| refused(kafka, &error))
}

/// The same, for which records of open transactions count as well.
///
/// # Errors
/// As for [`consumer`].
pub(super) fn client_of_all(kafka: &KafkaConfig) -> Result<BaseConsumer<Quiet>, SourceError> {
    let mut config = kafka.consumer()?;
    config.remove("group.id").set("isolation.level", "read_uncommitted");
    config.create_with_context(Quiet::new(&kafka.properties)).map_err(|error| refused(kafka, &error))
}

/// A consumer that reads what it is told to, and joins no group.
///
/// # Errors
/// As for [`consumer`].
pub(super) fn reader(kafka: &KafkaConfig) -> Result<BaseConsumer<Quiet>, SourceError> {
    // librdkafka assigns nothing without a group id, but joins the group only on a subscription.
    kafka.consumer()?.create_with_context(Quiet::new(&kafka.properties)).map_err(|error| refused(kafka, &error))
}

fn refused(kafka: &KafkaConfig, error: &KafkaError) -> SourceError {
    let error = kafka.properties.redact(&error.to_string());
    SourceError::Kafka(format!("cannot create a Kafka client: {error}; check source.kafka.properties"))
}

/// The context of a client beside the consumer, which would log everything twice.
pub(super) struct Quiet {
    properties: Properties,
    /// The last error, and the sentence that came with it.
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Quiet {
    fn new(properties: &Properties) -> Quiet {
        Quiet { properties: properties.clone(), last: Mutex::default() }
    }

    /// The last error of a connection that `poll` has seen.
    pub(super) fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka, client for requests: {}", self.properties.redact(message));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all brokers are down follows the error of each of them, which says why.
        if let Some(code) = error.rdkafka_error_code().filter(|code| *code != RDKafkaErrorCode::AllBrokersDown) {
            let last = Some((code, self.properties.redact(reason)));
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        }
    }
}

impl ConsumerContext for Quiet {}
