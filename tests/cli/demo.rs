//! What `shrinkd demo` promises: what it prints is what the tables hold, and everything that it says to try works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use unicode_width::UnicodeWidthStr;

/// A folder of one test's own, to start the program in.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shrinkd-demo-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder for the test");
        Folder(path)
    }

    fn shrinkd(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
        command.args(arguments.split_whitespace()).current_dir(&self.0).env("COLUMNS", "80");
        command.output().expect("the program starts")
    }

    /// What a demo prints, in a folder that may hold an earlier one.
    fn demo(&self, arguments: &str) -> String {
        let output = self.shrinkd(&format!("demo {arguments}"));
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");
        stdout
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("shrinkd-demo").join(name)
    }

    /// The rows of a query on the database, every value as text.
    fn ask(&self, sql: &str) -> Vec<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(self.file("shrinkd.db")).read_only(true);
            let mut database = SqliteConnection::connect_with(&options).await.expect("the database opens");
            let text = |row: SqliteRow| (0..row.len()).map(|i| row.get_unchecked::<String, _>(i)).collect();
            let rows = sqlx::query(AssertSqlSafe(sql)).map(text).fetch_all(&mut database).await;
            rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
        })
    }

    fn count(&self, from: &str) -> u64 {
        self.ask(&format!("select count(*) from {from}"))[0][0].parse().expect("a count")
    }

    /// What `shrinkd fit` makes of the demo's events.
    fn fit(&self) -> Value {
        let output = self.shrinkd("fit shrinkd-demo/events.ndjson --format json");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One line for all, so that sentences can be searched wherever they wrap.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The paragraph with this line in it.
fn paragraph<'a>(printed: &'a str, beginning: &str) -> &'a str {
    let found = printed.split("\n\n").find(|paragraph| paragraph.starts_with(beginning));
    found.unwrap_or_else(|| panic!("no `{beginning}` in {printed}"))
}

/// A count without its commas.
fn number(text: &str) -> f64 {
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

#[test]
fn what_became_of_the_events_is_counted_as_shrinkd_fit_counts() {
    let folder = Folder::new();
    let account = unwrapped(paragraph(&folder.demo("--experiments 100"), "from events to estimates\n"));
    let input = &folder.fit()["input"];
    let lines = fs::read_to_string(folder.file("events.ndjson")).expect("the events").lines().count();
    for told in [
        format!("ingested {lines} events of 100 experiments; 1 experiment withdrawn"),
        format!("{} accepted, {} duplicate, {} stale", input["accepted"], input["duplicates"], input["stale"]),
        format!("refused {}: ", input["refused"]),
    ] {
        assert!(account.contains(&told), "{told}: {account}");
    }
    assert_eq!(input["refused"], folder.count("rejected_events"));
    for row in folder.ask("select count(*) || ' ' || reason from rejected_events group by reason") {
        assert!(account.contains(&row[0]), "{}: {account}", row[0]);
    }
}

#[test]
fn every_population_stands_with_the_three_models_of_correlation_of_a_fit_and_its_verdict() {
    let folder = Folder::new();
    let printed = folder.demo("--experiments 100");
    let fit = folder.fit();
    let populations = fit["populations"].as_array().expect("populations");
    assert!(populations.len() > 3);
    for population in populations {
        let told = paragraph(&printed, &format!("{} ", population["population"].as_str().expect("a name")));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[4].contains(population["diagnostics"]["verdict"].as_str().expect("a verdict")), "{told}");
        let models = [(0, "modelled"), (2, "ignored"), (3, "one per experiment")];
        for (i, (model, label)) in models.into_iter().enumerate() {
            let numbers = lines[1 + i].strip_prefix("  ").and_then(|line| line.strip_prefix(label)).expect(label);
            let numbers: Vec<f64> = numbers.replace(" to ", " ").split_whitespace().map(number).collect();
            let exact = &population["fits"][model];
            let (mu, tau) = (&exact["mu"], &exact["tau"]["median"]);
            for (number, exact) in numbers.iter().zip([&mu["median"], &mu["q025"], &mu["q975"], tau]) {
                let exact = exact.as_f64().expect("a number");
                assert!((number - exact).abs() < 0.006 * exact.abs().max(0.01), "{number} for {exact}: {told}");
            }
            assert_eq!(numbers.last(), exact["effects"].as_f64().as_ref(), "{told}");
        }
    }
}

