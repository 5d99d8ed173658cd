//! Ratio metrics and means adjusted for a covariate, from sums: they equal the delta method in dense matrices.

use shrinkd_core::{ArmStatistics, Measured, Measurement, ReportedResult, Scale, measure, merge_parts};
use shrinkd_model::Covariance;

use super::{measured, reason, result};

/// Two values of each unit, of three arms: the control first.
type Units = Vec<(f64, f64)>;

/// Units that vary and are correlated; whole numbers, so that their sums are exact.
fn arms() -> [Units; 3] {
    let unit = |arm: i64, i: i64| {
        let second = 3 + (i * 7 + arm * 5) % 11;
        let first = second * 2 + (i * i * 3 + arm) % 13 + arm;
        (first as f64, second as f64)
    };
    [(0, 60), (1, 50), (2, 41)].map(|(arm, n)| (0..n).map(|i| unit(arm, i)).collect())
}

fn sums(units: &Units, names: [&str; 3]) -> String {
    let sum = |of: fn(&(f64, f64)) -> f64| units.iter().map(of).sum::<f64>();
    format!(
        r#""n":{},"sum":{:?},"sum_squares":{:?},"{}":{:?},"{}":{:?},"{}":{:?}"#,
        units.len(),
        sum(|u| u.0),
        sum(|u| u.0 * u.0),
        names[0],
        sum(|u| u.1),
        names[1],
        sum(|u| u.1 * u.1),
        names[2],
        sum(|u| u.0 * u.1)
    )
}

const RATIO: [&str; 3] = ["denominator_sum", "denominator_sum_squares", "numerator_denominator_sum_product"];
const COVARIATE: [&str; 3] = ["covariate_sum", "covariate_sum_squares", "main_covariate_sum_product"];

