//! From keys to a validated configuration: keys without a default must be set, and keys that depend on each other must
//! agree.

use shrinkd_model::{NOMINAL_COVERAGE, Threshold, Thresholds};

use super::kafka::{KafkaConfig, check_brokers, is_topic};
use super::layers::Layers;
use super::sections::{FileKeys, KafkaKeys, Keys, StoreKeys};
use super::store_url::StoreUrl;
use super::{Config, ConfigError, FileConfig, Invalid, Origin, SourceConfig, StoreConfig};

/// What to do without a configuration.
const NO_FILE: &str = "; without a configuration of your own, --config config/embedded.toml reads events from stdin into an SQLite \
                       file, with no server";

pub(super) fn resolve(keys: Keys, layers: &Layers) -> Result<Config, ConfigError> {
    config(keys).map_err(|invalid| located(invalid, layers))
}

/// The store alone, whatever the source is.
pub(super) fn resolve_store(keys: Keys, layers: &Layers) -> Result<StoreConfig, ConfigError> {
    store_config(keys.store).map_err(|invalid| located(invalid, layers))
}

/// Says where the value came from.
fn located(mut invalid: Invalid, layers: &Layers) -> ConfigError {
    let origin = match layers.origin(&invalid.key) {
        // The section exists by default, but nobody set anything in it.
        Origin::Default if invalid.key == "source" => Origin::NotSet,
        origin => origin,
    };
    if invalid.key == "source" && origin == Origin::NotSet && !layers.has_file() {
        invalid.problem += NO_FILE;
    }
    invalid.at(origin)
}

fn config(keys: Keys) -> Result<Config, Invalid> {
    let source = match (keys.source.kafka, keys.source.file) {
        (Some(kafka), None) => SourceConfig::Kafka(kafka_config(kafka)?),
        (None, Some(file)) => SourceConfig::File(file_config(file)?),
        (Some(_), Some(_)) => {
            return Err(Invalid::new("source", "both [source.kafka] and [source.file] are set: remove one"));
        }
        (None, None) => {
            let problem = "no source is configured: set [source.kafka] (brokers, topic) or [source.file] (path)";
            return Err(Invalid::new("source", problem));
        }
    };
    let store = store_config(keys.store)?;
    for (key, duration) in [
        ("ingest.batch_age", keys.ingest.batch_age),
        ("refit.interval", keys.refit.interval),
        ("diagnostics.interval", keys.diagnostics.interval),
    ] {
        if duration.is_zero() {
            return Err(Invalid::new(key, "is 0: expected a duration above 0, such as 250ms or 10s"));
        }
    }
    let tolerance = keys.publish.tolerance;
    if !(tolerance > 0.0 && tolerance < 1.0) {
        return Err(Invalid::new(
            "publish.tolerance",
            format!("is {tolerance}: expected a number above 0 and below 1"),
        ));
    }
    let share = keys.dead_letters.share;
    if !(share > 0.0 && share <= 1.0) {
        return Err(Invalid::new("dead_letters.share", format!("is {share}: expected a number above 0 and at most 1")));
    }
    check_thresholds(&keys.diagnostics.thresholds)?;
    check_labels(&keys.populations.labels)?;
    if keys.diagnostics.shipped_decisions.iter().any(|spelling| spelling.trim().is_empty()) {
        return Err(Invalid::new("diagnostics.shipped_decisions", "expected decisions that are not blank".to_owned()));
    }
    Ok(Config {
        source,
        store,
        ingest: keys.ingest,
        catch_up: keys.catch_up,
        dead_letters: keys.dead_letters,
        limits: keys.limits,
        refit: keys.refit,
        publish: keys.publish,
        diagnostics: keys.diagnostics,
        populations: keys.populations,
        metrics: keys.metrics,
        http: keys.http,
        log: keys.log,
    })
}

fn kafka_config(keys: KafkaKeys) -> Result<KafkaConfig, Invalid> {
    let brokers = required(keys.brokers, "source.kafka.brokers", "host:port, several separated by commas")?;
    let topic = required(keys.topic, "source.kafka.topic", "the name of a topic")?;
    let group = required(Some(keys.group), "source.kafka.group", "the name of a consumer group")?;
    check_brokers(&brokers).map_err(|problem| Invalid::new("source.kafka.brokers", problem))?;
    if !is_topic(&topic) {
        let problem = "is not the name of a topic: expected at most 249 letters, digits, dots, underscores and hyphens";
        return Err(Invalid::new("source.kafka.topic", problem));
    }
    let kafka = KafkaConfig { brokers, topic, group, key: keys.key, properties: keys.properties };
    match kafka.consumer() {
        Ok(_) => Ok(kafka),
        Err(error) => Err(Invalid::new(format!("source.kafka.properties.{}", error.property), error.to_string())),
    }
}

fn file_config(keys: FileKeys) -> Result<FileConfig, Invalid> {
    let path = keys.path.filter(|path| !path.as_os_str().is_empty());
    let path =
        path.ok_or_else(|| Invalid::new("source.file.path", "expected the path of a file of events, or - for stdin"))?;
    let file = FileConfig { path, follow: keys.follow };
    if file.follow && file.is_stdin() {
        return Err(Invalid::new(
            "source.file.follow",
            "only a file can be followed: stdin ends when its writer closes it",
        ));
    }
    Ok(file)
}

fn required(value: Option<String>, key: &'static str, expected: &str) -> Result<String, Invalid> {
    let value = value.filter(|text| !text.trim().is_empty());
    value.ok_or_else(|| Invalid::new(key, format!("expected {expected}")))
}

fn store_config(keys: StoreKeys) -> Result<StoreConfig, Invalid> {
    let url = StoreUrl::parse(keys.url.unwrap_or_default()).map_err(|problem| Invalid::new("store.url", problem))?;
    Ok(StoreConfig { url, connections: keys.connections.get() })
}

fn check_thresholds(thresholds: &Thresholds) -> Result<(), Invalid> {
    let Threshold { noticeable, material } = thresholds.naive_coverage;
    if !(0.0 < material && material <= noticeable && noticeable < NOMINAL_COVERAGE) {
        let expected = format!("expected 0 < material <= noticeable < {NOMINAL_COVERAGE}");
        return Err(Invalid::new("diagnostics.thresholds.naive_coverage", expected));
    }
    for (key, threshold) in [
        ("diagnostics.thresholds.rmse_excess", thresholds.rmse_excess),
        ("diagnostics.thresholds.changed_decisions", thresholds.changed_decisions),
    ] {
        let is_in_order = 0.0 < threshold.noticeable && threshold.noticeable <= threshold.material;
        if !(is_in_order && threshold.material.is_finite()) {
            return Err(Invalid::new(key, "expected 0 < noticeable <= material".to_owned()));
        }
    }
    Ok(())
}

fn check_labels(labels: &[String]) -> Result<(), Invalid> {
    for (index, label) in labels.iter().enumerate() {
        if label.is_empty() || label.len() > 512 || label.chars().any(char::is_control) {
            return Err(Invalid::new(
                "populations.labels",
                "expected names of 1 to 512 bytes without control characters",
            ));
        }
        if labels[..index].contains(label) {
            return Err(Invalid::new("populations.labels", "has the same name twice"));
        }
    }
    Ok(())
}
