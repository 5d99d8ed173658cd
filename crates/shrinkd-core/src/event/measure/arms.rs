//! Arms to the numbers of a block.

use shrinkd_model::Covariance;

use super::covariate::adjusted;
use super::pool::{Count, Pool, spread, variation};
use super::{
    Draft, Findings, LIMIT_TOLERANCE, MOST_CONTROL_VARIATION, NO_TREATMENTS, check_control_variation, first_of,
};
use crate::event::refusal::{Reason, Refusal, quote};
use crate::event::warning::{Warning, WarningCode};
use crate::event::{Arm, ArmStatistics, Arms, ControlVarianceSource, PairedMoments, Scale};

/// How many of its standard errors the control's mean must be from 0 on `log_ratio`, where means are positive and the
/// logarithm is closer to normal than the ratio.
const LOG_RATIO_CONTROL_Z: f64 = 1.0;

/// Events per arm below which log ratios are taken of `(s + 1/2) / (n + 1/2)`: there the logarithm of a rate is biased by
/// its skewness, and correcting only the arms without events would be biased the other way. Log odds are of
/// `(s + 1/2) / (n - s + 1/2)` below as many events, or units without one (Haldane, Annals of Human Genetics 20, 1956; Anscombe,
/// Biometrika 43, 1956).
const FEW_EVENTS: f64 = 40.0;

/// The expected events of an arm below which its error is far from normal.
const RARE_EVENTS: f64 = 5.0;

/// An arm on a scale.
struct Point {
    /// In the metric's unit; on `log_odds` its logit.
    mean: f64,
    /// Its sampling variance, in the unit of the mean squared: what platforms show.
    variance: f64,
    /// What it brings to the block, in the unit of the scale squared: d of a treatment, c of the control.
    part: f64,
}

/// The arms that take part: the control first.
struct Sample<'a> {
    control: &'a Arm,
    treatments: Vec<&'a Arm>,
    refused: Vec<Refusal>,
}

pub(super) fn draft(scale: Scale, arms: &Arms, findings: &mut Findings) -> Result<Draft, Refusal> {
    let arms = &*adjusted(arms);
    let Some(control) = &arms.control else {
        return Err(Refusal::new(Reason::SchemaViolation, "needs a control beside its treatments"));
    };
    if arms.treatments.is_empty() {
        return Err(Refusal::new(Reason::NoTreatments, NO_TREATMENTS));
    }
    let mut sample = Sample { control, treatments: arms.treatments.iter().collect(), refused: Vec::new() };
    sample.keep(check_units)?;
    sample.keep(check_denominator)?;
    check_events(scale, &sample)?;
    let is_continuity_corrected = match scale {
        Scale::Absolute | Scale::Relative => false,
        Scale::LogRatio => sample.has_few_events(),
        Scale::LogOdds => sample.pool().is_some_and(|pool| pool.rarer_per_arm() < FEW_EVENTS),
    };
    match scale {
        Scale::LogRatio if !is_continuity_corrected => {
            check_control_of_logarithm(control)?;
            sample.keep(check_logarithm)?;
        }
        Scale::LogOdds if !is_continuity_corrected => sample.keep(check_odds)?,
        Scale::Absolute | Scale::Relative | Scale::LogRatio | Scale::LogOdds => {}
    }
    let points = match sample.pool() {
        Some(pool) => {
            findings.warnings.extend(rare_events(scale, &sample, &pool));
            counted_points(scale, &sample, &pool, is_continuity_corrected, findings)?
        }
        None => points(scale, &sample, findings)?,
    };
    findings.refused = sample.refused;
    let (control, treatments) = points.split_first().ok_or_else(|| first_of(Vec::new()))?;
    Ok(Draft {
        variants: sample.treatments.iter().map(|arm| arm.variant.clone()).collect(),
        effects: treatments.iter().map(|treatment| effect(scale, treatment.mean, control.mean)).collect(),
        raw_variances: treatments.iter().map(|treatment| raw_variance(scale, treatment, control)).collect(),
        covariance: Covariance::SharedControl {
            treatment_variances: treatments.iter().map(|treatment| treatment.part).collect(),
            control_variance: control.part,
        },
        is_continuity_corrected,
        control_variance_source: ControlVarianceSource::Arms,
    })
}

