//! The two databases behind the store: their connections, and transactions, on which statements are executed.

use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Postgres, Sqlite};

use super::StoreError;
use super::error::classify;

/// Connections to one database.
#[derive(Debug, Clone)]
pub(super) enum Pools {
    Postgres(PgPool),
    /// One connection writes, the others only read: for passes, and for everything that is merely looked at.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
}

/// Dropped without a commit, nothing of it has happened.
pub(super) enum Transaction {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Pools {
    /// A transaction that only reads, as of one moment, and takes no lock that a writer would wait for.
    pub async fn read(&self) -> Result<Transaction, StoreError> {
        match self {
            Pools::Postgres(_) => self.begin_with("begin isolation level repeatable read, read only").await,
            Pools::Sqlite { readers, .. } => {
                readers.begin().await.map(Transaction::Sqlite).map_err(|error| self.unreachable(error))
            }
        }
    }

    /// A transaction that writes.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_with("begin").await
    }

    /// A transaction that writes, and sees one moment, from its first statement on: cells and their counters have to agree.
    pub async fn begin_snapshot(&self) -> Result<Transaction, StoreError> {
        self.begin_with("begin isolation level repeatable read").await
    }

    /// On SQLite, where every transaction sees one moment, it holds the write lock from the beginning, so that it cannot fail
    /// for it later on.
    async fn begin_with(&self, postgres: &'static str) -> Result<Transaction, StoreError> {
        let begun = match self {
            Pools::Postgres(pool) => pool.begin_with(postgres).await.map(Transaction::Postgres),
            Pools::Sqlite { writer, .. } => writer.begin_with("begin immediate").await.map(Transaction::Sqlite),
        };
        begun.map_err(|error| self.unreachable(error))
    }

    /// There is no connection to be had.
    fn unreachable(&self, error: sqlx::Error) -> StoreError {
        let connecting = match self {
            Pools::Postgres(_) => "connect to PostgreSQL",
            Pools::Sqlite { .. } => "open the SQLite file",
        };
        classify(connecting, error)
    }
}

impl Transaction {
    pub fn is_postgres(&self) -> bool {
        matches!(self, Transaction::Postgres(_))
    }

    pub async fn commit(self, name: &'static str) -> Result<(), StoreError> {
        match self {
            Transaction::Postgres(transaction) => transaction.commit().await,
            Transaction::Sqlite(transaction) => transaction.commit().await,
        }
        .map_err(|error| classify(name, error))
    }
}
