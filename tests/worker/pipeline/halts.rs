//! Partitions that are taken over, halted, resumed and moved on, by real workers from Kafka to PostgreSQL.

use std::process::Output;

use super::truth::{Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::program::{printed, shrinkd};
use crate::common::settling::{committed, settled, wait};
use crate::common::topic::Topic;
use crate::common::worker::{Environment, Worker, from_file, from_kafka, get};

pub fn partitions(environment: &Environment, arguments: &[&str]) -> Output {
    shrinkd(environment, &[&["partitions"], arguments].concat())
}

#[tokio::test]
async fn a_worker_whose_partitions_were_claimed_by_somebody_else_takes_them_up_again() {
    let folder = Folder::new("taken");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 200);
    let records = stream::count(&events);
    let topic = Topic::new(3).await;
    topic.produce(&events);
    let worker = Worker::start(&from_kafka(&topic, &database.url()), folder.path("worker.log"));
    committed(&database, records).await;
    // A claim that comes late: of a member that stalled in the middle of it, and that the group has dropped since.
    database.execute("update partition_progress set epoch = epoch + 1, owner = 'another worker'").await;
    topic.produce(&events);
    settled(&database, 2 * records).await;
    worker.stop();
    check_once(&database, &events).await;
    topic.remove().await;
    database.remove().await;
}

/// The stream was sent twice: refusals are counted by message, everything else once.
async fn check_once(database: &PostgresDatabase, events: &std::path::Path) {
    let mut truth = Truth::of(events);
    truth.refused.values_mut().for_each(|count| *count *= 2);
    check(database, &truth).await;
}

#[tokio::test]
async fn too_many_dead_letters_halt_their_partition_alone_until_an_operator_decides() {
    let folder = Folder::new("poison");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 100);
    let records = stream::count(&events);
    let (good, poisoned) = (Topic::new(1).await, Topic::new(1).await);
    good.produce(&events);
    let junk = folder.path("junk.ndjson");
    std::fs::write(&junk, "this is of another topic\n".repeat(50)).expect("a file");
    poisoned.produce(&junk);
    poisoned.produce(&events);
    let environment = |topic: &Topic| {
        let mut environment = from_kafka(topic, &database.url());
        environment.push(("SHRINKD__DEAD_LETTERS__IN_A_ROW", "20".to_owned()));
        environment
    };
    let first = Worker::start(&environment(&good), folder.path("good.log"));
    let second = Worker::start(&environment(&poisoned), folder.path("poisoned.log"));
    let halted = "select count(*) from partition_progress where halted_at is not null and next_offset = 20";
    wait(&database, halted, |n| n == 1).await;
    committed(&database, records + 20).await;
    let metric = "shrinkd_partition_halted{partition=\"0\"} 1";
    assert!(get(&second.http(), "/metrics").contains(metric), "it says so to Prometheus");
    second.stop();
    // Nor does another worker read on.
    let second = Worker::start(&environment(&poisoned), folder.path("again.log"));
    let list = printed(&partitions(&environment(&poisoned), &[]));
    assert!(list.contains("HALTED") && list.contains("the last 20 messages were refused"), "{list}");

    // Somebody looks, and lets some more through; then passes over the rest.
    printed(&partitions(&environment(&poisoned), &["resume", "0"]));
    let halted = "select count(*) from partition_progress where halted_at is not null and next_offset = 40";
    wait(&database, halted, |n| n == 1).await;
    let because = "of another topic";
    let skip =
        |to: &str| partitions(&environment(&poisoned), &["skip", "0", "--to", to, "--because", because, "--yes"]);
    let beyond = skip("100000");
    assert_eq!(beyond.status.code(), Some(2), "{}", String::from_utf8_lossy(&beyond.stderr));
    assert_eq!(skip("40").status.code(), Some(2), "that is not ahead");
    printed(&skip("50"));
    settled(&database, 2 * records + 50).await;
    let skipped = "select from_offset || ' ' || to_offset || ' ' || because from skipped_offsets";
    assert_eq!(database.texts(skipped).await, [Some("40 50 of another topic".to_owned())]);
    first.stop();
    second.stop();

    let mut truth = Truth::of(&events);
    truth.refused.values_mut().for_each(|count| *count *= 2);
    *truth.refused.entry("malformed_json".to_owned()).or_default() += 40;
    check(&database, &truth).await;
    good.remove().await;
    poisoned.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn records_that_expired_unread_halt_their_partition_until_an_operator_has_it_go_on() {
    let folder = Folder::new("expired");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 100);
    let records = stream::count(&events);
    let topic = Topic::new(1).await;
    if !topic.is_real() {
        return;
    }
    let environment = from_kafka(&topic, &database.url());
    topic.produce(&events);
    let worker = Worker::start(&environment, folder.path("first.log"));
    settled(&database, records).await;
    worker.stop();
    // Sent while no worker ran, and gone before the next.
    topic.produce(&events);
    topic.produce(&events);
    topic.expire(0, records + 10).await;

    let worker = Worker::start(&environment, folder.path("second.log"));
    let halted = "select count(*) from partition_progress where halt_reason = 'offset_out_of_range'";
    wait(&database, halted, |n| n == 1).await;
    let list = printed(&partitions(&environment, &[]));
    assert!(list.contains(&format!("{} to {}", records + 10, 3 * records)), "{list}");
    printed(&partitions(&environment, &["skip", "0", "--to", "earliest", "--because", "expired", "--yes"]));
    settled(&database, 3 * records).await;
    worker.stop();
    let skipped = "select (to_offset - from_offset) || ' ' || because from skipped_offsets";
    assert_eq!(database.texts(skipped).await, [Some("10 expired".to_owned())]);
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn a_file_of_anything_else_ends_the_worker_before_all_of_it_is_refused() {
    let folder = Folder::new("junk");
    let database = crate::common::database::SqliteDatabase::absent();
    let junk = folder.path("junk.ndjson");
    std::fs::write(&junk, "{\"level\":\"info\"}\n".repeat(2_000)).expect("a file");
    let environment = from_file(&junk, &database.url());
    for lines in [500, 1_000] {
        let log = Worker::start(&environment, folder.path("worker.log")).ends_with(1);
        assert!(log.contains("the last 500 messages were refused"), "{log}");
        let again = Worker::start(&environment, folder.path("again.log")).ends_with(1);
        assert!(again.contains("is halted: `shrinkd partitions` shows why"), "{again}");
        let refused = format!("{lines}");
        assert_eq!(database.texts("select cast(count(*) as text) from rejected_events").await, [Some(refused)]);
        printed(&partitions(&environment, &["resume", "0"]));
    }
}
