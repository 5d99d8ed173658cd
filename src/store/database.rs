//! The two databases behind the store: their connections, and transactions, on which statements are executed.

use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{PgConnection, Postgres, Sqlite};
use time::OffsetDateTime;

use super::error::{cannot_connect, classify};
use super::{StoreError, schema};
use crate::config::StoreUrl;

const OPEN: &str = "open the SQLite file";

/// Connections to one database.
#[derive(Debug, Clone)]
pub(super) enum Pools {
    Postgres {
        pool: PgPool,
        /// Where it connects to, for messages.
        url: StoreUrl,
    },
    /// One connection writes, the others only read: for passes, and for everything that is merely looked at.
    Sqlite { writer: SqlitePool, readers: SqlitePool },
}

/// Dropped without a commit, nothing of it has happened.
pub(super) enum Transaction {
    Postgres(sqlx::Transaction<'static, Postgres>),
    /// With the time at which it began, which is `{now}` in all of its statements, as `now()` is on PostgreSQL.
    Sqlite(sqlx::Transaction<'static, Sqlite>, OffsetDateTime),
}

impl Pools {
    /// A transaction that only reads, as of one moment, and takes no lock that a writer would wait for.
    pub async fn read(&self) -> Result<Transaction, StoreError> {
        match self {
            Pools::Postgres { .. } => self.begin_with("begin isolation level repeatable read, read only").await,
            Pools::Sqlite { readers, .. } => readers.begin().await.map(sqlite).map_err(|error| classify(OPEN, error)),
        }
    }

    /// A transaction that writes.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_with("begin").await
    }

    /// On SQLite, where every transaction sees one moment, it holds the write lock from the beginning, so that it cannot fail
    /// for it later on.
    async fn begin_with(&self, postgres: &'static str) -> Result<Transaction, StoreError> {
        match self {
            Pools::Postgres { pool, url } => match pool.begin_with(postgres).await {
                Ok(transaction) => Ok(Transaction::Postgres(transaction)),
                Err(sqlx::Error::PoolTimedOut) => Err(schema::why_no_connection(url, pool).await),
                Err(error) => Err(cannot_connect(url, error)),
            },
            Pools::Sqlite { writer, .. } => {
                let begun = writer.begin_with("begin immediate").await;
                begun.map(sqlite).map_err(|error| classify(OPEN, error))
            }
        }
    }
}

/// A transaction that begins now.
fn sqlite(transaction: sqlx::Transaction<'static, Sqlite>) -> Transaction {
    Transaction::Sqlite(transaction, OffsetDateTime::now_utc())
}

impl Transaction {
    pub fn is_postgres(&self) -> bool {
        matches!(self, Transaction::Postgres(_))
    }

    /// The connection to PostgreSQL; `None` on SQLite.
    pub fn postgres(&mut self) -> Option<&mut PgConnection> {
        match self {
            Transaction::Postgres(transaction) => Some(&mut *transaction),
            Transaction::Sqlite(..) => None,
        }
    }

    pub async fn commit(self, name: &'static str) -> Result<(), StoreError> {
        match self {
            Transaction::Postgres(transaction) => transaction.commit().await,
            Transaction::Sqlite(transaction, _) => transaction.commit().await,
        }
        .map_err(|error| classify(name, error))
    }

    /// Ends it at once, with the locks that it holds. One that is dropped ends only when its connection is used again.
    pub async fn rollback(self, name: &'static str) -> Result<(), StoreError> {
        match self {
            Transaction::Postgres(transaction) => transaction.rollback().await,
            Transaction::Sqlite(transaction, _) => transaction.rollback().await,
        }
        .map_err(|error| classify(name, error))
    }
}
