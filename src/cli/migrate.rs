//! `shrinkd migrate`: creates or upgrades the database schema.

use std::process::ExitCode;

use super::{CliError, ConfigArg};
use crate::store::Store;

/// Create the database schema, or upgrade it to this build's version
///
/// Creates the tables in an empty database, and applies outstanding migrations to an existing one. Run it before you
/// start the first worker of a new version: `shrinkd run` refuses a database with any other schema, but creates a new
/// SQLite file by itself. Of the configuration only store.url is needed. In PostgreSQL it needs more privileges than the workers do: see deploy/postgres/roles.sql.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd migrate --config config/local.toml
  SHRINKD__STORE__URL=sqlite://shrinkd.db shrinkd migrate
  SHRINKD__STORE__URL=postgres://owner@db/shrinkd \\
    shrinkd migrate --config config/production.toml

Exit codes:
  0  the schema is up to date
  1  the database cannot be reached, or a migration failed and was rolled back
  2  the configuration is invalid, the SQLite file cannot be opened, or the
     database was migrated by a newer build";

/// Migrates the database.
///
/// # Errors
/// Where the database cannot be reached, a migration fails, or a newer build has migrated it.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let store = args.config.load_store()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Store::migrate(&store))?;
    println!("{} is at the schema of shrinkd {}", store.url, env!("CARGO_PKG_VERSION"));
    Ok(ExitCode::SUCCESS)
}
