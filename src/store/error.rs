//! Why a store did not do what it was asked, and which errors pass.

use std::io;

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::postgres::PgDatabaseError;

use crate::config::StoreUrl;
use crate::sqlstate;

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
    /// A row was not written, because a figure in it is NaN or infinite. Nothing was executed.
    #[error("`{statement}`: {column} of {row} is not a finite number (a bug)")]
    NotFinite { statement: &'static str, column: &'static str, row: String },
    /// A row was not written, because the database does not allow its values (a constraint, or a trigger that raises one).
    #[error("`{statement}` failed: {message}{}", in_words(.code))]
    Constraint { statement: &'static str, code: Option<String>, message: String },
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
        "the database was filled with {stored}, but this build and its configuration have {found}: old and new contents would not \
         mix. Go back to the earlier ones, or run `shrinkd rebuild` with these"
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

    /// Whether the cause is what one row says, or said: statements about other rows succeed.
    pub fn is_of_a_row(&self) -> bool {
        matches!(self, StoreError::NotFinite { .. } | StoreError::Constraint { .. } | StoreError::Damaged { .. })
    }

    /// The SQLSTATE, where PostgreSQL gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            StoreError::Conflict { .. } => Some(SERIALIZATION_FAILURE),
            StoreError::Transient { code, .. }
            | StoreError::Constraint { code, .. }
            | StoreError::Permanent { code, .. }
            | StoreError::Connect { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// What failed and why, without the text of the database, which may quote values, hosts and users: for `/readyz` and the
    /// status page, which require no authentication. The log has the whole error.
    pub fn summary(&self) -> String {
        let failed = match self {
            StoreError::Conflict { statement, .. }
            | StoreError::Transient { statement, .. }
            | StoreError::Constraint { statement, .. }
            | StoreError::Permanent { statement, .. } => format!("`{statement}` failed"),
            StoreError::Connect { .. } => "cannot connect to PostgreSQL".to_owned(),
            StoreError::Open { .. } => "cannot open the database".to_owned(),
            // Their text is shrinkd's own.
            StoreError::Fenced { .. }
            | StoreError::NotFinite { .. }
            | StoreError::Schema { .. }
            | StoreError::TopicChanged { .. }
            | StoreError::Settings { .. }
            | StoreError::Damaged { .. } => return self.to_string(),
        };
        let cause =
            self.code().map_or_else(String::new, |code| format!(": {} (SQLSTATE {code})", sqlstate::cause(code)));
        format!("{failed}{cause}, see the log for details")
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
    let (code, mut message) = code_and_message(&error);
    let advice = match &error {
        sqlx::Error::Io(error) => {
            message = error.to_string();
            match error.kind() {
                io::ErrorKind::ConnectionRefused => "check that PostgreSQL runs there, and host and port in store.url",
                io::ErrorKind::TimedOut => "check the network and the firewalls between this machine and the server",
                _ => "check the host in store.url, and the server's log",
            }
        }
        sqlx::Error::Tls(_) => "check sslmode and the certificates in store.url",
        _ => sqlstate::connection_advice(code.as_deref()),
    };
    StoreError::Connect { database: url.to_string(), code, message: url.redact(&message), advice }
}

impl StoreError {
    /// The same as an error of connecting, if it is one of a statement that opens a database.
    pub(super) fn while_connecting(self, url: &StoreUrl) -> StoreError {
        match self {
            StoreError::Permanent { statement, code, message } | StoreError::Transient { statement, code, message } => {
                let message = url.redact(&format!("`{statement}` failed: {message}"));
                let advice = sqlstate::connection_advice(code.as_deref());
                StoreError::Connect { database: url.to_string(), code, message, advice }
            }
            error => error,
        }
    }
}

/// Sorts an error of a statement into what passes and what does not.
pub(super) fn classify(statement: &'static str, error: sqlx::Error) -> StoreError {
    let (code, message) = code_and_message(&error);
    if error.as_database_error().is_some_and(is_of_constraint) {
        return StoreError::Constraint { statement, code, message };
    }
    let is_transient = match (code.as_deref(), error.as_database_error()) {
        (Some(SERIALIZATION_FAILURE), _) => return StoreError::Conflict { statement, message },
        (Some(code), _) => sqlstate::is_transient(code),
        (None, Some(error)) => is_transient_in_sqlite(error),
        (None, None) => is_of_connection(&error),
    };
    match is_transient {
        true => StoreError::Transient { statement, code, message },
        false => StoreError::Permanent { statement, code, message },
    }
}

/// The SQLSTATE, where PostgreSQL gave one, and the message: of a database's error no more than that, because in full it names
/// lines of the database's own source.
fn code_and_message(error: &sqlx::Error) -> (Option<String>, String) {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.try_downcast_ref::<PgDatabaseError>().map(|error| error.code().to_owned());
            (code, error.message().to_owned())
        }
        error => (None, error.to_string()),
    }
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

/// A check, a column that must not be null, or a trigger of SQLite that raises an error (SQLITE_CONSTRAINT_TRIGGER).
fn is_of_constraint(error: &dyn DatabaseError) -> bool {
    matches!(error.kind(), ErrorKind::CheckViolation | ErrorKind::NotNullViolation)
        || error.code().is_some_and(|code| code == "1811")
}

const SERIALIZATION_FAILURE: &str = "40001";

/// Another process at the file (SQLITE_BUSY, SQLITE_LOCKED), a disk that does not answer (SQLITE_IOERR) or is full
/// (SQLITE_FULL).
fn is_transient_in_sqlite(error: &dyn DatabaseError) -> bool {
    // An extended code carries its kind in the lowest byte.
    let code = error.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13))
}
