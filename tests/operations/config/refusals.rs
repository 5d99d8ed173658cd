//! What is not taken, and what is said of it.

use std::path::Path;

use shrinkd::config::Config;

use super::{SOURCE, STORE, TemporaryFile, environment, error, from_file};

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
        ("unknown-threshold", "[diagnostics.thresholds.rmse_excess]\nharmless = 1\n", "harmless"),
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
        ("INGEST__BATCH_AGE", "100", "such as 250ms"),
        ("REFIT__INTERVAL", "0s", "above 0"),
        ("REFIT__PRIOR_MU", "normal:0", "normal:MEAN,SD with SD > 0"),
        ("REFIT__PRIOR_TAU", "half-normal:-1", "half-normal:SCALE"),
        ("PUBLISH__TOLERANCE", "1", "below 1"),
        ("PUBLISH__TOLERANCE", "nan", "below 1"),
        ("DEAD_LETTERS__SHARE", "0", "above 0 and at most 1"),
        ("DEAD_LETTERS__SHARE", "1.001", "above 0 and at most 1"),
        ("DEAD_LETTERS__SHARE", "nan", "above 0 and at most 1"),
        ("DIAGNOSTICS__THRESHOLDS__RMSE_EXCESS__NOTICEABLE", "0.5", "noticeable <= material"),
        ("DIAGNOSTICS__THRESHOLDS__NAIVE_COVERAGE__MATERIAL", "0.945", "material <= noticeable < 0.95"),
        ("DIAGNOSTICS__SHIPPED_DECISIONS", r#"["shipped", " "]"#, "not blank"),
        ("DIAGNOSTICS__THRESHOLDS__CHANGED_DECISIONS__MATERIAL", "inf", "noticeable <= material"),
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
fn what_would_fail_at_the_first_connection_is_refused_without_one() {
    let refused = |variables: &[(&str, &str)], key: &str, allowed: &str| {
        let message = Config::load(None, environment(variables)).expect_err("it is refused").to_string();
        assert!(message.contains(&format!("`{key}`")) && message.contains(allowed), "{variables:?}: {message}");
    };
    for (url, allowed) in [
        ("postgres://app@db:99999/shrinkd", "invalid port number"),
        ("postgres://app@db:0/shrinkd", "from 1 to 65535"),
        ("postgres://app@db/shrinkd?port=0", "from 1 to 65535"),
        ("postgres://app@db/shrinkd?sslmode=bogus", "disable, allow, prefer, require, verify-ca, verify-full"),
        ("postgres://app@db/shrinkd?hostaddr=db", "an IP address"),
        ("postgres://app@db/shrinkd?statement-cache-capacity=-1", "a whole number"),
        ("postgres://app@db/shrinkd?sslrootcert=/no/such.pem", "the path of a file"),
        ("postgres://app@db/shrinkd?connect_timeout=3", "the known ones are sslmode, sslrootcert"),
        ("postgres://app@db/shrinkd?options[a=b", "the known ones are sslmode, sslrootcert"),
        ("postgres://app@db/shrinkd?a]=b", "the known ones are sslmode, sslrootcert"),
    ] {
        refused(&[SOURCE, ("SHRINKD__STORE__URL", url)], "store.url", allowed);
    }
    for brokers in ["b", "b:0", "b:port", "b:9092,", ":9092", "http://b:9092", "b c:9092", "[::1:9092", "b:9092/"] {
        let variables = [STORE, ("SHRINKD__SOURCE__KAFKA__BROKERS", brokers), ("SHRINKD__SOURCE__KAFKA__TOPIC", "t")];
        refused(&variables, "source.kafka.brokers", "expected host:port");
    }
    for topic in ["^experiments.*", "a b", "..", &"x".repeat(250)] {
        let brokers = ("SHRINKD__SOURCE__KAFKA__BROKERS", "b:9092");
        refused(
            &[STORE, brokers, ("SHRINKD__SOURCE__KAFKA__TOPIC", topic)],
            "source.kafka.topic",
            "at most 249 letters",
        );
    }
}

#[test]
fn every_form_of_a_url_and_of_brokers_that_can_be_connected_to_is_taken() {
    for url in [
        "postgres://db",
        "postgresql://app:p%40ss%2Fword@db:6432/shrinkd",
        "postgres:///shrinkd?host=/var/run/postgresql&user=app&application_name=a",
        "postgres://app@[::1]/shrinkd?sslmode=disable&options=-c%20search_path%3Dx&options[a]=b",
        "postgres://%2Fvar%2Frun%2Fpostgresql/shrinkd",
    ] {
        Config::load(None, environment(&[SOURCE, ("SHRINKD__STORE__URL", url)])).expect("it is valid");
    }
    for brokers in ["b:9092", "b-1.x_y:9092, 10.0.0.1:9093", "[::1]:9092", "SASL_SSL://b:9092,PLAINTEXT://c:9092"] {
        let variables =
            [STORE, ("SHRINKD__SOURCE__KAFKA__BROKERS", brokers), ("SHRINKD__SOURCE__KAFKA__TOPIC", "a.b_C-1")];
        Config::load(None, environment(&variables)).expect("it is valid");
    }
}

#[test]
fn a_fault_of_the_file_names_the_file_and_the_key_or_the_line() {
    let message = from_file("value", "[refit]\nprior_mu = \"bell\"\n").expect_err("refused").to_string();
    assert!(
        message.starts_with("`refit.prior_mu` (")
            && message.contains("-value): is not a prior: expected flat, fixed:VALUE or normal:MEAN,SD with SD > 0"),
        "{message}"
    );
    let message = from_file("syntax", "[refit]\nprior_mu = flat secret\n").expect_err("refused").to_string();
    assert!(message.contains("-syntax is not valid TOML: line 2: ") && !message.contains("secret"), "{message}");
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
            ("SHRINKD__SOURCE__KAFKA__BROKERS", "b:9092"),
            ("SHRINKD__SOURCE__KAFKA__TOPIC", "t"),
            (&variable, value),
        ];
        let message = Config::load(None, environment(&variables)).expect_err("refused").to_string();
        assert!(message.contains("source.kafka.properties") && message.contains(because), "{message}");
    }
}

