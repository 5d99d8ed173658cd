//! `shrinkd run`: the worker.

mod summary;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{CliError, ConfigArg};
use crate::config::{Config, KafkaConfig, SourceConfig};
use crate::http::{self, Site};
use crate::store::Store;
use crate::telemetry::health::{Loop, Operation};
use crate::telemetry::{Telemetry, init_logging};
use crate::worker::WorkerError;
use crate::worker::retry::Retry;
use crate::worker::source::SourceError;
use crate::worker::source::kafka::Probe;
use crate::worker::supervise;
use summary::Summary;

/// Run the worker: ingest events, and keep the shrunken estimates up to date
///
/// Reads events from Kafka or a file, stores their results, refits every population that changed, and writes the
/// estimates. Any number of workers can share a consumer group and a PostgreSQL database; no event is lost or counted
/// twice when workers join, leave or crash. Back pressure: while the database cannot keep up, fetching is paused.
///
/// On SIGTERM or SIGINT the worker commits what it has read and exits. With a file as its source it exits at the end of
/// the file, once everything is fitted and published, unless source.file.follow is set. Then it prints what became of the
/// events, and where the results are.
///
/// Logs to stderr, and serves metrics (/metrics), health checks (/livez, /readyz) and a status page (/) over HTTP.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd simulate --scenario portfolio | shrinkd run -c config/embedded.toml
  shrinkd run --config config/local.toml
  SHRINKD__STORE__URL_FILE=/run/secrets/db shrinkd run -c config/production.toml

Exit codes:
  0  stopped by a signal or at the end of the file; what was read is committed
  1  fatal error, or the drain budget was spent: the last log line gives the
     reason. Committed work is kept, and a restart resumes after it
  2  the configuration is invalid, the source's file is not NDJSON, the SQLite
     file cannot be opened, the database does not fit this build and these
     settings, or nothing of the file was taken: it has no events, or every
     one was refused";

/// How long the brokers may take to answer everything that is asked at the start.
const PROBE_LIMIT: Duration = Duration::from_secs(4);
/// How long closing the store may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Runs the worker until a signal, the end of its file, or a fatal error.
///
/// # Errors
/// Where the configuration is invalid. Any other error is logged, and returned as an exit code.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = Arc::new(args.config.load()?);
    init_logging(&config.log).map_err(|error| CliError::Internal(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(config));
    // Computations that nobody waits for any more do not delay the exit.
    runtime.shutdown_background();
    let (code, summary) = ended.unwrap_or_else(|error| {
        // In the log, as everything from here on.
        error!(%error, "cannot start");
        (error.exit_code(), None)
    });
    let Some(summary) = summary else { return Ok(code) };
    match summary.print() {
        // Whoever closes the pipe early wants no summary, but may want the exit code.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ if summary.is_nothing_taken() => Ok(ExitCode::from(2)),
        _ => Ok(code),
    }
}

/// Returns the exit code, and at the end of a file the summary.
async fn serve(config: Arc<Config>) -> Result<(ExitCode, Option<Summary>), CliError> {
    let telemetry = Telemetry::default();
    // From the start: alerts compare with it, also while this worker is not connected.
    telemetry.metrics.set_max_populations(config.limits.max_populations);
    let stop = CancellationToken::new();
    let listener = http::bind(config.http.listen).await?;
    info!(source = %config.source, store = %config.store.url, http = %listener.local_addr()?, "starting");
    let site = Site {
        source: config.source.to_string(),
        metrics: telemetry.metrics.clone(),
        health: telemetry.health.clone(),
    };
    let served = CancellationToken::new();
    let http = tokio::spawn(http::serve(listener, site, served.clone().cancelled_owned()));
    tokio::spawn(stop_on_signal(stop.clone())?);

    let Some(store) = connect(&config, &telemetry, &stop).await? else {
        info!("stopped before it was connected");
        return Ok((ExitCode::SUCCESS, None));
    };
    let ended = supervise::run(store.clone(), Arc::clone(&config), telemetry.clone(), stop.clone()).await;
    let is_read_to_the_end = match &ended {
        Ok(()) => !stop.is_cancelled(),
        // The rest would have been refused too.
        Err(error) => matches!(error, WorkerError::Halted(_)),
    };
    let summary = match &config.source {
        SourceConfig::File(_) if is_read_to_the_end => Some(Summary::new(&config, &telemetry, &store).await),
        _ => None,
    };
    // Connections of transactions that were cut off are closed by the end of the process.
    let _ = tokio::time::timeout(CLOSE_LIMIT, store.close()).await;
    served.cancel();
    // A response that is still being sent does not delay the exit.
    http.abort();
    match ended {
        Ok(()) => {
            info!("stopped");
            Ok((ExitCode::SUCCESS, summary))
        }
        Err(error) => {
            error!(%error, "stopped by a fatal error");
            Ok((CliError::from(error).exit_code(), summary))
        }
    }
}

/// Connects to the store and then to the brokers, however long that takes: whoever corrects the cause need not restart the worker,
/// and until then it can be asked for it. `None` if it is stopped before.
async fn connect(
    config: &Config,
    telemetry: &Telemetry,
    stop: &CancellationToken,
) -> Result<Option<Store>, WorkerError> {
    let settings = config.store_settings();
    // The loops do not run yet, and a restart would not help them.
    let retry = Retry::new(telemetry.clone(), stop.clone(), Duration::ZERO).for_loops(&Loop::ALL);
    let connecting = async {
        let store = retry.run(Operation::Connect, || Store::connect(&config.store, &settings)).await?;
        if let SourceConfig::Kafka(kafka) = &config.source {
            retry.run(Operation::Connect, || probe(kafka)).await?;
        }
        Ok::<_, WorkerError>(Some(store))
    };
    tokio::select! {
        biased;
        // Nothing is lost with an attempt that is dropped.
        () = stop.cancelled() => Ok(None),
        connected = connecting => connected,
    }
}

/// Asks the brokers for what the worker needs of them, on a thread of its own: librdkafka blocks, and a stop does not wait for it.
async fn probe(kafka: &KafkaConfig) -> Result<(), SourceError> {
    let (sender, answer) = oneshot::channel();
    let kafka = kafka.clone();
    let ask = move || match Probe::new(&kafka, PROBE_LIMIT) {
        Ok(probe) => drop(sender.send(probe.run())),
        Err(error) => drop(sender.send(Err(error))),
    };
    let thread = thread::Builder::new().name("kafka-probe".to_owned()).spawn(ask);
    thread.map_err(|error| SourceError::Kafka(format!("cannot start the thread kafka-probe: {error}")))?;
    answer.await.unwrap_or_else(|_| Err(SourceError::Kafka("the thread kafka-probe has panicked".to_owned())))
}

/// Requests a graceful shutdown at the first SIGTERM or SIGINT.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("received SIGTERM: committing what was read, then stopping"),
            _ = interrupt.recv() => info!("received SIGINT: committing what was read, then stopping"),
        }
        stop.cancel();
    })
}
