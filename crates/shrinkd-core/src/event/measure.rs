//! Measurements to blocks: effects on their scale with their joint sampling covariance `diag(d) + c 11'`.
//!
//! | scale | effect | `d_i` | `c` |
//! | --- | --- | --- | --- |
//! | absolute | `m_i - m_c` | `s_i^2` | `s_c^2` |
//! | relative | `m_i / m_c - 1` | `s_i^2 / m_c^2` | `s_c^2 / m_c^2` |
//! | log_ratio | `ln(m_i / m_c)` | `s_i^2 / m_i^2` | `s_c^2 / m_c^2` |
//!
//! `s^2` is the variance of an arm's mean. On the ratio scales this is the delta method: Hedges, Gurevitch & Curtis,
//! "The meta-analysis of response ratios", Ecology 80 (1999), for the log ratio; Lajeunesse, "On the meta-analysis of
//! response ratios for studies with correlated and multi-group designs", Ecology 92 (2011), for the shared control.

use shrinkd_model::{Block, BlockError, Covariance, Member};

use super::refusal::{Reason, Refusal, quote};
use super::{Arm, Arms, Effects, Measured, Measurement, Scale, Uncertainty};

/// Variances, in the unit of the scale squared, whose products and squares fit a 64-bit float.
const PLAUSIBLE_VARIANCES: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// The largest ratio of a control's variance to a treatment's. No experiment has a control that small, and the model keeps its accuracy
/// far beyond it.
const PLAUSIBLE_RATIO: f64 = 1e20;

/// No experiment measures an effect to a millionth of itself: a number beyond this is in another unit.
const PLAUSIBLE_Z: f64 = 1e6;

/// How many of its standard errors the control's mean must be from 0 on `relative`. Below that the ratio of two means
/// is far from normal (Fieller, "Some problems in interval estimation", JRSS B 16, 1954).
const RELATIVE_CONTROL_Z: f64 = 5.0;

/// The same on `log_ratio`, where means are positive and the logarithm is closer to normal than the ratio. It admits every
/// binomial arm with an event: one with a single event is 1 standard error from 0.
const LOG_RATIO_CONTROL_Z: f64 = 1.0;

/// Room for rounding in the two limits above.
const CONTROL_Z_TOLERANCE: f64 = 1e-9;

/// Converts a measurement to its scale: effects in the unit of the scale, variances in its square.
///
/// Effects that the producer computed are used as they are; their `d_i` is `variance_i - c w_i^2` with `w = 1`, or
/// `w = 1 + estimate` on `relative`.
///
/// How far from 0 the control's mean must be depends on the scale: 5 of its standard errors on `relative`, where a ratio is taken,
/// and 1 on `log_ratio`, where means are positive anyway. Log ratios of rare events are usual in meta-analysis, and an
/// arm with a single event in n has a mean of exactly one standard error.
///
/// # Errors
/// What prevents an estimate, in this order: `schema_violation` (no control), `no_treatments`,
/// `sample_too_small`, `non_positive_variance`, `control_variance_too_large`, `covariance_not_positive_definite`,
/// `control_mean_near_zero` (`relative`: below 5 standard errors; `log_ratio`: below 1), `non_positive_mean`
/// (`log_ratio`), `implausible_scale` (a variance outside 1e-100..1e100, a control's variance beyond 1e20 of a treatment's, an effect
/// beyond 1e6 of its standard errors, overflow).
pub fn measure(scale: Scale, measurement: &Measurement) -> Result<Measured, Refusal> {
    let measured = match measurement {
        Measurement::Arms(arms) => measure_arms(scale, arms)?,
        Measurement::Effects(effects) => measure_effects(scale, effects)?,
    };
    // An arm always has an error; only effects that the producer computed may have a control without one.
    let may_lack_control_error = matches!(measurement, Measurement::Effects(_));
    check_plausible(&measured, may_lack_control_error)?;
    check_components(&measured.block)?;
    Ok(measured)
}

