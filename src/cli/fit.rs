//! `shrinkd fit`: fits the populations of a file of events, without a server or a database.

mod csv;
mod estimates;
mod findings;
mod json;
mod report;
mod table;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use shrinkd_core::{History, ShippedDecisions};
use shrinkd_model::{
    Correlation, Direction, Method, PosteriorError, PriorIcc, PriorMu, PriorTau, Priors, Quantity, Request, Thresholds,
    available_threads,
};

use super::input::InputArgs;
use super::lint::Lint;
use super::tally::Tally;
use super::text;
use super::{CliError, Format};
pub(super) use report::Report;

/// Fit a random-effects model to files of events or tables, and shrink every effect
///
/// Reads events as NDJSON (one JSON message per line), as a JSON array, or as pretty-printed JSON, and tables (CSV, TSV) with one row per
/// arm or per effect, each plain or compressed with gzip or zstd. Applies revisions, retractions and accumulating parts as the
/// worker does. For each population (metric x segment x scale) it fits the mean mu and the standard deviation tau
/// (heterogeneity) of the true effects, and prints them with every effect's shrunken estimate and credible interval.
/// Shrinkage corrects for the winner's curse, by which the largest measured effects are overestimates.
///
/// Refused messages and results are left out of the fit. How many of them there are of each reason, and the first
/// (`line 12: non_positive_variance: ...`), is said on stderr, and of a table what its columns were taken for.
///
/// The table is as wide as the terminal, within 80 to 100 columns. Set COLUMNS to override its width.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Exit with code 2 if there is anything that `shrinkd lint` would name
    #[arg(long)]
    strict: bool,
    /// How to handle the correlation between variants that share a control
    #[arg(long, alias = "treatment", value_enum, default_value_t = CorrelationArg::Modelled)]
    correlation: CorrelationArg,
    /// How to fit mu and tau; reml, ml, dl and pm are point estimates without priors, as in meta-analysis software
    #[arg(long, value_enum, default_value_t = MethodArg::Quadrature)]
    method: MethodArg,
    /// Prior of mu: flat, fixed:VALUE or normal:MEAN,SD
    ///
    /// In the unit of the effects, or in units taken from the data: 2se is two typical standard errors, 1sd one standard deviation of the
    /// raw effects, mean their mean (normal:0,2se, normal:mean,1sd).
    #[arg(long, default_value = "flat", value_name = "PRIOR", allow_hyphen_values = true)]
    prior_mu: PriorMu<Quantity>,
    /// Prior of tau: flat, fixed:VALUE, half-normal:SCALE, half-cauchy:SCALE, half-t:DF,SCALE, dumouchel:SCALE,
    /// uniform-shrinkage:SCALE, inverse-gamma:SHAPE,SCALE (of tau^2) or log-normal:MEAN,SD (of log tau)
    ///
    /// In the unit of the effects, or with a value or scale in typical standard errors: half-normal:0.5se. fixed:0 is the common-effect
    /// model. sd, the standard deviation of the raw effects, is a unit too, but contains their noise.
    #[arg(long, default_value = "flat", value_name = "PRIOR")]
    prior_tau: PriorTau<Quantity>,
    /// Prior of the intraclass correlation, by which the true effects of one experiment's variants are alike: none, uniform, fixed:VALUE, beta:A,B
    ///
    /// none takes them as independent; fixed:0.5 is the assumption of network meta-analysis. The largest correlation is 0.98, where beta is cut
    /// off; A and B are from 0.1 to 100. Only the model with the correlation modelled takes this prior, by quadrature; laplace and variational
    /// take none and fixed, the others take it as 0.
    #[arg(long, default_value = "none", value_name = "PRIOR")]
    prior_icc: PriorIcc,
    /// Which way of a metric's effects is better, where its results do not say; may be given several times
    ///
    /// More is better unless it is `decrease`, as of latencies and errors (latency=decrease). Estimates do not depend on it: P(best) and
    /// the search for missing losers do.
    #[arg(long, value_parser = parse_direction, value_name = "METRIC=DIRECTION")]
    direction: Vec<(String, Direction)>,
    /// Also compute each variant's probability of being the best of its experiment, counting the control
    #[arg(long)]
    best: bool,
    /// Which decisions in events mean shipped, separated by commas; case does not matter, and -, _ and spaces are one
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::NonEmptyStringValueParser::new(),
        default_value = ShippedDecisions::DEFAULT, value_name = "DECISIONS")]
    shipped_decisions: Vec<String>,
    /// Output format; csv has one row per effect
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd simulate --scenario portfolio | shrinkd fit
  shrinkd fit experiments.csv
  shrinkd fit 2025.csv.gz 2026.csv --map mean=avg_value
  shrinkd fit events.ndjson --format json | jq '.populations[].mu'
  shrinkd fit events.ndjson --prior-mu normal:0,0.1 --prior-tau half-normal:0.05
  shrinkd fit events.ndjson --prior-tau half-normal:0.5se
  shrinkd fit events.ndjson --prior-icc uniform
  shrinkd fit events.ndjson --best --direction latency=decrease
  shrinkd fit events.ndjson --method reml
  shrinkd fit events.ndjson --method reml --format json > fit.json
  shrinkd fit events.ndjson --method dl --format csv > estimates.csv

