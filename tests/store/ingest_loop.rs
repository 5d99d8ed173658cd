//! The ingest loop: what it commits, what it passes over, when it halts a partition or ends, and what it reports of itself.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use shrinkd::config::{CatchUpConfig, DeadLettersConfig};
use shrinkd::store::{Store, StoreError};
use shrinkd::stream::{Claim, NextOffset};
use shrinkd::telemetry::Telemetry;
use shrinkd::telemetry::health::{BEAT_LIMIT, Health, Loop};
use shrinkd::worker::WorkerError;
use shrinkd::worker::ingest::{IngestLimits, IngestLoop};
use shrinkd::worker::retry::Retry;
use shrinkd::worker::source::kafka::Commands;
use shrinkd::worker::source::{Batch, Record, SourceEvent};
use shrinkd_core::Grouping;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::loops::{fails, until};
use super::{Worker, event, promises, record, topic};
use crate::common::database::{Database, PostgresDatabase};

promises! {
    records_before_the_offset_of_their_claim_are_passed_over_and_count_for_nothing,
    dead_letters_count_over_batches_until_their_partition_halts,
    a_new_claim_begins_with_the_whole_budget_of_dead_letters,
    a_partition_that_another_worker_owns_cannot_be_halted_and_ends_nothing,
    a_partition_that_comes_halted_is_shown_as_halted_and_not_committed,
    a_batch_loses_the_partitions_that_another_worker_owns_and_no_others,
    a_batch_whose_earlier_attempt_was_committed_after_all_is_not_fenced,
    a_revoked_partition_is_drained_and_not_committed_any_more,
    a_loop_without_a_group_ends_once_its_partition_is_fenced_or_halts,
    a_loop_that_is_far_behind_leaves_estimates_to_a_pass_until_it_has_caught_up,
    what_is_committed_is_counted_and_a_loop_that_has_ended_owes_no_heartbeat,
}

/// How long a test waits for what must come.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A partition halts after so many dead letters in a row.
const MOST: usize = 3;
/// With so many records behind a batch its estimates follow later.
const FAR: u64 = 100;
const DEAD: &str = "neither JSON nor an event";

/// An ingest loop that is running.
struct Running {
    events: mpsc::Sender<SourceEvent>,
    telemetry: Telemetry,
    stop: CancellationToken,
    commands: Commands,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    /// A loop that reads from a group.
    fn start(store: &Store) -> Running {
        let commands = Commands::default();
        Running::start_with(store, Some(commands.clone()), commands)
    }

    /// A loop that reads from a file, which cannot claim a partition again.
    fn start_without_group(store: &Store) -> Running {
        Running::start_with(store, None, Commands::default())
    }

    fn start_with(store: &Store, given: Option<Commands>, commands: Commands) -> Running {
        let whole = |n| NonZeroUsize::new(n).expect("above 0");
        let limits = IngestLimits {
            max_populations: u64::MAX,
            dead_letters: DeadLettersConfig { in_a_row: whole(MOST), share: 1.0, window: whole(1_000) },
            catch_up: CatchUpConfig { records: NonZeroU64::new(FAR).expect("above 0"), ..CatchUpConfig::default() },
        };
        let (telemetry, stop) = (Telemetry::default(), CancellationToken::new());
        let retry = Retry::new(telemetry.clone(), stop.clone(), Duration::ZERO);
        let ingest = IngestLoop::new(store.clone(), Grouping::default(), limits, given, telemetry.clone(), retry);
        let (events, receiver) = mpsc::channel(64);
        Running { events, telemetry, stop, commands, ended: tokio::spawn(ingest.run(receiver)) }
    }

    async fn send(&self, event: SourceEvent) {
        self.events.send(event).await.expect("the loop goes on");
    }

    /// Assigns partitions, as their source does.
    async fn assign(&self, claims: Vec<Claim>) {
        let offsets: Vec<(i32, Option<i64>)> =
            claims.iter().map(|claim| (claim.partition, claim.next_offset.map(|next| next.0))).collect();
        self.telemetry.lag.assigned(&offsets);
        self.send(SourceEvent::Assigned(claims)).await;
    }

    /// Sends a batch, and waits until the loop is done with it.
    async fn batch(&self, records: Vec<Record>) {
        let mut ends: Vec<(i32, NextOffset)> = Vec::new();
        for record in &records {
            ends.retain(|(partition, _)| *partition != record.partition);
            ends.push((record.partition, NextOffset(record.offset + 1)));
        }
        self.send(SourceEvent::Batch(Batch { records, ends })).await;
        self.revoke(&[]).await;
    }

    /// Revokes partitions, and waits until they are drained.
    async fn revoke(&self, partitions: &[i32]) {
        let (drained, answer) = oneshot::channel();
        self.send(SourceEvent::Revoked { partitions: partitions.to_vec(), drained }).await;
        tokio::time::timeout(TIMEOUT, answer).await.expect("it answers").expect("the loop goes on");
    }

