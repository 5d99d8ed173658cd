//! Effects that the producer computed, and how they are read: sorted by variant, the covariance permuted alike.

use serde::{Deserialize, Serialize};

use super::arms::{check_count, duplicate};
use super::leaf::Number;
use super::lenient::Lenient;
use super::refusal::{Path, Reason, Refusal, Refusals, drop_faulty, quote};
use super::wire::{self, AtMost, MAX_VARIANTS};

/// Effects as the producer computed them, sorted by variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effects {
    pub variants: Vec<String>,
    /// One effect for each variant, in the unit of the scale.
    pub estimates: Vec<f64>,
    pub uncertainty: Uncertainty,
}

/// Sampling error of reported effects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Uncertainty {
    /// Each effect's whole sampling variance, and the control's part of it (0 where no control is shared).
    SharedControl { variances: Vec<f64>, control_variance: f64 },
    /// The full sampling covariance, row by row, symmetric.
    Covariance { matrix: Vec<f64> },
    /// The same on `relative` with the control's part alike in every effect: `variance_i = d_i + c`.
    ScaledVariances { variances: Vec<f64>, control_variance: f64 },
    /// What each treatment brings, `d_i`, and the control's part.
    TreatmentVariances { variances: Vec<f64>, control_variance: f64 },
}

/// How far a covariance may be from symmetric, and its diagonal from the variances, in units of `sqrt(S_ii S_jj)`.
const COVARIANCE_TOLERANCE: f64 = 1e-9;

type Matrix<'a> = AtMost<Lenient<AtMost<Number<'a>, MAX_VARIANTS>>, MAX_VARIANTS>;

struct Effect {
    variant: String,
    estimate: f64,
    variance: Option<f64>,
    /// Whether `variance` is what the treatment alone brings.
    is_treatments_own: bool,
    /// Where it stood in the message, which is its row and column in the covariance.
    row: usize,
}

/// The effects that can be used, and why each other cannot.
pub(super) fn read_effects(
    result: wire::Reported<'_>,
    at: Path<'_>,
    refusals: &mut Refusals,
) -> (Effects, Vec<Refusal>) {
    let wire::Reported { effects, control_variance, covariance, variance_form, .. } = result;
    let at_effects = at.field("effects");
    if effects.is_none() {
        let detail = "is required with control_variance, covariance and variance_form";
        refusals.note(at_effects, Refusal::violation(detail));
    }
    if covariance.is_some() && control_variance.is_some() {
        refusals.note(at, Refusal::violation("must hold control_variance or covariance, not both"));
    }
    let sent = effects
        .and_then(|sent| refusals.accept(at_effects, sent.shape()))
        .map(|variants| variants.0)
        .unwrap_or_default();
    let n = sent.len();
    check_count(n, at_effects, refusals);
    let is_scaled = refusals.optional(at.field("variance_form"), variance_form.as_ref());
    let is_dense = covariance.is_some();
    let mut effects = Vec::with_capacity(n);
    let mut faults = Vec::new();
    for (row, effect) in sent.into_iter().enumerate() {
        let at = at_effects.item(row);
        if let Some(effect) = refusals.accept(at, effect.shape()) {
            let (effect, fault) = read_effect(effect, row, is_dense, at, refusals);
            effects.push(effect);
            faults.extend(fault);
        }
    }
    effects.sort_by(|a, b| a.variant.cmp(&b.variant));
    if let Some(name) = duplicate(effects.iter().map(|effect| effect.variant.as_str())) {
        let detail = format!("names variant {} twice, keep one", quote(name));
        refusals.note(at_effects, Refusal::new(Reason::DuplicateVariant, detail));
    }
    if is_dense {
        // A covariance has a row for each effect, so that none can be left out.
        faults.drain(..).for_each(|fault| refusals.join(fault));
    }
    let faults = drop_faulty(&mut effects, |effect| &effect.variant, faults, refusals);
    let are_treatments_own = effects.iter().any(|effect| effect.is_treatments_own);
    if are_treatments_own && effects.iter().any(|effect| !effect.is_treatments_own) {
        refusals.note(at_effects, Refusal::violation("must all have variance, or all treatment_variance"));
    }
    if is_scaled.is_some() && (is_dense || are_treatments_own) {
        let detail = "says what variance contains, leave it out with covariance and treatment_variance";
        refusals.note(at.field("variance_form"), Refusal::violation(detail));
    }
    let control_variance = refusals.optional(at.field("control_variance"), control_variance.as_ref());
    let uncertainty = match covariance {
        Some(covariance) => Uncertainty::Covariance {
            matrix: read_covariance(covariance, &effects, n, at.field("covariance"), refusals),
        },
        None => {
            if control_variance.is_none() && (n > 1 || are_treatments_own) {
                let detail = "effects of one experiment share its control: send control_variance (the variance of the \
                              control's mean on this scale, from its own n: the variance per unit over n; 0 where nothing \
                              is shared) or covariance";
                refusals.note(at, Refusal::new(Reason::CovarianceRequired, detail));
            }
            let variances = effects.iter().map(|effect| effect.variance.unwrap_or_default()).collect();
            let control_variance = control_variance.unwrap_or_default();
            match is_scaled {
                _ if are_treatments_own => Uncertainty::TreatmentVariances { variances, control_variance },
                Some(true) => Uncertainty::ScaledVariances { variances, control_variance },
                Some(false) | None => Uncertainty::SharedControl { variances, control_variance },
            }
        }
    };
    let effects = Effects {
        estimates: effects.iter().map(|effect| effect.estimate).collect(),
        variants: effects.into_iter().map(|effect| effect.variant).collect(),
        uncertainty,
    };
    (effects, faults)
}

