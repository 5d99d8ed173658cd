//! The configuration's promises: samples that can be run, an environment that overrides, errors that name the key, and
//! secrets that are never printed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;
use shrinkd::config::{Config, ConfigError, LogFormat, SourceConfig, StoreUrl};
use shrinkd::model::diagnostics::Thresholds;
use shrinkd::model::prior::{PriorMu, PriorTau};
use toml::{Table, Value};

const SAMPLES: [&str; 3] = ["embedded", "local", "production"];

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
    assert_eq!((config.refit.min_experiments, config.refit.treatment_seed), (5, 0));
    assert_eq!((config.refit.prior_mu, config.refit.prior_tau), (PriorMu::Flat, PriorTau::Flat));
    assert_eq!(config.publish.tolerance, 0.01);
    assert_eq!(config.diagnostics.interval, Duration::from_secs(600));
    assert_eq!(config.diagnostics.thresholds, Thresholds::default());
    assert_eq!(config.store.connections, 8);
    assert!(config.http.listen.ip().is_loopback());
    assert_eq!(config.http.listen.port(), 9464);
    assert_eq!((config.log.format, config.log.level.to_string()), (LogFormat::Text, "info".to_owned()));
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
        ("SHRINKD__DIAGNOSTICS__THRESHOLDS__SE_RATIO__NOTICEABLE", "1.05"),
    ])
    .expect("it can be run");
    assert_eq!(config.refit.prior_tau, PriorTau::HalfT { df: 4.0, scale: 0.5 });
    assert_eq!(config.publish.tolerance, 0.02);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.http.listen.port(), 0);
    assert_eq!(config.populations.labels, ["country", "team"]);
    assert_eq!(config.settings(&"a/all/relative".parse().expect("a name")).min_experiments, 2);
    let se_ratio = config.diagnostics.thresholds.se_ratio;
    assert_eq!((se_ratio.noticeable, se_ratio.material), (1.05, 1.10));
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
fn a_secret_that_cannot_be_read_or_is_given_twice_is_named() {
    let message = error(&[("SHRINKD__LOG__LEVEL_FILE", "/nowhere/level")]);
    assert!(message.starts_with("SHRINKD__LOG__LEVEL_FILE: cannot read /nowhere/level: "), "{message}");
    let secret = TemporaryFile::new("twice", "debug");
    let message = error(&[("SHRINKD__LOG__LEVEL_FILE", secret.path()), ("SHRINKD__LOG__LEVEL", "info")]);
    assert!(message.contains("SHRINKD__LOG__LEVEL_FILE") && message.contains("sets the same key"), "{message}");
}

#[test]
fn a_key_that_is_unknown_is_refused_wherever_it_stands() {
    for (name, content, key) in [
        ("unknown-section", "[ingests]\nbatch_records = 1\n", "ingests"),
        ("unknown-key", "[ingest]\nbatch_size = 1\n", "batch_size"),
        ("unknown-threshold", "[diagnostics.thresholds.se_ratio]\nharmless = 1\n", "harmless"),
        ("unknown-setting", "[populations.settings.\"a/all/absolute\"]\nprior = \"flat\"\n", "prior"),
    ] {
        let message = from_file(name, content).expect_err("it is refused").to_string();
        assert!(message.contains(&format!("unknown field `{key}`")), "{message}");
        assert!(message.contains(name) && message.contains("expected"), "{message}");
    }
    for variable in ["SHRINKD__INGEST__BATCH_SIZE", "SHRINKD__INGESTS", "SHRINKD__", "SHRINKD__LOG__LEVEL__DEEPER"] {
        let message = error(&[(variable, "1")]);
        assert!(message.starts_with(&format!("{variable}: ")), "{message}");
    }
}

