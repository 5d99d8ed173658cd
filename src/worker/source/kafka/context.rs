//! librdkafka's callbacks: rebalances above all. They run on the source's own thread, from within `poll`: the locks exist
//! for the type system and are never contended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::assignment::Assignment;
use crate::config::Properties;

pub(super) struct Context {
    assignment: Mutex<Assignment>,
    /// The properties of the client, whose secrets librdkafka may quote.
    properties: Properties,
    /// The sentence that came with the last error; the error itself has only a code.
    reason: Mutex<String>,
}

impl Context {
    pub(super) fn new(assignment: Assignment, properties: Properties) -> Context {
        Context { assignment: Mutex::new(assignment), properties, reason: Mutex::default() }
    }

    pub(super) fn assignment(&self) -> MutexGuard<'_, Assignment> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sentence that came with the last error.
    pub(super) fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let message = self.properties.redact(message);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, _: KafkaError, reason: &str) {
        // `poll` returns the same error next, and it is handled there.
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = self.properties.redact(reason);
    }

    /// Users may set `statistics.interval.ms`, but the statistics are not used.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Context>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let mut assignment = self.assignment();
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => assignment.assign(consumer, &partitions),
            _ => assignment.revoke(consumer, &partitions, list),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!("Kafka's committed offsets, which only dashboards read, were not updated: {error}");
        }
    }
}
