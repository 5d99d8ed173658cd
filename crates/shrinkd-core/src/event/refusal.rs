//! Why a message or a result is refused: a reason code for programs, a sentence for people, and the place in the message.
//! Of several reasons for one refusal the one that is checked first is reported.

use std::collections::BTreeSet;
use std::fmt;

macro_rules! reasons {
    ($($name:ident = $code:literal,)*) => {
        /// Reason codes, in the order in which they are checked; the first that applies is reported.
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
    InconsistentInterval = "inconsistent_interval",
    NonPositiveVariance = "non_positive_variance",
    CovarianceRequired = "covariance_required",
    ControlVarianceTooLarge = "control_variance_too_large",
    CovarianceNotPositiveDefinite = "covariance_not_positive_definite",
    ControlMeanNearZero = "control_mean_near_zero",
    NonPositiveMean = "non_positive_mean",
    ImplausibleScale = "implausible_scale",
    RevisionConflict = "revision_conflict",
    TooManyPopulations = "too_many_populations",
}

/// Why a message or a result is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Refusal {
    pub reason: Reason,
    /// One sentence that says what is wrong and how to fix it.
    pub detail: String,
    /// The variant that it is about, where it is about one.
    pub variant: Option<String>,
}

impl Refusal {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into(), variant: None }
    }

    /// The refusal of one variant; `what` says what is wrong with it.
    pub(super) fn of_variant(reason: Reason, variant: &str, what: &str) -> Refusal {
        let detail = format!("variant {} {what}", quote(variant));
        Refusal { variant: Some(variant.to_owned()), ..Refusal::new(reason, detail) }
    }

    /// A `schema_violation`.
    pub(super) fn violation(detail: impl Into<String>) -> Refusal {
        Refusal::new(Reason::SchemaViolation, detail)
    }

    /// The refusal of a required field that is absent.
    pub(super) fn missing() -> Refusal {
        Refusal::violation("is required and is missing or null")
    }

    /// The same refusal, its detail preceded by the path of what is refused.
    pub(super) fn at(self, path: Path<'_>) -> Refusal {
        let separator = if self.reason <= Reason::NonFinite { " " } else { ": " };
        Refusal { detail: format!("{path}{separator}{}", self.detail), ..self }
    }

    /// The same refusal, its detail followed by the experiment and metric that it is about, and by the variant where the
    /// sentence does not name it.
    pub(crate) fn named(self, experiment_id: &str, metric: &str) -> Refusal {
        let mut names = format!("experiment {}", quote(experiment_id));
        if !metric.is_empty() {
            names += &format!(", metric {}", quote(metric));
        }
        let variant = self.variant.as_deref().map(quote);
        if let Some(variant) = variant.filter(|variant| !self.detail.contains(variant)) {
            names += &format!(", variant {variant}");
        }
        Refusal { detail: format!("{} ({names})", self.detail), ..self }
    }
}

/// The refusals found while a message or a result is read, of which one is reported: the one whose reason is checked
/// first, and among those the first found.
///
/// After a refusal, reading continues with a default in place of the value, so that an earlier reason further on in the
/// message is still found. Such a default can only add refusals whose reason comes later than the one noted.
#[derive(Default)]
pub(super) struct Refusals(Option<Refusal>);

impl Refusals {
    pub(super) fn note(&mut self, path: Path<'_>, refusal: Refusal) {
        if self.is_before(&refusal) {
            self.0 = Some(refusal.at(path));
        }
    }

    /// Notes a refusal that says already where it stands.
    pub(super) fn join(&mut self, refusal: Refusal) {
        if self.is_before(&refusal) {
            self.0 = Some(refusal);
        }
    }

    fn is_before(&self, refusal: &Refusal) -> bool {
        self.0.as_ref().is_none_or(|first| refusal.reason < first.reason)
    }

    /// The reason that would be reported now.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.0.as_ref().map(|first| first.reason)
    }

    /// Says of what was noted since the reason was `before` that it is about this variant.
    pub(super) fn name_variant(&mut self, before: Option<Reason>, variant: &str) {
        if let Some(first) = self.0.as_mut().filter(|first| Some(first.reason) != before && !variant.is_empty()) {
            first.variant = Some(variant.to_owned());
        }
    }

    pub(super) fn note_repeated_key(&mut self, path: Path<'_>, repeated: Option<&str>) {
        if let Some(key) = repeated {
            self.note(path.field(key), Refusal::violation("appears twice in its object, keep one"));
        }
    }

    /// The refusal to report where another one ended the reading.
    pub(super) fn first_of(&mut self, path: Path<'_>, refusal: Refusal) -> Refusal {
        match self.0.take() {
            Some(first) if first.reason <= refusal.reason => first,
            _ => refusal.at(path),
        }
    }

    /// # Errors
    /// The refusal to report, if any was noted.
    pub(super) fn into_result(self) -> Result<(), Refusal> {
        self.0.map_or(Ok(()), Err)
    }

    /// A value that was read, or `None` where it is refused.
    pub(super) fn accept<T>(&mut self, path: Path<'_>, value: Result<T, Refusal>) -> Option<T> {
        value.map_err(|refusal| self.note(path, refusal)).ok()
    }

    /// A value that must be present.
    pub(super) fn required<L: Leaf>(&mut self, path: Path<'_>, leaf: Option<&L>) -> Option<L::Value> {
        if leaf.is_none() {
            self.note(path, Refusal::missing());
        }
        self.optional(path, leaf)
    }

    /// A value that may be absent; `None` also where it is refused.
    pub(super) fn optional<L: Leaf>(&mut self, path: Path<'_>, leaf: Option<&L>) -> Option<L::Value> {
        self.accept(path, leaf?.read())
    }
}

/// Drops the variants whose numbers are at fault and returns the faults. Where the result is refused anyway, or no variant
/// would be left, all stay and the faults are those of the result.
pub(super) fn drop_faulty<T>(
    variants: &mut Vec<T>,
    name: fn(&T) -> &str,
    faults: Vec<Refusal>,
    refusals: &mut Refusals,
) -> Vec<Refusal> {
    if refusals.reason().is_some() || faults.len() == variants.len() {
        faults.into_iter().for_each(|fault| refusals.join(fault));
        return Vec::new();
    }
    let faulty: BTreeSet<&str> = faults.iter().filter_map(|fault| fault.variant.as_deref()).collect();
    variants.retain(|variant| !faulty.contains(name(variant)));
    faults
}

/// A value without parts, which can be judged without its surroundings.
pub(super) trait Leaf {
    type Value;

    fn read(&self) -> Result<Self::Value, Refusal>;
}

/// A place in a message, shown as a JSON path such as `$.results[0].treatments[1].n`. Built on the stack while the message
/// is read, and written out only when something is refused.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub(super) fn item(&'a self, index: usize) -> Path<'a> {
        Path::Item(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => f.write_str("$"),
            Path::Field(parent, name) if is_plain(name) => write!(f, "{parent}.{name}"),
            Path::Field(parent, name) => write!(f, "{parent}[{}]", quote(name)),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn is_plain(name: &str) -> bool {
    (1..=QUOTED_CHARS).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

const QUOTED_CHARS: usize = 60;

/// A name from a producer: escaped and cut short like [`quote`], without the quotes.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect()
}

/// Text of a producer for a sentence: escaped, because tables cannot hold every character, and cut short.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