impl<'a> Sample<'a> {
    /// Refuses the treatments that do not pass.
    ///
    /// # Errors
    /// Where the control does not pass, or no treatment is left.
    fn keep(&mut self, check: fn(&Arm) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let control = check(self.control).err();
        let refused = &mut self.refused;
        self.treatments.retain(|arm| match check(arm) {
            Ok(()) => true,
            Err(refusal) => {
                refused.push(refusal);
                false
            }
        });
        if control.is_some() || self.treatments.is_empty() {
            return Err(first_of(control.into_iter().chain(std::mem::take(refused)).collect()));
        }
        Ok(())
    }

    fn arms(&self) -> impl Iterator<Item = &'a Arm> + Clone {
        std::iter::once(self.control).chain(self.treatments.iter().copied())
    }

    /// The pool of arms that were all sent as successes.
    fn pool(&self) -> Option<Pool> {
        let counts = || self.arms().map(|arm| count(&arm.statistics));
        counts().all(|count| count.is_some()).then(|| Pool::of(counts().flatten()))
    }

    /// Whether log ratios are taken with half an event more in each arm.
    fn has_few_events(&self) -> bool {
        self.pool().is_some_and(|pool| pool.has_events() && pool.events_per_arm() < FEW_EVENTS)
    }

    /// The scale to advise instead of `relative`: `log_ratio` where it takes the control and all treatments.
    fn instead_of_relative(&self) -> &'static str {
        let has_logarithms =
            || check_control_of_logarithm(self.control).is_ok() && self.arms().all(|arm| check_logarithm(arm).is_ok());
        let instead = if self.has_few_events() || has_logarithms() { Scale::LogRatio } else { Scale::Absolute };
        instead.as_str()
    }
}

fn count(statistics: &ArmStatistics) -> Option<Count> {
    match *statistics {
        ArmStatistics::Successes { n, successes } => Some(Count { n, successes }),
        ArmStatistics::Moments { .. }
        | ArmStatistics::Summary { .. }
        | ArmStatistics::Ratio(_)
        | ArmStatistics::Covariate(_) => None,
    }
}

/// Refuses a scale that needs events, where there are none, or other arms than those of successes.
fn check_events(scale: Scale, sample: &Sample<'_>) -> Result<(), Refusal> {
    if scale == Scale::LogOdds
        && let Some(arm) = sample.arms().find(|arm| arm.statistics.successes().is_none())
    {
        return Err(no_successes(arm));
    }
    let Some(pool) = sample.pool() else { return Ok(()) };
    let (reason, what) = match scale {
        Scale::Absolute => return Ok(()),
        Scale::Relative if !pool.has_events() => (Reason::ControlMeanNearZero, "has no events in any arm"),
        Scale::LogRatio | Scale::LogOdds if !pool.has_events() => (Reason::NonPositiveMean, "has no events in any arm"),
        Scale::LogOdds if pool.rarer_per_arm() == 0.0 => {
            (Reason::NonPositiveMean, "has no unit without an event in any arm")
        }
        Scale::Relative | Scale::LogRatio | Scale::LogOdds => return Ok(()),
    };
    Err(Refusal::new(reason, format!("{what}, so that there is no ratio: use scale absolute")))
}

/// The refusal of an arm on `log_odds` whose units may count other than 1 and 0.
pub(in crate::event) fn no_successes(arm: &Arm) -> Refusal {
    let what =
        "has no odds, because it is not sent as successes: send n and successes, or effects, or use another scale";
    Refusal::of_variant(Reason::SchemaViolation, &arm.variant, what)
}

fn check_units(arm: &Arm) -> Result<(), Refusal> {
    let refuse = |reason, what| Err(Refusal::of_variant(reason, &arm.variant, what));
    if arm.statistics.n().is_some_and(|n| n < 2) {
        return refuse(Reason::SampleTooSmall, "has fewer than 2 units, a variance needs 2");
    }
    if !arm.statistics.has_spread() {
        return refuse(Reason::NonPositiveVariance, "has no variance above 0, so that its error is unknown");
    }
    Ok(())
}

