//! Ratios to a control: variances that do not follow the estimates, limits, and what is warned of.

use proptest::prelude::*;
use shrinkd_core::{
    Arm, ArmStatistics, Arms, Effects, Measured, Measurement, ReportedResult, Scale, Uncertainty, WarningCode,
    is_lift_too_large, measure,
};
use shrinkd_model::Covariance;

use super::{measured, reason, refusal, result};

fn shared(measured: &Measured) -> (&[f64], f64) {
    match measured.block.covariance() {
        Covariance::SharedControl { treatment_variances, control_variance } => (treatment_variances, *control_variance),
        Covariance::Dense { .. } => panic!("{measured:?} is dense"),
    }
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs(), "{found:e} is not {expected:e}");
}

fn counted(scale: &str, control: (u64, u64), treatments: &[(u64, u64)]) -> String {
    let treatments: Vec<String> = treatments
        .iter()
        .enumerate()
        .map(|(i, (n, successes))| format!(r#"{{"variant":"v{i}","n":{n},"successes":{successes}}}"#))
        .collect();
    format!(
        r#"{{"metric":"m","scale":"{scale}","control":{{"variant":"c","n":{},"successes":{}}},"treatments":[{}]}}"#,
        control.0,
        control.1,
        treatments.join(",")
    )
}

fn codes(text: &str) -> Vec<WarningCode> {
    match result(text) {
        Ok(ReportedResult::Whole { findings, .. }) => findings.warnings.iter().map(|warning| warning.code).collect(),
        other => panic!("{text} is not taken: {other:?}"),
    }
}

/// growthbook#6658: a metric with a negative baseline. Mean of the control and of the treatment, the lift.
#[test]
fn a_lift_has_the_sign_of_the_difference_where_the_controls_mean_is_below_0() {
    for (control, treatment, lift) in [(-10.0, -5.0, 0.5), (-10.0, -15.0, -0.5), (-2.0, 3.0, 2.5)] {
        let text = format!(
            r#"{{"metric":"profit","scale":"relative","control":{{"variant":"c","n":1000,"mean":{control},"variance":25}},
                "treatments":[{{"variant":"t","n":1000,"mean":{treatment},"variance":25}}]}}"#
        );
        let measured = measured(&text);
        assert_close(measured.block.effects()[0], lift, 1e-15);
        let (d, c) = shared(&measured);
        let square: f64 = control * control;
        assert_close(d[0], 0.025 / square, 1e-15);
        assert_close(c, 0.025 / square, 1e-15);
        let ratio = treatment / control;
        assert_close(measured.raw_variances[0], 0.025 / square * (1.0 + ratio * ratio), 1e-15);
    }
}

proptest! {
    /// The effects as platforms compute them, with the delta method's variances.
    #[test]
    fn arms_and_effects_of_the_same_data_give_the_same_block(
        control in prop_oneof![0.1..10.0_f64, -10.0..-0.1],
        control_variation in 1e-4..0.05_f64,
        treatments in prop::collection::vec((-0.9..3.0_f64, 1e-4..0.3_f64), 1..5),
    ) {
        let arm = |variant: &str, mean: f64, standard_error: f64| Arm {
            variant: variant.to_owned(),
            statistics: ArmStatistics::Summary { n: None, mean, standard_error },
        };
        let (names, control_error): (Vec<String>, f64) =
            ((0..treatments.len()).map(|i| format!("v{i}")).collect(), control_variation * control.abs());
        let means: Vec<f64> = treatments.iter().map(|(lift, _)| control + lift * control.abs()).collect();
        let errors: Vec<f64> = treatments.iter().map(|(_, error)| error * control.abs()).collect();
        let arms = Arms {
            control: Some(arm("control", control, control_error)),
            treatments: (0..names.len()).map(|i| arm(&names[i], means[i], errors[i])).collect(),
        };
        let Ok(of_arms) = measure(Scale::Relative, &Measurement::Arms(arms)) else { return Ok(()) };
        let lifts: Vec<f64> = means.iter().map(|mean| (mean - control) / control.abs()).collect();
        let own: Vec<f64> = errors.iter().map(|error| (error / control).powi(2)).collect();
        let c = (control_error / control).powi(2);
        let delta: Vec<f64> = (0..own.len()).map(|i| own[i] + (means[i] / control).powi(2) * c).collect();
        let mut forms = vec![
            Uncertainty::ScaledVariances { variances: own.iter().map(|d| d + c).collect(), control_variance: c },
            Uncertainty::TreatmentVariances { variances: own.clone(), control_variance: c },
        ];
        if control > 0.0 {
            forms.push(Uncertainty::SharedControl { variances: delta.clone(), control_variance: c });
        }
        for uncertainty in forms {
            let effects = Effects { variants: names.clone(), estimates: lifts.clone(), uncertainty };
            let of_effects = measure(Scale::Relative, &Measurement::Effects(effects)).unwrap();
            let ((d, c), (other_d, other_c)) = (shared(&of_arms), shared(&of_effects));
            assert_close(other_c, c, 1e-12);
            for i in 0..d.len() {
                assert_close(of_effects.block.effects()[i], of_arms.block.effects()[i], 1e-12);
                // Relative to the whole variance, of which d can be a small part.
                prop_assert!((other_d[i] - d[i]).abs() <= 1e-12 * delta[i], "{} is not {}", other_d[i], d[i]);
                if control > 0.0 {
                    assert_close(of_effects.raw_variances[i], of_arms.raw_variances[i], 1e-12);
                }
            }
            prop_assert!(of_arms.raw_variances.iter().zip(&delta).all(|(raw, delta)| (raw - delta).abs() <= 1e-12 * delta));
        }
    }
}

