//! Errors of the consumer: which end the source, and a log of those that pass.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::worker::source::SourceError;

/// How often the same error is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What an error of the consumer means for the source.
pub(super) enum Severity {
    /// The broker does not have the record at which a partition continues.
    OutOfRange,
    /// The broker does not let this worker read its topic, or does not have it.
    Refused,
    /// The source cannot continue.
    Fatal(SourceError),
    /// The consumer recovers by itself.
    Transient,
}

/// `reason` is the sentence that came with the error.
pub(super) fn severity(error: &KafkaError, reason: &str) -> Severity {
    use RDKafkaErrorCode::{
        AutoOffsetReset, BadCompression, BadMessage, InvalidMessage, MessageSizeTooLarge, NotImplemented,
        OffsetOutOfRange, TopicAuthorizationFailed, UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    match error {
        KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange) => Severity::OutOfRange,
        KafkaError::MessageConsumption(
            TopicAuthorizationFailed | UnknownPartition | UnknownTopic | UnknownTopicOrPartition,
        ) => Severity::Refused,
        // To continue here would skip records.
        KafkaError::MessageConsumption(
            code @ (BadMessage | BadCompression | InvalidMessage | MessageSizeTooLarge | NotImplemented),
        ) => Severity::Fatal(SourceError::Kafka(format!("records cannot be read: {code}: {reason}"))),
        KafkaError::MessageConsumptionFatal(code) => Severity::Fatal(SourceError::Kafka(format!("{code}: {reason}"))),
        _ => Severity::Transient,
    }
}

/// Logs errors that pass by themselves, each of them at most once per [`LOG_INTERVAL`].
#[derive(Default)]
pub(super) struct RateLimitedLog {
    logged_at: BTreeMap<i32, Instant>,
    last: Option<(i32, String)>,
}

impl RateLimitedLog {
    pub(super) fn warn(&mut self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
        self.last = Some((code, format!("{error}: {reason}")));
        self.repeat();
    }

    /// Logs the last error again. librdkafka reports a missing topic only once, and unreachable brokers hardly more often.
    pub(super) fn repeat(&mut self) {
        let Some((code, message)) = &self.last else { return };
        if self.logged_at.get(code).is_none_or(|logged_at| logged_at.elapsed() >= LOG_INTERVAL) {
            self.logged_at.insert(*code, Instant::now());
            tracing::warn!("{message}; reading continues when this is over");
        }
    }

    /// Forgets the last error: it is over.
    pub(super) fn clear(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test has panicked").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_error_is_logged_once_in_a_while_and_each_for_itself() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut log = RateLimitedLog::default();
            let [missing, down] = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::BrokerTransportFailure];
            log.repeat();
            for _ in 0..3 {
                log.warn(&KafkaError::MessageConsumption(missing), "no such topic");
                log.warn(&KafkaError::MessageConsumption(down), "connection refused");
                log.repeat();
            }
        });
        let bytes = lines.0.lock().expect("no test has panicked").clone();
        let logged = String::from_utf8(bytes).expect("text");
        assert_eq!(logged.lines().count(), 2, "{logged}");
        for reason in ["no such topic; reading continues", "connection refused; reading continues"] {
            assert!(logged.contains(reason), "{reason} in {logged}");
        }
    }
}