/// Checks that a sketch can hold the components of the block, of the joint effects and of each alone.
fn check_components(block: &Block) -> Result<(), Refusal> {
    Member::new(block.clone(), 0).map(drop).map_err(|error| {
        Refusal::new(Reason::ImplausibleScale, format!("the numbers are beyond the range of the model: {error}"))
    })
}

fn measure_arms(scale: Scale, arms: &Arms) -> Result<Measured, Refusal> {
    let Some(control) = &arms.control else {
        return Err(Refusal::new(Reason::SchemaViolation, "needs a control beside its treatments"));
    };
    check_any(arms.treatments.len())?;
    check_arms(scale, control, &arms.treatments)?;
    let (control_mean, control_variance) = control.statistics.mean_and_variance();
    let n = arms.treatments.len();
    let (mut effects, mut variances) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for treatment in &arms.treatments {
        let (mean, variance) = treatment.statistics.mean_and_variance();
        let difference = mean - control_mean;
        let (effect, unit) = match scale {
            Scale::Absolute => (difference, 1.0),
            Scale::Relative => (difference / control_mean, control_mean),
            Scale::LogRatio => (log_ratio(mean, control_mean), mean),
        };
        effects.push(effect);
        variances.push(variance / unit / unit);
    }
    let unit = if scale == Scale::Absolute { 1.0 } else { control_mean };
    let block = Block::shared_control(effects, variances, control_variance / unit / unit).map_err(beyond)?;
    Ok(Measured { variants: arms.treatments.iter().map(|arm| arm.variant.clone()).collect(), block })
}

/// `ln(mean / control)`, accurate also where the two are close.
fn log_ratio(mean: f64, control: f64) -> f64 {
    let relative = (mean - control) / control;
    if relative.abs() < 0.5 { relative.ln_1p() } else { (mean / control).ln() }
}

fn check_arms(scale: Scale, control: &Arm, treatments: &[Arm]) -> Result<(), Refusal> {
    let arms = || std::iter::once(control).chain(treatments);
    let refuse =
        |reason, arm: &Arm, what: &str| Err(Refusal::new(reason, format!("variant {} {what}", quote(&arm.variant))));
    if let Some(arm) = arms().find(|arm| arm.statistics.n().is_some_and(|n| n < 2)) {
        return refuse(Reason::SampleTooSmall, arm, "has fewer than 2 units, a variance needs 2");
    }
    if let Some(arm) = arms().find(|arm| arm.statistics.spread() <= 0.0) {
        return refuse(Reason::NonPositiveVariance, arm, "has no variance above 0, so that its error is unknown");
    }
    let nearest = match scale {
        Scale::Absolute => return Ok(()),
        Scale::Relative => RELATIVE_CONTROL_Z,
        Scale::LogRatio => LOG_RATIO_CONTROL_Z,
    };
    let (mean, variance) = control.statistics.mean_and_variance();
    if mean.abs() * (1.0 + CONTROL_Z_TOLERANCE) < nearest * variance.sqrt() {
        let what = format!("is the control and its mean is within {nearest} standard errors of 0, use scale absolute");
        return refuse(Reason::ControlMeanNearZero, control, &what);
    }
    let lacks_logarithm = |arm: &&Arm| scale == Scale::LogRatio && arm.statistics.mean_and_variance().0 <= 0.0;
    match arms().find(lacks_logarithm) {
        Some(arm) => refuse(Reason::NonPositiveMean, arm, "has a mean of 0 or below, which has no logarithm"),
        None => Ok(()),
    }
}

fn measure_effects(scale: Scale, effects: &Effects) -> Result<Measured, Refusal> {
    check_any(effects.variants.len())?;
    let block = match &effects.uncertainty {
        Uncertainty::SharedControl { variances, control_variance } => {
            shared_control(scale, effects, variances, *control_variance)?
        }
        Uncertainty::Covariance { matrix } => {
            Block::dense(effects.estimates.clone(), matrix.clone()).map_err(|error| refuse_dense(error, effects))?
        }
    };
    Ok(Measured { variants: effects.variants.clone(), block })
}

