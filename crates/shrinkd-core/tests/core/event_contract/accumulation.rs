//! Parts of a result add up to what the pooled units say.

use proptest::prelude::*;
use shrinkd_core::{Arm, ArmStatistics, Arms, Measurement, Reason, ReportedResult, Scale, measure, merge_parts};

use super::result;

#[track_caller]
fn part(text: &str) -> Arms {
    match result(&format!(r#"{{"metric":"m","accumulate":true,{text}}}"#)) {
        Ok(ReportedResult::Part { arms, .. }) => arms,
        other => panic!("{text} is no part: {other:?}"),
    }
}

fn moments(units: &[f64]) -> ArmStatistics {
    let n = units.len();
    let mean = if n == 0 { 0.0 } else { units.iter().sum::<f64>() / n as f64 };
    ArmStatistics::Moments { n: n as u64, mean, m2: units.iter().map(|unit| (unit - mean).powi(2)).sum() }
}

fn arm(variant: &str, units: &[f64]) -> Arm {
    Arm { variant: variant.to_owned(), statistics: moments(units) }
}

/// Equal but for rounding: that of a mean is in proportion to its units, which can be far larger than it.
fn is_close(a: &ArmStatistics, b: &ArmStatistics) -> bool {
    let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(size).max(1e-9);
    match (a, b) {
        (ArmStatistics::Moments { n, mean, m2 }, ArmStatistics::Moments { n: n_b, mean: mean_b, m2: m2_b }) => {
            let unit = (m2 / (*n).max(1) as f64).sqrt();
            n == n_b && close(*mean, *mean_b, unit) && close(*m2, *m2_b, 0.0)
        }
        _ => false,
    }
}

#[test]
fn parts_add_up_to_the_whole() {
    let parts = [
        part(
            r#""control":{"variant":"c","n":2,"sum":3,"sum_squares":5},"treatments":[{"variant":"t","n":1,"sum":4,"sum_squares":16}]"#,
        ),
        part(
            r#""treatments":[{"variant":"u","n":2,"sum":11,"sum_squares":61},{"variant":"t","n":1,"sum":6,"sum_squares":36}]"#,
        ),
        part(r#""control":{"variant":"c","n":1,"mean":3,"variance":0}"#),
    ];
    let merged = merge_parts(parts.iter()).unwrap();
    // Control 1, 2, 3; t 4, 6; u 5, 6.
    assert!(is_close(&merged.control.as_ref().unwrap().statistics, &moments(&[1.0, 2.0, 3.0])));
    let names: Vec<&str> = merged.treatments.iter().map(|arm| arm.variant.as_str()).collect();
    assert_eq!(names, ["t", "u"]);
    assert!(is_close(&merged.treatments[0].statistics, &moments(&[4.0, 6.0])));
    assert!(is_close(&merged.treatments[1].statistics, &moments(&[5.0, 6.0])));
    let measured = measure(Scale::Absolute, &Measurement::Arms(merged)).unwrap();
    assert_eq!(measured.block.effects(), [3.0, 3.5]);
}

#[test]
fn the_estimate_is_judged_on_the_sum_alone() {
    let control = part(r#""control":{"variant":"c","n":9,"successes":4}"#);
    let one = part(r#""treatments":[{"variant":"t","n":1,"successes":1}]"#);
    let other = part(r#""treatments":[{"variant":"t","n":1,"successes":0}]"#);
    let constant = part(r#""treatments":[{"variant":"t","n":2,"mean":1,"variance":0}]"#);
    let reason = |parts: &[&Arms]| {
        let merged = merge_parts(parts.iter().copied()).unwrap();
        measure(Scale::Absolute, &Measurement::Arms(merged)).err().map(|refusal| refusal.reason)
    };
    assert_eq!(reason(&[]), Some(Reason::SchemaViolation));
    assert_eq!(reason(&[&one, &other]), Some(Reason::SchemaViolation));
    assert_eq!(reason(&[&control]), Some(Reason::NoTreatments));
    assert_eq!(reason(&[&control, &one]), Some(Reason::SampleTooSmall));
    assert_eq!(reason(&[&control, &constant]), Some(Reason::NonPositiveVariance));
    assert_eq!(reason(&[&control, &one, &one]), None);
    assert_eq!(reason(&[&control, &one, &other]), None);
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let control = part(r#""control":{"variant":"c","n":9,"successes":4}"#);
    let other_control = part(r#""control":{"variant":"d","n":9,"successes":4}"#);
    let named_like_it = part(r#""treatments":[{"variant":"c","n":9,"successes":4}]"#);
    let largest = part(r#""control":{"variant":"c","n":9223372036854775807,"mean":1,"variance":1}"#);
    let far = part(r#""control":{"variant":"c","n":9,"mean":1e200,"variance":1}"#);
    let summary = ArmStatistics::Summary { n: Some(9), mean: 1.0, standard_error: 1.0 };
    let summary = Arms { control: Some(Arm { variant: "c".to_owned(), statistics: summary }), treatments: Vec::new() };
    for (parts, reason) in [
        ([&control, &other_control], Reason::NotAccumulable),
        ([&control, &summary], Reason::NotAccumulable),
        ([&control, &named_like_it], Reason::DuplicateVariant),
        ([&control, &largest], Reason::ImplausibleScale),
        ([&control, &far], Reason::ImplausibleScale),
    ] {
        assert_eq!(merge_parts(parts.into_iter()).unwrap_err().reason, reason);
    }
}

proptest! {
    #[test]
    fn merged_parts_equal_the_pooled_units_and_the_order_of_arms_cannot_matter(
        shards in prop::collection::vec(prop::collection::vec(-1e3..1e3_f64, 0..20), 1..12),
        reversed in any::<bool>(),
    ) {
        let parts: Vec<Arms> = shards.iter().map(|units| {
            let halves = units.split_at(units.len() / 2);
            let mut treatments = vec![arm("t", units), arm("u", halves.0), arm("v", halves.1)];
            if reversed {
                treatments.reverse();
            }
            Arms { control: Some(arm("c", units)), treatments }
        }).collect();
        let merged = merge_parts(parts.iter()).unwrap();
        let pooled = |part: fn(&[f64]) -> &[f64]| -> Vec<f64> { shards.iter().flat_map(|units| part(units).to_vec()).collect() };
        let expected = [
            ("t", pooled(|units| units)),
            ("u", pooled(|units| units.split_at(units.len() / 2).0)),
            ("v", pooled(|units| units.split_at(units.len() / 2).1)),
        ];
        prop_assert_eq!(merged.treatments.len(), 3);
        for (found, (variant, units)) in merged.treatments.iter().zip(&expected) {
            prop_assert_eq!(&found.variant, variant);
            prop_assert!(is_close(&found.statistics, &moments(units)), "{:?} is not {:?}", found, moments(units));
        }
        prop_assert_eq!(merged.control.unwrap().statistics, merged.treatments[0].statistics);
    }
}

#[test]
fn successes_add_up_to_successes_whatever_form_their_parts_have() {
    let sent = [
        part(r#""control":{"variant":"c","n":100,"successes":4}"#),
        part(r#""control":{"variant":"c","n":50,"sum":3,"sum_squares":3}"#),
        part(r#""control":{"variant":"c","n":7,"sum":0,"sum_squares":0}"#),
        part(r#""control":{"variant":"c","n":1,"mean":1,"variance":0}"#),
    ];
    let expected = ArmStatistics::Successes { n: 158, successes: 8 };
    for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
        let merged = merge_parts(order.iter().map(|&i: &usize| &sent[i])).unwrap().control.unwrap();
        assert!(matches!(merged.statistics, ArmStatistics::Successes { .. }));
        assert_eq!(merged.statistics, expected);
    }
    let other = part(r#""control":{"variant":"c","n":2,"mean":0.5,"variance":0.1}"#);
    let merged = merge_parts(sent.iter().chain([&other])).unwrap().control.unwrap();
    assert!(matches!(merged.statistics, ArmStatistics::Moments { n: 160, .. }), "units of another kind: {merged:?}");
}