#[test]
fn arms_that_differ_by_no_more_than_chance_have_the_variances_of_their_pool() {
    // 40, 32 and 48 of 3,000: Pearson's statistic is 3.24 on 2 degrees of freedom, B = 0.383.
    let (n, events) = (3_000.0, [40.0, 32.0, 48.0]);
    let pooled = 120.0 / 9_000.0;
    let homogeneity: f64 = events.iter().map(|s: &f64| (s - n * pooled).powi(2) / (n * pooled * (1.0 - pooled))).sum();
    let rate = |s: f64| pooled + (1.0 - 2.0 / homogeneity) * (s / n - pooled);
    let of_scale = |scale: &str| measured(&counted(scale, (3_000, 40), &[(3_000, 32), (3_000, 48)]));
    let relative = of_scale("relative");
    let (d, c) = shared(&relative);
    for (found, events) in [(d[0], 32.0), (d[1], 48.0), (c, 40.0)] {
        assert_close(found, rate(events) * (1.0 - rate(events)) / n / rate(40.0).powi(2), 1e-12);
    }
    let log_ratio = of_scale("log_ratio");
    let (d, c) = shared(&log_ratio);
    for (found, events) in [(d[0], 32.0), (d[1], 48.0), (c, 40.0)] {
        assert_close(found, (1.0 - rate(events)) / rate(events) / n, 1e-12);
    }
    // What platforms show is not pooled.
    let own = |s: f64| s / n * (1.0 - s / n) / (n - 1.0);
    let control = 40.0 / n;
    assert_close(relative.raw_variances[0], (own(32.0) + (0.8_f64).powi(2) * own(40.0)) / control.powi(2), 1e-12);
    assert_eq!(relative.block.effects().iter().map(|x| (x * 1e9).round() / 1e9).collect::<Vec<_>>(), [-0.2, 0.2]);
    let equal = measured(&counted("relative", (3_000, 40), &[(3_000, 40), (1_500, 20)]));
    let (d, c) = shared(&equal);
    assert_close(c, (1.0 - control) / 40.0, 1e-12);
    assert_close(d[1], 2.0 * c, 1e-12);
}

#[test]
fn arms_that_really_differ_keep_their_own_variances() {
    let measured = measured(&counted("relative", (100_000, 10_000), &[(100_000, 20_000)]));
    let (d, c) = shared(&measured);
    assert_close(d[0], 0.2 * 0.8 / 100_000.0 / 0.01, 1e-3);
    assert_close(c, 0.1 * 0.9 / 100_000.0 / 0.01, 1e-3);
}

