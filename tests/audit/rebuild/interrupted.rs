//! A rebuild that does not come to its end has not begun.

use sqlx::{Connection, PgConnection};

use super::tables::{estimates, filled_with, tables};
use super::{BY_TEAM, Site, events, promises, until};
use crate::common::database::{Database, PostgresDatabase};

promises! {
    a_rebuild_that_is_given_up_leaves_everything_as_it_was,
}

async fn a_rebuild_that_is_given_up_leaves_everything_as_it_was<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&events().0);
    site.run(&[]);
    database
        .execute(
            "insert into populations (population_id, metric, segment, scale, created_at)
             values ('gone/all/absolute', 'gone', 'all', 'absolute', '2001-01-01T00:00:00.000000Z')",
        )
        .await;
    let (settings, other) = (filled_with(&[], 0), filled_with(&["team"], 5));
    let populations = "select cast(count(*) as text) from populations";
    let count = database.count(populations).await;
    let before = (tables(database, &settings).await, estimates(database).await);

    let store = database.open_to_rebuild(&other).await;
    let (mut rebuild, replaced) = store.begin_rebuild().await.unwrap();
    assert_eq!(replaced.as_ref(), Some(&settings));
    assert!(rebuild.count_experiments().await.unwrap() > 0);
    assert_eq!(rebuild.finish().await.unwrap(), 1, "the population without blocks");
    drop(rebuild);

    assert_eq!(database.count(populations).await, count);
    assert_eq!((tables(database, &settings).await, estimates(database).await), before);
    assert!(database.open(&other).await.is_err(), "the settings are the old ones too");
    let (rebuild, _) = store.begin_rebuild().await.unwrap();
    rebuild.commit().await.unwrap();
    database.open(&other).await.expect("the settings of the rebuild that was committed");
}

#[tokio::test]
async fn a_rebuild_that_is_killed_in_the_middle_leaves_everything_as_it_was() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let site = Site::new(&database);
    site.append(&events().0);
    site.run(&[]);
    let settings = filled_with(&[], 0);
    let before = (tables(&database, &settings).await, estimates(&database).await);

    // It gets as far as the last experiment, for whose block it has to wait.
    let mut elsewhere = PgConnection::connect_with(&database.options()).await.unwrap();
    let mut holding = elsewhere.begin().await.unwrap();
    sqlx::query("select from blocks where experiment_id = (select max(experiment_id) from blocks) for update")
        .execute(&mut *holding)
        .await
        .unwrap();
    let rebuild = site.start("rebuild", BY_TEAM);
    let waiting = "select cast(count(*) as text) from pg_stat_activity
                   where datname = current_database() and application_name = 'shrinkd' and wait_event_type = 'Lock'";
    until("the rebuild waits", async || database.count(waiting).await == 1).await;
    rebuild.kill();
    holding.rollback().await.unwrap();
    let connected = "select cast(count(*) as text) from pg_stat_activity
                     where datname = current_database() and application_name = 'shrinkd'";
    until("the server has noticed", async || database.count(connected).await == 0).await;

    assert_eq!((tables(&database, &settings).await, estimates(&database).await), before);
    site.run(&[]);
    site.start("run", BY_TEAM).ends_with(2);
    site.rebuild(BY_TEAM);
    site.run(BY_TEAM);
    database.remove().await;
}
