//! `shrinkd run`: the worker.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{CliError, ConfigArg};
use crate::config::Config;
use crate::http::{self, Site};
use crate::store::Store;
use crate::telemetry::health::Dependency;
use crate::telemetry::{Telemetry, init_logging};
use crate::worker::supervise;

/// Run the worker: events in, shrunken estimates out
///
/// Reads events from Kafka or a file, keeps what they say in the store, refits every population with news, and writes
/// the estimates. Any number of workers may share a consumer group and a PostgreSQL database; nothing is lost or counted
/// twice when they come and go. SIGTERM and SIGINT end it after what was read is committed; a file that is not followed
/// ends it when everything is fitted and published.
///
/// Says what it does on stderr, and serves metrics (/metrics), health (/livez, /readyz) and a status page (/) by HTTP.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd simulate --scenario portfolio | shrinkd run --config config/embedded.toml
  shrinkd run --config config/local.toml
  SHRINKD__STORE__URL_FILE=/run/secrets/database shrinkd run --config config/production.toml

Exit codes:
  0  the file is through, or a signal asked for the end and what was read is committed
  1  it cannot go on: the last line of the log says why. What was committed stands
  2  the configuration cannot be run, or the database is not one for this build and these settings";

/// Runs until the end.
///
/// # Errors
/// Where the configuration is wrong, the store is not one for this build, or the worker cannot go on.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = Arc::new(args.config.load()?);
    init_logging(&config.log).map_err(|error| CliError::Internal(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Arc<Config>) -> Result<ExitCode, CliError> {
    let telemetry = Telemetry::default();
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

    let store = Store::connect(&config.store, &config.store_settings()).await?;
    telemetry.health.ready(Dependency::Store);
    let ended = supervise::run(store.clone(), Arc::clone(&config), telemetry, stop).await;
    store.close().await;
    served.cancel();
    // A page that is still being sent does not keep the worker.
    http.abort();
    match ended {
        Ok(()) => {
            info!("ended");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            error!(%error, "cannot go on");
            Ok(CliError::from(error).exit_code())
        }
    }
}

/// Asks for the end at the first SIGTERM or SIGINT.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: committing what was read, then ending"),
            _ = interrupt.recv() => info!("SIGINT: committing what was read, then ending"),
        }
        stop.cancel();
    })
}
