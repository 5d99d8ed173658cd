//! What a skip would pass over, as far as the source still has it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::Target;
use crate::cli::CliError;
use crate::cli::text::counted;
use crate::config::{Config, KafkaConfig, SourceConfig};
use crate::row::PartitionStatus;
use crate::stream::{FILE_CLUSTER, NextOffset};
use crate::worker::source::SourceError;
use crate::worker::source::kafka::{RecordRange, partition_watermarks, read_range};

/// The offsets that a skip would pass over, and what the source has of them.
pub(super) struct Gap {
    /// `None` for the beginning of the partition.
    pub from: Option<NextOffset>,
    pub to: NextOffset,
    /// Sentences for the operator.
    pub contents: Vec<String>,
}

/// Finds out what a skip to `to` would pass over.
///
/// # Errors
/// Where the source does not answer, is not that of the partition, or has no such offset, and where the partition is there
/// already.
pub(super) fn gap(config: &Config, seen: &PartitionStatus, to: Target) -> Result<Gap, CliError> {
    match &config.source {
        _ if seen.cluster_id == FILE_CLUSTER => gap_in_file(seen, to),
        SourceConfig::Kafka(kafka) => gap_in_topic(kafka, seen, to),
        SourceConfig::File(_) => Err(CliError::Usage(format!(
            "{}: give the configuration of its worker: only the brokers know what would be skipped",
            super::name(seen)
        ))),
    }
}

fn gap_in_topic(kafka: &KafkaConfig, seen: &PartitionStatus, to: Target) -> Result<Gap, CliError> {
    let failed = |error: SourceError| CliError::Kafka(error.to_string());
    let kafka = KafkaConfig { topic: seen.topic.clone(), ..kafka.clone() };
    let (topic, (low, high)) = partition_watermarks(&kafka, seen.partition).map_err(failed)?;
    if topic.cluster_id != seen.cluster_id {
        return Err(CliError::Usage(format!(
            "{} is in the cluster {}, but {} is in {}: give the configuration of its worker",
            super::name(seen),
            seen.cluster_id,
            kafka.brokers,
            topic.cluster_id
        )));
    }
    if !topic.is_stored_as(&seen.topic_id) {
        return Err(CliError::Usage(format!(
            "{} was deleted and created again: the stored offsets mean nothing in the new topic",
            seen.topic
        )));
    }
    let (from, to) = forwards(seen, to, low, high)?;
    let start = from.map_or(low, |from| from.0);
    let mut contents = Vec::new();
    if start < low {
        contents.push(format!("the broker no longer has {}", span(start, low.min(to.0))));
    }
    if to.0 > low {
        let start = start.max(low);
        let range = read_range(&kafka, seen.partition, start..to.0).map_err(failed)?;
        contents.push(format!("the broker has {}, with {}", span(start, to.0), records(&range)));
    }
    Ok(Gap { from, to, contents })
}

fn gap_in_file(seen: &PartitionStatus, to: Target) -> Result<Gap, CliError> {
    let failed = |source| CliError::File { path: seen.topic.clone().into(), source };
    let mut file = File::open(&seen.topic).map_err(failed)?;
    let length = i64::try_from(file.metadata().map_err(failed)?.len()).unwrap_or(i64::MAX);
    let (from, to) = forwards(seen, to, 0, length)?;
    let start = from.map_or(0, |from| from.0);
    // Both are within the file, and not negative.
    file.seek(SeekFrom::Start(start.unsigned_abs())).map_err(failed)?;
    let (mut lines, mut last) = (0, b'\n');
    for byte in BufReader::new(file).take((to.0 - start).unsigned_abs()).bytes() {
        last = byte.map_err(failed)?;
        lines += u64::from(last == b'\n');
    }
    if last != b'\n' && to.0 < length {
        return Err(CliError::Usage(format!("{}: no line begins at offset {}", super::name(seen), to.0)));
    }
    let contents = vec![format!("the file has {}, with {}", span(start, to.0), counted(lines, "line"))];
    Ok(Gap { from, to, contents })
}

/// Where the partition is and where it is to go, which must be ahead and at an offset that the source has.
fn forwards(
    seen: &PartitionStatus,
    to: Target,
    low: i64,
    high: i64,
) -> Result<(Option<NextOffset>, NextOffset), CliError> {
    let to = match to {
        Target::Earliest => low,
        Target::Offset(offset) if (low..=high).contains(&offset) => offset,
        Target::Offset(offset) => {
            return Err(CliError::Usage(format!(
                "{} cannot continue at {offset}: its source has offsets from {low} to {high}",
                super::name(seen)
            )));
        }
    };
    if seen.next_offset.unwrap_or(NextOffset(low)) >= NextOffset(to) {
        return Err(CliError::Usage(format!(
            "{} is at {} already, which is not before {to}: it can only be skipped forwards",
            super::name(seen),
            super::offset(seen.next_offset)
        )));
    }
    Ok((seen.next_offset, NextOffset(to)))
}

/// Offsets from the first to before the end, and how many they are.
fn span(from: i64, end: i64) -> String {
    format!("offsets {from} to {} ({})", end - 1, end - from)
}

fn records(range: &RecordRange) -> String {
    let RecordRange { records, first, last, is_complete } = range;
    let at_least = if *is_complete { "" } else { "at least " };
    let produced = match (first, last) {
        (Some(first), Some(last)) => {
            format!(", produced from {} to {}", super::second(*first), super::second(*last))
        }
        _ => String::new(),
    };
    format!("{at_least}{}{produced}", counted(*records, "record"))
}