#[test]
fn the_control_is_judged_by_the_pooled_rate_and_not_by_its_own_noise() {
    // The pool expects 25 events in every arm, which is known to 20%; the control happens to have fewer or more.
    for control in [12, 20, 30] {
        let text = counted("relative", (1_000_000, control), &[(1_000_000, 50 - control)]);
        assert_eq!(codes(&text)[0], WarningCode::ControlMeanImprecise, "{control}");
    }
    let refusal = refusal(&counted("relative", (1_000_000, 30), &[(1_000_000, 19)]));
    assert_eq!(refusal.reason.as_str(), "control_mean_near_zero");
    assert!(refusal.detail.contains("use scale log_ratio"), "{refusal}");
    // 400 expected events are known to 5%.
    assert!(codes(&counted("relative", (1_000_000, 390), &[(1_000_000, 410)])).is_empty());
    assert_eq!(codes(&counted("relative", (1_000_000, 410), &[(1_000_000, 380)])), [WarningCode::ControlMeanImprecise]);
}

/// Means 2 and 2.9 with a standard error s each: X^2 is 0.405 / s^2, so that the control's mean is taken as 2 + s^2 0.45 / 0.405.
#[test]
fn a_mean_is_judged_as_successes_are_shrunk_to_the_pool_by_as_much_as_the_arms_are_alike() {
    let text = |se: f64| {
        format!(
            r#"{{"metric":"m","scale":"relative","control":{{"variant":"c","mean":2,"standard_error":{se}}},
                "treatments":[{{"variant":"t","mean":2.9,"standard_error":{se}}}]}}"#
        )
    };
    // 5% of what it is taken as: 4.987% and 5.007%.
    assert!(codes(&text(0.1003)).is_empty());
    assert_eq!(codes(&text(0.1007)), [WarningCode::ControlMeanImprecise]);
}

#[test]
fn a_lift_is_too_large_on_relative_beyond_50_percent() {
    assert!(!is_lift_too_large(Scale::Relative, 0.5));
    assert!(is_lift_too_large(Scale::Relative, 0.5_f64.next_up()));
    assert!(!is_lift_too_large(Scale::Absolute, 2.0) && !is_lift_too_large(Scale::LogRatio, 2.0));
}

#[test]
fn where_every_unit_succeeds_the_pool_has_half_a_failure() {
    let measured = measured(&counted("log_ratio", (1_000, 1_000), &[(2_000, 2_000)]));
    let (d, c) = shared(&measured);
    let rate = 3_000.5 / 3_001.0;
    assert_close(c, (1.0 - rate) / rate / 1_000.0, 1e-9);
    assert_close(d[0], (1.0 - rate) / rate / 2_000.0, 1e-9);
}

/// A documented example of an experimentation platform: 4 of 200 sign up, then 10 of 200.
#[test]
fn few_events_are_refused_on_relative_with_the_scale_that_takes_them() {
    let refusal = refusal(&counted("relative", (200, 4), &[(200, 10)]));
    assert_eq!(refusal.reason.as_str(), "control_mean_near_zero");
    assert!(refusal.detail.contains("use scale log_ratio"), "{refusal}");
    assert_close(measured(&counted("log_ratio", (200, 4), &[(200, 10)])).block.effects()[0], 0.847_298, 1e-5);
    let negative = r#"{"metric":"m","scale":"relative","control":{"variant":"c","mean":-1,"standard_error":1},
        "treatments":[{"variant":"t","mean":-1,"standard_error":1}]}"#;
    assert!(super::refusal(negative).detail.contains("use scale absolute"));
}

#[test]
fn effects_are_judged_by_their_control_variance() {
    let text = |c: f64| {
        format!(
            r#"{{"metric":"m","scale":"relative","effects":[{{"variant":"t","estimate":0.01,"variance":0.1}}],
                "control_variance":{c}}}"#
        )
    };
    assert!(codes(&text(0.0025)).is_empty());
    assert_eq!(codes(&text(0.002_51)), [WarningCode::ControlMeanImprecise]);
    assert_eq!(codes(&text(0.04)), [WarningCode::ControlMeanImprecise]);
    assert_eq!(reason(&text(0.0401)).as_str(), "control_mean_near_zero");
    assert!(refusal(&text(0.0401)).detail.contains("use scale log_ratio"));
    let below = text(0.0401).replace("0.01,", "-1.01,");
    assert!(refusal(&below).detail.contains("use scale absolute"), "a mean of another sign has no logarithm");
}

