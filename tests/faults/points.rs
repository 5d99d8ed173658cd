//! Where in the store's transactions a connection can be cut, and how these places are known on the wire.

use std::collections::HashMap;

use super::common::protocol::{Frame, text};

/// A transaction of the store, known by its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    Unknown,
    Ingest,
    Refit,
    Publish,
    Claim,
}

/// A statement that tells where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The lock that every ingest takes, shared, before anything else.
    IngestLock,
    /// The compare-and-set on `next_offset`.
    Fence,
    Changes,
    RefitLock,
    Fits,
    /// A page of a publish: its cursor moves.
    Page,
    Claim,
}

/// The names of the statements, which stand in a comment before each.
const MARKS: [(&str, Mark); 7] = [
    ("/* ingest: lock shared */", Mark::IngestLock),
    ("/* ingest: fence */", Mark::Fence),
    ("/* ingest: changes */", Mark::Changes),
    ("/* refit: lock populations */", Mark::RefitLock),
    ("/* refit: fits */", Mark::Fits),
    ("/* publish: move the cursor */", Mark::Page),
    ("/* claim: raise epochs */", Mark::Claim),
];

/// Something that a worker asks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Statement(Mark),
    Commit(Point),
}

/// A place where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    BeforeFence,
    AfterFence,
    AmidWrites,
    BeforeCommit,
    AfterCommit,
    RefitAmidWrites,
    RefitAfterCommit,
    PublishAmidPage,
    PublishAfterCommit,
    ClaimBeforeCommit,
    ClaimAfterCommit,
}

impl Point {
    pub const ALL: [Point; 11] = [
        Point::BeforeFence,
        Point::AfterFence,
        Point::AmidWrites,
        Point::BeforeCommit,
        Point::AfterCommit,
        Point::RefitAmidWrites,
        Point::RefitAfterCommit,
        Point::PublishAmidPage,
        Point::PublishAfterCommit,
        Point::ClaimBeforeCommit,
        Point::ClaimAfterCommit,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Point::BeforeFence => "cut: ingest, before the fence reaches the server",
            Point::AfterFence => "cut: ingest, after the fence was passed",
            Point::AmidWrites => "cut: ingest, in the middle of the writes",
            Point::BeforeCommit => "cut: ingest, before COMMIT reaches the server",
            Point::AfterCommit => "cut: ingest, after COMMIT, before its answer",
            Point::RefitAmidWrites => "cut: refit, in the middle of the writes",
            Point::RefitAfterCommit => "cut: refit, after COMMIT, before its answer",
            Point::PublishAmidPage => "cut: publish, in the middle of a page",
            Point::PublishAfterCommit => "cut: publish, after COMMIT, before its answer",
            Point::ClaimBeforeCommit => "cut: claim, before COMMIT reaches the server",
            Point::ClaimAfterCommit => "cut: claim, after COMMIT, before its answer",
        }
    }

    /// Reached only while partitions change hands.
    pub fn is_of_a_claim(self) -> bool {
        matches!(self, Point::ClaimBeforeCommit | Point::ClaimAfterCommit)
    }

    pub fn is_of_a_publish(self) -> bool {
        matches!(self, Point::PublishAmidPage | Point::PublishAfterCommit)
    }

    /// The request that it is about, and whether the server gets to see and answer it.
    pub fn place(self) -> (Request, bool) {
        match self {
            Point::BeforeFence => (Request::Statement(Mark::Fence), false),
            Point::AfterFence => (Request::Statement(Mark::Fence), true),
            Point::AmidWrites => (Request::Statement(Mark::Changes), false),
            Point::RefitAmidWrites => (Request::Statement(Mark::Fits), true),
            Point::PublishAmidPage => (Request::Statement(Mark::Page), true),
            Point::BeforeCommit => (Request::Commit(self), false),
            Point::ClaimBeforeCommit => (Request::Commit(self), false),
            Point::AfterCommit | Point::RefitAfterCommit | Point::PublishAfterCommit | Point::ClaimAfterCommit => {
                (Request::Commit(self), true)
            }
        }
    }
}

/// What one connection has said so far.
pub struct Talk {
    /// The connection's own names of prepared statements.
    statements: HashMap<Vec<u8>, Option<Mark>>,
    transaction: Transaction,
}

impl Talk {
    pub fn new() -> Talk {
        Talk { statements: HashMap::new(), transaction: Transaction::Unknown }
    }

    /// What a message from the worker asks for.
    pub fn listen(&mut self, frame: &Frame) -> Vec<Request> {
        match frame.tag() {
            b'P' => {
                let (name, rest) = text(frame.body());
                let sql = String::from_utf8_lossy(text(rest).0).split_whitespace().collect::<Vec<_>>().join(" ");
                let mark = MARKS.iter().find(|(words, _)| sql.contains(words)).map(|(_, mark)| *mark);
                self.statements.insert(name.to_vec(), mark);
                Vec::new()
            }
            b'B' => {
                let (_, rest) = text(frame.body());
                let mark = self.statements.get(text(rest).0).copied().flatten();
                self.transaction = match mark {
                    Some(Mark::Fence) => Transaction::Ingest,
                    Some(Mark::RefitLock) => Transaction::Refit,
                    Some(Mark::Page) => Transaction::Publish,
                    Some(Mark::Claim) => Transaction::Claim,
                    _ => self.transaction,
                };
                mark.map(Request::Statement).into_iter().collect()
            }
            b'Q' => {
                let sql = String::from_utf8_lossy(text(frame.body()).0).into_owned();
                // Rows go in a COPY where they are many.
                if let Some((_, mark)) = MARKS.iter().find(|(words, _)| sql.contains(words)) {
                    return vec![Request::Statement(*mark)];
                }
                let of = self.transaction;
                let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
                if ["BEGIN", "COMMIT", "ROLLBACK"].contains(&word.as_str()) {
                    self.transaction = Transaction::Unknown;
                }
                let points: &[Point] = match of {
                    _ if word != "COMMIT" => &[],
                    Transaction::Ingest => &[Point::BeforeCommit, Point::AfterCommit],
                    Transaction::Refit => &[Point::RefitAfterCommit],
                    Transaction::Publish => &[Point::PublishAfterCommit],
                    Transaction::Claim => &[Point::ClaimBeforeCommit, Point::ClaimAfterCommit],
                    Transaction::Unknown => &[],
                };
                points.iter().copied().map(Request::Commit).collect()
            }
            _ => Vec::new(),
        }
    }
}
