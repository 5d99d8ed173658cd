//! Topics: creating, filling, and reading them without processing.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::events::Message;
use crate::{Outcome, report};

pub const PARTITIONS: i32 = 6;

/// The timeout of requests to a broker.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(1);

/// A topic, which is deleted with this value.
pub struct Topic {
    pub brokers: String,
    pub name: String,
}

/// How long reading took.
pub struct Reading {
    /// From the start of the consumer to the last message.
    pub whole: Duration,
    /// From the first message to the last.
    pub flow: Duration,
    pub bytes: usize,
}

impl Topic {
    /// An empty topic of [`PARTITIONS`] partitions.
    pub fn create(brokers: &str, what: &str) -> Outcome<Topic> {
        let topic = Topic { brokers: brokers.to_owned(), name: report::unique(what) };
        let new = NewTopic::new(&topic.name, PARTITIONS, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for result in runtime.block_on(admin(brokers)?.create_topics([&new], &AdminOptions::new()))? {
            result.map_err(|(name, error)| format!("cannot make the topic {name}: {error}"))?;
        }
        Ok(topic)
    }

    /// Sends messages by key, and waits until all are delivered. Returns how many there were.
    pub fn fill(&self, messages: impl IntoIterator<Item = Message>) -> Outcome<usize> {
        let producer = self.producer()?;
        let mut count = 0;
        for message in messages {
            producer.send(&message)?;
            count += 1;
        }
        producer.flush()?;
        Ok(count)
    }

    /// A producer configured as in `shrinkd simulate`.
    pub fn producer(&self) -> Outcome<Producer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("enable.idempotence", "true");
        config.set("partitioner", "murmur2_random").set("linger.ms", "5");
        Ok(Producer { producer: config.create()?, topic: self.name.clone() })
    }

    /// Reads the first `count` messages with a new group without processing them: the upper limit for any consumer.
    pub fn read(&self, count: usize) -> Outcome<Reading> {
        let started = Instant::now();
        let mut config = ClientConfig::new();
        // Like the worker's consumer, except that the group starts at the beginning, because there is no store.
        config.set("bootstrap.servers", &self.brokers).set("group.id", report::unique("reading"));
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.set("isolation.level", "read_committed").set("queued.max.messages.kbytes", "16384");
        config.set("partition.assignment.strategy", "cooperative-sticky");
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[&self.name])?;
        let (mut first, mut last, mut read, mut bytes) = (None, started, 0, 0);
        while read < count {
            // A rebalance also ends a poll.
            let Some(message) = consumer.poll(POLL) else {
                match last.elapsed() < TIMEOUT {
                    true => continue,
                    false => return Err("the broker gave nothing for a minute".into()),
                }
            };
            bytes += message?.payload_len();
            read += 1;
            last = Instant::now();
            first.get_or_insert(last);
        }
        let flow = last - first.unwrap_or(last);
        Ok(Reading { whole: started.elapsed(), flow, bytes })
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // A topic that is not deleted does no harm, because the broker is temporary.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let (Ok(runtime), Ok(admin)) = (runtime, admin(&self.brokers)) {
            let _ = runtime.block_on(admin.delete_topics(&[&self.name], &AdminOptions::new()));
        }
    }
}

/// A producer for one topic.
pub struct Producer {
    producer: BaseProducer,
    topic: String,
}

impl Producer {
    /// Sends one message, and waits if the queue is full.
    pub fn send(&self, message: &Message) -> Outcome<()> {
        let mut record = BaseRecord::to(&self.topic).key(message.key.as_bytes()).payload(message.payload.as_bytes());
        loop {
            self.producer.poll(Duration::ZERO);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Polls librdkafka until a deadline.
    pub fn wait_until(&self, due: Instant) {
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            self.producer.poll(wait);
        }
    }

    /// Waits until everything was delivered.
    pub fn flush(&self) -> Outcome<()> {
        Ok(self.producer.flush(TIMEOUT)?)
    }
}

/// Warms up a broker. The first group and the first idempotent producer wait seconds for its internal topics, which would
/// otherwise be part of the measurement.
pub fn warm_up(brokers: &str) -> Outcome<()> {
    let topic = Topic::create(brokers, "warm-up")?;
    let message = || Message { key: "key".to_owned(), payload: "payload".to_owned() };
    topic.fill([message()])?;
    topic.read(1)?;
    Ok(())
}

fn admin(brokers: &str) -> Outcome<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", brokers).create()?)
}
