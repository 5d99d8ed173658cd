//! The recorded transactions of a worker in order, with a lane for each of its loops.

use std::fs::File;
use std::sync::{Arc, Mutex};

use crate::Outcome;
use crate::proxy::{Answered, Statement, Step, Tape, lock};

pub const LANES: [&str; 3] = ["ingest", "refit", "publish"];
pub const INGEST: usize = 0;
const REFIT: usize = 1;
const PUBLISH: usize = 2;

/// The lanes, and the statement names that identify their transactions, in the order in which they are tried.
const MARKS: [(&str, usize); 6] = [
    ("/* refit: fits */", REFIT),
    ("/* ingest: fence */", INGEST),
    ("/* claim: raise epochs */", INGEST),
    ("/* settings: put in */", INGEST),
    ("/* publish: move the cursor */", PUBLISH),
    ("/* publish: ", PUBLISH),
];

/// Everything that one worker wrote.
pub struct Recording {
    pub statements: Vec<Statement>,
    /// In the order in which they began.
    pub lanes: [Vec<Transaction>; LANES.len()],
}

/// A transaction that wrote something.
pub struct Transaction {
    pub file: Arc<File>,
    pub parts: Vec<Part>,
    /// Rows written, as reported by the server.
    pub rows: u64,
    /// How many transactions of each lane had ended when this one began.
    pub after: [usize; LANES.len()],
    begun: u64,
    ended: u64,
}

/// Messages that are sent before waiting for the response.
#[derive(Clone, Copy)]
pub struct Part {
    pub at: u64,
    pub length: usize,
    /// `None` for `BEGIN` and `COMMIT`.
    pub statement: Option<usize>,
}

impl Recording {
    pub fn new(statements: Vec<Statement>, tapes: &[Arc<Mutex<Tape>>]) -> Outcome<Recording> {
        let mut recording = Recording { statements, lanes: [const { Vec::new() }; LANES.len()] };
        for tape in tapes {
            let tape = lock(tape);
            let file = Arc::new(tape.file.try_clone()?);
            // The first response belongs to the start of the connection.
            let mut open: Vec<(&Step, &Answered)> = Vec::new();
            for (step, answer) in tape.steps.iter().zip(tape.answers.iter().skip(1)) {
                open.push((step, answer));
                if !answer.is_in_transaction {
                    recording.take(&file, &open)?;
                    open.clear();
                }
            }
        }
        recording.order();
        Ok(recording)
    }

    /// The size of everything that was written, in bytes.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().flatten().flat_map(|transaction| &transaction.parts).map(|part| part.length).sum()
    }

    /// Rows that a lane's statements wrote.
    pub fn rows(&self, lane: usize) -> u64 {
        self.lanes[lane].iter().map(|transaction| transaction.rows).sum()
    }

    /// Adds the steps of one transaction if it wrote anything and committed.
    fn take(&mut self, file: &Arc<File>, steps: &[(&Step, &Answered)]) -> Outcome<()> {
        let (Some((first, _)), Some((last, end))) = (steps.first(), steps.last()) else { return Ok(()) };
        let sql: Vec<&str> = steps
            .iter()
            .filter_map(|(step, _)| step.statement)
            .map(|number| self.statements[number].sql.as_str())
            .collect();
        if sql.is_empty() || last.simple.as_deref() == Some("ROLLBACK") {
            return Ok(());
        }
        let lane = MARKS.iter().find(|(mark, _)| sql.iter().any(|sql| sql.contains(mark))).map(|(_, lane)| *lane);
        let lane = lane.ok_or_else(|| format!("a transaction of no known loop, add it to MARKS: {sql:?}"))?;
        let part = |(step, _): &(&Step, &Answered)| {
            (step.length > 0).then_some(Part { at: step.at, length: step.length, statement: step.statement })
        };
        let parts = steps.iter().filter_map(part).collect();
        let is_stage = |step: &Step| step.statement.is_some_and(|number| self.statements[number].is_stage());
        let rows = steps.iter().filter(|(step, _)| !is_stage(step)).map(|(_, answer)| answer.rows).sum();
        let (begun, ended) = (first.time, end.time);
        self.lanes[lane].push(Transaction { file: Arc::clone(file), parts, rows, after: [0; 3], begun, ended });
        Ok(())
    }

    fn order(&mut self) {
        for lane in &mut self.lanes {
            lane.sort_by_key(|transaction| transaction.begun);
        }
        let ends = self.lanes.each_ref().map(|lane| {
            let mut ends: Vec<u64> = lane.iter().map(|transaction| transaction.ended).collect();
            ends.sort_unstable();
            ends
        });
        for transaction in self.lanes.iter_mut().flatten() {
            transaction.after = ends.each_ref().map(|ends| ends.partition_point(|&end| end < transaction.begun));
        }
    }
}
