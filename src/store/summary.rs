//! Errors of the store in words that anybody may read.

use super::StoreError;

impl StoreError {
    /// What failed and why, without the text of the database, which may quote values, hosts and users: for `/readyz` and the
    /// status page, which require no authentication. The log has the whole error.
    pub fn summary(&self) -> String {
        let statement = match self {
            StoreError::Conflict { statement, .. }
            | StoreError::Transient { statement, .. }
            | StoreError::Permanent { statement, .. } => statement,
            StoreError::Connect { .. } => "connect to PostgreSQL",
            StoreError::Open { .. } => "open the database",
            // Their text is shrinkd's own.
            StoreError::Fenced { .. }
            | StoreError::Schema { .. }
            | StoreError::TopicChanged { .. }
            | StoreError::Settings { .. }
            | StoreError::Damaged { .. } => return self.to_string(),
        };
        let code = self.code().map_or_else(String::new, |code| format!(" (SQLSTATE {code})"));
        format!("`{statement}` failed: {}{code}; the log has the whole error", cause(self.code().unwrap_or_default()))
    }
}

/// The usual cause of an SQLSTATE (PostgreSQL's documentation, appendix A); it is empty for errors that have none: those of
/// connections, and all of SQLite.
fn cause(code: &str) -> &'static str {
    match (code.get(..2).unwrap_or_default(), code) {
        ("", _) => "the connection or the file failed",
        ("08", _) => "the connection failed",
        ("23", _) => "a constraint was violated",
        ("25", "25006") => "the server is read-only",
        ("28", _) => "the login was refused",
        ("3D", _) => "there is no such database",
        ("40", _) => "it conflicted with another transaction",
        ("42", "42501") => "permission denied",
        ("53", _) => "the server is out of disk, memory or connections",
        ("55", _) => "a lock was not available",
        ("57", "57014") => "the statement was cancelled",
        ("57", _) => "the server is stopping or starting",
        ("58", _) => "the server had an I/O error",
        _ => "the server refused it",
    }
}