fn message(scale: &str, arms: &[Units], names: [&str; 3]) -> String {
    let arm = |(i, units): (usize, &Units)| format!(r#"{{"variant":"{i}",{}}}"#, sums(units, names));
    let arms: Vec<String> = arms.iter().enumerate().map(arm).collect();
    format!(r#"{{"metric":"m","scale":"{scale}","control":{},"treatments":[{}]}}"#, arms[0], arms[1..].join(","))
}

/// Means of both values of every arm, one after the other, and their joint sampling covariance.
fn joint(arms: &[Units]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut means = Vec::new();
    let mut covariance = vec![vec![0.0; 2 * arms.len()]; 2 * arms.len()];
    for (arm, units) in arms.iter().enumerate() {
        let n = units.len() as f64;
        let (y, x) = (units.iter().map(|u| u.0).sum::<f64>() / n, units.iter().map(|u| u.1).sum::<f64>() / n);
        let between = |f: &dyn Fn(&(f64, f64)) -> f64| units.iter().map(f).sum::<f64>() / (n - 1.0) / n;
        covariance[2 * arm][2 * arm] = between(&|u| (u.0 - y) * (u.0 - y));
        covariance[2 * arm][2 * arm + 1] = between(&|u| (u.0 - y) * (u.1 - x));
        covariance[2 * arm + 1][2 * arm] = covariance[2 * arm][2 * arm + 1];
        covariance[2 * arm + 1][2 * arm + 1] = between(&|u| (u.1 - x) * (u.1 - x));
        means.extend([y, x]);
    }
    (means, covariance)
}

/// `J S J'`.
fn delta(jacobian: &[Vec<f64>], covariance: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let entry = |a: &Vec<f64>, b: &Vec<f64>| {
        let pairs = a.iter().enumerate().flat_map(|(i, x)| b.iter().enumerate().map(move |(j, y)| (i, j, x * y)));
        pairs.map(|(i, j, product)| product * covariance[i][j]).sum()
    };
    jacobian.iter().map(|a| jacobian.iter().map(|b| entry(a, b)).collect()).collect()
}

/// The gradients of the effects on a scale, from the values of the arms and the gradients of these.
fn gradients(scale: &str, values: &[f64], of_values: &[Vec<f64>]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let control = values[0];
    let effects = (1..values.len()).map(|i| {
        let value = values[i];
        let (effect, by_treatment, by_control) = match scale {
            "absolute" => (value - control, 1.0, -1.0),
            "relative" => (value / control - 1.0, 1.0 / control, -value / control / control),
            _ => ((value / control).ln(), 1.0 / value, -1.0 / control),
        };
        let gradient = of_values[i].iter().zip(&of_values[0]).map(|(t, c)| by_treatment * t + by_control * c).collect();
        (effect, gradient)
    });
    effects.unzip()
}

#[track_caller]
fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{what}: {found:?} is not {expected:?}");
}

/// Holds a block against the dense covariance of its effects.
fn assert_equal(scale: &str, measured: &Measured, values: &[f64], of_values: &[Vec<f64>], covariance: &[Vec<f64>]) {
    let (effects, jacobian) = gradients(scale, values, of_values);
    let dense = delta(&jacobian, covariance);
    let Covariance::SharedControl { treatment_variances, control_variance } = measured.block.covariance() else {
        panic!("a shared control");
    };
    for (i, effect) in effects.iter().enumerate() {
        assert_close(measured.block.effects()[i], *effect, "effect");
        assert_close(measured.raw_variances[i], dense[i][i], "variance");
        // On relative the control's error enters an effect with 1 + estimate, and the block has it alike in all.
        let loading = |i: usize| if scale == "relative" { 1.0 + effects[i] } else { 1.0 };
        for (j, expected) in dense[i].iter().enumerate() {
            let own = if i == j { treatment_variances[i] } else { 0.0 };
            assert_close(own + control_variance * loading(i) * loading(j), *expected, "covariance");
        }
    }
}

#[test]
fn a_ratio_metric_equals_the_delta_method_in_dense_matrices() {
    let arms = arms();
    let (means, covariance) = joint(&arms);
    let values: Vec<f64> = means.chunks(2).map(|mean| mean[0] / mean[1]).collect();
    let of_values: Vec<Vec<f64>> = (0..3)
        .map(|arm| {
            let mut gradient = vec![0.0; 6];
            gradient[2 * arm] = 1.0 / means[2 * arm + 1];
            gradient[2 * arm + 1] = -values[arm] / means[2 * arm + 1];
            gradient
        })
        .collect();
    for scale in ["absolute", "relative", "log_ratio"] {
        assert_equal(scale, &measured(&message(scale, &arms, RATIO)), &values, &of_values, &covariance);
    }
}

#[test]
fn a_mean_adjusted_for_a_covariate_equals_the_dense_algebra_of_both_means_with_theta_as_given() {
    let arms = arms();
    let (means, covariance) = joint(&arms);
    // One theta from the comoments within the arms; the mean of the covariate over all units is a constant.
    let within = |of: fn((f64, f64)) -> f64| -> f64 {
        let of_arm = |(arm, units): (usize, &Units)| -> f64 {
            units.iter().map(|u| of((u.0 - means[2 * arm], u.1 - means[2 * arm + 1]))).sum()
        };
        arms.iter().enumerate().map(of_arm).sum()
    };
    let theta = within(|(y, x)| y * x) / within(|(_, x)| x * x);
    let units: Vec<&(f64, f64)> = arms.iter().flatten().collect();
    let reference = units.iter().map(|u| u.1).sum::<f64>() / units.len() as f64;
    let values: Vec<f64> = means.chunks(2).map(|mean| mean[0] - theta * (mean[1] - reference)).collect();
    let of_values: Vec<Vec<f64>> = (0..3)
        .map(|arm| {
            let mut gradient = vec![0.0; 6];
            (gradient[2 * arm], gradient[2 * arm + 1]) = (1.0, -theta);
            gradient
        })
        .collect();
    for scale in ["absolute", "relative", "log_ratio"] {
        assert_equal(scale, &measured(&message(scale, &arms, COVARIATE)), &values, &of_values, &covariance);
    }
    // It helps: the variance is smaller than without the covariate.
    let plain = message("absolute", &arms, ["x", "y", "z"]);
    assert!(
        measured(&message("absolute", &arms, COVARIATE)).raw_variances[0] < 0.5 * measured(&plain).raw_variances[0]
    );
}

#[test]
fn sums_of_two_values_keep_their_spread_far_from_zero() {
    let far = arms().map(|units| units.into_iter().map(|(y, x)| (y + 1e6, x + 1e6)).collect::<Units>());
    let near = measured(&message("absolute", &arms(), COVARIATE));
    let far = measured(&message("absolute", &far, COVARIATE));
    assert!((far.raw_variances[0] / near.raw_variances[0] - 1.0).abs() < 1e-9);
}

#[test]
fn parts_of_two_values_add_up_to_the_whole() {
    for (names, scale) in [(RATIO, Scale::LogRatio), (COVARIATE, Scale::Absolute)] {
        let arms = arms();
        let parts: Vec<_> = [0..20, 20..20, 20..60]
            .into_iter()
            .map(|range| {
                let of = |units: &Units| {
                    units.iter().enumerate().filter(|(i, _)| range.contains(i)).map(|(_, u)| *u).collect()
                };
                let part = message(scale.as_str(), &[of(&arms[0]), of(&arms[1]), of(&arms[2])], names);
                match result(&part.replacen('{', r#"{"accumulate":true,"#, 1)) {
                    Ok(ReportedResult::Part { arms, .. }) => arms,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        let merged = merge_parts(parts.iter()).unwrap();
        let merged = measure(scale, &Measurement::Arms(merged)).unwrap();
        let whole = measured(&message(scale.as_str(), &arms, names));
        for (found, expected) in merged.raw_variances.iter().zip(&whole.raw_variances) {
            assert_close(*found, *expected, "variance");
        }
        for (found, expected) in merged.block.effects().iter().zip(whole.block.effects()) {
            assert_close(*found, *expected, "effect");
        }
    }
}

#[test]
fn parts_of_different_forms_do_not_add_up() {
    let arms = arms();
    let part = |names| match result(&message("absolute", &arms, names).replacen('{', r#"{"accumulate":true,"#, 1)) {
        Ok(ReportedResult::Part { arms, .. }) => arms,
        other => panic!("{other:?}"),
    };
    for [one, other] in [[RATIO, COVARIATE], [RATIO, ["x", "y", "z"]], [["x", "y", "z"], COVARIATE]] {
        let refused = merge_parts([part(one), part(other)].iter()).unwrap_err();
        assert_eq!(refused.reason.as_str(), "not_accumulable");
    }
    let [mut treatments, mut control] = [part(RATIO), part(COVARIATE)];
    treatments.control = None;
    control.treatments.clear();
    assert_eq!(merge_parts([treatments, control].iter()).unwrap_err().reason.as_str(), "not_accumulable");
}

#[test]
fn a_covariate_that_does_not_vary_changes_nothing() {
    let constant = arms().map(|units| units.into_iter().map(|(y, _)| (y, 2.0)).collect::<Units>());
    let adjusted = measured(&message("relative", &constant, COVARIATE));
    let plain = measured(&message("relative", &constant, ["x", "y", "z"]));
    assert_eq!(adjusted, plain);
}

#[test]
fn a_treatment_that_cannot_be_used_takes_no_part_in_the_adjustment() {
    let [control, treatment, _] = arms();
    let alone = measured(&message("relative", &[control.clone(), treatment.clone()], COVARIATE));
    let one_unit = vec![(5e3, 7e3)];
    match result(&message("relative", &[control, treatment, one_unit], COVARIATE)) {
        Ok(ReportedResult::Whole { measured, findings, measurement: Measurement::Arms(arms), .. }) => {
            assert_eq!(measured, alone);
            assert_eq!(findings.refused[0].reason.as_str(), "sample_too_small");
            assert!(matches!(arms.treatments[0].statistics, ArmStatistics::Covariate(_)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_treatment_whose_denominator_is_near_0_is_refused_alone() {
    let [control, treatment, _] = arms();
    let near_0 = treatment.iter().enumerate().map(|(i, (y, _))| (*y, if i % 2 == 0 { -3.0 } else { 3.1 })).collect();
    match result(&message("absolute", &[control.clone(), treatment, near_0], RATIO)) {
        Ok(ReportedResult::Whole { measured, findings, .. }) => {
            assert_eq!(measured.variants, ["1"]);
            assert_eq!(findings.refused[0].reason.as_str(), "non_positive_mean");
        }
        other => panic!("{other:?}"),
    }
    // A ratio that is the same in all units has no error.
    let constant: Units = control.iter().map(|(_, x)| (3.0 * x, *x)).collect();
    assert_eq!(reason(&message("absolute", &[constant, control], RATIO)).as_str(), "non_positive_variance");
}

/// A denominator that is a multiple of the numerator leaves the sum of products no room above what the sums of squares allow.
#[test]
fn a_sum_of_products_may_be_off_by_the_rounding_of_a_long_sum_in_any_unit() {
    for unit in [1e-6, 1.0, 1e6] {
        let text = |share: f64| {
            let product = 200.0 * unit * (1.0 + share);
            let arm = format!(
                r#""n":100,"sum":100,"sum_squares":200,"covariate_sum":{:e},"covariate_sum_squares":{:e},
                   "main_covariate_sum_product":{product:e}"#,
                100.0 * unit,
                200.0 * unit * unit
            );
            let plain = r#""n":100,"sum":100,"sum_squares":200,"covariate_sum":0,"covariate_sum_squares":200,
                           "main_covariate_sum_product":0"#;
            format!(r#"{{"metric":"m","control":{{"variant":"c",{arm}}},"treatments":[{{"variant":"t",{plain}}}]}}"#)
        };
        assert!(result(&text(0.9e-9)).is_ok(), "{unit}: {:?}", result(&text(0.9e-9)));
        let refusal = super::refusal(&text(1.1e-9));
        assert_eq!(refusal.reason.as_str(), "inconsistent_sums");
        assert!(refusal.detail.contains("sum of products"), "{unit}: {refusal}");
    }
}
