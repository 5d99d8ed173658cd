//! `shrinkd fit`: a file of events in, populations and shrunken estimates out; no server, no state.

mod csv;
mod estimates;
mod findings;
mod input;
mod json;
mod report;
mod table;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use shrinkd_model::{Correlation, Method, PriorMu, PriorTau, Priors, Request, Thresholds, available_threads};

use super::text;
use super::{CliError, Format};
use report::Report;

/// Fit the populations of a file of events and shrink every effect.
///
/// Reads events as NDJSON (one per line; revisions, retractions and accumulation count as they do in the worker), fits
/// mu and tau of every metric x segment x scale, and prints the shrunken estimates.
///
/// The table is as wide as the terminal, from 80 to 100 columns; COLUMNS overrides that.
///
/// What is refused is said on stderr, one line each: `line 12: non_positive_variance: ...`; the rest is fitted.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File of events, - for stdin.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// What becomes of the correlation between the variants of an experiment.
    #[arg(long, alias = "treatment", value_enum, default_value_t = CorrelationArg::Modelled)]
    correlation: CorrelationArg,
    /// How mu and tau are found; reml and ml are points without priors, for comparison with meta-analysis software.
    #[arg(long, value_enum, default_value_t = MethodArg::Quadrature)]
    method: MethodArg,
    /// Prior of mu: flat or normal:MEAN,SD, in the effects' unit.
    #[arg(long, default_value = "flat", value_name = "PRIOR", allow_hyphen_values = true)]
    prior_mu: PriorMu,
    /// Prior of tau: flat, half-normal:SCALE, half-cauchy:SCALE or half-t:DF,SCALE, in the effects' unit.
    #[arg(long, default_value = "flat", value_name = "PRIOR")]
    prior_tau: PriorTau,
    /// Also compute the probability that each variant is the best of its experiment, the control included.
    #[arg(long)]
    best: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd simulate --scenario portfolio | shrinkd fit
  shrinkd fit events.ndjson --format json | jq '.populations[].mu'
  shrinkd fit events.ndjson --prior-mu normal:0,0.1 --prior-tau half-normal:0.05
  shrinkd fit events.ndjson --method reml --format csv > estimates.csv

Exit codes:
  0  at least one population was fitted
  1  input or output failed
  2  no population could be fitted, or the command line is wrong";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CorrelationArg {
    /// The shared control's error is modelled
    #[value(alias = "correlated")]
    Modelled,
    /// The naive model: variants are taken as independent
    #[value(alias = "independent")]
    Ignored,
    /// One variant of each experiment
    OnePerExperiment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    /// The exact posterior
    Quadrature,
    /// A Gaussian at the mode
    Laplace,
    /// The Gaussian nearest to the posterior
    Variational,
    /// Restricted maximum likelihood
    Reml,
    /// Maximum likelihood
    Ml,
}

impl Args {
    fn request(&self) -> Request {
        Request {
            correlation: match self.correlation {
                CorrelationArg::Modelled => Correlation::Modelled,
                CorrelationArg::Ignored => Correlation::Ignored,
                CorrelationArg::OnePerExperiment => Correlation::OnePerExperiment,
            },
            method: match self.method {
                MethodArg::Quadrature => Method::Quadrature,
                MethodArg::Laplace => Method::Laplace,
                MethodArg::Variational => Method::Variational,
                MethodArg::Reml => Method::Reml,
                MethodArg::Ml => Method::Ml,
            },
            priors: Priors { mu: self.prior_mu, tau: self.prior_tau },
            is_best_wanted: self.best,
            thresholds: Thresholds::default(),
            threads: available_threads(),
        }
    }
}

/// Reads, fits, prints.
///
/// # Errors
/// Where the file cannot be read or the output not written.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let request = args.request();
    let history = input::read(&args.file, request.threads, &mut io::stderr().lock())?;
    let report = Report::new(history, &request)?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match args.format {
        Format::Table => table::write(&mut out, &report, text::width())?,
        Format::Json => json::write(&mut out, &report)?,
        Format::Csv => csv::write(&mut out, &report)?,
    }
    out.flush()?;
    let code = if report.is_any_fitted() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    // The program ends here: handing back every small allocation first would be a tenth of its time.
    std::mem::forget(report);
    Ok(code)
}
