//! What is taken although its figures need caution: a code for programs, a sentence for people.

use super::refusal::quote;

/// What a result that is taken warns of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningCode {
    /// On `relative` the control's mean is known to no better than 5%.
    ControlMeanImprecise,
    /// Effects on `relative` whose variances follow the estimates, without the control's part that would undo it.
    BiasOfRelative,
    /// An arm with fewer than 5 expected events.
    RareEvents,
    /// A lift beyond +50% on `relative`.
    LiftTooLargeForRelative,
}

/// A reason for caution with a result that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub code: WarningCode,
    /// One sentence that says what is the matter and what would be better.
    pub detail: String,
}

impl WarningCode {
    /// Every code.
    pub const ALL: [WarningCode; 4] = [
        WarningCode::ControlMeanImprecise,
        WarningCode::BiasOfRelative,
        WarningCode::RareEvents,
        WarningCode::LiftTooLargeForRelative,
    ];

    /// The code as it stands in metrics, in logs and on stderr.
    pub fn as_str(self) -> &'static str {
        match self {
            WarningCode::ControlMeanImprecise => "control_mean_imprecise",
            WarningCode::BiasOfRelative => "bias_of_relative",
            WarningCode::RareEvents => "rare_events",
            WarningCode::LiftTooLargeForRelative => "lift_too_large_for_relative",
        }
    }
}

impl Warning {
    pub(super) fn new(code: WarningCode, detail: impl Into<String>) -> Warning {
        Warning { code, detail: detail.into() }
    }

    /// The same warning, its detail preceded by the experiment and the metric that it is about.
    pub(crate) fn named(self, experiment_id: &str, metric: &str) -> Warning {
        let detail = format!("experiment {}, metric {}: {}", quote(experiment_id), quote(metric), self.detail);
        Warning { detail, ..self }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}
