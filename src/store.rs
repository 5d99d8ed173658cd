//! The store: where a worker's state and its output are kept, in PostgreSQL or in a SQLite file.
//!
//! | room | what is there |
//! | --- | --- |
//! | `database`, `query` | the two databases, and all that differs between them |
//! | `columns`, `copy` | the columns of a table, each named once, and how rows reach PostgreSQL many at a time |
//! | `schema`, `settings` | whether a database is one for this build and this configuration |
//! | `inspect` | who connects, what it may do, and whether the connection is encrypted |
//! | `partitions` | who owns a partition, how far it was read, and what operators do to it |
//! | `ingest`, `experiments`, `estimates` | the transaction of a batch |
//! | `changes` | the log of what batches changed in the blocks, and refits take out of it |
//! | `refit`, `statistics`, `cells`, `fits` | the transaction of a refit |
//! | `publish`, `populations` | passes through the blocks of a population, and populations as they stand |
//! | `replay` | refused messages, read back and taken in again |
//! | `rebuild`, [`audit`] | everything recomputed, everything read as of one moment |
//!
//! | transaction | what it makes one |
//! | --- | --- |
//! | [`Store::claim`] | the epochs of partitions are raised, and where to read on is returned |
//! | [`Ingest`] | offsets, experiments, blocks, the log of their changes, refusals, and the estimates of changed blocks |
//! | [`Refit`] | of up to a hundred populations: changes taken out of the log, cells, fits and diagnostics |
//! | [`Store::write_estimates`] | one page of whole publishes, and their cursors |
//! | [`Audit`] | everything as of one moment, read only |
//! | [`Rebuild`] | everything that is computed from what was sent, computed anew, and the settings that it is computed with |
//!
//! A store knows the settings of whoever opened it. [`Ingest`], [`Refit`] and passes check in their own transactions that the
//! database still has the same: after a rebuild under other settings nothing of the old ones is written any more.
//!
//! **Locks.** On PostgreSQL every ingest holds an advisory lock shared; whoever takes it alone (a rebuild, a replay, the
//! begin of a pass) has waited for all ingests that were under way. Rows are locked in the order of their keys. A batch locks
//! experiments, then their blocks, and no population that is there already; refits and passes lock populations, and a pass that
//! puts in estimates which batches have left to it then locks the blocks of its page. On SQLite there is one writer: a transaction that
//! writes holds the file's lock from its first moment, and no other lock is needed.
//!
//! **Errors.** Every call fails with a [`StoreError`] where the database does, or where what it holds cannot be read; only what
//! else can go wrong is said beside each. Calls are not cancel-safe: they are never put into `select!` or a timeout.

pub mod audit;
mod cells;
mod changes;
mod columns;
mod copy;
mod database;
mod error;
mod estimates;
mod experiments;
mod fits;
mod ingest;
mod inspect;
mod partitions;
mod populations;
mod publish;
mod query;
mod rebuild;
mod refit;
mod replay;
mod schema;
mod settings;
mod statistics;

use std::sync::Arc;

use sqlx::postgres::PgPool;

pub use audit::Audit;
pub use error::StoreError;
pub use ingest::{Ingest, Written};
pub use inspect::Inspection;
pub use rebuild::{RawEstimates, Rebuild};
pub use refit::{Refit, Refitted};

use crate::config::StoreConfig;
use crate::row::StoreSettings;
use database::Pools;

/// A database whose schema this build knows, and what it should be filled with.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Pools,
    settings: Arc<StoreSettings>,
    floor: changes::Floor,
}

impl Store {
    /// Connects to the database, which must have this build's schema and these settings. One that nobody has filled takes
    /// the settings on; a SQLite file that is missing or empty becomes a new database.
    ///
    /// # Errors
    /// Where it cannot be reached, or is not one for this build or these settings.
    pub async fn connect(config: &StoreConfig, settings: &StoreSettings) -> Result<Store, StoreError> {
        let store = Store::connect_to_rebuild(config, settings).await?;
        let checked = async { store.check_settings().await.map_err(|error| error.while_connecting(&config.url)) };
        match store.pools {
            Pools::Postgres { .. } => schema::in_time(&config.url, checked).await?,
            Pools::Sqlite { .. } => checked.await?,
        }
        Ok(store)
    }

    /// The same, whatever settings the database was filled with: a rebuild replaces them by these.
    ///
    /// # Errors
    /// As for [`Store::connect`], but for the settings.
    pub async fn connect_to_rebuild(config: &StoreConfig, settings: &StoreSettings) -> Result<Store, StoreError> {
        let pools = match config.url.file() {
            None => schema::connect_postgres(&config.url, config.connections).await?,
            Some(file) => schema::open_sqlite(file).await?,
        };
        Ok(Store { pools, settings: Arc::new(settings.clone()), floor: changes::Floor::default() })
    }

    /// The same as [`Store::connect`], for whoever looks at what is there: no database is made.
    ///
    /// # Errors
    /// As for [`Store::connect`], and where there is no database.
    pub async fn connect_existing(config: &StoreConfig, settings: &StoreSettings) -> Result<Store, StoreError> {
        match config.url.file() {
            Some(file) if !file.exists() => Err(StoreError::Open {
                database: file.display().to_string(),
                message: "there is no such file; check store.url".to_owned(),
            }),
            _ => Store::connect(config, settings).await,
        }
    }

    /// Brings the schema of a database up to this build's.
    ///
    /// # Errors
    /// Where it cannot be reached, has a newer schema, or a migration fails.
    pub async fn migrate(config: &StoreConfig) -> Result<(), StoreError> {
        match config.url.file() {
            None => schema::migrate_postgres(&config.url).await,
            Some(file) => schema::migrate_sqlite(file).await,
        }
    }

    /// Closes all connections; waits for whoever uses a clone of the store. Of SQLite everything is in the one file then,
    /// and its write-ahead log is gone.
    pub async fn close(self) {
        match self.pools {
            Pools::Postgres { pool, .. } => pool.close().await,
            // A connection that only reads cannot put the log away: the one that writes goes last.
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }

    /// The connections to PostgreSQL, for tests that look at their sessions.
    pub fn postgres_pool(&self) -> Option<&PgPool> {
        match &self.pools {
            Pools::Postgres { pool, .. } => Some(pool),
            Pools::Sqlite { .. } => None,
        }
    }
}