Exit codes:
  0  at least one population was fitted
  1  input or output failed
  2  no population could be fitted, a file cannot be understood, the command
     line is invalid, or --strict found something";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CorrelationArg {
    /// Model the error of the shared control, and how alike the true effects of its variants are
    #[value(alias = "correlated")]
    Modelled,
    /// Model the error of the shared control, and take true effects as independent
    ControlOnly,
    /// The naive model: treat all effects as independent
    #[value(alias = "independent")]
    Ignored,
    /// Use one variant of each experiment
    OnePerExperiment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    /// Exact posterior, by numerical integration
    Quadrature,
    /// Laplace approximation: a Gaussian at the posterior mode
    Laplace,
    /// Variational approximation: the closest Gaussian
    Variational,
    /// Restricted maximum likelihood
    Reml,
    /// Maximum likelihood
    Ml,
    /// Moment estimator of DerSimonian and Laird
    Dl,
    /// Moment estimator of Paule and Mandel
    Pm,
}

impl Args {
    fn request(&self) -> Request {
        Request {
            correlation: match self.correlation {
                CorrelationArg::Modelled => Correlation::Modelled,
                CorrelationArg::ControlOnly => Correlation::ControlOnly,
                CorrelationArg::Ignored => Correlation::Ignored,
                CorrelationArg::OnePerExperiment => Correlation::OnePerExperiment,
            },
            method: match self.method {
                MethodArg::Quadrature => Method::Quadrature,
                MethodArg::Laplace => Method::Laplace,
                MethodArg::Variational => Method::Variational,
                MethodArg::Reml => Method::Reml,
                MethodArg::Ml => Method::Ml,
                MethodArg::Dl => Method::Dl,
                MethodArg::Pm => Method::Pm,
            },
            priors: Priors { mu: self.prior_mu, tau: self.prior_tau, icc: self.prior_icc },
            is_best_wanted: self.best,
            thresholds: Thresholds::default(),
            threads: available_threads(),
        }
    }
}

fn parse_direction(text: &str) -> Result<(String, Direction), String> {
    let parsed = text.rsplit_once('=').and_then(|(metric, name)| {
        let direction = Direction::ALL.into_iter().find(|direction| direction.as_str() == name)?;
        Some((metric.to_owned(), direction))
    });
    parsed.ok_or_else(|| "expected METRIC=increase or METRIC=decrease".to_owned())
}

/// Reads the events, fits every population, and prints the report.
///
/// # Errors
/// Where the method does not take the prior, the file cannot be read or the output cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let request = args.request();
    if request.method.is_point() && request.priors != Priors::default() {
        writeln!(
            io::stderr(),
            "{} takes no priors: --prior-mu, --prior-tau and --prior-icc are ignored",
            request.method.as_str()
        )?;
    }
    if matches!(request.method, Method::Laplace | Method::Variational) && request.priors.icc.known().is_none() {
        return Err(CliError::Usage(PosteriorError::UnknownIcc.to_string()));
    }
    let mut stderr = io::stderr();
    let (mut history, mut tally, mut lint) =
        (History::default(), Tally::default(), Lint::with_directions(&args.direction));
    let misspelt = args.input.each(request.threads, &mut io::stderr(), |place, message| {
        if args.strict {
            lint.see(place, &message);
        }
        let (refusals, warnings) = history.take(message);
        refusals.iter().for_each(|refusal| tally.refuse(place, refusal));
        Ok(warnings.iter().try_for_each(|warning| tally.warn(place, warning, &mut stderr))?)
    })?;
    tally.write(&mut stderr)?;
    let report = Report::new(history, &request, &args.direction, &ShippedDecisions::new(&args.shipped_decisions))?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match args.format {
        Format::Table => table::write(&mut out, &report, text::width())?,
        Format::Json => json::write(&mut out, &report)?,
        Format::Csv => csv::write(&mut out, &report)?,
    }
    out.flush()?;
    let is_flawed = args.strict && {
        lint.see_columns(&misspelt);
        lint.judge(&report);
        lint.write(&mut stderr)?;
        !(lint.is_empty() && tally.is_empty())
    };
    let code = if report.is_any_fitted() && !is_flawed { ExitCode::SUCCESS } else { ExitCode::from(2) };
    // The process exits here; freeing every small allocation first would take a tenth of its run time.
    std::mem::forget(report);
    Ok(code)
}
