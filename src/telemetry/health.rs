//! Health: a worker is alive as long as every loop makes progress, and ready as long as everything that it does succeeds.
//!
//! *Alive* concerns the process: if it is not, a restart may help. *Ready* concerns what the process depends on: if it is
//! not, a restart does not help, and the reason names what to look at.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A loop without a heartbeat for this long is stuck. No loop takes nearly as long: fits take milliseconds, and a loop that
/// waits for the store sends heartbeats while it waits.
pub const BEAT_LIMIT: Duration = Duration::from_secs(60);

/// The worker's loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    Ingest,
    Refit,
    Publish,
}

/// What a worker does over and over. Each fails by itself, and only its own success ends that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Opening the store, and then reaching the brokers, at the start.
    Connect,
    /// Being a member of the consumer group; of a file, having opened it. Succeeds once partitions are assigned, even if it is
    /// none because others own them all.
    Group,
    /// Taking over assigned partitions in the store.
    Claim,
    /// Reading the records of owned partitions.
    Fetch,
    /// Asking the brokers for the ends of owned partitions.
    EndOffsets,
    /// Committing batches.
    Ingest,
    /// Halting partitions in the store.
    Halt,
    Refit,
    Publish,
}

/// The state behind `/livez` and `/readyz`, to which the worker reports. Clones share it.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The last heartbeat of each loop; `None` for one that has finished.
    beats: [Option<Instant>; Loop::ALL.len()],
    operations: [Status; Operation::ALL.len()],
}

/// How an operation is doing.
#[derive(Debug, Clone, Default)]
struct Status {
    /// Failed attempts since the last that succeeded.
    failures: u32,
    /// Why the worker is not ready.
    obstacle: Option<String>,
}

impl Health {
    /// Every loop has until [`BEAT_LIMIT`] for its first heartbeat; neither the store nor the source is ready.
    pub fn new() -> Health {
        let operations = Operation::ALL.map(|operation| Status {
            failures: 0,
            obstacle: match operation {
                Operation::Connect => Some("not connected yet".to_owned()),
                Operation::Group => Some("not joined yet".to_owned()),
                _ => None,
            },
        });
        Health(Arc::new(Mutex::new(State { beats: [Some(Instant::now()); Loop::ALL.len()], operations })))
    }

    /// Records a heartbeat of a loop.
    pub fn beat(&self, which: Loop) {
        self.state().beats[which as usize] = Some(Instant::now());
    }

    /// A loop has finished: no heartbeat is expected of it any more.
    pub fn finish(&self, which: Loop) {
        self.state().beats[which as usize] = None;
    }

    /// An attempt of an operation succeeded.
    pub fn succeeded(&self, operation: Operation) {
        self.state().operations[operation as usize] = Status::default();
    }

    /// An attempt of an operation failed, for this reason. Anyone may read it over HTTP: it has no text of a server.
    pub fn failed(&self, operation: Operation, reason: impl fmt::Display) {
        let status = &mut self.state().operations[operation as usize];
        status.failures = status.failures.saturating_add(1);
        status.obstacle = Some(reason.to_string());
    }

    /// Each operation, and how many of its attempts have failed since the last that succeeded.
    pub fn consecutive_failures(&self) -> [(Operation, u32); Operation::ALL.len()] {
        let state = self.state();
        Operation::ALL.map(|operation| (operation, state.operations[operation as usize].failures))
    }

    /// Whether every loop had a heartbeat within [`BEAT_LIMIT`] before `now`.
    ///
    /// # Errors
    /// With a line that names a loop that had none.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        let state = self.state();
        for (which, beat) in Loop::ALL.into_iter().zip(state.beats) {
            let silence = beat.map_or(Duration::ZERO, |beat| now.saturating_duration_since(beat));
            if silence > BEAT_LIMIT {
                return Err(format!("no heartbeat of the {which} loop for {} s", silence.as_secs()));
            }
        }
        Ok(())
    }

    /// Whether store and source are connected, and the last attempt of every operation succeeded.
    ///
    /// # Errors
    /// With a line that names each operation that failed, and why.
    pub fn readiness(&self) -> Result<(), String> {
        let state = self.state();
        let obstacles: Vec<String> = Operation::ALL
            .into_iter()
            .zip(&state.operations)
            // In one line, even if the reason has several, and with `;` only between operations.
            .filter_map(|(operation, status)| {
                let obstacle = status.obstacle.as_ref()?.replace(['\r', '\n'], " ").replace(';', ",");
                Some(format!("{operation}: {obstacle}"))
            })
            .collect();
        if obstacles.is_empty() { Ok(()) } else { Err(obstacles.join("; ")) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Health {
    fn default() -> Health {
        Health::new()
    }
}

impl Loop {
    pub const ALL: [Loop; 3] = [Loop::Ingest, Loop::Refit, Loop::Publish];
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loop::Ingest => "ingest",
            Loop::Refit => "refit",
            Loop::Publish => "publish",
        })
    }
}

impl Operation {
    pub const ALL: [Operation; 9] = [
        Operation::Connect,
        Operation::Group,
        Operation::Claim,
        Operation::Fetch,
        Operation::EndOffsets,
        Operation::Ingest,
        Operation::Halt,
        Operation::Refit,
        Operation::Publish,
    ];

    /// Its name in metrics, logs and `/readyz`.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Connect => "connect",
            Operation::Group => "group",
            Operation::Claim => "claim",
            Operation::Fetch => "fetch",
            Operation::EndOffsets => "end_offsets",
            Operation::Ingest => "ingest",
            Operation::Halt => "halt",
            Operation::Refit => "refit",
            Operation::Publish => "publish",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
