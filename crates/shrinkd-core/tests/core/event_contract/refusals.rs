//! What is refused, with which reason, and that a refused result does not affect the others.

use proptest::prelude::*;
use shrinkd_core::{Message, Reason, Refusal, ReportedResult, check_key, decode};

use super::corpus::{GOOD, GOOD_RESULTS, bad_messages, bad_results, good_messages};
use super::{event, event_text, reason, result};
use crate::hostile_input::properties::choices::SPLINTERS;

#[test]
fn bad_messages_are_refused_with_their_reason() {
    for bad in bad_messages() {
        match decode(&bad.bytes) {
            Err(refusal) => assert_eq!(refusal.reason.as_str(), bad.code, "{}: {refusal}", bad.name),
            Ok(message) => panic!("{} is taken: {message:?}", bad.name),
        }
    }
}

#[test]
fn a_bad_result_is_refused_alone_with_its_reason() {
    for bad in bad_results() {
        let event = event(std::str::from_utf8(&bad.bytes).unwrap());
        let [before, refused, after] = event.results.as_slice() else { panic!("{} lost a result", bad.name) };
        match refused {
            Err(refusal) => {
                assert_eq!(refusal.reason.as_str(), bad.code, "{}: {refusal}", bad.name);
                assert!(refusal.detail.starts_with("$.results[1]"), "{}: {refusal}", bad.name);
            }
            Ok(result) => panic!("{} is taken: {result:?}", bad.name),
        }
        assert!(before.is_ok() && after.is_ok(), "{} took its neighbours down", bad.name);
    }
}

#[test]
fn good_messages_are_taken_with_all_their_results() {
    for (name, text) in good_messages() {
        match decode(text.as_bytes()) {
            Ok(Message::Event(event)) => {
                for result in event.results {
                    assert!(result.is_ok(), "{name}: {result:?}");
                }
            }
            Ok(Message::Tombstone { .. }) => {}
            Err(refusal) => panic!("{name} is refused: {refusal}"),
        }
    }
}

#[test]
fn a_part_without_an_event_id_is_not_accumulable() {
    let part = r#"{"metric":"m","accumulate":true,"control":{"variant":"c","n":5,"successes":2}}"#;
    let text = event_text(part).replace(r#""event_id": "message-1","#, "");
    assert_eq!(event(&text).results[0].as_ref().unwrap_err().reason, Reason::NotAccumulable);
}

#[test]
fn a_refusal_says_where_it_stands_and_what_to_fix() {
    let arm = |variance: &str| {
        format!(
            r#"{{"metric":"m","control":{{"variant":"c","n":9,"mean":2,"variance":1}},
                "treatments":[{{"variant":"t","n":9,"mean":2,"variance":1}},{{"variant":"u","n":9,"mean":2,"variance":{variance}}}]}}"#
        )
    };
    let refused = |variance: &str| match result(&arm(variance)) {
        Ok(ReportedResult::Whole { findings, .. }) => findings.refused[0].to_string(),
        other => panic!("t is not taken: {other:?}"),
    };
    assert_eq!(
        refused("null"),
        "schema_violation: $.results[0].treatments[1].variance is required and is missing or null \
         (experiment \"exp-1\", metric \"m\", variant \"u\")"
    );
    assert_eq!(
        refused("\"1\""),
        "schema_violation: $.results[0].treatments[1].variance must be a number, found the string \"1\": send 1 without quotes \
         (experiment \"exp-1\", metric \"m\", variant \"u\")"
    );
    assert_eq!(
        refused("0"),
        "non_positive_variance: $.results[0]: variant \"u\" has no variance above 0, so that its error is unknown \
         (experiment \"exp-1\", metric \"m\")"
    );
    let version = GOOD.replace("\"schema_version\": 1", "\"schema_version\": 3");
    assert_eq!(
        decode(version.as_bytes()).unwrap_err().to_string(),
        "unsupported_version: $.schema_version version 3 is not supported, send version 1 or 2"
    );
    let labels = GOOD.replace(r#""tier": "1""#, r#""a \u0000 b": 1"#);
    assert_eq!(
        decode(labels.as_bytes()).unwrap_err().to_string(),
        r##"schema_violation: $.labels["a \0 b"] must be a string, found a number: send "1""##
    );
}

