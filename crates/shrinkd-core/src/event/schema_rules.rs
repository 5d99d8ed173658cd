//! Which fields of the contract belong together, added to the JSON Schemas that are derived from the wire types.

use schemars::Schema;
use serde_json::{Map, Value, json};

use super::leaf::SCHEMA_VERSION_WITH_KIND;

/// A tombstone needs no more than its experiment; every other message says when, at which revision and what.
pub(super) fn event(schema: &mut Schema) {
    let properties = take_properties(schema, &["schema_version", "experiment_id", "retracted"]);
    // An older worker ignores `kind`, and must not count a holdout among the experiments.
    let kind_needs_version = json!({
        "if": given(&["kind"]),
        "then": { "properties": { "schema_version": { "const": SCHEMA_VERSION_WITH_KIND } } }
    });
    schema.insert("if".to_owned(), is("retracted", json!(true)));
    schema.insert("then".to_owned(), absent(&["results"]));
    let needed = given(&["revision", "completed_at", "results"]);
    schema.insert("else".to_owned(), json!({ "properties": properties, "allOf": [needed, kind_needs_version] }));
}

/// A retraction needs no more than its key; every other result has arms or effects.
pub(super) fn result(schema: &mut Schema) {
    let properties = take_properties(schema, &["metric", "segment", "scale", "status"]);
    schema.insert("if".to_owned(), is("status", json!("retracted")));
    schema.insert("then".to_owned(), json!(true));
    let measured = json!({ "anyOf": [given(&["mean"]), given(&["sum"]), given(&["successes"])] });
    let arms = json!({
        "allOf": [absent(&["effects", "control_variance", "covariance", "variance_form"])],
        "properties": { "control": measured, "treatments": { "items": measured } },
        "if": is("accumulate", json!(true)),
        "then": { "anyOf": [given(&["control"]), given(&["treatments"])] },
        "else": given(&["control"])
    });
    let effects_are = |form: Value| json!({ "properties": { "effects": { "items": form } } });
    let effects = json!({
        "allOf": [given(&["effects"]), absent(&["treatments"])],
        "properties": { "control": { "allOf": [given(&["n"]), absent(ARM_NUMBERS)] } },
        "anyOf": [
            {
                "allOf": [
                    given(&["covariance"]),
                    absent(&["control_variance", "variance_form"]),
                    effects_are(absent(&["treatment_variance"]))
                ]
            },
            {
                "allOf": [
                    absent(&["covariance"]),
                    effects_are(json!({ "anyOf": [given(&["variance"]), given(&["standard_error"]), given(&["ci_low"])] }))
                ]
            },
            {
                "allOf": [
                    absent(&["covariance", "variance_form"]),
                    // Without control_variance it is imputed.
                    { "anyOf": [given(&["control_variance"]), given(&["control"])] },
                    effects_are(given(&["treatment_variance"]))
                ]
            }
        ]
    });
    schema.insert("else".to_owned(), json!({ "properties": properties, "oneOf": [arms, effects] }));
}

/// What an arm has besides its variant and n.
const ARM_NUMBERS: &[&str] = &[
    "mean",
    "variance",
    "standard_deviation",
    "standard_error",
    "sum",
    "sum_squares",
    "denominator_sum",
    "denominator_sum_squares",
    "numerator_denominator_sum_product",
    "covariate_sum",
    "covariate_sum_squares",
    "main_covariate_sum_product",
    "successes",
];

/// The forms of an arm; n alone stands beside effects.
pub(super) fn arm(schema: &mut Schema) {
    let form = |needed: &[&str]| {
        let others: Vec<&str> = ARM_NUMBERS.iter().copied().filter(|name| !needed.contains(name)).collect();
        json!({ "allOf": [given(needed), absent(&others)] })
    };
    let sums = ["n", "sum", "sum_squares"];
    let ratio = ["denominator_sum", "denominator_sum_squares", "numerator_denominator_sum_product"];
    let covariate = ["covariate_sum", "covariate_sum_squares", "main_covariate_sum_product"];
    let forms = [
        form(&["n", "mean", "variance"]),
        form(&["n", "mean", "standard_deviation"]),
        form(&sums),
        form(&[&sums[..], &ratio].concat()),
        form(&[&sums[..], &covariate].concat()),
        form(&["n", "successes"]),
        form(&["mean", "standard_error"]),
        form(&["n"]),
    ];
    schema.insert("oneOf".to_owned(), json!(forms));
}

/// At most one form of an effect's sampling error; a covariance may say it, too.
pub(super) fn effect(schema: &mut Schema) {
    let all = ["variance", "standard_error", "ci_low", "ci_high", "ci_level", "treatment_variance"];
    let form = |needed: &[&str], optional: &[&str]| {
        let is_other = |name: &&str| !needed.contains(name) && !optional.contains(name);
        let others: Vec<&str> = all.into_iter().filter(is_other).collect();
        json!({ "allOf": [given(needed), absent(&others)] })
    };
    let forms = [
        form(&["variance"], &[]),
        form(&["standard_error"], &[]),
        form(&["ci_low", "ci_high"], &["ci_level"]),
        form(&["treatment_variance"], &[]),
        form(&[], &[]),
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
