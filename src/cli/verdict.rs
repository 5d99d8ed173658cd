//! The verdict on correlation, in words.

use shrinkd_model::{Measure, Verdict};

use super::text::{percent, rounded};

/// The verdict and the measure that decides it, as a clause.
pub(super) fn clause(verdict: Verdict, (measure, value): (Measure, f64)) -> String {
    let because = match measure {
        Measure::NaiveCoverage => {
            format!("the naive 95% interval of mu would cover about {:.1}%", 100.0 * value)
        }
        Measure::RmseExcess => {
            format!("the root mean squared error of the naive estimates would be about {} larger", percent(value))
        }
        Measure::ChangedDecisions => {
            format!("the naive model would call the sign of {} of the effects differently", percent(value))
        }
        Measure::RiskExcess => format!(
            "the shrunken estimates seem to be less accurate than those of the naive model or the raw ones (squared error larger \
             by {} of that of the raw ones); {CAUSES}",
            percent(value)
        ),
        Measure::ScoreDeficit => format!(
            "a simpler model predicts experiments that are left out better (by {} nats in all); {CAUSES}",
            rounded(value, 2)
        ),
    };
    format!("{verdict}: {because}")
}

/// What to look at where the model is not borne out.
const CAUSES: &str = "look at the control variances, at variants of one experiment that are alike, at heavy tails, and at results that are missing";
