//! `shrinkd schema`: the event contract as a JSON Schema.

use std::io;
use std::process::ExitCode;

use shrinkd_core::event_schema;

use super::{CliError, text};

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
    text::json(&event_schema(), &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}
