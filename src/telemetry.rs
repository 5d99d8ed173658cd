//! Telemetry: log lines, metrics and health.
//!
//! | room | what is there |
//! | --- | --- |
//! | this file | log lines on stderr, as text or JSON |
//! | [`metrics`] | counters, gauges and histograms in the text format of Prometheus |
//! | [`lag`] | how far the owned partitions are behind, measured also while nothing is committed |
//! | [`refusals`] | what was refused, by reason, with the first of each |
//! | [`health`] | whether the worker is alive, and whether it is ready |
//!
//! `docs/operations.md` has the table of metrics and a runbook for the alerts; a test checks it against the code.

pub mod health;
pub mod lag;
pub mod metrics;
pub mod refusals;

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use crate::config::{LogConfig, LogFormat};
use health::Health;
use lag::Lag;
use metrics::Metrics;
use refusals::Refusals;

/// The metrics, lag, refusals and health of a worker. Clones share them.
#[derive(Clone)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub lag: Lag,
    pub refusals: Refusals,
    pub health: Health,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        let metrics = Metrics::default();
        Telemetry { lag: Lag::new(metrics.clone()), metrics, refusals: Refusals::default(), health: Health::default() }
    }
}

/// This process has a subscriber for log lines already.
#[derive(Debug, thiserror::Error)]
#[error("logging is already initialised in this process")]
pub struct AlreadyLogging;

/// Writes the log lines of this process to stderr, from now on.
///
/// # Errors
/// If logging is initialised already.
pub fn init_logging(config: &LogConfig) -> Result<(), AlreadyLogging> {
    tracing::subscriber::set_global_default(subscriber(config, io::stderr)).map_err(|_| AlreadyLogging)
}

/// A subscriber that writes log lines in the configured format.
pub fn subscriber<W>(config: &LogConfig, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    let subscriber = registry().with(config.level.clone());
    match config.format {
        LogFormat::Text => Box::new(subscriber.with(lines.with_ansi(io::stderr().is_terminal()))),
        LogFormat::Json => Box::new(subscriber.with(lines.json().flatten_event(true))),
    }
}
