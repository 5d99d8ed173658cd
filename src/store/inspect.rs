//! What an operator wants to know of a connection before workers use it: who it is, what it may do, whether it is encrypted.

use sqlx::postgres::PgPool;

use super::database::Pools;
use super::error::classify;
use super::{Store, StoreError, settings};
use crate::roles::{Kind, Right, rights_of};

/// A connection to PostgreSQL as the server sees it.
#[derive(Debug)]
pub struct Inspection {
    pub user: String,
    pub is_superuser: bool,
    /// The version of TLS; `None` if the connection is not encrypted.
    pub encryption: Option<String>,
    /// What a worker needs and this role may not: `insert on blocks`.
    pub missing_rights: Vec<String>,
}

impl Store {
    /// Asks the server about the connection; `None` of SQLite.
    pub async fn inspect(&self) -> Result<Option<Inspection>, StoreError> {
        match &self.pools {
            Pools::Postgres { pool, .. } => inspect(pool).await.map(Some).map_err(|error| classify("inspect", error)),
            Pools::Sqlite { .. } => Ok(None),
        }
    }

    /// Whether anybody has filled the database, which then has these settings. Unlike a worker, it does not make them its
    /// own.
    ///
    /// # Errors
    /// If the database was filled with others.
    pub async fn is_filled(&self) -> Result<bool, StoreError> {
        match settings::read(&mut self.pools.read().await?).await? {
            None => Ok(false),
            Some(stored) if stored == *self.settings => Ok(true),
            Some(stored) => Err(StoreError::Settings { stored: stored.to_string(), found: self.settings.to_string() }),
        }
    }
}

async fn inspect(pool: &PgPool) -> Result<Inspection, sqlx::Error> {
    let (user, is_superuser): (String, bool) =
        sqlx::query_as("select rolname::text, rolsuper from pg_roles where rolname = current_user")
            .fetch_one(pool)
            .await?;
    let encryption: Option<Option<String>> =
        sqlx::query_scalar("select version from pg_stat_ssl where pid = pg_backend_pid() and ssl")
            .fetch_optional(pool)
            .await?;
    let mut missing_rights = Vec::new();
    for Right { right, kind, object } in rights_of("shrinkd_worker") {
        let sql = match kind {
            Kind::Table => "select has_table_privilege($1, $2)",
            Kind::Sequence => "select has_sequence_privilege($1, $2)",
            Kind::Schema => "select has_schema_privilege($1, $2)",
        };
        let is_granted: bool = sqlx::query_scalar(sql).bind(object).bind(right).fetch_one(pool).await?;
        if !is_granted {
            missing_rights.push(format!("{right} on {object}"));
        }
    }
    Ok(Inspection { user, is_superuser, encryption: encryption.flatten(), missing_rights })
}
