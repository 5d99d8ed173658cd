//! `shrinkd rebuild`: all that is computed from what was sent, computed anew under the configuration.

use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::text::counted;
use super::{CliError, ConfigArg};
use crate::config::Config;
use crate::store::Store;
use crate::worker::rebuild::{BlockCounts, Progress, Rebuilt, rebuild};

/// Compute everything in the database anew, from what was sent and under this configuration
///
/// Needed after populations.labels or refit.one_per_experiment_seed was changed, or where a new build computes otherwise than the
/// one before (its arithmetic version): `shrinkd run` refuses such a database until then. Puts every block into its
/// population again, adds up the statistics, fits every population, and publishes all estimates. Fits and diagnostics
/// of the past stay.
///
/// The statistics change in one transaction: if it does not come to its end, nothing has changed. Workers may run
/// meanwhile. They wait for that transaction, and those with another configuration than this one end with exit code 2
/// after it. It needs as much room in the database as the blocks and estimates that change, once more.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd rebuild --config config/local.toml
  SHRINKD__POPULATIONS__LABELS='[\"country\"]' shrinkd rebuild --config config/local.toml
  SHRINKD__STORE__URL=postgres://owner@db/shrinkd shrinkd rebuild --config config/production.toml

Exit codes:
  0  everything is computed anew, fitted and published
  1  it could not be brought to its end: stderr says why. Run it again
  2  the configuration is wrong, or the database has another schema";

/// Rebuilds and reports.
///
/// # Errors
/// Where the configuration is wrong, or the store cannot be rebuilt.
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
        Progress::Experiments { done, of } => (done, of, "experiments computed anew"),
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
    println!("populations  {}, fitted and published whole", counted(*populations, "population"));
    if *emptied_populations > 0 {
        println!("             {} without blocks removed", counted(*emptied_populations, "population"));
    }
    let BlockCounts { all, moved, recomputed, refused } = *blocks;
    println!("blocks       {}", counted(all, "block"));
    println!("             {} in another population than before", counted(moved, "block"));
    println!("             {} with other figures than before", counted(recomputed, "block"));
    if refused > 0 {
        println!(
            "             {} that cannot be estimated any more: blocks.pending_reason says why",
            counted(refused, "block")
        );
    }
}
