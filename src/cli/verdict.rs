//! The verdict on correlation, in words.

use shrinkd_model::{Measure, Verdict};

use super::text::{percent, rounded};

/// The verdict and what it rests on, as a clause.
pub(super) fn clause(verdict: Verdict, (measure, value): (Measure, f64)) -> String {
    let sds = rounded(value, 2);
    let because = match measure {
        Measure::SeRatio if verdict == Verdict::Negligible => match value - 1.0 {
            excess if excess.abs() < 1e-6 => "the naive standard error of mu is right".to_owned(),
            excess => format!("the naive standard error of mu is right to {}", percent(excess.abs())),
        },
        Measure::SeRatio => format!("the naive standard error of mu is {} times too small", rounded(value, 3)),
        Measure::MuShift => format!("the naive model moves mu by {sds} posterior sds"),
        Measure::LogTauShift => format!("the naive model moves log tau by {sds} posterior sds"),
        Measure::SignFlipShare => {
            format!("the naive model calls the sign of {} of the effects differently", percent(value))
        }
    };
    format!("{verdict}: {because}")
}
