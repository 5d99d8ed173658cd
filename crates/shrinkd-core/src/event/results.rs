//! The results of a message: each is read on its own, then two results for one block are refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use super::arms::read_arms;
use super::effects::read_effects;
use super::lenient::Lenient;
use super::measure::{Findings, examine, no_successes};
use super::refusal::{Path, Reason, Refusal, Refusals};
use super::unknown::{Part, UnknownFields};
use super::wire;
use super::{ArmStatistics, Arms, Measurement, Properties, ReportedResult, ResultKey, Scale};

pub(super) fn read_results(
    results: &[&RawValue],
    experiment_id: &str,
    has_event_id: bool,
    unknown: &mut UnknownFields,
) -> Vec<Result<ReportedResult, Refusal>> {
    let at = Path::Root.field("results");
    let mut read: Vec<_> = results
        .iter()
        .enumerate()
        .map(|(i, raw)| {
            read_result(raw.get(), experiment_id, at.item(i), has_event_id, unknown)
                .map_err(|refusal| unknown.explain(refusal))
        })
        .collect();
    refuse_overlaps(&mut read, experiment_id, at);
    read
}

/// Reads one result, whose text is known to be JSON.
///
/// # Errors
/// The first reason that applies, in the order of [`Reason`].
fn read_result(
    text: &str,
    experiment_id: &str,
    at: Path<'_>,
    has_event_id: bool,
    unknown: &mut UnknownFields,
) -> Result<ReportedResult, Refusal> {
    let unnamed = |refusal: Refusal| refusal.at(at).named(experiment_id, "");
    let parsed: Lenient<Box<wire::Reported<'_>>> =
        serde_json::from_str(text).map_err(|error| unnamed(Refusal::violation(format!("cannot be read: {error}"))))?;
    parsed.note_unknown(at, unknown);
    let result = parsed.shape().map_err(unnamed)?;
    let mut refusals = Refusals::default();
    refusals.note_repeated_key(at, result.repeated());
    let metric = refusals.required(at.field("metric"), result.metric.as_ref()).unwrap_or_default().into_owned();
    let named = |refusal: Refusal| refusal.named(experiment_id, &metric);
    let segment = refusals.optional(at.field("segment"), result.segment.as_ref()).map(Cow::into_owned);
    let scale = refusals.optional(at.field("scale"), result.scale.as_ref());
    if refusals.optional(at.field("status"), result.status.as_ref()) == Some(true) {
        refusals.into_result().map_err(named)?;
        return Ok(ReportedResult::Retraction { metric, segment, scale });
    }
    let segment = segment.unwrap_or_else(|| "all".to_owned());
    let scale = scale.unwrap_or(Scale::Absolute);
    let accumulate = refusals.optional(at.field("accumulate"), result.accumulate.as_ref()) == Some(true);
    let properties = Properties {
        direction: refusals.optional(at.field("direction"), result.direction.as_ref()),
        coverage: refusals.optional(at.field("coverage"), result.coverage.as_ref()),
    };
    let (measurement, faults) = read_measurement(result, at, &mut refusals);
    if accumulate {
        faults.into_iter().for_each(|fault| refusals.join(fault));
        let arms =
            check_part(scale, measurement, has_event_id).map_err(|refusal| named(refusals.first_of(at, refusal)))?;
        refusals.into_result().map_err(named)?;
        return Ok(ReportedResult::Part { key: ResultKey { metric, segment, scale }, arms, properties });
    }
    let examined = examine(scale, &measurement);
    if examined.is_err() || refusals.reason().is_some() {
        faults.iter().for_each(|fault| refusals.join(fault.clone()));
    }
    let (measured, Findings { refused, warnings }) =
        examined.map_err(|refusal| named(refusals.first_of(at, refusal)))?;
    if refusals.reason().is_some() {
        refused.iter().for_each(|refusal| refusals.note(at, refusal.clone()));
    }
    refusals.into_result().map_err(named)?;
    let refused = refused.into_iter().map(|refusal| refusal.at(at));
    let findings = Findings {
        refused: faults.into_iter().chain(refused).map(named).collect(),
        warnings: warnings.into_iter().map(|warning| warning.named(experiment_id, &metric)).collect(),
    };
    let key = ResultKey { metric, segment, scale };
    Ok(ReportedResult::Whole { key, measurement, measured, properties, findings })
}

