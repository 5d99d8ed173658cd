//! Messages that nobody writes by accident, or only once: each by its name, with its reason code and how its sentence begins
//! or what it must say. The everyday violations are in `corpus` and in `tests/data/bad_results.ndjson`.

use std::collections::BTreeSet;

use shrinkd_core::{MAX_RESULTS, Message, Reason, check_key, decode, decode_tombstone};

use super::corpus::{GOOD, bad_messages, bad_results};
use super::{event, event_text, refusal};

/// What is wrong, what is replaced in [`GOOD`] by what, the reason code, what the sentence says.
#[rustfmt::skip]
const EDITS: &[(&str, &str, &str, &str, &str)] = &[
    ("revision 1e400", "7,", "1e400,", "schema_violation", "$.revision must be a whole number from 0 to"),
    ("revision 1e-400", "7,", "1e-400,", "schema_violation", "$.revision must be a whole number"),
    ("revision of 40 digits", "7,", "1234567890123456789012345678901234567890,", "schema_violation", "$.revision must be"),
    ("revision with an exponent of 20 digits", "7,", "1e99999999999999999999,", "schema_violation", "$.revision must be"),
    ("revision NaN", "7,", "NaN,", "malformed_json", "JSON has no NaN and no Infinity"),
    ("revision a list of itself", "7,", "[7],", "schema_violation", "$.revision must be a number, found an array"),
    ("version 1e400", "\": 1,", "\": 1e400,", "unsupported_version", "$.schema_version version 1e400 is not supported"),
    ("version 1 and a bit", "\": 1,", "\": 1.0000000000000000000001,", "unsupported_version", "$.schema_version"),
    ("version true", "\": 1,", "\": true,", "schema_violation", "$.schema_version must be a number, found a boolean"),
    ("version given twice", "\"revision\": 7", "\"schema_version\": 1, \"revision\": 7", "schema_violation", "$.schema_version appears twice"),
    ("results given twice", "\"revision\": 7", "\"results\": [], \"revision\": 7", "schema_violation", "$.results appears twice"),
    ("retracted given twice", "\"revision\": 7", "\"retracted\": false, \"retracted\": true, \"revision\": 7", "schema_violation", "$.retracted appears twice"),
    ("labels given twice", "\"revision\": 7", "\"labels\": {}, \"revision\": 7", "schema_violation", "$.labels appears twice"),
    ("a label given twice, once with escapes", "\"tier\": \"1\"", r#""te\u0061m": "1""#, "schema_violation", "$.labels.team appears twice"),
    ("a label that is an object", "\"1\"", "{\"a\": \"b\"}", "schema_violation", "$.labels.tier must be a string, found an object"),
    ("half a surrogate pair, the second", "exp-1", r"\udc00", "schema_violation", "$.experiment_id is not a string of Unicode"),
    ("two first halves of surrogate pairs", "exp-1", r"\ud83d\ud83d", "schema_violation", "$.experiment_id is not a string"),
    ("half a surrogate pair in a label", "search", r"\ud83d", "schema_violation", "$.labels.team is not a string"),
    ("an escape cut short", "exp-1", r"\u00", "malformed_json", "is not JSON"),
    ("a C1 control character as an escape", "exp-1", r"\u009f", "invalid_identifier", "must not hold control characters"),
    ("a NUL in an event_id", "m-1", r"m\u0000", "invalid_identifier", r"$.event_id must not hold control characters"),
    ("a NUL in completed_at", "12:00:00Z", r"12:00:00Z\u0000", "schema_violation", "$.completed_at must be an RFC 3339 time"),
    ("a raw NUL in a string", "exp-1", "exp\0", "malformed_json", "is not JSON"),
    ("a raw NUL between tokens", "7,", "7\0,", "malformed_json", "is not JSON"),
    ("a raw tab in a key", "\"revision\"", "\"revi\tsion\"", "malformed_json", "is not JSON"),
    ("a raw escape character", "exp-1", "\u{1b}[31m", "malformed_json", "is not JSON"),
    ("a byte order mark within", "7,", "\u{feff}7,", "malformed_json", "is not JSON"),
    ("a no-break space for a space", "\"revision\": 7", "\"revision\":\u{a0}7", "malformed_json", "is not JSON"),
    ("a vertical tab for a space", "\"revision\": 7", "\"revision\":\u{b}7", "malformed_json", "is not JSON"),
    ("curly quotes", "\"revision\"", "\u{201c}revision\u{201d}", "malformed_json", "is not JSON"),
    ("a comma too many at the end", "}]}]}", "}]}]},", "malformed_json", "trailing characters"),
    ("null after the message", "}]}]}", "}]}]} null", "malformed_json", "trailing characters"),
    ("a brace too many", "}]}]}", "}]}]}}", "malformed_json", "trailing characters"),
    ("a year of five digits", "2026-11-01", "12026-11-01", "schema_violation", "$.completed_at must be an RFC 3339 time"),
    ("results that are true", "\"results\": [", "\"results\": true, \"x\": [", "schema_violation", "$.results must be an array, found a boolean"),
];

/// The same of one result, sent alone.
#[rustfmt::skip]
const RESULTS: &[(&str, &str, &str, &str)] = &[
    ("a result in quotes", r#""{\"metric\":\"m\"}""#, "schema_violation", "$.results[0] must be an object, found a string"),
    ("n = 1.5", r#"{"metric":"m","control":{"variant":"c","n":1.5,"mean":1,"variance":1},"treatments":[{"variant":"t","n":9,"mean":1,"variance":1}]}"#, "schema_violation", "$.results[0].control.n must be a whole number"),
    ("n = -0", r#"{"metric":"m","control":{"variant":"c","n":-0,"mean":1,"variance":1},"treatments":[{"variant":"t","n":9,"mean":1,"variance":1}]}"#, "sample_too_small", "fewer than 2 units"),
    ("n = 2^63", r#"{"metric":"m","control":{"variant":"c","n":9223372036854775808,"mean":1,"variance":1},"treatments":[{"variant":"t","n":9,"mean":1,"variance":1}]}"#, "schema_violation", "$.results[0].control.n must be a whole number"),
    ("successes beyond a float", r#"{"metric":"m","control":{"variant":"c","n":9,"successes":1e400},"treatments":[{"variant":"t","n":9,"successes":2}]}"#, "non_finite", "$.results[0].control.successes is beyond"),
    ("a sum beyond a float", r#"{"metric":"m","control":{"variant":"c","n":9,"sum":-1e400,"sum_squares":1},"treatments":[{"variant":"t","n":9,"successes":2}]}"#, "non_finite", "$.results[0].control.sum is beyond"),
    ("a mean beyond a float in the second treatment of a part", r#"{"metric":"m","accumulate":true,"control":{"variant":"c","n":9,"successes":2},"treatments":[{"variant":"t","n":9,"successes":2},{"variant":"u","n":9,"mean":1e400,"variance":1}]}"#, "non_finite", "$.results[0].treatments[1].mean is beyond"),
    ("a variance of 5e-324", r#"{"metric":"m","control":{"variant":"c","n":9,"mean":1,"variance":5e-324},"treatments":[{"variant":"t","n":9,"mean":1,"variance":1}]}"#, "implausible_scale", "variance"),
    ("a variance of 1e308", r#"{"metric":"m","control":{"variant":"c","n":1000,"mean":1,"variance":1e308},"treatments":[{"variant":"t","n":9,"mean":1,"variance":1}]}"#, "implausible_scale", "overflow"),
    ("a variance of 1e-400", r#"{"metric":"m","effects":[{"variant":"t","estimate":1,"variance":1e-400}]}"#, "non_positive_variance", "has no variance above 0"),
    ("means of 1e308 and -1e308", r#"{"metric":"m","control":{"variant":"c","n":9,"mean":1e308,"variance":1},"treatments":[{"variant":"t","n":9,"mean":-1e308,"variance":1}]}"#, "implausible_scale", "overflow"),
    ("an estimate of -1e308", r#"{"metric":"m","effects":[{"variant":"t","estimate":-1e308,"variance":1e100}]}"#, "implausible_scale", "more than 1e6 of its standard errors"),
    ("a relative effect of 1e300", r#"{"metric":"m","scale":"relative","control":{"variant":"c","mean":1e-150,"standard_error":1e-152},"treatments":[{"variant":"t","mean":1e150,"standard_error":1}]}"#, "implausible_scale", ""),
    ("a control variance just below 0", r#"{"metric":"m","control_variance":-5e-324,"effects":[{"variant":"t","estimate":1,"variance":1}]}"#, "non_positive_variance", "control_variance is below 0"),
    ("a diagonal of -0", r#"{"metric":"m","effects":[{"variant":"t","estimate":1}],"covariance":[[-0.0]]}"#, "non_positive_variance", "has no variance above 0"),
    ("a covariance one level too deep", r#"{"metric":"m","effects":[{"variant":"t","estimate":1}],"covariance":[[[1]]]}"#, "schema_violation", "$.results[0].covariance[0][0] must be a number, found an array"),
    ("a covariance one level too flat", r#"{"metric":"m","effects":[{"variant":"t","estimate":1}],"covariance":[1]}"#, "schema_violation", "$.results[0].covariance[0] must be an array, found a number"),
    ("a covariance of rank 1", r#"{"metric":"m","effects":[{"variant":"t","estimate":1},{"variant":"u","estimate":1}],"covariance":[[1,1],[1,1]]}"#, "covariance_not_positive_definite", "not positive definite"),
    ("a key given twice in the control", r#"{"metric":"m","control":{"variant":"c","n":9,"n":9,"successes":2},"treatments":[{"variant":"t","n":9,"successes":2}]}"#, "schema_violation", "$.results[0].control.n appears twice"),
    ("a key given twice in the second treatment", r#"{"metric":"m","control":{"variant":"c","n":9,"successes":2},"treatments":[{"variant":"t","n":9,"successes":2},{"variant":"u","n":9,"successes":2,"successes":3}]}"#, "schema_violation", "$.results[0].treatments[1].successes appears twice"),
    ("a key given twice in the second effect", r#"{"metric":"m","control_variance":0,"effects":[{"variant":"t","estimate":1,"variance":1},{"variant":"u","estimate":1,"estimate":1,"variance":1}]}"#, "schema_violation", "$.results[0].effects[1].estimate appears twice"),
    ("a NUL in a variant", r#"{"metric":"m","effects":[{"variant":"t\u0000","estimate":1,"variance":1}]}"#, "invalid_identifier", "$.results[0].effects[0].variant must not hold control characters"),
    ("half a surrogate pair in a variant", r#"{"metric":"m","effects":[{"variant":"\udfff","estimate":1,"variance":1}]}"#, "schema_violation", "$.results[0].effects[0].variant is not a string"),
    ("a name that a sentence could not hold", r#"{"metric":"m","scale":"\u0000\u001b[2J","status":"retracted"}"#, "schema_violation", r"$.results[0].scale must be absolute, relative, log_ratio or log_odds, found"),
    ("accumulate 1", r#"{"metric":"m","accumulate":1,"control":{"variant":"c","n":9,"successes":2}}"#, "schema_violation", "$.results[0].accumulate must be true or false, found a number"),
    ("a part with two controls' names", r#"{"metric":"m","accumulate":true,"control":{"variant":"t","n":9,"successes":2},"treatments":[{"variant":"t","n":9,"successes":2}]}"#, "duplicate_variant", "like the control"),
];

/// What takes a program to write: name, bytes, reason code, what the sentence says.
fn built() -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let spliced = |bytes: &[u8]| {
        GOOD.replacen("exp-1", "\u{1}", 1).bytes().flat_map(|b| if b == 1 { bytes.to_vec() } else { vec![b] }).collect()
    };
    let with_results = |results: String| event_text(&results).into_bytes();
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let label = |i: usize| format!(r#""k{i}":"v","#);
    let labels = |most: usize| (0..most).map(label).collect::<String>();
    vec![
        ("half a surrogate pair in UTF-8", spliced(b"\xed\xa0\x80"), "malformed_json", "not UTF-8 from byte 40 on"),
        ("a slash in two bytes", spliced(b"\xc0\xaf"), "malformed_json", "not UTF-8 from byte 40 on"),
        ("a letter beyond Unicode", spliced(b"\xf4\x90\x80\x80"), "malformed_json", "not UTF-8 from byte 40 on"),
        (
            "a letter cut short at the end",
            [GOOD.as_bytes(), b"\xe2\x98"].concat(),
            "malformed_json",
            "not UTF-8 from byte",
        ),
        (
            "UTF-16 with its byte order mark",
            [0xfeff].into_iter().chain(GOOD.encode_utf16()).flat_map(u16::to_be_bytes).collect(),
            "malformed_json",
            "not UTF-8 from byte 0 on",
        ),
        ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec(), "malformed_json", "not UTF-8 from byte 1 on"),
        (
            "a schema registry's prefix",
            [b"\0\0\0\0\x07".as_slice(), GOOD.as_bytes()].concat(),
            "malformed_json",
            "is not JSON",
        ),
        (
            "the message in quotes",
            serde_json::to_vec(GOOD).unwrap(),
            "schema_violation",
            "$ must be an object, found a string",
        ),
        (
            "the message in a list",
            format!("[{GOOD}]").into_bytes(),
            "schema_violation",
            "$ must be an object, found an array",
        ),
        (
            "1 GB said to follow",
            vec![b' '; (1 << 20) + 1],
            "too_large",
            "has 1048577 bytes, at most 1048576 are accepted",
        ),
        (
            "1,001 results",
            with_results(vec!["5"; MAX_RESULTS + 1].join(",")),
            "schema_violation",
            "$.results has more than 1000 results, split them over several messages",
        ),
        (
            "half a million results",
            with_results(vec!["5"; 500_000].join(",")),
            "schema_violation",
            "$.results has more than 1000 results",
        ),
        (
            "50,000 labels and one of them twice",
            GOOD.replacen(r#""team""#, &format!(r#"{}"k7""#, labels(50_000)), 1).into_bytes(),
            "schema_violation",
            "$.labels.k7 appears twice",
        ),
        (
            "a label's key of 513 bytes",
            GOOD.replacen("team", &"t".repeat(513), 1).into_bytes(),
            "invalid_identifier",
            "has 513 bytes, at most 512 are accepted",
        ),
        (
            "an event_id of 513 bytes",
            GOOD.replacen("m-1", &"m".repeat(513), 1).into_bytes(),
            "invalid_identifier",
            "$.event_id has 513 bytes",
        ),
        (
            "a revision 100,000 lists deep",
            GOOD.replacen("7,", &format!("{},", deep("[", "]")), 1).into_bytes(),
            "schema_violation",
            "$.revision must be a number, found an array",
        ),
        (
            "labels 100,000 objects deep",
            GOOD.replacen("\"1\"", &deep(r#"{"a":"#, "}"), 1).into_bytes(),
            "schema_violation",
            "$.labels.tier must be a string, found an object",
        ),
        (
            "a revision of a million digits",
            GOOD.replacen("7,", &format!("{},", "7".repeat(1_000_000)), 1).into_bytes(),
            "schema_violation",
            "$.revision must be a whole number",
        ),
    ]
}

#[test]
fn hostile_messages_are_refused_with_their_reason_and_say_where() {
    let edited = EDITS.iter().map(|&(name, from, to, code, says)| {
        assert!(GOOD.contains(from), "{name}: nothing to replace");
        (name, GOOD.replacen(from, to, 1).into_bytes(), code, says)
    });
    for (name, bytes, code, says) in edited.chain(built()) {
        match decode(&bytes) {
            Err(refusal) => {
                assert_eq!(refusal.reason.as_str(), code, "{name}: {refusal}");
                assert!(refusal.detail.contains(says), "{name}: {refusal}");
                assert!(refusal.detail.len() < 1_000, "{name}: {} bytes", refusal.detail.len());
            }
            Ok(message) => panic!("{name} is taken: {message:?}"),
        }
    }
}

#[test]
fn hostile_results_are_refused_with_their_reason_and_say_where() {
    for (name, text, code, says) in RESULTS {
        let refusal = refusal(text);
        assert_eq!(refusal.reason.as_str(), *code, "{name}: {refusal}");
        assert!(refusal.detail.starts_with("$.results[0]") && refusal.detail.contains(says), "{name}: {refusal}");
    }
}

#[test]
fn a_message_of_1_000_results_is_taken_with_all_of_them() {
    let result = |i: usize| format!(r#"{{"metric":"m{i}","status":"retracted"}}"#);
    let results: Vec<String> = (0..MAX_RESULTS).map(result).collect();
    let event = event(&event_text(&results.join(",")));
    assert_eq!((event.results.len(), event.results.iter().all(Result::is_ok)), (MAX_RESULTS, true));
}

#[test]
fn names_of_bad_messages_are_their_own() {
    let mut names = BTreeSet::new();
    let hostile = EDITS.iter().map(|row| row.0).chain(built().iter().map(|row| row.0)).collect::<Vec<_>>();
    for name in hostile.into_iter().chain(bad_messages().iter().map(|bad| bad.name)) {
        assert!(names.insert(name), "{name} appears twice");
    }
    assert!(names.len() >= 60, "{}", names.len());
}

/// Two codes cannot come out of one message alone: the key is Kafka's, and how many populations there are is the store's.
#[test]
fn every_reason_code_occurs_in_the_corpus_but_for_those_that_need_more_than_a_message() {
    let mut found: BTreeSet<String> =
        bad_messages().iter().chain(&bad_results()).map(|bad| bad.code.to_owned()).collect();
    found.extend(EDITS.iter().map(|row| row.3).chain(RESULTS.iter().map(|row| row.2)).map(str::to_owned));
    let good = decode(GOOD.as_bytes()).unwrap();
    let keyed = [check_key(&good, None).err(), decode_tombstone(Some(b"\xff")).err(), decode_tombstone(None).err()];
    for refusal in keyed {
        assert_eq!(refusal.unwrap().reason, Reason::KeyMismatch);
    }
    assert_eq!(decode_tombstone(Some(b"")).unwrap_err().reason, Reason::InvalidIdentifier);
    assert_eq!(decode_tombstone(Some(b"exp-1")), Ok(Message::Tombstone { experiment_id: "exp-1".to_owned() }));
    let missing: Vec<&str> =
        Reason::ALL.iter().map(|reason| reason.as_str()).filter(|code| !found.contains(*code)).collect();
    assert_eq!(missing, ["key_mismatch", "too_many_populations"]);
}
