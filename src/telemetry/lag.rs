//! The lag of each owned partition: how many of its records are not committed yet, and since when the oldest of them waits.
//!
//! It is measured whenever the brokers tell where a partition ends, so that it also grows while the store is down and no batch
//! can be committed. Not every offset is a record: those behind the last record of a transaction hold markers. So a partition
//! that was read to its end, and of which everything is committed, has no lag, whatever its offsets are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::metrics::Metrics;

/// The positions of the owned partitions, and the metrics to which their lag is reported. Clones share it. Offsets are those
/// of the next record.
#[derive(Clone)]
pub struct Lag {
    metrics: Metrics,
    positions: Arc<Mutex<BTreeMap<i32, Position>>>,
}

#[derive(Default)]
struct Position {
    committed: i64,
    /// The records that were read and are not committed: where each ends, and when it was produced.
    waiting: VecDeque<(i64, Option<OffsetDateTime>)>,
    /// The end to which the partition was read; `None` if there may be records before it that were not read.
    read_to_end: Option<i64>,
    /// Where the partition ends, as the brokers said last.
    end: Option<i64>,
}

impl Lag {
    pub fn new(metrics: Metrics) -> Lag {
        Lag { metrics, positions: Arc::default() }
    }

    /// These partitions are owned from now on, each from this offset on (`None`: from its beginning).
    pub fn assigned(&self, partitions: &[(i32, Option<i64>)]) {
        let mut positions = self.positions();
        for &(partition, committed) in partitions {
            let position = Position { committed: committed.unwrap_or(0), ..Position::default() };
            positions.insert(partition, position);
        }
        self.metrics.own_partitions(&partitions.iter().map(|(partition, _)| *partition).collect::<Vec<_>>());
    }

    /// These partitions are not owned any more.
    pub fn released(&self, partitions: &[i32]) {
        self.positions().retain(|partition, _| !partitions.contains(partition));
        self.metrics.release_partitions(partitions);
    }

    /// The owned partitions.
    pub fn partitions(&self) -> Vec<i32> {
        self.positions().keys().copied().collect()
    }

    /// A record was read that was produced at this time, and after which the partition continues at `next`.
    pub fn read(&self, partition: i32, next: i64, produced_at: Option<OffsetDateTime>) {
        if let Some(position) = self.positions().get_mut(&partition) {
            position.waiting.push_back((next, produced_at));
            position.read_to_end = None;
        }
    }

    /// All records of the partition before this offset were read.
    pub fn read_to_end(&self, partition: i32, end: i64) {
        self.update(partition, |position| position.read_to_end = Some(end));
    }

    /// Everything before these offsets is committed.
    pub fn committed(&self, ends: &[(i32, i64)]) {
        for &(partition, next) in ends {
            self.update(partition, |position| {
                position.committed = next;
                while position.waiting.pop_front_if(|(end, _)| *end <= next).is_some() {}
                position.end = position.end.map(|end| end.max(next));
            });
        }
    }

    /// The brokers have said where partitions end.
    pub fn end_offsets(&self, ends: &[(i32, i64)]) {
        for &(partition, end) in ends {
            self.update(partition, |position| position.end = Some(end));
        }
    }

    fn update(&self, partition: i32, change: impl FnOnce(&mut Position)) {
        let mut positions = self.positions();
        let Some(position) = positions.get_mut(&partition) else { return };
        change(position);
        if let Some(end) = position.end {
            let read_to = position.read_to_end.filter(|_| position.waiting.is_empty());
            let records = end.saturating_sub(position.committed.max(read_to.unwrap_or(0)));
            let oldest = position.waiting.front().and_then(|(_, produced_at)| *produced_at);
            self.metrics.set_lag(partition, u64::try_from(records).unwrap_or(0), oldest);
        }
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<i32, Position>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