/// What was measured, and the faults of the variants that were left out of it.
fn read_measurement(
    result: Box<wire::Reported<'_>>,
    at: Path<'_>,
    refusals: &mut Refusals,
) -> (Measurement, Vec<Refusal>) {
    let is_effect_form = result.effects.is_some()
        || result.covariance.is_some()
        || result.control_variance.is_some()
        || result.variance_form.is_some();
    if !is_effect_form {
        if result.control.is_none() && result.treatments.is_none() {
            refusals.note(at, Refusal::violation("must hold control and treatments, or effects, or status retracted"));
        }
        let (arms, faults) = read_arms(result.control, result.treatments, at, refusals);
        return (Measurement::Arms(arms), faults);
    }
    if result.treatments.is_some() {
        refusals.note(at, Refusal::violation("must hold control and treatments or effects, not both"));
    }
    let (effects, faults) = read_effects(result, at, refusals);
    (Measurement::Effects(effects), faults)
}

/// Checks one part of an accumulating result; whether an estimate is possible is checked for the sum of the parts.
fn check_part(scale: Scale, measurement: Measurement, has_event_id: bool) -> Result<Arms, Refusal> {
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
        if scale == Scale::LogOdds && arm.statistics.successes().is_none() {
            return Err(no_successes(arm));
        }
        match arm.statistics {
            ArmStatistics::Summary { .. } => {
                return not_accumulable("arms with standard_error cannot be added up, send n with mean and variance");
            }
            ArmStatistics::Moments { m2, .. } if m2 < 0.0 => {
                return Err(Refusal::of_variant(Reason::NonPositiveVariance, &arm.variant, "has a variance below 0"));
            }
            ArmStatistics::Moments { .. }
            | ArmStatistics::Successes { .. }
            | ArmStatistics::Ratio(_)
            | ArmStatistics::Covariate(_) => {}
        }
    }
    Ok(arms)
}

/// Of two results for the same block the second is refused, for what is checked first; a refused result claims no block.
fn refuse_overlaps(results: &mut [Result<ReportedResult, Refusal>], experiment_id: &str, at: Path<'_>) {
    if results.len() < 2 {
        return;
    }
    let mut claims = Claims::default();
    let overlaps: Vec<bool> =
        results.iter().map(|result| result.as_ref().is_ok_and(|result| !claims.take(result))).collect();
    for (index, result) in results.iter_mut().enumerate().filter(|(index, _)| overlaps.get(*index) == Some(&true)) {
        let detail = "an earlier result of this message has the same metric, segment and scale, keep one";
        let overlap = Refusal::new(Reason::RevisionConflict, detail).at(at.item(index));
        let (metric, faults) = match result {
            Ok(ReportedResult::Whole { key, findings, .. }) => (&key.metric, std::mem::take(&mut findings.refused)),
            Ok(ReportedResult::Part { key, .. }) => (&key.metric, Vec::new()),
            Ok(ReportedResult::Retraction { metric, .. }) => (&*metric, Vec::new()),
            Err(_) => continue,
        };
        let overlap = overlap.named(experiment_id, metric);
        *result =
            Err(faults.into_iter().chain([overlap.clone()]).min_by_key(|refusal| refusal.reason).unwrap_or(overlap));
    }
}

/// The blocks that the results of one event are about, by metric and scale.
#[derive(Default)]
struct Claims<'a>(BTreeMap<(&'a str, Scale), Segments<'a>>);

#[derive(Default)]
struct Segments<'a> {
    every: bool,
    named: BTreeSet<&'a str>,
}

impl<'a> Claims<'a> {
    /// Claims the blocks that a result is about; false, and nothing claimed, where one of them is taken.
    fn take(&mut self, result: &'a ReportedResult) -> bool {
        let (metric, segment, scale) = match result {
            ReportedResult::Whole { key, .. } | ReportedResult::Part { key, .. } => {
                (&key.metric, Some(&key.segment), Some(key.scale))
            }
            ReportedResult::Retraction { metric, segment, scale } => (metric, segment.as_ref(), *scale),
        };
        let scales = match &scale {
            Some(scale) => std::slice::from_ref(scale),
            None => &Scale::ALL,
        };
        let is_taken = |scale: &Scale| {
            self.0.get(&(metric.as_str(), *scale)).is_some_and(|taken| match segment {
                Some(segment) => taken.every || taken.named.contains(segment.as_str()),
                None => true,
            })
        };
        if scales.iter().any(is_taken) {
            return false;
        }
        for scale in scales {
            let claimed = self.0.entry((metric, *scale)).or_default();
            match segment {
                Some(segment) => _ = claimed.named.insert(segment),
                None => claimed.every = true,
            }
        }
        true
    }
}