#[test]
fn what_is_not_allowed_is_refused_with_the_key_its_origin_and_what_is_allowed() {
    for (variable, value, allowed) in [
        ("INGEST__BATCH_RECORDS", "0", "a whole number above 0"),
        ("INGEST__BATCH_RECORDS", "many", "a whole number above 0"),
        ("INGEST__BATCH_BYTES", "-1", "a whole number above 0"),
        ("INGEST__BATCH_AGE", "100", "like 250ms"),
        ("REFIT__INTERVAL", "0s", "above 0"),
        ("REFIT__PRIOR_MU", "normal:0", "normal:MEAN,SD with SD > 0"),
        ("REFIT__PRIOR_TAU", "half-normal:-1", "half-normal:SCALE"),
        ("PUBLISH__TOLERANCE", "1", "below 1"),
        ("PUBLISH__TOLERANCE", "nan", "below 1"),
        ("DIAGNOSTICS__THRESHOLDS__SE_RATIO__NOTICEABLE", "0.5", "1 < noticeable <= material"),
        ("DIAGNOSTICS__THRESHOLDS__MU_SHIFT__MATERIAL", "inf", "noticeable <= material"),
        ("POPULATIONS__LABELS", r#"["a", "a"]"#, "twice"),
        ("POPULATIONS__SETTINGS", r#"{ conversion = { } }"#, "metric/segment/scale"),
        ("STORE__URL", "mysql://db/x", "postgres://"),
        ("STORE__URL", "", "sqlite://"),
        ("STORE__CONNECTIONS", "0", "a whole number above 0"),
        ("HTTP__LISTEN", "localhost", "IP:PORT"),
        ("LOG__FORMAT", "xml", "`text`"),
        ("LOG__LEVEL", "loud", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "", "off, error, warn, info, debug, trace"),
        ("LOG__LEVEL", "info,shrinkd=verbose", "info,shrinkd::worker=debug"),
        ("REFIT__MIN_EXPERIMENTS", "-1", "a whole number, 0 or above"),
        ("INGEST", "5", "a table"),
        ("SOURCE__FILE__FOLLOW", "true", "only a file can be followed"),
        ("SOURCE__KAFKA__TOPIC", "t", "both [source.kafka] and [source.file]"),
    ] {
        let variable = format!("SHRINKD__{variable}");
        let given: Vec<_> = [SOURCE, STORE].into_iter().filter(|(name, _)| *name != variable).collect();
        let given = [&given[..], &[(variable.as_str(), value)]].concat();
        let message = Config::load(None, environment(&given)).expect_err("it is refused").to_string();
        assert!(message.contains(&variable) && message.contains(allowed), "{variable}={value}: {message}");
    }
}

#[test]
fn a_fault_of_the_file_names_the_file_and_the_key_or_the_line() {
    let message = from_file("value", "[refit]\nprior_mu = \"bell\"\n").expect_err("refused").to_string();
    assert!(
        message.starts_with("`refit.prior_mu` (") && message.contains("-value): `bell` is not a prior"),
        "{message}"
    );
    let message = from_file("syntax", "[refit]\nprior_mu = flat secret\n").expect_err("refused").to_string();
    assert!(message.contains("-syntax is not TOML: line 2: ") && !message.contains("secret"), "{message}");
    let message = Config::load(Some(Path::new("/nowhere.toml")), []).expect_err("refused").to_string();
    assert!(message.starts_with("cannot read the configuration /nowhere.toml: "), "{message}");
}

#[test]
fn what_shrinkd_or_librdkafka_would_not_take_of_properties_is_refused_before_anything_starts() {
    for (property, value, because) in [
        ("ENABLE_AUTO_COMMIT", "true", "offsets are kept in the store"),
        ("GROUP_ID", "g", "source.kafka.group"),
        ("NO_SUCH_PROPERTY", "1", "no.such.property"),
        ("SESSION_TIMEOUT_MS", "soon", "session.timeout.ms"),
    ] {
        let variable = format!("SHRINKD__SOURCE__KAFKA__PROPERTIES__{property}");
        let variables = [
            STORE,
            ("SHRINKD__SOURCE__KAFKA__BROKERS", "b"),
            ("SHRINKD__SOURCE__KAFKA__TOPIC", "t"),
            (&variable, value),
        ];
        let message = Config::load(None, environment(&variables)).expect_err("refused").to_string();
        assert!(message.contains("source.kafka.properties") && message.contains(because), "{message}");
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn a_build_without_tls_says_so_where_tls_is_asked_for() {
    let message =
        Config::load(None, environment(&[SOURCE, ("SHRINKD__STORE__URL", "postgres://u:pw@h/d?sslmode=verify-full")]))
            .expect_err("refused")
            .to_string();
    assert!(message.contains("sslmode=verify-full") && message.contains("--features tls"), "{message}");
    assert!(!message.contains("pw"), "{message}");
    let kafka = [STORE, ("SHRINKD__SOURCE__KAFKA__BROKERS", "b"), ("SHRINKD__SOURCE__KAFKA__TOPIC", "t")];
    for (property, value) in [("SECURITY_PROTOCOL", "sasl_ssl"), ("SASL_MECHANISM", "SCRAM-SHA-512")] {
        let variable = format!("SHRINKD__SOURCE__KAFKA__PROPERTIES__{property}");
        let variables = [&kafka[..], &[(variable.as_str(), value)]].concat();
        let message = Config::load(None, environment(&variables)).expect_err("refused").to_string();
        assert!(message.contains("--features tls"), "{message}");
    }
}

#[test]
fn a_population_has_its_own_settings_and_the_general_ones_for_the_rest() {
    let config = from_file(
        "settings",
        "[refit]\nprior_mu = \"normal:0,1\"\nmin_experiments = 9\n\
         [populations.settings.\"conversion/all/relative\"]\nprior_tau = \"half-cauchy:0.1\"\n",
    )
    .expect("it can be run");
    let own = config.settings(&"conversion/all/relative".parse().expect("a name"));
    assert_eq!(own.priors.mu, PriorMu::Normal { mean: 0.0, sd: 1.0 });
    assert_eq!((own.priors.tau, own.min_experiments), (PriorTau::HalfCauchy { scale: 0.1 }, 9));
    let other = config.settings(&"revenue/all/absolute".parse().expect("a name"));
    assert_eq!(other.priors.tau, PriorTau::Flat);
}

fn check(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.env_remove("SHRINKD_CONFIG");
    command.arg("check").args(arguments).envs(variables.iter().copied());
    let output = command.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

#[test]
fn check_prints_every_key_and_its_origin_as_toml_that_comes_to_the_same() {
    let path = sample("local");
    let path = path.to_str().expect("UTF-8");
    let (code, printed, _) = check(&["--config", path], &[("SHRINKD__REFIT__INTERVAL", "3s")]);
    assert_eq!(code, 0);
    assert!(printed.contains("interval = \"3s\"  # SHRINKD__REFIT__INTERVAL\n"), "{printed}");
    assert!(printed.contains("batch_records = 5000  # default\n"), "{printed}");
    assert!(printed.contains("group = \"shrinkd\"  # default\n"), "{printed}");
    assert!(printed.contains(&format!("\"session.timeout.ms\" = \"6000\"  # {path}\n")), "{printed}");
    let password = [("SHRINKD__STORE__URL", "postgres://shrinkd:shrinkd@127.0.0.1:5432/shrinkd")];
    let again = TemporaryFile::new("again", &printed);
    let mut expected = Config::load(Some(&sample("local")), []).expect("it can be run");
    expected.refit.interval = Duration::from_secs(3);
    assert_eq!(Config::load(Some(&again.0), environment(&password)).expect("it can be run"), expected);
}

#[test]
fn check_reads_what_the_variable_for_the_file_names() {
    let path = sample("embedded");
    let (code, printed, _) = check(&[], &[("SHRINKD_CONFIG", path.to_str().expect("UTF-8"))]);
    assert_eq!(code, 0);
    assert!(printed.contains("sqlite://shrinkd.db"), "{printed}");
}

#[test]
fn check_says_on_stderr_what_cannot_be_run_and_exits_with_2() {
    let (code, printed, error) = check(&[], &[]);
    assert_eq!((code, printed.as_str()), (2, ""));
    assert_eq!(
        error,
        "error: `source` (not set): says nothing: give [source.kafka] (brokers, topic) or [source.file] (path)\n"
    );
}

#[test]
fn check_masks_what_is_secret() {
    let (code, printed, _) = check(
        &["--config", sample("production").to_str().expect("UTF-8")],
        &[STORE, ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2")],
    );
    assert_eq!(code, 0);
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("postgres://shrinkd:***@db:5432/shrinkd"), "{printed}");
    assert!(printed.contains("\"sasl.password\" = \"***\""), "{printed}");
}

proptest! {
    #[test]
    fn no_password_of_a_url_is_ever_printed(password in "[!-~]{6,30}") {
        for url in [
            format!("postgres://user:{password}@db/shrinkd"),
            format!("postgres://user:{password}@db/shrinkd?sslmode=prefer"),
        ] {
            let shown = StoreUrl::Postgres(url).to_string();
            prop_assert!(!shown.contains(&password), "{}", shown);
            prop_assert!(shown.contains("***"), "{}", shown);
        }
        let parameter = StoreUrl::Postgres(format!("postgres://db/shrinkd?password={}", password.replace(['&', '@'], "")));
        prop_assert!(parameter.to_string().ends_with("password=***"));
        prop_assert_eq!(format!("{parameter:?}"), parameter.to_string());
    }
}

#[test]
fn no_secret_is_in_the_debug_output_of_a_configuration() {
    let variables = environment(&[
        STORE,
        ("SHRINKD__SOURCE__KAFKA__BROKERS", "b"),
        ("SHRINKD__SOURCE__KAFKA__TOPIC", "t"),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
    ]);
    let debug = format!("{:?}", Config::load(None, variables).expect("it can be run"));
    assert!(debug.contains("sasl.password") && !debug.contains("hunter2"), "{debug}");
}
