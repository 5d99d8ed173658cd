//! The promises of the ledger.

mod order;
mod parts;
mod retractions;
mod revisions;
mod stored;

use std::collections::BTreeMap;

use shrinkd_core::{
    Applied, Arm, ArmStatistics, Arms, ControlVarianceSource, Effects, Event, ExperimentKind, ExperimentLedger,
    Findings, Measured, Measurement, Outcome, PairedMoments, Properties, Reason, Refusal, ReportedResult, ResultKey,
    Scale, Uncertainty, VarianceForm,
};
use shrinkd_model::Block;

type Reported = Result<ReportedResult, Refusal>;

fn key(metric: &str, segment: &str, scale: Scale) -> ResultKey {
    ResultKey { metric: metric.to_owned(), segment: segment.to_owned(), scale }
}

/// The key that most tests are about.
fn conversion() -> ResultKey {
    key("conversion", "all", Scale::Absolute)
}

fn event(revision: u64, results: impl IntoIterator<Item = Reported>) -> Event {
    Event {
        experiment_id: "exp-1".to_owned(),
        revision,
        completed_at: time::OffsetDateTime::UNIX_EPOCH,
        event_id: None,
        labels: BTreeMap::new(),
        decision: None,
        unknown_fields: Vec::new(),
        kind: ExperimentKind::Experiment,
        started_at: None,
        shipped_variant: None,
        results: results.into_iter().collect(),
    }
}

/// A whole result with one effect.
fn whole(key: ResultKey, estimate: f64) -> Reported {
    let variants = vec!["B".to_owned()];
    let uncertainty = Uncertainty::SharedControl { variances: vec![1.0], control_variance: 0.25 };
    let effects = Effects { variants: variants.clone(), estimates: vec![estimate], uncertainty };
    let block = Block::shared_control(vec![estimate], vec![0.75], 0.25).unwrap();
    Ok(ReportedResult::Whole {
        key,
        measurement: Measurement::Effects(effects),
        measured: Measured {
            variants,
            block,
            raw_variances: vec![1.0],
            is_continuity_corrected: false,
            control_variance_source: ControlVarianceSource::Arms,
        },
        properties: Properties::default(),
        findings: Findings::default(),
    })
}

fn retraction(metric: &str, segment: Option<&str>, scale: Option<Scale>) -> Reported {
    Ok(ReportedResult::Retraction { metric: metric.to_owned(), segment: segment.map(str::to_owned), scale })
}

fn retraction_of(key: &ResultKey) -> Reported {
    retraction(&key.metric, Some(&key.segment), Some(key.scale))
}

/// An event that brings one part.
fn part(revision: u64, event_id: &str, key: ResultKey, arms: Arms) -> Event {
    let event = event(revision, [Ok(ReportedResult::Part { key, arms, properties: Properties::default() })]);
    Event { event_id: Some(event_id.to_owned()), ..event }
}

fn arms(control: Option<Arm>, treatments: impl IntoIterator<Item = Arm>) -> Arms {
    Arms { control, treatments: treatments.into_iter().collect() }
}

/// An arm of these units.
fn arm(variant: &str, units: &[f64]) -> Arm {
    let mean = units.iter().sum::<f64>() / units.len() as f64;
    let m2 = units.iter().map(|x| (x - mean).powi(2)).sum();
    Arm { variant: variant.to_owned(), statistics: ArmStatistics::Moments { n: units.len() as u64, mean, m2 } }
}

/// Applies an event of one result.
fn apply(ledger: &mut ExperimentLedger, event: Event) -> Outcome {
    let Applied { outcomes, .. } = ledger.apply(event);
    let [outcome] = outcomes.try_into().expect("one outcome for one result");
    outcome
}

fn folded(events: impl IntoIterator<Item = Event>) -> ExperimentLedger {
    let mut ledger = ExperimentLedger::default();
    for event in events {
        ledger.apply(event);
    }
    ledger
}

/// The current blocks: key, revision, effects.
fn blocks(ledger: &ExperimentLedger) -> Vec<(ResultKey, u64, Vec<f64>)> {
    ledger
        .blocks()
        .map(|(key, revision, measured)| (key.clone(), revision, measured.block.effects().to_vec()))
        .collect()
}

fn refused_for(outcome: &Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Refused(refusal) => Some(refusal.reason),
        _ => None,
    }
}