/// An effect, and what is wrong with its numbers. What else is wrong with it is noted.
fn read_effect(
    effect: wire::Effect<'_>,
    row: usize,
    is_dense: bool,
    at: Path<'_>,
    refusals: &mut Refusals,
) -> (Effect, Option<Refusal>) {
    let noted = refusals.reason();
    refusals.note_repeated_key(at, effect.repeated.as_deref());
    let variant = refusals.required(at.field("variant"), effect.variant.as_ref()).unwrap_or_default().into_owned();
    let mut numbers = Refusals::default();
    let estimate = numbers.required(at.field("estimate"), effect.estimate.as_ref()).unwrap_or_default();
    let is_treatments_own = effect.treatment_variance.is_some();
    let at_own = at.field("treatment_variance");
    if is_treatments_own && (is_dense || effect.variance.is_some()) {
        refusals.note(at_own, Refusal::violation("stands instead of variance and covariance, keep one"));
    }
    let variance = match effect.treatment_variance {
        Some(own) => numbers.optional(at_own, Some(&own)),
        None if is_dense => numbers.optional(at.field("variance"), effect.variance.as_ref()),
        None => numbers.required(at.field("variance"), effect.variance.as_ref()),
    };
    refusals.name_variant(noted, &variant);
    numbers.name_variant(None, &variant);
    (Effect { variant, estimate, variance, is_treatments_own, row }, numbers.into_result().err())
}

/// The matrix in the order of `effects`, which stood in its rows as their `row` says.
fn read_covariance(
    covariance: Lenient<Matrix<'_>>,
    effects: &[Effect],
    n: usize,
    at: Path<'_>,
    refusals: &mut Refusals,
) -> Vec<f64> {
    let rows = refusals.accept(at, covariance.shape()).map(|rows| rows.0).unwrap_or_default();
    let mut sent: Vec<Vec<f64>> = Vec::with_capacity(rows.len());
    for (index, row) in rows.into_iter().enumerate() {
        let at = at.item(index);
        let numbers = refusals.accept(at, row.shape()).map(|row| row.0).unwrap_or_default();
        // NaN stands in for what could not be read: it takes no part in the comparisons below.
        let read = |(column, number)| refusals.optional(at.item(column), Some(number)).unwrap_or(f64::NAN);
        sent.push(numbers.iter().enumerate().map(read).collect());
    }
    if sent.len() != n || sent.iter().any(|row| row.len() != n) {
        refusals.note(at, Refusal::violation(format!("must have {n} rows of {n} numbers, one for each effect")));
        return Vec::new();
    }
    let entry = |i: &Effect, j: &Effect| sent.get(i.row).and_then(|row| row.get(j.row)).copied().unwrap_or(f64::NAN);
    if let Err(detail) = check_covariance(effects, entry) {
        refusals.note(at, Refusal::violation(detail));
    }
    // The mean with the transpose makes the matrix symmetric to the last bit.
    let symmetric = |i, j| f64::midpoint(entry(i, j), entry(j, i));
    effects.iter().flat_map(|i| effects.iter().map(move |j| symmetric(i, j))).collect()
}

fn check_covariance(effects: &[Effect], entry: impl Fn(&Effect, &Effect) -> f64) -> Result<(), String> {
    for i in effects {
        let diagonal = entry(i, i);
        if i.variance.is_some_and(|variance| differ(variance, diagonal, diagonal.abs())) {
            return Err(format!("differs from the variance of {} on its diagonal, keep one", quote(&i.variant)));
        }
        for j in effects {
            if differ(entry(i, j), entry(j, i), diagonal.abs().sqrt() * entry(j, j).abs().sqrt()) {
                return Err(format!("is not symmetric between {} and {}", quote(&i.variant), quote(&j.variant)));
            }
        }
    }
    Ok(())
}

fn differ(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() > COVARIANCE_TOLERANCE * scale
}
