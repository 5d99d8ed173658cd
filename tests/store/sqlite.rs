//! What SQLite alone promises: who may write when, and what is left on the disk.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Executor};

use super::refit::{filled, refit};
use super::{event, population, record};
use crate::common::database::{Database, SqliteDatabase};

/// A connection of another process, which waits for nobody.
async fn another(database: &SqliteDatabase) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database.path()).busy_timeout(Duration::ZERO);
    SqliteConnection::connect_with(&options).await.expect("the file opens")
}

/// It cannot fail for the lock later on, when another has written what it has not seen.
#[tokio::test]
async fn a_transaction_that_writes_holds_the_write_lock_from_its_first_moment() {
    let database = SqliteDatabase::create().await.unwrap();
    let store = database.store().await;
    filled(&store, 2).await;
    let mut another = another(&database).await;
    // Neither of the two has written anything yet.
    let refit = store.begin_refit(&[population("m")]).await.unwrap();
    let refused = another.execute("begin immediate").await.expect_err("the lock is held");
    assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("5"));
    refit.rollback().await.unwrap();
    another.execute("begin immediate").await.expect("it is free");
}

#[tokio::test]
async fn a_store_that_is_closed_leaves_everything_in_one_file() {
    let database = SqliteDatabase::create().await.unwrap();
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    let beside = |end: &str| PathBuf::from(format!("{}{end}", database.path().display()));
    assert!(beside("-wal").exists(), "the write-ahead log is there while it is open");
    // Connections that have read are open still.
    store.population_state(&population("m")).await.unwrap();
    refit(&store, "m", 1.0, 0.5, true).await;
    worker.ingest(vec![record(0, 2, &event("exp-2", 1, "m", &[1.0]))]).await;
    drop(worker);
    store.close().await;
    assert!(!beside("-wal").exists() && !beside("-shm").exists());
    assert_eq!(database.count("select cast(count(*) as text) from effect_estimates").await, 5);
}
