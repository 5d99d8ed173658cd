//! Why a message or a result is refused: a code for machines, a sentence for people.

/// Reason codes, in the order in which they are checked; the first that applies is the one reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    TooLarge,
    MalformedJson,
    UnsupportedVersion,
    SchemaViolation,
    KeyMismatch,
    InvalidIdentifier,
    NoTreatments,
    TooManyVariants,
    DuplicateVariant,
    NonFinite,
    NotAccumulable,
    SampleTooSmall,
    InconsistentSums,
    NonPositiveVariance,
    CovarianceRequired,
    ControlVarianceTooLarge,
    CovarianceNotPositiveDefinite,
    ControlMeanNearZero,
    NonPositiveMean,
    ImplausibleScale,
    ScaleMismatch,
    OverlappingBlocks,
    RevisionConflict,
}

/// A message or a result that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Refusal {
    pub reason: Reason,
    /// One sentence that says what happened and what to fix.
    pub detail: String,
}

impl Reason {
    /// The code as it stands in tables, metrics and on stderr.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::MalformedJson => "malformed_json",
            Reason::UnsupportedVersion => "unsupported_version",
            Reason::SchemaViolation => "schema_violation",
            Reason::KeyMismatch => "key_mismatch",
            Reason::InvalidIdentifier => "invalid_identifier",
            Reason::NoTreatments => "no_treatments",
            Reason::TooManyVariants => "too_many_variants",
            Reason::DuplicateVariant => "duplicate_variant",
            Reason::NonFinite => "non_finite",
            Reason::NotAccumulable => "not_accumulable",
            Reason::SampleTooSmall => "sample_too_small",
            Reason::InconsistentSums => "inconsistent_sums",
            Reason::NonPositiveVariance => "non_positive_variance",
            Reason::CovarianceRequired => "covariance_required",
            Reason::ControlVarianceTooLarge => "control_variance_too_large",
            Reason::CovarianceNotPositiveDefinite => "covariance_not_positive_definite",
            Reason::ControlMeanNearZero => "control_mean_near_zero",
            Reason::NonPositiveMean => "non_positive_mean",
            Reason::ImplausibleScale => "implausible_scale",
            Reason::ScaleMismatch => "scale_mismatch",
            Reason::OverlappingBlocks => "overlapping_blocks",
            Reason::RevisionConflict => "revision_conflict",
        }
    }
}

impl Refusal {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into() }
    }
}
