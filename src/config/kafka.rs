//! `[source.kafka]`: the topic to read, and which of librdkafka's properties may be set for it.
//!
//! The rules stand here alone: `shrinkd check` applies them, and so does every client that is made.

use std::net::Ipv6Addr;

use rdkafka::ClientConfig;
use shrinkd_core::KeyRule;

use super::properties::{Properties, PropertyError};

/// Whether this build supports TLS.
pub(super) const HAS_TLS: bool = cfg!(feature = "tls");
/// What to do about a build without TLS.
pub(super) const REBUILD: &str =
    "this build of shrinkd has no TLS: build it with `--features tls`, or use the container image";

/// Set for every consumer, so that the store alone decides where reading continues, and the lag counts no control records.
const REQUIRED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
];

/// Used unless the configuration sets the property.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "shrinkd"),
    // How long fetching pauses once the queue is full. librdkafka's default of one second would let the queue run dry.
    ("fetch.queue.backoff.ms", "10"),
    ("isolation.level", "read_committed"),
    // How long a new topic or partition can go unnoticed.
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("queued.max.messages.kbytes", "16384"),
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// A topic, read as a member of a consumer group.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas. No default.
    pub brokers: String,
    /// No default.
    pub topic: String,
    /// The consumer group: its members share the topic's partitions. Default `shrinkd`.
    pub group: String,
    /// What the key of a message has to be. Default `experiment_id`.
    pub key: KeyRule,
    /// Any further properties of librdkafka, by its names. Default none.
    pub properties: Properties,
}

impl KafkaConfig {
    /// Each broker as host and port.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.brokers.split(',').map(|broker| {
            let broker = broker.trim();
            broker.split_once("://").map_or(broker, |(_, address)| address)
        })
    }

    /// The configuration of a consumer in the group. Nothing is connected to.
    ///
    /// # Errors
    /// For the first property that shrinkd sets itself, that needs TLS in a build without it, or that librdkafka refuses.
    pub fn consumer(&self) -> Result<ClientConfig, PropertyError> {
        self.properties.expose().try_for_each(|(property, value)| {
            check(property, value).map_err(|problem| PropertyError { property: property.to_owned(), problem })
        })?;
        self.properties.check()?;
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("group.id", &self.group);
        let is_assigned_by_broker =
            self.properties.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"));
        for (property, value) in DEFAULTS {
            // Under the newer group protocol the broker assigns partitions, and librdkafka accepts no strategy.
            if !(is_assigned_by_broker && property == "partition.assignment.strategy") {
                client.set(property, value);
            }
        }
        for (property, value) in self.properties.expose().chain(REQUIRED) {
            client.set(property, value);
        }
        Ok(client)
    }
}

/// # Errors
/// With what is wrong, and what to do instead.
fn check(property: &str, value: &str) -> Result<(), String> {
    let instead = match property {
        "bootstrap.servers" | "metadata.broker.list" => Some("use source.kafka.brokers"),
        "group.id" => Some("use source.kafka.group"),
        "sasl.jaas.config" => Some("that is Java's; use sasl.mechanism, sasl.username and sasl.password"),
        "enable.auto.commit" | "enable.auto.offset.store" => {
            Some("offsets are kept in the store, and committed together with the records that they cover")
        }
        "enable.partition.eof" => Some("the lag is measured with it"),
        "auto.offset.reset" => Some("a partition whose next record has expired is halted, and nothing is skipped"),
        _ => None,
    };
    if let Some(instead) = instead {
        return Err(format!("cannot be set: {instead}"));
    }
    let lowercase = value.to_lowercase();
    let needs_tls = match property {
        "security.protocol" => lowercase.ends_with("ssl"),
        "sasl.mechanism" | "sasl.mechanisms" => lowercase.starts_with("scram") || lowercase == "oauthbearer",
        _ => ["ssl.", "sasl.oauthbearer."].iter().any(|prefix| property.starts_with(prefix)),
    };
    if needs_tls && !HAS_TLS {
        return Err(format!("needs TLS: {REBUILD}"));
    }
    Ok(())
}

/// Checks a list of brokers, `host:port` with commas between them, each perhaps with a protocol (`SSL://`) before it.
///
/// # Errors
/// With what is wrong. The list is not repeated: it may be a secret in the wrong place.
pub(super) fn check_brokers(brokers: &str) -> Result<(), String> {
    match brokers.split(',').position(|broker| !is_broker(broker.trim())) {
        None => Ok(()),
        Some(index) => {
            Err(format!("entry {} is not host:port: expected host:port, several separated by commas", index + 1))
        }
    }
}

fn is_broker(broker: &str) -> bool {
    const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
    let address = match broker.split_once("://") {
        Some((protocol, _)) if !PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str()) => return false,
        Some((_, address)) => address,
        None => broker,
    };
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(is_name),
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Whether a topic can have this name.
pub(super) fn is_topic(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=249).contains(&name.len()) && name.chars().all(is_plain) && !matches!(name, "." | "..")
}
