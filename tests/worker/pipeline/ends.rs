//! What a worker says at the end of a file, and with which exit code.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::Folder;
use crate::common::database::{Database, PostgresDatabase, SqliteDatabase};
use crate::common::program::{portfolio, shrinkd};
use crate::common::worker::from_file;

/// Runs a worker to the end of a file of this text.
fn run(folder: &Folder, name: &str, text: &str, store: &str) -> Output {
    let file = folder.path(name);
    fs::write(&file, text).expect("a file");
    run_file(&file, store)
}

fn run_file(file: &Path, store: &str) -> Output {
    let mut environment = from_file(file, store);
    environment.push(("SHRINKD__HTTP__LISTEN", "127.0.0.1:0".to_owned()));
    shrinkd(&environment, &["run"])
}

/// The exit code, and what was printed.
fn ended(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The query in the last paragraph, for one column of what it returns.
fn query(printed: &str) -> &'static str {
    let query = printed.trim_end().rsplit("\n\n").next().expect("a last paragraph").trim_end_matches(';');
    format!("select experiment_id from ({query}) as found").leak()
}

#[tokio::test]
async fn at_the_end_of_a_file_the_worker_says_what_became_of_it_and_where_the_results_are() {
    let folder = Folder::new("ends");
    let database = SqliteDatabase::absent();
    let spoilt = "experiment,metric,variant,n,mean\nexp-1,conversion,B,1000,0.1\n";
    let (code, printed) = ended(&run(&folder, "events.ndjson", &(portfolio(1, 100) + spoilt), &database.url()));
    assert_eq!(code, Some(0), "{printed}");
    let shows = |what: &str| assert!(printed.contains(what), "{what} of {printed}");
    shows("end of file ");
    shows(" malformed_json, first at byte ");
    assert_eq!(printed.matches("malformed_json").count(), 1, "{printed}");
    assert_eq!(printed.matches("it looks like CSV").count(), 1, "{printed}");
    let refused = database.count("select cast(count(*) as text) from rejected_events").await;
    shows(&format!("refused      {refused} "));
    let populations = database.count("select cast(count(*) as text) from populations").await;
    shows(&format!("populations  {populations}"));
    shows(&database.url());
    assert_eq!(database.texts(query(&printed)).await.len(), 10, "{printed}");

    // Everything is known, or read, by now: that is no failure.
    let (code, printed) = ended(&run_file(&folder.path("events.ndjson"), &database.url()));
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("nothing new since the last run, which read to byte"), "{printed}");
    let (code, printed) = ended(&run(&folder, "again.ndjson", &portfolio(1, 100), &database.url()));
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains(" duplicate"), "{printed}");
}

#[test]
fn the_results_that_were_taken_are_those_of_every_outcome() {
    let folder = Folder::new("ends-outcomes");
    let event = |revision: u64| {
        format!(
            r#"{{"schema_version":1,"experiment_id":"e","revision":{revision},"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"m","effects":[{{"variant":"B","estimate":0.1,"variance":0.01}}]}}]}}"#
        ) + "\n"
    };
    let part = |id: u64| {
        format!(
            r#"{{"schema_version":1,"experiment_id":"waits","event_id":"{id}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"m","accumulate":true,"treatments":[{{"variant":"B","n":100,"mean":1,"variance":1}}]}}]}}"#
        ) + "\n"
    };
    let events = [event(2).repeat(4), event(1), part(1), part(2)].concat();
    let (code, printed) = ended(&run(&folder, "events.ndjson", &events, &SqliteDatabase::absent().url()));
    assert_eq!(code, Some(0), "{printed}");
    let taken = "taken        7 results: 1 accepted, 2 pending, 3 duplicate, 1 stale\n";
    assert!(printed.contains(taken), "{printed}");
}

#[tokio::test]
async fn the_query_to_try_works_on_postgres_too() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let folder = Folder::new("ends-postgres");
    let (code, printed) = ended(&run(&folder, "events.ndjson", &portfolio(2, 100), &database.url()));
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(database.texts(query(&printed)).await.len(), 10, "{printed}");
}

#[test]
fn a_file_of_which_nothing_is_taken_ends_with_2_and_one_line_for_each_reason() {
    let folder = Folder::new("ends-refused");
    let line = "exp-1,conversion,B,1000,0.1\n";
    let unsupported = "{\"schema_version\":9,\"experiment_id\":\"e\"}\n";
    // A thousand refusals in a row halt the file before its end, which an operator has to look at.
    for (name, lines, exit_code) in [("few.csv", 3, 2), ("many.csv", 1_000, 1)] {
        let database = SqliteDatabase::absent();
        let output = run(&folder, name, &(unsupported.to_owned() + &line.repeat(lines)), &database.url());
        let (code, printed) = ended(&output);
        assert_eq!(code, Some(exit_code), "{printed}");
        let reasons = printed.lines().filter(|line| line.contains(", first at byte "));
        assert_eq!(reasons.count(), 2, "{printed}");
        assert!(printed.contains("Nothing was taken"), "{printed}");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = log.lines().filter(|line| line.contains("malformed_json"));
        assert!(said.count() <= 2, "the first, and how many were left out: {log}");
    }
}

#[test]
fn a_file_without_events_ends_with_2_and_says_so() {
    let folder = Folder::new("ends-empty");
    for (name, text) in [("empty", ""), ("blank", "\n\n")] {
        let (code, printed) = ended(&run(&folder, name, text, &SqliteDatabase::absent().url()));
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains("none: the file has no events"), "{printed}");
    }
}

#[test]
fn an_unknown_field_is_named_once_with_the_field_that_was_probably_meant() {
    let folder = Folder::new("ends-unknown");
    let event = |revision: u64| {
        format!(
            r#"{{"schema_version":1,"experiment_id":"e","revision":{revision},"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"m","segmnt":"all","effects":[{{"variant":"B","estimate":0.1,"variance":0.01}}]}}]}}"#
        ) + "\n"
    };
    let output = run(&folder, "events.ndjson", &(event(1) + &event(2)), &SqliteDatabase::absent().url());
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(log.matches("unknown field: $.results[0].segmnt: did you mean segment?").count(), 1, "{log}");
}

#[test]
fn without_a_configuration_the_worker_names_the_one_that_needs_no_server() {
    let output = shrinkd(&Vec::new(), &["run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--config config/embedded.toml"), "{said}");
}

#[test]
fn a_migration_needs_a_store_and_no_source() {
    let database = SqliteDatabase::absent();
    let migrate = |key, value: String| shrinkd(&[(key, value)], &["migrate"]);
    let output = migrate("SHRINKD__STORE__URL", database.url());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(Path::new(&database.path()).exists());
    let without = migrate("SHRINKD__SOURCE__FILE__PATH", "-".to_owned());
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(without.status.code() == Some(2) && said.contains("`store.url` (not set)"), "{said}");
}
