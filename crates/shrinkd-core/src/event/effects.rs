//! Effects that the producer computed, and how they are read: sorted by variant, the covariance permuted alike.

use serde::{Deserialize, Serialize};
use shrinkd_model::normal_upper_quantile;

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
    /// The control's part is imputed from the units of every treatment and of the control.
    Units { variances: Vec<f64>, form: VarianceForm, units: Vec<u64>, control_units: u64 },
    /// The same where not every treatment was sent with its units.
    SomeUnits { variances: Vec<f64>, form: VarianceForm, units: Vec<Option<u64>>, control_units: u64 },
}

/// What the variance of a reported effect contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VarianceForm {
    /// On `relative` `d_i + (1 + estimate_i)^2 c`, else `d_i + c`.
    Delta,
    /// `d_i + c`.
    Scaled,
    /// `d_i` alone.
    Treatment,
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
    n: Option<u64>,
    /// Where it stood in the message, which is its row and column in the covariance.
    row: usize,
}

/// The effects that can be used, and why each other cannot.
pub(super) fn read_effects(
    result: Box<wire::Reported<'_>>,
    at: Path<'_>,
    refusals: &mut Refusals,
) -> (Effects, Vec<Refusal>) {
    let wire::Reported { control, effects, control_variance, covariance, variance_form, .. } = *result;
    let control = control.and_then(|sent| read_control(sent, at.field("control"), refusals));
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
    let is_control = |effect: &&Effect| control.as_ref().is_some_and(|control| control.variant == effect.variant);
    if let Some(Effect { variant, .. }) = effects.iter().find(is_control) {
        let detail = format!("names variant {} like the control, rename one", quote(variant));
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
            let form = match is_scaled {
                _ if are_treatments_own => VarianceForm::Treatment,
                Some(true) => VarianceForm::Scaled,
                Some(false) | None => VarianceForm::Delta,
            };
            let control_units = control.map(|control| control.units);
            let is_needed = n > 1 || are_treatments_own;
            if control_variance.is_none() && is_needed && !has_units(&effects, control_units) {
                refusals.note(at, unknown_control(&effects, control_units));
            }
            uncertainty(&effects, form, control_variance, control_units)
        }
    };
    let effects = Effects {
        estimates: effects.iter().map(|effect| effect.estimate).collect(),
        variants: effects.into_iter().map(|effect| effect.variant).collect(),
        uncertainty,
    };
    (effects, faults)
}

/// Whether units are known from which the control's part follows.
fn has_units(effects: &[Effect], control_units: Option<u64>) -> bool {
    control_units.is_some() && effects.iter().any(|effect| effect.n.is_some())
}

/// The variances with the control's part where it is given, else with the units from which to impute it, if they are known.
fn uncertainty(
    effects: &[Effect],
    form: VarianceForm,
    control_variance: Option<f64>,
    control_units: Option<u64>,
) -> Uncertainty {
    let variances = effects.iter().map(|effect| effect.variance.unwrap_or_default()).collect();
    if let (None, Some(control_units)) = (control_variance, control_units)
        && effects.iter().any(|effect| effect.n.is_some())
    {
        let units = effects.iter().map(|effect| effect.n);
        return match units.clone().collect() {
            Some(units) => Uncertainty::Units { variances, form, units, control_units },
            None => Uncertainty::SomeUnits { variances, form, units: units.collect(), control_units },
        };
    }
    let control_variance = control_variance.unwrap_or_default();
    match form {
        VarianceForm::Delta => Uncertainty::SharedControl { variances, control_variance },
        VarianceForm::Scaled => Uncertainty::ScaledVariances { variances, control_variance },
        VarianceForm::Treatment => Uncertainty::TreatmentVariances { variances, control_variance },
    }
}

fn unknown_control(effects: &[Effect], control_units: Option<u64>) -> Refusal {
    let units = match control_units {
        Some(_) => "the n of the effects beside the control's",
        None if effects.iter().any(|effect| effect.n.is_some()) => {
            "the control's n beside that of the effects (\"control\": {\"variant\": .., \"n\": ..})"
        }
        None => "the n of the effects and of the control (\"control\": {\"variant\": .., \"n\": ..})",
    };
    let detail = format!(
        "effects of one experiment share its control: send {units}, from which the control's part of the variances is imputed, or \
         control_variance (the variance of the control's mean on this scale, from its own n: the variance per unit over n; 0 where \
         nothing is shared), or covariance"
    );
    Refusal::new(Reason::CovarianceRequired, detail)
}

/// The control beside effects, of which only the number of units is taken.
struct Control {
    variant: String,
    units: u64,
}

