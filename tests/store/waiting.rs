//! Who waits for whom on PostgreSQL: locks, their order, and what is seen once they are held.

use shrinkd::store::{Store, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::task::LocalSet;

use super::partitions::{seen, skip};
use super::publish::publish;
use super::refit::{begin, begin_refit, filled, refit};
use super::{Worker, event, population, record, settings_by_team, topic};
use crate::common::database::{Database, PostgresDatabase, settings};
use crate::common::settling::{until_it_waits, until_waiting};

#[tokio::test]
async fn postgres_locks_the_partitions_of_a_claim_in_the_order_of_their_numbers() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    store.claim(&topic(), &[3, 1, 0, 2], "first").await.unwrap();
    let mut held = PgConnection::connect_with(&database.options()).await.unwrap();
    let lock = "begin; select from partition_progress where partition_number = 1 for update";
    sqlx::raw_sql(lock).execute(&mut held).await.unwrap();
    let claiming = tokio::spawn({
        let store = store.clone();
        async move { store.claim(&topic(), &[3, 0, 2, 1], "second").await.map(drop) }
    });
    until_it_waits(&database, &claiming).await;
    let free = "select cast(partition_number as text) from partition_progress order by 1 for update skip locked";
    let free: Vec<String> = database.texts(free).await.into_iter().flatten().collect();
    assert_eq!(free, ["2", "3"], "those before the one that is waited for are locked, and none after it");
    sqlx::raw_sql("rollback").execute(&mut held).await.unwrap();
    claiming.await.unwrap().unwrap();
    database.remove().await;
}

#[tokio::test]
async fn postgres_locks_the_experiments_of_a_batch_in_the_order_of_their_ids() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    filled(&store, 3).await;
    let mut held = PgConnection::connect_with(&database.options()).await.unwrap();
    let lock = "begin; select from experiments where experiment_id = 'exp-1' for update";
    sqlx::raw_sql(lock).execute(&mut held).await.unwrap();
    let mut batch = store.begin_ingest(&[]).await.unwrap();
    let reading = tokio::spawn(async move {
        let ids = ["exp-2", "exp-1", "exp-0"].map(str::to_owned).into();
        batch.experiments(&ids).await.map(|stored| stored.len())
    });
    until_it_waits(&database, &reading).await;
    let free = database.texts("select experiment_id from experiments order by 1 for update skip locked").await;
    assert_eq!(free, [Some("exp-2".to_owned())], "the first is locked, and none after the one that is waited for");
    sqlx::raw_sql("rollback").execute(&mut held).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), 3);
    database.remove().await;
}

#[tokio::test]
async fn postgres_skips_no_records_that_a_batch_under_way_has_read() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let worker = filled(&store, 2).await;
    let before = seen(&store).await;
    let (batch, ..) = worker.write(vec![record(0, 2, &event("exp-2", 1, "m", &[1.0]))]).await.unwrap();
    let skipping = tokio::spawn({
        let store = store.clone();
        async move { store.skip(&skip(&before, 30)).await }
    });
    until_it_waits(&database, &skipping).await;
    batch.commit().await.unwrap();
    assert!(!skipping.await.unwrap().unwrap(), "the partition is not where the operator has seen it");
    database.remove().await;
}

#[tokio::test]
async fn postgres_begins_a_pass_once_the_batches_under_way_have_ended() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let worker = filled(&store, 2).await;
    // It has read that no fit is published.
    let (batch, ..) = worker.write(vec![record(0, 2, &event("exp-2", 1, "m", &[1.0]))]).await.unwrap();
    refit(&store, "m", 1.0, 0.5, true).await;
    let beginning = tokio::spawn({
        let store = store.clone();
        async move { begin(&store, "a").await }
    });
    until_it_waits(&database, &beginning).await;
    batch.commit().await.unwrap();
    let pass = beginning.await.unwrap().expect("the population is free");
    assert_eq!(publish(&store, &pass, async || ()).await, Some(5), "the rows of the batch are among them");
    database.remove().await;
}

