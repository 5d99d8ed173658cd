//! Which of the stores it is, by the configuration.

use std::path::Path;

use super::{StoreError, StoreSettings, postgres, sqlite};
use crate::config::{StoreConfig, StoreUrl};

/// A store of the kind that the configuration names.
pub enum AnyStore {
    Postgres(postgres::PostgresStore),
    Sqlite(sqlite::SqliteStore),
}

impl AnyStore {
    /// Connects to the store, which must have this build's schema and these settings. An SQLite database that is not there
    /// yet, or is empty, is made.
    ///
    /// # Errors
    /// Where it cannot be reached, or is not one for this build.
    pub async fn connect(config: &StoreConfig, settings: &StoreSettings) -> Result<AnyStore, StoreError> {
        let store = AnyStore::connect_to_rebuild(config, settings).await?;
        match &store {
            AnyStore::Postgres(store) => store.check_settings().await?,
            AnyStore::Sqlite(store) => store.check_settings().await?,
        }
        Ok(store)
    }

    /// The same, whatever settings the store was filled with: a rebuild replaces them by these.
    ///
    /// # Errors
    /// As for [`AnyStore::connect`].
    pub async fn connect_to_rebuild(config: &StoreConfig, settings: &StoreSettings) -> Result<AnyStore, StoreError> {
        Ok(match &config.url {
            StoreUrl::Postgres(url) => {
                let options = postgres::options(url)?;
                let store = postgres::PostgresStore::connect_to_rebuild(options, config.connections, settings);
                AnyStore::Postgres(store.await?)
            }
            StoreUrl::Sqlite(url) => {
                AnyStore::Sqlite(sqlite::SqliteStore::open_to_rebuild(sqlite_path(url), settings).await?)
            }
        })
    }

    /// The same, for whoever looks at what is there: no database is made.
    ///
    /// # Errors
    /// As for [`AnyStore::connect`], and where there is no database.
    pub async fn connect_existing(config: &StoreConfig, settings: &StoreSettings) -> Result<AnyStore, StoreError> {
        match &config.url {
            StoreUrl::Sqlite(url) if !sqlite_path(url).exists() => Err(StoreError::Permanent {
                context: "cannot open the database file",
                code: None,
                message: format!("{} is not there; check store.url", sqlite_path(url).display()),
            }),
            _ => AnyStore::connect(config, settings).await,
        }
    }

    /// Brings the store's schema up to this build's.
    ///
    /// # Errors
    /// Where it cannot be reached, a newer build has migrated it, or a migration fails.
    pub async fn migrate(config: &StoreConfig) -> Result<(), StoreError> {
        match &config.url {
            StoreUrl::Postgres(url) => postgres::PostgresStore::migrate(postgres::options(url)?).await,
            StoreUrl::Sqlite(url) => sqlite::SqliteStore::migrate(sqlite_path(url)).await,
        }
    }
}

/// The file of `sqlite://path`.
fn sqlite_path(url: &str) -> &Path {
    Path::new(url.strip_prefix("sqlite://").unwrap_or(url))
}