#[test]
fn a_refused_property_is_blamed_on_the_variable_or_file_that_set_it() {
    const PREFIX: &str = "SHRINKD__SOURCE__KAFKA__PROPERTIES__";
    let kafka = [STORE, ("SHRINKD__SOURCE__KAFKA__BROKERS", "b:9092"), ("SHRINKD__SOURCE__KAFKA__TOPIC", "t")];
    for (wrong, value, property) in [
        ("SECURITY_PROTOCOL", "SASL_SSL_", "security.protocol"),
        ("GROUP_ID", "g", "group.id"),
        ("FETCH_MIN_BYTES", "many", "fetch.min.bytes"),
    ] {
        let (wrong, fine) = (format!("{PREFIX}{wrong}"), format!("{PREFIX}SESSION_TIMEOUT_MS"));
        let variables = [&kafka[..], &[(wrong.as_str(), value), (fine.as_str(), "6000")]].concat();
        let message = Config::load(None, environment(&variables)).expect_err("refused").to_string();
        assert!(message.starts_with(&format!("`source.kafka.properties.{property}` ({wrong}): ")), "{message}");
        assert!(!message.contains("SESSION_TIMEOUT_MS"), "{message}");

        let file = TemporaryFile::new(property, &format!("[source.kafka.properties]\n\"{property}\" = \"{value}\"\n"));
        let variables = [&kafka[..], &[(fine.as_str(), "6000")]].concat();
        let message = Config::load(Some(&file.0), environment(&variables)).expect_err("refused").to_string();
        assert!(message.contains(file.path()) && !message.contains("SESSION_TIMEOUT_MS"), "{message}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_blamed_on_its_own_key_and_variable() {
    for (key, content) in [
        ("refit.min_experiments", "[refit]\nmin_experiments = \"five\"\n"),
        ("ingest.batch_size", "[ingest]\nbatch_size = 1\n"),
        (
            "diagnostics.thresholds.rmse_excess.material",
            "[diagnostics.thresholds]\nrmse_excess = { material = true }\n",
        ),
        ("populations.settings.a/all/absolute.prior_mu", "[populations.settings.\"a/all/absolute\"]\nprior_mu = 1\n"),
        ("ingests", "ingests = 1\n"),
    ] {
        let message = from_file("type", content).expect_err("refused").to_string();
        assert!(message.starts_with(&format!("`{key}` (")), "{message}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named_in_plain_words() {
    for (key, value, told) in [
        ("refit.min_experiments", "\"five\"", "is text: expected a whole number, 0 or above"),
        ("refit.prior_mu", "1", "is a whole number: expected text"),
        ("refit.prior_mu", "0.5", "is a number: expected text"),
        ("refit.prior_mu", "true", "is true or false: expected text"),
        ("refit.prior_mu", "[\"flat\"]", "is a list: expected text"),
        ("refit.prior_mu", "{ a = 1 }", "is a table: expected text"),
    ] {
        let message = from_file("plain", &format!("{key} = {value}\n")).expect_err("refused").to_string();
        assert!(message.contains(told), "{key} = {value}: {message}");
    }
}

#[test]
fn only_without_a_file_is_the_one_told_of_that_needs_no_server() {
    let told = "--config config/embedded.toml";
    let without = Config::load(None, environment(&[STORE])).expect_err("no source").to_string();
    assert!(without.contains("no source is configured") && without.contains(told), "{without}");
    let file = TemporaryFile::new("no-source", "[ingest]\nbatch_records = 7\n");
    let with = Config::load(Some(Path::new(file.path())), environment(&[STORE])).expect_err("no source").to_string();
    assert!(with.contains("no source is configured") && !with.contains(told), "{with}");
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
    let kafka = [STORE, ("SHRINKD__SOURCE__KAFKA__BROKERS", "b:9092"), ("SHRINKD__SOURCE__KAFKA__TOPIC", "t")];
    for (property, value) in [("SECURITY_PROTOCOL", "sasl_ssl"), ("SASL_MECHANISM", "SCRAM-SHA-512")] {
        let variable = format!("SHRINKD__SOURCE__KAFKA__PROPERTIES__{property}");
        let variables = [&kafka[..], &[(variable.as_str(), value)]].concat();
        let variables =
            [&variables[..], &[("SHRINKD__SOURCE__KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "6000")]].concat();
        let message = Config::load(None, environment(&variables)).expect_err("refused").to_string();
        assert!(message.contains(&format!("({variable}): ")) && message.contains("--features tls"), "{message}");
    }
}
