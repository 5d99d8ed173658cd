//! What the event contract promises to those who send events and to those who read them.

mod accumulation;
mod adjusted;
mod advice;
mod advice_on_values;
mod corpus;
mod effect_forms;
mod hostile;
mod keyed;
mod odds;
mod order;
mod properties;
mod rare_events;
mod ratios;
mod real_data;
mod refusals;
mod scales;
mod schema;
mod unknown_fields;

use shrinkd_core::{Event, Measured, Message, Reason, Refusal, ReportedResult, decode};
use shrinkd_model::Covariance;

/// An event around results that are given as JSON text.
fn event_text(results: &str) -> String {
    format!(
        r#"{{"schema_version": 1, "experiment_id": "exp-1", "revision": 7, "event_id": "message-1",
            "completed_at": "2026-11-01T12:00:00Z", "results": [{results}]}}"#
    )
}

#[track_caller]
fn event(text: &str) -> Event {
    match decode(text.as_bytes()) {
        Ok(Message::Event(event)) => event,
        other => panic!("{text} is not an event: {other:?}"),
    }
}

/// What becomes of a result that is sent alone.
#[track_caller]
fn result(text: &str) -> Result<ReportedResult, Refusal> {
    let mut event = event(&event_text(text));
    assert_eq!(event.results.len(), 1);
    event.results.remove(0)
}

#[track_caller]
fn measured(text: &str) -> Measured {
    match result(text) {
        Ok(ReportedResult::Whole { measured, .. }) => measured,
        other => panic!("{text} is not measured: {other:?}"),
    }
}

#[track_caller]
fn refusal(text: &str) -> Refusal {
    match result(text) {
        Err(refusal) => refusal,
        Ok(result) => panic!("{text} is taken: {result:?}"),
    }
}

#[track_caller]
fn reason(text: &str) -> Reason {
    refusal(text).reason
}

/// d and c of a block with a shared control.
#[track_caller]
fn parts(measured: &Measured) -> (Vec<f64>, f64) {
    match measured.block.covariance() {
        Covariance::SharedControl { treatment_variances, control_variance } => {
            (treatment_variances.clone(), *control_variance)
        }
        Covariance::Dense { .. } => panic!("{measured:?} is dense"),
    }
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} is not {expected}");
}