#[tokio::test]
async fn postgres_shows_who_waited_for_a_rebuild_its_settings() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let (rebuild, _) = database.open_to_rebuild(&settings_by_team()).await.begin_rebuild().await.unwrap();
    let pass = tokio::spawn({
        let store = store.clone();
        async move { store.begin_passes(&[population("m")], "a").await.map(drop) }
    });
    until_waiting(&database, &pass, 1).await;
    let batch = tokio::spawn({
        let store = store.clone();
        async move { store.begin_ingest(&[]).await.map(drop) }
    });
    until_waiting(&database, &batch, 2).await;
    rebuild.commit().await.unwrap();
    for refused in [pass.await.unwrap(), batch.await.unwrap()] {
        assert!(matches!(refused, Err(StoreError::Settings { .. })), "{refused:?}");
    }
    database.remove().await;
}

#[tokio::test]
async fn postgres_lets_the_second_of_two_refits_find_what_the_first_has_left() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    filled(&store, 2).await;
    // The second has begun to read when the first commits: it waits for the table here.
    let mut first = PgConnection::connect_with(&database.options()).await.unwrap();
    sqlx::raw_sql("begin; lock table populations in access exclusive mode").execute(&mut first).await.unwrap();
    let second = tokio::spawn({
        let store = store.clone();
        async move { begin_refit(&store, "m").await.expect("the population is free").1 }
    });
    until_it_waits(&database, &second).await;
    let theirs = "update populations set changes = 7, has_cells = true; delete from block_changes; commit";
    sqlx::raw_sql(theirs).execute(&mut first).await.unwrap();
    let state = second.await.unwrap();
    assert_eq!((state.statistics.counters.changes, state.has_cells, state.has_news()), (7, true, false));
    database.remove().await;
}

#[tokio::test]
async fn postgres_gives_a_rebuild_all_populations_once_the_refits_under_way_have_ended() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    filled(&store, 3).await;
    let (refitting, _) = begin_refit(&store, "m").await.expect("the population is free");
    let beginning = tokio::spawn({
        let store = store.clone();
        async move { store.begin_rebuild().await.unwrap().0 }
    });
    until_it_waits(&database, &beginning).await;
    refitting.commit().await.unwrap();
    let rebuild = beginning.await.unwrap();
    assert!(begin_refit(&store, "m").await.is_none(), "no refit begins until it has ended");
    rebuild.commit().await.unwrap();
    assert!(begin_refit(&store, "m").await.is_some());
    database.remove().await;
}

#[tokio::test]
async fn postgres_gives_a_rebuild_the_store_once_the_batches_under_way_have_ended() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    filled(&store, 3).await;
    let batch = store.begin_ingest(&[]).await.unwrap();
    let beginning = tokio::spawn({
        let store = store.clone();
        async move { store.begin_rebuild().await.unwrap().0 }
    });
    until_it_waits(&database, &beginning).await;
    batch.commit().await.unwrap();
    let rebuild = beginning.await.unwrap();
    let next = tokio::spawn({
        let store = store.clone();
        async move { store.begin_ingest(&[]).await.map(drop) }
    });
    until_it_waits(&database, &next).await;
    rebuild.commit().await.unwrap();
    next.await.unwrap().unwrap();
    // Partitions change hands meanwhile, as rebalances need it.
    let rebuild = store.begin_rebuild().await.unwrap().0;
    Worker::claim(&store, &[0, 1]).await;
    rebuild.commit().await.unwrap();
    database.remove().await;
}

#[tokio::test]
async fn postgres_takes_the_same_settings_from_two_workers_that_start_at_once() {
    let Some(database) = PostgresDatabase::create().await else { return };
    database.store().await;
    let mut other = PgConnection::connect_with(&database.options()).await.unwrap();
    let theirs = "create temporary table theirs as select * from store_settings; delete from store_settings; commit;
                  begin; insert into store_settings select * from theirs";
    sqlx::raw_sql("begin").execute(&mut other).await.unwrap();
    sqlx::raw_sql(theirs).execute(&mut other).await.unwrap();
    let config = database.config();
    let opening = LocalSet::new();
    let opened = opening.spawn_local(async move { Store::connect(&config, &settings()).await.map(drop) });
    opening.run_until(until_it_waits(&database, &opened)).await;
    sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
    opening.run_until(opened).await.unwrap().expect("it finds what the other has put in");
    database.remove().await;
}
