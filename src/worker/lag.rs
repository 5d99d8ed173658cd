//! The lag of each owned partition: the distance between its committed offset and its high watermark.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::stream::{Claim, NextOffset};
use crate::telemetry::metrics::Metrics;

/// The positions of the owned partitions, and the metrics to which their lag is reported.
pub struct Lag {
    metrics: Metrics,
    partitions: BTreeMap<i32, Position>,
}

#[derive(Default)]
struct Position {
    committed: i64,
    /// When the last committed record was produced. Records that wait are younger, but not by much in a steady stream.
    produced_at: Option<OffsetDateTime>,
    /// The high watermark: the offset that the next record of the partition will get.
    end: Option<i64>,
}

impl Lag {
    pub fn new(metrics: Metrics) -> Lag {
        Lag { metrics, partitions: BTreeMap::new() }
    }

    pub fn assigned(&mut self, claims: &[Claim]) {
        for claim in claims {
            let committed = claim.next_offset.map_or(0, |NextOffset(next)| next);
            self.partitions.insert(claim.partition, Position { committed, ..Position::default() });
        }
        self.metrics.own_partitions(&claims.iter().map(|claim| claim.partition).collect::<Vec<_>>());
    }

    pub fn released(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
        self.metrics.release_partitions(partitions);
    }

    /// Records when a committed record was produced.
    pub fn produced(&mut self, partition: i32, at: OffsetDateTime) {
        if let Some(position) = self.partitions.get_mut(&partition) {
            position.produced_at = Some(at);
        }
    }

    pub fn committed(&mut self, ends: &[(i32, NextOffset)]) {
        for &(partition, NextOffset(next)) in ends {
            if let Some(position) = self.partitions.get_mut(&partition) {
                position.committed = next;
                position.end = position.end.map(|end| end.max(next));
            }
            self.report(partition);
        }
    }

    pub fn reaches(&mut self, ends: &[(i32, i64)]) {
        for &(partition, end) in ends {
            if let Some(position) = self.partitions.get_mut(&partition) {
                position.end = Some(end);
            }
            self.report(partition);
        }
    }

    fn report(&self, partition: i32) {
        let Some(Position { committed, produced_at, end: Some(end) }) = self.partitions.get(&partition) else { return };
        let records = u64::try_from(end - committed).unwrap_or(0);
        self.metrics.set_lag(partition, records, *produced_at);
    }
}
