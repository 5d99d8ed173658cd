//! The configuration's promises: an environment that overrides, samples that can be run, errors that name the key, and
//! secrets that are never printed.

mod check;
mod refusals;
mod samples;
mod secrets;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shrinkd::config::{Config, ConfigError, LogFormat, SourceConfig};
use shrinkd_model::{PriorMu, PriorTau, Quantity};

/// What the production sample leaves to the environment.
const STORE: (&str, &str) = ("SHRINKD__STORE__URL", "postgres://shrinkd:hunter2@db:5432/shrinkd");
/// A source, in the environment.
const SOURCE: (&str, &str) = ("SHRINKD__SOURCE__FILE__PATH", "-");

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/{name}.toml"))
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// A configuration from nothing but the environment, with a source and a store beside what is given.
fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, environment(&[&[SOURCE, STORE], variables].concat()))
}

fn error(variables: &[(&str, &str)]) -> String {
    from_environment(variables).expect_err("it is refused").to_string()
}

/// A file of this content, gone when it is dropped.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str, content: &str) -> TemporaryFile {
        let path = std::env::temp_dir().join(format!("shrinkd-config-{}-{name}", std::process::id()));
        fs::write(&path, content).expect("written");
        TemporaryFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A configuration from a file of this content, with a source and a store from the environment.
fn from_file(name: &str, content: &str) -> Result<Config, ConfigError> {
    let file = TemporaryFile::new(name, content);
    Config::load(Some(&file.0), environment(&[SOURCE, STORE]))
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let file = TemporaryFile::new("layers", "[ingest]\nbatch_records = 7\nbatch_age = \"2s\"\n");
    let variables = environment(&[SOURCE, STORE, ("SHRINKD__INGEST__BATCH_RECORDS", "9")]);
    let config = Config::load(Some(&file.0), variables).expect("it can be run");
    assert_eq!(config.ingest.batch_records.get(), 9);
    assert_eq!(config.ingest.batch_age, Duration::from_secs(2));
    assert_eq!(config.ingest.batch_bytes.get(), 8_388_608);
}

