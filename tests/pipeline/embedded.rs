//! From a file to SQLite, without any server.

use std::collections::BTreeMap;

use sqlx::SqlitePool;

use super::common::database::{Database, SqliteDatabase};
use super::common::worker::{Worker, from_file};
use super::truth::{self, EstimateFigures, Figures, Tables, Truth, check};
use super::{Folder, stream};

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
    let events = stream::portfolio(&folder, 300);
    let database = SqliteDatabase::absent();
    Worker::start(&from_file(&events, &database.url()), folder.path("worker.log")).ends_well();
    check(&database, &Truth::of(&events)).await;
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
