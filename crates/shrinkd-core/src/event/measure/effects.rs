//! Effects that the producer computed to the numbers of a block.

use shrinkd_model::{BlockError, Covariance};

use super::impute::{Treatment, control_variance};
use super::{Draft, Findings, NO_TREATMENTS, beyond, check_control_variation, first_of};
use crate::event::refusal::{Reason, Refusal};
use crate::event::warning::{Warning, WarningCode};
use crate::event::{ControlVarianceSource, Effects, Scale, Uncertainty, VarianceForm};

/// Units below which an arm has no variance.
const FEWEST_UNITS: u64 = 2;

/// Reported variances, and what they contain.
struct Sent<'a> {
    variances: &'a [f64],
    form: VarianceForm,
    control_variance: f64,
    source: ControlVarianceSource,
    /// Of the treatments, where the control's variance is imputed from them.
    units: Vec<Option<u64>>,
}

pub(super) fn draft(scale: Scale, effects: &Effects, findings: &mut Findings) -> Result<Draft, Refusal> {
    if effects.variants.is_empty() {
        return Err(Refusal::new(Reason::NoTreatments, NO_TREATMENTS));
    }
    let estimates = &effects.estimates;
    let Some(sent) = sent(scale, effects)? else { return dense(scale, effects, findings) };
    let Sent { variances, form, control_variance, source, units } = sent;
    if control_variance < 0.0 {
        return Err(Refusal::new(Reason::NonPositiveVariance, "control_variance is below 0"));
    }
    let whole = |(own, estimate): (&f64, &f64)| own + control_variance * (1.0 + offset(scale, *estimate)).powi(2);
    let (own, raw_variances): (Vec<f64>, Vec<f64>) = match form {
        VarianceForm::Treatment => (variances.to_vec(), variances.iter().zip(estimates).map(whole).collect()),
        VarianceForm::Scaled => {
            let own: Vec<f64> = variances.iter().map(|variance| variance - control_variance).collect();
            let raw = own.iter().zip(estimates).map(whole).collect();
            (own, raw)
        }
        VarianceForm::Delta => {
            let own = |(variance, estimate): (&f64, &f64)| {
                own_variance(*variance, control_variance, offset(scale, *estimate))
            };
            (variances.iter().zip(estimates).map(own).collect(), variances.to_vec())
        }
    };
    let covariance = Covariance::SharedControl { treatment_variances: own, control_variance };
    let mut draft = draft_of(effects, covariance, raw_variances, source);
    refuse_unusable(&mut draft, variances, &units, findings)?;
    check_own_variances(scale, &draft)?;
    if scale == Scale::Relative {
        // The means themselves are unknown.
        let may_have_logarithms = || estimates.iter().all(|estimate| *estimate > -1.0);
        let instead = || if may_have_logarithms() { "log_ratio where every mean is above 0" } else { "absolute" };
        findings.warnings.extend(check_control_variation(control_variance.sqrt(), instead)?);
        let follows_estimates = form == VarianceForm::Delta;
        findings.warnings.extend((follows_estimates && control_variance == 0.0).then(biased));
    }
    Ok(draft)
}

/// What was sent; `None` where it is a covariance.
///
/// # Errors
/// `sample_too_small` or `covariance_required` where the control's variance cannot be imputed from the units.
fn sent(scale: Scale, effects: &Effects) -> Result<Option<Sent<'_>>, Refusal> {
    let given = |variances, form, control_variance| {
        let is_unknown = effects.variants.len() == 1 && control_variance == 0.0;
        let source = if is_unknown { ControlVarianceSource::None } else { ControlVarianceSource::Given };
        Some(Sent { variances, form, control_variance, source, units: Vec::new() })
    };
    Ok(match &effects.uncertainty {
        Uncertainty::Covariance { .. } => None,
        Uncertainty::SharedControl { variances, control_variance } => {
            given(variances, VarianceForm::Delta, *control_variance)
        }
        Uncertainty::ScaledVariances { variances, control_variance } => {
            given(variances, VarianceForm::Scaled, *control_variance)
        }
        Uncertainty::TreatmentVariances { variances, control_variance } => {
            given(variances, VarianceForm::Treatment, *control_variance)
        }
        Uncertainty::Units { variances, form, units, control_units } => {
            let units = units.iter().copied().map(Some).collect();
            Some(imputed(scale, effects, (variances, *form), units, *control_units)?)
        }
        Uncertainty::SomeUnits { variances, form, units, control_units } => {
            Some(imputed(scale, effects, (variances, *form), units.clone(), *control_units)?)
        }
    })
}

/// The variances with the control's part that the units imply.
fn imputed<'a>(
    scale: Scale,
    effects: &Effects,
    (variances, form): (&'a [f64], VarianceForm),
    units: Vec<Option<u64>>,
    control_units: u64,
) -> Result<Sent<'a>, Refusal> {
    if control_units < FEWEST_UNITS {
        let detail = "the control has fewer than 2 units, from which its variance cannot be imputed";
        return Err(Refusal::new(Reason::SampleTooSmall, detail));
    }
    let usable = variances.iter().zip(&effects.estimates).zip(&units);
    let usable = usable.filter(|((variance, _), units)| **variance > 0.0 && has_enough(**units));
    let treatments = usable.map(|((&variance, &estimate), &units)| Treatment {
        variance,
        loading: if form == VarianceForm::Delta { 1.0 + offset(scale, estimate) } else { 1.0 },
        units: units.map(|units| units as f64),
    });
    let control_variance = match control_variance(form, treatments, control_units as f64) {
        Some(control_variance) => control_variance,
        None if units.contains(&None) => {
            let detail = "no effect that can be used has n, from which the control's part of the variances could be imputed: \
                          send the n of the others, or control_variance, or covariance";
            return Err(Refusal::new(Reason::CovarianceRequired, detail));
        }
        // No effect can be used, and each will be refused for its own fault.
        None => 0.0,
    };
    Ok(Sent { variances, form, control_variance, source: ControlVarianceSource::Imputed, units })
}

