//! Waiting for a PostgreSQL database that workers fill.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;

use super::database::{Database, PostgresDatabase};
use super::worker::TIMEOUT;

/// Waits until so many records are committed.
pub async fn committed(database: &PostgresDatabase, records: i64) {
    wait(database, "select coalesce(sum(next_offset), 0)::bigint from partition_progress", |n| n >= records).await;
}

/// Waits until so many records are committed, every population is fitted, and what was due is published.
pub async fn settled(database: &PostgresDatabase, records: i64) {
    committed(database, records).await;
    wait(database, UNSETTLED, |n| n == 0).await;
}

/// How many changes wait for a refit, and populations for a refit or a publish.
pub const UNSETTLED: &str = "select (select count(*) from block_changes)
         + (select count(*) from populations where refit_due_at is not null or publish_cursor is not null
                                                      or unpublished <> 0 or pass_unpublished <> 0)";

/// Waits until a count is enough.
pub async fn wait(database: &PostgresDatabase, query: &'static str, is_enough: impl Fn(i64) -> bool) {
    let mut connection = PgConnection::connect_with(&database.options()).await.expect("the database answers");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let n: i64 = sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("a count");
        if is_enough(n) {
            return;
        }
        assert!(Instant::now() < deadline, "it stays at {n}: {query}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns once a call waits for a lock of PostgreSQL. Nothing else of the test may wait for one.
pub async fn until_it_waits<T>(database: &PostgresDatabase, call: &JoinHandle<T>) {
    until_waiting(database, call, 1).await;
}

/// The same where others wait already: so many with this call.
pub async fn until_waiting<T>(database: &PostgresDatabase, call: &JoinHandle<T>, calls: i64) {
    let waiting = "select cast(count(*) as text) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    let deadline = Instant::now() + TIMEOUT;
    while database.count(waiting).await < calls {
        assert!(!call.is_finished(), "it did not wait");
        assert!(Instant::now() < deadline, "it does not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
