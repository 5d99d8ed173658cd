//! Health: a worker is alive as long as every loop makes progress, and ready as long as source and store respond.
//!
//! *Alive* concerns the process: if it is not, a restart may help. *Ready* concerns its dependencies: if they are not, a
//! restart does not help, and the reason names what to look at.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A loop without a heartbeat for this long is stuck. No loop takes nearly as long: fits take milliseconds, and a loop that
/// waits for the store sends heartbeats between its attempts.
pub const BEAT_LIMIT: Duration = Duration::from_secs(60);

/// The worker's loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    Ingest,
    Refit,
    Publish,
}

/// The dependencies of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// Ready once partitions were assigned, even if it is none because others own them all.
    Source,
    /// Ready unless its last answer was an error.
    Store,
}

/// The state behind `/livez` and `/readyz`, to which the loops report. Clones share it.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The last heartbeat of each loop; `None` for one that has finished.
    beats: [Option<Instant>; Loop::ALL.len()],
    /// Why each dependency is not ready.
    obstacles: [Option<String>; Dependency::ALL.len()],
}

impl Health {
    /// Every loop has until [`BEAT_LIMIT`] for its first heartbeat; nothing is ready.
    pub fn new() -> Health {
        Health(Arc::new(Mutex::new(State {
            beats: [Some(Instant::now()); Loop::ALL.len()],
            obstacles: Dependency::ALL.map(|_| Some("not connected yet".to_owned())),
        })))
    }

    /// Records a heartbeat of a loop.
    pub fn beat(&self, which: Loop) {
        self.state().beats[which as usize] = Some(Instant::now());
    }

    /// A loop has finished: no heartbeat is expected of it any more.
    pub fn finish(&self, which: Loop) {
        self.state().beats[which as usize] = None;
    }

    /// A dependency responded.
    pub fn ready(&self, dependency: Dependency) {
        self.state().obstacles[dependency as usize] = None;
    }

    /// A dependency failed, for this reason. Anyone may read it over HTTP: it has no text of a server.
    pub fn not_ready(&self, dependency: Dependency, reason: impl fmt::Display) {
        self.state().obstacles[dependency as usize] = Some(reason.to_string());
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

    /// Whether source and store are ready.
    ///
    /// # Errors
    /// With a line that names each that is not, and why.
    pub fn readiness(&self) -> Result<(), String> {
        let state = self.state();
        let obstacles: Vec<String> = Dependency::ALL
            .into_iter()
            .zip(&state.obstacles)
            // In one line, even if the reason has several.
            .filter_map(|(which, why)| Some(format!("{which}: {}", why.as_ref()?.replace(['\r', '\n'], " "))))
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
    const ALL: [Loop; 3] = [Loop::Ingest, Loop::Refit, Loop::Publish];
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

impl Dependency {
    const ALL: [Dependency; 2] = [Dependency::Source, Dependency::Store];
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dependency::Source => "source",
            Dependency::Store => "store",
        })
    }
}
