//! Streams of events: a topic, its partitions, and the claims by which workers own them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The cluster id of files.
pub const FILE_CLUSTER: &str = "file";
/// The cluster id of replays of refused messages.
pub const REPLAY_CLUSTER: &str = "shrinkd";

/// Identifies a stream of records. Offsets are only valid within it: a topic that is deleted and created again under the same
/// name is another stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The id of the Kafka cluster; [`FILE_CLUSTER`] for files, [`REPLAY_CLUSTER`] for replays.
    pub cluster_id: String,
    /// The topic's name; the canonical path of a file.
    pub name: String,
    /// The id that the broker assigned when the topic was created; empty if there is none.
    pub id: String,
    /// The current number of partitions; 1 for files.
    pub partitions: usize,
}

/// The offset of the next record to read, never of the last one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

/// The low and high watermark of each partition: its first offset, and the offset of its next record.
pub type Watermarks = BTreeMap<i32, (i64, i64)>;

/// The fencing token of a partition: every claim increments it, and only the holder of the largest one may advance the
/// partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// A partition that this worker owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The partition's number within its topic; 0 for files.
    pub partition: i32,
    /// The key of (topic, partition) in the store.
    pub partition_id: i64,
    pub epoch: Epoch,
    /// `None` if nothing was ever committed: reading starts at the beginning.
    pub next_offset: Option<NextOffset>,
    /// Whether it must not be read until an operator resumes it.
    pub is_halted: bool,
}

/// How far a batch moves one partition, and by what right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    pub partition: i32,
    pub partition_id: i64,
    pub epoch: Epoch,
    pub from: Option<NextOffset>,
    pub to: NextOffset,
}

impl Topic {
    /// Whether this is the topic that had this id when it was stored: one that was deleted and created again has another. An id
    /// that is not known on one side decides nothing.
    pub fn is_stored_as(&self, stored_id: &str) -> bool {
        stored_id == self.id || stored_id.is_empty() || self.id.is_empty()
    }

    /// The topic of a file, which has one partition. `-` is stdin, which is a new topic in every run.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn of_file(path: &Path) -> io::Result<Topic> {
        let name = if path == Path::new("-") {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("stdin-{}-{}", since_epoch.as_nanos(), std::process::id())
        } else {
            path.canonicalize()?.display().to_string()
        };
        Ok(Topic { cluster_id: FILE_CLUSTER.to_owned(), name, id: String::new(), partitions: 1 })
    }
}
