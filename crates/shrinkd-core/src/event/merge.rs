//! The parts of a result that accumulates, merged into the arms of the whole.

use std::collections::BTreeMap;

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
    let (ArmStatistics::Moments { n, mean, m2 }, &ArmStatistics::Moments { n: n_b, mean: mean_b, m2: m2_b }) =
        (&mut sum.statistics, &part.statistics)
    else {
        let detail = format!("variant {} has a part without n, which cannot be merged", quote(&part.variant));
        return Err(Refusal::new(Reason::NotAccumulable, detail));
    };
    if n_b == 0 {
        return Ok(());
    }
    if *n == 0 {
        sum.statistics = part.statistics;
        return Ok(());
    }
    let overflow = || {
        let detail = format!("the parts of variant {} overflow when they are added up", quote(&part.variant));
        Refusal::new(Reason::ImplausibleScale, detail)
    };
    let total = n.checked_add(n_b).filter(|&total| total <= MAX_INTEGER).ok_or_else(overflow)?;
    let (weight, difference) = (n_b as f64 / total as f64, mean_b - *mean);
    *m2 += m2_b + difference * difference * weight * *n as f64;
    *mean += difference * weight;
    *n = total;
    if m2.is_finite() && mean.is_finite() { Ok(()) } else { Err(overflow()) }
}

fn other_control(first: &str, other: &str) -> Refusal {
    let detail = format!("parts name different controls, {} and {}, all must name one", quote(first), quote(other));
    Refusal::new(Reason::NotAccumulable, detail)
}