    /// Ends the source, and returns how the loop ends.
    async fn end(self) -> Result<(), WorkerError> {
        self.send(SourceEvent::Ended).await;
        self.ended().await
    }

    async fn ended(self) -> Result<(), WorkerError> {
        tokio::time::timeout(TIMEOUT, self.ended).await.expect("it ends").expect("no panic")
    }

    /// Whether a partition is shown as halted.
    fn is_halted(&self, partition: i32) -> bool {
        let shown = self.telemetry.metrics.partitions().into_iter().find(|(shown, _)| *shown == partition);
        shown.expect("an own partition").1.is_halted
    }

    fn assert_shows(&self, series: &str) {
        let shown = self.telemetry.metrics.render(&self.telemetry.health);
        assert!(shown.lines().any(|line| line == series), "{series}: {shown}");
    }
}

async fn claim(store: &Store, partitions: &[i32]) -> Vec<Claim> {
    store.claim(&topic(), partitions, "worker").await.expect("the claim is granted")
}

fn dead(offset: i64) -> Record {
    record(0, offset, DEAD)
}

fn good(partition: i32, offset: i64) -> Record {
    record(partition, offset, &event(&format!("exp-{partition}-{offset}"), 1, "m", &[1.0]))
}

async fn experiments(database: &impl Database) -> Vec<String> {
    let ids = "select experiment_id from experiments order by experiment_id";
    database.texts(ids).await.into_iter().flatten().collect()
}

/// Where partitions continue, and which are halted.
async fn progress(store: &Store) -> Vec<(i32, Option<i64>, bool)> {
    let partitions = store.partitions().await.expect("the partitions").into_iter();
    partitions.map(|it| (it.partition, it.next_offset.map(|next| next.0), it.halted.is_some())).collect()
}

async fn rejected(database: &impl Database) -> i64 {
    database.count("select cast(count(*) as text) from rejected_events").await
}

async fn a_loop_that_is_far_behind_leaves_estimates_to_a_pass_until_it_has_caught_up<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0, 1]).await).await;
    let estimates = async || {
        let ids = "select experiment_id from effect_estimates order by experiment_id";
        database.texts(ids).await.into_iter().flatten().collect::<Vec<_>>()
    };
    running.batch(vec![good(0, 0)]).await;
    assert_eq!(estimates().await, ["exp-0-0"], "it is not known where the partitions end");
    running.telemetry.lag.end_offsets(&[(0, 3), (1, 100)]);
    running.batch(vec![good(0, 1)]).await;
    assert_eq!(estimates().await, ["exp-0-0"], "101 records follow");
    running.assert_shows("shrinkd_catching_up 1");
    running.batch(vec![good(1, 89)]).await;
    assert_eq!(estimates().await, ["exp-0-0"], "11 are a tenth");
    running.batch(vec![good(1, 91)]).await;
    assert_eq!(estimates().await, ["exp-0-0", "exp-1-91"], "it has caught up");
    running.assert_shows("shrinkd_catching_up 0");
    running.telemetry.lag.end_offsets(&[(0, 300)]);
    running.batch(vec![good(0, 2)]).await;
    running.assert_shows("shrinkd_catching_up 1");
    running.revoke(&[0, 1]).await;
    running.assert_shows("shrinkd_catching_up 0");
    running.end().await.expect("it ends well");
}

/// They are read again when a source starts at an earlier offset than the store's, such as that of a transaction's beginning.
async fn records_before_the_offset_of_their_claim_are_passed_over_and_count_for_nothing<D: Database>(database: &D) {
    let store = database.store().await;
    Worker::claim(&store, &[0]).await.ingest(vec![good(0, 4)]).await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0]).await).await;
    running.batch((0..5).map(dead).chain([good(0, 5)]).collect()).await;
    assert_eq!(progress(&store).await, [(0, Some(6), false)]);
    assert_eq!((rejected(database).await, running.telemetry.metrics.counts().messages), (0, 1));
    assert_eq!(experiments(database).await, ["exp-0-4", "exp-0-5"]);
    running.batch((0..5).map(dead).collect()).await;
    assert_eq!((progress(&store).await, rejected(database).await), (vec![(0, Some(6), false)], 0));
    running.end().await.expect("it ends well");
}