/// Whether an arm has as many units as a variance takes; what was not sent is not judged.
fn has_enough(units: Option<u64>) -> bool {
    units.is_none_or(|units| units >= FEWEST_UNITS)
}

/// Only `relative` has the control's error enter in proportion to the treatment's mean.
fn offset(scale: Scale, estimate: f64) -> f64 {
    if scale == Scale::Relative { estimate } else { 0.0 }
}

fn dense(scale: Scale, effects: &Effects, findings: &mut Findings) -> Result<Draft, Refusal> {
    let n = effects.variants.len();
    let matrix: &[f64] = if let Uncertainty::Covariance { matrix } = &effects.uncertainty { matrix } else { &[] };
    if matrix.len() != n * n {
        let detail = format!("covariance must have {n} rows of {n} numbers, one for each effect");
        return Err(Refusal::new(Reason::SchemaViolation, detail));
    }
    let diagonal: Vec<f64> = matrix.iter().step_by(n + 1).copied().collect();
    let covariance = Covariance::Dense { matrix: matrix.to_vec() };
    let mut draft = draft_of(effects, covariance, diagonal.clone(), ControlVarianceSource::Given);
    refuse_unusable(&mut draft, &diagonal, &[], findings)?;
    findings.warnings.extend((scale == Scale::Relative).then(biased));
    Ok(draft)
}

fn draft_of(
    effects: &Effects,
    covariance: Covariance,
    raw_variances: Vec<f64>,
    control_variance_source: ControlVarianceSource,
) -> Draft {
    Draft {
        variants: effects.variants.clone(),
        effects: effects.estimates.clone(),
        covariance,
        raw_variances,
        is_continuity_corrected: false,
        control_variance_source,
    }
}

/// Refuses the effects whose variance, as it was sent, is not above 0, and those of too few units where these count.
fn refuse_unusable(
    draft: &mut Draft,
    variances: &[f64],
    units: &[Option<u64>],
    findings: &mut Findings,
) -> Result<(), Refusal> {
    let mut left_out = Vec::new();
    for (i, variant) in draft.variants.iter().enumerate() {
        let (reason, what) = if !has_enough(units.get(i).copied().flatten()) {
            (Reason::SampleTooSmall, "has fewer than 2 units")
        } else if variances.get(i).is_none_or(|variance| variance.is_nan() || *variance <= 0.0) {
            (Reason::NonPositiveVariance, "has no variance above 0, so that its error is unknown")
        } else {
            continue;
        };
        left_out.push(i);
        findings.refused.push(Refusal::of_variant(reason, variant, what));
    }
    draft.leave_out(&left_out);
    if draft.effects.is_empty() { Err(first_of(std::mem::take(&mut findings.refused))) } else { Ok(()) }
}

/// The control's part is the same number in every effect: where it leaves nothing of one, it is wrong for all.
fn check_own_variances(scale: Scale, draft: &Draft) -> Result<(), Refusal> {
    let Covariance::SharedControl { treatment_variances, .. } = &draft.covariance else { return Ok(()) };
    let Some((variant, _)) = draft.variants.iter().zip(treatment_variances).find(|(_, own)| **own <= 0.0) else {
        return Ok(());
    };
    let (part, negative) = match scale {
        Scale::Relative => (
            "control_variance (1 + estimate)^2",
            "; where the control's mean is below 0, send treatment_variance instead of variance",
        ),
        Scale::Absolute | Scale::LogRatio | Scale::LogOdds => ("control_variance", ""),
    };
    let what = format!(
        "keeps nothing of its variance without the control's part: variance is the effect's whole sampling variance and must \
         be above {part}. Compute control_variance from the control's own n (the variance per unit over n), leave it out and send \
         the n of the effects and of the control, or send covariance instead{negative}"
    );
    Err(Refusal::of_variant(Reason::ControlVarianceTooLarge, variant, &what))
}

fn biased() -> Warning {
    let detail = "variances on relative that include the control's error follow the estimates, which biases the mean of \
                  the population downwards: send control_variance beside each variance, or the n of effects and control, or arms";
    Warning::new(WarningCode::BiasOfRelative, detail)
}

/// `variance - c (1 + offset)^2`, what the treatment's own error leaves of an effect's variance.
///
/// The two cancel where the control's error dominates, so the rounding errors of the sum and of both products are carried
/// along (Knuth's two-sum; Dekker's two-product by fma): the difference is as accurate as its inputs.
fn own_variance(variance: f64, c: f64, offset: f64) -> f64 {
    let w = 1.0 + offset;
    let one = w - offset;
    let w_error = (1.0 - one) + (offset - (w - one));
    let square = w * w;
    let square_error = w.mul_add(w, -square) + 2.0 * w * w_error;
    let part = c * square;
    let part_error = c.mul_add(square, -part) + c * square_error;
    (variance - part) - part_error
}

pub(super) fn refuse_dense(error: BlockError) -> Refusal {
    match error {
        BlockError::NotPositiveDefinite => Refusal::new(
            Reason::CovarianceNotPositiveDefinite,
            "covariance is not positive definite: if these are all pairwise contrasts of an experiment, send only those \
             against its control, because each of the others is the difference of two of them; else check its computation",
        ),
        BlockError::NonFinite { .. } | BlockError::NonPositiveVariance { .. } => beyond(error),
        shape => Refusal::new(Reason::SchemaViolation, format!("covariance does not fit: {shape}")),
    }
}
