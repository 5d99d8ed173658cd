//! `shrinkd check`: validates a configuration without starting anything.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use super::{CliError, ConfigArg};
use crate::config::Config;

/// Validate a configuration, and print the effective settings
///
/// Reads the configuration file and the environment exactly as `shrinkd run` does, and prints every key as TOML, with its
/// value and where that was set. Passwords and other secrets are masked. No connection is made.
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
  0  the configuration is valid
  1  output failed
  2  the configuration is invalid: stderr names the key, where it was set, and
     what is allowed";

/// Validates and prints.
///
/// # Errors
/// Where the configuration is invalid, or stdout cannot be written to.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (_, dump) = Config::load_with_dump(args.config.config.as_deref(), env::vars_os())?;
    io::stdout().lock().write_all(dump.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