fn shared_control(scale: Scale, effects: &Effects, variances: &[f64], control_variance: f64) -> Result<Block, Refusal> {
    if let Some((variant, _)) = effects.variants.iter().zip(variances).find(|(_, variance)| **variance <= 0.0) {
        return Err(no_variance(variant));
    }
    if control_variance < 0.0 {
        return Err(Refusal::new(Reason::NonPositiveVariance, "control_variance is below 0"));
    }
    // Only `relative` has the control's error enter in proportion to the treatment's mean.
    let offset = |estimate: &f64| if scale == Scale::Relative { *estimate } else { 0.0 };
    let own: Vec<f64> = effects
        .estimates
        .iter()
        .zip(variances)
        .map(|(estimate, variance)| own_variance(*variance, control_variance, offset(estimate)))
        .collect();
    if let Some((variant, _)) = effects.variants.iter().zip(&own).find(|(_, own)| **own <= 0.0) {
        let detail = format!(
            "the control's part leaves nothing of the variance of {}: variance is the effect's whole sampling \
             variance and must be above control_variance w^2 (w = 1, on relative 1 + estimate)",
            quote(variant)
        );
        return Err(Refusal::new(Reason::ControlVarianceTooLarge, detail));
    }
    Block::shared_control(effects.estimates.clone(), own, control_variance).map_err(beyond)
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

fn check_any(effects: usize) -> Result<(), Refusal> {
    if effects == 0 {
        return Err(Refusal::new(Reason::NoTreatments, "has no treatments and no effects, send at least one"));
    }
    Ok(())
}

fn check_plausible(measured: &Measured, may_lack_control_error: bool) -> Result<(), Refusal> {
    let implausible = |detail| Err(Refusal::new(Reason::ImplausibleScale, detail));
    let (own, control): (&[f64], f64) = match measured.block.covariance() {
        Covariance::SharedControl { treatment_variances, control_variance, .. } => {
            (treatment_variances, *control_variance)
        }
        Covariance::Dense { .. } => (&[], 0.0),
    };
    if !(PLAUSIBLE_VARIANCES.contains(&control) || control == 0.0 && may_lack_control_error) {
        return implausible(format!("the control's variance is {control:e} on this scale, outside 1e-100..1e100"));
    }
    for (i, (variant, effect)) in measured.variants.iter().zip(measured.block.effects()).enumerate() {
        let variance = measured.block.sampling_variance(i);
        let narrowest = own.get(i).copied().unwrap_or(variance);
        if !PLAUSIBLE_VARIANCES.contains(&variance) || !PLAUSIBLE_VARIANCES.contains(&narrowest) {
            let found = if PLAUSIBLE_VARIANCES.contains(&variance) { narrowest } else { variance };
            let name = quote(variant);
            return implausible(format!("the variance of {name} is {found:e} on this scale, outside 1e-100..1e100"));
        }
        if control > PLAUSIBLE_RATIO * narrowest {
            let name = quote(variant);
            return implausible(format!("the control's variance is more than 1e20 times that of {name}"));
        }
        if effect.abs() > PLAUSIBLE_Z * variance.sqrt() {
            let name = quote(variant);
            return implausible(format!("the effect of {name} is more than 1e6 of its standard errors from 0"));
        }
    }
    Ok(())
}

fn no_variance(variant: &str) -> Refusal {
    let detail = format!("variant {} has no variance above 0, so that its error is unknown", quote(variant));
    Refusal::new(Reason::NonPositiveVariance, detail)
}

/// Checked arms and effects make a block unless their numbers overflow or underflow on the scale.
fn beyond(error: BlockError) -> Refusal {
    Refusal::new(Reason::ImplausibleScale, format!("the numbers overflow or underflow on this scale: {error}"))
}

fn refuse_dense(error: BlockError, effects: &Effects) -> Refusal {
    match error {
        BlockError::NonPositiveVariance { index, .. } => {
            no_variance(effects.variants.get(index).map_or("", String::as_str))
        }
        BlockError::NotPositiveDefinite => {
            Refusal::new(Reason::CovarianceNotPositiveDefinite, "covariance is not positive definite")
        }
        BlockError::NonFinite { .. } => beyond(error),
        shape => Refusal::new(Reason::SchemaViolation, format!("covariance does not fit: {shape}")),
    }
}
