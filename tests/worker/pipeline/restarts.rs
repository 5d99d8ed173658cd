//! Workers that come and go in the middle of a stream.

use super::truth::{Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::{committed, settled};
use crate::common::topic::Topic;
use crate::common::worker::{Worker, from_kafka, get};

#[tokio::test]
async fn a_worker_that_is_stopped_and_one_that_is_killed_lose_nothing_and_double_nothing() {
    let folder = Folder::new("restarts");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 1_000);
    let records = stream::count(&events);
    let topic = Topic::new(3).await;
    topic.produce(&events);
    // Small batches, so that there are many commits to be interrupted between.
    let mut environment = from_kafka(&topic, &database.url());
    environment.push(("SHRINKD__INGEST__BATCH_RECORDS", "20".to_owned()));

    let first = Worker::start(&environment, folder.path("first.log"));
    committed(&database, records / 5).await;
    first.stop();
    let second = Worker::start(&environment, folder.path("second.log"));
    committed(&database, records / 2).await;
    second.kill();
    let third = Worker::start(&environment, folder.path("third.log"));
    settled(&database, records).await;
    third.stop();

    check(&database, &Truth::of(&events)).await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn what_a_worker_shows_of_itself_agrees_with_the_tables() {
    let folder = Folder::new("metrics");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 100);
    let topic = Topic::new(2).await;
    topic.produce(&events);
    let worker = Worker::start(&from_kafka(&topic, &database.url()), folder.path("worker.log"));
    settled(&database, stream::count(&events)).await;

    let metrics = get(&worker.http(), "/metrics");
    let total = |name: &str| -> f64 {
        let values = metrics.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        values.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
    };
    let truth = Truth::of(&events);
    assert_eq!(total("shrinkd_records_total"), stream::count(&events) as f64);
    assert_eq!(total("shrinkd_rejected_events_total"), truth.refused.values().sum::<i64>() as f64);
    assert_eq!(total("shrinkd_owned_partitions"), 2.0);
    assert!(total("shrinkd_population_mu{") != 0.0, "populations are shown:\n{metrics}");
    assert!(get(&worker.http(), "/readyz").contains("200 OK"), "{}", get(&worker.http(), "/readyz"));
    assert!(get(&worker.http(), "/livez").contains("200 OK"));
    worker.stop();
    topic.remove().await;
    database.remove().await;
}
