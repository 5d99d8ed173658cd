//! `shrinkd replay-rejected` as operators use it, on a database that a worker has filled.

use std::path::PathBuf;
use std::process::Output;

use crate::common::database::{Database, SqliteDatabase};
use crate::common::program::{printed, shrinkd};
use crate::common::worker::from_file;

/// A database, and the events that a worker has read into it: the third is of a version that no build knows, the last is
/// not JSON.
struct Filled {
    database: SqliteDatabase,
    events: PathBuf,
}

impl Filled {
    fn new() -> Filled {
        let database = SqliteDatabase::absent();
        let events = database.path().with_file_name("events.ndjson");
        let event = |i: i32, version| {
            format!(
                r#"{{"schema_version":{version},"experiment_id":"exp-{i}","revision":1,"completed_at":"2026-11-01T12:00:00Z","results":[{{"metric":"m","effects":[{{"variant":"a","estimate":{i},"variance":0.5}}]}}]}}"#
            )
        };
        let lines = [event(1, 1), event(2, 1), event(3, 9), "not JSON".to_owned()];
        std::fs::write(&events, lines.join("\n") + "\n").expect("a file");
        let filled = Filled { database, events };
        assert_eq!(filled.run(&["run"]).status.code(), Some(0));
        filled
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut environment = from_file(&self.events, &self.database.url());
        environment.push(("SHRINKD__HTTP__LISTEN", "127.0.0.1:0".to_owned()));
        shrinkd(&environment, arguments)
    }

    /// Replays, which goes well; returns what was printed.
    fn replay(&self, arguments: &[&str]) -> String {
        printed(&self.run(&[&["replay-rejected"], arguments].concat()))
    }

    /// As if this build knew the version of the third event.
    async fn learn(&self) {
        self.database
            .execute(
                r#"update rejected_events set payload = cast(replace(
                       cast(payload as text), '"schema_version":9', '"schema_version":1') as blob)"#,
            )
            .await;
    }
}

#[tokio::test]
async fn what_a_new_version_can_use_is_in_and_the_table_says_what_is_not() {
    let filled = Filled::new();
    let nothing_new = filled.replay(&["--reason", "unsupported_version"]);
    assert!(nothing_new.contains("unsupported_version  refused: unsupported_version"), "{nothing_new}");
    filled.learn().await;
    let expected = "2 messages with 2 refusals replayed\n\n  \
                    was refused for      now                      refusals\n  \
                    malformed_json       refused: malformed_json         1\n  \
                    unsupported_version  accepted                        1\n";
    assert_eq!(
        filled.replay(&["--all", "--dry-run"]).replace("would be replayed (dry run: nothing was changed)", "replayed"),
        expected
    );
    assert_eq!(filled.replay(&["--all"]), expected);
    let again = filled.replay(&["--all"]);
    assert!(again.starts_with("1 message with 1 refusal replayed\n"), "{again}");

    // The next worker fits what the replay brought, and reads on where the last one stopped.
    assert_eq!(filled.run(&["run"]).status.code(), Some(0));
    let fitted = "select cast(experiments as text) from current_population_fits where correlation = 'modelled'";
    assert_eq!(filled.database.count(fitted).await, 3);
    assert_eq!(filled.database.count("select cast(count(*) as text) from effect_estimates").await, 3);
}

#[test]
fn nothing_to_replay_is_no_error() {
    assert_eq!(Filled::new().replay(&["--reason", "non_finite"]), "0 messages with 0 refusals replayed\n");
}

#[test]
fn a_selection_is_asked_for_and_must_make_sense() {
    let filled = Filled::new();
    for arguments in [&[][..], &["--dry-run"], &["--all", "--id", "1"], &["--reason", "no_such_code"], &["--id", "99"]]
    {
        let output = filled.run(&[&["replay-rejected"], arguments].concat());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} is left without a word");
    }
}
