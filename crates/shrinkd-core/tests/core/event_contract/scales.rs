//! What a measurement says on each scale, against figures worked out by hand.

use proptest::prelude::*;
use shrinkd_core::{Effects, Measurement, ReportedResult, Scale, Uncertainty, measure};
use shrinkd_model::Covariance;

use super::{measured, reason, result};

/// Effects, d and c of a result.
fn block(text: &str) -> (Vec<f64>, Vec<f64>, f64) {
    let block = measured(text).block;
    match block.covariance() {
        Covariance::SharedControl { treatment_variances, control_variance } => {
            (block.effects().to_vec(), treatment_variances.clone(), *control_variance)
        }
        Covariance::Dense { .. } => panic!("{text} is dense"),
    }
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 4.0 * f64::EPSILON * expected.abs(), "{found} is not {expected}");
    }
}

/// Means 10, 12, 9; variances of the means 0.4, 0.9, 0.5.
fn three_arms(scale: &str) -> String {
    format!(
        r#"{{"metric":"m","scale":"{scale}","control":{{"variant":"c","n":100,"mean":10,"variance":40}},
            "treatments":[{{"variant":"B","n":50,"mean":9,"variance":25}},{{"variant":"A","n":100,"mean":12,"variance":90}}]}}"#
    )
}

#[test]
fn absolute_effects_are_differences_of_means() {
    let (effects, d, c) = block(&three_arms("absolute"));
    assert_close(&effects, &[2.0, -1.0]);
    assert_close(&d, &[0.9, 0.5]);
    assert_close(&[c], &[0.4]);
}

#[test]
fn relative_variances_are_relative_to_the_controls_mean() {
    let (effects, d, c) = block(&three_arms("relative"));
    assert_close(&effects, &[0.2, -0.1]);
    assert_close(&d, &[0.009, 0.005]);
    assert_close(&[c], &[0.004]);
}

#[test]
fn log_ratio_variances_are_relative_to_each_arms_own_mean() {
    let (effects, d, c) = block(&three_arms("log_ratio"));
    assert_close(&effects, &[1.2_f64.ln(), 0.9_f64.ln()]);
    assert_close(&d, &[0.9 / 144.0, 0.5 / 81.0]);
    assert_close(&[c], &[0.004]);
}

#[test]
fn variants_come_in_the_order_of_their_names() {
    assert_eq!(measured(&three_arms("absolute")).variants, ["A", "B"]);
}

