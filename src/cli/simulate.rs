//! `shrinkd simulate`: writes seeded events to stdout, or to a Kafka topic.

mod producer;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;

use super::CliError;
use crate::config::Properties;
use crate::simulate::{Message, Population, Portfolio, Scenario, table};
use producer::Producer;

/// Simulate events with known truth, as NDJSON or a table on stdout or in a Kafka topic
///
/// The output is reproducible: the same arguments give the same bytes on every platform. Kafka messages are keyed by
/// experiment_id, and the retraction of a whole experiment is a tombstone (a null payload).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Scenario to simulate
    #[arg(long, value_enum, default_value_t = ScenarioName::Baseline)]
    scenario: ScenarioName,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of experiments [default: baseline: 50; portfolio: 300; else 25]
    #[arg(long, value_name = "N", value_parser = count(100_000_000))]
    experiments: Option<usize>,
    /// Variants per experiment, except those that the scenario fixes at one; portfolio: the maximum [default: baseline: 1;
    /// portfolio: 6; else 26]
    #[arg(long, value_name = "N", value_parser = count(1_000))]
    variants: Option<usize>,
    /// Mean of the true effects [default: 1]
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    mu: Option<f64>,
    /// Standard deviation of the true effects [default: 1]
    #[arg(long, value_parser = non_negative)]
    tau: Option<f64>,
    /// Standard error of a treatment's mean [default: treatment-heavy: 0.1, else 1]
    #[arg(long, value_parser = standard_error)]
    se: Option<f64>,
    /// Standard error of the control's mean [default: 1]
    #[arg(long, value_name = "SE", value_parser = non_negative)]
    control_se: Option<f64>,
    /// Sampling error of the control's mean in the last experiment [default: bad-control: -4, else random]
    #[arg(long, value_name = "ERROR", allow_negative_numbers = true, value_parser = finite)]
    control_error: Option<f64>,
    /// Format on stdout; csv has one row per arm, and no revisions or retractions: not of a portfolio
    #[arg(long, value_enum, default_value_t = EventFormat::Ndjson, conflicts_with = "brokers")]
    format: EventFormat,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Where and how to send the events, unless they go to stdout.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kafka")]
struct KafkaArgs {
    /// Send the events to these brokers (host:port, comma-separated) instead of stdout
    #[arg(long = "kafka", value_name = "BROKERS")]
    brokers: Option<String>,
    /// Topic to send to; it must exist
    #[arg(long, requires = "brokers", default_value = "completed-experiments")]
    topic: String,
    /// Set a librdkafka producer property; repeat for more
    #[arg(long = "set", value_name = "PROPERTY=VALUE", requires = "brokers")]
    properties: Vec<String>,
    /// Events per second [default: unlimited]
    #[arg(long, value_name = "N", requires = "brokers", value_parser = rate)]
    rate: Option<f64>,
    /// Send the lines of this file unchanged, instead of simulated events; - is stdin
    #[arg(long, value_name = "FILE", requires = "brokers", conflicts_with_all = [
        "format", "scenario", "seed", "experiments", "variants", "mu", "tau", "se", "control_se", "control_error",
    ])]
    input: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd simulate | shrinkd fit
  shrinkd simulate --format csv --experiments 40 > experiments.csv
  shrinkd simulate --scenario bad-control --seed 7 --control-error -8
  shrinkd simulate --scenario many-variants --variants 100 --tau 0.1
  shrinkd simulate --scenario baseline --experiments 1000 --variants 3
  shrinkd simulate --scenario portfolio --experiments 2000 > events.ndjson
  shrinkd simulate --scenario portfolio --kafka localhost:9092 --rate 200
  shrinkd simulate --input past.ndjson --kafka localhost:9092 --set linger.ms=50";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventFormat {
    /// Events, one a line
    Ndjson,
    /// A table
    Csv,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScenarioName {
    /// 50 experiments of one variant each
    Baseline,
    /// 24 experiments of one variant, and one of 26
    ManyVariants,
    /// 24 experiments of one variant, and one of 26 whose control was measured 4 standard errors too low
    BadControl,
    /// 24 experiments of one variant, and one of 26, with small controls that dominate the error of every effect
    TreatmentHeavy,
    /// A platform's mixed traffic: 13 metrics on four scales in every form of the contract, revisions, retractions, every
    /// sixtieth experiment a holdout, invalid results
    Portfolio,
}

impl ScenarioName {
    /// The scenario, unless it is the portfolio.
    fn of_one_population(self) -> Option<Scenario> {
        match self {
            ScenarioName::Baseline => Some(Scenario::Baseline),
            ScenarioName::ManyVariants => Some(Scenario::ManyVariants),
            ScenarioName::BadControl => Some(Scenario::BadControl),
            ScenarioName::TreatmentHeavy => Some(Scenario::TreatmentHeavy),
            ScenarioName::Portfolio => None,
        }
    }
}