/// A ratio of two means is near to normal only where the one below is far from 0.
fn check_denominator(arm: &Arm) -> Result<(), Refusal> {
    let ArmStatistics::Ratio(moments) = &arm.statistics else { return Ok(()) };
    let PairedMoments { n, second_mean, second_m2, .. } = *moments;
    let standard_error = (second_m2 / n.saturating_sub(1) as f64 / n as f64).sqrt();
    if second_mean > 0.0 && standard_error <= MOST_CONTROL_VARIATION * second_mean * (1.0 + LIMIT_TOLERANCE) {
        return Ok(());
    }
    let what = "has a denominator whose mean is not above 0 by 5 of its standard errors, so that there is no ratio";
    Err(Refusal::of_variant(Reason::NonPositiveMean, &arm.variant, what))
}

fn check_odds(arm: &Arm) -> Result<(), Refusal> {
    let what = match count(&arm.statistics) {
        Some(Count { successes: 0, .. }) => "has no events",
        Some(Count { n, successes }) if successes == n => "has no unit without an event",
        _ => return Ok(()),
    };
    let what = format!("{what}, so that there are no log odds: use scale absolute");
    Err(Refusal::of_variant(Reason::NonPositiveMean, &arm.variant, &what))
}

fn check_control_of_logarithm(control: &Arm) -> Result<(), Refusal> {
    let (mean, variance) = control.statistics.mean_and_variance();
    if count(&control.statistics).is_none()
        && mean.abs() * (1.0 + LIMIT_TOLERANCE) < LOG_RATIO_CONTROL_Z * variance.sqrt()
    {
        let what = "is the control, and its mean is within 1 standard error of 0: use scale absolute";
        return Err(Refusal::of_variant(Reason::ControlMeanNearZero, &control.variant, what));
    }
    Ok(())
}

fn check_logarithm(arm: &Arm) -> Result<(), Refusal> {
    if arm.statistics.mean_and_variance().0 > 0.0 {
        return Ok(());
    }
    let what = match count(&arm.statistics) {
        Some(_) => "has no events, so that there is no log ratio: use scale absolute",
        None => "has a mean of 0 or below, which has no logarithm: use scale absolute",
    };
    Err(Refusal::of_variant(Reason::NonPositiveMean, &arm.variant, what))
}

/// The arms on their scale, with variances of their own.
fn points(scale: Scale, sample: &Sample<'_>, findings: &mut Findings) -> Result<Vec<Point>, Refusal> {
    let (control_mean, control_variance) = sample.control.statistics.mean_and_variance();
    if scale == Scale::Relative {
        let variation = control_variance.sqrt() / control_mean_of_pool(sample).abs();
        findings.warnings.extend(judge_control(sample, variation)?);
    }
    let point = |arm: &Arm| {
        let (mean, variance) = arm.statistics.mean_and_variance();
        let unit = match scale {
            // Arms that are not of successes have no odds.
            Scale::Absolute | Scale::LogOdds => 1.0,
            Scale::Relative => control_mean,
            Scale::LogRatio => mean,
        };
        Point { mean, variance, part: variance / unit / unit }
    };
    Ok(sample.arms().map(point).collect())
}

/// The arms on their scale, all sent as successes.
fn counted_points(
    scale: Scale,
    sample: &Sample<'_>,
    pool: &Pool,
    is_continuity_corrected: bool,
    findings: &mut Findings,
) -> Result<Vec<Point>, Refusal> {
    let control = count(&sample.control.statistics).unwrap_or(Count { n: 0, successes: 0 });
    if scale == Scale::Relative {
        if control.successes == 0 {
            let what = format!("is the control and has no events: use scale {}", sample.instead_of_relative());
            return Err(Refusal::of_variant(Reason::ControlMeanNearZero, &sample.control.variant, &what));
        }
        findings.warnings.extend(judge_control(sample, pool.variation(control.n))?);
    }
    let shrunk_control = pool.shrunk(control);
    let point = |arm: &Arm| {
        let (mean, variance) = arm.statistics.mean_and_variance();
        let arm = count(&arm.statistics).unwrap_or(control);
        let rate = pool.shrunk(arm);
        match scale {
            Scale::Absolute => Point { mean, variance, part: variance },
            Scale::Relative => {
                let part = rate * (1.0 - rate) / arm.n as f64 / shrunk_control / shrunk_control;
                Point { mean, variance, part }
            }
            Scale::LogRatio if is_continuity_corrected => {
                let mean = (arm.successes as f64 + 0.5) / (arm.n as f64 + 0.5);
                let own = mean * variation(arm.smoothed_rate(), arm.n);
                Point { mean, variance: own * own, part: pool.variation(arm.n).powi(2) }
            }
            Scale::LogRatio => Point { mean, variance, part: variation(rate, arm.n).powi(2) },
            Scale::LogOdds => {
                let half = if is_continuity_corrected { 0.5 } else { 0.0 };
                let rate = if is_continuity_corrected { pool.rate() } else { rate };
                let (events, others) = (arm.successes as f64 + half, (arm.n - arm.successes) as f64 + half);
                let part = 1.0 / (arm.n as f64 * rate * (1.0 - rate));
                Point { mean: (events / others).ln(), variance: 1.0 / events + 1.0 / others, part }
            }
        }
    };
    Ok(sample.arms().map(point).collect())
}

