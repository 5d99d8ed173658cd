//! Arms to the numbers of a block.

use shrinkd_model::Covariance;

use super::pool::{Count, Pool, spread, variation};
use super::{Draft, Findings, LIMIT_TOLERANCE, NO_TREATMENTS, check_control_variation, first_of};
use crate::event::refusal::{Reason, Refusal, quote};
use crate::event::warning::{Warning, WarningCode};
use crate::event::{Arm, ArmStatistics, Arms, Scale};

/// How many of its standard errors the control's mean must be from 0 on `log_ratio`, where means are positive and the
/// logarithm is closer to normal than the ratio.
const LOG_RATIO_CONTROL_Z: f64 = 1.0;

/// Events per arm below which log ratios are taken of `(s + 1/2) / (n + 1/2)`: there the logarithm of a rate is biased by
/// its skewness, and correcting only the arms without events would be biased the other way.
const FEW_EVENTS: f64 = 40.0;

/// The expected events of an arm below which its error is far from normal.
const RARE_EVENTS: f64 = 5.0;

/// An arm on a scale.
struct Point {
    mean: f64,
    /// Its sampling variance, in the metric's unit squared: what platforms show.
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
    let Some(control) = &arms.control else {
        return Err(Refusal::new(Reason::SchemaViolation, "needs a control beside its treatments"));
    };
    if arms.treatments.is_empty() {
        return Err(Refusal::new(Reason::NoTreatments, NO_TREATMENTS));
    }
    let mut sample = Sample { control, treatments: arms.treatments.iter().collect(), refused: Vec::new() };
    sample.keep(check_units)?;
    if scale != Scale::Absolute && sample.pool().is_some_and(|pool| !pool.has_events()) {
        let reason = if scale == Scale::Relative { Reason::ControlMeanNearZero } else { Reason::NonPositiveMean };
        return Err(Refusal::new(reason, "has no events in any arm, so that there is no ratio: use scale absolute"));
    }
    let is_continuity_corrected = scale == Scale::LogRatio && sample.has_few_events();
    if scale == Scale::LogRatio && !is_continuity_corrected {
        check_control_of_logarithm(control)?;
        sample.keep(check_logarithm)?;
    }
    let points = match sample.pool() {
        Some(pool) => {
            findings.warnings.extend(rare_events(&sample, &pool));
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

    fn arms(&self) -> impl Iterator<Item = &'a Arm> {
        std::iter::once(self.control).chain(self.treatments.iter().copied())
    }

    /// The pool of arms that were all sent as successes.
    fn pool(&self) -> Option<Pool> {
        let counts: Option<Vec<Count>> = self.arms().map(|arm| count(&arm.statistics)).collect();
        counts.map(|counts| Pool::of(&counts))
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
        ArmStatistics::Moments { .. } | ArmStatistics::Summary { .. } => None,
    }
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
            Scale::Absolute => 1.0,
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
    let homogeneity: f64 = arms.iter().map(|(mean, variance)| (mean - pooled) * (mean - pooled) / variance).sum();
    pooled + spread(homogeneity, arms.len()) * (control_mean - pooled)
}

fn effect(scale: Scale, mean: f64, control: f64) -> f64 {
    match scale {
        Scale::Absolute => mean - control,
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
        Scale::Absolute => treatment.variance + control.variance,
        Scale::Relative => {
            let ratio = treatment.mean / control.mean;
            on(treatment, control.mean) + ratio * ratio * on(control, control.mean)
        }
        Scale::LogRatio => on(treatment, treatment.mean) + on(control, control.mean),
    }
}

fn rare_events(sample: &Sample<'_>, pool: &Pool) -> Option<Warning> {
    let expected = |arm: &Arm| pool.expected_events(arm.statistics.n().unwrap_or_default());
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
