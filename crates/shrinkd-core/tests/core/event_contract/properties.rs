//! What events say beside what was measured: direction, coverage, what was shipped, holdouts.

use shrinkd_core::{Event, ExperimentKind, Message, Properties, Reason, Refusal, ReportedResult, decode};
use shrinkd_model::Direction;

use super::{refusal, result};

fn properties(fields: &str) -> Properties {
    let text =
        format!(r#"{{"metric": "m", {fields} "effects": [{{"variant": "t", "estimate": 0.1, "variance": 0.01}}]}}"#);
    match result(&text) {
        Ok(ReportedResult::Whole { properties, .. }) => properties,
        other => panic!("{text} is not taken: {other:?}"),
    }
}

fn message(version: u64, fields: &str) -> Result<Event, Refusal> {
    let text = format!(
        r#"{{"schema_version": {version}, "experiment_id": "e1", "revision": 1, {fields}
            "completed_at": "2026-01-15T00:00:00Z", "results": []}}"#
    );
    decode(text.as_bytes()).map(|message| match message {
        Message::Event(event) => event,
        Message::Tombstone { .. } => panic!("{text} is a tombstone"),
    })
}

#[test]
fn direction_and_coverage_are_read_and_may_be_left_out() {
    assert_eq!(properties(""), Properties { direction: None, coverage: None });
    let sent = properties(r#""direction": "decrease", "coverage": 0.25,"#);
    assert_eq!(sent, Properties { direction: Some(Direction::Decrease), coverage: Some(0.25) });
    assert_eq!(properties(r#""direction": "increase", "coverage": 1,"#).coverage, Some(1.0));
}

#[test]
fn a_direction_or_a_coverage_that_is_none_refuses_its_result() {
    for (fields, detail) in [
        (r#""direction": "down","#, r#"direction must be increase or decrease, found "down""#),
        (r#""coverage": 0,"#, "coverage must be a share above 0 and at most 1, found 0"),
        (r#""coverage": -0.5,"#, "coverage must be a share above 0 and at most 1, found -0.5"),
        (r#""coverage": 25,"#, "coverage must be a share above 0 and at most 1, found 25: send 0.25 for 25%"),
        (r#""coverage": "0.5","#, r#"coverage must be a number, found the string "0.5": send 0.5 without quotes"#),
    ] {
        let refusal = refusal(&format!(
            r#"{{"metric": "m", {fields} "effects": [{{"variant": "t", "estimate": 0.1, "variance": 0.01}}]}}"#
        ));
        assert_eq!(refusal.reason, Reason::SchemaViolation);
        assert!(refusal.detail.contains(detail), "{refusal}");
    }
}

#[test]
fn what_was_shipped_and_when_it_was_started_are_read() {
    let event = message(1, r#""started_at": "2026-01-01 00:00:00+00", "shipped_variant": "B","#).expect("valid");
    assert_eq!(event.shipped_variant.as_deref(), Some("B"));
    assert_eq!(event.completed_at - event.started_at.expect("a time"), time::Duration::days(14));
    let late = message(1, r#""started_at": "2026-02-01T00:00:00Z","#).expect_err("after it was completed");
    assert!(late.detail.contains("after completed_at"), "{late}");
    assert_eq!(message(1, r#""shipped_variant": "","#).expect_err("empty").reason, Reason::InvalidIdentifier);
}

#[test]
fn kind_needs_the_version_that_has_it_so_that_no_older_worker_counts_a_holdout() {
    assert_eq!(message(2, r#""kind": "holdout","#).expect("valid").kind, ExperimentKind::Holdout);
    assert_eq!(message(2, r#""kind": "experiment","#).expect("valid").kind, ExperimentKind::Experiment);
    assert_eq!(message(2, "").expect("valid").kind, ExperimentKind::Experiment);
    assert_eq!(message(1, "").expect("valid").kind, ExperimentKind::Experiment);
    for kind in ["holdout", "experiment"] {
        let refusal = message(1, &format!(r#""kind": "{kind}","#)).expect_err("version 1");
        assert!(refusal.detail.starts_with("$.kind needs \"schema_version\": 2"), "{refusal}");
    }
    let unknown = message(2, r#""kind": "survey","#).expect_err("unknown");
    assert_eq!(unknown.detail, r#"$.kind must be experiment or holdout, found "survey""#);
    assert_eq!(message(3, "").expect_err("unknown").reason, Reason::UnsupportedVersion);
}
