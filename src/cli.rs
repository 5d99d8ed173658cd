//! The command line: one module per command, each with its arguments and a `run`.
//!
//! The doc comments of the arguments are the text of `--help`.

pub mod check;
pub mod convert;
mod correlation;
pub mod demo;
mod design;
pub mod fit;
mod input;
pub mod lint;
pub mod migrate;
mod operator;
pub mod partitions;
mod plot;
mod preview;
pub mod rebuild;
pub mod replay_rejected;
pub mod run;
pub mod schema;
pub mod simulate;
pub mod study;
mod tally;
mod text;
mod verdict;
pub mod verify;
pub mod when;

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError, StoreConfig};
use crate::http::BindError;
use crate::store::StoreError;
use crate::study::StudyError;
use crate::verify::VerifyError;
use crate::worker::WorkerError;
use crate::worker::replay::ReplayError;
use crate::worker::source::SourceError;

/// Empirical-Bayes estimates for experimentation platforms, exact under a shared control
///
/// Fits a random-effects model to the measured effects of completed experiments, one population (metric x segment x
/// scale) at a time: mu is the mean of the true effects, tau their standard deviation (heterogeneity). Every effect is
/// then shrunk towards mu, which corrects for the winner's curse. The error of a control that several variants share is
/// part of the model.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success; also if whatever reads the output closes the pipe early
  1  input, output or a computation failed
  2  the command line or the configuration is invalid";

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
    Lint(lint::Args),
    Convert(convert::Args),
    Simulate(simulate::Args),
    Study(study::Args),
    When(when::Args),
    Schema(schema::Args),
    Check(check::Args),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments contradict each other, or name something that does not exist.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Kafka(String),
    /// A bug: no input should lead to it.
    #[error("{0} (this is a bug: please report it together with the input)")]
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
    #[error("the audit could not be completed: {0}")]
    Verify(#[from] VerifyError),
    #[error("{0}; messages replayed so far are committed: run the same command again for the rest")]
    Replay(#[from] ReplayError),
}

/// The configuration of a command that uses the store.
#[derive(Debug, clap::Args)]
pub struct ConfigArg {
    /// Configuration file (TOML); environment variables (SHRINKD__SECTION__KEY) override it
    // Global: subcommands, which `shrinkd partitions` has, take it too.
    #[arg(long, short, env = "SHRINKD_CONFIG", value_name = "FILE", global = true)]
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

    /// Reads the store alone, for a command that needs no source.
    ///
    /// # Errors
    /// As for [`Config::load_store`].
    pub fn load_store(&self) -> Result<StoreConfig, ConfigError> {
        Config::load_store(self.config.as_deref(), env::vars_os())
    }
}

/// The output format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Human-readable text
    Table,
    /// Every result, as one JSON document
    Json,
    /// One table, with a header row
    Csv,
}

impl Cli {
    /// Runs the command. A broken pipe is no error: the reader of the output has closed it early.
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
            Command::Lint(args) => lint::run(&args),
            Command::Convert(args) => convert::run(&args),
            Command::Simulate(args) => simulate::run(&args),
            Command::Study(args) => study::run(&args),
            Command::When(args) => when::run(&args),
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
    /// The exit code for this kind of error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            CliError::Io(_)
            | CliError::File { .. }
            | CliError::Output { .. }
            | CliError::Kafka(_)
            | CliError::Internal(_)
            | CliError::Study(_)
            | CliError::Http(_)
            | CliError::Verify(_) => ExitCode::from(1),
            CliError::Store(error)
            | CliError::Worker(WorkerError::Store(error))
            | CliError::Replay(ReplayError::Worker(WorkerError::Store(error))) => match error {
                StoreError::Schema { .. } | StoreError::Settings { .. } | StoreError::Open { .. } => ExitCode::from(2),
                _ => ExitCode::from(1),
            },
            CliError::Worker(WorkerError::Source(SourceError::NotLines { .. })) => ExitCode::from(2),
            CliError::Worker(_) | CliError::Replay(_) => ExitCode::from(1),
            CliError::Usage(_) | CliError::Config(_) => ExitCode::from(2),
        }
    }
}
