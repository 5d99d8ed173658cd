//! Offsets against a broker.

use std::time::{Duration, Instant};

use super::{Folder, Settings, events};
use crate::common::database::{Database, SqliteDatabase};
use crate::common::topic::Topic;
use crate::common::worker::{Worker, from_kafka};

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_a_topic_or_a_partition_that_the_broker_does_not_have_is_found() {
    let folder = Folder::new("kafka");
    let database = SqliteDatabase::create().await.expect("a file");
    let events = events(&folder, 60);
    let records = std::fs::read_to_string(&events).expect("events").lines().count() as i64;
    let topic = Topic::new(3).await;
    topic.produce(&events);
    let settings = Settings(from_kafka(&topic, &database.url()));
    let worker = Worker::start(&settings.0, folder.path("worker.log"));
    let deadline = Instant::now() + Duration::from_secs(120);
    let unsettled = "select cast((select count(*) from block_changes)
         + (select count(*) from populations where refit_due_at is not null or publish_cursor is not null
                                                      or unpublished <> 0 or pass_unpublished <> 0) as text)";
    let progress = "select cast(coalesce(sum(next_offset), 0) as text) from partition_progress";
    while database.count(progress).await < records || database.count(unsettled).await > 0 {
        assert!(Instant::now() < deadline, "{}", worker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    settings.verify().is_clean();
    drop(worker);
    let audit = settings.verify();
    audit.is_clean();
    assert!(audit.line("offsets").contains("3 compared with the source: all present"), "{}", audit.said);
    let of_first = "where partition_number = 0";
    for (change, named) in [
        ("next_offset = 1000000", "the offsets that the broker has"),
        ("next_offset = -5", "the offsets that the broker has"),
        ("topic_id = 'another'", "topic_id"),
        ("cluster_id = 'another'", "cluster_id"),
        ("partition_number = 77", "one of the 3 that the broker has"),
    ] {
        if change.starts_with("topic_id") && !topic.is_real() {
            continue; // The mock broker gives its topics no ids.
        }
        database.execute("create table kept as select * from partition_progress").await;
        database.execute(format!("update partition_progress set {change} {of_first}").leak()).await;
        let audit = settings.verify();
        assert_eq!((audit.code, audit.found()), (Some(1), vec!["offsets"]), "{}", audit.said);
        assert!(audit.said.contains(named), "{}", audit.said);
        let undo =
            "delete from partition_progress; insert into partition_progress select * from kept; drop table kept;";
        database.execute(undo).await;
    }
    if topic.is_real() {
        // What expired after it was read is nobody's loss; what expired before is.
        topic.expire(0, 2).await;
        settings.verify().is_clean();
        database.execute("update partition_progress set next_offset = 1 where partition_number = 0").await;
        let audit = settings.verify();
        assert_eq!((audit.code, audit.found()), (Some(1), vec!["offsets"]), "{}", audit.said);
    }
    let unreachable = settings.clone().with("SHRINKD__SOURCE__KAFKA__BROKERS", "127.0.0.1:1").verify();
    assert_eq!(unreachable.code, Some(1));
    assert!(unreachable.stderr.contains("start again when the brokers answer"), "{}", unreachable.stderr);
    topic.remove().await;
}
