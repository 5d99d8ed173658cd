//! Properties of librdkafka, which are passed on to it: which values may be printed, and which it refuses.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::secret::{MASK, plain_name, redact};

/// The properties whose values are printed: those of a consumer that hold no secret. Values of all others, unknown ones
/// among them, are masked.
const HARMLESS: [&str; 70] = [
    "allow.auto.create.topics",
    "api.version.request.timeout.ms",
    "broker.address.family",
    "broker.address.ttl",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "coordinator.query.interval.ms",
    "debug",
    "enable.metrics.push",
    "enable.partition.eof",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "log.connection.close",
    "log.thread.name",
    "log_level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.copy.max.bytes",
    "message.max.bytes",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.sigalgs.list",
    "statistics.interval.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.interval.ms",
];

/// Properties of librdkafka, by name. Printed, they show the values of harmless ones alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Properties(BTreeMap<String, String>);

/// A property that cannot be used. The message names it and what to do instead; it does not repeat the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` {problem}", plain_name(.property))]
pub struct PropertyError {
    pub property: String,
    pub(super) problem: String,
}

impl Properties {
    /// Names and values, secrets included, for connecting.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A text of librdkafka in a form that may be printed.
    pub fn redact(&self, text: &str) -> String {
        redact(text, self.expose().filter(|(name, _)| !is_harmless(name)).map(|(_, value)| value))
    }

    /// Has librdkafka look at each property.
    ///
    /// # Errors
    /// For the first that it refuses.
    pub fn check(&self) -> Result<(), PropertyError> {
        self.expose().try_for_each(|(property, value)| {
            let refused = ClientConfig::new().set(property, value).create_native_config().err();
            let Some(KafkaError::ClientConfig(result, description, ..)) = refused else { return Ok(()) };
            let problem = match result {
                RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => {
                    "is not a property of librdkafka: its CONFIGURATION.md lists them".to_owned()
                }
                _ if is_harmless(property) => {
                    format!("is refused by librdkafka: {}", redact(description.trim(), [value].into_iter()))
                }
                _ => "has a value that librdkafka refuses: its CONFIGURATION.md says what it takes".to_owned(),
            };
            Err(PropertyError { property: property.to_owned(), problem })
        })
    }
}

fn is_harmless(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_ok()
}

/// A property's value in a form that may be printed.
pub(super) fn masked_property<'a>(name: &str, value: &'a str) -> &'a str {
    if is_harmless(name) { value } else { MASK }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(properties: I) -> Properties {
        Properties(properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.expose().map(|(name, value)| (plain_name(name), masked_property(name, value)));
        f.debug_map().entries(shown).finish()
    }
}

impl<'de> Deserialize<'de> for Properties {
    /// Numbers and booleans are accepted too: librdkafka takes text, but people write `45000` and `true`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Properties, D::Error> {
        let values = BTreeMap::<String, toml::Value>::deserialize(deserializer)?;
        let text = |(name, value): (String, toml::Value)| match value {
            toml::Value::String(text) => Ok((name, text)),
            toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
            _ => Err(D::Error::custom(format!(
                "`{}` is a {}: expected text, a number or a boolean (quote a name that contains dots: \
                 \"session.timeout.ms\" = 45000)",
                plain_name(&name),
                value.type_str()
            ))),
        };
        Ok(Properties(values.into_iter().map(text).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_properties_are_in_order_and_known_to_librdkafka() {
        assert!(HARMLESS.is_sorted());
        for name in HARMLESS {
            let error = ClientConfig::new().set(name, "1").create_native_config().err();
            let is_unknown = matches!(error, Some(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
            assert!(!is_unknown, "{name}");
        }
    }

    #[test]
    fn the_values_of_credentials_and_of_unknown_names_are_masked() {
        for name in [
            "sasl.password",
            "sasl.jaas.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.token.endpoint.url",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "SASL.USERNAME",
            "unheard.of",
        ] {
            assert_eq!(masked_property(name, "hunter2"), MASK, "{name}");
        }
        assert_eq!(masked_property("sasl.username", "app"), "app");
    }
}