#[test]
fn variances_that_follow_the_estimates_are_warned_of_where_they_cannot_be_mended() {
    let effect = r#""effects":[{"variant":"t","estimate":0.01,"variance":0.1}]"#;
    let dense = r#""effects":[{"variant":"t","estimate":0.01}],"covariance":[[0.1]]"#;
    for (form, is_warned) in [
        (effect.to_owned(), true),
        (dense.to_owned(), true),
        (format!(r#"{effect},"control_variance":0.001"#), false),
        (format!(r#"{effect},"variance_form":"scaled""#), false),
        (effect.replace("variance", "treatment_variance") + r#","control_variance":0"#, false),
    ] {
        let text = |scale: &str| format!(r#"{{"metric":"m","scale":"{scale}",{form}}}"#);
        assert_eq!(codes(&text("relative")).contains(&WarningCode::BiasOfRelative), is_warned, "{form}");
        assert!(codes(&text("log_ratio")).is_empty() && codes(&text("absolute")).is_empty(), "{form}");
    }
}

#[test]
fn a_lift_beyond_half_is_warned_of_and_names_the_largest() {
    let text = counted("relative", (100_000, 10_000), &[(100_000, 16_000), (100_000, 14_000), (100_000, 18_000)]);
    let Ok(ReportedResult::Whole { findings, .. }) = result(&text) else { panic!("{text} is taken") };
    let [warning] = findings.warnings.as_slice() else { panic!("one warning: {findings:?}") };
    assert_eq!(
        warning.to_string(),
        "lift_too_large_for_relative: experiment \"exp-1\", metric \"m\": variant \"v2\" has a lift of +80%, and 1 other \
         variant one beyond +50%: intervals on relative are too narrow there, use scale log_ratio where every mean is above 0"
    );
    assert!(codes(&text.replace("relative", "log_ratio")).is_empty());
}

#[test]
fn a_treatments_own_variance_takes_the_place_of_the_whole_in_all_effects() {
    let first = r#"{"variant":"t","estimate":-0.3,"treatment_variance":0.001}"#;
    let text =
        |second: &str, more: &str| format!(r#"{{"metric":"m","scale":"relative","effects":[{first},{second}]{more}}}"#);
    let good = text(&first.replace("\"t\"", "\"u\""), r#","control_variance":0.0004"#);
    let measured = measured(&good);
    assert_eq!(shared(&measured), (&[0.001, 0.001][..], 0.0004));
    assert_close(measured.raw_variances[0], 0.001 + 0.49 * 0.0004, 1e-15);
    for bad in [
        text(r#"{"variant":"u","estimate":0,"variance":0.01}"#, r#","control_variance":0.0004"#),
        text(
            &first.replace("\"t\"", "\"u\"").replace("0.001}", "0.001,\"variance\":0.01}"),
            r#","control_variance":0"#,
        ),
        good.replace("}]", r#"}],"variance_form":"scaled""#),
        text(&first.replace("\"t\"", "\"u\""), r#","covariance":[[1,0],[0,1]]"#),
        good.replace("}]", r#"}],"variance_form":"whole""#),
    ] {
        assert_eq!(reason(&bad).as_str(), "schema_violation", "{bad}");
    }
    assert_eq!(reason(&good.replace(r#","control_variance":0.0004"#, "")).as_str(), "covariance_required");
}

/// A control mean below 0: the loading that the delta method has is 1 - estimate, which a lift alone does not tell.
#[test]
fn a_control_variance_that_leaves_nothing_says_how_to_send_it_under_a_negative_mean() {
    let text = r#"{"metric":"m","scale":"relative","effects":[{"variant":"t","estimate":0.9,"variance":0.0011}],"control_variance":0.001}"#;
    let refusal = refusal(text);
    assert_eq!((refusal.reason.as_str(), refusal.variant.as_deref()), ("control_variance_too_large", Some("t")));
    for advice in ["treatment_variance", "covariance", "own n"] {
        assert!(refusal.detail.contains(advice), "{refusal}");
    }
}
