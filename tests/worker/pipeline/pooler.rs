//! PgBouncer between a worker and its store.

use shrinkd::config::{StoreConfig, StoreUrl};
use shrinkd::store::Store;

use super::truth::{Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::pooler::Pooler;
use crate::common::worker::{Worker, from_file};

#[tokio::test]
async fn a_worker_runs_through_a_pooler_that_gives_it_sessions_of_its_own() {
    let folder = Folder::new("pooler-session");
    let Some(database) = PostgresDatabase::empty().await else { return };
    let Some(pooler) = Pooler::start(&folder, "session", &database) else { return database.remove().await };
    let config = StoreConfig { url: StoreUrl::Postgres(pooler.url().to_owned()), connections: 4 };
    Store::migrate(&config).await.expect("migrations run through it");
    let events = stream::portfolio(&folder, 200);
    Worker::start(&from_file(&events, pooler.url()), folder.path("worker.log")).ends_well();
    check(&database, &Truth::of(&events)).await;
    database.remove().await;
}

#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused_with_what_to_do() {
    let folder = Folder::new("pooler-transaction");
    let Some(database) = PostgresDatabase::create().await else { return };
    let Some(pooler) = Pooler::start(&folder, "transaction", &database) else { return database.remove().await };
    let config = StoreConfig { url: StoreUrl::Postgres(pooler.url().to_owned()), connections: 4 };
    let refused = Store::migrate(&config).await.expect_err("a migration locks a session").to_string();
    let says = "connect to PostgreSQL directly, or set pool_mode = session for this database";
    assert!(refused.contains(says), "{refused}");
    let events = stream::portfolio(&folder, 50);
    // Whatever others do through it.
    for _ in 0..5 {
        let worker = Worker::start(&from_file(&events, pooler.url()), folder.path("worker.log"));
        let log = worker.ends_with(2);
        assert!(log.contains(says) && log.contains("127.0.0.1"), "{log}");
    }
    let untouched = "select (select count(*) from store_settings) + (select count(*) from partition_progress)";
    assert_eq!(database.texts(format!("select ({untouched})::text").leak()).await, [Some("0".to_owned())]);
    database.remove().await;
}
