//! `shrinkd schema`: the event contract for machines.

use std::io::{self, Write};
use std::process::ExitCode;

use shrinkd_core::event_schema;

use super::CliError;

/// Print the JSON Schema of the events that are read
///
/// Draft 2020-12, generated from the types that the decoder reads, with a description of every field and examples.
/// Producers validate against it before they send; what only the numbers themselves can tell is left to the decoder.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

const EXAMPLES: &str = "\
Examples:
  shrinkd schema > completed-experiment.schema.json
  shrinkd schema | jq '.examples[0]'";

/// Writes the schema.
///
/// # Errors
/// Where stdout cannot be written to.
pub fn run(_: &Args) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &event_schema()).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}
