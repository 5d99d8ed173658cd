//! The parts of a result that accumulates, merged into the arms of the whole.

use std::collections::BTreeMap;

use super::arms::moments;
use super::leaf::MAX_INTEGER;
use super::refusal::{Reason, Refusal, quote};
use super::{Arm, ArmStatistics, Arms};

/// Merges parts in the order given: arms of the same variant become one, the control likewise. A part may lack either
/// side, and so may the sum.
///
/// Two sets of units merge as `n = n_a + n_b`, `mean = mean_a + (mean_b - mean_a) n_b / n`,
/// `M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b / n`: Chan, Golub & LeVeque, "Updating formulae and a pairwise
/// algorithm for computing sample variances", Stanford STAN-CS-79-773 (1979). The last bits depend on the order.
///
/// Successes add up to successes; beside parts in another form they are moments.
///
/// # Errors
/// `duplicate_variant` where a treatment has the control's name, `not_accumulable` where parts name different controls
/// or an arm has no count to merge by, `implausible_scale` where the sum overflows.
pub fn merge_parts<'a>(parts: impl Iterator<Item = &'a Arms>) -> Result<Arms, Refusal> {
    let mut control: Option<Arm> = None;
    let mut treatments: BTreeMap<&str, Arm> = BTreeMap::new();
    for part in parts {
        if let Some(arm) = &part.control {
            match &mut control {
                Some(sum) if sum.variant != arm.variant => return Err(other_control(&sum.variant, &arm.variant)),
                Some(sum) => add(sum, arm)?,
                None => control = Some(arm.clone()),
            }
        }
        for arm in &part.treatments {
            match treatments.get_mut(arm.variant.as_str()) {
                Some(sum) => add(sum, arm)?,
                None => _ = treatments.insert(&arm.variant, arm.clone()),
            }
        }
    }
    let merged = Arms { control, treatments: treatments.into_values().collect() };
    merged.check_names()?;
    Ok(merged)
}

fn add(sum: &mut Arm, part: &Arm) -> Result<(), Refusal> {
    let not_counted =
        || Refusal::of_variant(Reason::NotAccumulable, &part.variant, "has a part without n, which cannot be merged");
    let overflow = || {
        Refusal::of_variant(Reason::ImplausibleScale, &part.variant, "has parts that overflow when they are added up")
    };
    let (n_a, n_b) =
        (counted(&sum.statistics).ok_or_else(not_counted)?, counted(&part.statistics).ok_or_else(not_counted)?);
    if n_b == 0 {
        return Ok(());
    }
    if n_a == 0 {
        sum.statistics = part.statistics;
        return Ok(());
    }
    let n = n_a.checked_add(n_b).filter(|&total| total <= MAX_INTEGER).ok_or_else(overflow)?;
    if let (ArmStatistics::Successes { successes, .. }, ArmStatistics::Successes { successes: more, .. }) =
        (sum.statistics, part.statistics)
    {
        sum.statistics = ArmStatistics::Successes { n, successes: successes + more };
        return Ok(());
    }
    let ((mean, m2), (mean_b, m2_b)) = (mean_and_m2(&sum.statistics), mean_and_m2(&part.statistics));
    let (weight, difference) = (n_b as f64 / n as f64, mean_b - mean);
    let m2 = m2 + m2_b + difference * difference * weight * n_a as f64;
    let mean = mean + difference * weight;
    sum.statistics = ArmStatistics::Moments { n, mean, m2 };
    if m2.is_finite() && mean.is_finite() { Ok(()) } else { Err(overflow()) }
}

/// The units of an arm that can be merged.
fn counted(statistics: &ArmStatistics) -> Option<u64> {
    match *statistics {
        ArmStatistics::Moments { n, .. } | ArmStatistics::Successes { n, .. } => Some(n),
        ArmStatistics::Summary { .. } => None,
    }
}

fn mean_and_m2(statistics: &ArmStatistics) -> (f64, f64) {
    match *statistics {
        ArmStatistics::Moments { mean, m2, .. } => (mean, m2),
        ArmStatistics::Successes { n, successes } => moments(n, successes),
        ArmStatistics::Summary { mean, standard_error, .. } => (mean, standard_error * standard_error),
    }
}

fn other_control(first: &str, other: &str) -> Refusal {
    let detail = format!("parts name different controls, {} and {}, all must name one", quote(first), quote(other));
    Refusal::new(Reason::NotAccumulable, detail)
}
