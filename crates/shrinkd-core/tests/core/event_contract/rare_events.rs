//! Arms with few events or none, and treatments that are refused alone.

use shrinkd_core::{ReportedResult, WarningCode};

use super::{assert_close, measured, parts, reason, refusal, result};

/// Control and treatments, as (n, successes).
fn counted(scale: &str, arms: &[(u64, u64)]) -> String {
    let arm =
        |(i, (n, successes)): (usize, &(u64, u64))| format!(r#"{{"variant":"v{i}","n":{n},"successes":{successes}}}"#);
    let arms: Vec<String> = arms.iter().enumerate().map(arm).collect();
    let (control, treatments) = arms.split_first().unwrap();
    format!(r#"{{"metric":"m","scale":"{scale}","control":{control},"treatments":[{}]}}"#, treatments.join(","))
}

/// The variants that are refused and those that are measured.
fn split(text: &str) -> (Vec<(String, &'static str)>, Vec<String>) {
    match result(text) {
        Ok(ReportedResult::Whole { measured, findings, .. }) => {
            let refused =
                findings.refused.into_iter().map(|refusal| (refusal.variant.unwrap(), refusal.reason.as_str()));
            (refused.collect(), measured.variants)
        }
        other => panic!("{text} is not taken: {other:?}"),
    }
}

#[test]
fn on_absolute_an_arm_of_no_or_only_events_has_the_variance_of_half_an_event_more() {
    let measured = measured(&counted("absolute", &[(100, 10), (50, 0), (50, 50), (50, 5)]));
    assert_eq!(measured.block.effects(), [-0.1, 0.9, 0.0]);
    let (d, c) = parts(&measured);
    let smoothed = 0.5 / 51.0 * (50.5 / 51.0) / 50.0;
    for (found, expected) in d.iter().zip([smoothed, smoothed, 0.09 / 49.0]) {
        assert_close(*found, expected);
    }
    assert_close(c, 0.09 / 99.0);
    assert!(!measured.is_continuity_corrected);
}

#[test]
fn sums_of_zeros_or_of_ones_alone_are_successes_where_the_other_arms_are() {
    let sent = |arms: [String; 3]| {
        let [control, t, u] = arms;
        format!(
            r#"{{"metric":"m","control":{{"variant":"c",{control}}},
                "treatments":[{{"variant":"t",{t}}},{{"variant":"u",{u}}}]}}"#
        )
    };
    let successes = |events: u64| format!(r#""n":1000,"successes":{events}"#);
    let sums = |events: u64| format!(r#""n":1000,"sum":{events},"sum_squares":{events}"#);
    let constant = |mean: u64| format!(r#""n":1000,"mean":{mean},"variance":0"#);
    for [c, t, u] in [[0, 100, 120], [100, 0, 120], [100, 1000, 0], [1000, 900, 1000]] {
        let expected = measured(&sent([successes(c), successes(t), successes(u)]));
        assert_eq!(measured(&sent([sums(c), sums(t), sums(u)])), expected);
        assert_eq!(measured(&sent([sums(c), successes(t), sums(u)])), expected);
    }
    // Nothing says of these that they count events, so that their error is unknown; a mean comes with its variance.
    for constants in [[sums(0), sums(0), sums(0)], [sums(0), sums(1000), sums(0)], [constant(0), sums(100), sums(1000)]]
    {
        assert_eq!(reason(&sent(constants)).as_str(), "non_positive_variance");
    }
    let revenue = |sum: u64| format!(r#""n":1000,"sum":{sum},"sum_squares":99999"#);
    let flat = vec![("u".to_owned(), "non_positive_variance")];
    assert_eq!(split(&sent([revenue(700), revenue(900), sums(0)])), (flat.clone(), vec!["t".to_owned()]));
    assert_eq!(split(&sent([successes(7), successes(9), constant(2)])), (flat, vec!["t".to_owned()]));
}

/// Of the 28 trials of Gurusamy et al. (2011) on blood loss in liver transplantation (metadat: dat.gurusamy2011), those
/// with an arm without events, and with a sibling: control, then treatments.
const GURUSAMY: [&[(u64, u64)]; 4] =
    [&[(30, 1), (33, 0)], &[(20, 3), (25, 0)], &[(20, 2), (42, 3), (40, 1)], &[(20, 0), (20, 0), (20, 0)]];

#[test]
fn arms_without_events_are_taken_on_absolute_and_on_log_ratio_where_any_arm_has_one() {
    for trial in GURUSAMY {
        let absolute = measured(&counted("absolute", trial));
        assert_eq!(absolute.variants.len(), trial.len() - 1);
        let log_ratio = counted("log_ratio", trial);
        if trial.iter().all(|(_, events)| *events == 0) {
            assert_eq!(reason(&log_ratio).as_str(), "non_positive_mean");
            assert!(refusal(&log_ratio).detail.contains("has no events in any arm"));
            assert_eq!(reason(&log_ratio.replace("log_ratio", "relative")).as_str(), "control_mean_near_zero");
        } else {
            assert!(measured(&log_ratio).is_continuity_corrected);
        }
    }
}

#[test]
fn below_40_pooled_events_an_arm_a_log_ratio_gets_half_an_event_in_all_arms_and_pooled_variances() {
    let measured = measured(&counted("log_ratio", &[(1_000, 39), (500, 20), (1_000, 50)]));
    assert!(measured.is_continuity_corrected);
    let corrected = |n: f64, events: f64| (events + 0.5) / (n + 0.5);
    let log_ratio = |n: f64, events: f64| (corrected(n, events) / corrected(1_000.0, 39.0)).ln();
    assert_close(measured.block.effects()[0], log_ratio(500.0, 20.0));
    assert_close(measured.block.effects()[1], log_ratio(1_000.0, 50.0));
    let pooled = 109.0 / 2_500.0;
    let (d, c) = parts(&measured);
    for (found, n) in [(d[0], 500.0), (d[1], 1_000.0), (c, 1_000.0)] {
        assert_close(found, (1.0 - pooled) / pooled / n);
    }
    // What platforms show is not pooled.
    assert!(measured.raw_variances[0] > 2.0 * c && measured.raw_variances[0] != d[0] + c);
}

#[test]
fn from_40_pooled_events_an_arm_on_log_ratios_are_those_of_the_rates() {
    let measured = measured(&counted("log_ratio", &[(1_000, 39), (1_000, 41)]));
    assert!(!measured.is_continuity_corrected);
    assert_close(measured.block.effects()[0], (41.0_f64 / 39.0).ln());
}

#[test]
fn arms_in_which_all_or_nearly_all_units_succeed_are_taken_on_every_scale() {
    for scale in ["absolute", "relative", "log_ratio"] {
        for arms in [&[(100, 100), (100, 90)], &[(100, 100), (100, 100)], &[(2, 2), (2, 2)], &[(100, 99), (100, 100)]] {
            let text = counted(scale, arms);
            if scale == "relative" && arms[0].0 == 2 {
                assert_eq!(reason(&text).as_str(), "control_mean_near_zero");
            } else {
                assert_eq!(measured(&text).variants, ["v1"], "{text}");
            }
        }
    }
}

#[test]
fn a_treatment_without_events_among_many_is_refused_alone_on_log_ratio_and_a_lift_of_minus_100_percent_on_relative() {
    let arms = [(1_000, 100), (1_000, 0), (1_000, 90)];
    let of_scale = |scale: &str| split(&counted(scale, &arms));
    assert_eq!(of_scale("log_ratio"), (vec![("v1".to_owned(), "non_positive_mean")], vec!["v2".to_owned()]));
    assert_eq!(of_scale("relative"), (vec![], vec!["v1".to_owned(), "v2".to_owned()]));
    assert_eq!(of_scale("absolute"), (vec![], vec!["v1".to_owned(), "v2".to_owned()]));
    let alone = measured(&counted("log_ratio", &[(1_000, 100), (1_000, 90)])).block;
    assert_eq!(measured(&counted("log_ratio", &arms)).block, alone, "the others are as if it had not been sent");
}

#[test]
fn a_control_without_events_refuses_the_whole_result_on_relative_and_names_it() {
    let refusal = refusal(&counted("relative", &[(100_000, 0), (100_000, 5_000)]));
    assert_eq!((refusal.reason.as_str(), refusal.variant.as_deref()), ("control_mean_near_zero", Some("v0")));
    assert!(refusal.detail.contains("use scale absolute"), "{refusal}");
}

#[test]
fn a_treatment_that_cannot_be_used_is_refused_alone() {
    let arms = r#"{"metric":"m","scale":"absolute","control":{"variant":"c","n":9,"mean":2,"variance":1},
        "treatments":[{"variant":"few","n":1,"mean":2,"variance":1},{"variant":"flat","n":9,"mean":2,"variance":0},
                      {"variant":"far","n":9,"mean":1e300,"variance":1},{"variant":"good","n":9,"mean":2,"variance":1}]}"#;
    let refused = |pairs: [(&str, &'static str); 3]| pairs.map(|(variant, code)| (variant.to_owned(), code)).to_vec();
    assert_eq!(
        split(arms),
        (
            refused([("few", "sample_too_small"), ("flat", "non_positive_variance"), ("far", "implausible_scale")]),
            vec!["good".to_owned()]
        )
    );
    let effects = r#"{"metric":"m","control_variance":0,"effects":[
        {"variant":"flat","estimate":1,"variance":0},{"variant":"far","estimate":1e300,"variance":1},
        {"variant":"fine","estimate":1,"variance":1e-101},{"variant":"good","estimate":1,"variance":1}]}"#;
    let expected =
        refused([("flat", "non_positive_variance"), ("far", "implausible_scale"), ("fine", "implausible_scale")]);
    assert_eq!(split(effects), (expected.clone(), vec!["good".to_owned()]));
    let dense = r#"{"metric":"m","covariance":[[0,0,0,0],[0,1,0,0],[0,0,1e-101,0],[0,0,0,2]],"effects":[
        {"variant":"flat","estimate":1},{"variant":"far","estimate":1e300},
        {"variant":"fine","estimate":1},{"variant":"good","estimate":1}]}"#;
    assert_eq!(split(dense), (expected, vec!["good".to_owned()]));
    assert_eq!(measured(dense).block.sampling_variance(0), 2.0);
}

/// The numbers of an arm that cannot be used, and the reason.
const FAULTY_ARMS: [(&str, &str); 11] = [
    (r#""n":1000,"successes":1001"#, "inconsistent_sums"),
    (r#""n":1000,"successes":-3"#, "schema_violation"),
    (r#""n":1000,"successes":null"#, "schema_violation"),
    (r#""n":1000,"successes":1e400"#, "non_finite"),
    (r#""n":1000,"successes":"7""#, "schema_violation"),
    (r#""successes":7"#, "schema_violation"),
    (r#""n":0,"mean":null,"variance":null"#, "schema_violation"),
    (r#""n":10,"mean":0.5"#, "schema_violation"),
    (r#""n":10,"mean":0.5,"variance":1e400"#, "non_finite"),
    (r#""n":10,"sum":5,"sum_squares":2.4"#, "inconsistent_sums"),
    (r#""mean":null,"standard_error":0.1"#, "schema_violation"),
];

#[test]
fn a_treatment_whose_numbers_are_at_fault_is_refused_alone_and_the_others_are_as_if_it_had_not_been_sent() {
    let text = |treatments: &str| {
        format!(
            r#"{{"metric":"m","scale":"relative","control":{{"variant":"c","n":1000,"successes":100}},"treatments":[{treatments}]}}"#
        )
    };
    let good = r#"{"variant":"good","n":1000,"successes":120}"#;
    let alone = measured(&text(good));
    for (numbers, code) in FAULTY_ARMS {
        let faulty = format!(r#"{{"variant":"faulty",{numbers}}}"#);
        for treatments in [format!("{good},{faulty}"), format!("{faulty},{good}")] {
            let text = text(&treatments);
            assert_eq!(split(&text), (vec![("faulty".to_owned(), code)], vec!["good".to_owned()]), "{text}");
            assert_eq!(measured(&text), alone);
            let part = text.replace(r#""metric":"m""#, r#""metric":"m","accumulate":true"#);
            assert_eq!(reason(&part).as_str(), code, "a part is refused as a whole: {part}");
        }
        assert_eq!(reason(&text(&faulty)).as_str(), code, "without any other it is the result that is refused");
        let as_control = text(good).replace(r#""n":1000,"successes":100"#, numbers);
        assert_eq!(reason(&as_control).as_str(), code, "{as_control}");
    }
}

#[test]
fn an_effect_whose_numbers_are_at_fault_is_refused_alone_but_not_under_a_covariance() {
    let text = |effects: &str, with: &str| format!(r#"{{"metric":"m","effects":[{effects}],{with}}}"#);
    let (good, control_variance) = (r#"{"variant":"good","estimate":1,"variance":2}"#, r#""control_variance":0.5"#);
    let alone = measured(&text(good, control_variance));
    for (numbers, code) in [
        (r#""variance":2"#, "schema_violation"),
        (r#""estimate":null,"variance":2"#, "schema_violation"),
        (r#""estimate":1"#, "schema_violation"),
        (r#""estimate":1,"variance":"2""#, "schema_violation"),
        (r#""estimate":1,"treatment_variance":null"#, "schema_violation"),
        (r#""estimate":1e400,"variance":2"#, "non_finite"),
    ] {
        let faulty = format!(r#"{{"variant":"faulty",{numbers}}}"#);
        let both = format!("{faulty},{good}");
        let sent = text(&both, control_variance);
        assert_eq!(split(&sent), (vec![("faulty".to_owned(), code)], vec!["good".to_owned()]), "{sent}");
        assert_eq!(measured(&sent), alone);
        assert_eq!(reason(&text(&faulty, control_variance)).as_str(), code);
        if numbers.contains(r#""variance":2"#) {
            assert_eq!(reason(&text(&both, r#""covariance":[[2,0],[0,2]]"#)).as_str(), code);
        }
    }
}

#[test]
fn a_fault_of_a_name_of_the_shape_or_of_the_control_refuses_the_whole_result() {
    let text = |control: &str, faulty: &str| {
        format!(
            r#"{{"metric":"m","control":{{"variant":"c","n":100,"successes":{control}}},
                "treatments":[{{"variant":"faulty","n":10,"successes":11}},{{"variant":"good","n":100,"successes":9}},{faulty}]}}"#
        )
    };
    for (control, faulty, code) in [
        ("9", r#"{"n":100,"successes":9}"#, "schema_violation"),
        ("9", r#"{"variant":"","n":100,"successes":9}"#, "invalid_identifier"),
        ("9", r#"{"variant":"good","n":100,"successes":101}"#, "duplicate_variant"),
        ("9", r#"{"variant":"c","n":100,"successes":101}"#, "duplicate_variant"),
        ("9", r#"{"variant":"t","n":100,"n":100,"successes":9}"#, "schema_violation"),
        ("9", r#"{"variant":"t","n":100,"successes":9,"sum":9}"#, "schema_violation"),
        ("9", r#"["t",100,9]"#, "schema_violation"),
        ("null", r#"{"variant":"t","n":100,"successes":9}"#, "schema_violation"),
        ("101", r#"{"variant":"t","n":100,"successes":9}"#, "inconsistent_sums"),
    ] {
        assert_eq!(reason(&text(control, faulty)).as_str(), code, "{control} {faulty}");
    }
}

#[test]
fn where_no_treatment_is_left_the_first_reason_of_all_refuses_the_result() {
    let text = r#"{"metric":"m","control":{"variant":"c","n":9,"mean":2,"variance":1},
        "treatments":[{"variant":"flat","n":9,"mean":2,"variance":0},{"variant":"few","n":1,"mean":2,"variance":1},
                      {"variant":"sums","n":9,"sum":9,"sum_squares":1}]}"#;
    let refusal = refusal(text);
    assert_eq!((refusal.reason.as_str(), refusal.variant.as_deref()), ("sample_too_small", Some("few")));
    let non_finite = text.replace(r#""sum":9"#, r#""sum":1e400"#);
    assert_eq!(reason(&non_finite).as_str(), "non_finite");
}

#[test]
fn an_arm_that_expects_fewer_than_5_events_is_warned_of() {
    let codes = |arms: &[(u64, u64)]| match result(&counted("absolute", arms)) {
        Ok(ReportedResult::Whole { findings, .. }) => {
            findings.warnings.into_iter().map(|warning| (warning.code, warning.detail)).collect::<Vec<_>>()
        }
        other => panic!("{arms:?} are not taken: {other:?}"),
    };
    assert_eq!(codes(&[(100, 1), (100, 9)]), []);
    let warnings = codes(&[(100, 9), (50, 0), (200, 7)]);
    let [(WarningCode::RareEvents, detail)] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(
        detail.contains("experiment \"exp-1\", metric \"m\": variant \"v1\" is expected to have 2.3 events"),
        "{detail}"
    );
    assert_eq!(codes(&[(10, 0), (10, 0)])[0].0, WarningCode::RareEvents);
}
