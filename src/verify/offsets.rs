//! Checks of offsets: each partition of the source continues at an offset that the source has.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use time::format_description::well_known::Rfc3339;

use super::report::{Check, Report};
use crate::files::compression::Compression;
use crate::row::PartitionStatus;
use crate::row::audit::SkippedOffsets;
use crate::stream::{NextOffset, Topic, Watermarks};

/// The offsets that a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Watermarks from before and after the snapshot of the store, because records can expire and arrive in the meantime.
    Kafka { topic: Topic, before: Watermarks, after: Watermarks },
    /// The length of a file, and whether a line begins at the stored offset, which is only checked within the file.
    File { topic: Topic, length: i64, is_line: bool },
    /// A file that is compressed: its offsets are of what comes out of it.
    Compressed { topic: Topic },
    /// Stdin cannot be read again.
    Stdin,
}

/// The length of a file, and whether a line begins at its stored offset.
///
/// # Errors
/// If the file cannot be read.
pub fn file_reach(path: &Path, partitions: &[PartitionStatus]) -> io::Result<Reach> {
    if path == Path::new("-") {
        return Ok(Reach::Stdin);
    }
    let topic = Topic::of_file(path)?;
    let mut file = File::open(path)?;
    let own = partitions.iter().find(|row| row.cluster_id == topic.cluster_id && row.topic == topic.name);
    let next = own.and_then(|row| row.next_offset).and_then(|next| u64::try_from(next.0).ok()).unwrap_or(0);
    let mut head = Vec::new();
    (&file).take(4).read_to_end(&mut head)?;
    if Compression::of(&head) != Compression::None {
        return Ok(Reach::Compressed { topic });
    }
    let length = file.metadata()?.len();
    let is_line = if next == 0 || next >= length {
        true
    } else {
        let mut last = [0];
        file.seek(SeekFrom::Start(next - 1))?;
        file.read_exact(&mut last)?;
        last == *b"\n"
    };
    Ok(Reach::File { topic, length: i64::try_from(length).unwrap_or(i64::MAX), is_line })
}

impl Report {
    /// Compares the offsets of partitions with those of their source, and remarks on halted partitions and skipped records.
    pub fn check_offsets(&mut self, partitions: &[PartitionStatus], skipped: &[SkippedOffsets], reach: &Reach) {
        let name = match reach {
            Reach::Kafka { topic, .. } | Reach::File { topic, .. } | Reach::Compressed { topic } => Some(&topic.name),
            Reach::Stdin => None,
        };
        let (own, others): (Vec<_>, Vec<_>) = partitions.iter().partition(|row| Some(&row.topic) == name);
        for row in &own {
            match reach {
                Reach::Kafka { topic, before, after } => self.check_partition(row, &own, topic, before, after),
                Reach::File { topic, length, is_line } => self.check_file(row, topic, *length, *is_line),
                Reach::Compressed { .. } | Reach::Stdin => {}
            }
        }
        if let Reach::Compressed { topic } = reach {
            self.remarks.push(format!("the offsets of {} cannot be checked: it is compressed", topic.name));
        }
        match (name, own.is_empty()) {
            (Some(name), true) => self.remarks.push(format!("no record of {name} was ever committed")),
            (None, _) => self.remarks.push("the offsets of stdin cannot be checked".to_owned()),
            _ => {}
        }
        let mut topics: Vec<&str> = others.iter().map(|row| row.topic.as_str()).collect();
        topics.dedup();
        if !topics.is_empty() {
            self.remarks
                .push(format!("not checked, because they are not of the configured source: {}", topics.join(", ")));
        }
        for row in partitions {
            if let Some((at, reason, _)) = &row.halted {
                let at = at.format(&Rfc3339).unwrap_or_default();
                let (topic, partition) = (&row.topic, row.partition);
                self.remarks.push(format!("partition {partition} of {topic} is halted since {at}: {reason}"));
            }
        }
        for SkippedOffsets { topic, partition, from, to, because, by, at } in skipped {
            let from = from.map_or_else(|| "its beginning".to_owned(), |from| from.to_string());
            self.remarks.push(format!(
                "partition {partition} of {topic}: offsets from {from} to before {to} were skipped by {by} at {at}: {because}"
            ));
        }
    }

    fn check_partition(
        &mut self,
        row: &PartitionStatus,
        own: &[&PartitionStatus],
        topic: &Topic,
        before: &Watermarks,
        after: &Watermarks,
    ) {
        self.compared(Check::Offsets, 1);
        let at = format!("{} partition {}", row.topic, row.partition);
        if row.cluster_id != topic.cluster_id {
            // A topic that moved to another cluster leaves the rows of the old one behind.
            let is_left = own.iter().any(|o| o.cluster_id == topic.cluster_id && o.partition == row.partition);
            match is_left {
                true => self.remarks.push(format!("{at} was formerly read from another cluster: {}", row.cluster_id)),
                false => self.differs(Check::Offsets, at, "cluster_id", &row.cluster_id, &topic.cluster_id),
            }
            return;
        }
        if !topic.is_stored_as(&row.topic_id) {
            return self.differs(Check::Offsets, at, "topic_id", &row.topic_id, &topic.id);
        }
        let Some((_, high)) = after.get(&row.partition) else {
            let expected = format!("one of the {} that the broker has", topic.partitions);
            return self.differs(Check::Offsets, at, "partition_number", row.partition, expected);
        };
        let low = before.get(&row.partition).map_or(0, |(low, _)| *low);
        if let Some(NextOffset(next)) = row.next_offset.filter(|next| !(low..=*high).contains(&next.0)) {
            self.differs(
                Check::Offsets,
                at,
                "next_offset",
                next,
                format!("{low} to {high}, the offsets that the broker has"),
            );
        }
    }

    fn check_file(&mut self, row: &PartitionStatus, topic: &Topic, length: i64, is_line: bool) {
        self.compared(Check::Offsets, 1);
        let at = row.topic.clone();
        if row.cluster_id != topic.cluster_id {
            return self.differs(Check::Offsets, at, "cluster_id", &row.cluster_id, &topic.cluster_id);
        }
        match row.next_offset {
            Some(NextOffset(next)) if !(0..=length).contains(&next) => {
                self.differs(
                    Check::Offsets,
                    at,
                    "next_offset",
                    next,
                    format!("at most {length}, the length of the file"),
                );
            }
            Some(NextOffset(next)) if !is_line => {
                self.differs(Check::Offsets, at, "next_offset", next, "the beginning of a line")
            }
            _ => {}
        }
    }
}
