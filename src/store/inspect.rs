//! What an operator wants to know of a connection before workers use it: who it is, what it may do, whether it is encrypted.

use sqlx::postgres::PgPool;

use super::database::Pools;
use super::error::classify;
use super::{Store, StoreError, settings};

/// The rights of each role. What a worker needs is what the file grants it.
const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");

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
            Pools::Postgres(pool) => inspect(pool).await.map(Some).map_err(|error| classify("inspect", error)),
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

/// One right to one object.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Right {
    right: &'static str,
    kind: Kind,
    object: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Table,
    Sequence,
    Schema,
}

/// What roles.sql grants a role: `grant RIGHTS on OBJECTS to ROLES;`, one statement a line.
fn rights_of(role: &str) -> impl Iterator<Item = Right> {
    let grants = ROLES.lines().filter_map(|line| line.strip_prefix("grant ")?.strip_suffix(';')?.split_once(" on "));
    grants.flat_map(move |(rights, rest)| {
        let (objects, roles) = rest.split_once(" to ").unwrap_or((rest, ""));
        let (kind, objects) = match (objects.strip_prefix("sequence "), objects.strip_prefix("schema ")) {
            (Some(sequences), _) => (Kind::Sequence, sequences),
            (_, Some(schemas)) => (Kind::Schema, schemas),
            _ => (Kind::Table, objects),
        };
        let is_granted = roles.split(", ").any(|granted| granted == role);
        let rights = rights.split(", ").filter(move |_| is_granted);
        rights.flat_map(move |right| objects.split(", ").map(move |object| Right { right, kind, object }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_a_worker_are_those_of_the_file() {
        let rights: Vec<Right> = rights_of("shrinkd_worker").collect();
        for right in [
            Right { right: "usage", kind: Kind::Schema, object: "public" },
            Right { right: "select", kind: Kind::Table, object: "_sqlx_migrations" },
            Right { right: "delete", kind: Kind::Table, object: "effect_estimates" },
            Right { right: "usage", kind: Kind::Sequence, object: "fit_ids" },
        ] {
            assert!(rights.contains(&right), "{right:?} of {rights:?}");
        }
        let grants = ROLES.lines().filter(|line| line.starts_with("grant ") && line.contains("shrinkd_worker"));
        let listed: usize = grants
            .map(|line| {
                let (rights, rest) = line.split_once(" on ").expect("an object");
                let (objects, _) = rest.split_once(" to ").expect("a role");
                rights.split(',').count() * objects.split(',').count()
            })
            .sum();
        assert_eq!(rights.len(), listed);
    }
}
