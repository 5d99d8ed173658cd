//! Where more than one reason applies, the one that is checked first is reported; the first of two results stands.

use shrinkd_core::{Reason, ReportedResult, Scale, decode};

use super::corpus::GOOD;
use super::{event, event_text, reason};

/// Each result violates the rule of its row and those of all rows below it, on the same scale and in the same form.
#[test]
fn the_first_reason_in_order_is_the_one_reported() {
    let effects = [
        (Reason::SchemaViolation, r#""scale":"percent","#, r#""variant":"","#, "1e400", "0"),
        (Reason::InvalidIdentifier, "", r#""variant":"","#, "1e400", "0"),
        (Reason::DuplicateVariant, "", r#""variant":"t","#, "1e400", "0"),
        (Reason::NonFinite, "", r#""variant":"u","#, "1e400", "0"),
        (Reason::NonPositiveVariance, "", r#""variant":"u","#, "1e9", "0"),
        (Reason::CovarianceRequired, "", r#""variant":"u","#, "1e9", "1"),
    ];
    for (expected, scale, variant, estimate, variance) in effects {
        let text = format!(
            r#"{{"metric":"m",{scale}"effects":[{{"variant":"t","estimate":0,"variance":1}},{{{variant}"estimate":{estimate},"variance":{variance}}}]}}"#
        );
        assert_eq!(reason(&text), expected, "{text}");
    }
    let arms = [
        (Reason::SampleTooSmall, r#""n":1,"sum":0,"sum_squares":3"#, r#""mean":0,"standard_error":0"#),
        (Reason::InconsistentSums, r#""n":2,"sum":4,"sum_squares":3"#, r#""mean":0,"standard_error":0"#),
        (Reason::NonPositiveVariance, r#""n":2,"sum":4,"sum_squares":9"#, r#""mean":0,"standard_error":0"#),
        (Reason::ControlMeanNearZero, r#""n":2,"sum":0,"sum_squares":9"#, r#""mean":0,"standard_error":1e-200"#),
        (Reason::NonPositiveMean, r#""n":2,"sum":4,"sum_squares":9"#, r#""mean":0,"standard_error":1e-200"#),
        (Reason::ImplausibleScale, r#""n":2,"sum":4,"sum_squares":9"#, r#""mean":1,"standard_error":1e-200"#),
    ];
    for (expected, control, treatment) in arms {
        let text = format!(
            r#"{{"metric":"m","scale":"log_ratio","control":{{"variant":"c",{control}}},"treatments":[{{"variant":"t",{treatment}}}]}}"#
        );
        assert_eq!(reason(&text), expected, "{text}");
    }
}

#[test]
fn an_unknown_version_is_named_whatever_else_has_changed() {
    for text in [
        r#"{"results":5,"schema_version":3}"#.to_owned(),
        GOOD.replace("\"schema_version\": 1", "\"a\": 1, \"a\": 2, \"schema_version\": 3").replace("exp-1", ""),
    ] {
        let refusal = decode(text.as_bytes()).unwrap_err();
        assert_eq!(refusal.reason, Reason::UnsupportedVersion, "{refusal}");
        assert!(refusal.detail.contains("version 3"), "{refusal}");
    }
}

#[test]
fn a_refusal_of_the_message_comes_before_those_of_its_results() {
    let text = GOOD.replace("exp-1", "").replace("\"conversion\"", "5");
    assert_eq!(decode(text.as_bytes()).unwrap_err().reason, Reason::InvalidIdentifier);
}

/// Which of the results, each an effect or a retraction of metric m, are taken.
fn taken(results: &[&str]) -> Vec<bool> {
    let results: Vec<String> = results
        .iter()
        .map(|key| match key.strip_prefix('-') {
            Some(key) => format!(r#"{{"metric":"m","status":"retracted"{key}}}"#),
            None => format!(r#"{{"metric":"m","effects":[{{"variant":"t","estimate":0,"variance":1}}]{key}}}"#),
        })
        .collect();
    let event = event(&event_text(&results.join(",")));
    let conflict = |result: &Result<ReportedResult, _>| match result {
        Ok(_) => true,
        Err(shrinkd_core::Refusal { reason, .. }) => {
            assert_eq!(*reason, Reason::RevisionConflict);
            false
        }
    };
    event.results.iter().map(conflict).collect()
}

#[test]
fn of_two_results_that_speak_of_one_block_the_first_stands() {
    let (s, relative) = (r#","segment":"s""#, r#","scale":"relative""#);
    let both = &format!("{s}{relative}");
    let retract = |key: &str| format!("-{key}");
    assert_eq!(taken(&["", "", ""]), [true, false, false]);
    assert_eq!(taken(&["", s, relative, both]), [true, true, true, true]);
    assert_eq!(taken(&[both, "-"]), [true, false]);
    assert_eq!(taken(&["-", both]), [true, false]);
    assert_eq!(taken(&[&retract(s), "", s, both]), [true, true, false, false]);
    assert_eq!(taken(&[&retract(relative), "", both]), [true, true, false]);
    assert_eq!(taken(&[s, &retract(relative), &retract(both)]), [true, true, false]);
    assert_eq!(taken(&[&retract(s), &retract(relative)]), [true, false]);
}

#[test]
fn a_refused_result_leaves_its_key_to_the_next() {
    let good = r#"{"metric":"m","effects":[{"variant":"t","estimate":0,"variance":1}]}"#;
    let event = event(&event_text(&format!("{}, {good}", good.replace(":1}", ":0}"))));
    assert_eq!(event.results[0].as_ref().unwrap_err().reason, Reason::NonPositiveVariance);
    assert!(event.results[1].is_ok());
}

#[test]
fn what_is_not_said_has_a_default_and_what_is_said_is_kept() {
    let event = event(GOOD);
    assert_eq!((event.experiment_id.as_str(), event.revision), ("exp-1", 7));
    assert_eq!(event.completed_at.unix_timestamp(), 1_793_534_400);
    assert_eq!(event.event_id.as_deref(), Some("m-1"));
    assert_eq!(event.labels.get("team").map(String::as_str), Some("search"));
    assert_eq!(event.decision.as_deref(), Some("shipped"));
    let text = event_text(
        r#"{"metric":"m","effects":[{"variant":"t","estimate":0,"variance":1}]},{"metric":"r","status":"retracted"}"#,
    );
    let event = super::event(&text);
    match event.results.as_slice() {
        [
            Ok(ReportedResult::Whole { key, .. }),
            Ok(ReportedResult::Retraction { metric, segment: None, scale: None }),
        ] => {
            assert_eq!((key.segment.as_str(), key.scale, metric.as_str()), ("all", Scale::Absolute, "r"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_revision_is_read_exactly_however_it_is_written() {
    for (text, revision) in [
        ("9007199254740993.0", 9_007_199_254_740_993),
        ("9223372036854775807", 9_223_372_036_854_775_807),
        ("922337203685477580700e-2", 9_223_372_036_854_775_807),
        ("1.5e1", 15),
        ("0.00e-9", 0),
        ("12E+2", 1_200),
    ] {
        assert_eq!(event(&GOOD.replace("\"revision\": 7", &format!("\"revision\": {text}"))).revision, revision);
    }
}

#[test]
fn a_day_beyond_its_months_end_runs_on_into_the_next_month() {
    let at = |day: &str| event(&GOOD.replace("2026-11-01", day)).completed_at;
    assert_eq!(at("2020-02-30"), at("2020-03-01"));
    assert_eq!(at("2021-02-31"), at("2021-03-03"));
    assert_eq!(at("2021-04-31"), at("2021-05-01"));
}
