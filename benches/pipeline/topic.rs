//! Topics: made, filled, and read without being understood.

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

/// How long a broker may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(1);

/// A topic, deleted with this.
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

    /// Sends messages, by key, and waits until all are there. Returns how many.
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

    /// A producer as `shrinkd simulate` has it.
    pub fn producer(&self) -> Outcome<Producer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("enable.idempotence", "true");
        config.set("partitioner", "murmur2_random").set("linger.ms", "5");
        Ok(Producer { producer: config.create()?, topic: self.name.clone() })
    }

    /// Reads the first `count` messages with a new group and looks at none of them: what any consumer could reach.
    pub fn read(&self, count: usize) -> Outcome<Reading> {
        let started = Instant::now();
        let mut config = ClientConfig::new();
        // As the worker's own, but for where the group begins: without a store Kafka has to be told.
        config.set("bootstrap.servers", &self.brokers).set("group.id", report::unique("reading"));
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.set("isolation.level", "read_committed").set("queued.max.messages.kbytes", "16384");
        config.set("partition.assignment.strategy", "cooperative-sticky");
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[&self.name])?;
        let (mut first, mut last, mut read, mut bytes) = (None, started, 0, 0);
        while read < count {
            // A poll also ends where the group moves.
            let Some(message) = consumer.poll(POLL) else {
                match last.elapsed() < PATIENCE {
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
        // A topic that stays behind does no harm: the broker is thrown away.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let (Ok(runtime), Ok(admin)) = (runtime, admin(&self.brokers)) {
            let _ = runtime.block_on(admin.delete_topics(&[&self.name], &AdminOptions::new()));
        }
    }
}

/// Sends to one topic.
pub struct Producer {
    producer: BaseProducer,
    topic: String,
}

impl Producer {
    /// Sends one message, waiting where the queue is full.
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

    /// Lets librdkafka work until then.
    pub fn wait_until(&self, due: Instant) {
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            self.producer.poll(wait);
        }
    }

    /// Waits until everything was delivered.
    pub fn flush(&self) -> Outcome<()> {
        Ok(self.producer.flush(PATIENCE)?)
    }
}

/// The first group and the first idempotent producer of a broker wait seconds for its internal topics: not in what is
/// measured.
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
