//! From keys to a configuration that can be run: what has no default must be there, and what concerns several keys must
//! agree.

use rdkafka::ClientConfig;
use shrinkd_model::Thresholds;

use super::layers::Layers;
use super::secret::{Properties, StoreUrl};
use super::sections::{FileKeys, KafkaKeys, Keys};
use super::{Config, ConfigError, FileConfig, KafkaConfig, Origin, SourceConfig, StoreConfig};

/// Whether this build can speak TLS.
const HAS_TLS: bool = cfg!(feature = "tls");

const REBUILD: &str = "this build of shrinkd has no TLS: build it with `--features tls`, or use the container image";

/// Properties that shrinkd sets itself, and what to do instead.
const OWN_PROPERTIES: [(&str, &str); 6] = [
    ("bootstrap.servers", "set source.kafka.brokers"),
    ("metadata.broker.list", "set source.kafka.brokers"),
    ("group.id", "set source.kafka.group"),
    ("enable.auto.commit", "offsets are kept in the store, with what they cover"),
    ("enable.auto.offset.store", "offsets are kept in the store, with what they cover"),
    ("auto.offset.reset", "records that have expired unread halt the worker rather than be skipped"),
];

struct Fault {
    key: &'static str,
    problem: String,
}

fn fault(key: &'static str, problem: impl Into<String>) -> Fault {
    Fault { key, problem: problem.into() }
}

pub(super) fn resolve(keys: Keys, layers: &Layers) -> Result<Config, ConfigError> {
    config(keys).map_err(|Fault { key, problem }| {
        let origin = match layers.origin(key) {
            // A section that is there by default and lacks something was not set by anyone.
            Origin::Default if key == "source" => Origin::NotSet,
            origin => origin,
        };
        ConfigError::Value { key: key.to_owned(), origin, problem }
    })
}

fn config(keys: Keys) -> Result<Config, Fault> {
    let source = match (keys.source.kafka, keys.source.file) {
        (Some(kafka), None) => SourceConfig::Kafka(kafka_config(kafka)?),
        (None, Some(file)) => SourceConfig::File(file_config(file)?),
        (Some(_), Some(_)) => return Err(fault("source", "has both [source.kafka] and [source.file]: remove one")),
        (None, None) => {
            return Err(fault("source", "says nothing: give [source.kafka] (brokers, topic) or [source.file] (path)"));
        }
    };
    let store = StoreConfig { url: store_url(keys.store.url)?, connections: keys.store.connections.get() };
    for (key, duration) in [
        ("ingest.batch_age", keys.ingest.batch_age),
        ("refit.interval", keys.refit.interval),
        ("diagnostics.interval", keys.diagnostics.interval),
    ] {
        if duration.is_zero() {
            return Err(fault(key, "is 0: expected a duration above 0, like 250ms or 10s"));
        }
    }
    let tolerance = keys.publish.tolerance;
    if !(tolerance > 0.0 && tolerance < 1.0) {
        return Err(fault("publish.tolerance", format!("is {tolerance}: expected a number above 0 and below 1")));
    }
    let share = keys.dead_letters.share;
    if !(share > 0.0 && share <= 1.0) {
        return Err(fault("dead_letters.share", format!("is {share}: expected a number above 0, at most 1")));
    }
    check_thresholds(&keys.diagnostics.thresholds)?;
    check_labels(&keys.populations.labels)?;
    Ok(Config {
        source,
        store,
        ingest: keys.ingest,
        dead_letters: keys.dead_letters,
        refit: keys.refit,
        publish: keys.publish,
        diagnostics: keys.diagnostics,
        populations: keys.populations,
        http: keys.http,
        log: keys.log,
    })
}

fn kafka_config(keys: KafkaKeys) -> Result<KafkaConfig, Fault> {
    let brokers = required(keys.brokers, "source.kafka.brokers", "host:port, several separated by commas")?;
    let topic = required(keys.topic, "source.kafka.topic", "the name of a topic")?;
    let group = required(Some(keys.group), "source.kafka.group", "the name of a consumer group")?;
    check_properties(&keys.properties)?;
    Ok(KafkaConfig { brokers, topic, group, properties: keys.properties })
}

