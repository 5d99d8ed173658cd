//! Whether a batch is so far behind the end of its input that the estimates of what it changes are left to a pass: most of them
//! would be written again before anybody reads them.

use std::time::Duration;

use super::source::Batch;
use crate::config::CatchUpConfig;
use crate::telemetry::lag::Lag;

/// Catching up ends below this share of the backlog at which it begins, so that it does not begin again at once.
const OFF: u64 = 10;

/// The input after a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// How many records follow it.
    pub records: u64,
    /// The age of its oldest record.
    pub age: Duration,
}

impl Backlog {
    /// What follows a batch in partitions that are read, `None` while that is not known. The brokers count offsets: of a partition as many
    /// to a record as in the batch itself, because a compacted topic has gaps, and the offsets of a file are bytes.
    pub fn after(batch: &Batch, partitions: &[i32], lag: &Lag) -> Option<Backlog> {
        let ends: Vec<(i32, i64)> = batch.ends.iter().map(|&(partition, next)| (partition, next.0)).collect();
        let (behind, seconds) = lag.behind(partitions, &ends)?;
        let records = behind.into_iter().map(|(partition, behind)| {
            let of_partition = || batch.records.iter().filter(|record| record.partition == partition);
            let first = of_partition().next().map(|record| record.offset);
            let end = ends.iter().find(|(of, _)| *of == partition).map(|(_, end)| *end);
            let offsets = first.zip(end).map_or(0, |(first, end)| end - first);
            let of_one = offsets as f64 / of_partition().count().max(1) as f64;
            (behind as f64 / of_one.max(1.0)) as u64
        });
        let age = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Some(Backlog { records: records.sum(), age })
    }
}

/// Whether a worker is catching up.
#[derive(Debug, Clone)]
pub struct CatchUp {
    config: CatchUpConfig,
    is_on: bool,
}

impl CatchUp {
    /// A worker that is not, yet.
    pub fn new(config: CatchUpConfig) -> CatchUp {
        CatchUp { config, is_on: false }
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Nothing is read any more.
    pub fn end(&mut self) {
        self.is_on = false;
    }

    /// Whether the estimates of a batch that has this backlog behind it are left to a pass. While it is not known, nothing changes.
    ///
    /// It begins at so many records; or at so great an age where they are at least a tenth of that, because a producer may give its
    /// records whatever time it likes. It ends below that tenth.
    pub fn judge(&mut self, backlog: Option<Backlog>) -> bool {
        let CatchUpConfig { records, age } = self.config;
        let Some(backlog) = backlog else { return self.is_on };
        let is_small = backlog.records < records.get().div_ceil(OFF);
        self.is_on = !is_small && (self.is_on || backlog.records >= records.get() || backlog.age >= age);
        self.is_on
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn catch_up() -> CatchUp {
        CatchUp::new(CatchUpConfig { records: NonZeroU64::new(1_000).unwrap(), age: Duration::from_secs(30) })
    }

    fn judged(catch_up: &mut CatchUp, backlog: &[(u64, u64)]) -> Vec<bool> {
        let judge = |&(records, age)| catch_up.judge(Some(Backlog { records, age: Duration::from_secs(age) }));
        backlog.iter().map(judge).collect()
    }

    #[test]
    fn it_begins_at_the_limit_and_ends_below_a_tenth_of_it() {
        let judged = judged(&mut catch_up(), &[(999, 0), (1_000, 0), (999, 0), (100, 0), (99, 0), (100, 0), (999, 0)]);
        assert_eq!(judged, [false, true, true, true, false, false, false]);
    }

    #[test]
    fn it_begins_at_the_age_unless_hardly_anything_waits() {
        let judged = judged(&mut catch_up(), &[(99, 1_000), (100, 29), (100, 30), (100, 0), (99, 1_000)]);
        assert_eq!(judged, [false, false, true, true, false]);
    }
}
