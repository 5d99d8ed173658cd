//! Why a message or a result is refused: a code for machines, a sentence for people.

macro_rules! reasons {
    ($($name:ident = $code:literal,)*) => {
        /// Reason codes, in the order in which they are checked; the first that applies is the one reported.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = concat!("`", $code, "`")] $name,)*
        }

        impl Reason {
            /// Every reason, in this order.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The code as it stands in tables, metrics and on stderr.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)*
                }
            }
        }
    };
}

reasons! {
    TooLarge = "too_large",
    MalformedJson = "malformed_json",
    UnsupportedVersion = "unsupported_version",
    SchemaViolation = "schema_violation",
    KeyMismatch = "key_mismatch",
    InvalidIdentifier = "invalid_identifier",
    NoTreatments = "no_treatments",
    TooManyVariants = "too_many_variants",
    DuplicateVariant = "duplicate_variant",
    NonFinite = "non_finite",
    NotAccumulable = "not_accumulable",
    SampleTooSmall = "sample_too_small",
    InconsistentSums = "inconsistent_sums",
    NonPositiveVariance = "non_positive_variance",
    CovarianceRequired = "covariance_required",
    ControlVarianceTooLarge = "control_variance_too_large",
    CovarianceNotPositiveDefinite = "covariance_not_positive_definite",
    ControlMeanNearZero = "control_mean_near_zero",
    NonPositiveMean = "non_positive_mean",
    ImplausibleScale = "implausible_scale",
    ScaleMismatch = "scale_mismatch",
    OverlappingBlocks = "overlapping_blocks",
    RevisionConflict = "revision_conflict",
}

/// A message or a result that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Refusal {
    pub reason: Reason,
    /// One sentence that says what happened and what to fix.
    pub detail: String,
}

impl Refusal {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into() }
    }
}
