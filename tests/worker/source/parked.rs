//! Partitions that are assigned to a member and that it does not read for a while.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shrinkd::stream::{Claim, Topic};
use shrinkd::telemetry::Telemetry;
use shrinkd::worker::source::kafka::{KafkaSource, spawn};
use shrinkd::worker::source::{Record, SourceError, SourceEvent};
use tokio::sync::mpsc::channel;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, Member, Progress};
use super::{claims, next_event};

fn offsets(records: &[Record], partition: i32) -> Vec<i64> {
    records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect()
}

fn moved(progress: &Progress, partition: i32, next: i64) {
    progress.lock().expect("no panic").insert(partition, next);
}

#[test]
fn a_partition_that_was_taken_over_is_claimed_again_and_read_from_where_the_store_says() {
    taken_over(Broker::quick_source);
}

#[test]
fn so_it_is_where_the_group_gives_whole_assignments() {
    taken_over(|broker| {
        let range = ("partition.assignment.strategy", "range");
        broker.source_with(&[range, ("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")])
    });
}

fn taken_over(source: impl Fn(&Broker) -> KafkaSource) {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..20));
    let progress = Progress::default();
    let mut member = Member::join(source(&broker), 64, &progress);
    member.read(40);
    // Another worker has had it and given it back, without this one hearing of it from the group.
    moved(&progress, 0, 15);
    moved(&progress, 1, 20);
    member.commands.park(&[0]);
    let records = member.read(5);
    assert_eq!(offsets(&records, 0), (15..20).collect::<Vec<_>>());
    (0..2).for_each(|partition| broker.send_events(partition, 20..30));
    let records = member.read(20);
    (0..2).for_each(|partition| assert_eq!(offsets(&records, partition), (20..30).collect::<Vec<_>>()));
    assert!(member.leave().is_empty(), "nothing comes twice");
}

#[test]
fn an_offset_that_the_broker_does_not_have_parks_its_partition_and_no_other() {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..5));
    let progress = Progress::default();
    moved(&progress, 0, 1_000);
    let mut member = Member::join(broker.quick_source(), 64, &progress);
    let (mut read, mut found) = (Vec::new(), None);
    while read.len() < 5 || found.is_none() {
        match next_event(&mut member.events) {
            SourceEvent::Assigned(_) => {}
            SourceEvent::Batch(batch) => read.extend(batch.records),
            SourceEvent::OutOfRange { partition, detail } => found = Some((partition, detail)),
            other => panic!("unexpected {other:?}"),
        }
    }
    let (partition, detail) = found.expect("it was said");
    assert_eq!(partition, 0);
    for part in ["partition 0", "offset 1000", "0 to 5", "shrinkd partitions skip"] {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(offsets(&read, 1), (0..5).collect::<Vec<_>>());
    // What an operator does about it.
    moved(&progress, 0, 3);
    let records = member.read(2);
    assert_eq!(offsets(&records, 0), [3, 4]);
    broker.send_events(0, 5..9);
    assert_eq!(offsets(&member.read(4), 0), [5, 6, 7, 8]);
    member.leave();
}

