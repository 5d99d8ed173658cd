//! Why a store did not do what it was asked, and which errors pass.

use std::io;

use sqlx::postgres::PgDatabaseError;

use crate::config::StoreUrl;
use crate::refit::UnfitBlock;
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
    /// What the store holds cannot be added up.
    pub fn unfit(error: UnfitBlock) -> StoreError {
        unreadable("block", error)
    }

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
    match (code, error.as_database_error()) {
        (Some(code), _) => of_sqlstate(statement, code, message),
        (None, Some(error)) => of_result_code(statement, error.code().as_deref(), message),
        (None, None) if is_of_connection(&error) => StoreError::Transient { statement, code: None, message },
        (None, None) => StoreError::Permanent { statement, code: None, message },
    }
}

/// Whether a row was there already.
pub(super) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

const SERIALIZATION_FAILURE: &str = "40001";
const NOT_NULL_VIOLATION: &str = "23502";
const CHECK_VIOLATION: &str = "23514";

/// An error of PostgreSQL.
fn of_sqlstate(statement: &'static str, code: String, message: String) -> StoreError {
    match code.as_str() {
        SERIALIZATION_FAILURE => StoreError::Conflict { statement, message },
        NOT_NULL_VIOLATION | CHECK_VIOLATION => StoreError::Constraint { statement, code: Some(code), message },
        passing if sqlstate::is_transient(passing) => StoreError::Transient { statement, code: Some(code), message },
        _ => StoreError::Permanent { statement, code: Some(code), message },
    }
}

