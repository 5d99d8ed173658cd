//! Values that many exports write otherwise than the contract: taken where they are unambiguous, else refused with what to send.

use shrinkd_core::{Message, Reason, Refusal, decode};
use time::OffsetDateTime;

const RESULTS: &str = r#"[{"metric": "m", "effects": [{"variant": "t", "estimate": 0.1, "variance": 0.01}]}]"#;

fn with(field: &str, value: &str) -> Result<Message, Refusal> {
    let fields = [
        ("schema_version", "1"),
        ("experiment_id", r#""e1""#),
        ("revision", "1"),
        ("completed_at", r#""2026-01-01T00:00:00Z""#),
        ("results", RESULTS),
    ];
    let others = fields.iter().filter(|(name, _)| *name != field).map(|(name, value)| format!(r#""{name}": {value}"#));
    let own = (!value.is_empty()).then(|| format!(r#""{field}": {value}"#));
    let fields: Vec<String> = others.chain(own).collect();
    decode(format!("{{{}}}", fields.join(", ")).as_bytes())
}

#[track_caller]
fn completed_at(text: &str) -> OffsetDateTime {
    match with("completed_at", &format!("\"{text}\"")) {
        Ok(Message::Event(event)) => event.completed_at,
        other => panic!("{text} is not taken: {other:?}"),
    }
}

#[track_caller]
fn refused(field: &str, value: &str) -> String {
    match with(field, value) {
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::SchemaViolation, "{refusal}");
            refusal.detail
        }
        Ok(taken) => panic!("{value} is taken: {taken:?}"),
    }
}

#[test]
fn a_time_that_is_an_unambiguous_instant_is_taken_however_it_is_written() {
    let instant = completed_at("2026-01-01T00:00:00Z");
    for text in [
        "2026-01-01 00:00:00Z",
        "2026-01-01 00:00:00+00",
        "2026-01-01 00:00:00+0000",
        "2026-01-01 00:00:00+00:00",
        "2026-01-01 00:00:00 UTC",
        "2026-01-01T00:00:00.000UTC",
        "2026-01-01t00:00:00z",
        "2026-01-01 02:00:00.000000+02",
        "2025-12-31 18:30:00 -0530",
    ] {
        assert_eq!(completed_at(text), instant, "{text}");
    }
    assert_eq!(completed_at("2026-02-30 00:00:00+00"), completed_at("2026-03-02T00:00:00Z"));
}

#[test]
fn a_time_that_is_no_instant_is_refused_with_the_time_to_send() {
    for (value, advice) in [
        (r#""2026-01-01""#, r#"send "2026-01-01T00:00:00Z""#),
        (r#""2026-01-01T00:00:00""#, r#"if it is in UTC, send "2026-01-01T00:00:00Z""#),
        (r#""2026-01-01 00:00:00.5""#, r#"if it is in UTC, send "2026-01-01T00:00:00.5Z""#),
        ("1767225600", r#"if these are seconds since 1970, send "2026-01-01T00:00:00Z""#),
        (r#""1767225600""#, r#"if these are seconds since 1970, send "2026-01-01T00:00:00Z""#),
        ("1767225600000", r#"if these are milliseconds since 1970, send "2026-01-01T00:00:00Z""#),
        ("1767225600000000", r#"if these are microseconds since 1970, send "2026-01-01T00:00:00Z""#),
        ("1.7672256e9", r#"if these are seconds since 1970, send "2026-01-01T00:00:00Z""#),
        ("5", r#"must be an RFC 3339 time such as "2026-11-01T12:00:00Z""#),
        (r#""yesterday""#, r#"must be an RFC 3339 time such as "2026-11-01T12:00:00Z", found "yesterday""#),
        (r#""2026-13-01""#, r#"must be an RFC 3339 time such as "2026-11-01T12:00:00Z""#),
        (r#""2026-01-01T00:00:00+1""#, r#"must be an RFC 3339 time such as "2026-11-01T12:00:00Z""#),
        (r#""2026-01-01T00:00:00 CET""#, r#"must be an RFC 3339 time such as "2026-11-01T12:00:00Z""#),
        (r#""\u65e5\u672c\u8a9e\u65e5\u672c\u8a9e\u65e5\u672c\u8a9e\u65e5\u672c""#, "must be an RFC 3339 time"),
    ] {
        let detail = refused("completed_at", value);
        assert!(detail.starts_with("$.completed_at ") && detail.contains(advice), "{value}: {detail}");
    }
}

#[test]
fn what_is_missing_or_of_another_type_is_refused_with_what_to_send() {
    assert_eq!(
        refused("revision", ""),
        "$.revision is required and is missing or null, send 1 if results are never corrected"
    );
    assert_eq!(
        refused("revision", r#""7""#),
        r#"$.revision must be a number, found the string "7": send 7 without quotes"#
    );
    assert_eq!(refused("experiment_id", "123"), r#"$.experiment_id must be a string, found a number: send "123""#);
    let id = "9".repeat(1_000);
    assert_eq!(refused("experiment_id", &id), "$.experiment_id must be a string, found a number: put it in quotes");
}

#[test]
fn a_misspelt_field_is_named_where_it_is_missed() {
    let text = format!(r#"{{"schema_version": 1, "experimentId": "e1", "revision": 1, "results": {RESULTS}}}"#);
    let refusal = decode(text.as_bytes()).expect_err("no experiment");
    assert_eq!(refusal.detail, r#"$.experiment_id is required and is missing or null; is it "experimentId"?"#);
    let results = r#"[{"Metric": "m", "effects": [{"variant": "t", "estimate": 0.1, "variance": 0.01}]}]"#;
    let Ok(Message::Event(event)) = with("results", results) else { panic!("an event") };
    let refusal = event.results[0].clone().expect_err("no metric");
    assert!(refusal.detail.contains(r#"missing or null (experiment "e1"); is it "Metric"?"#), "{refusal}");
}

#[test]
fn a_number_in_quotes_refuses_its_variant_and_says_so() {
    let results = r#"[{"metric": "m", "effects": [{"variant": "t", "estimate": "0.1", "variance": 0.01}]}]"#;
    let Ok(Message::Event(event)) = with("results", results) else { panic!("an event") };
    let refusal = event.results[0].clone().expect_err("a string");
    let advice = r#"effects[0].estimate must be a number, found the string "0.1": send 0.1 without quotes"#;
    assert!(refusal.detail.contains(advice), "{refusal}");
}

#[test]
fn nan_is_refused_with_what_to_send() {
    let results = r#"[{"metric": "m", "effects": [{"variant": "t", "estimate": NaN, "variance": 0.01}]}]"#;
    let refusal = with("results", results).expect_err("no JSON");
    assert_eq!(refusal.reason, Reason::MalformedJson);
    assert!(refusal.detail.contains("send null instead"), "{refusal}");
}
