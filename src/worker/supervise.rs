//! A whole worker: the thread of its source, its three loops, and their shutdown.
//!
//! A worker ends when it is stopped, after it has committed the records in memory; at the end of a file that is not
//! followed, after it has fitted and published every population; or when it cannot continue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::ShippedDecisions;
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::WorkerError;
use super::ingest::{IngestLimits, IngestLoop};
use super::publish::PublishLoop;
use super::refit::{Occasion, RefitLoop};
use super::report::PopulationReport;
use super::retry::Retry;
use super::source::{BatchLimits, SourceError, SourceEvent, file, kafka};
use crate::config::{Config, SettingsOf, SourceConfig};
use crate::store::Store;
use crate::stream::{Claim, Topic};
use crate::telemetry::Telemetry;
use crate::telemetry::health::Operation;
use crate::telemetry::metrics::Metrics;

/// Batches that may wait for the store, in addition to the one that is being committed.
const WAITING_BATCHES: usize = 2;

/// How long a claim is retried before its partitions are parked and claimed again later: meanwhile the source cannot tell its
/// group that it is alive.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);

/// How long the source may take to leave its group after the worker has ended: otherwise the group waits for it until its
/// session times out.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked whether a pass has ended that another worker has begun.
const PASS_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is checked whether it has left.
const LEAVE_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a worker until it ends. Once it is stopped, it waits for the store no longer than the drain budget.
///
/// # Errors
/// If it cannot continue, or the drain budget is spent. Everything committed is kept, and the next worker continues from there.
pub async fn run(
    store: Store,
    config: Arc<Config>,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let owner = owner();
    let (refit, publish) = loops(&store, &config, &owner, &telemetry);
    let retry = Retry::new(telemetry.clone(), stop.clone(), config.ingest.drain_budget);
    retry.run(Operation::Refit, || refit.request_refits_for_changed_settings()).await?;

    let (sender, events) = mpsc::channel(WAITING_BATCHES);
    let claim = |retry: &Retry| claimer(store.clone(), owner.clone(), retry.clone(), telemetry.metrics.clone());
    // Also cancelled when a loop fails, so that the source's threads end.
    let source_stop = stop.child_token();
    let source_ends_with_this = source_stop.clone().drop_guard();
    let (thread, commands) = match &config.source {
        SourceConfig::Kafka(own) => {
            let source = kafka::KafkaSource::new(own, &config.ingest);
            let claim = claim(&retry.clone().within(CLAIM_LIMIT));
            let (thread, commands) = kafka::spawn(source, claim, sender, telemetry.clone(), source_stop)?;
            (thread, Some(commands))
        }
        SourceConfig::File(own) => {
            let source = file::FileSource {
                path: own.path.clone(),
                follow: own.follow,
                limits: BatchLimits::new(&config.ingest),
            };
            (file::spawn(source, claim(&retry), sender, telemetry.clone(), source_stop)?, None)
        }
    };
    let limits = IngestLimits {
        max_populations: config.limits.max_populations,
        dead_letters: config.dead_letters.clone(),
        catch_up: config.catch_up,
    };
    let ingest = IngestLoop::new(store, config.grouping(), limits, commands, telemetry, retry);
    // Cancelled once the drain budget is spent.
    let spent = CancellationToken::new();
    let mut timer = JoinSet::new();
    timer.spawn(spend(stop.clone(), config.ingest.drain_budget, spent.clone()));
    let ended = process(ingest, events, refit, publish, &stop, &spent).await;
    drop(source_ends_with_this);
    let leaving = Instant::now();
    while !thread.is_finished() && leaving.elapsed() < LEAVE_LIMIT {
        tokio::time::sleep(LEAVE_INTERVAL).await;
    }
    ended.unwrap_or(Err(WorkerError::DrainBudget(config.ingest.drain_budget)))
}

