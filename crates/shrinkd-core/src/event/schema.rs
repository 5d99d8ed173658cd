//! The contract as a JSON Schema (draft 2020-12), generated from the wire types that the decoder reads.
//!
//! A schema cannot tell everything: identifiers are limited in bytes and here in characters, a key that stands twice
//! and a number beyond f64 are lost before a validator sees them, names that must differ and all that concerns the
//! numbers themselves is left to the decoder.

use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value, json};

use super::wire;

/// The schema of a message, with descriptions and examples for producers.
pub fn schema() -> Value {
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

/// A tombstone needs no more than its experiment; every other message says when, at which revision and what.
pub(super) fn event(schema: &mut Schema) {
    let properties = take_properties(schema, &["schema_version", "experiment_id", "retracted"]);
    schema.insert("if".to_owned(), is("retracted", json!(true)));
    schema.insert("then".to_owned(), absent(&["results"]));
    let needed = given(&["revision", "completed_at", "results"]);
    schema.insert("else".to_owned(), json!({ "properties": properties, "allOf": [needed] }));
}

/// A retraction needs no more than its key; every other result has arms or effects.
pub(super) fn result(schema: &mut Schema) {
    let properties = take_properties(schema, &["metric", "segment", "scale", "status"]);
    schema.insert("if".to_owned(), is("status", json!("retracted")));
    schema.insert("then".to_owned(), json!(true));
    let arms = json!({
        "allOf": [absent(&["effects", "control_variance", "covariance"])],
        "if": is("accumulate", json!(true)),
        "then": { "anyOf": [given(&["control"]), given(&["treatments"])] },
        "else": given(&["control"])
    });
    let effects = json!({
        "allOf": [given(&["effects"]), absent(&["control", "treatments"])],
        "anyOf": [
            { "allOf": [given(&["covariance"]), absent(&["control_variance"])] },
            { "properties": { "covariance": { "type": "null" }, "effects": { "items": given(&["variance"]) } } }
        ]
    });
    schema.insert("else".to_owned(), json!({ "properties": properties, "oneOf": [arms, effects] }));
}

/// The four forms of an arm.
pub(super) fn arm(schema: &mut Schema) {
    let form = |needed: &[&str]| {
        let all = ["mean", "variance", "standard_error", "sum", "sum_squares", "successes"];
        let others: Vec<&str> = all.into_iter().filter(|name| !needed.contains(name)).collect();
        json!({ "allOf": [given(needed), absent(&others)] })
    };
    let forms = [
        form(&["n", "mean", "variance"]),
        form(&["n", "sum", "sum_squares"]),
        form(&["n", "successes"]),
        form(&["mean", "standard_error"]),
    ];
    schema.insert("oneOf".to_owned(), json!(forms));
}

/// Takes all properties but those named out of a schema.
fn take_properties(schema: &mut Schema, keep: &[&str]) -> Value {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut).map(std::mem::take);
    let (kept, taken): (Map<_, _>, Map<_, _>) =
        properties.unwrap_or_default().into_iter().partition(|(name, _)| keep.contains(&name.as_str()));
    schema.insert("properties".to_owned(), Value::Object(kept));
    Value::Object(taken)
}

fn is(name: &str, value: Value) -> Value {
    json!({ "properties": { name: { "const": value } }, "required": [name] })
}

fn given(names: &[&str]) -> Value {
    let not_null: Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!({ "not": { "type": "null" } }))).collect();
    json!({ "required": names, "properties": not_null })
}

fn absent(names: &[&str]) -> Value {
    let nothing: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!({ "type": "null" }))).collect();
    json!({ "properties": nothing })
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