fn read_control(sent: Lenient<Box<wire::Arm<'_>>>, at: Path<'_>, refusals: &mut Refusals) -> Option<Control> {
    let control = refusals.accept(at, sent.shape())?;
    refusals.note_repeated_key(at, control.repeated());
    let variant = refusals.required(at.field("variant"), control.variant.as_ref()).unwrap_or_default().into_owned();
    let units = refusals.required(at.field("n"), control.n.as_ref()).unwrap_or_default();
    if control.has_numbers() {
        let detail = "has variant and n alone beside effects: send the variance of its mean as control_variance, or arms (control \
                      and treatments) without effects";
        refusals.note(at, Refusal::violation(detail));
    }
    Some(Control { variant, units })
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
    refusals.note_repeated_key(at, effect.repeated());
    let variant = refusals.required(at.field("variant"), effect.variant.as_ref()).unwrap_or_default().into_owned();
    let mut numbers = Refusals::default();
    let estimate = numbers.required(at.field("estimate"), effect.estimate.as_ref()).unwrap_or_default();
    let n = numbers.optional(at.field("n"), effect.n.as_ref());
    let is_treatments_own = effect.treatment_variance.is_some();
    if is_treatments_own && is_dense {
        refusals.note(at.field("treatment_variance"), Refusal::violation("stands instead of a covariance, keep one"));
    }
    let variance = read_variance(&effect, estimate, is_dense, at, refusals, &mut numbers);
    refusals.name_variant(noted, &variant);
    numbers.name_variant(None, &variant);
    (Effect { variant, estimate, variance, is_treatments_own, n, row }, numbers.into_result().err())
}

/// The variance of an effect, in whichever form it was sent. Notes mixed forms among the `refusals`, and what is wrong with the
/// numbers among the `numbers`.
fn read_variance(
    effect: &wire::Effect<'_>,
    estimate: f64,
    is_dense: bool,
    at: Path<'_>,
    refusals: &mut Refusals,
    numbers: &mut Refusals,
) -> Option<f64> {
    let has_interval = effect.ci_low.is_some() || effect.ci_high.is_some();
    let forms =
        [effect.variance.is_some(), effect.standard_error.is_some(), has_interval, effect.treatment_variance.is_some()];
    if forms.into_iter().filter(|&given| given).count() > 1 {
        let detail = "must have one of variance, standard_error, ci_low with ci_high, and treatment_variance";
        refusals.note(at, Refusal::violation(detail));
    }
    let level = refusals.optional(at.field("ci_level"), effect.ci_level.as_ref());
    if level.is_some() && !has_interval {
        refusals.note(at.field("ci_level"), Refusal::violation("needs ci_low and ci_high"));
    }
    if let Some(own) = &effect.treatment_variance {
        return numbers.optional(at.field("treatment_variance"), Some(own));
    }
    if has_interval {
        let low = numbers.required(at.field("ci_low"), effect.ci_low.as_ref())?;
        let high = numbers.required(at.field("ci_high"), effect.ci_high.as_ref())?;
        let variance = variance_of_interval(estimate, low, high, level.unwrap_or(DEFAULT_LEVEL));
        return variance.map_err(|refusal| numbers.note(at, refusal)).ok();
    }
    if let Some(sent) = &effect.standard_error {
        // One below 0 gives a variance below 0, which is refused as such.
        return numbers.optional(at.field("standard_error"), Some(sent)).map(|error| error * error.abs());
    }
    if effect.variance.is_none() && !is_dense {
        let detail = "is required and is missing or null: send the variance of the effect, its standard_error, or ci_low and ci_high";
        numbers.note(at.field("variance"), Refusal::violation(detail));
    }
    numbers.optional(at.field("variance"), effect.variance.as_ref())
}

/// The level of an interval where it is not sent.
const DEFAULT_LEVEL: f64 = 0.95;

/// How far from the middle of its interval an estimate may be, in units of the half-width. Where it is further off, the interval is not
/// that of a normal error on this scale: the ends of an interval of a logarithm that were taken back from it, or of Fieller's, are off by
/// that much from a relative standard error of 10% on. Below, the standard error that follows is right to 1%.
const MOST_OFF_CENTRE: f64 = 0.1;

/// `((high - low) / (2 z))^2`, the variance behind a symmetric normal interval of this level.
///
/// # Errors
/// `inconsistent_interval` where its ends are in the wrong order, or the estimate is not near its middle.
fn variance_of_interval(estimate: f64, low: f64, high: f64, level: f64) -> Result<f64, Refusal> {
    let refuse = |detail: String| Err(Refusal::new(Reason::InconsistentInterval, detail));
    if low > high {
        return refuse(format!("ci_low {low:?} is above ci_high {high:?}"));
    }
    let half = 0.5 * high - 0.5 * low;
    let off = (estimate - low.midpoint(high)).abs();
    if half > 0.0 && off > MOST_OFF_CENTRE * half {
        return refuse(format!(
            "the interval from {low:?} to {high:?} does not have the estimate {estimate:?} near its middle, so that it is not \
             that of a normal error on this scale: send standard_error; or where it was computed of logarithms, estimate and \
             interval as such (scale log_ratio or log_odds)"
        ));
    }
    let standard_error = half / normal_upper_quantile(0.5 * (1.0 - level));
    Ok(standard_error * standard_error)
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