/// Writes the events, or sends them.
///
/// # Errors
/// Where a portfolio is given the parameters of a single population, stdout cannot be written to, the file cannot be read,
/// or events are not delivered.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    match (&args.kafka.brokers, &args.kafka.input) {
        (None, _) => write(args)?,
        (Some(brokers), None) => send_messages(args.kafka.connect(brokers)?, args)?,
        (Some(brokers), Some(path)) => send_lines(args.kafka.connect(brokers)?, path)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl KafkaArgs {
    fn connect(&self, brokers: &str) -> Result<Producer<'_>, CliError> {
        // Not a parser of clap, which would repeat what it refuses: a value may be a secret.
        let properties =
            self.properties.iter().map(|property| property.split_once('=').filter(|(name, _)| !name.is_empty()));
        let properties: Option<Properties> = properties.collect();
        let properties = properties.ok_or_else(|| CliError::Usage("--set: expected PROPERTY=VALUE".to_owned()))?;
        Producer::connect(brokers, &self.topic, &properties, self.rate)
    }
}

impl Args {
    /// Generates the messages, one by one.
    fn each_message(&self, take: impl FnMut(Message) -> Result<(), CliError>) -> Result<(), CliError> {
        match self.scenario.of_one_population() {
            Some(scenario) => self.population(scenario).messages(self.seed).try_for_each(take),
            None => self.portfolio()?.messages(self.seed).try_for_each(take),
        }
    }

    fn population(&self, scenario: Scenario) -> Population {
        let own = scenario.population();
        let square = |se: f64| se * se;
        Population {
            experiments: self.experiments.unwrap_or(own.experiments),
            variants: self.variants.unwrap_or(own.variants),
            has_one_large: own.has_one_large,
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
            return Err(CliError::Usage(format!(
                "{flag} cannot be combined with --scenario portfolio, whose metrics have their own parameters"
            )));
        }
        let own = Portfolio::default();
        Ok(Portfolio {
            experiments: self.experiments.unwrap_or(own.experiments),
            max_variants: self.variants.unwrap_or(own.max_variants),
        })
    }
}

fn write(args: &Args) -> Result<(), CliError> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    if args.format == EventFormat::Csv {
        let scenario = args.scenario.of_one_population().ok_or_else(|| {
            CliError::Usage("--format csv cannot hold the revisions and retractions of --scenario portfolio".to_owned())
        })?;
        table::write(&args.population(scenario), args.seed, &mut out)?;
        return Ok(out.flush()?);
    }
    args.each_message(|message| Ok(write_line(&mut out, &message)?))?;
    Ok(out.flush()?)
}

/// Writes a message as a line of NDJSON.
pub(super) fn write_line(out: &mut impl Write, message: &Message) -> io::Result<()> {
    serde_json::to_writer(&mut *out, message)?;
    out.write_all(b"\n")
}

fn send_messages(mut producer: Producer<'_>, args: &Args) -> Result<(), CliError> {
    args.each_message(|message| {
        let payload = match &message {
            Message::Event(_) => Some(serde_json::to_vec(&message).map_err(io::Error::from)?),
            Message::Tombstone(_) => None,
        };
        producer.send(Some(message.experiment_id().as_bytes()), payload.as_deref())
    })?;
    report_delivered(producer.finish()?, 0)
}

/// Sends each line of a file that is not empty, its bytes unchanged.
fn send_lines(mut producer: Producer<'_>, path: &Path) -> Result<(), CliError> {
    let with_path = |error: io::Error| CliError::File { path: path.to_owned(), source: error };
    let mut reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(with_path)?))
    };
    let (mut line, mut keyless) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).map_err(with_path)? > 0 {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !text.is_empty() {
            let key = experiment_id(text);
            keyless += u64::from(key.is_none());
            producer.send(key.as_deref().map(str::as_bytes), Some(text))?;
        }
        line.clear();
    }
    report_delivered(producer.finish()?, keyless)
}

/// The experiment_id of a message, even if the rest of it is invalid.
fn experiment_id(message: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Keyed<'a> {
        #[serde(borrow)]
        experiment_id: Cow<'a, str>,
    }
    serde_json::from_slice::<Keyed<'_>>(message).ok().map(|keyed| keyed.experiment_id)
}

fn report_delivered(sent: u64, keyless: u64) -> Result<(), CliError> {
    let mut stderr = io::stderr().lock();
    writeln!(stderr, "{sent} events delivered")?;
    if keyless > 0 {
        writeln!(
            stderr,
            "{keyless} of them have no readable experiment_id and were sent without a key: they will be refused"
        )?;
    }
    Ok(())
}

pub(super) fn count(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

fn rate(text: &str) -> Result<f64, String> {
    finite(text)
        .ok()
        .filter(|rate| (1e-3..=1e6).contains(rate))
        .ok_or_else(|| "expected a number from 0.001 to 1000000".to_owned())
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a finite number".to_owned()),
    }
}

fn non_negative(text: &str) -> Result<f64, String> {
    finite(text).ok().filter(|number| *number >= 0.0).ok_or_else(|| "expected a number >= 0".to_owned())
}

/// A standard error whose square is a valid variance in the event contract.
fn standard_error(text: &str) -> Result<f64, String> {
    finite(text)
        .ok()
        .filter(|number| (1e-60..=1e60).contains(number))
        .ok_or_else(|| "expected a number from 1e-60 to 1e60".to_owned())
}
