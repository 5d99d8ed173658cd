//! Topics on the broker that SHRINKD_TEST_KAFKA names, else on the mock broker within this process.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::worker::TIMEOUT;

pub struct Topic {
    pub brokers: String,
    pub name: String,
    is_real: bool,
}

impl Topic {
    pub async fn new(partitions: i32) -> Topic {
        match std::env::var("SHRINKD_TEST_KAFKA") {
            Ok(brokers) => {
                let topic = Topic::absent(&brokers);
                topic.create(partitions).await;
                topic
            }
            Err(_) => {
                let _ = writeln!(std::io::stderr(), "ON THE MOCK BROKER: SHRINKD_TEST_KAFKA names no Apache Kafka");
                let (cluster, name) = (mock(), name());
                cluster.create_topic(&name, partitions, 1).expect("a topic");
                Topic { brokers: cluster.bootstrap_servers(), name, is_real: false }
            }
        }
    }

    /// The name of a topic that is yet to be made on Apache Kafka.
    pub fn absent(brokers: &str) -> Topic {
        Topic { brokers: brokers.to_owned(), name: name(), is_real: true }
    }

    /// Makes it.
    pub async fn create(&self, partitions: i32) {
        let new = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        let made = self.admin().create_topics([&new], &options()).await.expect("the broker answers");
        made.into_iter().for_each(|result| drop(result.expect("the topic is made")));
    }

    /// Makes a topic of one partition with this name, in addition, and becomes it.
    pub async fn create_as(&mut self, name: &str) {
        let new = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        let made = self.admin().create_topics([&new], &options()).await.expect("the broker answers");
        made.into_iter().for_each(|result| drop(result.expect("the topic is made")));
        let _ = self.admin().delete_topics(&[&self.name], &options()).await;
        name.clone_into(&mut self.name);
    }

    /// A producer whose records come in transactions.
    pub fn transactional(&self) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("transactional.id", &self.name)
            .create()
            .expect("a producer");
        producer.init_transactions(TIMEOUT).expect("a transactional producer");
        producer
    }

    /// Produces a file of events, one message a line, as `shrinkd simulate` does for users.
    pub fn produce(&self, events: &Path) {
        let status = Command::new(env!("CARGO_BIN_EXE_shrinkd"))
            .args(["simulate", "--kafka", &self.brokers, "--topic", &self.name, "--input"])
            .arg(events)
            .status()
            .expect("shrinkd runs");
        assert!(status.success(), "producing failed");
    }

    /// Produces lines to one partition, one message a line.
    pub fn produce_to(&self, partition: i32, lines: &str) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().expect("a producer");
        for line in lines.lines() {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(&self.name).partition(partition).payload(line);
            producer.send(record).expect("there is room");
        }
        producer.flush(Duration::from_secs(30)).expect("the broker answers");
    }

    /// Whether it is on Apache Kafka.
    pub fn is_real(&self) -> bool {
        self.is_real
    }

    /// Removes the records of a partition before an offset, as retention does in time.
    pub async fn expire(&self, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(before)).expect("an offset");
        let removed = self.admin().delete_records(&list, &options()).await.expect("the broker answers");
        removed.elements().iter().for_each(|element| element.error().expect("they are removed"));
    }

    pub async fn remove(self) {
        if self.is_real {
            let _ = self.admin().delete_topics(&[&self.name], &options()).await;
        }
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().expect("an admin client")
    }
}

pub fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

/// A name that no other test has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_nanos();
    format!("test-{}-{}-{since}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One broker for all tests of this process.
fn mock() -> &'static MockCluster<'static, DefaultProducerContext> {
    struct Shared(MockCluster<'static, DefaultProducerContext>);
    // SAFETY: the mock cluster runs on a thread of librdkafka, which guards each of its operations with a lock.
    unsafe impl Sync for Shared {}
    // SAFETY: as above; nothing of it is bound to the thread that made it.
    unsafe impl Send for Shared {}
    static CLUSTER: OnceLock<Shared> = OnceLock::new();
    &CLUSTER.get_or_init(|| Shared(MockCluster::new(1).expect("a mock cluster"))).0
}
