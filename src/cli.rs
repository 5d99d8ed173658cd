//! The command line: one room per command, each with its arguments and a `run`.
//!
//! The doc comments of the arguments are what `--help` prints.

pub mod check;
mod correlation;
pub mod demo;
pub mod fit;
pub mod migrate;
pub mod partitions;
mod plot;
pub mod rebuild;
pub mod replay_rejected;
pub mod run;
pub mod schema;
pub mod simulate;
pub mod study;
mod text;
mod verdict;
pub mod verify;

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError};
use crate::http::BindError;
use crate::store::StoreError;
use crate::study::StudyError;
use crate::verify::VerifyError;
use crate::worker::WorkerError;
use crate::worker::replay::ReplayError;

/// Empirical-Bayes estimates for experimentation platforms, exact under a shared control.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done (a reader that closes its end of a pipe early is no error)
  1  input, output or a computation failed
  2  the command line or the configuration says something that cannot be done";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Migrate(migrate::Args),
    Partitions(partitions::Args),
    Verify(verify::Args),
    ReplayRejected(replay_rejected::Args),
    Rebuild(rebuild::Args),
    Demo(demo::Args),
    Fit(fit::Args),
    Simulate(simulate::Args),
    Study(study::Args),
    Schema(schema::Args),
    Check(check::Args),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Kafka(String),
    /// What should not happen whatever the input.
    #[error("{0} (a bug: please report it with the input)")]
    Internal(String),
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Http(#[from] BindError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("the audit could not be finished: {0}")]
    Verify(#[from] VerifyError),
    #[error("{0}; what was replayed before stands, and the same command goes on behind it")]
    Replay(#[from] ReplayError),
}

/// Which configuration a command goes by.
#[derive(Debug, clap::Args)]
pub struct ConfigArg {
    /// Configuration file (TOML); without one, defaults and the environment (SHRINKD__SECTION__KEY) apply.
    #[arg(long, short, env = "SHRINKD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArg {
    /// Reads the file and the environment.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), env::vars_os())
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: everything
    Json,
    /// Rows under a header
    Csv,
}

impl Cli {
    /// Runs the command. A broken pipe ends it quietly: whoever reads the output has seen enough.
    ///
    /// # Errors
    /// Where the arguments contradict each other, or reading or writing fails.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let result = match self.command {
            Command::Run(args) => run::run(&args),
            Command::Migrate(args) => migrate::run(&args),
            Command::Partitions(args) => partitions::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::ReplayRejected(args) => replay_rejected::run(&args),
            Command::Rebuild(args) => rebuild::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Fit(args) => fit::run(&args),
            Command::Simulate(args) => simulate::run(&args),
            Command::Study(args) => study::run(&args),
            Command::Schema(args) => schema::run(&args),
            Command::Check(args) => check::run(&args),
        };
        match result {
            Err(CliError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            result => result,
        }
    }
}

impl CliError {
    /// The exit code that says what kind of error this was.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            CliError::Io(_)
            | CliError::File { .. }
            | CliError::Kafka(_)
            | CliError::Internal(_)
            | CliError::Study(_)
            | CliError::Http(_)
            | CliError::Verify(_) => ExitCode::from(1),
            CliError::Store(error)
            | CliError::Worker(WorkerError::Store(error))
            | CliError::Replay(ReplayError::Worker(WorkerError::Store(error))) => match error {
                StoreError::Schema { .. } | StoreError::Settings { .. } => ExitCode::from(2),
                _ => ExitCode::from(1),
            },
            CliError::Worker(_) | CliError::Replay(_) => ExitCode::from(1),
            CliError::Usage(_) | CliError::Config(_) => ExitCode::from(2),
        }
    }
}
