//! One result of a message: its key, its kind, and the reason where it is refused.

use std::borrow::Cow;

use super::arms::read_arms;
use super::effects::read_effects;
use super::faults::Faults;
use super::leaf::violation;
use super::lenient::Lenient;
use super::measure::measure;
use super::path::{Path, quote};
use super::wire;
use super::{ArmStatistics, Arms, Measurement, Reason, Refusal, ReportedResult, ResultKey, Scale};

/// Reads the text of one result, which is known to be JSON.
///
/// # Errors
/// The first reason that applies, in the order of [`Reason`].
pub(super) fn read_result(text: &str, at: Path<'_>, has_event_id: bool) -> Result<ReportedResult, Refusal> {
    let parsed: Lenient<wire::Reported<'_>> =
        serde_json::from_str(text).map_err(|error| violation(format!("cannot be read: {error}")).at(at))?;
    let result = parsed.shape().map_err(|refusal| refusal.at(at))?;
    let mut faults = Faults::default();
    faults.note_repeated_key(at, result.repeated.as_deref());
    let metric = faults.required(at.field("metric"), result.metric.as_ref()).unwrap_or_default().into_owned();
    let segment = faults.optional(at.field("segment"), result.segment.as_ref()).map(Cow::into_owned);
    let scale = faults.optional(at.field("scale"), result.scale.as_ref());
    if faults.optional(at.field("status"), result.status.as_ref()) == Some(true) {
        faults.into_result()?;
        return Ok(ReportedResult::Retraction { metric, segment, scale });
    }
    let key = ResultKey {
        metric,
        segment: segment.unwrap_or_else(|| "all".to_owned()),
        scale: scale.unwrap_or(Scale::Absolute),
    };
    let accumulate = faults.optional(at.field("accumulate"), result.accumulate.as_ref()) == Some(true);
    let measurement = read_measurement(result, at, &mut faults);
    if accumulate {
        let arms = check_part(measurement, has_event_id).map_err(|refusal| faults.first_of(at, refusal))?;
        faults.into_result()?;
        return Ok(ReportedResult::Part { key, arms });
    }
    let measured = measure(key.scale, &measurement).map_err(|refusal| faults.first_of(at, refusal))?;
    faults.into_result()?;
    Ok(ReportedResult::Whole { key, measurement, measured })
}

fn read_measurement(result: wire::Reported<'_>, at: Path<'_>, faults: &mut Faults) -> Measurement {
    let is_arm_form = result.control.is_some() || result.treatments.is_some();
    if result.effects.is_none() && result.covariance.is_none() && result.control_variance.is_none() {
        if !is_arm_form {
            faults.note(at, violation("must hold control and treatments, or effects, or status retracted"));
        }
        return Measurement::Arms(read_arms(result.control, result.treatments, at, faults));
    }
    if is_arm_form {
        faults.note(at, violation("must hold control and treatments or effects, not both"));
    }
    Measurement::Effects(read_effects(result.effects, result.control_variance, result.covariance, at, faults))
}

/// What one part of an accumulating result must be; the estimate is judged on the sum of the parts.
fn check_part(measurement: Measurement, has_event_id: bool) -> Result<Arms, Refusal> {
    let not_accumulable = |detail| Err(Refusal::new(Reason::NotAccumulable, detail));
    let Measurement::Arms(arms) = measurement else {
        return not_accumulable("effects cannot be added up, send arms with n or leave out accumulate");
    };
    if arms.control.is_none() && arms.treatments.is_empty() {
        return Err(Refusal::new(Reason::NoTreatments, "has neither control nor treatments, a part needs one of them"));
    }
    if !has_event_id {
        return not_accumulable("a part needs the event_id of its message, add one");
    }
    for arm in arms.control.iter().chain(&arms.treatments) {
        match arm.statistics {
            ArmStatistics::Summary { .. } => {
                return not_accumulable("arms with standard_error cannot be added up, send n with mean and variance");
            }
            ArmStatistics::Moments { m2, .. } if m2 < 0.0 => {
                let detail = format!("the variance of {} is below 0", quote(&arm.variant));
                return Err(Refusal::new(Reason::NonPositiveVariance, detail));
            }
            ArmStatistics::Moments { .. } => {}
        }
    }
    Ok(arms)
}
