//! `shrinkd rebuild`: recomputes everything derived from the stored results, under the current configuration.

use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::text::counted;
use super::{CliError, ConfigArg};
use crate::config::Config;
use crate::store::Store;
use crate::worker::rebuild::{BlockCounts, Progress, Rebuilt, rebuild};

/// Recompute all statistics, fits and estimates from the stored results
///
/// Required after a change of populations.labels or refit.one_per_experiment_seed, and after an upgrade to a build with
/// another arithmetic version: until then `shrinkd run` refuses the database. Assigns every experiment's effects to
/// their population again, sums the statistics, refits every population, and publishes all estimates. The history of
/// fits and diagnostics is kept.
///
/// The statistics change in a single transaction: if the command fails, nothing has changed. Workers can keep running:
/// they wait for that transaction, and those whose configuration differs from this one then exit with code 2. The
/// database temporarily needs room for a second copy of the rows that change.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd rebuild --config config/local.toml
  SHRINKD__POPULATIONS__LABELS='[\"country\"]' \\
    shrinkd rebuild --config config/local.toml
  SHRINKD__STORE__URL=postgres://owner@db/shrinkd \\
    shrinkd rebuild --config config/production.toml

Exit codes:
  0  everything is recomputed, fitted and published
  1  the rebuild did not complete: stderr gives the reason. Run it again
  2  the configuration is invalid, the SQLite file cannot be opened, or the
     database has another schema version";

/// Rebuilds and reports.
///
/// # Errors
/// Where the configuration is invalid, or the store cannot be rebuilt.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = Arc::new(args.config.load()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rebuilt = runtime.block_on(async {
        let store = Store::connect_to_rebuild(&config.store, &config.store_settings()).await?;
        let bar = ProgressBar::no_length().with_style(style());
        let rebuilt = rebuild(store.clone(), &config, |progress| show(&bar, progress)).await;
        bar.finish_and_clear();
        store.close().await;
        Ok::<_, CliError>(rebuilt?)
    });
    report(&rebuilt?, &config);
    Ok(ExitCode::SUCCESS)
}

fn show(bar: &ProgressBar, progress: Progress) {
    let (done, of, what) = match progress {
        Progress::Experiments { done, of } => (done, of, "experiments recomputed"),
        Progress::Published { done, of } => (done, of, "populations fitted and published"),
    };
    bar.set_length(of);
    bar.set_position(done);
    bar.set_message(what);
}

fn style() -> ProgressStyle {
    let template = "{bar:20} {human_pos}/{human_len} {msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn report(rebuilt: &Rebuilt, config: &Config) {
    let Rebuilt { replaced, populations, emptied_populations, blocks } = rebuilt;
    let settings = config.store_settings();
    match replaced {
        Some(replaced) if *replaced != settings => println!("was          {replaced}\nis           {settings}"),
        _ => println!("settings     {settings}, as before"),
    }
    println!("populations  {} fitted and published", counted(*populations, "population"));
    if *emptied_populations > 0 {
        println!("             {} without blocks removed", counted(*emptied_populations, "population"));
    }
    let BlockCounts { all, moved, recomputed, refused } = *blocks;
    println!("blocks       {}", counted(all, "block"));
    println!("             {} moved to another population", counted(moved, "block"));
    println!("             {} with changed figures", counted(recomputed, "block"));
    if refused > 0 {
        println!(
            "             {} that cannot be estimated any more: see blocks.pending_reason",
            counted(refused, "block")
        );
    }
}
