//! What `shrinkd verify` promises: a store that workers have filled is clean, at any moment, and each kind of damage is found
//! and named.

mod damage;
mod kafka;
mod live;
mod refusals;
mod rights;

use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};

use shrinkd::config::Config;
use shrinkd::store::Store;
use shrinkd::verify::{Rules, verify};
use shrinkd::worker::rebuild::{Progress, rebuild};

use crate::common::database::{Database, PostgresDatabase, SqliteDatabase};
use crate::common::folder::Folder;
use crate::common::program::{portfolio, printed, shrinkd};
use crate::common::worker::{Environment, from_file};

/// A database of one test's own that processes can be told of.
trait Audited: Database {
    /// A column of bytes, one of them changed.
    fn changed_byte(column: &str, at: usize) -> String;
}

impl Audited for SqliteDatabase {
    fn changed_byte(column: &str, at: usize) -> String {
        let (after, rest) = (at + 1, at + 2);
        format!(
            "cast(substr({column}, 1, {at})
                  || case substr({column}, {after}, 1) when x'01' then x'02' else x'01' end
                  || substr({column}, {rest}) as blob)"
        )
    }
}

impl Audited for PostgresDatabase {
    fn changed_byte(column: &str, at: usize) -> String {
        format!("set_byte({column}, {at}, (get_byte({column}, {at}) + 1) % 256)")
    }
}

/// How shrinkd is told of a source and a store.
#[derive(Clone)]
struct Settings(Environment);

impl Settings {
    fn file(events: &std::path::Path, url: String) -> Settings {
        Settings(from_file(events, &url)).with("SHRINKD__HTTP__LISTEN", "127.0.0.1:0")
    }

    fn with(mut self, name: &'static str, value: &str) -> Settings {
        self.0.retain(|(own, _)| *own != name);
        self.0.push((name, value.to_owned()));
        self
    }

    /// As a process loads it.
    fn config(&self) -> Arc<Config> {
        let environment = self.0.iter().map(|(name, value)| (name.into(), value.into()));
        Arc::new(Config::load(None, environment).expect("it is valid"))
    }

    /// Runs a worker until the file is through.
    fn run(&self) {
        printed(&shrinkd(&self.0, &["run"]));
    }

    fn verify(&self) -> Audit {
        Audit::of(shrinkd(&self.0, &["verify"]))
    }
}

/// What an audit said.
#[derive(Debug)]
struct Audit {
    code: Option<i32>,
    said: String,
    stderr: String,
}

impl Audit {
    fn of(output: Output) -> Audit {
        let [said, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Audit { code: output.status.code(), said, stderr }
    }

    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(self.code, Some(0), "{}{}", self.said, self.stderr);
        assert!(self.said.ends_with("clean: nothing differs\n"), "{}", self.said);
    }

    /// The checks that found differences.
    fn found(&self) -> Vec<&str> {
        let lines = self.said.lines().take_while(|line| !line.starts_with("NOT CLEAN"));
        let checks = lines.filter(|line| line.contains(": ") && line.contains(" difference"));
        checks.filter_map(|line| line.split_whitespace().next()).collect()
    }

    /// The line of a check.
    fn line(&self, check: &str) -> &str {
        let found = self.said.lines().find(|line| line.trim_start().starts_with(check));
        found.unwrap_or_else(|| panic!("no {check} in\n{}", self.said))
    }
}

/// A portfolio of experiments with revisions, retractions and results to refuse, and one sum of parts that waits for its
/// control.
fn events(folder: &Folder, experiments: u32) -> PathBuf {
    let part = r#"{"schema_version":1,"experiment_id":"waits","event_id":"1","revision":1,"completed_at":"2026-11-01T12:00:00Z","results":[{"metric":"parts","accumulate":true,"treatments":[{"variant":"B","n":100,"mean":1.0,"variance":1.0}]}]}"#;
    let path = folder.path("events.ndjson");
    std::fs::write(&path, format!("{part}\n{}", portfolio(3, experiments))).expect("the events are written");
    path
}

/// The same of three metrics in five populations, large and small, the first of the portfolio: for what is audited many times.
fn events_of_few_metrics(folder: &Folder, experiments: u32) -> PathBuf {
    let path = events(folder, experiments);
    let text = std::fs::read_to_string(&path).expect("the events are there");
    let kept = text.lines().filter_map(|line| {
        let mut event: serde_json::Value = serde_json::from_str(line).expect("an event");
        let Some(results) = event["results"].as_array_mut() else { return Some(line.to_owned()) };
        results.retain(|result| {
            let metric = result["metric"].as_str();
            metric.is_none_or(|metric| ["parts", "basket_size", "churn", "conversion"].contains(&metric))
        });
        (!results.is_empty()).then(|| event.to_string())
    });
    std::fs::write(&path, kept.map(|line| line + "\n").collect::<String>()).expect("the events are written");
    path
}

#[tokio::test]
async fn the_progress_of_an_audit_is_that_of_reading_every_block_twice() {
    let (folder, database) = (Folder::new("progress"), SqliteDatabase::absent());
    let settings = Settings::file(&events(&folder, 20), database.url());
    settings.run();
    let config = settings.config();
    let store = Store::connect_existing(&config.store, &config.store_settings()).await.expect("it is there");
    let mut audit = store.begin_audit().await.expect("an audit");
    let blocks = u64::try_from(audit.count_blocks().await.expect("a number")).expect("0 or above");
    let own = Arc::clone(&config);
    let rules = Rules {
        settings: Arc::new(move |population| own.settings(population)),
        grouping: config.grouping(),
        tolerance: config.publish.tolerance,
    };
    let told = Mutex::new(Vec::new());
    let progress = |done: u64, all: u64| told.lock().expect("nothing has panicked").push((done, all));
    verify(&mut audit, &rules, &progress).await.expect("it can be read");
    let told = told.into_inner().expect("nothing has panicked");
    // Sums that wait for their control are read, and not among the blocks that are counted before.
    assert!(told.is_sorted() && told.iter().all(|(done, all)| done <= all), "{told:?}");
    assert!(told.first().is_some_and(|(done, all)| *done > 0 && *all == 2 * blocks), "{blocks}: {told:?}");
    assert!(told.last().is_some_and(|(done, all)| done == all), "{told:?}");
}

#[tokio::test]
async fn what_a_rebuild_commits_is_clean_before_anything_is_refitted() {
    let (folder, database) = (Folder::new("committed"), SqliteDatabase::absent());
    let settings = Settings::file(&events(&folder, 100), database.url());
    settings.run();
    let config = settings.config();
    let store = Store::connect_to_rebuild(&config.store, &config.store_settings()).await.expect("it is there");
    let rebuilding = tokio::spawn(async move {
        let killed_before_the_first_refit = |progress| assert!(matches!(progress, Progress::Experiments { .. }));
        rebuild(store, &config, killed_before_the_first_refit).await.map(drop)
    });
    assert!(rebuilding.await.is_err_and(|ended| ended.is_panic()), "it gets as far as to the refits");
    settings.verify().is_clean();
    let refits = "select cast(count(*) as text) from populations where refit_due_at is null";
    assert_eq!(database.count(refits).await, 0, "all are due");
    for has_cells in ["has_cells", "not has_cells"] {
        let such = format!("select cast(count(*) as text) from populations where {has_cells}");
        assert_ne!(database.count(such.leak()).await, 0, "{has_cells}");
    }
}
