//! Members of a group that come and go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shrinkd::stream::{Claim, Epoch, NextOffset};
use shrinkd::telemetry::Telemetry;
use shrinkd::worker::source::kafka::{KafkaSource, spawn};
use shrinkd::worker::source::{Batch, SourceEvent};
use tokio::sync::mpsc::channel;
use tokio_util::sync::CancellationToken;

use super::TIMEOUT;
use super::broker::Broker;

/// What a store keeps of each partition: its epoch, and where it goes on.
#[derive(Default)]
struct Store {
    partitions: BTreeMap<i32, (i64, i64)>,
    /// What should not have happened.
    faults: Vec<String>,
}

impl Store {
    fn claim(&mut self, partitions: &[i32]) -> Vec<Claim> {
        let claim = |&partition: &i32| {
            let (epoch, next) = self.partitions.entry(partition).or_default();
            *epoch += 1;
            let next_offset = (*next > 0).then_some(NextOffset(*next));
            Claim { partition, partition_id: 0, epoch: Epoch(*epoch), next_offset, is_halted: false }
        };
        partitions.iter().map(claim).collect()
    }

    fn commit(&mut self, batch: &Batch, epochs: &BTreeMap<i32, Epoch>) {
        for record in &batch.records {
            let (epoch, next) = self.partitions.entry(record.partition).or_default();
            let mine = epochs.get(&record.partition).map(|Epoch(epoch)| *epoch);
            if (mine, record.offset) != (Some(*epoch), *next) {
                let fault = format!("{} of partition {}, epoch {mine:?}", record.offset, record.partition);
                self.faults.push(format!("{fault}: the store is at {next}, epoch {epoch}"));
                continue;
            }
            *next += 1;
        }
    }

    fn committed(&self) -> i64 {
        self.partitions.values().map(|(_, next)| next).sum()
    }
}

/// A member whose worker commits what comes and answers when it is drained, until the source ends.
fn work(config: KafkaSource, store: &Arc<Mutex<Store>>) -> (CancellationToken, JoinHandle<()>) {
    let (sender, mut events) = channel(4);
    let stop = CancellationToken::new();
    let (claimed, store) = (Arc::clone(store), Arc::clone(store));
    let claim = move |_: &_, partitions: &[i32]| Ok(claimed.lock().expect("no panic").claim(partitions));
    let (thread, _) = spawn(config, claim, sender, Telemetry::default(), stop.clone()).expect("a source");
    let worker = std::thread::spawn(move || {
        let mut epochs = BTreeMap::new();
        while let Some(event) = events.blocking_recv() {
            match event {
                SourceEvent::Assigned(claims) => epochs.extend(claims.iter().map(|it| (it.partition, it.epoch))),
                SourceEvent::Batch(batch) => {
                    std::thread::sleep(Duration::from_millis(20));
                    store.lock().expect("no panic").commit(&batch, &epochs);
                }
                SourceEvent::Revoked { partitions, drained } => {
                    epochs.retain(|partition, _| !partitions.contains(partition));
                    let _ = drained.send(());
                }
                SourceEvent::Ended => break,
                SourceEvent::OutOfRange { detail, .. } => store.lock().expect("no panic").faults.push(detail),
                SourceEvent::Failed(error) => store.lock().expect("no panic").faults.push(error.to_string()),
            }
        }
        thread.join().expect("the source ends without a panic");
    });
    (stop, worker)
}

fn come_and_go(source: impl Fn(&Broker) -> KafkaSource, stay: Duration) {
    const PARTITIONS: i32 = 6;
    const ROUNDS: usize = 6;
    const EACH: usize = 100;
    let broker = Broker::new(PARTITIONS);
    let store = Arc::new(Mutex::new(Store::default()));
    let mut members = vec![work(source(&broker), &store)];
    for round in 0..ROUNDS {
        (0..PARTITIONS).for_each(|partition| broker.send_events(partition, round * EACH..(round + 1) * EACH));
        if round % 3 == 2 {
            let (stop, worker) = members.remove(0);
            stop.cancel();
            worker.join().expect("the worker ends without a panic");
        } else {
            members.push(work(source(&broker), &store));
        }
        std::thread::sleep(stay);
    }
    let total = i64::from(PARTITIONS) * (ROUNDS * EACH) as i64;
    let deadline = Instant::now() + TIMEOUT;
    while store.lock().expect("no panic").committed() < total && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    for (stop, worker) in members {
        stop.cancel();
        worker.join().expect("the worker ends without a panic");
    }
    let store = store.lock().expect("no panic");
    assert_eq!(store.faults, Vec::<String>::new());
    assert_eq!(store.committed(), total);
    let epochs: i64 = store.partitions.values().map(|(epoch, _)| epoch).sum();
    assert!(epochs > i64::from(PARTITIONS), "no partition ever moved");
}

#[test]
fn members_that_come_and_go_lose_nothing_and_read_nothing_twice() {
    come_and_go(Broker::source, Duration::from_secs(3));
}

#[test]
fn the_same_holds_under_the_newer_protocol() {
    come_and_go(Broker::quick_source, Duration::from_secs(1));
}
