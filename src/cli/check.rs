//! `shrinkd check`: validates a configuration, and on request what it connects to, without starting anything.

mod connect;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use super::{CliError, ConfigArg};
use crate::config::Config;

/// Validate a configuration, and print the effective settings
///
/// Reads the configuration file and the environment exactly as `shrinkd run` does, and prints every key as TOML, with its
/// value and where that was set. Values that may be secret are masked. No connection is made without --connect.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Connect to the brokers and the store, and print what is missing instead of the settings
    ///
    /// Checks that each broker accepts connections, that this client is authenticated, that the topic exists, and that it may be
    /// read as a member of the consumer group; that the store can be reached, has this build's schema, and grants the rights
    /// of a worker; and whether the connection is encrypted. Nothing is joined, written or created. Takes at most 10 s for
    /// the brokers and 10 s for the store.
    #[arg(long)]
    connect: bool,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd check --config config/production.toml
  shrinkd check -c config/local.toml | grep -v '# default'
  shrinkd check -c config/production.toml --connect

Exit codes:
  0  the configuration is valid; with --connect, every check is ok (warnings
     count as ok)
  1  output failed; with --connect, a check FAILED: its line says what to do
  2  the configuration is invalid: stderr names the key, where it was set, and
     what is allowed";

/// Validates and prints.
///
/// # Errors
/// Where the configuration is invalid, or stdout cannot be written to.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (config, dump) = Config::load_with_dump(args.config.config.as_deref(), env::vars_os())?;
    if !args.connect {
        io::stdout().lock().write_all(dump.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = runtime.block_on(connect::run(&config, io::stdout().lock()));
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    Ok(if failed? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
