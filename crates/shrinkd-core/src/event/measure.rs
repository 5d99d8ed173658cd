//! Measurements to blocks: effects on their scale with their joint sampling covariance `diag(d) + c 11'`.
//!
//! | scale | effect | `d_i` | `c` |
//! | --- | --- | --- | --- |
//! | absolute | `m_i - m_c` | `s_i^2` | `s_c^2` |
//! | relative | `(m_i - m_c) / abs(m_c)` | `s_i^2 / m_c^2` | `s_c^2 / m_c^2` |
//! | log_ratio | `ln(m_i / m_c)` | `s_i^2 / m_i^2` | `s_c^2 / m_c^2` |
//! | log_odds | `logit(p_i) - logit(p_c)` | `1 / (n_i p_i (1 - p_i))` | `1 / (n_c p_c (1 - p_c))` |
//!
//! `s^2` is the variance of an arm's mean. On `log_ratio` this is the delta method (Hedges, Gurevitch & Curtis, "The
//! meta-analysis of response ratios", Ecology 80, 1999). On `relative` the delta method would have the control's error enter
//! effect i in proportion to its own ratio `m_i / m_c` (Lajeunesse, Ecology 92, 2011). Platforms show the standard error
//! that follows, and so does a row (`raw_variances`). As a weight it would be biased, because it grows with the estimate
//! itself: low estimates would count for more. In the block every effect therefore carries the control's error alike.
//!
//! Arms that were sent as successes get variances that do not follow their own noise either: see `pool`. Means are adjusted for
//! a covariate before all this: see `covariate`. Where reported effects come without the control's part, it is imputed from the
//! numbers of units: see `impute`.

mod arms;
mod covariate;
mod effects;
mod impute;
mod pool;

use shrinkd_model::{Block, BlockError, Covariance, Member};

use super::refusal::{Reason, Refusal, quote};
use super::warning::{Warning, WarningCode};
use super::{ControlVarianceSource, Measured, Measurement, Scale};
pub(super) use arms::no_successes;

/// Variances, in the unit of the scale squared, whose products and squares fit a 64-bit float.
const PLAUSIBLE_VARIANCES: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// The largest ratio of a control's variance to a treatment's. No experiment has a control that small, and the model keeps
/// its accuracy far beyond it.
const PLAUSIBLE_RATIO: f64 = 1e20;

/// No experiment measures an effect to a millionth of itself: a number beyond this is in another unit.
const PLAUSIBLE_Z: f64 = 1e6;

/// The coefficient of variation of the control's mean above which `relative` is refused: the ratio of two means is then far
/// from normal (Fieller, "Some problems in interval estimation", JRSS B 16, 1954).
const MOST_CONTROL_VARIATION: f64 = 0.2;

/// The coefficient of variation of the control's mean above which `relative` is warned of.
const IMPRECISE_CONTROL_VARIATION: f64 = 0.05;

/// Room for rounding in the limits above.
const LIMIT_TOLERANCE: f64 = 1e-9;

/// The lift above which an interval on `relative` holds less than it should.
const LARGEST_LIFT: f64 = 0.5;

/// What measuring found besides the block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The treatments that cannot be used, each with why. The others are in the block.
    pub refused: Vec<Refusal>,
    pub warnings: Vec<Warning>,
}

/// The numbers of a block before they are checked against each other.
struct Draft {
    variants: Vec<String>,
    effects: Vec<f64>,
    covariance: Covariance,
    /// What platforms show as the effects' variances.
    raw_variances: Vec<f64>,
    is_continuity_corrected: bool,
    control_variance_source: ControlVarianceSource,
}

/// Converts a measurement to its scale: effects in the unit of the scale, variances in its square.
///
/// # Errors
/// What prevents an estimate of any effect: a fault of the control, of the covariance, or of every treatment. Of several the
/// first in the order of [`Reason`]: `schema_violation` (no control), `no_treatments`, `sample_too_small`,
/// `non_positive_variance`, `covariance_required`, `control_variance_too_large`, `covariance_not_positive_definite`,
/// `control_mean_near_zero`, `non_positive_mean`, `implausible_scale`.
pub fn measure(scale: Scale, measurement: &Measurement) -> Result<Measured, Refusal> {
    examine(scale, measurement).map(|(measured, _)| measured)
}

