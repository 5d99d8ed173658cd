//! The samples and the documentation show what holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use shrinkd::config::{Config, LogFormat, SourceConfig, StoreUrl};
use shrinkd_model::{PriorMu, PriorTau, Thresholds};
use toml::{Table, Value};

use super::{STORE, TemporaryFile, environment, error, from_environment, sample};

const SAMPLES: [&str; 3] = ["embedded", "local", "production"];

#[test]
fn every_sample_can_be_run() {
    let embedded = Config::load(Some(&sample("embedded")), []).expect("embedded.toml");
    assert!(matches!(&embedded.source, SourceConfig::File(file) if file.is_stdin() && !file.follow));
    assert_eq!(embedded.store.url, StoreUrl::Sqlite("sqlite://shrinkd.db".to_owned()));
    let local = Config::load(Some(&sample("local")), []).expect("local.toml");
    let SourceConfig::Kafka(kafka) = &local.source else { panic!("local.toml reads from Kafka") };
    assert_eq!(kafka.properties.get("session.timeout.ms"), Some("6000"));
    let production = Config::load(Some(&sample("production")), environment(&[STORE])).expect("production.toml");
    assert_eq!(production.log.format, LogFormat::Json);
}

#[test]
fn the_production_sample_does_not_start_without_the_store_that_only_the_operator_knows() {
    let error = Config::load(Some(&sample("production")), []).expect_err("no store").to_string();
    assert!(error.starts_with("`store.url` (not set): expected postgres://"), "{error}");
}

/// The lines of a sample that are commented out as `marks` say, uncommented.
fn uncommented(text: &str, marks: &[&str]) -> String {
    let key_or_header = |line: &str| {
        let name = line.split_once(" = ").map(|(name, _)| name.trim_matches('"'));
        let is_key = name.is_some_and(|n| n.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.')));
        is_key || (line.starts_with('[') && line.ends_with(']'))
    };
    let lines = text.lines().map(|line| {
        let content = marks.iter().find_map(|mark| line.strip_prefix(mark)).filter(|content| key_or_header(content));
        content.unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_key_that_a_sample_shows_as_default_has_that_default() {
    for name in SAMPLES {
        let text = fs::read_to_string(sample(name)).expect("readable");
        let shown = uncommented(&text, &["#"]);
        assert_ne!(text, shown, "{name}.toml shows defaults");
        // Defaults of the source that the sample does not use are shown beside its header, which is a comment.
        let shown = shown.replace("\nfollow = false", if name == "production" { "" } else { "\nfollow = false" });
        let shown = TemporaryFile::new(name, &shown);
        let load = |path: &Path| Config::load(Some(path), environment(&[STORE])).expect("it can be run");
        assert_eq!(load(&shown.0), load(&sample(name)), "{name}.toml");
    }
}

/// The paths of all leaves.
fn leaves(table: &Table, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(inner) => leaves(inner, &path, into),
            _ => drop(into.insert(path)),
        }
    }
}

/// The keys of the program, by their paths; those below properties and populations have names of their own.
///
/// The program itself is asked: a section that does not know a key names those that it knows.
fn keys(documented: &BTreeSet<String>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut sections = BTreeSet::from([String::new()]);
    while let Some(section) = sections.pop_first() {
        let variable = format!("SHRINKD__{}NO_SUCH_KEY", section.replace('.', "__").to_uppercase());
        let message = error(&[(&variable, "1")]);
        let (_, expected) = message.split_once("expected ").unwrap_or_else(|| panic!("{variable}: {message}"));
        for key in expected.split('`').skip(1).step_by(2) {
            let path = format!("{section}{key}");
            let is_section = documented.iter().any(|leaf| leaf.starts_with(&format!("{path}.")));
            if is_section && !matches!(path.as_str(), "source.kafka.properties" | "populations.settings") {
                sections.insert(format!("{path}."));
            } else {
                keys.insert(path);
            }
        }
    }
    keys
}

#[test]
fn every_key_is_in_the_production_sample_and_in_the_table_of_the_documentation() {
    let text = fs::read_to_string(sample("production")).expect("readable");
    let everything: Table = uncommented(&text, &["# ", "#"]).parse().expect("TOML with every example in it");
    let mut documented = BTreeSet::new();
    leaves(&everything, "", &mut documented);
    let keys = keys(&documented);
    assert!(keys.len() > 30, "the keys are found: {keys:?}");
    let in_sample = |key: &str| documented.iter().any(|leaf| leaf == key || leaf.starts_with(&format!("{key}.")));
    let missing: Vec<&String> = keys.iter().filter(|key| !in_sample(key)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "config/production.toml");

    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).expect("readable");
    let (_, section) = page.split_once("\n## Configuration\n").expect("a section");
    let (section, _) = section.split_once("\n### ").expect("an end");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let in_table: BTreeSet<String> = rows.map(|(key, _)| key.to_owned()).collect();
    // The table has one row for both thresholds of a measure.
    let expected = keys.into_iter().map(|key| {
        let measure = key.strip_suffix(".noticeable").or(key.strip_suffix(".material"));
        measure.map(str::to_owned).unwrap_or(key)
    });
    assert_eq!(in_table, expected.collect());
}

#[test]
fn without_anything_set_the_documented_defaults_hold() {
    let config = from_environment(&[]).expect("it can be run");
    assert_eq!((config.ingest.batch_records.get(), config.ingest.batch_bytes.get()), (5000, 8_388_608));
    assert_eq!(config.ingest.batch_age, Duration::from_millis(100));
    assert_eq!(config.ingest.drain_budget, Duration::from_secs(10));
    assert_eq!(config.refit.interval, Duration::from_secs(1));
    assert_eq!((config.refit.min_experiments, config.refit.one_per_experiment_seed), (5, 0));
    assert_eq!((config.refit.prior_mu, config.refit.prior_tau), (PriorMu::Flat, PriorTau::Flat));
    assert_eq!(config.publish.tolerance, 0.01);
    assert_eq!(config.diagnostics.interval, Duration::from_secs(600));
    assert_eq!(config.diagnostics.thresholds, Thresholds::default());
    assert_eq!(config.store.connections, 8);
    assert!(config.http.listen.ip().is_loopback());
    assert_eq!(config.http.listen.port(), 9464);
    assert_eq!((config.log.format, config.log.level.to_string()), (LogFormat::Text, "info".to_owned()));
}
