//! `shrinkd study`: what the correlation of a shared control does to the estimates, on data whose truth is known.

mod render;

use std::io::{self, BufWriter, Write};
use std::num::NonZero;
use std::process::ExitCode;
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

use super::text;
use super::{CliError, Format};
use crate::study::Study;

/// Compare treatments of correlation on simulated data: medians, bias, RMSE and coverage
///
/// Draws each scenario of `shrinkd simulate` many times and fits it with the correlation that a shared control brings
/// (correlated), without (naive) and with one variant of each experiment. Priors are flat, posteriors exact. Shown are
/// the posterior medians and sds of mu and tau in the first replicate, the data that `shrinkd simulate` prints for the
/// same seed, and over all replicates the bias and RMSE of the posterior medians of mu and tau and the posterior means
/// of the effects theta, and how often their 95% intervals hold the truth. What follows a ± is the Monte-Carlo standard
/// error.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How often each scenario is drawn
    #[arg(long, value_name = "N", default_value = "200")]
    replicates: NonZero<usize>,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Threads to run on, without influence on the results [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd study
  shrinkd study --replicates 2000 --seed 7
  shrinkd study --format csv > study.csv";

/// Runs the study and prints what it found.
///
/// # Errors
/// Where a replicate cannot be fitted, or stdout cannot be written to.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let threads = args.threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN);
    let study = Study { seed: args.seed, replicates: args.replicates, threads };
    let bar = ProgressBar::new(study.total() as u64).with_style(style());
    let report = study.run(|| bar.inc(1))?;
    bar.finish_and_clear();

    let mut out = BufWriter::new(io::stdout().lock());
    match args.format {
        Format::Table => render::table(&report, &mut out, text::width())?,
        Format::Csv => render::csv(&report, &mut out)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn style() -> ProgressStyle {
    let template = "{bar:40} {pos}/{len} replicates, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
