//! What the error codes of PostgreSQL (SQLSTATEs, appendix A of its documentation) mean to a worker. The first two characters
//! are the class.

/// Whether trying again can help.
pub fn is_transient(code: &str) -> bool {
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

/// The usual cause of an error with this code.
pub fn cause(code: &str) -> &'static str {
    match (code.get(..2).unwrap_or_default(), code) {
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

/// What to do about an error that a server gives to a new connection.
pub fn connection_advice(code: Option<&str>) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_that_of_the_code_before_that_of_its_class() {
        let table = [
            ("08006", "the connection failed"),
            ("23505", "a constraint was violated"),
            ("25006", "the server is read-only"),
            ("25P03", "the server refused it"),
            ("28P01", "the login was refused"),
            ("3D000", "there is no such database"),
            ("40001", "it conflicted with another transaction"),
            ("40P01", "it conflicted with another transaction"),
            ("42501", "permission denied"),
            ("42P01", "the server refused it"),
            ("53100", "the server is out of disk, memory or connections"),
            ("55P03", "a lock was not available"),
            ("57014", "the statement was cancelled"),
            ("57P03", "the server is stopping or starting"),
            ("58030", "the server had an I/O error"),
            ("", "the server refused it"),
        ];
        for (code, expected) in table {
            assert_eq!(cause(code), expected, "{code}");
        }
    }

    #[test]
    fn what_to_do_about_a_connection_depends_on_its_code() {
        let table = [
            (Some("28P01"), "check user and password"),
            (Some("28000"), "check user and password"),
            (Some("3D000"), "create the database"),
            (Some("42501"), "run deploy/postgres/roles.sql"),
            (Some("53300"), "raise max_connections"),
            (Some("57P03"), "the server is starting or stopping"),
            (Some("57014"), "the server's log may say more"),
            (Some("53100"), "the server's log may say more"),
            (None, "check that it is a PostgreSQL server"),
        ];
        for (code, expected) in table {
            assert!(connection_advice(code).starts_with(expected), "{code:?}: {}", connection_advice(code));
        }
    }
}
