//! What an operator wants to know of a connection before workers use it: who it is, what it may do, whether it is encrypted.

use super::query::{Row, values};
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
        let mut on = self.pools.read().await?;
        if !on.is_postgres() {
            return Ok(None);
        }
        let sql = "select cast(rolname as text) as rolname, rolsuper,
                          (select version from pg_stat_ssl where pid = pg_backend_pid() and ssl) as encryption
                   from pg_roles where rolname = current_user";
        let role = |row: &Row| {
            Ok(Inspection {
                user: row.get("rolname")?,
                is_superuser: row.get("rolsuper")?,
                encryption: row.get("encryption")?,
                missing_rights: Vec::new(),
            })
        };
        let mut inspection = on.query("inspect: role", sql, []).one(role).await?;
        for Right { right, kind, object } in rights_of("shrinkd_worker") {
            let sql = match kind {
                Kind::Table => "select has_table_privilege($1, $2) as is_granted",
                Kind::Sequence => "select has_sequence_privilege($1, $2) as is_granted",
                Kind::Schema => "select has_schema_privilege($1, $2) as is_granted",
                Kind::Database => "select has_database_privilege(current_database(), $2) as is_granted, $1 as object",
            };
            let is_granted = on.query("inspect: right", sql, values![object, right]).one(|row| row.get("is_granted"));
            if !is_granted.await? {
                inspection.missing_rights.push(format!("{right} on {object}"));
            }
        }
        Ok(Some(inspection))
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