#[test]
fn every_form_of_an_arm_says_the_same() {
    // The units 1, 1, 0, 1, 0: n 5, mean 0.6, variance 0.3, standard error sqrt(0.06).
    let forms = [
        r#""n":5,"mean":0.6,"variance":0.3"#.to_owned(),
        r#""n":5,"sum":3,"sum_squares":3"#.to_owned(),
        r#""n":5,"successes":3"#.to_owned(),
        format!(r#""mean":0.6,"standard_error":{}"#, 0.06_f64.sqrt()),
    ];
    for control in &forms {
        for treatment in &forms {
            let text = format!(
                r#"{{"metric":"m","control":{{"variant":"c",{control}}},"treatments":[{{"variant":"t",{treatment}}}]}}"#
            );
            let (_, d, c) = block(&text);
            assert_close(&[d[0], c], &[0.06, 0.06]);
        }
    }
}

#[test]
fn sums_keep_the_spread_of_units_far_from_zero() {
    // The units 1e8 + 1, 1e8 + 2, 1e8 + 3, 1e8 + 4: their squares cancel to M2 = 5 only in exact arithmetic.
    let arm = r#""n":4,"sum":400000010,"sum_squares":40000002000000030"#;
    let text = format!(r#"{{"metric":"m","control":{{"variant":"c",{arm}}},"treatments":[{{"variant":"t",{arm}}}]}}"#);
    // 40000002000000030 is no f64: the nearest, 40000002000000032, is 2 more, and that is what M2 must show.
    let (_, d, _) = block(&text);
    assert_close(&d, &[7.0 / 3.0 / 4.0]);
}

#[test]
fn a_close_log_ratio_keeps_its_digits() {
    let text = r#"{"metric":"m","scale":"log_ratio","control":{"variant":"c","mean":1,"standard_error":1e-9},
        "treatments":[{"variant":"t","mean":1.00000000023283064365386962890625,"standard_error":1e-9}]}"#;
    let x = 2.0_f64.powi(-32);
    assert_close(&block(text).0, &[x - x * x / 2.0]);
}

#[test]
fn reported_effects_split_their_variance_between_treatment_and_control() {
    let effects = r#""effects":[{"variant":"B","estimate":-0.25,"variance":0.75},{"variant":"A","estimate":0.5,"variance":1.0}],"control_variance":0.25"#;
    let (estimates, d, c) = block(&format!(r#"{{"metric":"m","scale":"log_ratio",{effects}}}"#));
    assert_eq!((estimates, d, c), (vec![0.5, -0.25], vec![0.75, 0.5], 0.25));
    // With a control that is known to an eighth of its mean.
    let effects = effects.replace("0.75", "0.046875").replace("1.0", "0.0625").replace(":0.25", ":0.015625");
    let (_, d, c) = block(&format!(r#"{{"metric":"m","scale":"relative",{effects}}}"#));
    assert_eq!((d, c), (vec![(1.0 - 0.25 * 2.25) / 16.0, (0.75 - 0.25 * 0.5625) / 16.0], 0.015625));
}

#[test]
fn a_covariance_is_sorted_with_its_variants() {
    let text = r#"{"metric":"m","effects":[{"variant":"C","estimate":3},{"variant":"A","estimate":1},{"variant":"B","estimate":2}],
        "covariance":[[3,0.31,0.32],[0.31,1,0.12],[0.32,0.12,2]]}"#;
    let measured = measured(text);
    assert_eq!(measured.variants, ["A", "B", "C"]);
    assert_eq!(measured.block.effects(), [1.0, 2.0, 3.0]);
    let matrix = vec![1.0, 0.12, 0.31, 0.12, 2.0, 0.32, 0.31, 0.32, 3.0];
    assert_eq!(*measured.block.covariance(), Covariance::Dense { matrix });
}

#[test]
fn equal_content_is_equal_whatever_order_it_was_sent_in() {
    let arms = |first: &str, second: &str| {
        result(&format!(
            r#"{{"metric":"m","control":{{"variant":"c","n":9,"successes":4}},"treatments":[{first},{second}]}}"#
        ))
    };
    let (t, u) = (r#"{"variant":"t","n":9,"successes":2}"#, r#"{"n":9.0,"variant":"u","successes":3}"#);
    assert_eq!(arms(t, u), arms(u, t));
    assert!(matches!(arms(t, u), Ok(ReportedResult::Whole { .. })));
}

#[test]
fn a_control_is_near_zero_above_a_fifth_of_itself_on_relative_and_within_one_standard_error_on_log_ratio() {
    let text = |scale: &str, mean: f64| {
        format!(
            r#"{{"metric":"m","scale":"{scale}","control":{{"variant":"c","mean":{mean},"standard_error":1}},
                "treatments":[{{"variant":"t","mean":{mean},"standard_error":1}}]}}"#
        )
    };
    for (scale, limit) in [("relative", 5.0), ("relative", -5.0), ("log_ratio", 1.0)] {
        assert!(result(&text(scale, limit)).is_ok(), "{scale} {limit}");
        assert_eq!(reason(&text(scale, limit * 0.999_999)).as_str(), "control_mean_near_zero");
    }
    assert!(result(&text("absolute", 0.0)).is_ok());
}

#[test]
fn a_single_event_is_enough_on_log_ratio() {
    for n in [2_u32, 3, 10, 1_000_003] {
        for arm in [format!(r#""n":{n},"successes":1"#), format!(r#""n":{n},"sum":1,"sum_squares":1"#)] {
            let text = format!(
                r#"{{"metric":"m","scale":"log_ratio","control":{{"variant":"c",{arm}}},"treatments":[{{"variant":"t","n":9,"successes":4}}]}}"#
            );
            assert!(result(&text).is_ok(), "{text}");
        }
    }
}

proptest! {
    /// Against integer arithmetic: offset `a / 2^30`, so `c w^2` is a multiple of `2^-60`.
    #[test]
    fn the_treatments_own_variance_keeps_its_digits_where_the_control_dominates(
        a in -(1_i64 << 29)..(1_i64 << 30), c in 1_i64..1_000_000, surplus in 1_i64..1_000_000
    ) {
        let (unit, square) = (2.0_f64.powi(60), 2.0_f64.powi(40));
        let w = i128::from((1_i64 << 30) + a);
        let part = i128::from(c) * w * w;
        // The nearest f64 above the control's part by the surplus: whatever it rounds to is the input.
        let variance = (part + i128::from(surplus) * (1 << 33)) as f64;
        let exact = variance as i128 - part;
        prop_assume!(exact > 0);
        let effects = Effects {
            variants: vec!["t".to_owned()],
            estimates: vec![a as f64 / 2.0_f64.powi(30)],
            // In a unit of 2^-20, in which the control's error is small enough for a ratio.
            uncertainty: Uncertainty::SharedControl {
                variances: vec![variance / unit / square],
                control_variance: c as f64 / square,
            },
        };
        let measured = measure(Scale::Relative, &Measurement::Effects(effects)).unwrap();
        let Covariance::SharedControl { treatment_variances, .. } = measured.block.covariance() else { unreachable!() };
        let found = treatment_variances[0] * square * unit;
        prop_assert!((found - exact as f64).abs() <= 4.0 * f64::EPSILON * exact as f64, "{found} is not {exact}");
    }
}
