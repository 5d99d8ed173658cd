//! From a file to SQLite, without any server.

use std::collections::BTreeMap;

use sqlx::SqlitePool;

use super::truth::{self, EstimateFigures, Figures, Tables, Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, SqliteDatabase};
use crate::common::worker::{Worker, from_file};

impl Tables for SqliteDatabase {
    async fn fits(&self) -> BTreeMap<(String, String), Figures> {
        let tables = SqlitePool::connect(&self.url()).await.expect("the database opens");
        truth::fits(&sqlx::query(truth::FITS).fetch_all(&tables).await.expect("fits"))
    }

    async fn estimates(&self) -> Vec<EstimateFigures> {
        let tables = SqlitePool::connect(&self.url()).await.expect("the database opens");
        truth::estimates(&sqlx::query(truth::ESTIMATES).fetch_all(&tables).await.expect("estimates"))
    }

    async fn refused(&self) -> BTreeMap<String, i64> {
        let tables = SqlitePool::connect(&self.url()).await.expect("the database opens");
        let rows: Vec<(String, i64)> = sqlx::query_as(truth::REFUSED).fetch_all(&tables).await.expect("refused events");
        rows.into_iter().collect()
    }
}

#[tokio::test]
async fn a_file_ends_in_the_tables_as_a_fit_of_it_says_bit_for_bit() {
    let folder = Folder::new("file");
    let events = stream::portfolio(&folder, 180);
    let database = SqliteDatabase::absent();
    Worker::start(&from_file(&events, &database.url()), folder.path("worker.log")).ends_well();
    check(&database, &Truth::of(&events)).await;
}

/// Whoever copies the file has all of it.
#[tokio::test]
async fn a_worker_that_has_ended_leaves_one_file_without_a_log_beside_it() {
    let folder = Folder::new("closed");
    let events = stream::portfolio(&folder, 20);
    let database = SqliteDatabase::absent();
    Worker::start(&from_file(&events, &database.url()), folder.path("worker.log")).ends_well();
    let path = database.path();
    let files = std::fs::read_dir(path.parent().expect("a folder")).expect("it is readable");
    let names: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    assert_eq!(names, [path]);
}

#[tokio::test]
async fn a_file_that_is_read_twice_counts_once() {
    let folder = Folder::new("twice");
    let events = stream::portfolio(&folder, 100);
    let database = SqliteDatabase::absent();
    Worker::start(&from_file(&events, &database.url()), folder.path("first.log")).ends_well();
    Worker::start(&from_file(&events, &database.url()), folder.path("second.log")).ends_well();
    check(&database, &Truth::of(&events)).await;
}

#[tokio::test]
async fn the_real_stream_through_a_file_leaves_what_it_leaves_through_kafka() {
    let folder = Folder::new("asos-file");
    let Some((events, finals)) = stream::asos(&folder) else { return };
    let truth = Truth::of_snapshots(&events, &finals);
    let database = SqliteDatabase::absent();
    Worker::start(&from_file(&events, &database.url()), folder.path("worker.log")).ends_well();
    check(&database, &truth).await;
}

#[tokio::test]
async fn an_effect_in_percent_among_fractions_is_counted_and_named_in_the_log_with_its_likely_cause() {
    let folder = Folder::new("mix-up");
    let event = |number: usize| {
        let unit = if number == 17 { 100.0 } else { 1.0 };
        let (estimate, variance) = (unit * 0.01 * (2.3 * number as f64).sin(), (unit * 0.005_f64).powi(2));
        format!(
            r#"{{"schema_version":1,"experiment_id":"exp-{number}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"lift","effects":[{{"variant":"B","estimate":{estimate},"variance":{variance}}}]}}]}}"#
        ) + "\n"
    };
    let events = folder.path("events.ndjson");
    std::fs::write(&events, (0..30).map(event).collect::<String>()).expect("a file");
    let database = SqliteDatabase::absent();
    let log = folder.path("worker.log");
    Worker::start(&from_file(&events, &database.url()), log.clone()).ends_well();
    let counted = "select cast(mix_ups as text) from population_diagnostics order by fit_id desc limit 1";
    assert_eq!(database.texts(counted).await, [Some("1".to_owned())]);
    let log = std::fs::read_to_string(log).expect("the log");
    let named: Vec<&str> = log.lines().filter(|line| line.contains("a likely mix-up")).collect();
    let [named] = named[..] else { panic!("{named:?}") };
    for what in ["population=lift/all/absolute", "exp-17", "\"B\"", "percent sent for a fraction"] {
        assert!(named.contains(what), "{named}");
    }
}
