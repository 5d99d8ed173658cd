//! The two databases behind the store: connections, transactions, and what statements are executed on.

use std::borrow::Cow;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};

use super::StoreError;
use super::error::classify;
use super::query::{Query, Value};

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

/// A connection for statements that stand alone.
pub(super) enum Connection {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

/// Dropped without a commit, nothing of it has happened.
pub(super) enum Transaction {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

/// What a connection is for: SQLite has different ones.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

impl Pools {
    /// A connection that only reads.
    pub async fn reader(&self) -> Result<Connection, StoreError> {
        self.connect(Access::Read).await
    }

    /// A connection whose statements are each a transaction.
    pub async fn writer(&self) -> Result<Connection, StoreError> {
        self.connect(Access::Write).await
    }

    /// A transaction that writes.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_with(Access::Write, "begin").await
    }

    /// A transaction that writes, and sees one moment, from its first statement on: cells and their counters have to agree.
    pub async fn begin_snapshot(&self) -> Result<Transaction, StoreError> {
        self.begin_with(Access::Write, "begin isolation level repeatable read").await
    }

    /// A transaction that only reads, as of one moment, and takes no lock that a writer would wait for.
    pub async fn begin_to_read(&self) -> Result<Transaction, StoreError> {
        self.begin_with(Access::Read, "begin isolation level repeatable read, read only").await
    }

    async fn connect(&self, access: Access) -> Result<Connection, StoreError> {
        let connected = match (self, access) {
            (Pools::Postgres(pool), _) => pool.acquire().await.map(Connection::Postgres),
            (Pools::Sqlite { readers, .. }, Access::Read) => readers.acquire().await.map(Connection::Sqlite),
            (Pools::Sqlite { writer, .. }, Access::Write) => writer.acquire().await.map(Connection::Sqlite),
        };
        connected.map_err(|error| self.unreachable(error))
    }

    /// On SQLite every transaction sees one moment. One that writes holds the write lock from the beginning, so that it
    /// cannot fail for it later on.
    async fn begin_with(&self, access: Access, postgres: &'static str) -> Result<Transaction, StoreError> {
        let begun = match (self, access) {
            (Pools::Postgres(pool), _) => pool.begin_with(postgres).await.map(Transaction::Postgres),
            (Pools::Sqlite { readers, .. }, Access::Read) => readers.begin().await.map(Transaction::Sqlite),
            (Pools::Sqlite { writer, .. }, Access::Write) => {
                writer.begin_with("begin immediate").await.map(Transaction::Sqlite)
            }
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
    pub async fn commit(self, name: &'static str) -> Result<(), StoreError> {
        match self {
            Transaction::Postgres(transaction) => transaction.commit().await,
            Transaction::Sqlite(transaction) => transaction.commit().await,
        }
        .map_err(|error| classify(name, error))
    }
}

/// What statements are executed on.
pub(super) trait Executor: Send {
    fn session(&mut self) -> Session<'_>;

    fn is_postgres(&mut self) -> bool {
        matches!(self.session(), Session::Postgres(_))
    }

    /// A statement with its values, in the order of `$1`, `$2`, ..: see `values!`.
    fn query<'c>(
        &'c mut self,
        name: &'static str,
        sql: impl Into<Cow<'static, str>>,
        values: impl IntoIterator<Item = Value<'c>>,
    ) -> Query<'c> {
        Query::new(self.session(), name, sql.into(), values.into_iter().collect())
    }
}

/// A connection, or that of a transaction.
pub(super) enum Session<'c> {
    Postgres(&'c mut PgConnection),
    Sqlite(&'c mut SqliteConnection),
}

impl Executor for Connection {
    fn session(&mut self) -> Session<'_> {
        match self {
            Connection::Postgres(connection) => Session::Postgres(connection),
            Connection::Sqlite(connection) => Session::Sqlite(connection),
        }
    }
}

impl Executor for Transaction {
    fn session(&mut self) -> Session<'_> {
        match self {
            Transaction::Postgres(transaction) => Session::Postgres(transaction),
            Transaction::Sqlite(transaction) => Session::Sqlite(transaction),
        }
    }
}