#[test]
fn the_database_holds_every_effect_and_the_corrections_are_the_largest_of_them() {
    let folder = Folder::new();
    let printed = folder.demo("--experiments 100");
    let fit = folder.fit();
    let estimates = fit["populations"].as_array().expect("populations").iter();
    let estimates: usize = estimates.map(|population| population["estimates"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(folder.count("effect_estimates"), estimates as u64);

    let largest = folder.ask(
        "select experiment_id || ' ' || variant, printf('%+.1f', (posterior_mean - raw_estimate) / raw_se)
         from effect_estimates order by abs(posterior_mean - raw_estimate) / raw_se desc limit 10",
    );
    let rows: Vec<&str> = paragraph(&printed, "the largest corrections").lines().skip(2).collect();
    assert_eq!(rows.len(), 10);
    for (row, largest) in rows.iter().zip(largest) {
        assert!(row.contains(&largest[0]) && row.ends_with(&largest[1]), "{largest:?}: {row}");
    }
    let plot = printed.split("\n\n").find(|paragraph| paragraph.contains("o raw")).expect("a plot");
    assert_eq!(plot.matches('●').count(), 15 + 1, "{plot}");
}

#[test]
fn the_queries_that_it_prints_run_and_find_something() {
    let folder = Folder::new();
    let printed = folder.demo("--experiments 100");
    assert!(printed.contains("sqlite3 -box shrinkd-demo/shrinkd.db\n"), "{printed}");
    let queries: Vec<&str> = printed.split("\n-- ").skip(1).collect();
    for (query, table) in queries.iter().zip(["effect_estimates", "population_diagnostics"]) {
        let (_, sql) = query.split_once('\n').expect("a query under its question");
        assert!(sql.contains(table) && !folder.ask(sql).is_empty(), "{sql}");
    }
    assert_eq!(queries.len(), 2);
}

#[test]
fn what_is_appended_to_the_events_is_taken_in_by_the_command_that_it_prints() {
    let folder = Folder::new();
    let printed = folder.demo("--experiments 60");
    let before = folder.count("experiments");
    let command = printed.lines().find_map(|line| line.trim().strip_prefix("shrinkd run")).expect("the command");
    let events = fs::read_to_string(folder.file("events.ndjson")).expect("the events");
    let first = events.lines().next().expect("an event");
    fs::write(folder.file("events.ndjson"), format!("{events}{}\n", first.replace("exp-", "new-"))).expect("written");
    assert_eq!(folder.shrinkd(&format!("run{command}")).status.code(), Some(0));
    assert_eq!(folder.count("experiments"), before + 1);
}

#[test]
fn another_demo_in_the_same_folder_starts_anew() {
    let folder = Folder::new();
    folder.demo("--experiments 100");
    let first = fs::read(folder.file("events.ndjson")).expect("the events");
    folder.demo("--experiments 60 --seed 2");
    let output = folder.shrinkd("demo --experiments 60 --seed 3");
    assert!(String::from_utf8_lossy(&output.stdout).contains("of 60 experiments"));
    assert_ne!(fs::read(folder.file("events.ndjson")).expect("the events"), first);
    assert!(folder.count("experiments") <= 60);
}

#[test]
fn a_folder_that_holds_anything_else_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let refused = |name: &str| {
        let before = fs::read(folder.file(name)).expect("a file");
        let output = folder.shrinkd("demo --experiments 60");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("shrinkd-demo contains {name}")));
        assert_eq!(fs::read(folder.file(name)).expect("the file is still there"), before);
    };
    // A name that a demo could have made does not make the folder a demo's.
    fs::create_dir(folder.0.join("shrinkd-demo")).expect("a folder");
    fs::write(folder.file("events.ndjson"), "mine").expect("written");
    refused("events.ndjson");

    fs::remove_file(folder.file("events.ndjson")).expect("removed");
    folder.demo("--experiments 60");
    fs::write(folder.file("thesis.tex"), "mine").expect("written");
    refused("thesis.tex");
    assert!(folder.count("effect_estimates") > 0);
}

#[test]
fn everything_is_in_the_files_that_are_named() {
    let folder = Folder::new();
    folder.demo("--experiments 60");
    let mut names: Vec<String> = fs::read_dir(folder.0.join("shrinkd-demo"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["events.ndjson", "shrinkd.db", "shrinkd.toml"]);
}

#[test]
fn no_line_is_wider_than_a_terminal_of_80_columns() {
    let printed = Folder::new().demo("--experiments 60");
    for line in printed.lines() {
        assert!(line.width() <= 80, "{}: {line}", line.width());
    }
}

#[test]
fn an_odd_folder_is_quoted_for_the_shell() {
    let folder = Folder::new();
    let odd = folder.0.join("it's a demo");
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    let output = command.args(["demo", "--experiments", "60", "--dir"]).arg(&odd).output().expect("the program starts");
    let printed = String::from_utf8(output.stdout).expect("text");
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("sqlite3 -box ")).expect("the command");
    let echoed = Command::new("sh").args(["-c", &format!("printf %s {line}")]).output().expect("a shell");
    assert_eq!(Path::new(&String::from_utf8(echoed.stdout).expect("text")), odd.join("shrinkd.db"));
}
