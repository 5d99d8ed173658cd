//! `shrinkd schema`: the event contract as a JSON Schema.

use std::io::{self, Write};
use std::process::ExitCode;

use shrinkd_core::event_schema;

use super::CliError;

/// Print the JSON Schema of events, for producers
///
/// Draft 2020-12, generated from the types that the decoder parses, with examples and a description of every field.
/// Producers can validate events against it before sending them. It checks structure and types; consistency between
/// numbers (such as a covariance matrix that must be positive definite) is checked when events are ingested.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

const EXAMPLES: &str = "\
Examples:
  shrinkd schema > completed-experiment.schema.json
  shrinkd schema | jq '.examples[0]'";

/// Prints the schema.
///
/// # Errors
/// Where stdout cannot be written to.
pub fn run(_: &Args) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &event_schema()).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}
