//! Messages and results as producers send them, good and bad, for the tests of the decoder and of the schema.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::event_text;

/// Whether a validator can detect the violation with the schema.
#[derive(Clone, Copy, PartialEq)]
pub enum InSchema {
    Yes,
    No,
}
use InSchema::{No, Yes};

/// One bad message: what is wrong with it, its bytes, the reason code.
pub struct Bad {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub code: &'static str,
    pub in_schema: InSchema,
}

/// Messages that are refused as a whole.
pub fn bad_messages() -> Vec<Bad> {
    let edited = BAD_EDITS.iter().map(|&(name, from, to, code, in_schema)| {
        assert!(GOOD.contains(from), "{name}: nothing to replace");
        Bad { name, bytes: GOOD.replacen(from, to, 1).into_bytes(), code, in_schema }
    });
    let whole = BAD_TEXTS.iter().map(|&(name, text, code, in_schema)| Bad {
        name,
        bytes: text.as_bytes().to_vec(),
        code,
        in_schema,
    });
    let built = [
        ("no bytes", Vec::new(), "malformed_json"),
        (
            "bytes that are not UTF-8",
            GOOD.replace("exp-1", "exp-\u{1}").bytes().map(broken).collect(),
            "malformed_json",
        ),
        ("a message in UTF-16", GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect(), "malformed_json"),
        ("half a message", GOOD.as_bytes()[..GOOD.len() / 2].to_vec(), "malformed_json"),
        ("a byte order mark", format!("\u{feff}{GOOD}").into_bytes(), "malformed_json"),
        ("a NUL byte after the message", format!("{GOOD}\0").into_bytes(), "malformed_json"),
        ("a raw newline in a string", GOOD.replace("exp-1", "exp\n1").into_bytes(), "malformed_json"),
        ("100,000 open brackets", vec![b'['; 100_000], "malformed_json"),
        ("100,000 open objects", br#"{"a":"#.repeat(100_000), "malformed_json"),
        ("one byte more than 1 MiB", padded(1_048_577).into_bytes(), "too_large"),
        ("an experiment_id of 513 bytes", GOOD.replace("exp-1", &"x".repeat(513)).into_bytes(), "invalid_identifier"),
        (
            "256 letters of 2 bytes and one more",
            GOOD.replace("exp-1", &"é".repeat(257)).into_bytes(),
            "invalid_identifier",
        ),
    ];
    let built = built.into_iter().map(|(name, bytes, code)| Bad {
        name,
        bytes,
        code,
        in_schema: if name.contains("513 bytes") { Yes } else { No },
    });
    edited.chain(whole).chain(built).collect()
}

fn padded(bytes: usize) -> String {
    GOOD.to_owned() + &" ".repeat(bytes - GOOD.len())
}

fn broken(byte: u8) -> u8 {
    if byte == 1 { 0xff } else { byte }
}

/// One bad result a line, as text, because some hold what no parsed form could keep.
const BAD_RESULTS: &str = include_str!("../../../../../tests/data/bad_results.ndjson");

#[derive(Deserialize)]
struct BadResult {
    name: &'static str,
    code: &'static str,
    in_schema: bool,
    result: &'static RawValue,
}

/// Results that are refused while their neighbours are taken.
pub fn bad_results() -> Vec<Bad> {
    let listed = BAD_RESULTS.lines().map(|line| {
        let row: BadResult = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        (row.name, row.result.get().to_owned(), row.code, if row.in_schema { Yes } else { No })
    });
    let arms = |n: usize| {
        (0..n).map(|i| format!(r#"{{"variant":"v{i}","n":9,"mean":1,"variance":1}}"#)).collect::<Vec<_>>().join(",")
    };
    let effects = |n: usize| {
        (0..n).map(|i| format!(r#"{{"variant":"v{i}","estimate":1,"variance":1}}"#)).collect::<Vec<_>>().join(",")
    };
    let built = [
        (
            "1,001 treatments",
            format!(
                r#"{{"metric":"m","control":{{"variant":"c","n":9,"mean":1,"variance":1}},"treatments":[{}]}}"#,
                arms(1_001)
            ),
            "too_many_variants",
            Yes,
        ),
        (
            "1,001 effects",
            format!(r#"{{"metric":"m","control_variance":0.1,"effects":[{}]}}"#, effects(1_001)),
            "too_many_variants",
            Yes,
        ),
        (
            "a metric of 513 bytes",
            format!(r#"{{"metric":"{}","status":"retracted"}}"#, "m".repeat(513)),
            "invalid_identifier",
            Yes,
        ),
    ];
    listed
        .chain(built)
        .map(|(name, text, code, in_schema)| {
            let neighbour = r#"{"metric":"neighbour","effects":[{"variant":"B","estimate":1,"variance":1}]}"#;
            let bytes =
                event_text(&format!("{neighbour}, {text}, {}", neighbour.replace("neighbour", "other"))).into_bytes();
            Bad { name, bytes, code, in_schema }
        })
        .collect()
}

/// Messages that are taken, with all that they hold.
pub fn good_messages() -> Vec<(&'static str, String)> {
    let edited = GOOD_EDITS.iter().map(|&(name, from, to)| {
        assert!(GOOD.contains(from), "{name}: nothing to replace");
        (name, GOOD.replacen(from, to, 1))
    });
    let results = GOOD_RESULTS.iter().map(|&(name, text)| (name, event_text(text)));
    let tombstones = [
        ("a tombstone", r#"{"schema_version":1,"experiment_id":"exp-1","retracted":true}"#.to_owned()),
        (
            "a tombstone with what else an event has",
            r#"{"schema_version":1,"experiment_id":"e","retracted":true,"revision":3,"results":null,"labels":{"a":"b"}}"#
                .to_owned(),
        ),
    ];
    let built = [
        ("a message of 1 MiB", padded(1_048_576)),
        ("an experiment_id of 512 bytes", GOOD.replace("exp-1", &"é".repeat(256))),
        (
            "an unknown field nested 50,000 deep",
            GOOD.replacen('{', &format!(r#"{{"deep":{}{},"#, "[".repeat(50_000), "]".repeat(50_000)), 1),
        ),
    ];
    edited.chain(results).chain(tombstones).chain(built).collect()
}

/// A good event, the base of those that differ from it in one place.
pub const GOOD: &str = r#"{"schema_version": 1, "experiment_id": "exp-1", "revision": 7, "completed_at": "2026-11-01T12:00:00Z", "event_id": "m-1", "labels": {"team": "search", "tier": "1"}, "decision": "shipped", "results": [{"metric": "conversion", "scale": "relative", "control": {"variant": "control", "n": 1000, "mean": 0.1, "variance": 0.09}, "treatments": [{"variant": "B", "n": 1000, "mean": 0.112, "variance": 0.0995}]}]}"#;

type Edit = (&'static str, &'static str, &'static str, &'static str, InSchema);

/// What is wrong, what is replaced in [`GOOD`], by what, the reason code, whether the schema knows.
const BAD_EDITS: &[Edit] = &[
    ("text after the message", r#"}]}]}"#, r#"}]}]} x"#, "malformed_json", No),
    ("two messages in one", r#"}]}]}"#, r#"}]}]} {}"#, "malformed_json", No),
    ("a bracket that is not closed", r#"}]}]}"#, r#"}]}]"#, "malformed_json", No),
    ("a trailing comma", r#""tier": "1""#, r#""tier": "1","#, "malformed_json", No),
    ("single quotes", r#""exp-1""#, "'exp-1'", "malformed_json", No),
    ("a comment", r#""revision": 7"#, r#""revision": 7 /* seven */"#, "malformed_json", No),
    ("NaN in a result", "0.112", "NaN", "malformed_json", No),
    ("Infinity in a result", "0.112", "-Infinity", "malformed_json", No),
    ("a number with a leading zero", "1000", "01000", "malformed_json", No),
    ("a number with a plus sign", "0.112", "+0.112", "malformed_json", No),
    ("a number without a whole part", "0.112", ".112", "malformed_json", No),
    ("a hexadecimal number", "1000", "0x3e8", "malformed_json", No),
    ("an escape that does not exist", "search", r"\x73earch", "malformed_json", No),
    ("version 3", r#""schema_version": 1"#, r#""schema_version": 3"#, "unsupported_version", Yes),
    ("kind under version 1", r#""revision": 7"#, r#""revision": 7, "kind": "holdout""#, "schema_violation", Yes),
    (
        "a kind that does not exist",
        r#""schema_version": 1"#,
        r#""schema_version": 2, "kind": "survey""#,
        "schema_violation",
        Yes,
    ),
    (
        "started after it was completed",
        r#""revision": 7"#,
        r#""revision": 7, "started_at": "2026-11-02T12:00:00Z""#,
        "schema_violation",
        No,
    ),
    ("a date alone", "2026-11-01T12:00:00Z", "2026-11-01", "schema_violation", Yes),
    ("a time without an offset", "2026-11-01T12:00:00Z", "2026-11-01T12:00:00", "schema_violation", Yes),
    ("seconds since 1970", r#""2026-11-01T12:00:00Z""#, "1793534400", "schema_violation", Yes),
    ("no shipped variant", r#""revision": 7"#, r#""revision": 7, "shipped_variant": """#, "invalid_identifier", Yes),
    ("version 0", r#""schema_version": 1"#, r#""schema_version": 0"#, "unsupported_version", Yes),
    ("version -1", r#""schema_version": 1"#, r#""schema_version": -1"#, "unsupported_version", Yes),
    ("version 1.5", r#""schema_version": 1"#, r#""schema_version": 1.5"#, "unsupported_version", Yes),
    ("a version in quotes", r#""schema_version": 1"#, r#""schema_version": "1""#, "schema_violation", Yes),
    ("version null", r#""schema_version": 1"#, r#""schema_version": null"#, "schema_violation", Yes),
    ("no version", r#""schema_version": 1, "#, "", "schema_violation", Yes),
    ("no experiment_id", r#""experiment_id": "exp-1", "#, "", "schema_violation", Yes),
    ("experiment_id null", r#""exp-1""#, "null", "schema_violation", Yes),
    ("experiment_id a number", r#""exp-1""#, "1", "schema_violation", Yes),
    ("experiment_id half a surrogate pair", "exp-1", r"\ud83d", "schema_violation", No),
    ("a key that is half a surrogate pair", r#""decision""#, r#""\udc00""#, "schema_violation", No),
    ("no revision", r#""revision": 7, "#, "", "schema_violation", Yes),
    ("revision null", "7,", "null,", "schema_violation", Yes),
    ("revision below 0", "7,", "-1,", "schema_violation", Yes),
    ("revision with a fraction", "7,", "7.5,", "schema_violation", Yes),
    ("revision with a fraction that a float cannot hold", "7,", "9007199254740993.5,", "schema_violation", No),
    ("revision 2^63", "7,", "9223372036854775808,", "schema_violation", Yes),
    ("revision beyond a float", "7,", "1e400,", "schema_violation", No),
    ("revision in quotes", "7,", r#""7","#, "schema_violation", Yes),
    ("no completed_at", r#""completed_at": "2026-11-01T12:00:00Z", "#, "", "schema_violation", Yes),
    ("completed_at a day", "2026-11-01T12:00:00Z", "2026-11-01", "schema_violation", Yes),
    ("completed_at without an offset", "12:00:00Z", "12:00:00", "schema_violation", Yes),
    ("completed_at in month 13", "2026-11-01", "2026-13-01", "schema_violation", No),
    ("completed_at on day 32", "2026-11-01", "2026-11-32", "schema_violation", No),
    ("completed_at at 25 o'clock", "T12:", "T25:", "schema_violation", No),
    (
        "completed_at after the last year of UTC",
        "2026-11-01T12:00:00Z",
        "9999-12-31T23:00:00-02:00",
        "schema_violation",
        No,
    ),
    (
        "completed_at before the first year of UTC",
        "2026-11-01T12:00:00Z",
        "0000-01-01T00:00:00+02:00",
        "schema_violation",
        No,
    ),
    ("completed_at in seconds", r#""2026-11-01T12:00:00Z""#, "1793534400", "schema_violation", Yes),
    ("event_id a number", r#""m-1""#, "1", "schema_violation", Yes),
    ("labels an array", r#"{"team": "search", "tier": "1"}"#, "[]", "schema_violation", Yes),
    ("a label that is a number", r#""tier": "1""#, r#""tier": 1"#, "schema_violation", Yes),
    ("a label given twice", r#""tier": "1""#, r#""team": "1""#, "schema_violation", No),
    ("a label given twice, once as null", r#""tier": "1""#, r#""team": null"#, "schema_violation", No),
    ("no results", r#""results": [{"#, r#""other": [{"#, "schema_violation", Yes),
    ("results an object", r#""results": [{"#, r#""results": {}, "other": [{"#, "schema_violation", Yes),
    ("results a number beyond a float", r#""results": [{"#, r#""results": 1e400, "other": [{"#, "schema_violation", No),
    ("a key given twice", r#""revision": 7"#, r#""revision": 7, "revision": 8"#, "schema_violation", No),
    (
        "a key given twice with the same value",
        r#""revision": 7"#,
        r#""revision": 7, "revision": 7"#,
        "schema_violation",
        No,
    ),
    (
        "a key given twice, once as null",
        r#""revision": 7"#,
        r#""revision": null, "revision": 7"#,
        "schema_violation",
        No,
    ),
    (
        "a key given twice, once with escapes",
        r#""revision": 7"#,
        r#""revision": 7, "revisio\u006e": 7"#,
        "schema_violation",
        No,
    ),
    ("an unknown key given twice", r#""revision": 7"#, r#""revision": 7, "x": 1, "x": 2"#, "schema_violation", No),
    ("retracted in quotes", r#""revision": 7"#, r#""revision": 7, "retracted": "true""#, "schema_violation", Yes),
    ("retracted as a whole with results", r#""revision": 7"#, r#""retracted": true"#, "schema_violation", Yes),
    ("experiment_id empty", "exp-1", "", "invalid_identifier", Yes),
    ("a NUL in experiment_id", "exp-1", r"exp\u0000", "invalid_identifier", Yes),
    ("a delete character in experiment_id", "exp-1", "exp\u{7f}", "invalid_identifier", Yes),
    ("a C1 control character in experiment_id", "exp-1", "exp\u{85}", "invalid_identifier", Yes),
    ("event_id empty", "m-1", "", "invalid_identifier", Yes),
    ("a newline in a label", "search", r"sea\nrch", "invalid_identifier", Yes),
    ("a tab in a label's key", r#""team""#, r#""te\tam""#, "invalid_identifier", Yes),
    ("a label without a key", r#""team""#, r#""""#, "invalid_identifier", Yes),
];

const BAD_TEXTS: &[(&str, &str, &str, InSchema)] = &[
    ("spaces only", " \n\t ", "malformed_json", No),
    ("a word", "hello", "malformed_json", No),
    ("an array", "[]", "schema_violation", Yes),
    ("a string", r#""event""#, "schema_violation", Yes),
    ("a number", "1", "schema_violation", Yes),
    ("the word null", "null", "schema_violation", Yes),
    ("an empty object", "{}", "schema_violation", Yes),
    ("a tombstone without a version", r#"{"experiment_id":"e","retracted":true}"#, "schema_violation", Yes),
    ("a tombstone without an experiment", r#"{"schema_version":1,"retracted":true}"#, "schema_violation", Yes),
    (
        "a tombstone that is not one",
        r#"{"schema_version":1,"experiment_id":"e","retracted":false}"#,
        "schema_violation",
        Yes,
    ),
];

/// What is special, what is replaced in [`GOOD`], by what.
const GOOD_EDITS: &[(&str, &str, &str)] = &[
    ("a space for the T", "2026-11-01T12:00:00Z", "2026-11-01 12:00:00Z"),
    ("an offset without minutes", "2026-11-01T12:00:00Z", "2026-11-01 12:00:00.5+00"),
    ("an offset without a colon", "2026-11-01T12:00:00Z", "2026-11-01T12:00:00-0530"),
    ("UTC for an offset", "2026-11-01T12:00:00Z", "2026-11-01 12:00:00 UTC"),
    ("version 2 without a kind", r#""schema_version": 1"#, r#""schema_version": 2"#),
    ("a holdout", r#""schema_version": 1"#, r#""schema_version": 2, "kind": "holdout""#),
    ("an experiment by name", r#""schema_version": 1"#, r#""schema_version": 2, "kind": "experiment""#),
    ("a kind of null", r#""schema_version": 1"#, r#""schema_version": 1, "kind": null"#),
    (
        "when it was started, and what was shipped",
        r#""revision": 7"#,
        r#""revision": 7, "started_at": "2026-10-01T12:00:00Z", "shipped_variant": "B""#,
    ),
    (
        "a direction and a coverage",
        r#""metric": "conversion""#,
        r#""metric": "conversion", "direction": "decrease", "coverage": 0.25"#,
    ),
    ("the plain event", "exp-1", "exp-1"),
    ("spaces around", "{\"schema_version\"", " \n\t{\"schema_version\""),
    ("version 1.0", r#""schema_version": 1"#, r#""schema_version": 1.0"#),
    ("revision 0", "7,", "0,"),
    ("revision -0", "7,", "-0,"),
    ("revision 2^63 - 1", "7,", "9223372036854775807,"),
    ("revision with a point", "7,", "1000.0,"),
    ("revision with an exponent", "7,", "1e3,"),
    ("n with a point", "1000", "1000.0"),
    ("optional fields null", r#""event_id": "m-1""#, r#""event_id": null, "retracted": null"#),
    ("labels null", r#"{"team": "search", "tier": "1"}"#, "null"),
    ("a label null", r#""tier": "1""#, r#""tier": null"#),
    ("labels empty", r#"{"team": "search", "tier": "1"}"#, "{}"),
    ("a decision of another type", r#""decision": "shipped""#, r#""decision": {"by": ["pm"]}"#),
    ("a decision with a NUL", r#""decision": "shipped""#, r#""decision": "\u0000""#),
    ("a decision beyond a float", r#""decision": "shipped""#, r#""decision": 1e400"#),
    ("unknown fields", r#""revision": 7"#, r#""revision": 7, "owner": {"name": "x"}, "tags": [1, [2]]"#),
    ("an unknown half of a surrogate pair", r#""revision": 7"#, r#""revision": 7, "owner": "\ud83d""#),
    ("retracted false", r#""revision": 7"#, r#""revision": 7, "retracted": false"#),
    ("a time with an offset and a fraction", "12:00:00Z", "12:00:00.123456789+05:30"),
    ("a time in small letters", "T12:00:00Z", "t12:00:00z"),
    ("a day beyond its month's end", "2026-11-01", "2026-02-30"),
    ("letters beyond ASCII", "exp-1", "esperimento-più-☃-😀"),
    ("letters as escapes", "exp-1", r"\u0065xp-\ud83d\ude00"),
    ("an empty list of results", r#""results": [{"#, r#""results": [], "other": [{"#),
];

/// Results of every form, each sent alone in an event with an event_id.
pub const GOOD_RESULTS: &[(&str, &str)] = &[
    (
        "mean and variance",
        r#"{"metric":"m","control":{"variant":"c","n":10,"mean":1,"variance":2},"treatments":[{"variant":"t","n":10,"mean":1,"variance":2}]}"#,
    ),
    (
        "sums",
        r#"{"metric":"m","control":{"variant":"c","n":4,"sum":10,"sum_squares":30},"treatments":[{"variant":"t","n":4,"sum":12,"sum_squares":40}]}"#,
    ),
    (
        "successes",
        r#"{"metric":"m","scale":"log_ratio","control":{"variant":"c","n":10,"successes":1},"treatments":[{"variant":"t","n":10,"successes":9}]}"#,
    ),
    (
        "standard errors",
        r#"{"metric":"m","control":{"variant":"c","mean":1,"standard_error":0.1},"treatments":[{"variant":"t","n":2,"mean":1,"standard_error":0.1}]}"#,
    ),
    (
        "arms of different forms, nulls and unknown fields",
        r#"{"metric":"m","segment":null,"scale":null,"status":null,"effects":null,"x":1,"control":{"variant":"c","mean":1,"standard_error":0.1,"n":null,"sum":null,"y":[]},"treatments":[{"variant":"t","n":20,"successes":9}]}"#,
    ),
    ("one effect", r#"{"metric":"m","effects":[{"variant":"t","estimate":-0.0,"variance":1e-12}]}"#),
    (
        "two effects with a control",
        r#"{"metric":"m","status":"reported","effects":[{"variant":"t","estimate":0.3,"variance":0.012},{"variant":"u","estimate":0.1,"variance":0.011}],"control_variance":0.004}"#,
    ),
    (
        "two effects that share nothing",
        r#"{"metric":"m","effects":[{"variant":"t","estimate":0.3,"variance":0.012},{"variant":"u","estimate":0.1,"variance":0.011}],"control_variance":0}"#,
    ),
    (
        "a covariance",
        r#"{"metric":"m","scale":"log_ratio","effects":[{"variant":"t","estimate":0.3},{"variant":"u","estimate":0.1,"variance":0.03}],"covariance":[[0.02,0.01],[0.01,0.03]]}"#,
    ),
    (
        "a control's variance of a subnormal estimate",
        r#"{"metric":"m","effects":[{"variant":"t","estimate":5e-324,"variance":0.012}],"control_variance":0.004}"#,
    ),
    (
        "a standard deviation",
        r#"{"metric":"m","control":{"variant":"c","n":10,"mean":1,"standard_deviation":2},"treatments":[{"variant":"t","n":10,"mean":1,"variance":2}]}"#,
    ),
    (
        "a ratio metric",
        r#"{"metric":"m","scale":"log_ratio","control":{"variant":"c","n":4,"sum":10,"sum_squares":30,"denominator_sum":20,"denominator_sum_squares":102,"numerator_denominator_sum_product":51},"treatments":[{"variant":"t","n":4,"sum":12,"sum_squares":40,"denominator_sum":20,"denominator_sum_squares":102,"numerator_denominator_sum_product":61}]}"#,
    ),
    (
        "a covariate",
        r#"{"metric":"m","control":{"variant":"c","n":4,"sum":10,"sum_squares":30,"covariate_sum":10,"covariate_sum_squares":30,"main_covariate_sum_product":27},"treatments":[{"variant":"t","n":4,"sum":12,"sum_squares":40,"covariate_sum":11,"covariate_sum_squares":33,"main_covariate_sum_product":35}]}"#,
    ),
    (
        "a part of a ratio metric",
        r#"{"metric":"m","accumulate":true,"control":{"variant":"c","n":0,"sum":0,"sum_squares":0,"denominator_sum":0,"denominator_sum_squares":0,"numerator_denominator_sum_product":0}}"#,
    ),
    (
        "successes on log_odds",
        r#"{"metric":"m","scale":"log_odds","control":{"variant":"c","n":10,"successes":1},"treatments":[{"variant":"t","n":10,"sum":9,"sum_squares":9}]}"#,
    ),
    (
        "a standard error",
        r#"{"metric":"m","scale":"log_odds","effects":[{"variant":"t","estimate":0.3,"standard_error":0.1}]}"#,
    ),
    ("an interval", r#"{"metric":"m","effects":[{"variant":"t","estimate":0.1,"ci_low":-0.1,"ci_high":0.3}]}"#),
    (
        "effects with units, in different forms",
        r#"{"metric":"m","control":{"variant":"c","n":90},"effects":[{"variant":"t","n":100,"estimate":0.1,"ci_low":-0.1,"ci_high":0.3,"ci_level":0.9},{"variant":"u","n":100,"estimate":0.1,"standard_error":0.1}]}"#,
    ),
    (
        "units beside a control variance, a covariance and nothing",
        r#"{"metric":"m","control":{"variant":"c","n":90,"mean":null},"effects":[{"variant":"t","estimate":0.3},{"variant":"u","n":0,"estimate":0.1,"standard_error":null}],"covariance":[[0.02,0.01],[0.01,0.03]]}"#,
    ),
    (
        "a treatment's own variance with units",
        r#"{"metric":"m","scale":"relative","control":{"variant":"c","n":90},"effects":[{"variant":"t","n":80,"estimate":0.3,"treatment_variance":0.001}]}"#,
    ),
    ("a retraction", r#"{"metric":"m","status":"retracted"}"#),
    (
        "a retraction that still holds bad numbers",
        r#"{"metric":"m","segment":"s","scale":"relative","status":"retracted","control":{"variant":"c","n":null},"treatments":5}"#,
    ),
    (
        "a part with both sides",
        r#"{"metric":"m","accumulate":true,"control":{"variant":"c","n":1,"mean":3,"variance":0},"treatments":[{"variant":"t","n":0,"sum":0,"sum_squares":0}]}"#,
    ),
    (
        "a part that is the control alone",
        r#"{"metric":"m","accumulate":true,"control":{"variant":"c","n":5,"successes":0}}"#,
    ),
    (
        "a part without the control",
        r#"{"metric":"m","accumulate":true,"treatments":[{"variant":"t","n":5,"successes":2},{"variant":"u","n":5,"successes":2}]}"#,
    ),
    (
        "not a part after all",
        r#"{"metric":"m","accumulate":false,"effects":[{"variant":"t","estimate":1,"variance":1}]}"#,
    ),
];
