//! Effects that the producer computed to the numbers of a block.

use shrinkd_model::{BlockError, Covariance};

use super::{Draft, Findings, NO_TREATMENTS, beyond, check_control_variation, first_of};
use crate::event::refusal::{Reason, Refusal};
use crate::event::warning::{Warning, WarningCode};
use crate::event::{Effects, Scale, Uncertainty};

pub(super) fn draft(scale: Scale, effects: &Effects, findings: &mut Findings) -> Result<Draft, Refusal> {
    if effects.variants.is_empty() {
        return Err(Refusal::new(Reason::NoTreatments, NO_TREATMENTS));
    }
    // Only `relative` has the control's error enter in proportion to the treatment's mean.
    let offset = |estimate: f64| if scale == Scale::Relative { estimate } else { 0.0 };
    let whole = |(own, estimate): (&f64, &f64), c: f64| own + c * (1.0 + offset(*estimate)).powi(2);
    let estimates = &effects.estimates;
    let (sent, control_variance) = match &effects.uncertainty {
        Uncertainty::Covariance { matrix } => return dense(scale, effects, matrix, findings),
        Uncertainty::SharedControl { variances, control_variance }
        | Uncertainty::ScaledVariances { variances, control_variance }
        | Uncertainty::TreatmentVariances { variances, control_variance } => (variances, *control_variance),
    };
    if control_variance < 0.0 {
        return Err(Refusal::new(Reason::NonPositiveVariance, "control_variance is below 0"));
    }
    let (own, raw_variances): (Vec<f64>, Vec<f64>) = match &effects.uncertainty {
        Uncertainty::TreatmentVariances { .. } => {
            (sent.clone(), sent.iter().zip(estimates).map(|effect| whole(effect, control_variance)).collect())
        }
        Uncertainty::ScaledVariances { .. } => {
            let own: Vec<f64> = sent.iter().map(|variance| variance - control_variance).collect();
            let raw = own.iter().zip(estimates).map(|effect| whole(effect, control_variance)).collect();
            (own, raw)
        }
        Uncertainty::SharedControl { .. } | Uncertainty::Covariance { .. } => {
            let own = |(variance, estimate): (&f64, &f64)| own_variance(*variance, control_variance, offset(*estimate));
            (sent.iter().zip(estimates).map(own).collect(), sent.clone())
        }
    };
    let covariance = Covariance::SharedControl { treatment_variances: own, control_variance };
    let mut draft = draft_of(effects, covariance, raw_variances);
    refuse_without_variance(&mut draft, sent, findings)?;
    check_own_variances(scale, &draft)?;
    if scale == Scale::Relative {
        // The means themselves are unknown.
        let may_have_logarithms = || estimates.iter().all(|estimate| *estimate > -1.0);
        let instead = || if may_have_logarithms() { "log_ratio where every mean is above 0" } else { "absolute" };
        findings.warnings.extend(check_control_variation(control_variance.sqrt(), instead)?);
        let follows_estimates = matches!(effects.uncertainty, Uncertainty::SharedControl { .. });
        findings.warnings.extend((follows_estimates && control_variance == 0.0).then(biased));
    }
    Ok(draft)
}

fn dense(scale: Scale, effects: &Effects, matrix: &[f64], findings: &mut Findings) -> Result<Draft, Refusal> {
    let n = effects.variants.len();
    if matrix.len() != n * n {
        let detail = format!("covariance must have {n} rows of {n} numbers, one for each effect");
        return Err(Refusal::new(Reason::SchemaViolation, detail));
    }
    let diagonal: Vec<f64> = matrix.iter().step_by(n + 1).copied().collect();
    let mut draft = draft_of(effects, Covariance::Dense { matrix: matrix.to_vec() }, diagonal.clone());
    refuse_without_variance(&mut draft, &diagonal, findings)?;
    findings.warnings.extend((scale == Scale::Relative).then(biased));
    Ok(draft)
}

fn draft_of(effects: &Effects, covariance: Covariance, raw_variances: Vec<f64>) -> Draft {
    Draft {
        variants: effects.variants.clone(),
        effects: effects.estimates.clone(),
        covariance,
        raw_variances,
        is_continuity_corrected: false,
    }
}

/// Refuses the effects whose variance, as it was sent, is not above 0.
fn refuse_without_variance(draft: &mut Draft, sent: &[f64], findings: &mut Findings) -> Result<(), Refusal> {
    let is_kept: Vec<bool> = sent.iter().map(|variance| *variance > 0.0).collect();
    let without = draft.variants.iter().zip(&is_kept).filter(|(_, is_kept)| !**is_kept);
    let what = "has no variance above 0, so that its error is unknown";
    let refused = without.map(|(variant, _)| Refusal::of_variant(Reason::NonPositiveVariance, variant, what));
    findings.refused.extend(refused);
    draft.retain(&is_kept);
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
        Scale::Absolute | Scale::LogRatio => ("control_variance", ""),
    };
    let what = format!(
        "keeps nothing of its variance without the control's part: variance is the effect's whole sampling variance and must \
         be above {part}. Impute control_variance from the control's own n (the variance per unit over n), or send \
         covariance instead{negative}"
    );
    Err(Refusal::of_variant(Reason::ControlVarianceTooLarge, variant, &what))
}

fn biased() -> Warning {
    let detail = "variances on relative that include the control's error follow the estimates, which biases the mean of \
                  the population downwards: send control_variance beside each variance, or arms";
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