#[test]
fn values_of_every_kind_come_from_the_environment() {
    let config = from_environment(&[
        ("SHRINKD__REFIT__PRIOR_TAU", "half-t:4,0.5"),
        ("SHRINKD__PUBLISH__TOLERANCE", "0.02"),
        ("SHRINKD__LOG__FORMAT", "json"),
        ("SHRINKD__LOG__LEVEL", "warn,shrinkd=debug"),
        ("SHRINKD__HTTP__LISTEN", "127.0.0.1:0"),
        ("SHRINKD__POPULATIONS__LABELS", r#"["country", "team"]"#),
        ("SHRINKD__POPULATIONS__SETTINGS", r#"{ "a/all/relative" = { min_experiments = 2 } }"#),
        ("SHRINKD__DIAGNOSTICS__THRESHOLDS__RMSE_EXCESS__NOTICEABLE", "0.03"),
        ("SHRINKD__DIAGNOSTICS__SHIPPED_DECISIONS", r#"["shipped", "rolled out"]"#),
    ])
    .expect("it can be run");
    assert_eq!(config.refit.prior_tau, PriorTau::HalfT { df: 4.0, scale: Quantity::Absolute(0.5) });
    assert_eq!(config.publish.tolerance, 0.02);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.http.listen.port(), 0);
    assert_eq!(config.populations.labels, ["country", "team"]);
    assert_eq!(config.settings(&"a/all/relative".parse().expect("a name")).min_experiments, 2);
    assert_eq!(config.diagnostics.shipped_decisions, ["shipped", "rolled out"]);
    let rmse_excess = config.diagnostics.thresholds.rmse_excess;
    assert_eq!((rmse_excess.noticeable, rmse_excess.material), (0.03, 0.05));
}

#[test]
fn what_a_key_takes_decides_whether_its_variable_is_text_and_not_what_stands_in_it() {
    let config =
        Config::load(None, environment(&[("SHRINKD__SOURCE__FILE__PATH", "1e3"), STORE])).expect("it is valid");
    assert!(matches!(config.source, SourceConfig::File(file) if file.path == Path::new("1e3")));
    let kafka = [
        STORE,
        ("SHRINKD__SOURCE__KAFKA__BROKERS", "b:9092"),
        ("SHRINKD__SOURCE__KAFKA__TOPIC", "2026"),
        ("SHRINKD__SOURCE__KAFKA__GROUP", "true"),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__CLIENT_ID", "[1]"),
    ];
    let SourceConfig::Kafka(kafka) = Config::load(None, environment(&kafka)).expect("it is valid").source else {
        panic!("Kafka")
    };
    assert_eq!((kafka.topic.as_str(), kafka.group.as_str()), ("2026", "true"));
    assert_eq!(kafka.properties.get("client.id"), Some("[1]"));
    // A number in quotes is text, which the key does not take.
    assert!(error(&[("SHRINKD__INGEST__BATCH_RECORDS", "\"9\"")]).contains("is text: expected a whole number"));
}

#[test]
fn properties_of_librdkafka_are_passed_through_and_have_dots_for_underscores_in_the_environment() {
    let file = TemporaryFile::new(
        "properties",
        "[source.kafka]\nbrokers = \"b:9092\"\ntopic = \"t\"\n[source.kafka.properties]\n\"client.id\" = \"file\"\n\
         \"fetch.min.bytes\" = 10\n",
    );
    let variables = environment(&[
        STORE,
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "45000"),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__CLIENT_ID", "007"),
    ]);
    let config = Config::load(Some(&file.0), variables).expect("it can be run");
    let SourceConfig::Kafka(kafka) = config.source else { panic!("Kafka") };
    let properties: Vec<_> = kafka.properties.expose().collect();
    assert_eq!(properties, [("client.id", "007"), ("fetch.min.bytes", "10"), ("session.timeout.ms", "45000")]);
}

#[test]
fn a_secret_comes_from_a_file_without_its_line_end_and_stays_text() {
    let secret = TemporaryFile::new("secret", "0x10\n");
    let config = Config::load(
        None,
        environment(&[
            STORE,
            ("SHRINKD__SOURCE__KAFKA__BROKERS", "b:9092"),
            ("SHRINKD__SOURCE__KAFKA__TOPIC", "t"),
            ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", secret.path()),
        ]),
    )
    .expect("it can be run");
    let SourceConfig::Kafka(kafka) = config.source else { panic!("Kafka") };
    assert_eq!(kafka.properties.get("sasl.password"), Some("0x10"));
}

#[test]
fn a_share_of_all_messages_is_allowed_for_dead_letters() {
    let config = Config::load(None, environment(&[SOURCE, STORE, ("SHRINKD__DEAD_LETTERS__SHARE", "1")]));
    assert_eq!(config.expect("it can be run").dead_letters.share, 1.0);
}

#[test]
fn a_population_has_its_own_settings_and_the_general_ones_for_the_rest() {
    let config = from_file(
        "settings",
        "[refit]\nprior_mu = \"normal:0,1sd\"\nmin_experiments = 9\n\
         [populations.settings.\"conversion/all/relative\"]\nprior_tau = \"half-cauchy:0.1se\"\n\
         [populations.settings.\"signup/all/relative\"]\nprior_mu = \"normal:1,2\"\nmin_experiments = 3\n",
    )
    .expect("it can be run");
    let own = config.settings(&"conversion/all/relative".parse().expect("a name"));
    assert_eq!(own.priors.mu, PriorMu::Normal { mean: Quantity::Absolute(0.0), sd: Quantity::Sd(1.0) });
    assert_eq!((own.priors.tau, own.min_experiments), (PriorTau::HalfCauchy { scale: Quantity::Se(0.1) }, 9));
    let own = config.settings(&"signup/all/relative".parse().expect("a name"));
    assert_eq!(own.priors.mu, PriorMu::Normal { mean: Quantity::Absolute(1.0), sd: Quantity::Absolute(2.0) });
    assert_eq!((own.priors.tau, own.min_experiments), (PriorTau::Flat, 3));
    let other = config.settings(&"revenue/all/absolute".parse().expect("a name"));
    assert_eq!(other.priors.mu, PriorMu::Normal { mean: Quantity::Absolute(0.0), sd: Quantity::Sd(1.0) });
    assert_eq!((other.priors.tau, other.min_experiments), (PriorTau::Flat, 9));
}
