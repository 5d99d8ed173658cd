//! How far a worker is behind: what it says of the partitions that it reads.

use std::time::Duration;

use shrinkd::stream::NextOffset;
use shrinkd::telemetry::Telemetry;
use shrinkd::telemetry::metrics::Metrics;
use shrinkd::worker::catch_up::Backlog;
use shrinkd::worker::source::{Batch, Record};
use shrinkd_core::decode;
use time::OffsetDateTime;

/// The lag of a partition, as an operator sees it.
fn lag(metrics: &Metrics, partition: i32) -> Option<u64> {
    metrics.partitions().into_iter().find(|(it, _)| *it == partition).map(|(_, lag)| lag.records)
}

#[test]
fn the_lag_grows_while_nothing_is_committed_and_counts_no_control_records() {
    let Telemetry { metrics, lag: position, .. } = Telemetry::default();
    position.assigned(&[(3, Some(100)), (4, None)]);
    position.end_offsets(&[(3, 110), (4, 7)]);
    assert_eq!((lag(&metrics, 3), lag(&metrics, 4)), (Some(10), Some(7)));
    // The store is down: records are read, and wait.
    for next in 101..=109 {
        position.read(3, next, None);
    }
    position.end_offsets(&[(3, 210)]);
    assert_eq!(lag(&metrics, 3), Some(110));
    position.committed(&[(3, 109)]);
    assert_eq!(lag(&metrics, 3), Some(101));
    // Everything was read, and committed: what is left of the offsets are markers.
    position.read(3, 209, None);
    position.readable_ends(&[(3, 210)]);
    position.at_end(3, true);
    assert_eq!(lag(&metrics, 3), Some(101), "not committed yet");
    position.committed(&[(3, 209)]);
    assert_eq!(lag(&metrics, 3), Some(0));
    position.end_offsets(&[(3, 212)]);
    assert_eq!(lag(&metrics, 3), Some(2), "there is more, which an open transaction holds back");
    // What was committed may be ahead of what the brokers said last.
    position.committed(&[(3, 220)]);
    assert_eq!(lag(&metrics, 3), Some(0));
    position.released(&[3]);
    assert_eq!(position.partitions(), [4], "the brokers are not asked for its end any more");
    position.end_offsets(&[(3, 300)]);
    assert_eq!(lag(&metrics, 3), None);
}

#[test]
fn behind_a_batch_is_what_follows_it_in_the_partitions_that_are_read_once_all_of_their_ends_are_known() {
    let Telemetry { lag: position, .. } = Telemetry::default();
    position.assigned(&[(0, Some(100)), (1, Some(10)), (2, None), (9, None)]);
    position.end_offsets(&[(0, 150), (1, 60)]);
    assert_eq!(position.behind(&[0, 1, 2], &[(0, 120)]), None, "where one ends is not known");
    position.end_offsets(&[(2, 7), (9, 1_000_000)]);
    let ago = OffsetDateTime::now_utc() - Duration::from_secs(40);
    position.read(0, 101, Some(ago + Duration::from_secs(20)));
    position.read(1, 11, Some(ago));
    position.read(9, 1, Some(ago - Duration::from_secs(1_000)));
    let (behind, age) = position.behind(&[0, 1, 2], &[(0, 120)]).expect("all are known");
    assert_eq!(Vec::from_iter(behind), [(0, 30), (1, 50), (2, 7)], "the last is halted, and is not read");
    assert!((39.0..50.0).contains(&age), "{age}");
    // What is left of the offsets of one are markers; another has more committed than the brokers said last.
    position.readable_ends(&[(2, 7)]);
    position.at_end(2, true);
    let (behind, _) = position.behind(&[1, 2], &[(1, 70)]).expect("all are known");
    assert_eq!(Vec::from_iter(behind), [(1, 0), (2, 0)]);
}

#[test]
fn records_are_counted_as_dense_as_those_of_the_batch_in_each_partition() {
    let Telemetry { lag, .. } = Telemetry::default();
    lag.assigned(&[(0, None), (1, None), (2, None)]);
    lag.end_offsets(&[(0, 1_000_000), (1, 3_000), (2, 500)]);
    let record = |partition, offset| Record {
        partition,
        offset,
        produced_at: None,
        key: None,
        payload: None,
        payload_bytes: 0,
        message: decode(b"{}"),
    };
    // Lines of a file, or what compaction has left.
    let records = vec![record(0, 0), record(0, 300), record(1, 0), record(1, 1), record(1, 2)];
    let batch = Batch { records, ends: vec![(0, NextOffset(1_000)), (1, NextOffset(3))] };
    let backlog = Backlog::after(&batch, &[0, 1, 2], &lag).expect("all ends are known");
    assert_eq!(backlog.records, 999_000 / 500 + 2_997 + 500);
    assert_eq!(Backlog::after(&Batch { records: vec![], ends: vec![] }, &[], &lag).map(|it| it.records), Some(0));
}

#[test]
fn the_lag_in_seconds_is_the_age_of_the_oldest_record_that_waits() {
    let Telemetry { metrics, lag: position, .. } = Telemetry::default();
    let seconds = || metrics.partitions()[0].1.seconds();
    let ago = |seconds| Some(OffsetDateTime::now_utc() - Duration::from_secs(seconds));
    position.assigned(&[(0, Some(0))]);
    position.read(0, 1, ago(500));
    position.read(0, 2, ago(50));
    position.end_offsets(&[(0, 2)]);
    assert!((499.0..510.0).contains(&seconds()), "{}", seconds());
    position.committed(&[(0, 1)]);
    assert!((49.0..60.0).contains(&seconds()), "{}", seconds());
    position.committed(&[(0, 2)]);
    assert_eq!(seconds(), 0.0);
    // A record after days of silence is as old as itself, not as the silence.
    position.end_offsets(&[(0, 3)]);
    position.read(0, 3, ago(0));
    position.end_offsets(&[(0, 3)]);
    assert!(seconds() < 10.0, "{}", seconds());
}
