//! Health: alive as long as every loop comes round, ready as long as source and store answer.
//!
//! *Alive* is a matter of the process: where it fails, a restart may help. *Ready* is one of what the worker depends on:
//! where it fails, a restart does not help, and the reason says what to look at.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A loop that has not come round for this long is stuck. Far above what any of them takes: fits take milliseconds, and
/// a loop that waits for a store beats between its attempts.
pub const BEAT_LIMIT: Duration = Duration::from_secs(60);

/// The worker's loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    Ingest,
    Refit,
    Publish,
}

/// What the worker depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// Ready once partitions were assigned (none is fine: others have them) and what was read first is committed, or
    /// there was nothing to read.
    Source,
    /// Ready as long as its last answer was not an error.
    Store,
}

/// The state that loops report to and that `/livez` and `/readyz` ask. Clones share it.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When each loop last came round; `None` for one that has nothing left to do.
    beats: [Option<Instant>; Loop::ALL.len()],
    /// Why each dependency is not ready.
    obstacles: [Option<String>; Dependency::ALL.len()],
}

impl Health {
    /// Every loop has until [`BEAT_LIMIT`] for its first beat; nothing is ready.
    pub fn new() -> Health {
        Health(Arc::new(Mutex::new(State {
            beats: [Some(Instant::now()); Loop::ALL.len()],
            obstacles: Dependency::ALL.map(|_| Some("not connected yet".to_owned())),
        })))
    }

    /// A loop came round.
    pub fn beat(&self, which: Loop) {
        self.state().beats[which as usize] = Some(Instant::now());
    }

    /// A loop has nothing left to do: its silence is no fault.
    pub fn finish(&self, which: Loop) {
        self.state().beats[which as usize] = None;
    }

    /// A dependency answered.
    pub fn ready(&self, dependency: Dependency) {
        self.state().obstacles[dependency as usize] = None;
    }

    /// A dependency did not answer, for this reason. It is shown to whoever asks: it must not hold secrets.
    pub fn not_ready(&self, dependency: Dependency, reason: impl fmt::Display) {
        self.state().obstacles[dependency as usize] = Some(reason.to_string());
    }

    /// Whether every loop came round lately, seen at this moment.
    ///
    /// # Errors
    /// With a line that names a loop that did not.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        let state = self.state();
        for (which, beat) in Loop::ALL.into_iter().zip(state.beats) {
            let silence = beat.map_or(Duration::ZERO, |beat| now.saturating_duration_since(beat));
            if silence > BEAT_LIMIT {
                return Err(format!("the {which} loop has not come round for {} s", silence.as_secs()));
            }
        }
        Ok(())
    }

    /// Whether source and store answer.
    ///
    /// # Errors
    /// With a line that names each that does not, and why.
    pub fn readiness(&self) -> Result<(), String> {
        let state = self.state();
        let obstacles: Vec<String> = Dependency::ALL
            .into_iter()
            .zip(&state.obstacles)
            // One line, whatever the reason came from.
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
