//! The event contract: a completed experiment as producers send it, and as the rest of the crate sees it.
//!
//! One message is one experiment at one revision, with any number of results (metric x segment x scale). What is
//! wrong with the message refuses the message; what is wrong inside one result refuses that result alone. Everything
//! here is pure: bytes in, validated values or a [`Refusal`] out.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`mod@decode`] | bytes -> [`Message`]: JSON, shape, identifiers, what can be judged without state |
//! | [`measure`] | arms or reported effects -> the effects and covariance of a [`Block`] |
//! | [`reason`] | the reason codes of a refusal, in the order in which they are checked |
//! | [`schema`] | the same contract as a JSON Schema, generated from the wire types |
//!
//! Within `decode`: `wire` (what producers write, field by field), `lenient` and `leaf` (values that may be of the wrong
//! type), `faults` and `path` (which fault is reported, and where it stands), `reported` with `arms` and `effects` (one
//! result), `overlap` (two results of one block). `merge` adds up the parts of a result that accumulates.

mod arms;
pub mod decode;
mod effects;
mod faults;
mod leaf;
mod lenient;
pub mod measure;
mod merge;
mod overlap;
mod path;
pub mod reason;
mod reported;
pub mod schema;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use decode::{MAX_MESSAGE_BYTES, check_key, decode, decode_keyed, decode_tombstone, too_large};
pub use leaf::{MAX_IDENTIFIER_BYTES, MAX_INTEGER, SCHEMA_VERSION};
pub use reason::{Reason, Refusal};
pub use wire::{MAX_RESULTS, MAX_VARIANTS};

use shrinkd_model::block::Block;

/// What one message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Results of one experiment at one revision.
    Event(Event),
    /// Every block of the experiment is withdrawn and its revisions are forgotten.
    Tombstone { experiment_id: String },
}

/// A completed experiment at one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub experiment_id: String,
    /// Orders the versions of an experiment, 0 to 2^63 - 1.
    pub revision: u64,
    /// A day beyond its month's end, such as 30 February, has run on into the next month.
    pub completed_at: time::OffsetDateTime,
    /// Names the message itself; required where results accumulate.
    pub event_id: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// What the platform decided; `shipped` is counted in the selection diagnostic. None also where it is not a string
    /// that an identifier could be.
    pub decision: Option<String>,
    /// One entry for each result of the message, in its order; a refused one does not take the others down.
    pub results: Vec<Result<ReportedResult, Refusal>>,
}

/// One result of an event, validated as far as one message alone can be.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportedResult {
    /// Replaces what earlier revisions said of this key.
    Whole { key: ResultKey, measurement: Measurement, measured: Measured },
    /// One part of a result that accumulates (`"accumulate": true`).
    Part { key: ResultKey, arms: Arms },
    /// Withdraws the results that match: `None` means every segment, every scale.
    Retraction { metric: String, segment: Option<String>, scale: Option<Scale> },
}

/// Names a result within its experiment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultKey {
    pub metric: String,
    pub segment: String,
    pub scale: Scale,
}

/// How an effect compares the treatment's mean with the control's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scale {
    /// `m_i - m_c`
    Absolute,
    /// `m_i / m_c - 1`
    Relative,
    /// `ln(m_i / m_c)`
    LogRatio,
}

/// What was measured: arms, or effects that the producer computed. Sorted by variant, so that equal content is equal
/// whatever order it was sent in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Measurement {
    Arms(Arms),
    Effects(Effects),
}

/// What a measurement says once it is brought to its scale: the block that the model takes, one variant for each
/// effect, in the order of the variants' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedMeasured")]
pub struct Measured {
    pub variants: Vec<String>,
    pub block: Block,
}

/// The same as it was written down: bytes can be damaged.
#[derive(Deserialize)]
struct UncheckedMeasured {
    variants: Vec<String>,
    block: Block,
}

impl TryFrom<UncheckedMeasured> for Measured {
    type Error = String;

    fn try_from(UncheckedMeasured { variants, block }: UncheckedMeasured) -> Result<Measured, String> {
        if variants.len() != block.len() {
            return Err(format!("{} effects have {} names", block.len(), variants.len()));
        }
        Ok(Measured { variants, block })
    }
}

/// Control and treatments of one result; a part may lack either.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    pub control: Option<Arm>,
    /// Sorted by variant.
    pub treatments: Vec<Arm>,
}

/// One arm's statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    pub variant: String,
    pub statistics: ArmStatistics,
}

/// What an arm reports of its units, in the metric's own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ArmStatistics {
    /// `n` units with mean and `m2 = (n - 1) variance`: whatever was sent with a count is turned into this.
    Moments { n: u64, mean: f64, m2: f64 },
    /// A mean and its standard error; the count is only informative.
    Summary { n: Option<u64>, mean: f64, standard_error: f64 },
}

/// Effects as the producer computed them, sorted by variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effects {
    pub variants: Vec<String>,
    /// One effect for each variant, in the unit of the scale.
    pub estimates: Vec<f64>,
    pub uncertainty: Uncertainty,
}

/// Sampling error of reported effects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Uncertainty {
    /// Each effect's whole sampling variance, and the control's part of it (0 where no control is shared).
    SharedControl { variances: Vec<f64>, control_variance: f64 },
    /// The full sampling covariance, row by row, symmetric.
    Covariance { matrix: Vec<f64> },
}

impl Scale {
    /// Every scale.
    pub const ALL: [Scale; 3] = [Scale::Absolute, Scale::Relative, Scale::LogRatio];

    /// The scale's name on the wire, in tables and in population names.
    pub fn as_str(self) -> &'static str {
        match self {
            Scale::Absolute => "absolute",
            Scale::Relative => "relative",
            Scale::LogRatio => "log_ratio",
        }
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
