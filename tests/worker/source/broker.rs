//! A broker within this process, and members of a group that reads from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use shrinkd::config::KafkaConfig;
use shrinkd::stream::Topic;
use shrinkd::telemetry::Telemetry;
use shrinkd::worker::source::kafka::{Commands, KafkaSource, spawn};
use shrinkd::worker::source::{Record, SourceEvent};
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;

use super::{SMALL, TIMEOUT, claims, event, next_event};

pub const TOPIC: &str = "completed-experiments";

/// A broker within this process.
pub struct Broker {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Broker {
    pub fn new(partitions: i32) -> Broker {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, partitions, 1).expect("a topic");
        let producer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().expect("a producer");
        Broker { cluster, producer }
    }

    pub fn send(&self, partition: i32, key: Option<&[u8]>, payload: Option<&[u8]>) {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(TOPIC).partition(partition);
        record.key = key;
        record.payload = payload;
        self.producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }

    /// Sends events `from..to` to a partition and waits until they are there.
    pub fn send_events(&self, partition: i32, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let id = format!("p{partition}-{number}");
            self.send(partition, Some(id.as_bytes()), Some(event(&id).as_bytes()));
        }
        self.flush();
    }

    pub fn flush(&self) {
        self.producer.flush(TIMEOUT).expect("everything is delivered");
    }

    /// A member of the group by the protocol that most brokers speak, which takes seconds to join.
    pub fn source(&self) -> KafkaSource {
        self.source_with(&[("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")])
    }

    /// A member by the newer protocol, which joins at once.
    pub fn quick_source(&self) -> KafkaSource {
        self.source_with(&[("group.protocol", "consumer")])
    }

    pub fn source_with(&self, properties: &[(&str, &str)]) -> KafkaSource {
        KafkaSource {
            kafka: KafkaConfig {
                brokers: self.cluster.bootstrap_servers(),
                topic: TOPIC.to_owned(),
                group: "shrinkd".to_owned(),
                key: shrinkd_core::KeyRule::default(),
                properties: properties.iter().copied().collect(),
            },
            limits: SMALL,
            drain_budget: Duration::from_secs(5),
        }
    }
}

/// What a store would hold: where each partition goes on.
pub type Progress = Arc<Mutex<BTreeMap<i32, i64>>>;

/// A source and what a worker of it would know.
pub struct Member {
    pub events: Receiver<SourceEvent>,
    pub stop: CancellationToken,
    pub commands: Commands,
    pub thread: JoinHandle<()>,
    pub topics: Arc<Mutex<Vec<Topic>>>,
    pub telemetry: Telemetry,
}

impl Member {
    pub fn join(config: KafkaSource, capacity: usize, progress: &Progress) -> Member {
        let (sender, events) = channel(capacity);
        let telemetry = Telemetry::default();
        let stop = CancellationToken::new();
        let topics = Arc::new(Mutex::new(Vec::new()));
        let (seen, progress) = (Arc::clone(&topics), Arc::clone(progress));
        let claim = move |topic: &Topic, partitions: &[i32]| {
            seen.lock().expect("no panic").push(topic.clone());
            let progress = progress.lock().expect("no panic");
            let next = |partition: &i32| claims(&[*partition], progress.get(partition).copied());
            Ok(partitions.iter().flat_map(next).collect())
        };
        let (thread, commands) = spawn(config, claim, sender, telemetry.clone(), stop.clone()).expect("a source");
        Member { events, stop, commands, thread, topics, telemetry }
    }

    /// Reads until so many records came.
    pub fn read(&mut self, count: usize) -> Vec<Record> {
        let mut records = Vec::new();
        while records.len() < count {
            match next_event(&mut self.events) {
                SourceEvent::Batch(batch) => records.extend(batch.records),
                SourceEvent::Assigned(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        records
    }

    /// Stops and gives the records that were still in hand.
    pub fn leave(mut self) -> Vec<Record> {
        self.stop.cancel();
        let mut records = Vec::new();
        loop {
            match next_event(&mut self.events) {
                SourceEvent::Batch(batch) => records.extend(batch.records),
                SourceEvent::Revoked { drained, .. } => drained.send(()).expect("somebody waits"),
                SourceEvent::Assigned(_) => {}
                SourceEvent::Ended => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        self.thread.join().expect("the thread ends without a panic");
        records
    }
}