fn judge_control(sample: &Sample<'_>, variation: f64) -> Result<Option<Warning>, Refusal> {
    check_control_variation(variation, || sample.instead_of_relative())
        .map_err(|refusal| Refusal { variant: Some(sample.control.variant.clone()), ..refusal })
}

/// The control's mean, shrunk to that of all arms by as much as they are alike, as successes are: judging the mean as it
/// was observed would select on its noise. 0 where it is 0, because there is no ratio then.
fn control_mean_of_pool(sample: &Sample<'_>) -> f64 {
    let arms: Vec<(f64, f64)> = sample.arms().map(|arm| arm.statistics.mean_and_variance()).collect();
    let Some(&(control_mean, _)) = arms.first().filter(|(mean, _)| *mean != 0.0) else { return 0.0 };
    let weights: f64 = arms.iter().map(|(_, variance)| 1.0 / variance).sum();
    let pooled = arms.iter().map(|(mean, variance)| mean / variance).sum::<f64>() / weights;
    let homogeneity: f64 = arms.iter().map(|(mean, variance)| (mean - pooled).powi(2) / variance).sum();
    pooled + spread(homogeneity, arms.len()) * (control_mean - pooled)
}

fn effect(scale: Scale, mean: f64, control: f64) -> f64 {
    match scale {
        Scale::Absolute | Scale::LogOdds => mean - control,
        Scale::Relative => (mean - control) / control.abs(),
        Scale::LogRatio => log_ratio(mean, control),
    }
}

/// `ln(mean / control)`, accurate also where the two are close.
fn log_ratio(mean: f64, control: f64) -> f64 {
    let relative = (mean - control) / control;
    if relative.abs() < 0.5 { relative.ln_1p() } else { (mean / control).ln() }
}

/// The delta method's variance of an effect, from the arms' own variances.
fn raw_variance(scale: Scale, treatment: &Point, control: &Point) -> f64 {
    let on = |point: &Point, unit: f64| point.variance / unit / unit;
    match scale {
        Scale::Absolute | Scale::LogOdds => treatment.variance + control.variance,
        Scale::Relative => {
            let ratio = treatment.mean / control.mean;
            on(treatment, control.mean) + ratio * ratio * on(control, control.mean)
        }
        Scale::LogRatio => on(treatment, treatment.mean) + on(control, control.mean),
    }
}

fn rare_events(scale: Scale, sample: &Sample<'_>, pool: &Pool) -> Option<Warning> {
    // Odds count the units without an event alike.
    let share = if scale == Scale::LogOdds { pool.rarer_per_arm() / pool.events_per_arm() } else { 1.0 };
    let expected = |arm: &Arm| pool.expected_events(arm.statistics.n().unwrap_or_default()) * share;
    let rarest = sample.arms().min_by(|a, b| expected(a).total_cmp(&expected(b)))?;
    (expected(rarest) < RARE_EVENTS).then(|| {
        let detail = format!(
            "variant {} is expected to have {:.1} events, fewer than 5: errors of so few are far from normal",
            quote(&rarest.variant),
            expected(rarest)
        );
        Warning::new(WarningCode::RareEvents, detail)
    })
}
