//! The published schema and the decoder say the same, as far as a schema can tell.

use proptest::prelude::*;
use serde_json::{Value, json};
use shrinkd_core::{Message, Reason, Refusal, ReportedResult, decode, event_schema};

use super::corpus::{InSchema, bad_messages, bad_results, good_messages};

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&event_schema()).expect("the schema is one")
}

#[test]
fn the_schema_is_a_valid_one_of_draft_2020_12_and_its_examples_are_taken() {
    assert!(jsonschema::draft202012::meta::is_valid(&event_schema()));
    let examples = event_schema()["examples"].as_array().unwrap().clone();
    assert_eq!(examples.len(), 3);
    for example in examples {
        assert!(validator().is_valid(&example), "{example}");
        match decode(example.to_string().as_bytes()) {
            Ok(Message::Event(event)) => assert!(event.results.iter().all(Result::is_ok), "{event:?}"),
            Ok(Message::Tombstone { .. }) => {}
            Err(refusal) => panic!("{example} is refused: {refusal}"),
        }
    }
}

#[test]
fn every_field_has_a_description() {
    fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
        let Some(object) = schema.as_object() else { return };
        for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let is_declared = property.get("type").is_some() || property.get("anyOf").is_some();
            let is_condition = property.get("type") == Some(&json!("null"));
            if is_declared && !is_condition && property.get("description").is_none() {
                found.push(format!("{path}.{name}"));
            }
        }
        for (name, inner) in object {
            undescribed(inner, &format!("{path}/{name}"), found);
        }
    }
    let mut found = Vec::new();
    undescribed(&event_schema(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_schema_takes_every_message_that_the_decoder_takes() {
    let validator = validator();
    for (name, text) in good_messages() {
        // The deepest messages are beyond what a validator's parser reads.
        if let Ok(value) = serde_json::from_str(&text) {
            assert!(validator.is_valid(&value), "{name}: {:?}", validator.validate(&value).err());
        }
    }
}

#[test]
fn the_schema_refuses_what_is_wrong_in_shape() {
    let validator = validator();
    for bad in bad_messages().into_iter().chain(bad_results()) {
        let parsed = serde_json::from_slice(&bad.bytes);
        match bad.in_schema {
            InSchema::Yes => assert!(!validator.is_valid(&parsed.unwrap()), "the schema takes: {}", bad.name),
            InSchema::No => {
                assert!(parsed.is_err() || validator.is_valid(&parsed.unwrap()), "the schema knows: {}", bad.name);
            }
        }
    }
}

/// A field that is right, null, absent or of another type.
fn field(right: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Option<Value>> {
    let wrong =
        prop::sample::select(vec![json!(true), json!("x"), json!(-3), json!([]), json!({}), json!(0.5), json!("")]);
    prop_oneof![
        12 => right.prop_map(Some),
        1 => Just(Some(Value::Null)),
        1 => Just(None),
        1 => wrong.prop_map(Some),
    ]
}

/// An optional field that is mostly left out.
fn rare(right: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![6 => Just(None), 1 => field(right)]
}

fn object(fields: Vec<(&'static str, BoxedStrategy<Option<Value>>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect()
        })
        .boxed()
}

fn one_of(values: &[Value]) -> BoxedStrategy<Value> {
    prop::sample::select(values.to_vec()).boxed()
}

fn arm(names: &[Value]) -> BoxedStrategy<Value> {
    let (number, count) = (one_of(&[json!(1.5), json!(2), json!(0)]), one_of(&[json!(5), json!(8.0), json!(1)]));
    let field = |name, strategy: &BoxedStrategy<Value>| (name, field(strategy.clone()).boxed());
    let rare = |name, strategy: &BoxedStrategy<Value>| (name, rare(strategy.clone()).boxed());
    let with = |form: Vec<_>, others: &[&'static str]| {
        let others = others.iter().map(|&name| rare(name, &number));
        object([field("variant", &one_of(names))].into_iter().chain(form).chain(others).collect())
    };
    prop_oneof![
        with(
            vec![field("n", &count), field("mean", &number), field("variance", &number)],
            &["standard_error", "standard_deviation"]
        ),
        with(vec![field("n", &count), field("mean", &number), field("standard_deviation", &number)], &["variance"]),
        with(vec![field("n", &count)], &["mean", "covariate_sum"]),
        with(vec![field("n", &count), field("sum", &number), field("sum_squares", &number)], &["mean"]),
        with(vec![field("n", &count), field("successes", &count)], &["variance", "sum"]),
        with(vec![rare("n", &count), field("mean", &number), field("standard_error", &number)], &["successes"]),
    ]
    .boxed()
}

fn result() -> BoxedStrategy<Value> {
    let number = one_of(&[json!(1.5), json!(2)]);
    let effect = object(vec![
        ("variant", field(one_of(&[json!("t"), json!("u")])).boxed()),
        ("estimate", field(number.clone()).boxed()),
        ("variance", prop_oneof![3 => field(number.clone()), 1 => Just(None)].boxed()),
        ("standard_error", rare(number.clone()).boxed()),
        ("ci_low", rare(one_of(&[json!(-1), json!(0.5)])).boxed()),
        ("ci_high", rare(one_of(&[json!(4), json!(2.5)])).boxed()),
        ("ci_level", rare(one_of(&[json!(0.9), json!(90)])).boxed()),
        ("n", rare(one_of(&[json!(9), json!(1.5)])).boxed()),
    ]);
    let list = |item: BoxedStrategy<Value>| prop::collection::vec(item, 1..3).prop_map(Value::from).boxed();
    let arms = vec![
        ("control", field(arm(&[json!("c")])).boxed()),
        ("treatments", field(list(arm(&[json!("t"), json!("u")]))).boxed()),
        ("effects", rare(list(effect.clone())).boxed()),
    ];
    let effects = vec![
        ("effects", field(list(effect)).boxed()),
        ("control_variance", rare(number.clone()).boxed()),
        ("control", rare(prop_oneof![arm(&[json!("c")]), Just(json!({"variant": "c", "n": 9}))]).boxed()),
    ];
    let with = |form: Vec<_>| {
        let mut fields = vec![
            ("metric", field(one_of(&[json!("m")])).boxed()),
            ("segment", rare(one_of(&[json!("s")])).boxed()),
            (
                "scale",
                rare(one_of(&[json!("absolute"), json!("relative"), json!("log_ratio"), json!("log_odds")])).boxed(),
            ),
            ("status", rare(one_of(&[json!("reported"), json!("retracted")])).boxed()),
            ("accumulate", rare(one_of(&[json!(true), json!(false)])).boxed()),
        ];
        fields.extend(form);
        object(fields)
    };
    prop_oneof![with(arms), with(effects)].boxed()
}

fn message() -> BoxedStrategy<Value> {
    let results = prop::collection::vec(result(), 0..3).prop_map(Value::from).boxed();
    let labels = one_of(&[json!({}), json!({"a": "b"}), json!({"a": null}), json!({"a": 1}), json!({"": "b"})]);
    let always = |strategy: BoxedStrategy<Value>| prop_oneof![9 => strategy.prop_map(Some), 1 => Just(None)].boxed();
    object(vec![
        ("schema_version", always(one_of(&[json!(1), json!(1), json!(1), json!(1.0), json!(2), json!("1")]))),
        ("experiment_id", always(one_of(&[json!("e")]))),
        ("revision", always(one_of(&[json!(0), json!(7.0)]))),
        ("completed_at", always(one_of(&[json!("2026-11-01T12:00:00Z")]))),
        ("event_id", rare(one_of(&[json!("m")])).boxed()),
        ("labels", rare(labels).boxed()),
        ("decision", rare(one_of(&[json!("shipped")])).boxed()),
        ("retracted", rare(one_of(&[json!(true), json!(false)])).boxed()),
        ("results", always(results)),
    ])
}

/// Whether the decoder finds the shape right, in the message and in all of its results and treatments.
fn is_well_shaped(text: &str) -> bool {
    let shape =
        [Reason::UnsupportedVersion, Reason::SchemaViolation, Reason::InvalidIdentifier, Reason::TooManyVariants];
    // Whether sums count successes no schema can say.
    let is_of_shape =
        |refusal: &Refusal| shape.contains(&refusal.reason) && !refusal.detail.contains("is not sent as successes");
    match decode(text.as_bytes()) {
        Ok(Message::Event(event)) => event.results.iter().all(|result| match result {
            Ok(ReportedResult::Whole { findings, .. }) => !findings.refused.iter().any(is_of_shape),
            Ok(ReportedResult::Part { .. } | ReportedResult::Retraction { .. }) => true,
            Err(refusal) => !is_of_shape(refusal),
        }),
        Ok(Message::Tombstone { .. }) => true,
        Err(refusal) => !is_of_shape(&refusal),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn schema_and_decoder_agree_on_generated_messages(message in message()) {
        thread_local!(static VALIDATOR: jsonschema::Validator = validator());
        let text = message.to_string();
        let in_schema = VALIDATOR.with(|validator| validator.is_valid(&message));
        prop_assert_eq!(is_well_shaped(&text), in_schema, "{}: {:?}", text, decode(text.as_bytes()));
    }
}
