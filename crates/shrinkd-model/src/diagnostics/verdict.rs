//! The verdict: whether a reader of the naive model's figures would have been misled, or whether the model itself does not fit.

use super::consequences::Consequences;
use super::misfit::Misfit;
use crate::design::Design;

/// Whether ignoring the correlation between the variants of an experiment would have changed the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Negligible,
    Noticeable,
    Material,
    /// The block model itself is not borne out, so that what it says of the naive one means little.
    Misfit,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// [`Consequences::naive_coverage`].
    NaiveCoverage,
    /// [`Consequences::rmse_excess`].
    RmseExcess,
    /// [`Consequences::changed_decision_share`].
    ChangedDecisions,
    /// By how much the risk of the block model is larger than that of the naive model or of the raw estimates, in units of the latter;
    /// see [`Misfit`].
    RiskExcess,
    /// By how many nats the score of the block model is lower than that of another fit; see [`Misfit`].
    ScoreDeficit,
}

/// Where a measure becomes noticeable, and material.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub noticeable: f64,
    pub material: f64,
}

/// The thresholds of the verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Noticeable down from one, material below the other.
    pub naive_coverage: Threshold,
    pub rmse_excess: Threshold,
    /// Shares of effects.
    pub changed_decisions: Threshold,
    /// With fewer changed decisions their share does not count.
    pub fewest_changed_decisions: u64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        let threshold = |noticeable, material| Threshold { noticeable, material };
        Thresholds {
            naive_coverage: threshold(0.94, 0.90),
            rmse_excess: threshold(0.02, 0.05),
            changed_decisions: threshold(0.01, 0.05),
            fewest_changed_decisions: 3,
        }
    }
}

/// What a 95% interval that is right covers.
pub const NOMINAL_COVERAGE: f64 = 0.95;

impl Thresholds {
    /// The verdict, and the measure it rests on with its value: the one that reaches farthest.
    pub fn verdict(&self, consequences: &Consequences, misfit: &Misfit) -> (Verdict, Measure, f64) {
        if let Some(deficit) = misfit.score_deficit() {
            return (Verdict::Misfit, Measure::ScoreDeficit, deficit);
        }
        if let Some(excess) = misfit.risk_excess() {
            return (Verdict::Misfit, Measure::RiskExcess, excess);
        }
        let are_enough = consequences.changed_decisions() >= self.fewest_changed_decisions;
        let changed = if are_enough { consequences.changed_decision_share() } else { 0.0 };
        self.farthest(consequences.naive_coverage(), consequences.rmse_excess(), Some(changed))
    }

    /// The verdict to expect of a design, without data: interval and accuracy decide, because decisions need effects; the
    /// interval alone where [`Design::rmse_excess`] has no answer.
    pub fn verdict_of_design(&self, design: &Design) -> (Verdict, Measure, f64) {
        self.farthest(design.naive_coverage(), design.rmse_excess(), None)
    }

    /// Of interval, accuracy and decisions the one that reaches farthest, and its verdict.
    fn farthest(&self, coverage: f64, rmse_excess: Option<f64>, changed: Option<f64>) -> (Verdict, Measure, f64) {
        let missing = Threshold {
            noticeable: NOMINAL_COVERAGE - self.naive_coverage.noticeable,
            material: NOMINAL_COVERAGE - self.naive_coverage.material,
        };
        let measures = [
            (Measure::NaiveCoverage, Some((NOMINAL_COVERAGE - coverage).max(0.0)), missing),
            (Measure::RmseExcess, rmse_excess, self.rmse_excess),
            (Measure::ChangedDecisions, changed, self.changed_decisions),
        ];
        let mut worst = (Verdict::Negligible, Measure::NaiveCoverage, coverage);
        let mut reach = f64::NEG_INFINITY;
        for (measure, harm, threshold) in measures {
            let Some(harm) = harm else { continue };
            let verdict = match harm {
                harm if harm > threshold.material => Verdict::Material,
                harm if harm >= threshold.noticeable => Verdict::Noticeable,
                _ => Verdict::Negligible,
            };
            let farther = harm / threshold.material;
            if verdict > worst.0 || (verdict == worst.0 && farther > reach) {
                worst = (verdict, measure, if measure == Measure::NaiveCoverage { coverage } else { harm });
                reach = farther;
            }
        }
        worst
    }
}

impl Measure {
    pub const ALL: [Measure; 5] = [
        Measure::NaiveCoverage,
        Measure::RmseExcess,
        Measure::ChangedDecisions,
        Measure::RiskExcess,
        Measure::ScoreDeficit,
    ];

    /// The measure's name in tables, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::NaiveCoverage => "naive_coverage",
            Measure::RmseExcess => "rmse_excess",
            Measure::ChangedDecisions => "changed_decisions",
            Measure::RiskExcess => "risk_excess",
            Measure::ScoreDeficit => "score_deficit",
        }
    }
}

impl Verdict {
    pub const ALL: [Verdict; 4] = [Verdict::Negligible, Verdict::Noticeable, Verdict::Material, Verdict::Misfit];

    /// The verdict's name in tables, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Negligible => "negligible",
            Verdict::Noticeable => "noticeable",
            Verdict::Material => "material",
            Verdict::Misfit => "misfit",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
