//! `shrinkd check`: what the worker would be told, before it is.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use super::{CliError, ConfigArg};
use crate::config::Config;

/// Check a configuration and print what it comes to
///
/// Reads the file and the environment as `shrinkd run` does, and prints every key with its value and where that came
/// from, as TOML; passwords and other secrets are masked. Nothing is connected to.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd check --config config/production.toml
  shrinkd check -c config/local.toml | grep -v '# default'

Exit codes:
  0  the configuration can be run
  1  output failed
  2  it cannot be run: stderr names the key, where its value came from, and what is allowed";

/// Checks and prints.
///
/// # Errors
/// Where the configuration is not taken, or stdout cannot be written to.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (_, dump) = Config::load_with_dump(args.config.config.as_deref(), env::vars_os())?;
    io::stdout().lock().write_all(dump.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
