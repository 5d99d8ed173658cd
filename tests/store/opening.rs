//! Which databases a worker opens, and which it refuses.

use shrinkd::config::{StoreConfig, StoreUrl};
use shrinkd::row::StoreSettings;
use shrinkd::store::{Store, StoreError};
use shrinkd_core::Grouping;

use super::promises;
use crate::common::database::{Database, PostgresDatabase, SqliteDatabase, settings};

promises! {
    a_database_that_was_filled_with_other_settings_is_refused,
    a_newer_schema_is_refused,
    a_migration_that_was_changed_is_refused,
}

async fn a_database_that_was_filled_with_other_settings_is_refused<D: Database>(database: &D) {
    let filled = |labels: &[&str], one_per_experiment_seed| {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        StoreSettings { grouping: Grouping { labels, one_per_experiment_seed }, ..settings() }
    };
    let other = [
        StoreSettings { arithmetic_version: 200, ..settings() },
        filled(&["team", "a \"b\""], 0),
        filled(&[], u64::MAX),
    ];
    database.open(&settings()).await.unwrap();
    for settings in other {
        let refused = database.open(&settings).await.err();
        assert!(matches!(refused, Some(StoreError::Settings { .. })), "{settings}: {refused:?}");
        database.execute("delete from store_settings").await;
        database.open(&settings).await.unwrap();
        database.open(&settings).await.expect("its own settings are accepted");
        database.execute("delete from store_settings").await;
        database.open(&self::settings()).await.unwrap();
    }
}

async fn a_newer_schema_is_refused<D: Database>(database: &D) {
    database.execute("update _sqlx_migrations set version = 999999 where version = 1").await;
    let refused = database.open(&settings()).await.err();
    let Some(StoreError::Schema { found: 999_999, advice, .. }) = refused else { panic!("{refused:?}") };
    assert!(advice.contains("newer build"), "{advice}");
}

async fn a_migration_that_was_changed_is_refused<D: Database>(database: &D) {
    database.execute("update _sqlx_migrations set checksum = checksum || checksum").await;
    let refused = database.open(&settings()).await.err();
    let Some(StoreError::Schema { advice, .. }) = refused else { panic!("{refused:?}") };
    assert!(advice.contains("was changed"), "{advice}");
}

#[tokio::test]
async fn the_server_ends_a_transaction_of_a_worker_that_vanished_and_a_long_wait_for_a_lock() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let pool = store.postgres_pool().expect("PostgreSQL");
    let shown = async |setting| sqlx::query_scalar::<_, String>(setting).fetch_one(pool).await.expect("an answer");
    let idle = shown("show idle_in_transaction_session_timeout").await;
    assert_eq!(idle, "30s", "it would keep its partitions locked for ever");
    assert_eq!(shown("show lock_timeout").await, "20s", "a worker would wait for ever, and say nothing");
    database.remove().await;
}

#[tokio::test]
async fn an_empty_postgres_database_asks_for_shrinkd_migrate() {
    let Some(database) = PostgresDatabase::empty().await else { return };
    let refused = database.open(&settings()).await.expect_err("no schema");
    assert!(refused.to_string().contains("run `shrinkd migrate`"), "{refused}");
    database.remove().await;
}

#[tokio::test]
async fn a_missing_sqlite_file_becomes_a_database() {
    let database = SqliteDatabase::absent();
    let store = database.open(&settings()).await.unwrap();
    assert!(store.current_populations().await.unwrap().is_empty());
    Store::migrate(&database.config()).await.expect("there is nothing to do");
    database.open(&settings()).await.unwrap();
}

#[tokio::test]
async fn a_sqlite_file_of_another_program_is_refused_and_left_as_it_was() {
    let database = SqliteDatabase::absent();
    drop(std::fs::File::create(database.path()).unwrap());
    database.execute("create table theirs (x integer)").await;
    let refused = database.open(&settings()).await.err();
    assert!(matches!(refused, Some(StoreError::Schema { found: 0, .. })), "{refused:?}");
    assert_eq!(database.texts("select name from sqlite_schema").await, [Some("theirs".to_owned())]);
}

#[tokio::test]
async fn what_is_no_database_is_refused_by_name() {
    let database = SqliteDatabase::absent();
    std::fs::write(database.path(), "a text that is long enough to be taken for the header of a database".repeat(50))
        .unwrap();
    let refused = database.open(&settings()).await.expect_err("no database").to_string();
    assert!(refused.contains("shrinkd.db") && refused.contains("not a database"), "{refused}");
    let nowhere = database.path().join("below/a/file.db");
    let nowhere = StoreConfig { url: StoreUrl::Sqlite(format!("sqlite://{}", nowhere.display())), connections: 1 };
    let refused = Store::connect(&nowhere, &settings()).await.expect_err("no folder").to_string();
    assert!(refused.contains("file.db") && refused.contains("folder"), "{refused}");
}
