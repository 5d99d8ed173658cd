//! Which way of an effect is better. No estimate depends on it, only what says better or best.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a metric is better when it increases (conversions) or when it decreases (latency, errors).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    #[default]
    Increase,
    Decrease,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Direction; 2] = [Direction::Increase, Direction::Decrease];

    /// The direction's name on the wire, in tables and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Increase => "increase",
            Direction::Decrease => "decrease",
        }
    }

    /// How much better an effect is than none: the effect, or what it takes away.
    pub fn gain(self, effect: f64) -> f64 {
        match self {
            Direction::Increase => effect,
            Direction::Decrease => -effect,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