/// Each of them reports an error that does not name it, and the first one parks all of them.
#[test]
fn several_partitions_may_be_out_of_range_at_once() {
    let broker = Broker::new(4);
    (0..4).for_each(|partition| broker.send_events(partition, 0..5));
    let progress = Progress::default();
    (0..3).for_each(|partition| moved(&progress, partition, 1_000));
    let mut member = Member::join(broker.quick_source(), 64, &progress);
    let (mut read, mut found) = (Vec::new(), BTreeSet::new());
    while read.len() < 5 || found.len() < 3 {
        match next_event(&mut member.events) {
            SourceEvent::Batch(batch) => read.extend(batch.records),
            SourceEvent::OutOfRange { partition, .. } => {
                assert!(found.insert(partition), "{partition} is reported once")
            }
            SourceEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    // Time for the errors of the others to come.
    std::thread::sleep(Duration::from_secs(1));
    (0..3).for_each(|partition| moved(&progress, partition, 4));
    broker.send_events(3, 5..9);
    let records = member.read(7);
    assert_eq!(offsets(&records, 3), [5, 6, 7, 8]);
    (0..3).for_each(|partition| assert_eq!(offsets(&records, partition), [4]));
    member.leave();
}

/// librdkafka keeps a partition paused when it is revoked, even if its member goes on with the others.
#[test]
fn a_partition_that_was_revoked_while_all_were_paused_is_read_when_it_comes_back() {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..100));
    let config = KafkaSource { drain_budget: Duration::ZERO, ..broker.quick_source() };
    let mut member = Member::join(config, 1, &Progress::default());
    assert!(matches!(next_event(&mut member.events), SourceEvent::Assigned(claims) if claims.len() == 2));
    // Its channel is full from here on: it answers its group only once it has paused its partitions.
    let mut other = Member::join(broker.quick_source(), 64, &Progress::default());
    let taken = loop {
        if let SourceEvent::Assigned(claims) = next_event(&mut other.events) {
            break claims[0].partition;
        }
    };
    let owned: Vec<i32> = member.telemetry.metrics.partitions().into_iter().map(|(partition, _)| partition).collect();
    assert_eq!(owned, [1 - taken], "it reports no partition that another member has");
    // The first member goes on with what it has kept.
    let (mut kept, mut is_revoked) = (BTreeSet::new(), false);
    while kept.len() < 100 || !is_revoked {
        match next_event(&mut member.events) {
            SourceEvent::Batch(batch) => kept.extend(offsets(&batch.records, 1 - taken)),
            SourceEvent::Revoked { .. } => is_revoked = true,
            other => panic!("unexpected {other:?}"),
        }
    }
    other.leave();
    assert_eq!(offsets(&member.read(100), taken), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_halted_partition_is_owned_and_not_read_until_its_claim_says_otherwise() {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..10));
    let halted = Arc::new(Mutex::new(BTreeSet::from([1])));
    let seen = Arc::clone(&halted);
    let claim = move |_: &Topic, partitions: &[i32]| {
        let halted = seen.lock().expect("no panic");
        let claim = |claim: Claim| Claim { is_halted: halted.contains(&claim.partition), ..claim };
        Ok(claims(partitions, None).into_iter().map(claim).collect())
    };
    let (sender, mut events) = channel(64);
    let stop = CancellationToken::new();
    let (thread, _) =
        spawn(broker.quick_source(), claim, sender, Telemetry::default(), stop.clone()).expect("a source");
    let (mut owned, mut read) = (BTreeSet::new(), Vec::new());
    while owned.len() < 2 || read.len() < 10 {
        match next_event(&mut events) {
            SourceEvent::Assigned(claims) => owned.extend(claims.iter().map(|claim| claim.partition)),
            SourceEvent::Batch(batch) => read.extend(batch.records),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(offsets(&read, 0).len(), 10, "the other partition is read");
    // Long enough for it to be claimed again in vain.
    std::thread::sleep(Duration::from_secs(7));
    assert!(events.try_recv().is_err(), "nothing is said of it");
    halted.lock().expect("no panic").clear();
    let mut read = Vec::new();
    while read.len() < 10 {
        match next_event(&mut events) {
            SourceEvent::Assigned(claims) => assert!(claims.iter().all(|claim| !claim.is_halted)),
            SourceEvent::Batch(batch) => read.extend(batch.records),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(offsets(&read, 1), (0..10).collect::<Vec<_>>());
    stop.cancel();
    while let Some(event) = events.blocking_recv() {
        if let SourceEvent::Revoked { drained, .. } = event {
            drained.send(()).expect("somebody waits");
        }
    }
    thread.join().expect("the thread ends without a panic");
}

#[test]
fn partitions_that_cannot_be_claimed_for_now_are_read_once_they_can() {
    let broker = Broker::new(2);
    (0..2).for_each(|partition| broker.send_events(partition, 0..10));
    let attempts = AtomicU32::new(0);
    let claim = move |_: &Topic, partitions: &[i32]| match attempts.fetch_add(1, Ordering::Relaxed) {
        0 => Err(SourceError::Unavailable("the store is starting".to_owned())),
        _ => Ok(claims(partitions, Some(3))),
    };
    let (sender, mut events) = channel(64);
    let (telemetry, stop) = (Telemetry::default(), CancellationToken::new());
    let (thread, _) = spawn(broker.quick_source(), claim, sender, telemetry.clone(), stop.clone()).expect("a source");
    let mut read = Vec::new();
    while read.len() < 14 {
        match next_event(&mut events) {
            SourceEvent::Assigned(_) => {
                let reason = telemetry.health.readiness().expect_err("the worker has claimed nothing by itself");
                assert!(reason.contains("claim: the store is starting"), "{reason}");
            }
            SourceEvent::Batch(batch) => read.extend(batch.records),
            other => panic!("unexpected {other:?}"),
        }
    }
    (0..2).for_each(|partition| assert_eq!(offsets(&read, partition), (3..10).collect::<Vec<_>>()));
    stop.cancel();
    while let Some(event) = events.blocking_recv() {
        if let SourceEvent::Revoked { drained, .. } = event {
            drained.send(()).expect("somebody waits");
        }
    }
    thread.join().expect("the thread ends without a panic");
}
