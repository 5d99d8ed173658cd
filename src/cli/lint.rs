//! `shrinkd lint`: what in a file of events would be refused, ignored, or is probably not what was meant.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::process::ExitCode;

use shrinkd_core::{Event, History, Message, Refusal, ReportedResult, ShippedDecisions};
use shrinkd_model::{Direction, Request, available_threads};

use super::CliError;
use super::fit::Report;
use super::input::{InputArgs, MisspeltColumn, Place};
use super::preview::did_you_mean;
use super::tally::{Tally, write_firsts};
use super::text::counted;

/// Name what in files of events would be refused or ignored, or is probably not what was meant
///
/// Reads files as `shrinkd fit` does, and lists, by kind with counts and the first of each: fields that the contract does not have (with
/// the nearest that it has) and columns of tables that look misspelt, experiments that come more than once at the same revision, metrics
/// whose names say that lower is better and that have no direction, likely mix-ups of units, and what would be refused, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd lint events.ndjson
  shrinkd lint experiments.csv --map mean=avg_value

Exit codes:
  0  nothing was found
  1  input or output failed
  2  something was found, a file cannot be understood, or the command line is
     invalid";

/// Reads the files, and lists what was found.
///
/// # Errors
/// Where a file cannot be read or understood, or the output cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (mut history, mut tally, mut lint) = (History::default(), Tally::default(), Lint::default());
    let mut messages = 0_u64;
    let misspelt = args.input.each(available_threads(), &mut io::stderr(), |place, message| {
        messages += 1;
        lint.see(place, &message);
        let (refusals, _) = history.take(message);
        refusals.iter().for_each(|refusal| tally.refuse(place, refusal));
        Ok(())
    })?;
    lint.see_columns(&misspelt);
    let request = Request { threads: available_threads(), ..Request::default() };
    lint.judge(&Report::new(history, &request, &[], &ShippedDecisions::default())?);
    let mut out = io::stdout().lock();
    tally.write(&mut out)?;
    lint.write(&mut out)?;
    if lint.is_empty() && tally.is_empty() {
        writeln!(out, "{}, nothing found", counted(messages, "message"))?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(2))
}

/// What a finding is about, in the order in which they are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Of this name.
    UnknownField(String),
    /// Likewise.
    MisspeltColumn(String),
    Repeated,
    /// Of this metric.
    NoDirection(String),
    /// In this population.
    MixUp(String),
}

/// What is found in the messages that are taken.
#[derive(Debug, Default)]
pub(super) struct Lint {
    /// How many, and the first of each kind.
    found: BTreeMap<Kind, (u64, String)>,
    /// Where each experiment came at each revision, parts with their event id.
    seen: HashMap<String, HashMap<(u64, Option<String>), String>>,
    /// The metrics whose direction is known otherwise than from the messages.
    with_direction: BTreeSet<String>,
}

impl Lint {
    /// A lint that does not miss the directions of these metrics.
    pub(super) fn with_directions(directions: &[(String, Direction)]) -> Lint {
        Lint { with_direction: directions.iter().map(|(metric, _)| metric.clone()).collect(), ..Lint::default() }
    }

    /// Looks at a message before it is taken.
    pub(super) fn see(&mut self, place: &Place<'_>, message: &Result<Message, Refusal>) {
        match message {
            Ok(Message::Event(event)) => self.see_event(place, event),
            // What comes after it is taken as if for the first time.
            Ok(Message::Tombstone { experiment_id }) => drop(self.seen.remove(experiment_id)),
            Err(_) => {}
        }
    }

    fn see_event(&mut self, place: &Place<'_>, event: &Event) {
        for field in &event.unknown_fields {
            self.find(Kind::UnknownField(field.name.clone()), || format!("{place}: unknown field: {field}"));
        }
        let seen = self.seen.entry(event.experiment_id.clone()).or_default();
        match seen.entry((event.revision, event.event_id.clone())) {
            Entry::Vacant(vacant) => _ = vacant.insert(place.to_string()),
            Entry::Occupied(first) => {
                let told = format!(
                    "{place}: experiment {:?} comes again at revision {} (first in {}): give a correction a larger revision",
                    event.experiment_id,
                    event.revision,
                    first.get()
                );
                self.find(Kind::Repeated, || told);
            }
        }
        let whole = event.results.iter().flatten().filter_map(|result| match result {
            ReportedResult::Whole { key, properties, .. } if properties.direction.is_none() => {
                Some(key.metric.as_str())
            }
            _ => None,
        });
        let is_open = |metric: &&str| is_lower_better(metric) && !self.with_direction.contains(*metric);
        for metric in whole.filter(is_open).collect::<BTreeSet<_>>() {
            self.find(Kind::NoDirection(metric.to_owned()), || {
                format!("{place}: metric {metric:?} has no direction: is lower better? Then send \"direction\": \"decrease\"")
            });
        }
    }

    /// Looks at the columns of tables.
    pub(super) fn see_columns(&mut self, misspelt: &[MisspeltColumn]) {
        for MisspeltColumn { file, column, field } in misspelt {
            self.find(Kind::MisspeltColumn(column.clone()), || {
                format!("{file}: unknown column: {}", did_you_mean((column, *field)))
            });
        }
    }

    /// Looks at what was made of all messages.
    pub(super) fn judge(&mut self, report: &Report) {
        for (name, fitted) in &report.populations {
            for mix_up in &fitted.mix_ups {
                self.find(Kind::MixUp(name.to_string()), || format!("{name}: likely mix-up: {mix_up}"));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Writes a line for each kind of finding: how many, and the first.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write_firsts(out, "found; the first of each kind", self.found.values())
    }

    fn find(&mut self, kind: Kind, told: impl FnOnce() -> String) {
        self.found.entry(kind).or_insert_with(|| (0, told())).0 += 1;
    }
}

/// Parts of the names of metrics of which less is better.
const LOWER_IS_BETTER: [&str; 17] = [
    "latency",
    "error",
    "bounce",
    "churn",
    "time",
    "cost",
    "unsubscribe",
    "crash",
    "duration",
    "delay",
    "refund",
    "complaint",
    "failure",
    "abandon",
    "cancel",
    "timeout",
    "load",
];

/// Names of which a part is among those, and of which more may well be better.
const HIGHER_IS_BETTER: [&str; 5] = ["lifetime", "timeonsite", "timespent", "watchtime", "download"];

/// Whether a metric's name says that lower is better.
fn is_lower_better(metric: &str) -> bool {
    let name: String = metric.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    has(&LOWER_IS_BETTER) && !has(&HIGHER_IS_BETTER)
}
