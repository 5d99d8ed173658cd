//! The parts of a result that accumulates, merged into the arms of the whole.

use std::collections::BTreeMap;

use super::arms::moments;
use super::leaf::MAX_INTEGER;
use super::refusal::{Reason, Refusal, quote};
use super::sums::PairedMoments;
use super::{Arm, ArmStatistics, Arms};

/// Merges parts in the order given: arms of the same variant become one, the control likewise. A part may lack either
/// side, and so may the sum.
///
/// Two sets of units merge as `n = n_a + n_b`, `mean = mean_a + (mean_b - mean_a) n_b / n`,
/// `M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b / n`: Chan, Golub & LeVeque, "Updating formulae and a pairwise
/// algorithm for computing sample variances", Stanford STAN-CS-79-773 (1979). The last bits depend on the order.
///
/// Sums of a second value of each unit, and of its products with the first, merge by the same formulas.
///
/// Successes add up to successes, also with parts of which every unit is 0 or every one is 1; beside parts in another form
/// they are moments.
///
/// # Errors
/// `duplicate_variant` where a treatment has the control's name, `not_accumulable` where parts name different controls
/// or an arm has no count to merge by, or parts of different forms cannot be added up, `implausible_scale` where the sum overflows.
pub fn merge_parts<'a>(parts: impl Iterator<Item = &'a Arms>) -> Result<Arms, Refusal> {
    let mut control: Option<(&str, Vec<ArmStatistics>)> = None;
    let mut treatments: BTreeMap<&str, Vec<ArmStatistics>> = BTreeMap::new();
    for part in parts {
        if let Some(arm) = &part.control {
            let (variant, statistics) = control.get_or_insert((&arm.variant, Vec::new()));
            if *variant != arm.variant {
                return Err(other_control(variant, &arm.variant));
            }
            statistics.push(arm.statistics);
        }
        for arm in &part.treatments {
            treatments.entry(&arm.variant).or_default().push(arm.statistics);
        }
    }
    let merged = Arms {
        control: control.map(|(variant, parts)| merge_arm(variant, &parts)).transpose()?,
        treatments: treatments
            .into_iter()
            .map(|(variant, parts)| merge_arm(variant, &parts))
            .collect::<Result<_, _>>()?,
    };
    merged.check_names()?;
    merged.check_kinds().map_err(|detail| Refusal::new(Reason::NotAccumulable, format!("the parts {detail}")))?;
    Ok(merged)
}

fn merge_arm(variant: &str, parts: &[ArmStatistics]) -> Result<Arm, Refusal> {
    let refuse = |reason, what| Refusal::of_variant(reason, variant, what);
    let mut total = 0_u64;
    for part in parts {
        let n = match *part {
            ArmStatistics::Moments { n, .. } | ArmStatistics::Successes { n, .. } => n,
            ArmStatistics::Ratio(moments) | ArmStatistics::Covariate(moments) => moments.n,
            ArmStatistics::Summary { .. } => {
                return Err(refuse(Reason::NotAccumulable, "has a part without n, which cannot be merged"));
            }
        };
        total = total.checked_add(n).filter(|&total| total <= MAX_INTEGER).ok_or_else(|| overflow(variant))?;
    }
    let statistics = match (parts, add_successes(parts)) {
        ([alone], _) => *alone,
        (_, Some(successes)) => ArmStatistics::Successes { n: total, successes },
        ([ArmStatistics::Ratio(_), ..], None) => ArmStatistics::Ratio(add_paired(variant, parts, |part| match part {
            ArmStatistics::Ratio(moments) => Some(moments),
            _ => None,
        })?),
        ([ArmStatistics::Covariate(_), ..], None) => {
            ArmStatistics::Covariate(add_paired(variant, parts, |part| match part {
                ArmStatistics::Covariate(moments) => Some(moments),
                _ => None,
            })?)
        }
        (_, None) => add_moments(variant, parts)?,
    };
    Ok(Arm { variant: variant.to_owned(), statistics })
}

/// The successes of parts of which at least one was sent as such, and none holds anything but ones and zeros.
fn add_successes(parts: &[ArmStatistics]) -> Option<u64> {
    let is_any = parts.iter().any(|part| matches!(part, ArmStatistics::Successes { .. }));
    if is_any { parts.iter().map(ArmStatistics::successes).sum() } else { None }
}

fn add_moments(variant: &str, parts: &[ArmStatistics]) -> Result<ArmStatistics, Refusal> {
    let (mut n, mut mean, mut m2) = (0, 0.0, 0.0);
    for part in parts {
        let (n_b, (mean_b, m2_b)) = match *part {
            ArmStatistics::Moments { n, mean, m2 } => (n, (mean, m2)),
            ArmStatistics::Successes { n, successes } => (n, moments(n, successes)),
            ArmStatistics::Ratio(_) | ArmStatistics::Covariate(_) => return Err(other_form(variant)),
            ArmStatistics::Summary { .. } => continue,
        };
        if n_b == 0 {
            continue;
        }
        if n == 0 {
            (n, mean, m2) = (n_b, mean_b, m2_b);
            continue;
        }
        let total = n + n_b;
        let (weight, difference) = (n_b as f64 / total as f64, mean_b - mean);
        m2 += m2_b + difference * difference * weight * n as f64;
        mean += difference * weight;
        n = total;
    }
    let is_finite = m2.is_finite() && mean.is_finite();
    if is_finite { Ok(ArmStatistics::Moments { n, mean, m2 }) } else { Err(overflow(variant)) }
}

/// Adds up the moments that `paired` finds in every part.
fn add_paired(
    variant: &str,
    parts: &[ArmStatistics],
    paired: fn(&ArmStatistics) -> Option<&PairedMoments>,
) -> Result<PairedMoments, Refusal> {
    let parts: Option<Vec<PairedMoments>> = parts.iter().map(|part| paired(part).copied()).collect();
    let sum = parts.ok_or_else(|| other_form(variant))?.into_iter().reduce(PairedMoments::merge);
    sum.filter(PairedMoments::is_finite).ok_or_else(|| overflow(variant))
}

fn overflow(variant: &str) -> Refusal {
    Refusal::of_variant(Reason::ImplausibleScale, variant, "has parts that overflow when they are added up")
}

fn other_form(variant: &str) -> Refusal {
    let what = "has parts with and without denominator_sum or covariate_sum, which cannot be added up";
    Refusal::of_variant(Reason::NotAccumulable, variant, what)
}

fn other_control(first: &str, other: &str) -> Refusal {
    let detail = format!("parts name different controls, {} and {}, all must name one", quote(first), quote(other));
    Refusal::new(Reason::NotAccumulable, detail)
}
