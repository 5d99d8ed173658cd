//! How far a worker is behind: what it says of the partitions that it reads.

use std::time::Duration;

use shrinkd::telemetry::Telemetry;
use shrinkd::telemetry::metrics::Metrics;
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
    position.released(&[3]);
    position.end_offsets(&[(3, 300)]);
    assert_eq!(lag(&metrics, 3), None);
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
