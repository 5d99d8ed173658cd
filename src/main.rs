//! Parses the command line, runs the command, and reports its error and exit code.

use std::process::ExitCode;

use clap::Parser;
use shrinkd::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}
