//! `shrinkd convert`: makes events of tables, and lines of other JSON.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use indicatif::ProgressBar;

use super::input::{InputArgs, failed, name};
use super::tally::Tally;
use super::{CliError, preview};
use crate::files::Form;

/// Make events (NDJSON) of tables or other JSON, for the worker or Kafka
///
/// Writes the events to stdout, each of them as `shrinkd fit` would take it from the same file. What the columns of a table were taken for
/// is said on stderr, and so is which rows cannot be read, and why. Events are not judged here: `shrinkd lint` does that.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What the files are
    #[arg(long, value_enum)]
    from: From,
    #[command(flatten)]
    input: InputArgs,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd convert --from csv experiments.csv > events.ndjson
  shrinkd convert --from csv 2026.csv | shrinkd run -c config/embedded.toml
  shrinkd convert --from json array.json.gz > events.ndjson

Exit codes:
  0  events were written
  1  input or output failed
  2  no event could be made, a file cannot be understood, or the command line
     is invalid";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// CSV or TSV, one row per arm or per effect
    Csv,
    /// A JSON array, or JSON messages over several lines
    Json,
}

/// Writes the events.
///
/// # Errors
/// Where a file cannot be read, is something else than `--from` says, or the output cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut tally = Tally::default();
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let (mut text, mut events) = (Vec::new(), 0_u64);
    for path in args.input.files() {
        let mut messages = args.input.open(path, &ProgressBar::hidden(), &mut |place, message| {
            if let Err(refusal) = message {
                tally.refuse(place, &refusal);
            }
            Ok(())
        })?;
        if let Some(form) = messages.form() {
            check(path, form, args.from)?;
        }
        preview::write(path, &messages, &mut io::stderr())?;
        loop {
            let items = messages.batch(&mut text).map_err(|error| failed(path, error.into()))?;
            if items.is_empty() {
                break;
            }
            for item in items {
                match &item.text {
                    Ok(range) if range.is_empty() => {}
                    Ok(range) => {
                        out.write_all(text.get(range.clone()).unwrap_or_default())?;
                        out.write_all(b"\n")?;
                        events += 1;
                    }
                    Err(refusal) => tally.refuse(&args.input.place(path, &messages, item.number), refusal),
                }
            }
        }
    }
    out.flush()?;
    tally.write(&mut io::stderr())?;
    Ok(if events > 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// # Errors
/// Where the file is something else than `--from` says: what it looks like, and what to do.
fn check(path: &Path, form: Form, from: From) -> Result<(), CliError> {
    let told = match (form, from) {
        (Form::Table, From::Csv) | (Form::Lines | Form::Documents, From::Json) => return Ok(()),
        (Form::Table, From::Json) => "looks like a table (CSV or TSV), not JSON: use --from csv",
        (Form::Documents, From::Csv) => {
            "looks like JSON in an array or over several lines, not a table: use --from json"
        }
        (Form::Lines, From::Csv) => {
            "looks like events already (NDJSON), not a table: `shrinkd run` and Kafka take them as they are, and --from json passes them on"
        }
    };
    Err(CliError::Usage(format!("{} {told}", name(path))))
}
