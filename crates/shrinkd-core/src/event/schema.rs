//! The contract as a JSON Schema (draft 2020-12), generated from the wire types that the decoder reads.
//!
//! The schema is weaker than the decoder. It limits identifiers in characters, not in bytes; a repeated key and a number
//! beyond f64 are lost before a validator sees them; that names differ, and whether the numbers make sense, only the
//! decoder checks.

use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Value, json};

use super::wire;

/// The schema of a message, with descriptions and examples for producers.
pub fn event_schema() -> Value {
    let mut schema = schemars::schema_for!(wire::Event<'static>);
    RecursiveTransform(join_lines).transform(&mut schema);
    schema.insert("title".to_owned(), json!("Completed experiment"));
    schema.insert("examples".to_owned(), examples());
    schema.to_value()
}

/// Descriptions are doc comments, wrapped where the source is.
fn join_lines(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

fn examples() -> Value {
    json!([
        {
            "schema_version": 1,
            "experiment_id": "exp-123",
            "revision": 7,
            "completed_at": "2026-11-01T12:00:00Z",
            "labels": { "team": "search" },
            "decision": "shipped",
            "results": [
                {
                    "metric": "conversion",
                    "segment": "all",
                    "scale": "relative",
                    "control": { "variant": "control", "n": 1000, "mean": 0.100, "variance": 0.0900 },
                    "treatments": [{ "variant": "B", "n": 1000, "mean": 0.112, "variance": 0.0995 }]
                },
                {
                    "metric": "revenue",
                    "effects": [
                        { "variant": "B", "estimate": 0.31, "variance": 0.012 },
                        { "variant": "C", "estimate": 0.10, "variance": 0.011 }
                    ],
                    "control_variance": 0.004
                },
                {
                    "metric": "latency",
                    "scale": "log_ratio",
                    "effects": [{ "variant": "B", "estimate": 0.02 }, { "variant": "C", "estimate": -0.01 }],
                    "covariance": [[0.02, 0.01], [0.01, 0.03]]
                },
                {
                    "metric": "minutes",
                    "control": { "variant": "control", "n": 6000 },
                    "effects": [
                        { "variant": "B", "n": 3000, "estimate": 0.31, "ci_low": 0.09, "ci_high": 0.53 },
                        { "variant": "C", "n": 3000, "estimate": 0.10, "standard_error": 0.11 }
                    ]
                },
                {
                    "metric": "revenue_per_order",
                    "control": {
                        "variant": "control", "n": 1000, "sum": 5210, "sum_squares": 61400, "denominator_sum": 1310,
                        "denominator_sum_squares": 3170, "numerator_denominator_sum_product": 12900
                    },
                    "treatments": [{
                        "variant": "B", "n": 1000, "sum": 5480, "sum_squares": 64100, "denominator_sum": 1330,
                        "denominator_sum_squares": 3260, "numerator_denominator_sum_product": 13400
                    }]
                },
                { "metric": "old", "status": "retracted" }
            ]
        },
        {
            "schema_version": 1,
            "experiment_id": "exp-124",
            "revision": 1,
            "completed_at": "2026-11-01T12:00:00Z",
            "event_id": "exp-124-shard-1",
            "results": [
                {
                    "metric": "conversion",
                    "accumulate": true,
                    "control": { "variant": "control", "n": 500, "successes": 52 },
                    "treatments": [{ "variant": "B", "n": 500, "successes": 61 }]
                }
            ]
        },
        { "schema_version": 1, "experiment_id": "exp-99", "retracted": true }
    ])
}