/// An error of SQLite, by its extended result code, which carries the kind in the lowest byte.
fn of_result_code(statement: &'static str, code: Option<&str>, message: String) -> StoreError {
    let code = code.and_then(|code| code.parse::<i32>().ok());
    match (code, code.map(|code| code & 0xff)) {
        // A check, a column that must not be null, a trigger that raises an error (SQLITE_CONSTRAINT_CHECK, _NOTNULL, _TRIGGER).
        (Some(275 | 1299 | 1811), _) => StoreError::Constraint { statement, code: None, message },
        // Another process at the file (SQLITE_BUSY, SQLITE_LOCKED), a disk that does not answer (SQLITE_IOERR) or is full
        // (SQLITE_FULL).
        (_, Some(5 | 6 | 10 | 13)) => StoreError::Transient { statement, code: None, message },
        _ => StoreError::Permanent { statement, code: None, message },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of an error.
    fn class(error: &StoreError) -> &'static str {
        match error {
            StoreError::Conflict { .. } => "conflict",
            StoreError::Constraint { .. } => "of a row",
            StoreError::Transient { .. } => "passing",
            StoreError::Permanent { .. } => "final",
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_sqlstate_passes_or_is_final_for_a_reason() {
        let table = [
            ("40001", "conflict", "another transaction changed the same rows"),
            ("08000", "passing", "a connection failed"),
            ("08003", "passing", "a connection is no more"),
            ("08006", "passing", "a connection broke"),
            ("25006", "passing", "a primary was demoted; connections go to the new one soon"),
            ("25P03", "passing", "the transaction was idle too long, as when the worker was stopped"),
            ("28000", "passing", "pg_hba.conf is being changed"),
            ("28P01", "passing", "the password is being changed"),
            ("3D000", "passing", "the database is being restored"),
            ("40P01", "passing", "a deadlock, of which this was the victim"),
            ("53000", "passing", "the server lacks something that an operator can give it"),
            ("53100", "passing", "the disk is full until there is room"),
            ("53200", "passing", "memory is full until there is room"),
            ("53300", "passing", "too many connections until some are closed"),
            ("55P03", "passing", "a lock was not available in time"),
            ("57014", "passing", "an operator or a timeout cancelled the statement"),
            ("57P01", "passing", "the server is stopping, or ended the connection"),
            ("57P02", "passing", "the server is stopping after a crash of one of its processes"),
            ("57P03", "passing", "the server is starting"),
            ("58030", "passing", "the disk of the server did not answer"),
            ("23505", "passing", "another worker put in the same new row: now it is there to be read"),
            ("23502", "of a row", "the row lacks a value"),
            ("23514", "of a row", "a check does not allow the row"),
            ("22P02", "final", "a value that the column cannot hold comes again"),
            ("23503", "final", "a key that is not there does not come by itself"),
            ("25P02", "final", "a statement after the one that failed: a bug"),
            ("40002", "final", "an integrity constraint, whatever the transaction is tried with"),
            ("42501", "final", "a right is missing"),
            ("42601", "final", "a syntax error stays one"),
            ("42P01", "final", "the table is not there"),
            ("57000", "final", "not one of the conditions that end by themselves"),
            ("58P01", "final", "a file of the server is gone"),
            ("XX000", "final", "an internal error"),
            ("", "final", "no code at all"),
        ];
        for (code, expected, why) in table {
            let error = of_sqlstate("commit", code.to_owned(), "said so".to_owned());
            assert_eq!(class(&error), expected, "{code}: {why}");
            assert_eq!(error.code(), Some(code));
            assert!(error.to_string().starts_with("`commit` "), "{error}");
        }
    }

    #[test]
    fn every_result_code_of_sqlite_passes_or_is_final_for_a_reason() {
        let table = [
            ("5", "passing", "SQLITE_BUSY: another process writes"),
            ("261", "passing", "SQLITE_BUSY_RECOVERY: another process recovers the file"),
            ("517", "passing", "SQLITE_BUSY_SNAPSHOT: another process has written since"),
            ("773", "passing", "SQLITE_BUSY_TIMEOUT: another process has the lock for long"),
            ("6", "passing", "SQLITE_LOCKED"),
            ("262", "passing", "SQLITE_LOCKED_SHAREDCACHE"),
            ("10", "passing", "SQLITE_IOERR: the disk does not answer"),
            ("266", "passing", "SQLITE_IOERR_READ"),
            ("778", "passing", "SQLITE_IOERR_WRITE"),
            ("1034", "passing", "SQLITE_IOERR_FSYNC"),
            ("13", "passing", "SQLITE_FULL: the disk is full until there is room"),
            ("275", "of a row", "SQLITE_CONSTRAINT_CHECK: a check does not allow the row"),
            ("1299", "of a row", "SQLITE_CONSTRAINT_NOTNULL: the row lacks a value"),
            ("1811", "of a row", "SQLITE_CONSTRAINT_TRIGGER: a trigger does not allow the row"),
            ("1", "final", "SQLITE_ERROR: a statement that is wrong stays wrong"),
            ("8", "final", "SQLITE_READONLY"),
            ("11", "final", "SQLITE_CORRUPT"),
            ("14", "final", "SQLITE_CANTOPEN"),
            ("19", "final", "SQLITE_CONSTRAINT: of no kind"),
            ("787", "final", "SQLITE_CONSTRAINT_FOREIGNKEY"),
            ("1555", "final", "SQLITE_CONSTRAINT_PRIMARYKEY: there is one writer, so that it comes again"),
            ("2067", "final", "SQLITE_CONSTRAINT_UNIQUE: likewise"),
            ("26", "final", "SQLITE_NOTADB"),
            ("1280", "final", "5 in the second byte is no SQLITE_BUSY"),
            ("five", "final", "not a number"),
        ];
        for (code, expected, why) in table {
            let error = of_result_code("commit", Some(code), "said so".to_owned());
            assert_eq!(class(&error), expected, "{code}: {why}");
            assert_eq!(error.code(), None, "it is no SQLSTATE");
        }
        assert_eq!(class(&of_result_code("commit", None, String::new())), "final");
    }

    #[test]
    fn an_error_of_the_connection_passes_and_one_of_the_program_does_not() {
        let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
        let table = [
            (sqlx::Error::Io(broken()), "passing", "the network"),
            (sqlx::Error::Tls(Box::new(broken())), "passing", "a handshake that was cut off"),
            (sqlx::Error::Protocol("half an answer".to_owned()), "passing", "a connection that died within an answer"),
            (sqlx::Error::PoolTimedOut, "passing", "all connections were in use"),
            (sqlx::Error::WorkerCrashed, "passing", "the thread of a connection to a file ended"),
            (sqlx::Error::PoolClosed, "final", "the store was closed"),
            (sqlx::Error::RowNotFound, "final", "a statement that always has a row had none"),
            (sqlx::Error::Encode(Box::new(broken())), "final", "a value that cannot be sent"),
        ];
        for (error, expected, why) in table {
            assert_eq!(class(&classify("commit", error)), expected, "{why}");
        }
    }

    #[test]
    fn only_an_error_that_passes_is_tried_again_and_only_one_of_a_row_leaves_other_rows_alone() {
        let (statement, message) = ("commit", String::new);
        let connect = StoreError::Connect { database: String::new(), code: None, message: message(), advice: "" };
        let not_finite = StoreError::NotFinite { statement, column: "mu_mean", row: message() };
        let table = [
            (of_sqlstate(statement, "40001".to_owned(), message()), true, false),
            (of_sqlstate(statement, "57P01".to_owned(), message()), true, false),
            (connect, true, false),
            (of_sqlstate(statement, "42P01".to_owned(), message()), false, false),
            (of_sqlstate(statement, "23514".to_owned(), message()), false, true),
            (not_finite, false, true),
            (unreadable("blocks.block", "3 bytes"), false, true),
            (StoreError::Fenced { partitions: vec![0] }, false, false),
            (StoreError::Open { database: message(), message: message() }, false, false),
            (StoreError::Schema { found: 1, known: 2, advice: "" }, false, false),
            (StoreError::Settings { stored: message(), found: message() }, false, false),
        ];
        for (error, is_transient, is_of_a_row) in table {
            assert_eq!((error.is_transient(), error.is_of_a_row()), (is_transient, is_of_a_row), "{error:?}");
        }
    }

    #[test]
    fn a_summary_says_what_failed_and_why_without_the_text_of_the_database() {
        let secret = || "host db.internal, user alice, value 0.25".to_owned();
        let connect = |code: Option<&str>| StoreError::Connect {
            database: secret(),
            code: code.map(str::to_owned),
            message: secret(),
            advice: "",
        };
        let table = [
            (
                of_sqlstate("commit", "40001".to_owned(), secret()),
                "`commit` failed: it conflicted with another transaction (SQLSTATE 40001)",
            ),
            (
                of_sqlstate("commit", "57P01".to_owned(), secret()),
                "`commit` failed: the server is stopping or starting (SQLSTATE 57P01)",
            ),
            (
                of_sqlstate("commit", "23514".to_owned(), secret()),
                "`commit` failed: a constraint was violated (SQLSTATE 23514)",
            ),
            (
                of_sqlstate("commit", "42501".to_owned(), secret()),
                "`commit` failed: permission denied (SQLSTATE 42501)",
            ),
            (of_result_code("commit", Some("13"), secret()), "`commit` failed"),
            (connect(Some("28P01")), "cannot connect to PostgreSQL: the login was refused (SQLSTATE 28P01)"),
            (connect(None), "cannot connect to PostgreSQL"),
            (StoreError::Open { database: secret(), message: secret() }, "cannot open the database"),
        ];
        for (error, expected) in table {
            assert_eq!(error.summary(), format!("{expected}, see the log for details"));
        }
        let fenced = StoreError::Fenced { partitions: vec![3] };
        assert_eq!(fenced.summary(), "partitions [3] have another owner now", "its text is this program's own");
    }
}
