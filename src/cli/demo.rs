//! `shrinkd demo`: runs the worker on a simulated portfolio, and prints the resulting tables.

mod folder;
mod queries;
mod report;

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::CliError;
use super::text::{self, Page, counted};
use crate::config::{Config, LogConfig};
use crate::simulate::Portfolio;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Telemetry, init_logging};
use crate::worker::supervise;
use folder::Folder;
use report::{Found, Report};

/// Try it out: run the worker on a simulated portfolio, and print the results
///
/// Simulates the mixed traffic of an experimentation platform, processes it with the same worker as `shrinkd run` into an
/// SQLite database, and prints the results: mu and tau of every population under three models of correlation, the
/// largest corrections, a forest plot, and queries to try. It needs no server.
///
/// The folder is created if necessary. Files of an earlier demo in it are replaced; a folder that contains anything else
/// is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Number of experiments, at least 60, which is enough for every kind of event to occur
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = RangedU64ValueParser::<usize>::new().range(60..=100_000))]
    experiments: usize,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the events, the configuration and the database
    #[arg(long, default_value = "shrinkd-demo")]
    dir: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd demo
  shrinkd demo --experiments 20000 --seed 7 --dir /tmp/portfolio
  shrinkd run --config shrinkd-demo/shrinkd.toml

Exit codes:
  0  success
  1  a file cannot be written, or the worker failed
  2  the folder contains files that are not from a demo: nothing was changed";

/// How often the progress bar is updated.
const REFRESH: Duration = Duration::from_millis(100);

/// Runs the demo.
///
/// # Errors
/// Where the folder is not a demo's or cannot be written to, or the worker fails.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let folder = Folder::make(&args.dir)?;
    let portfolio = Portfolio { experiments: args.experiments, ..Portfolio::default() };
    let events = folder.write_events(portfolio.messages(args.seed))?;
    let config = Arc::new(Config::load(Some(&folder.config()), [])?);
    // SQLite's writers wait for each other, about which the connection pool would warn.
    let level = Targets::new().with_default(LevelFilter::WARN).with_target("sqlx", LevelFilter::ERROR);
    let warnings = LogConfig { level, ..LogConfig::default() };
    init_logging(&warnings).map_err(|error| CliError::Internal(error.to_string()))?;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(work(config, &folder, args.experiments, events))?;
    let mut page = Page::new(BufWriter::new(io::stdout().lock()), text::width());
    report.write(&mut page)?;
    page.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the worker to the end of the file, until everything is published, and reads back the tables.
async fn work(config: Arc<Config>, folder: &Folder, experiments: usize, events: u64) -> Result<Report<'_>, CliError> {
    let store = Store::connect(&config.store, &config.store_settings()).await?;
    let telemetry = Telemetry::default();
    let metrics = telemetry.metrics.clone();
    let started = Instant::now();
    let worker = tokio::spawn(supervise::run(store.clone(), config, telemetry, CancellationToken::new()));
    let bar = ProgressBar::new(events).with_style(style());
    while !worker.is_finished() {
        show(&bar, &metrics);
        tokio::time::sleep(REFRESH).await;
    }
    bar.finish_and_clear();
    worker.await.map_err(|error| CliError::Internal(error.to_string()))??;
    let elapsed = started.elapsed();

    let mut found = Vec::new();
    for population in store.current_populations().await? {
        let fits = store.current_fits(&population.population).await?;
        let effects = store.published_effects(&population.population).await?;
        found.push(Found { population, fits, effects });
    }
    store.close().await;
    Ok(Report { folder, experiments, elapsed, counts: metrics.counts(), rejected: metrics.rejected(), found })
}

fn show(bar: &ProgressBar, metrics: &Metrics) {
    let fitted = metrics.populations().iter().filter(|(_, summary)| summary.mu.is_some()).count();
    let written = metrics.rows_written("effect_estimates");
    bar.set_position(metrics.counts().messages);
    bar.set_message(format!("{}, {}", counted(fitted as u64, "population"), counted(written, "estimate")));
}

fn style() -> ProgressStyle {
    let template = "{bar:20} {human_pos}/{human_len} events, {msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
