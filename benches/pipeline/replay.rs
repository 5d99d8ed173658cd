//! Replays a recording: the same statements with the same values in the same transactions, without the worker's own work
//! between them.
//!
//! Ingest runs as fast as the server responds. Refits and publishes start once the transactions have ended that had ended when
//! they started in the recording, so that they find the same rows.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;

use crate::Outcome;
use crate::proxy::{Statement, lock, name_of};
use crate::recording::{INGEST, LANES, Recording, Transaction};
use crate::wire::{Answer, RawConnection, frame};

/// How often a transaction is retried after a conflict, as the worker does.
const TRIES: usize = 20;

/// The times of a replay.
pub struct Replay {
    /// Until the last batch was committed.
    pub ingest: Duration,
    /// Until everything was committed.
    pub whole: Duration,
    /// Rows written, by lane.
    pub rows: [u64; LANES.len()],
    /// Response times by lane and statement; `None` for `BEGIN` and `COMMIT`.
    pub times: BTreeMap<(usize, Option<usize>), Duration>,
}

/// How many transactions of each lane have ended.
#[derive(Default)]
struct Progress {
    done: Mutex<[usize; LANES.len()]>,
    changed: Condvar,
}

/// A lane on its own connection.
struct Lane<'a> {
    number: usize,
    recording: &'a Recording,
    connection: RawConnection,
    prepared: HashSet<usize>,
    bytes: Vec<u8>,
    rows: u64,
    times: BTreeMap<(usize, Option<usize>), Duration>,
}

impl Replay {
    /// Replays into an empty database that has the schema.
    pub fn run(recording: &Recording, options: &PgConnectOptions) -> Outcome<Replay> {
        let lane = |number: usize| -> Outcome<Lane<'_>> {
            let connection = RawConnection::connect(options)?;
            let (prepared, times) = (HashSet::new(), BTreeMap::new());
            Ok(Lane { number, recording, connection, prepared, bytes: Vec::new(), rows: 0, times })
        };
        let lanes = (0..LANES.len()).map(lane).collect::<Outcome<Vec<_>>>()?;
        let progress = Progress::default();
        let started = Instant::now();
        let ended: Vec<Outcome<(Lane<'_>, Duration)>> = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for lane in lanes {
                let progress = &progress;
                threads.push(scope.spawn(move || {
                    let number = lane.number;
                    let result = lane.run(progress).map(|lane| (lane, started.elapsed()));
                    // Even if it failed, because the others must not wait for it.
                    progress.end(number);
                    result
                }));
            }
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a lane panicked".into()))).collect()
        });
        let mut replay =
            Replay { ingest: Duration::ZERO, whole: Duration::ZERO, rows: [0; LANES.len()], times: BTreeMap::new() };
        for ended in ended {
            let (lane, elapsed) = ended?;
            replay.whole = replay.whole.max(elapsed);
            if lane.number == INGEST {
                replay.ingest = elapsed;
            }
            replay.rows[lane.number] = lane.rows;
            replay.times.extend(lane.times);
        }
        Ok(replay)
    }
}

impl Progress {
    fn wait(&self, after: [usize; LANES.len()]) {
        let is_waiting = |done: &mut [usize; LANES.len()]| done.iter().zip(after).any(|(done, after)| *done < after);
        let done = self.changed.wait_while(lock(&self.done), is_waiting);
        drop(done.unwrap_or_else(PoisonError::into_inner));
    }

    fn advance(&self, lane: usize) {
        lock(&self.done)[lane] += 1;
        self.changed.notify_all();
    }

    fn end(&self, lane: usize) {
        lock(&self.done)[lane] = usize::MAX;
        self.changed.notify_all();
    }
}

impl Lane<'_> {
    fn run(mut self, progress: &Progress) -> Outcome<Self> {
        let recording = self.recording;
        for transaction in &recording.lanes[self.number] {
            if self.number != INGEST {
                let mut after = transaction.after;
                after[self.number] = 0;
                progress.wait(after);
            }
            self.write(transaction)?;
            progress.advance(self.number);
        }
        Ok(self)
    }

    fn write(&mut self, transaction: &Transaction) -> Outcome<()> {
        for _ in 0..TRIES {
            let (mut rows, mut failure) = (0, None);
            for part in &transaction.parts {
                self.bytes.resize(part.length, 0);
                transaction.file.read_exact_at(&mut self.bytes, part.at)?;
                let sent = Instant::now();
                let of = part.statement.map(|number| &self.recording.statements[number]);
                let is_prepared = of.is_some_and(|statement| !statement.prepared.is_empty());
                if let Some(statement) = part.statement.filter(|number| is_prepared && self.prepared.insert(*number)) {
                    let prepared = &self.recording.statements[statement].prepared;
                    let body = [name_of(statement).as_bytes(), b"\0", prepared].concat();
                    self.connection.stream.write_all(&frame(b'P', &body))?;
                }
                self.connection.stream.write_all(&self.bytes)?;
                let Answer { rows: own, error } = self.connection.answer()?;
                *self.times.entry((self.number, part.statement)).or_default() += sent.elapsed();
                if !of.is_some_and(Statement::is_stage) {
                    rows += own;
                }
                if error.is_some() {
                    failure = error;
                    self.connection.execute("rollback")?;
                    break;
                }
            }
            match failure {
                None => {
                    self.rows += rows;
                    return Ok(());
                }
                Some((code, _)) if ["40001", "40P01"].contains(&code.as_str()) => {}
                Some((code, message)) => {
                    return Err(format!("replaying {}: {message} ({code})", LANES[self.number]).into());
                }
            }
        }
        Err(format!("replaying {}: other transactions were in the way {TRIES} times", LANES[self.number]).into())
    }
}
