//! What sources promise: records in order with their own offsets, partitions claimed and drained, nothing lost.

mod broker;
mod file;
mod kafka;
mod members;
mod parked;
mod simulate;

use std::time::{Duration, Instant};

use shrinkd::stream::{Claim, Epoch, NextOffset};
use shrinkd::worker::source::{Batch, BatchLimits, SourceEvent};
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

/// How long a test waits for what must come.
const TIMEOUT: Duration = Duration::from_secs(30);

const SMALL: BatchLimits = BatchLimits { records: 10, bytes: 1 << 20, age: Duration::from_millis(50) };

fn event(experiment_id: &str) -> String {
    format!(
        r#"{{"schema_version":1,"experiment_id":"{experiment_id}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[]}}"#
    )
}

/// Claims partitions, all of which go on at `next`.
fn claims(partitions: &[i32], next: Option<i64>) -> Vec<Claim> {
    let claim = |&partition: &i32| Claim {
        partition,
        partition_id: i64::from(partition),
        epoch: Epoch(1),
        next_offset: next.map(NextOffset),
        is_halted: false,
    };
    partitions.iter().map(claim).collect()
}

/// The next event, assignments of nothing passed over.
fn next_event(events: &mut Receiver<SourceEvent>) -> SourceEvent {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match events.try_recv() {
            // An assignment of nothing, which every rebalance can bring.
            Ok(SourceEvent::Assigned(claims)) if claims.is_empty() => {}
            Ok(event) => return event,
            Err(TryRecvError::Empty) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("nothing more came: {error}"),
        }
    }
}

fn next_batch(events: &mut Receiver<SourceEvent>) -> Batch {
    match next_event(events) {
        SourceEvent::Batch(batch) => batch,
        other => panic!("expected a batch, got {other:?}"),
    }
}

/// Every record up to the end of the source.
fn all_batches(events: &mut Receiver<SourceEvent>) -> Vec<Batch> {
    let mut batches = Vec::new();
    loop {
        match next_event(events) {
            SourceEvent::Batch(batch) => batches.push(batch),
            SourceEvent::Ended => return batches,
            SourceEvent::Assigned(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}