#[test]
fn the_key_must_be_the_experiment_id() {
    let tombstone = decode(br#"{"schema_version":1,"experiment_id":"exp-1","retracted":true}"#).unwrap();
    for message in [decode(GOOD.as_bytes()).unwrap(), tombstone] {
        assert_eq!(check_key(&message, Some(b"exp-1")), Ok(()));
        for key in [None, Some(b"exp-2".as_slice()), Some(b""), Some(b"exp-1\xff")] {
            assert_eq!(check_key(&message, key).unwrap_err().reason, Reason::KeyMismatch, "{key:?}");
        }
    }
}

#[test]
fn a_bad_number_costs_the_reason_of_the_number_even_in_a_message_full_of_them() {
    assert_eq!(
        reason(r#"{"metric":"m","effects":[{"variant":"t","estimate":1e400,"variance":1e-400}]}"#),
        Reason::NonFinite
    );
    assert_eq!(
        reason(r#"{"metric":"m","effects":[{"variant":"t","estimate":0,"variance":1e-400}]}"#),
        Reason::NonPositiveVariance
    );
}

/// What a message is broken with besides [`SPLINTERS`]: words of the contract, numbers, and empty things.
const WORDS: &[&[u8]] = &[
    b"-0",
    b"1e-400",
    b"5e-324",
    b"99999999999999999999",
    b"true",
    b"{}",
    b"[]",
    b"\"n\":",
    b"\"n\":1,",
    b"\"covariance\":[[1,0],[0,1]],",
    b"\"accumulate\":true,",
    b"\"status\":\"retracted\",",
    b"relative",
    b"log_ratio",
];

fn refusals_of(result: Result<ReportedResult, Refusal>) -> Vec<Refusal> {
    match result {
        Ok(ReportedResult::Whole { findings, .. }) => findings.refused,
        Ok(ReportedResult::Part { .. } | ReportedResult::Retraction { .. }) => Vec::new(),
        Err(refusal) => vec![refusal],
    }
}

fn broken_message() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0..8_usize, prop::sample::select([SPLINTERS, WORDS].concat()));
    let base = prop::sample::select((0..GOOD_RESULTS.len() + 1).collect::<Vec<_>>());
    (base, prop::collection::vec(edit, 1..6)).prop_map(|(base, edits)| {
        let text = GOOD_RESULTS.get(base).map_or(GOOD.to_owned(), |(_, result)| event_text(result));
        let mut bytes = text.into_bytes();
        for (at, removed, inserted) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, inserted.iter().copied());
        }
        bytes
    })
}

#[test]
fn a_second_result_for_a_block_is_refused_for_the_fault_of_its_treatment_where_that_is_checked_first() {
    let good = r#"{"metric":"m","effects":[{"variant":"t","estimate":1,"variance":1}]}"#;
    let with = |variance: &str| {
        format!(
            r#"{good},{{"metric":"m","control":{{"variant":"c","n":9,"mean":1,"variance":1}},
                "treatments":[{{"variant":"t","n":9,"mean":1,"variance":1}},{{"variant":"u","n":9,"mean":1,"variance":{variance}}}]}}"#
        )
    };
    let reason = |variance: &str| {
        event(&event_text(&with(variance))).results[1].as_ref().map_err(|refusal| refusal.reason).err()
    };
    assert_eq!(reason("null"), Some(Reason::SchemaViolation));
    assert_eq!(reason("1"), Some(Reason::RevisionConflict));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_the_decoder_panic_or_say_what_a_table_cannot_hold(bytes in broken_message()) {
        let refusals = match decode(&bytes) {
            Ok(Message::Event(event)) => event.results.into_iter().flat_map(refusals_of).collect(),
            Ok(Message::Tombstone { .. }) => Vec::new(),
            Err(refusal) => vec![refusal],
        };
        for refusal in refusals {
            prop_assert!(!refusal.detail.chars().any(char::is_control), "{refusal}");
            prop_assert!(refusal.detail.len() < 1_000, "{refusal}");
        }
    }
}