async fn dead_letters_count_over_batches_until_their_partition_halts<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0, 1]).await).await;
    running.batch(vec![dead(0), dead(1)]).await;
    assert!(!running.is_halted(0));
    running.batch(vec![dead(2), good(0, 3), good(1, 0)]).await;
    assert_eq!(progress(&store).await, [(0, Some(3), true), (1, Some(1), false)]);
    assert!(running.is_halted(0) && !running.is_halted(1));
    running.assert_shows("shrinkd_partition_halted{partition=\"0\"} 1");
    let commands = format!("{:?}", running.commands);
    assert!(commands.contains("parked: [0]"), "the source reads on: {commands}");
    running.batch(vec![good(0, 3), good(1, 1)]).await;
    assert_eq!(experiments(database).await, ["exp-1-0", "exp-1-1"], "what was read of it already is dropped");
    assert_eq!(rejected(database).await, 3);
    running.end().await.expect("it ends well");
}

async fn a_new_claim_begins_with_the_whole_budget_of_dead_letters<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    for offset in [0, 2, 4] {
        running.assign(claim(&store, &[0]).await).await;
        running.batch(vec![dead(offset), dead(offset + 1)]).await;
        assert_eq!(progress(&store).await, [(0, Some(offset + 2), false)]);
    }
    running.batch(vec![dead(6)]).await;
    assert_eq!(progress(&store).await, [(0, Some(7), true)], "one more than is allowed of one claim");
    running.end().await.expect("it ends well");
}

async fn a_partition_that_another_worker_owns_cannot_be_halted_and_ends_nothing<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0, 1]).await).await;
    claim(&store, &[0]).await;
    running.send(SourceEvent::OutOfRange { partition: 0, detail: "it expired".to_owned() }).await;
    running.batch(vec![good(0, 0), good(1, 0)]).await;
    assert_eq!(progress(&store).await, [(0, None, false), (1, Some(1), false)]);
    assert_eq!(experiments(database).await, ["exp-1-0"]);
    running.send(SourceEvent::OutOfRange { partition: 1, detail: "it expired".to_owned() }).await;
    running.revoke(&[]).await;
    let halted = store.partitions().await.unwrap()[1].halted.clone().expect("an own partition is halted");
    assert_eq!((halted.1.as_str(), halted.2.as_str()), ("offset_out_of_range", "it expired"));
    running.end().await.expect("it ends well");
}

async fn a_partition_that_comes_halted_is_shown_as_halted_and_not_committed<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0]).await).await;
    running.batch((0..3).map(dead).collect()).await;
    running.revoke(&[0]).await;
    running.telemetry.lag.released(&[0]);

    let next = Running::start(&store);
    next.assign(claim(&store, &[0]).await).await;
    next.batch(vec![good(0, 3)]).await;
    assert!(next.is_halted(0));
    assert_eq!(experiments(database).await, [""; 0]);
    let halted = store.partitions().await.unwrap()[0].partition_id;
    assert!(store.resume(halted, "operator").await.unwrap());
    next.assign(claim(&store, &[0]).await).await;
    next.batch(vec![good(0, 3)]).await;
    assert!(!next.is_halted(0));
    assert_eq!(experiments(database).await, ["exp-0-3"]);
}

async fn a_batch_loses_the_partitions_that_another_worker_owns_and_no_others<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0, 1]).await).await;
    claim(&store, &[0]).await;
    for offset in 0..2 {
        running.batch(vec![good(0, offset), good(1, offset)]).await;
        running.assert_shows("shrinkd_fenced_total 1");
    }
    assert_eq!(experiments(database).await, ["exp-1-0", "exp-1-1"]);
    assert_eq!(progress(&store).await, [(0, None, false), (1, Some(2), false)]);
    let commands = format!("{:?}", running.commands);
    assert!(commands.contains("parked: [0]"), "the source claims it again: {commands}");
    running.end().await.expect("it ends well");
}

/// The response to an attempt can be lost while its commit is still on its way: the next attempt finds its own offsets.
async fn a_batch_whose_earlier_attempt_was_committed_after_all_is_not_fenced<D: Database>(database: &D) {
    let store = database.store().await;
    let mut earlier = Worker::claim(&store, &[0]).await;
    let running = Running::start(&store);
    running.assign(earlier.claims.values().copied().collect()).await;
    earlier.ingest(vec![good(0, 0)]).await;
    running.batch(vec![good(0, 0)]).await;
    running.batch(vec![good(0, 1)]).await;
    running.assert_shows("shrinkd_fenced_total 0");
    assert_eq!(experiments(database).await, ["exp-0-0", "exp-0-1"]);
    assert_eq!(progress(&store).await, [(0, Some(2), false)]);
    running.end().await.expect("it ends well");
}

async fn a_revoked_partition_is_drained_and_not_committed_any_more<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0, 1]).await).await;
    running.batch(vec![good(0, 0), good(1, 0)]).await;
    running.revoke(&[0]).await;
    assert_eq!(experiments(database).await, ["exp-0-0", "exp-1-0"], "it answers once everything is committed");
    running.batch(vec![good(0, 1), good(1, 1)]).await;
    assert_eq!(experiments(database).await, ["exp-0-0", "exp-1-0", "exp-1-1"]);
    running.end().await.expect("it ends well");
}

