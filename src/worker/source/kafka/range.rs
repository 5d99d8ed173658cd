//! What a partition holds between two offsets, for an operator who is about to skip it.

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use time::OffsetDateTime;

use super::client::reader;
use super::produced_at;
use crate::config::KafkaConfig;
use crate::worker::source::SourceError;

/// How long reading may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The records between two offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordRange {
    pub records: u64,
    /// When the first and the last of them were produced.
    pub first: Option<OffsetDateTime>,
    pub last: Option<OffsetDateTime>,
    /// Whether the end was reached. Reading stops after 10 s, and the broker may have deleted records in the meantime.
    pub is_complete: bool,
}

/// Reads the records of a partition whose offsets are in a range. No group is joined, and no offset committed.
///
/// # Errors
/// If a property is refused, or the partition cannot be read.
pub fn read_range(kafka: &KafkaConfig, partition: i32, offsets: Range<i64>) -> Result<RecordRange, SourceError> {
    let mut range = RecordRange::default();
    let unreadable = |error: KafkaError| {
        SourceError::Kafka(format!("cannot read partition {partition} of {}: {error}", kafka.topic))
    };
    let consumer = reader(kafka)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&kafka.topic, partition, Offset::Offset(offsets.start)).map_err(unreadable)?;
    consumer.assign(&list).map_err(unreadable)?;
    let deadline = Instant::now() + READ_TIMEOUT;
    while !range.is_complete && Instant::now() < deadline {
        match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) if message.offset() < offsets.end => {
                range.records += 1;
                range.last = produced_at(&message);
                range.first = range.first.or(range.last);
                range.is_complete = message.offset() + 1 == offsets.end;
            }
            // The last offsets may be those of transaction markers, or of records that were compacted away.
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => range.is_complete = true,
            Some(Err(KafkaError::MessageConsumption(_))) => break,
            // librdkafka recovers from anything else by itself.
            Some(Err(_)) | None => {}
        }
    }
    Ok(range)
}
