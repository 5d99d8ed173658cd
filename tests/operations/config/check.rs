//! What is printed of a configuration: all of it, and no secret.

use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;
use shrinkd::config::{Config, StoreUrl};

use super::{STORE, TemporaryFile, environment, sample};

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
        "error: `source` (not set): no source is configured: set [source.kafka] (brokers, topic) or [source.file] (path); without a configuration \
         of your own, --config config/embedded.toml reads events from stdin into an SQLite file, with no server\n"
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
        ("SHRINKD__SOURCE__KAFKA__BROKERS", "b:9092"),
        ("SHRINKD__SOURCE__KAFKA__TOPIC", "t"),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
    ]);
    let debug = format!("{:?}", Config::load(None, variables).expect("it can be run"));
    assert!(debug.contains("sasl.password") && !debug.contains("hunter2"), "{debug}");
}