async fn a_loop_without_a_group_ends_once_its_partition_is_fenced_or_halts<D: Database>(database: &D) {
    let store = database.store().await;
    let fenced = Running::start_without_group(&store);
    fenced.assign(claim(&store, &[0]).await).await;
    claim(&store, &[0]).await;
    let ends = vec![(0, NextOffset(1))];
    fenced.send(SourceEvent::Batch(Batch { records: vec![good(0, 0)], ends })).await;
    let ended = fenced.ended().await;
    assert!(matches!(ended, Err(WorkerError::Store(StoreError::Fenced { .. }))), "{ended:?}");

    let halting = Running::start_without_group(&store);
    halting.assign(claim(&store, &[0]).await).await;
    let ends = vec![(0, NextOffset(3))];
    halting.send(SourceEvent::Batch(Batch { records: (0..3).map(dead).collect(), ends })).await;
    let ended = halting.ended().await;
    assert!(matches!(&ended, Err(WorkerError::Halted(why)) if why.contains("the last 3 messages")), "{ended:?}");
    assert_eq!(progress(&store).await, [(0, Some(3), true)]);
}

async fn what_is_committed_is_counted_and_a_loop_that_has_ended_owes_no_heartbeat<D: Database>(database: &D) {
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0]).await).await;
    running.telemetry.lag.end_offsets(&[(0, 10)]);
    running.batch(vec![good(0, 0), dead(1), good(0, 2)]).await;
    for series in [
        "shrinkd_records_total 3",
        "shrinkd_results_total{outcome=\"accepted\"} 2",
        "shrinkd_rejected_events_total{reason=\"malformed_json\"} 1",
        "shrinkd_rows_written_total{table=\"blocks\"} 2",
        "shrinkd_ingest_commit_seconds_count 1",
        "shrinkd_event_age_seconds_count 3",
        "shrinkd_batch_age_seconds 0",
        "shrinkd_lag_records{partition=\"0\"} 7",
    ] {
        running.assert_shows(series);
    }
    let commands = format!("{:?}", running.commands);
    assert!(commands.contains("NextOffset(3)"), "Kafka is told, for its dashboards: {commands}");
    let health = running.telemetry.health.clone();
    [Loop::Refit, Loop::Publish].into_iter().for_each(|which| health.finish(which));
    assert!(health.live(Instant::now() + 2 * BEAT_LIMIT).is_err_and(|why| why.contains("ingest")));
    running.end().await.expect("it ends well");
    assert_eq!(health.live(Instant::now() + 2 * BEAT_LIMIT), Ok(()));
}

/// Fails every batch with an error that passes, as a full disk does.
const FILL: &str = "create function fill() returns trigger language plpgsql as
    $$ begin raise exception 'the disk is full' using errcode = '53100'; end $$;
    create trigger fill before insert on experiments execute function fill()";

#[tokio::test]
async fn postgres_fails_and_the_loop_is_not_ready_counts_its_retries_and_goes_on_with_the_same_batch() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0]).await).await;
    database.execute(FILL).await;
    let health = running.telemetry.health.clone();
    let ((), ()) = tokio::join!(running.batch(vec![good(0, 0)]), async {
        until(&health, "the loop fails", |health| fails(health, "ingest")).await;
        // Only a heartbeat makes it be expected.
        Loop::ALL.into_iter().for_each(|which| health.finish(which));
        let beats = |health: &Health| health.live(Instant::now() + 2 * BEAT_LIMIT).is_err();
        until(&health, "it beats while it retries", beats).await;
        let retries = "shrinkd_retries_total{operation=\"ingest\",sqlstate_class=\"53\"} ";
        let is_counted = |health: &_| running.telemetry.metrics.render(health).contains(retries);
        until(&health, "its retries are counted", is_counted).await;
        database.execute("drop trigger fill on experiments").await;
    });
    assert!(!fails(&health, "ingest"));
    assert_eq!(experiments(&database).await, ["exp-0-0"]);
    running.end().await.expect("it ends well");
    database.remove().await;
}

#[tokio::test]
async fn postgres_fails_and_a_loop_that_is_told_to_stop_does_not_wait_for_it() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let running = Running::start(&store);
    running.assign(claim(&store, &[0]).await).await;
    database.execute(FILL).await;
    running.send(SourceEvent::Batch(Batch { records: vec![good(0, 0)], ends: vec![(0, NextOffset(1))] })).await;
    until(&running.telemetry.health, "the loop fails", |health| fails(health, "ingest")).await;
    running.stop.cancel();
    let ended = running.ended().await;
    assert!(matches!(&ended, Err(WorkerError::Store(error)) if error.is_transient()), "{ended:?}");
    assert_eq!(experiments(&database).await, [""; 0]);
    database.remove().await;
}
