//! The event contract: a completed experiment as producers send it, and as the following steps use it.
//!
//! One message is one experiment at one revision, with any number of results (metric x segment x scale). An invalid
//! message is refused as a whole; an invalid result is refused alone. Pure: bytes in, validated values or a [`Refusal`]
//! out.
//!
//! | module | contents |
//! | --- | --- |
//! | `refusal` | reason codes in the order in which they are checked, and where in a message something is refused |
//! | `leaf`, `timestamp`, `lenient` | values of a message, which may be of the wrong type |
//! | `wire` | the wire format, field by field |
//! | `unknown` | fields that the contract does not have, and what was probably meant |
//! | `schema`, `schema_rules` | the same contract as a JSON Schema, generated from the wire format |
//! | `arms`, `effects` | what one result reports |
//! | `sums` | sums over units -> moments |
//! | `measure` | arms or reported effects -> the effects and covariance of a [`Block`] |
//! | `warning` | what is taken although its figures need caution |
//! | `merge` | the parts of a result that accumulates -> the arms of the whole |
//! | `results` | the results of a message, read and validated |
//! | `decode` | bytes -> [`Message`] |
//! | `keyed` | the same for messages with a key, which may be framed |
//! | `form` | what bytes that are not JSON look like |

mod arms;
mod decode;
mod effects;
mod form;
mod keyed;
mod leaf;
mod lenient;
mod measure;
mod merge;
mod refusal;
mod results;
mod same;
mod schema;
mod schema_rules;
mod sums;
mod timestamp;
mod unknown;
mod warning;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shrinkd_model::{Block, Direction};

pub use arms::{Arm, ArmStatistics, Arms};
pub use decode::{MAX_MESSAGE_BYTES, decode, message_too_large};
pub use effects::{Effects, Uncertainty, VarianceForm};
pub use keyed::{KeyRule, check_key, decode_keyed, decode_tombstone};
pub use leaf::{SCHEMA_VERSION, SCHEMA_VERSION_WITH_KIND};
pub(crate) use measure::examine;
pub use measure::{Findings, is_lift_too_large, measure};
pub use merge::merge_parts;
pub use refusal::{Reason, Refusal};
pub use schema::event_schema;
pub use sums::PairedMoments;
pub use unknown::{UnknownField, nearest_field, nearest_name};
pub use warning::{Warning, WarningCode};
pub use wire::MAX_RESULTS;

/// One message, decoded.
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
    /// A day beyond the end of its month, such as 30 February, has become a day of the next month.
    pub completed_at: time::OffsetDateTime,
    /// Names the message itself; required where results accumulate.
    pub event_id: Option<String>,
    /// Whether it takes part in populations.
    pub kind: ExperimentKind,
    /// When the experiment was started; not after `completed_at`.
    pub started_at: Option<time::OffsetDateTime>,
    /// The variant that all users have got since, which may be the control.
    pub shipped_variant: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// What the platform decided; what means shipped is counted in the selection diagnostic. `None` also where it is not a valid
    /// identifier.
    pub decision: Option<String>,
    /// One entry for each result of the message, in its order; refusing one does not affect the others.
    pub results: Vec<Result<ReportedResult, Refusal>>,
    /// The first 16 fields that the contract does not have, each name once. They are ignored.
    pub unknown_fields: Vec<UnknownField>,
}

/// What an event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ExperimentKind {
    #[default]
    Experiment,
    /// Users who are kept from many changes at once, against all others. Its effects are no draws from the population of single
    /// changes: it is stored, and in no population.
    Holdout,
}

/// What a result says of its effects beside what was measured. No block depends on it; what is `None` was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Properties {
    /// Which way of the effects is better.
    pub direction: Option<Direction>,
    /// The share of the whole traffic that the effects apply to, above 0 and at most 1. All of it where it was not sent.
    pub coverage: Option<f64>,
}

