//! Sends the workload to the topic at a steady rate, whatever happens to the brokers meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::common::topic::Topic;
use super::workload::{Sent, Workload};

/// How long what was sent may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(120);

pub struct Producer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    partitions: AtomicI32,
    sent: AtomicI64,
    is_over: AtomicBool,
}

impl Producer {
    /// Starts to send so many messages a second to a topic of so many partitions.
    pub fn start(topic: &Topic, seed: u64, rate: u64, partitions: i32) -> Producer {
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", &topic.brokers)
            // What is tried again after a broker went away is neither doubled nor put behind what came later.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "300000")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("reconnect.backoff.max.ms", "500")
            // Messages above what the contract allows travel compressed.
            .set("message.max.bytes", "4000000")
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            .create_with_context(Deliveries::default())
            .expect("a producer");
        let shared = Arc::new(Shared {
            partitions: AtomicI32::new(partitions),
            sent: AtomicI64::new(0),
            is_over: AtomicBool::new(false),
        });
        let (own, name) = (Arc::clone(&shared), topic.name.clone());
        let thread = std::thread::spawn(move || send(&producer, &name, Workload::new(seed), rate, partitions, &own));
        Producer { shared, thread }
    }

    /// From now on there are so many partitions.
    pub fn set_partitions(&self, partitions: i32) {
        self.shared.partitions.store(partitions, Ordering::Relaxed);
    }

    pub fn sent(&self) -> i64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Sends no more, waits until everything has arrived, and says how much it was.
    pub fn finish(self) -> i64 {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer has sent everything");
        self.shared.sent.load(Ordering::Relaxed)
    }
}

fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    mut workload: Workload,
    rate: u64,
    fixed: i32,
    shared: &Shared,
) {
    let (started, mut sent) = (Instant::now(), 0.0);
    while !shared.is_over.load(Ordering::Relaxed) {
        let due = started.elapsed().as_secs_f64() * rate as f64;
        while sent < due {
            let Some(message) = workload.next() else { return };
            let partitions = if message.stays { fixed } else { shared.partitions.load(Ordering::Relaxed) };
            deliver(producer, topic, (message.hash % partitions as u64) as i32, &message);
            sent += 1.0;
            shared.sent.fetch_add(1, Ordering::Relaxed);
        }
        producer.poll(Duration::from_millis(5));
    }
    producer.flush(TIMEOUT).expect("everything arrives");
    assert_eq!(producer.context().failed.load(Ordering::Relaxed), 0, "messages that did not arrive");
}

fn deliver(producer: &BaseProducer<Deliveries>, topic: &str, partition: i32, message: &Sent) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        match producer.send(record) {
            Ok(()) => return,
            // No room, or a partition of which the producer has not heard yet.
            Err((
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::UnknownPartition),
                _,
            )) if Instant::now() < deadline => {
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => panic!("a message cannot be sent to partition {partition}: {error}"),
        }
    }
}

#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}