/// Runs the loops until the source has ended, and after the end of a file until everything is fitted and published. What is under
/// way when the drain budget is spent is dropped, as by a crash. `None` if that is a batch: a refit or a publish is made again
/// anyway.
async fn process(
    ingest: IngestLoop,
    events: mpsc::Receiver<SourceEvent>,
    refit: RefitLoop,
    publish: PublishLoop,
    stop: &CancellationToken,
    spent: &CancellationToken,
) -> Option<Result<(), WorkerError>> {
    let background = CancellationToken::new();
    let mut loops = JoinSet::new();
    loops.spawn(or_stop(refit.clone().run(background.clone()), stop.clone()));
    loops.spawn(or_stop(publish.clone().run(background.clone()), stop.clone()));
    let mut ended = spent.run_until_cancelled(ingest.run(events)).await?;
    background.cancel();
    while let Some(Some(of_loop)) = spent.run_until_cancelled(loops.join_next()).await {
        ended = ended.and(of_loop.unwrap_or_else(|error| Err(error.into())));
    }
    if ended.is_ok() && !stop.is_cancelled() {
        ended = spent.run_until_cancelled(finish(&refit, &publish, stop)).await.unwrap_or(Ok(()));
    }
    Some(ended)
}

/// Waits for the stop and then for as long as the drain budget, and says that it is spent.
async fn spend(stop: CancellationToken, drain_budget: Duration, spent: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(drain_budget).await;
    spent.cancel();
}

/// The refit and publish loops. They share nothing but the store.
pub(super) fn loops(
    store: &Store,
    config: &Arc<Config>,
    owner: &str,
    telemetry: &Telemetry,
) -> (RefitLoop, PublishLoop) {
    let settings: SettingsOf = {
        let config = Arc::clone(config);
        Arc::new(move |population| config.settings(population))
    };
    let refit = RefitLoop {
        store: store.clone(),
        settings: Arc::clone(&settings),
        tolerance: config.publish.tolerance,
        interval: config.refit.interval,
        reported: config.metrics.populations,
        telemetry: telemetry.clone(),
    };
    let publish = PublishLoop {
        store: store.clone(),
        settings,
        grouping: config.grouping(),
        thresholds: config.diagnostics.thresholds,
        shipped_decisions: ShippedDecisions::new(&config.diagnostics.shipped_decisions),
        diagnostics_interval: config.diagnostics.interval,
        owner: owner.to_owned(),
        telemetry: telemetry.clone(),
    };
    (refit, publish)
}

/// Runs a loop, and stops the whole worker if it fails.
async fn or_stop(
    running: impl Future<Output = Result<(), WorkerError>>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let ended = running.await;
    if ended.is_err() {
        stop.cancel();
    }
    ended
}

/// Refits and publishes until nothing is due any more.
async fn finish(refit: &RefitLoop, publish: &PublishLoop, stop: &CancellationToken) -> Result<(), WorkerError> {
    info!("the source has ended: fitting and publishing what is left");
    refit.store.request_refits_of_unpublished().await?;
    loop {
        let refitted = refit.round(Occasion::End, stop).await?.populations;
        let published = publish.publish_due(Some(OffsetDateTime::now_utc()), stop).await?;
        if refitted + published > 0 && !stop.is_cancelled() {
            continue;
        }
        // A worker that was killed may have left a pass, which another may take after a while.
        if stop.is_cancelled() || refit.store.publishing_populations().await?.is_empty() {
            let RefitLoop { store, telemetry, reported, .. } = refit;
            return Ok(PopulationReport::default().show(store, &telemetry.metrics, *reported).await?);
        }
        stop.run_until_cancelled(tokio::time::sleep(PASS_INTERVAL)).await;
    }
}

/// Claims partitions for the source's thread, which blocks until it has them.
fn claimer(
    store: Store,
    owner: String,
    retry: Retry,
    metrics: Metrics,
) -> impl Fn(&Topic, &[i32]) -> Result<Vec<Claim>, SourceError> + Send + 'static {
    let runtime = Handle::current();
    move |topic, partitions| {
        metrics.set_topic_partitions(topic.partitions);
        let claimed = retry.run(Operation::Claim, || store.claim(topic, partitions, &owner));
        runtime.block_on(claimed).map_err(|error| match error.is_transient() {
            true => SourceError::Unavailable(error.summary()),
            false => SourceError::Claim(error.to_string()),
        })
    }
}

/// A name for this worker that is unique among those that share the store: host, process id and time.
pub(super) fn owner() -> String {
    let (host, process) = (host(), std::process::id());
    format!("{host}/{process}/{}", OffsetDateTime::now_utc().unix_timestamp_nanos() % 1_000_000_000)
}

/// The name of this machine.
pub fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    host.map_or_else(|_| "unknown".to_owned(), |host| host.trim().to_owned())
}
