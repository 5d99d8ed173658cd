//! The streams that events come from: a topic, its partitions, and who may read each from where.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The cluster id of files.
pub const FILE_CLUSTER: &str = "file";

/// Names a stream of records. Offsets of one stream mean nothing in another, not even in one of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The Kafka cluster's own id; `file` for files.
    pub cluster_id: String,
    /// The topic's name; the canonical path of a file.
    pub name: String,
    /// The id that the broker gave the topic when it was made, empty where there is none: a topic that is deleted and
    /// made again has another one.
    pub id: String,
    /// How many partitions it has now; a file has one.
    pub partitions: usize,
}

/// The offset of the next record to read, never of the last one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

/// The first offset that each partition holds, and the one that its next record will get.
pub type Watermarks = BTreeMap<i32, (i64, i64)>;

/// Counts the owners that a partition has had. Whoever holds the largest one may advance it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// A partition that this worker owns, as the store gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The partition's number within its topic; 0 for files.
    pub partition: i32,
    /// The store's own key of (topic, partition).
    pub partition_id: i64,
    pub epoch: Epoch,
    /// `None` where nothing was ever read: begin at the beginning.
    pub next_offset: Option<NextOffset>,
    /// Not to be read until an operator says so: it is owned, and no more.
    pub is_halted: bool,
}

impl Topic {
    /// A file as the one partition of a topic of its own; `-` is stdin, which is another stream each time.
    ///
    /// # Errors
    /// Where there is no such file.
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
