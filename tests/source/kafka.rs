use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use shrinkd::event::{Message, Reason};
use shrinkd::worker::source::kafka::{Committer, KafkaSource, spawn};
use shrinkd::worker::source::{BatchLimits, NextOffset, Record, SourceEvent, Topic};
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, SMALL, claims, event, next_event};

const TOPIC: &str = "experiments";

/// A broker within this process.
struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Broker {
    fn new(partitions: i32) -> Broker {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, partitions, 1).expect("a topic");
        let producer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().expect("a producer");
        Broker { cluster, producer }
    }

    fn send(&self, partition: i32, key: Option<&[u8]>, payload: Option<&[u8]>) {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(TOPIC).partition(partition);
        record.key = key;
        record.payload = payload;
        self.producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }

    /// Sends events `from..to` to a partition and waits until they are there.
    fn send_events(&self, partition: i32, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let id = format!("p{partition}-{number}");
            self.send(partition, Some(id.as_bytes()), Some(event(&id).as_bytes()));
        }
        self.flush();
    }

    fn flush(&self) {
        self.producer.flush(PATIENCE).expect("everything is delivered");
    }

    fn source(&self, properties: &[(&str, &str)]) -> KafkaSource {
        let own = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
        let properties = own.iter().chain(properties);
        KafkaSource {
            brokers: self.cluster.bootstrap_servers(),
            topic: TOPIC.to_owned(),
            group: "shrinkd".to_owned(),
            properties: properties.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            limits: SMALL,
            drain_budget: Duration::from_secs(5),
        }
    }
}

/// What a store would hold: where each partition goes on.
type Progress = Arc<Mutex<BTreeMap<i32, i64>>>;

/// A source and what a worker of it would know.
struct Member {
    events: Receiver<SourceEvent>,
    stop: CancellationToken,
    committer: Committer,
    thread: JoinHandle<()>,
    topics: Arc<Mutex<Vec<Topic>>>,
}

impl Member {
    fn join(config: KafkaSource, capacity: usize, progress: &Progress) -> Member {
        let (sender, events) = channel(capacity);
        let stop = CancellationToken::new();
        let topics = Arc::new(Mutex::new(Vec::new()));
        let (seen, progress) = (Arc::clone(&topics), Arc::clone(progress));
        let claim = move |topic: &Topic, partitions: &[i32]| {
            seen.lock().expect("no panic").push(topic.clone());
            let progress = progress.lock().expect("no panic");
            let next = |partition: &i32| claims(&[*partition], progress.get(partition).copied());
            Ok(partitions.iter().flat_map(next).collect())
        };
        let (thread, committer) = spawn(config, claim, sender, stop.clone()).expect("a source");
        Member { events, stop, committer, thread, topics }
    }

    /// Reads until so many records came.
    fn read(&mut self, count: usize) -> Vec<Record> {
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
    fn leave(mut self) -> Vec<Record> {
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

/// The offsets of a partition's records in the order in which they came.
fn offsets(records: &[Record], partition: i32) -> Vec<i64> {
    records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect()
}

fn refusal(record: &Record) -> Reason {
    record.message.as_ref().expect_err("it is refused").reason
}

#[test]
fn records_come_in_the_order_of_their_partition_with_their_own_offsets() {
    let broker = Broker::new(3);
    (0..3).for_each(|partition| broker.send_events(partition, 0..40));
    let mut member = Member::join(broker.source(&[]), 8, &Progress::default());
    let records = member.read(120);
    for partition in 0..3 {
        assert_eq!(offsets(&records, partition), (0..40).collect::<Vec<_>>());
    }
    for record in &records {
        let Ok(Message::Event(event)) = &record.message else { panic!("{:?}", record.message) };
        assert_eq!(event.experiment_id, format!("p{}-{}", record.partition, record.offset));
        assert!(record.produced_at.is_some());
    }
    let topics = member.topics.lock().expect("no panic").clone();
    assert_eq!(topics[0].name, TOPIC);
    assert!(!topics[0].cluster_id.is_empty());
    eprintln!("{topics:?}");
    member.leave();
}
