//! Why a store did not do what it was asked, and what to do then.

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another owner has the partitions: what was in hand of them is not ours to commit.
    #[error("partitions {partitions:?} have another owner now")]
    Fenced { partitions: Vec<i32> },
    /// Trying again can help: a lost connection, a deadlock, a store that starts or is full.
    #[error("{context}: {message}{}", sqlstate(.code))]
    Transient { context: &'static str, code: Option<String>, message: String },
    /// Trying again cannot help.
    #[error("{context}: {message}{}", sqlstate(.code))]
    Permanent { context: &'static str, code: Option<String>, message: String },
    #[error("the database has schema version {found}, this build knows {known}: {advice}")]
    Schema { found: i64, known: i64, advice: &'static str },
    #[error(
        "topic {topic} was made again: the stored offsets belong to the topic with id {stored}, the broker has {found}. \
         Reading on would mix two streams: point the worker to a new database, or remove the rows of this topic from \
         partition_progress if its events are all to be read again"
    )]
    TopicChanged { topic: String, stored: String, found: String },
    #[error(
        "the database was filled with {stored}, the configuration says {found}: what is there would not mix with what comes. \
         Restore the configuration, or run `shrinkd rebuild` with the new one"
    )]
    Settings { stored: String, found: String },
    #[error(
        "{what} in the database is damaged: {detail}; `shrinkd verify` lists what is, docs/operations.md says how it is mended"
    )]
    Damaged { what: &'static str, detail: String },
}

fn sqlstate(code: &Option<String>) -> String {
    code.as_ref().map_or_else(String::new, |code| format!(" (SQLSTATE {code})"))
}
