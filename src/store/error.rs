//! Why a store did not do what it was asked, and which errors pass.

use std::io;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::config::StoreUrl;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another owner has claimed the partitions: what was read of them is not ours to commit.
    #[error("partitions {partitions:?} have another owner now")]
    Fenced { partitions: Vec<i32> },
    /// Another transaction changed the same rows (SQLSTATE 40001). Trying again helps.
    #[error("`{statement}` conflicted with another transaction: {message}")]
    Conflict { statement: &'static str, message: String },
    /// Trying again can help: a lost connection, a deadlock, a store that is starting or full.
    #[error("`{statement}` failed: {message}{}", in_words(.code))]
    Transient { statement: &'static str, code: Option<String>, message: String },
    /// Trying again cannot help.
    #[error("`{statement}` failed: {message}{}", in_words(.code))]
    Permanent { statement: &'static str, code: Option<String>, message: String },
    /// A new connection was not made, or may not read what every worker reads. Trying again helps once the cause is removed,
    /// which takes no restart.
    #[error("cannot connect to {database}: {message}{}; {advice}", in_words(.code))]
    Connect { database: String, code: Option<String>, message: String, advice: &'static str },
    #[error("cannot open the database {database}: {message}")]
    Open { database: String, message: String },
    #[error("the database has schema version {found}, this build knows {known}: {advice}")]
    Schema { found: i64, known: i64, advice: &'static str },
    #[error(
        "topic {topic} was deleted and created again: the stored offsets belong to the topic with id {stored}, the broker has \
         {found}. Reading on would mix two streams: point the worker to a new database, or delete the rows of this topic from \
         partition_progress to read all of its events again"
    )]
    TopicChanged { topic: String, stored: String, found: String },
    #[error(
        "the database was filled with {stored}, but the configuration says {found}: old and new contents would not mix. \
         Restore the configuration, or run `shrinkd rebuild` with the new one"
    )]
    Settings { stored: String, found: String },
    #[error(
        "{column} in the database is damaged: {detail}; `shrinkd verify` lists all damage, docs/operations.md explains \
         repairs"
    )]
    Damaged { column: String, detail: String },
}

impl StoreError {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Conflict { .. } | StoreError::Transient { .. } | StoreError::Connect { .. })
    }

    /// The SQLSTATE, where PostgreSQL gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            StoreError::Conflict { .. } => Some(SERIALIZATION_FAILURE),
            StoreError::Transient { code, .. }
            | StoreError::Permanent { code, .. }
            | StoreError::Connect { code, .. } => code.as_deref(),
            _ => None,
        }
    }
}

fn in_words(code: &Option<String>) -> String {
    code.as_ref().map_or_else(String::new, |code| format!(" (SQLSTATE {code})"))
}

/// A column whose value this build cannot have written.
pub(super) fn unreadable(column: &str, detail: impl ToString) -> StoreError {
    StoreError::Damaged { column: column.to_owned(), detail: detail.to_string() }
}

/// An error of a new connection, with what to do about it.
pub(super) fn cannot_connect(url: &StoreUrl, error: sqlx::Error) -> StoreError {
    let (code, message) = match &error {
        sqlx::Error::Database(database) => {
            (sqlstate(database.as_ref()).map(str::to_owned), database.message().to_owned())
        }
        sqlx::Error::Io(error) => (None, error.to_string()),
        error => (None, error.to_string()),
    };
    let advice = match (&error, code.as_deref()) {
        (sqlx::Error::Io(error), _) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "check that PostgreSQL runs there, and host and port in store.url",
            io::ErrorKind::TimedOut => "check the network and the firewalls between this machine and the server",
            _ => "check the host in store.url, and the server's log",
        },
        (sqlx::Error::Tls(_), _) => "check sslmode and the certificates in store.url",
        (_, code) => advice(code),
    };
    StoreError::Connect { database: url.to_string(), code, message: url.redact(&message), advice }
}

impl StoreError {
    /// The same as an error of connecting, if it is one of a statement that opens a database.
    pub(super) fn while_connecting(self, url: &StoreUrl) -> StoreError {
        match self {
            StoreError::Permanent { statement, code, message } | StoreError::Transient { statement, code, message } => {
                let (message, advice) =
                    (url.redact(&format!("`{statement}` failed: {message}")), advice(code.as_deref()));
                StoreError::Connect { database: url.to_string(), code, message, advice }
            }
            error => error,
        }
    }
}

/// What to do about an error that a server gives to a new connection.
fn advice(code: Option<&str>) -> &'static str {
    match code {
        Some(code) if code.starts_with("28") => {
            "check user and password (in store.url, PGPASSWORD or ~/.pgpass), and the server's pg_hba.conf"
        }
        Some("3D000") => "create the database, or correct its name in store.url",
        Some("42501") => "run deploy/postgres/roles.sql, and check that the role may connect to the database",
        Some("53300") => "raise max_connections of the server, or lower store.connections",
        Some(code) if code.starts_with("57P") => "the server is starting or stopping: wait",
        Some(_) => "the server's log may say more",
        None => "check that it is a PostgreSQL server that listens there",
    }
}

/// Sorts an error of a statement into what passes and what does not.
pub(super) fn classify(statement: &'static str, error: sqlx::Error) -> StoreError {
    let sqlx::Error::Database(database) = &error else {
        let message = error.to_string();
        return match is_of_connection(&error) {
            true => StoreError::Transient { statement, code: None, message },
            false => StoreError::Permanent { statement, code: None, message },
        };
    };
    // The message alone: a database's error in full names lines of its own source.
    let message = database.message().to_owned();
    match sqlstate(database.as_ref()) {
        Some(SERIALIZATION_FAILURE) => StoreError::Conflict { statement, message },
        Some(code) => match is_transient(code) {
            true => StoreError::Transient { statement, code: Some(code.to_owned()), message },
            false => StoreError::Permanent { statement, code: Some(code.to_owned()), message },
        },
        None => match is_transient_in_sqlite(database.as_ref()) {
            true => StoreError::Transient { statement, code: None, message },
            false => StoreError::Permanent { statement, code: None, message },
        },
    }
}

fn sqlstate(error: &dyn DatabaseError) -> Option<&str> {
    error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code)
}

/// Errors of a connection. One that dies in the middle of an answer leaves half a message, which breaks the protocol.
fn is_of_connection(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
    )
}

const SERIALIZATION_FAILURE: &str = "40001";

/// SQLSTATEs that pass: PostgreSQL's documentation, appendix A.
fn is_transient(code: &str) -> bool {
    // Connections, and a server without room for memory, disk or connections.
    code.starts_with("08")
        || code.starts_with("53")
        // A new connection is refused: credentials or pg_hba.conf are being changed.
        || code.starts_with("28")
        || matches!(
            code,
            // A read-only server: a primary that was demoted, until connections go to the new one.
            "25006"
            // A transaction that was idle for too long.
            | "25P03"
            | "3D000" // the database is not there: it is being restored
            | "40P01" // deadlock
            | "55P03" // a lock that was not available
            // A statement that was cancelled, by an operator or by statement_timeout.
            | "57014"
            // A server that is stopping, was killed, or is starting.
            | "57P01" | "57P02" | "57P03"
            | "58030" // I/O error
            // Two workers that put in the same new experiment at once.
            | "23505"
        )
}

/// Another process at the file (SQLITE_BUSY, SQLITE_LOCKED), a disk that does not answer (SQLITE_IOERR) or is full
/// (SQLITE_FULL).
fn is_transient_in_sqlite(error: &dyn DatabaseError) -> bool {
    // An extended code carries its kind in the lowest byte.
    let code = error.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13))
}
