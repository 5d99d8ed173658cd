//! A whole worker: the thread of its source, its three loops, and their shutdown.
//!
//! A worker ends when it is stopped, after it has committed the records in memory; at the end of a file that is not
//! followed, after it has fitted and published every population; or when it cannot continue.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::WorkerError;
use super::dead_letters::DeadLetters;
use super::ingest::IngestLoop;
use super::publish::PublishLoop;
use super::refit::RefitLoop;
use super::retry::Retry;
use super::source::{BatchLimits, file, kafka};
use crate::config::{Config, SettingsOf, SourceConfig};
use crate::store::Store;
use crate::stream::{Claim, Topic};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;

/// Batches that may wait for the store, in addition to the one that is being committed.
const WAITING_BATCHES: usize = 2;

/// How long a claim is retried before the source gives up: many times what one attempt waits for a connection, which is 30 s
/// while the store is down.
const CLAIM_LIMIT: Duration = Duration::from_secs(600);

/// Runs a worker until it ends.
///
/// # Errors
/// If it cannot continue. Everything committed is kept, and the next worker continues from there.
pub async fn run(
    store: Store,
    config: Arc<Config>,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let owner = owner();
    let (refit, publish) = loops(&store, &config, &owner, &telemetry);
    refit.request_refits_for_changed_settings().await?;

    let (sender, events) = mpsc::channel(WAITING_BATCHES);
    let retry = Retry::new(telemetry.clone(), stop.clone(), config.ingest.drain_budget);
    let claim = claimer(store.clone(), owner, retry.clone().within(CLAIM_LIMIT), telemetry.metrics.clone());
    // Also cancelled when a loop fails, so that the source's thread ends.
    let source_stop = stop.child_token();
    let _source_ends_with_this = source_stop.clone().drop_guard();
    let (thread, commands) = match &config.source {
        SourceConfig::Kafka(own) => {
            let source = kafka::KafkaSource::new(own, &config.ingest);
            let (thread, commands) = kafka::spawn(source, claim, sender, source_stop)?;
            (thread, Some(commands))
        }
        SourceConfig::File(own) => {
            let source = file::FileSource {
                path: own.path.clone(),
                follow: own.follow,
                limits: BatchLimits::new(&config.ingest),
            };
            (file::spawn(source, claim, sender, source_stop)?, None)
        }
    };

    let background = CancellationToken::new();
    let refitting = tokio::spawn(or_stop(refit.clone().run(background.clone()), stop.clone()));
    let publishing = tokio::spawn(or_stop(publish.clone().run(background.clone()), stop.clone()));
    let dead_letters = DeadLetters::new(config.dead_letters.clone());
    let ingest = IngestLoop::new(store, config.grouping(), dead_letters, commands, telemetry, retry);
    let ingested = ingest.run(events).await;
    background.cancel();
    let (refitted, published) = (refitting.await?, publishing.await?);
    ingested?;
    refitted?;
    published?;
    // The source has sent its last event: its thread is about to end.
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    if !stop.is_cancelled() {
        finish(&refit, &publish, &stop).await?;
    }
    Ok(())
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
        telemetry: telemetry.clone(),
    };
    let publish = PublishLoop {
        store: store.clone(),
        settings,
        thresholds: config.diagnostics.thresholds,
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
    loop {
        let refitted = refit.refit_all().await?;
        let published = publish.publish_due(OffsetDateTime::now_utc(), stop).await?;
        if refitted + published == 0 || stop.is_cancelled() {
            return refit.report().await;
        }
    }
}

/// Claims partitions for the source's thread, which blocks until it has them.
fn claimer(
    store: Store,
    owner: String,
    retry: Retry,
    metrics: Metrics,
) -> impl Fn(&Topic, &[i32]) -> Result<Vec<Claim>, String> + Send + 'static {
    let runtime = Handle::current();
    move |topic, partitions| {
        metrics.set_topic_partitions(topic.partitions);
        let claimed = retry.run("claim", || store.claim(topic, partitions, &owner));
        runtime.block_on(claimed).map_err(|error| error.to_string())
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