/// The same, with what was found on the way.
pub(crate) fn examine(scale: Scale, measurement: &Measurement) -> Result<(Measured, Findings), Refusal> {
    let mut findings = Findings::default();
    let mut draft = match measurement {
        Measurement::Arms(arms) => arms::draft(scale, arms, &mut findings)?,
        Measurement::Effects(effects) => effects::draft(scale, effects, &mut findings)?,
    };
    // An arm always has an error; only effects that the producer computed may have a control without one.
    let may_lack_control_error = matches!(measurement, Measurement::Effects(_));
    refuse_implausible(&mut draft, may_lack_control_error, &mut findings.refused)?;
    let measured = draft.measured()?;
    check_components(&measured.block)?;
    if scale == Scale::Relative {
        findings.warnings.extend(large_lift(&measured));
    }
    Ok((measured, findings))
}

impl Draft {
    /// Leaves out the effects at these places, which are sorted.
    fn leave_out(&mut self, places: &[usize]) {
        if places.is_empty() {
            return;
        }
        let n = self.effects.len();
        let is_kept = |i: usize| places.binary_search(&i).is_err();
        retain(&mut self.variants, is_kept);
        retain(&mut self.effects, is_kept);
        retain(&mut self.raw_variances, is_kept);
        match &mut self.covariance {
            Covariance::SharedControl { treatment_variances, .. } => retain(treatment_variances, is_kept),
            Covariance::Dense { matrix } => retain(matrix, |entry| is_kept(entry / n) && is_kept(entry % n)),
        }
    }

    fn measured(self) -> Result<Measured, Refusal> {
        let Draft { variants, effects, covariance, raw_variances, .. } = self;
        let (is_continuity_corrected, control_variance_source) =
            (self.is_continuity_corrected, self.control_variance_source);
        let block = match covariance {
            Covariance::SharedControl { treatment_variances, control_variance } => {
                Block::shared_control(effects, treatment_variances, control_variance).map_err(beyond)?
            }
            Covariance::Dense { matrix } => Block::dense(effects, matrix).map_err(effects::refuse_dense)?,
        };
        Ok(Measured { variants, block, raw_variances, is_continuity_corrected, control_variance_source })
    }
}

fn retain<T>(list: &mut Vec<T>, is_kept: impl Fn(usize) -> bool) {
    let mut places = 0..;
    list.retain(|_| places.next().is_some_and(&is_kept));
}

/// Refuses the treatments whose numbers no experiment has.
///
/// # Errors
/// The refusal of the whole, where none is left or the control's variance is such a number.
fn refuse_implausible(
    draft: &mut Draft,
    may_lack_control_error: bool,
    refused: &mut Vec<Refusal>,
) -> Result<(), Refusal> {
    let n = draft.effects.len();
    let (own, control): (&[f64], f64) = match &draft.covariance {
        Covariance::SharedControl { treatment_variances, control_variance } => (treatment_variances, *control_variance),
        Covariance::Dense { .. } => (&[], 0.0),
    };
    if !(PLAUSIBLE_VARIANCES.contains(&control) || control == 0.0 && may_lack_control_error) {
        let detail = if control.is_finite() {
            format!("the control's variance is {control:e} on this scale, outside 1e-100..1e100")
        } else {
            "the numbers of the control overflow on this scale".to_owned()
        };
        return Err(Refusal::new(Reason::ImplausibleScale, detail));
    }
    let mut left_out = Vec::new();
    for (i, variant) in draft.variants.iter().enumerate() {
        let narrowest = own.get(i).copied();
        let whole = match &draft.covariance {
            Covariance::SharedControl { .. } => narrowest.unwrap_or_default() + control,
            Covariance::Dense { matrix } => matrix.get(i * n + i).copied().unwrap_or_default(),
        };
        let effect = draft.effects.get(i).copied().unwrap_or_default();
        let raw = draft.raw_variances.get(i).copied().unwrap_or_default();
        let implausible = |variance: &f64| !PLAUSIBLE_VARIANCES.contains(variance);
        let what = if !effect.is_finite() || !whole.is_finite() {
            format!("has numbers that overflow on this scale: its effect is {effect:e}")
        } else if let Some(found) = [Some(whole), narrowest].into_iter().flatten().find(implausible) {
            format!("has the variance {found:e} on this scale, outside 1e-100..1e100")
        } else if narrowest.is_some_and(|narrowest| control > PLAUSIBLE_RATIO * narrowest) {
            "has a variance that is less than 1e-20 times the control's".to_owned()
        } else if effect.abs() > PLAUSIBLE_Z * whole.sqrt() {
            format!("has the effect {effect:e}, more than 1e6 of its standard errors from 0")
        } else if implausible(&raw) {
            format!("has the variance {raw:e} as platforms show it, outside 1e-100..1e100")
        } else {
            continue;
        };
        left_out.push(i);
        refused.push(Refusal::of_variant(Reason::ImplausibleScale, variant, &what));
    }
    draft.leave_out(&left_out);
    if draft.effects.is_empty() { Err(first_of(std::mem::take(refused))) } else { Ok(()) }
}

