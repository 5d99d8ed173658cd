//! Parses the command line, calls the library, and says how it went.

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
