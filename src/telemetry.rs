//! What the worker shows of itself: log lines, metrics and health.
//!
//! | room | what is there |
//! | --- | --- |
//! | this file | log lines on stderr, for people or for programs |
//! | [`metrics`] | counters, gauges and histograms in the text format of Prometheus |
//! | [`health`] | is it alive, is it ready |
//!
//! `docs/operations.md` has the table of metrics and what to do about alerts; a test holds it to the code.

pub mod health;
pub mod metrics;

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use crate::config::{LogConfig, LogFormat};
use health::Health;
use metrics::Metrics;

/// What a worker reports to. Clones share it.
#[derive(Clone, Default)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub health: Health,
}

/// Log lines were already directed elsewhere in this process.
#[derive(Debug, thiserror::Error)]
#[error("log lines are already written by someone else in this process")]
pub struct AlreadyLogging;

/// Writes the log lines of this process to stderr, from now on.
///
/// # Errors
/// Where that was done before.
pub fn init_logging(config: &LogConfig) -> Result<(), AlreadyLogging> {
    tracing::subscriber::set_global_default(subscriber(config, io::stderr)).map_err(|_| AlreadyLogging)
}

/// What writes log lines as the configuration says.
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