/// One result of an event, validated as far as one message alone can be.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportedResult {
    /// Replaces the results of earlier revisions for this key.
    Whole { key: ResultKey, measurement: Measurement, measured: Measured, properties: Properties, findings: Findings },
    /// One part of a result that accumulates (`"accumulate": true`).
    Part { key: ResultKey, arms: Arms, properties: Properties },
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
    /// `(m_i - m_c) / |m_c|`
    Relative,
    /// `ln(m_i / m_c)`
    LogRatio,
    /// `logit(m_i) - logit(m_c)`, the logarithm of the odds ratio of two rates, with `logit(p) = ln(p / (1 - p))`.
    LogOdds,
}

/// What was measured: arms, or effects that the producer computed. Sorted by variant, so that equal content is equal
/// whatever order it was sent in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Measurement {
    Arms(Arms),
    Effects(Effects),
}

/// A measurement on its scale: the block that the model takes, one variant for each effect, in the order of the
/// variants' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedMeasured")]
pub struct Measured {
    pub variants: Vec<String>,
    pub block: Block,
    /// The variance of each effect as platforms show it (delta method). On `relative`, and of arms sent as successes, it
    /// is not that of the block.
    pub raw_variances: Vec<f64>,
    /// Whether half an event was added to every arm.
    pub is_continuity_corrected: bool,
    pub control_variance_source: ControlVarianceSource,
}

/// How the control's part of the variances of a block is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlVarianceSource {
    /// It is the variance of the control's mean, from its arm.
    Arms,
    /// The producer computed it, alone or within a covariance.
    Given,
    /// It follows from the variances of the effects and the numbers of units, as if all units had one variance.
    Imputed,
    /// It is unknown, and taken as 0: a single effect was sent without it.
    None,
}

/// A measurement as it was stored, which is validated again because stored bytes can be damaged.
#[derive(Deserialize)]
struct UncheckedMeasured {
    variants: Vec<String>,
    block: Block,
    raw_variances: Vec<f64>,
    is_continuity_corrected: bool,
    control_variance_source: ControlVarianceSource,
}

impl TryFrom<UncheckedMeasured> for Measured {
    type Error = String;

    fn try_from(unchecked: UncheckedMeasured) -> Result<Measured, String> {
        let UncheckedMeasured { variants, block, raw_variances, is_continuity_corrected, control_variance_source } =
            unchecked;
        if variants.len() != block.len() {
            return Err(format!("{} effects have {} names", block.len(), variants.len()));
        }
        if raw_variances.len() != block.len() || !raw_variances.iter().all(|variance| *variance > 0.0) {
            return Err(format!("{} effects have the variances {raw_variances:?}", block.len()));
        }
        Ok(Measured { variants, block, raw_variances, is_continuity_corrected, control_variance_source })
    }
}

impl ExperimentKind {
    /// Every kind.
    pub const ALL: [ExperimentKind; 2] = [ExperimentKind::Experiment, ExperimentKind::Holdout];

    /// The kind's name on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            ExperimentKind::Experiment => "experiment",
            ExperimentKind::Holdout => "holdout",
        }
    }
}

impl Properties {
    /// Of two messages of one revision, whichever came first: the larger of each property, and one that was sent rather than none.
    pub(crate) fn max(self, other: Properties) -> Properties {
        let coverage = match (self.coverage, other.coverage) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        Properties { direction: self.direction.max(other.direction), coverage }
    }
}

impl Scale {
    /// Every scale.
    pub const ALL: [Scale; 4] = [Scale::Absolute, Scale::Relative, Scale::LogRatio, Scale::LogOdds];

    /// The scale's name on the wire, in tables and in population names.
    pub fn as_str(self) -> &'static str {
        match self {
            Scale::Absolute => "absolute",
            Scale::Relative => "relative",
            Scale::LogRatio => "log_ratio",
            Scale::LogOdds => "log_odds",
        }
    }
}

impl ControlVarianceSource {
    /// The source as it stands in tables, JSON and CSV.
    pub fn as_str(self) -> &'static str {
        match self {
            ControlVarianceSource::Arms => "arms",
            ControlVarianceSource::Given => "given",
            ControlVarianceSource::Imputed => "imputed",
            ControlVarianceSource::None => "none",
        }
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
