//! Fields that the contract does not have.

use shrinkd_core::{UnknownField, nearest_field};

use super::{event, event_text};

fn unknown(results: &str) -> Vec<UnknownField> {
    event(&event_text(results)).unknown_fields
}

fn pairs(fields: &[UnknownField]) -> Vec<(&str, &str)> {
    fields.iter().map(|field| (field.path.as_str(), field.name.as_str())).collect()
}

#[test]
fn unknown_fields_are_reported_by_path_and_name_wherever_they_stand_and_each_name_once() {
    let text = r#"{"schema_version": 1, "experiment_id": "exp-1", "revision": 7, "completed_at": "2026-11-01T12:00:00Z",
        "owner": {"segmnt": 1}, "labels": {"anything": "goes"}, "results": [
        {"metric": "m", "segmnt": "all", "control": {"variant": "c", "mean": 1, "standard_error": 1, "unit": 1},
         "treatments": [{"variant": "t", "mean": 1, "standard_error": 1},
                        {"variant": "u", "mean": 1, "standard_error": 1, "color": 1, "unit": 2}]},
        {"metric": "l", "effects": [{"variant": "t", "estimate": 1, "variance": 1, "p_value": 0.3}]}]}"#;
    let fields = event(text).unknown_fields;
    assert_eq!(
        pairs(&fields),
        [
            ("$.owner", "owner"),
            ("$.results[0].segmnt", "segmnt"),
            ("$.results[0].control.unit", "unit"),
            ("$.results[0].treatments[1].color", "color"),
            ("$.results[1].effects[0].p_value", "p_value"),
        ]
    );
}

#[test]
fn unknown_fields_of_a_refused_result_are_reported_too() {
    let fields = unknown(r#"{"metric": "m", "effects": [{"variant": "t", "estimate": 1, "varience": 1}]}"#);
    assert_eq!(pairs(&fields), [("$.results[0].effects[0].varience", "varience")]);
}

#[test]
fn unknown_fields_are_few_and_short_whatever_is_sent() {
    let many: String = (0..1_000).map(|i| format!(r#", "field{i}": 1"#)).collect();
    assert_eq!(unknown(&format!(r#"{{"metric": "m", "status": "retracted"{many}}}"#)).len(), 16);

    let long = format!(r#"{{"metric": "m", "status": "retracted", "{}\u0000": 1, "a\u0000b": 1}}"#, "x".repeat(10_000));
    let fields = unknown(&long);
    assert_eq!(fields.len(), 2);
    for UnknownField { path, name } in fields {
        assert!(path.len() < 100 && name.len() <= 60, "{path} {name}");
        assert!(!path.contains('\0') && !name.contains('\0'), "{path} {name}");
    }
}

#[test]
fn a_misspelt_name_is_near_the_field_that_was_meant() {
    for (name, meant) in [
        ("segmnt", "segment"),
        ("Segment", "segment"),
        ("experimentId", "experiment_id"),
        ("completed-at", "completed_at"),
        ("completd_at", "completed_at"),
        ("varience", "variance"),
        ("standard_eror", "standard_error"),
        ("treatment", "treatments"),
        ("controlVariance", "control_variance"),
        ("successses", "successes"),
        ("vairant", "variant"),
        ("N", "n"),
    ] {
        assert_eq!(nearest_field(name), Some(meant), "{name}");
    }
    for name in ["p_value", "owner", "m", "", "x_1", "hypothesis", "日本語"] {
        assert_eq!(nearest_field(name), None, "{name}");
    }
}

#[test]
fn an_unknown_field_says_what_was_probably_meant() {
    let says = |results| unknown(results).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        says(r#"{"metric": "m", "segmnt": "all", "owner": 1, "n": 1, "status": "retracted"}"#),
        [
            "$.results[0].n: ignored here, n is a field of an arm and an effect",
            "$.results[0].owner: not a field of the contract, ignored",
            "$.results[0].segmnt: did you mean segment?",
        ]
    );
}
