//! What a design makes of the naive model and of using one variant per experiment, in the numbers that are printed.

use serde::{Serialize, Serializer};
use shrinkd_model::{Design, Measure, Thresholds, Verdict};

use crate::study::report::{measure_name, verdict_name};

/// How the traffic of an experiment is allocated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Allocation {
    /// The control gets as much as each variant.
    Equal,
    /// The control gets a share of its own, and the variants the rest in equal parts.
    ControlShare,
    /// Only rho is known.
    Rho,
}

/// The figures of a design, as they are serialized. From version 0.2 on names are a contract: keys may be added, none is
/// renamed or removed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    /// One number, or those of kinds of experiments that are equally frequent.
    pub(super) variants: Vec<usize>,
    pub(super) allocation: Allocation,
    /// The control's share of the traffic, where there is one for all experiments.
    pub(super) control_share: Option<f64>,
    pub(super) rho: f64,
    /// In standard errors of a raw effect.
    pub(super) tau: f64,
    pub(super) deff: f64,
    pub(super) naive_coverage: f64,
    /// None where tau is 0 and effects share an error.
    pub(super) rmse_excess: Option<f64>,
    /// How many times as wide mu's interval is with one variant per experiment.
    pub(super) mu_interval_ratio: f64,
    /// How many times as large the error of tau is with one variant per experiment.
    pub(super) tau_error_ratio: f64,
    #[serde(serialize_with = "verdict_name")]
    pub(super) verdict: Verdict,
    #[serde(serialize_with = "measure_name")]
    pub(super) verdict_rests_on: Measure,
    pub(super) verdict_value: f64,
}

impl Allocation {
    /// The name in CSV and JSON.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Allocation::Equal => "equal",
            Allocation::ControlShare => "control_share",
            Allocation::Rho => "rho",
        }
    }
}

impl Serialize for Allocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Figures {
    pub(super) fn new(design: &Design, allocation: Allocation, control_share: Option<f64>) -> Figures {
        let (verdict, verdict_rests_on, verdict_value) = Thresholds::default().verdict_of_design(design);
        Figures {
            variants: design.variants.clone(),
            allocation,
            control_share,
            rho: design.rho,
            tau: design.tau,
            deff: design.design_effect(),
            naive_coverage: design.naive_coverage(),
            rmse_excess: design.rmse_excess(),
            mu_interval_ratio: design.mu_interval_ratio(),
            tau_error_ratio: design.tau_error_ratio(),
            verdict,
            verdict_rests_on,
            verdict_value,
        }
    }
}