/// The refusal to report where a whole result is refused: the one whose reason is checked first, and of those the first.
fn first_of(refusals: Vec<Refusal>) -> Refusal {
    let first = refusals.into_iter().min_by_key(|refusal| refusal.reason);
    first.unwrap_or_else(|| Refusal::new(Reason::NoTreatments, NO_TREATMENTS))
}

const NO_TREATMENTS: &str = "has no treatments and no effects, send at least one";

/// Checks that a sketch can hold the components of the block, of the joint effects and of each alone.
fn check_components(block: &Block) -> Result<(), Refusal> {
    Member::check(block).map(drop).map_err(|error| {
        Refusal::new(Reason::ImplausibleScale, format!("the numbers are beyond the range of the model: {error}"))
    })
}

/// Checked numbers make a block unless they overflow or underflow on the scale.
fn beyond(error: BlockError) -> Refusal {
    Refusal::new(Reason::ImplausibleScale, format!("the numbers overflow or underflow on this scale: {error}"))
}

/// Judges how precisely the control's mean is known on `relative`, by its coefficient of variation.
///
/// # Errors
/// `control_mean_near_zero` above 20%. `instead` is the scale to advise, and on which condition.
fn check_control_variation<'a>(variation: f64, instead: impl FnOnce() -> &'a str) -> Result<Option<Warning>, Refusal> {
    if !variation.is_finite() {
        let detail = format!(
            "the control's mean is 0 beside its standard error, so that there is no ratio: use scale {}",
            instead()
        );
        return Err(Refusal::new(Reason::ControlMeanNearZero, detail));
    }
    if variation > MOST_CONTROL_VARIATION * (1.0 + LIMIT_TOLERANCE) {
        let percent = percent_above(MOST_CONTROL_VARIATION, variation);
        let detail = format!(
            "the standard error of the control's mean is {percent}% of it, and a ratio needs at most 20%: use scale {}",
            instead()
        );
        return Err(Refusal::new(Reason::ControlMeanNearZero, detail));
    }
    Ok((variation > IMPRECISE_CONTROL_VARIATION * (1.0 + LIMIT_TOLERANCE)).then(|| {
        let percent = percent_above(IMPRECISE_CONTROL_VARIATION, variation);
        let detail = format!(
            "the standard error of the control's mean is {percent}% of it, above 5%: effects on relative are skewed, \
             use scale {}",
            instead()
        );
        Warning::new(WarningCode::ControlMeanImprecise, detail)
    }))
}

/// A share in percent, with as many digits as it takes to show that it is above the limit.
fn percent_above(limit: f64, share: f64) -> String {
    let percent = 100.0 * share;
    if percent >= 1e6 {
        return format!("{percent:.1e}");
    }
    let is_above = |shown: &String| shown.parse::<f64>().is_ok_and(|shown| shown > 100.0 * limit);
    let first = if percent < 10.0 { 2 } else { 1 };
    (first..12).map(|digits| format!("{percent:.digits$}")).find(is_above).unwrap_or_else(|| percent.to_string())
}

/// Whether an effect on `relative` is beyond what its interval can be relied on for.
pub fn is_lift_too_large(scale: Scale, effect: f64) -> bool {
    scale == Scale::Relative && effect > LARGEST_LIFT
}

fn large_lift(measured: &Measured) -> Option<Warning> {
    let lifts = || measured.variants.iter().zip(measured.block.effects());
    let (variant, lift) = lifts().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    if !is_lift_too_large(Scale::Relative, *lift) {
        return None;
    }
    let others = lifts().filter(|(_, lift)| is_lift_too_large(Scale::Relative, **lift)).count() - 1;
    let others = match others {
        0 => String::new(),
        1 => ", and 1 other variant one beyond +50%".to_owned(),
        count => format!(", and {count} other variants one beyond +50%"),
    };
    let detail = format!(
        "variant {} has a lift of {:+.0}%{others}: intervals on relative are too narrow there, use scale log_ratio \
         where every mean is above 0",
        quote(variant),
        100.0 * lift
    );
    Some(Warning::new(WarningCode::LiftTooLargeForRelative, detail))
}
