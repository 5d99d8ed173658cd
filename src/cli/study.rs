//! `shrinkd study`: compares the models of correlation on simulated data with known truth.

mod article;
mod render;

use std::io::{self, BufWriter, Write};
use std::num::NonZero;
use std::process::ExitCode;
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

use super::design::DesignArgs;
use super::text;
use super::{CliError, Format};
use crate::simulate::Population;
use crate::study::{Article, Study};

/// Compare three models of correlation on simulated data: bias, RMSE and coverage
///
/// A simulation study: draws each of the four populations of `shrinkd simulate` many times, and fits every replicate
/// with the correlation from the shared control modelled, ignored (the naive model), and avoided by using one variant
/// per experiment. Priors are flat, posteriors exact.
///
/// With any of --experiments, --variants, --control-share, --rho and --tau, one population of that design is drawn
/// instead of the four: all experiments have the same number of variants, a raw effect has the sampling variance 2, and
/// the mean of the true effects is 1.
///
/// For the first replicate, which is the data that `shrinkd simulate` prints for the same seed, the tables show the
/// posterior medians and sds of mu and tau. Over all replicates they show bias and RMSE of the posterior medians of mu
/// and tau and of the posterior means of the effects theta, and the coverage of their 95% credible intervals, each with
/// its Monte Carlo standard error after the ±.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Fit the four data sets of the article behind this project, and print its tables with its figures beside the exact ones
    ///
    /// The article is the post of 2026-03-22 on dpananos.github.io about shrinkage with a shared control. Its data are part of this program.
    /// They are fitted with the article's own model and priors.
    #[arg(long, conflicts_with_all = [
        "replicates", "seed", "threads", "experiments", "variants", "control_share", "rho", "tau",
    ])]
    article: bool,
    /// Number of replicates of each population
    #[arg(long, value_name = "N", default_value = "200")]
    replicates: NonZero<usize>,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output format; csv has one row per scenario, model and parameter
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Number of threads; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Number of experiments [default: 50]
    #[arg(long, value_name = "N", help_heading = "Design", value_parser = experiments)]
    experiments: Option<usize>,
    #[command(flatten)]
    design: DesignArgs,
}

/// Experiments of a design without `--experiments`.
const EXPERIMENTS: usize = 50;
/// The sampling variance of a raw effect in a design, as in the scenarios where all arms have as much traffic.
const VARIANCE: f64 = 2.0;

const EXAMPLES: &str = "\
Examples:
  shrinkd study --article
  shrinkd study
  shrinkd study --replicates 2000 --seed 7
  shrinkd study --variants 3 --experiments 80 --control-share 0.25 --tau 1se
  shrinkd study --format csv > study.csv";

/// Runs the study and prints its report.
///
/// # Errors
/// Where a replicate cannot be fitted, or stdout cannot be written to.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    if args.article {
        print_article(&Article::new()?, args.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let threads = args.threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN);
    let study = Study { design: args.design(), seed: args.seed, replicates: args.replicates, threads };
    let bar = ProgressBar::new(study.total() as u64).with_style(style());
    let report = study.run(|| bar.inc(1))?;
    bar.finish_and_clear();

    let mut out = BufWriter::new(io::stdout().lock());
    match args.format {
        Format::Table => render::table(&report, &mut out, text::width())?,
        Format::Csv => render::csv(&report, &mut out)?,
        Format::Json => text::json(&report, &mut out)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print_article(article: &Article, format: Format) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Table => article::table(article, &mut out, text::width())?,
        Format::Csv => article::csv(article, &mut out)?,
        Format::Json => text::json(article, &mut out)?,
    }
    out.flush()
}

impl Args {
    /// The population of the design, if there is one.
    fn design(&self) -> Option<Population> {
        let Args { design, experiments, .. } = self;
        (experiments.is_some() || design.is_given()).then(|| {
            let rho = design.rho();
            Population {
                experiments: experiments.unwrap_or(EXPERIMENTS),
                variants: design.variants(),
                has_one_large: false,
                mu: 1.0,
                tau: design.tau().absolute(VARIANCE.sqrt()),
                treatment_variance: (1.0 - rho) * VARIANCE,
                control_variance: rho * VARIANCE,
                control_error: None,
            }
        })
    }
}

fn experiments(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (3..=100_000).contains(number));
    number.ok_or_else(|| {
        "expected a whole number from 3 to 100000: with flat priors, one variant of each of fewer experiments gives no \
         posterior"
            .to_owned()
    })
}

fn style() -> ProgressStyle {
    let template = "{bar:40} {pos}/{len} replicates, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
