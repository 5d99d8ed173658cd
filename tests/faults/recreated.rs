//! A topic that is deleted and made again under a running worker is another topic, whatever its name.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rdkafka::admin::{NewTopic, TopicReplication};

use super::common::database::{Database, PostgresDatabase};
use super::common::folder::Folder;
use super::common::settling::settled;
use super::common::topic::{Topic, options};
use super::common::worker::{Worker, from_kafka};

const PARTITIONS: i32 = 2;
/// In the topic at first, and in the one that takes its place: more, so that the old offsets lie within it.
const BEFORE: usize = 200;
const AFTER: usize = 1_000;
/// How soon the worker has to notice.
const TIMEOUT: Duration = Duration::from_secs(60);

pub async fn check() {
    let folder = Folder::new("recreated");
    let database = PostgresDatabase::create().await.expect("there is a server");
    let topic = Topic::new(PARTITIONS).await;
    let mut worker = Worker::start(&from_kafka(&topic, &database.url()), folder.path("worker.log"));
    produce(&folder, &topic, "before", BEFORE);
    settled(&database, BEFORE as i64).await;

    remake(&topic).await;
    produce(&folder, &topic, "after", AFTER);
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match worker.ended() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let counted = "select count(*)::text from experiments where experiment_id like 'after-%'";
    assert_eq!(database.count(counted).await, 0, "events of the new topic were counted:\n{}", worker.log());
    let status = status.unwrap_or_else(|| panic!("the worker goes on as if nothing had happened:\n{}", worker.log()));
    assert!(!status.success(), "it ended with {status}");
    assert!(worker.log().contains("was deleted and created again"), "it does not say why it ended:\n{}", worker.log());
    topic.remove().await;
    database.remove().await;
}

fn produce(folder: &Folder, topic: &Topic, name: &str, count: usize) {
    let path = folder.path(name);
    let mut file = std::fs::File::create(&path).expect("a file");
    for i in 0..count {
        let effect = r#"{"metric":"m","effects":[{"variant":"v","estimate":0.5,"variance":0.25}]}"#;
        writeln!(
            file,
            r#"{{"schema_version":1,"experiment_id":"{name}-{i}","revision":1,"completed_at":"2026-05-01T00:00:00Z","results":[{effect}]}}"#
        )
        .expect("a line");
    }
    topic.produce(&path);
}

/// Deletes a topic and makes it again.
async fn remake(topic: &Topic) {
    let admin = topic.admin();
    admin.delete_topics(&[&topic.name], &options()).await.expect("the broker answers");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let new = NewTopic::new(&topic.name, PARTITIONS, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &options()).await.expect("the broker answers");
        match &made[0] {
            Ok(_) => return,
            // It is still being deleted.
            Err(error) => assert!(Instant::now() < deadline, "the topic is not made again: {error:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
