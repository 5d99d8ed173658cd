//! Messages as a producer writes them: the event contract from the sending side.
//!
//! These types deliberately allow invalid content (a null variance, a treatment with the control's name), as producers
//! send it.

use serde::{Serialize, Serializer};
use shrinkd_core::{SCHEMA_VERSION, SCHEMA_VERSION_WITH_KIND};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One line of NDJSON, one Kafka message.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Message {
    Event(Event),
    Tombstone(Tombstone),
}

/// A completed experiment at one revision.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    pub(super) schema_version: u64,
    pub experiment_id: String,
    pub revision: u64,
    #[serde(serialize_with = "rfc3339")]
    pub completed_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(serialize_with = "optional_rfc3339", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipped_variant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<&'static str>,
    pub results: Vec<Report>,
}

/// Retracts a whole experiment.
#[derive(Debug, Clone, Serialize)]
pub struct Tombstone {
    schema_version: u64,
    pub experiment_id: String,
    retracted: bool,
}

/// A platform's metadata about an experiment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Labels {
    pub team: &'static str,
    pub surface: &'static str,
}

/// One entry of an event's results.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Report {
    Reported(Reported),
    Retraction { metric: &'static str, status: &'static str },
}

/// One result.
#[derive(Debug, Clone, Serialize)]
pub struct Reported {
    pub metric: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<&'static str>,
    pub scale: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    #[serde(flatten)]
    pub measurement: Measurement,
}

/// What a result reports: its arms, or effects that the producer computed.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Measurement {
    Arms {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        accumulate: bool,
        control: Arm,
        treatments: Vec<Arm>,
    },
    Effects {
        /// Of which only the size is reported: the control's variance is imputed.
        #[serde(skip_serializing_if = "Option::is_none")]
        control: Option<ArmSize>,
        effects: Vec<Effect>,
        #[serde(skip_serializing_if = "Option::is_none")]
        control_variance: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        variance_form: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        covariance: Option<Vec<Vec<f64>>>,
    },
}

/// One arm.
#[derive(Debug, Clone, Serialize)]
pub struct Arm {
    pub variant: String,
    #[serde(flatten)]
    pub statistics: Statistics,
}

/// The ways to report an arm.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Statistics {
    /// `None` is written as null, as by a pipeline that could not compute the variance.
    MeanAndVariance {
        n: u64,
        mean: f64,
        variance: Option<f64>,
    },
    Sums {
        n: u64,
        sum: f64,
        sum_squares: f64,
    },
    Successes {
        n: u64,
        successes: u64,
    },
    MeanAndDeviation {
        n: u64,
        mean: f64,
        standard_deviation: f64,
    },
    MeanAndError {
        mean: f64,
        standard_error: f64,
    },
    Ratio {
        n: u64,
        sum: f64,
        sum_squares: f64,
        denominator_sum: f64,
        denominator_sum_squares: f64,
        numerator_denominator_sum_product: f64,
    },
    Covariate {
        n: u64,
        sum: f64,
        sum_squares: f64,
        covariate_sum: f64,
        covariate_sum_squares: f64,
        main_covariate_sum_product: f64,
    },
}

/// An arm of which only the size is reported.
#[derive(Debug, Clone, Serialize)]
pub struct ArmSize {
    pub variant: String,
    pub n: u64,
}

/// One effect that the producer computed.
#[derive(Debug, Clone, Serialize)]
pub struct Effect {
    pub variant: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    pub estimate: f64,
    /// Absent if a covariance matrix contains it.
    #[serde(flatten)]
    pub error: Option<SamplingError>,
}

/// The ways to report the sampling error of an effect.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum SamplingError {
    Variance { variance: f64 },
    StandardError { standard_error: f64 },
    Interval { ci_low: f64, ci_high: f64, ci_level: f64 },
    TreatmentVariance { treatment_variance: f64 },
}

impl Message {
    /// The experiment that the message is about: its key in Kafka.
    pub fn experiment_id(&self) -> &str {
        match self {
            Message::Event(event) => &event.experiment_id,
            Message::Tombstone(tombstone) => &tombstone.experiment_id,
        }
    }
}

impl Event {
    /// An event with no more than what is required.
    pub fn new(experiment_id: String, revision: u64, completed_at: OffsetDateTime, results: Vec<Report>) -> Event {
        Event {
            schema_version: SCHEMA_VERSION,
            experiment_id,
            revision,
            completed_at,
            kind: None,
            started_at: None,
            shipped_variant: None,
            event_id: None,
            labels: None,
            decision: None,
            results,
        }
    }

    /// The same event as that of a holdout.
    pub fn of_holdout(self) -> Event {
        Event { schema_version: SCHEMA_VERSION_WITH_KIND, kind: Some("holdout"), ..self }
    }
}

impl Tombstone {
    pub fn new(experiment_id: String) -> Tombstone {
        Tombstone { schema_version: SCHEMA_VERSION, experiment_id, retracted: true }
    }
}

impl Report {
    /// Retracts a metric's results: every segment, every scale.
    pub fn retraction(metric: &'static str) -> Report {
        Report::Retraction { metric, status: "retracted" }
    }
}

/// The id of the experiment at `index`, padded so that ids sort in the order of the experiments.
pub(super) fn experiment_id(index: usize) -> String {
    format!("exp-{:06}", index + 1)
}

/// The name of the treatment at `index`.
pub(super) fn variant(index: usize) -> String {
    format!("v{}", index + 1)
}

/// The moment `minutes` after the simulated clock starts, 2026-01-01.
pub(super) fn minutes_in(minutes: i64) -> OffsetDateTime {
    const START: i64 = 20_454 * 24 * 60;
    OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::minutes(START.saturating_add(minutes)))
}

fn rfc3339<S: Serializer>(moment: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = moment.format(&Rfc3339).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

fn optional_rfc3339<S: Serializer>(moment: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => rfc3339(moment, serializer),
        None => serializer.serialize_none(),
    }
}
