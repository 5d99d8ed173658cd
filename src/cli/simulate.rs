//! `shrinkd simulate`: seeded events on stdout.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;

use super::CliError;
use crate::simulate::{Message, Population, Portfolio, Scenario};

/// Write simulated events to stdout, one JSON message a line
///
/// The same arguments give the same bytes on every platform.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to simulate
    #[arg(long, value_enum, default_value_t = ScenarioName::Baseline)]
    scenario: ScenarioName,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of experiments [default: the scenario's own, portfolio 300]
    #[arg(long, value_name = "N", value_parser = count(100_000_000))]
    experiments: Option<usize>,
    /// Variants of each experiment that is not held to one; portfolio: at most so many [default: the scenario's own,
    /// portfolio 6]
    #[arg(long, value_name = "N", value_parser = count(1_000))]
    variants: Option<usize>,
    /// Mean of the true effects [default: 1]
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    mu: Option<f64>,
    /// Standard deviation of the true effects [default: 1]
    #[arg(long, value_parser = non_negative)]
    tau: Option<f64>,
    /// Standard error of a treatment's mean [default: the scenario's own]
    #[arg(long, value_parser = standard_error)]
    se: Option<f64>,
    /// Standard error of the control's mean, in experiments that are not held to one variant [default: the scenario's
    /// own]
    #[arg(long, value_name = "SE", value_parser = non_negative)]
    control_se: Option<f64>,
    /// Error of the last experiment's control mean [default: bad-control -5, else drawn from its standard error]
    #[arg(long, value_name = "ERROR", allow_negative_numbers = true, value_parser = finite)]
    control_error: Option<f64>,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd simulate | shrinkd fit
  shrinkd simulate --scenario bad-control --seed 7 --control-error -8
  shrinkd simulate --scenario treatment-heavy --experiments 1000 --mu 0.2 --tau 0.1 --se 0.1
  shrinkd simulate --scenario portfolio --experiments 2000 > events.ndjson";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScenarioName {
    /// 50 experiments of one variant and unequal sizes (--se is then their root mean square)
    Baseline,
    /// 49 experiments of one variant, and one with 100
    ManyVariants,
    /// 15 experiments of one variant, and one with 15 whose control's mean is far too low
    BadControl,
    /// 20 experiments of 5 variants and a small control, which is most of every effect's error
    TreatmentHeavy,
    /// A platform's mixed traffic: six metrics on three scales, revisions, retractions, results to refuse
    Portfolio,
}

/// Writes the events.
///
/// # Errors
/// Where a portfolio is given one population's truths, or stdout cannot be written to.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    match args.scenario {
        ScenarioName::Baseline => write(args.population(Scenario::Baseline).messages(args.seed))?,
        ScenarioName::ManyVariants => write(args.population(Scenario::ManyVariants).messages(args.seed))?,
        ScenarioName::BadControl => write(args.population(Scenario::BadControl).messages(args.seed))?,
        ScenarioName::TreatmentHeavy => write(args.population(Scenario::TreatmentHeavy).messages(args.seed))?,
        ScenarioName::Portfolio => write(args.portfolio()?.messages(args.seed))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn population(&self, scenario: Scenario) -> Population {
        let own = scenario.population();
        let square = |se: f64| se * se;
        Population {
            scenario,
            experiments: self.experiments.unwrap_or(own.experiments),
            variants: self.variants.unwrap_or(own.variants),
            mu: self.mu.unwrap_or(own.mu),
            tau: self.tau.unwrap_or(own.tau),
            treatment_variance: self.se.map_or(own.treatment_variance, square),
            control_variance: self.control_se.map_or(own.control_variance, square),
            control_error: self.control_error.or(own.control_error),
        }
    }

    fn portfolio(&self) -> Result<Portfolio, CliError> {
        let truths = [
            ("--mu", self.mu),
            ("--tau", self.tau),
            ("--se", self.se),
            ("--control-se", self.control_se),
            ("--control-error", self.control_error),
        ];
        if let Some((flag, _)) = truths.iter().find(|(_, value)| value.is_some()) {
            return Err(CliError::Usage(format!("{flag} does not go with portfolio: each of its metrics has its own")));
        }
        Ok(Portfolio { experiments: self.experiments.unwrap_or(300), max_variants: self.variants.unwrap_or(6) })
    }
}

fn write(messages: impl Iterator<Item = Message>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    for message in messages {
        serde_json::to_writer(&mut out, &message)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn count(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a finite number".to_owned()),
    }
}

fn non_negative(text: &str) -> Result<f64, String> {
    finite(text).ok().filter(|number| *number >= 0.0).ok_or_else(|| "expected a number of 0 or more".to_owned())
}

/// A standard error whose square the event contract takes for a variance.
fn standard_error(text: &str) -> Result<f64, String> {
    finite(text)
        .ok()
        .filter(|number| (1e-60..=1e60).contains(number))
        .ok_or_else(|| "expected a number from 1e-60 to 1e60".to_owned())
}