fn file_config(keys: FileKeys) -> Result<FileConfig, Fault> {
    let path = keys.path.filter(|path| !path.as_os_str().is_empty());
    let path =
        path.ok_or_else(|| fault("source.file.path", "expected the path of a file of events, or - for stdin"))?;
    let file = FileConfig { path, follow: keys.follow };
    if file.follow && file.is_stdin() {
        return Err(fault("source.file.follow", "stdin ends where its writer closes it: only a file can be followed"));
    }
    Ok(file)
}

fn required(value: Option<String>, key: &'static str, expected: &str) -> Result<String, Fault> {
    let value = value.filter(|text| !text.trim().is_empty());
    value.ok_or_else(|| fault(key, format!("expected {expected}")))
}

/// The names and values of properties as librdkafka itself judges them, without connecting to anything.
fn check_properties(properties: &Properties) -> Result<(), Fault> {
    const KEY: &str = "source.kafka.properties";
    for (name, value) in properties.expose() {
        if let Some((_, instead)) = OWN_PROPERTIES.iter().find(|(own, _)| *own == name) {
            return Err(fault(KEY, format!("`{name}` is not for you to set: {instead}")));
        }
        let value = value.to_lowercase();
        let needs_tls = match name {
            "security.protocol" => value.ends_with("ssl"),
            "sasl.mechanism" | "sasl.mechanisms" => value.starts_with("scram") || value == "oauthbearer",
            _ => name.starts_with("ssl."),
        };
        if needs_tls && !HAS_TLS {
            return Err(fault(KEY, format!("`{name}` asks for TLS or SCRAM: {REBUILD}")));
        }
    }
    let mut client = ClientConfig::new();
    for (name, value) in properties.expose() {
        client.set(name, value);
    }
    match client.create_native_config() {
        Ok(_) => Ok(()),
        Err(error) => Err(fault(KEY, format!("librdkafka refuses them: {error}"))),
    }
}

fn store_url(url: Option<String>) -> Result<StoreUrl, Fault> {
    const KEY: &str = "store.url";
    const EXPECTED: &str = "expected postgres://user:password@host:port/database or sqlite://path/of/shrinkd.db";
    let url = url.ok_or_else(|| fault(KEY, EXPECTED))?;
    // What is not a url is not repeated in the message: it may be a secret in the wrong place.
    match url.split_once("://") {
        Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
            let parameters = rest.split_once('?').map(|(_, parameters)| parameters).unwrap_or_default();
            let mode = parameters
                .split('&')
                .filter_map(|parameter| parameter.split_once('='))
                .find_map(|(name, value)| matches!(name, "sslmode" | "ssl-mode").then(|| value.to_lowercase()));
            match mode.as_deref() {
                Some(mode @ ("require" | "verify-ca" | "verify-full")) if !HAS_TLS => {
                    Err(fault(KEY, format!("sslmode={mode} asks for TLS: {REBUILD}")))
                }
                _ => Ok(StoreUrl::Postgres(url)),
            }
        }
        Some(("sqlite", path)) if !path.is_empty() => Ok(StoreUrl::Sqlite(url)),
        _ => Err(fault(KEY, EXPECTED)),
    }
}

fn check_thresholds(thresholds: &Thresholds) -> Result<(), Fault> {
    for (key, threshold, neutral) in [
        ("diagnostics.thresholds.se_ratio", thresholds.se_ratio, 1.0),
        ("diagnostics.thresholds.mu_shift", thresholds.mu_shift, 0.0),
        ("diagnostics.thresholds.log_tau_shift", thresholds.log_tau_shift, 0.0),
        ("diagnostics.thresholds.sign_flip_share", thresholds.sign_flip_share, 0.0),
    ] {
        let is_in_order = neutral < threshold.noticeable && threshold.noticeable <= threshold.material;
        if !(is_in_order && threshold.material.is_finite()) {
            return Err(fault(key, format!("expected {neutral} < noticeable <= material")));
        }
    }
    Ok(())
}

fn check_labels(labels: &[String]) -> Result<(), Fault> {
    for (index, label) in labels.iter().enumerate() {
        if label.is_empty() || label.len() > 512 || label.chars().any(char::is_control) {
            return Err(fault("populations.labels", "expected names of 1 to 512 bytes without control characters"));
        }
        if labels[..index].contains(label) {
            return Err(fault("populations.labels", format!("names `{label}` twice")));
        }
    }
    Ok(())
}
