//! The lag of each owned partition: how many of its records are not committed yet, and since when the oldest of them waits.
//!
//! It is measured whenever the brokers tell where a partition ends, so that it also grows while the store is down and no batch
//! can be committed. Not every offset is a record: those behind the last record of a transaction hold markers. So a partition
//! of which everything that can be read was read and committed has no lag before that. What an open transaction holds back is
//! lag.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::metrics::{Metrics, seconds_since};

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
    /// Whether everything that can be read was read.
    is_at_end: bool,
    /// Up to where the partition can be read: not beyond an open transaction.
    readable_end: i64,
    /// Where the partition ends, as the brokers said last.
    end: Option<i64>,
}

impl Position {
    /// Before which there is nothing that is not committed and can be read.
    fn done(&self) -> i64 {
        let is_done = self.is_at_end && self.waiting.is_empty();
        if is_done { self.committed.max(self.readable_end) } else { self.committed }
    }
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

    /// How many offsets follow these ends of a batch in some owned partitions, of each, which is `None` as long as the brokers have not
    /// said where one of them ends; and for how many seconds the oldest of their records has waited that is not committed.
    pub fn behind(&self, partitions: &[i32], batch: &[(i32, i64)]) -> Option<(BTreeMap<i32, u64>, f64)> {
        let positions = self.positions();
        let positions = positions.iter().filter(|(partition, _)| partitions.contains(partition));
        let (mut behind, mut oldest): (_, Option<OffsetDateTime>) = (BTreeMap::new(), None);
        for (&partition, position) in positions {
            let of_batch = batch.iter().find(|(of, _)| *of == partition).map(|(_, end)| *end);
            let records = position.end?.saturating_sub(of_batch.unwrap_or_else(|| position.done()));
            behind.insert(partition, u64::try_from(records).unwrap_or(0));
            let waits = position.waiting.front().and_then(|(_, produced_at)| *produced_at);
            oldest = oldest.into_iter().chain(waits).min();
        }
        Some((behind, oldest.map_or(0.0, seconds_since)))
    }

    /// Whether it is not known where some owned partition ends.
    pub fn lacks_ends(&self) -> bool {
        self.positions().values().any(|position| position.end.is_none())
    }

    /// The offset of a partition's next record, as far as that is committed; `None` for one that is not owned.
    pub fn next_offset(&self, partition: i32) -> Option<i64> {
        self.positions().get(&partition).map(|position| position.committed)
    }

    /// A record was read that was produced at this time, and after which the partition continues at `next`.
    pub fn read(&self, partition: i32, next: i64, produced_at: Option<OffsetDateTime>) {
        if let Some(position) = self.positions().get_mut(&partition) {
            position.waiting.push_back((next, produced_at));
            position.is_at_end = false;
        }
    }

    /// All records of the partition that can be read were read, or (false) that is not known.
    pub fn at_end(&self, partition: i32, is_at_end: bool) {
        self.update(partition, |position| position.is_at_end = is_at_end);
    }

    /// The brokers have said up to where partitions can be read.
    pub fn readable_ends(&self, ends: &[(i32, i64)]) {
        for &(partition, end) in ends {
            self.update(partition, |position| position.readable_end = end);
        }
    }

    /// Everything before these offsets is committed.
    pub fn committed(&self, ends: &[(i32, i64)]) {
        for &(partition, next) in ends {
            self.update(partition, |position| {
                position.committed = next;
                while position.waiting.pop_front_if(|(end, _)| *end <= next).is_some() {}
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
            // Below 0 if more is committed than the brokers said last.
            let records = end.saturating_sub(position.done());
            let oldest = position.waiting.front().and_then(|(_, produced_at)| *produced_at);
            self.metrics.set_lag(partition, u64::try_from(records).unwrap_or(0), oldest);
        }
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<i32, Position>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
