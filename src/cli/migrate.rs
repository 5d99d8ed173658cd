//! `shrinkd migrate`: the store's schema.

use std::process::ExitCode;

use super::{CliError, ConfigArg};
use crate::store::Store;

/// Bring the database up to this build's schema
///
/// Makes the tables of an empty database, and applies what is missing to one that an older build has made. Run it before
/// the first worker of a new version; `shrinkd run` refuses a PostgreSQL database of any other schema. Workers need
/// fewer rights than this command: see deploy/postgres/roles.sql.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

const EXAMPLES: &str = "\
Examples:
  shrinkd migrate --config config/local.toml
  SHRINKD__STORE__URL=postgres://owner@db/shrinkd shrinkd migrate --config config/production.toml

Exit codes:
  0  the schema is this build's
  1  the database cannot be reached, or a migration failed: nothing of it is left behind
  2  the configuration is wrong, or a newer build has migrated the database";

/// Migrates.
///
/// # Errors
/// Where the database cannot be reached or is not one for this build.
pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = args.config.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Store::migrate(&config.store))?;
    println!("{} has the schema of shrinkd {}", config.store.url, env!("CARGO_PKG_VERSION"));
    Ok(ExitCode::SUCCESS)
}
