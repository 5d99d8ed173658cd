//! Effects whose error comes as a standard error or an interval, and the control's part where it is imputed from units.

use shrinkd_core::{ControlVarianceSource, ReportedResult};

use super::{assert_close, measured, parts, reason, refusal, result};

fn of(scale: &str, control: &str, effects: &[&str]) -> String {
    format!(r#"{{"metric":"m","scale":"{scale}",{control}"effects":[{}]}}"#, effects.join(","))
}

#[test]
fn variance_standard_error_and_interval_say_the_same() {
    let z = 1.959_963_984_540_054_f64;
    let forms = [
        r#""variance":0.04"#.to_owned(),
        r#""standard_error":0.2"#.to_owned(),
        format!(r#""ci_low":{:?},"ci_high":{:?}"#, 0.5 - 0.2 * z, 0.5 + 0.2 * z),
        format!(r#""ci_low":{:?},"ci_high":{:?},"ci_level":0.95"#, 0.5 - 0.2 * z, 0.5 + 0.2 * z),
        // The quantile of 80%.
        r#""ci_low":0.24368968689108,"ci_high":0.75631031310892,"ci_level":0.8"#.to_owned(),
    ];
    for form in forms {
        let found = measured(&of("absolute", "", &[&format!(r#"{{"variant":"t","estimate":0.5,{form}}}"#)]));
        assert!((found.raw_variances[0] - 0.04).abs() < 1e-13, "{form}: {}", found.raw_variances[0]);
    }
}

#[test]
fn a_standard_deviation_is_the_root_of_a_variance() {
    let arms = |spread: &str| {
        format!(
            r#"{{"metric":"m","control":{{"variant":"c","n":10,"mean":1,{spread}}},"treatments":[{{"variant":"t","n":5,"mean":1,{spread}}}]}}"#
        )
    };
    assert_eq!(measured(&arms(r#""standard_deviation":1.5"#)), measured(&arms(r#""variance":2.25"#)));
}

#[test]
fn an_interval_that_is_not_symmetric_is_refused_with_what_to_send() {
    // Of a lift of 30% whose logarithm has a standard error of 0.15, taken back to a ratio.
    let (low, high) = (1.3 * (-1.96 * 0.15_f64).exp() - 1.0, 1.3 * (1.96 * 0.15_f64).exp() - 1.0);
    let sent = |low: f64, high: f64| {
        of("relative", "", &[&format!(r#"{{"variant":"t","estimate":0.3,"ci_low":{low:?},"ci_high":{high:?}}}"#)])
    };
    let refused = refusal(&sent(low, high));
    assert_eq!(refused.reason.as_str(), "inconsistent_interval");
    assert!(refused.detail.contains("send standard_error") && refused.detail.contains("log_ratio"), "{refused}");
    // Rounding to two digits does not matter, nor does a logarithm that is known to some percent.
    for (low, high) in [(-0.1, 0.69), (1.3 * (-0.1_f64).exp() - 1.0, 1.3 * (0.1_f64).exp() - 1.0)] {
        measured(&sent(low, high));
    }
}

#[test]
fn a_faulty_interval_refuses_its_effect_alone() {
    let control = r#""control":{"variant":"c","n":100},"#;
    let good = r#"{"variant":"t","n":100,"estimate":1,"standard_error":1}"#;
    let bad = r#"{"variant":"u","n":100,"estimate":1,"ci_low":1,"ci_high":3}"#;
    match result(&of("absolute", control, &[good, bad])) {
        Ok(ReportedResult::Whole { measured, findings, .. }) => {
            assert_eq!(measured.variants, ["t"]);
            assert_eq!(findings.refused[0].variant.as_deref(), Some("u"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_controls_part_follows_from_the_units() {
    let control = r#""control":{"variant":"c","n":300},"#;
    let effect = r#"{"variant":"t","n":100,"estimate":0.5,"variance":0.04}"#;
    for scale in ["absolute", "log_ratio", "log_odds"] {
        let found = measured(&of(scale, control, &[effect]));
        assert_eq!(found.control_variance_source, ControlVarianceSource::Imputed);
        let (d, c) = parts(&found);
        assert_close(c, 0.04 * (1.0 / 300.0) / (1.0 / 100.0 + 1.0 / 300.0));
        assert_close(d[0], 0.03);
    }
    // On relative the variance holds (1 + L)^2 c: of units of variance 1 and a control mean of m it is (1/100 + 1.5^2 / 300) / m^2.
    let variance = (1.0 / 100.0 + 1.5 * 1.5 / 300.0) / 4.0;
    let sent = |form: &str| format!(r#"{{"variant":"t","n":100,"estimate":0.5,{form}}}"#);
    let delta = of("relative", control, &[&sent(&format!(r#""variance":{variance:?}"#))]);
    let scaled = of(
        "relative",
        r#""control":{"variant":"c","n":300},"variance_form":"scaled","#,
        &[&sent(&format!(r#""variance":{:?}"#, (1.0 / 100.0 + 1.0 / 300.0) / 4.0))],
    );
    let own = of("relative", control, &[&sent(r#""treatment_variance":0.0025"#)]);
    for text in [delta, scaled, own] {
        let (d, c) = parts(&measured(&text));
        assert_close(c, 1.0 / 300.0 / 4.0);
        assert_close(d[0], 1.0 / 100.0 / 4.0);
    }
}

#[test]
fn several_treatments_imply_the_mean_by_units_and_each_keeps_half_of_its_own_variance() {
    let control = r#""control":{"variant":"c","n":100},"#;
    let effect = |name: &str, n: u32, variance: f64| {
        format!(r#"{{"variant":"{name}","n":{n},"estimate":0.5,"variance":{variance}}}"#)
    };
    let (d, c) = parts(&measured(&of("absolute", control, &[&effect("t", 100, 0.04), &effect("u", 300, 0.03)])));
    assert_close(c, (100.0 * 0.02 + 300.0 * 0.0225) / 400.0);
    assert_close(d[0], 0.04 - c);
    // The variances contradict each other: v's alone would leave nothing of u's.
    let (d, c) = parts(&measured(&of("absolute", control, &[&effect("u", 100, 0.002), &effect("v", 900, 0.2)])));
    assert_close(c, 0.0015);
    assert_close(d[0], 0.0005);
    assert!(d[1] > 0.0);
}

#[test]
fn the_controls_part_is_imputed_from_the_effects_that_have_units() {
    let control = r#""control":{"variant":"c","n":300},"#;
    let with = [
        r#"{"variant":"t","n":100,"estimate":0.5,"variance":0.04}"#,
        r#"{"variant":"u","n":300,"estimate":0.5,"variance":0.03}"#,
    ];
    let without = r#"{"variant":"v","estimate":0.5,"variance":0.05}"#;
    for scale in ["absolute", "relative", "log_ratio", "log_odds"] {
        let found = measured(&of(scale, control, &[with[0], with[1], without]));
        let (d, c) = parts(&found);
        assert_eq!(found.control_variance_source, ControlVarianceSource::Imputed);
        assert_close(c, parts(&measured(&of(scale, control, &with))).1);
        let part = if scale == "relative" { 1.5 * 1.5 * c } else { c };
        assert_close(d[2], 0.05 - part);
    }
    let own = |effect: &str| effect.replace("variance", "treatment_variance");
    let (_, c) = parts(&measured(&of("absolute", control, &[&own(with[0]), &own(without)])));
    assert_close(c, 0.04 * 100.0 / 300.0);
}

#[test]
fn an_effect_without_units_keeps_a_quarter_of_its_variance_from_what_the_others_imply() {
    let control = r#""control":{"variant":"c","n":100},"#;
    let precise = r#"{"variant":"u","estimate":0.5,"variance":0.002}"#;
    let noisy = r#"{"variant":"v","n":900,"estimate":0.5,"variance":0.2}"#;
    let (d, c) = parts(&measured(&of("absolute", control, &[precise, noisy])));
    assert_close(c, 0.0015);
    assert_close(d[0], 0.0005);
}

#[test]
fn where_the_effects_that_have_units_cannot_be_used_nothing_is_imputed_for_the_others() {
    let control = r#""control":{"variant":"c","n":300},"#;
    let small = r#"{"variant":"t","n":1,"estimate":0.1,"variance":0.04}"#;
    let without = r#"{"variant":"u","estimate":0.1,"variance":0.04}"#;
    let refused = refusal(&of("absolute", control, &[small, without]));
    assert_eq!(refused.reason.as_str(), "covariance_required");
    assert!(refused.detail.contains("send the n of the others"), "{refused}");
    assert_eq!(reason(&of("absolute", control, &[small])).as_str(), "sample_too_small");
}

#[test]
fn a_given_control_variance_comes_first_and_units_are_then_only_informative() {
    let effects = [
        r#"{"variant":"t","n":100,"estimate":0.5,"variance":0.04}"#,
        r#"{"variant":"u","n":1,"estimate":0.5,"variance":0.04}"#,
    ];
    let given = of("absolute", r#""control":{"variant":"c","n":300},"control_variance":0.01,"#, &effects);
    let without = of("absolute", r#""control_variance":0.01,"#, &effects);
    assert_eq!(result(&given), result(&without));
    assert_eq!(measured(&given).control_variance_source, ControlVarianceSource::Given);
}

#[test]
fn a_block_says_where_the_controls_variance_is_from() {
    let effect = r#"{"variant":"t","n":100,"estimate":0.1,"variance":0.04}"#;
    let source = |text: &str| measured(text).control_variance_source.as_str();
    assert_eq!(source(&of("absolute", "", &[effect])), "none");
    assert_eq!(source(&of("absolute", r#""control":{"variant":"c","n":300},"#, &[effect])), "imputed");
    assert_eq!(source(&of("absolute", r#""control_variance":0.01,"#, &[effect])), "given");
    assert_eq!(source(&of("absolute", r#""covariance":[[0.04]],"#, &[effect])), "given");
    let shared_nothing = [effect, r#"{"variant":"u","estimate":0.1,"variance":0.04}"#];
    assert_eq!(source(&of("absolute", r#""control_variance":0,"#, &shared_nothing)), "given");
    let arms = r#"{"metric":"m","control":{"variant":"c","n":9,"successes":2},"treatments":[{"variant":"t","n":9,"successes":2}]}"#;
    assert_eq!(source(arms), "arms");
}

#[test]
fn covariance_is_required_only_where_nothing_can_be_had_and_says_the_ways_out() {
    let with = [
        r#"{"variant":"t","n":100,"estimate":0.1,"variance":0.04}"#,
        r#"{"variant":"u","n":100,"estimate":0.1,"variance":0.04}"#,
    ];
    let without = ["t", "u"].map(|name| format!(r#"{{"variant":"{name}","estimate":0.1,"variance":0.04}}"#));
    let without = [&*without[0], &*without[1]];
    let control = r#""control":{"variant":"c","n":300},"#;
    for (text, units) in [
        (of("absolute", "", &with), "send the control's n beside that of the effects"),
        (of("absolute", control, &without), "send the n of the effects beside the control's"),
        (of("absolute", "", &without), "send the n of the effects and of the control"),
    ] {
        let refused = refusal(&text);
        assert_eq!(refused.reason.as_str(), "covariance_required");
        for way in [units, "control_variance", "covariance"] {
            assert!(refused.detail.contains(way), "{refused}");
        }
    }
    measured(&of("absolute", control, &with));
}

#[test]
fn other_units_are_another_result() {
    let effect = |n: u32| format!(r#"{{"variant":"t","n":{n},"estimate":0.1,"variance":0.04}}"#);
    let sent = |control: u32, n: u32| {
        let control = format!(r#""control":{{"variant":"c","n":{control}}},"#);
        match result(&of("absolute", &control, &[&effect(n)])) {
            Ok(ReportedResult::Whole { measurement, .. }) => measurement,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(sent(100, 50), sent(100, 50));
    assert_ne!(sent(100, 50), sent(100, 51));
    assert_ne!(sent(100, 50), sent(101, 50));
}

/// Inputs from outside (`cases/inputs` of the project's shared folder: io_effect_ci, io_effect_se_not_var, io_arm_stddev,
/// io_ratio_metric), the results alone.
#[test]
fn forms_from_outside_are_taken_or_refused_with_what_to_send() {
    for form in [r#""ci_low":-0.1,"ci_high":0.3"#, r#""standard_error":0.1"#] {
        measured(&of("absolute", "", &[&format!(r#"{{"variant":"t","estimate":0.1,{form}}}"#)]));
    }
    let arms = |own: &str| {
        format!(r#"{{"metric":"f","control":{{"variant":"0",{own}}},"treatments":[{{"variant":"1",{own}}}]}}"#)
    };
    let stddev = refusal(&arms(r#""n":9179,"mean":1.7,"stddev":2.27"#));
    assert!(stddev.detail.contains("standard_deviation"), "{stddev}");
    let ratio = refusal(&arms(r#""n":1000,"numerator_sum":500,"denominator_sum":2000"#));
    assert!(ratio.detail.contains("send n, sum, sum_squares, denominator_sum, denominator_sum_squares"), "{ratio}");
    assert_eq!(reason(&arms(r#""n":1000,"numerator_sum":500"#)).as_str(), "schema_violation");
}

/// A generator of uniform numbers: SplitMix64.
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / 2.0_f64.powi(53)
    }

    /// Mean and sample variance of n units that are uniform around 0 with this variance.
    fn arm(&mut self, n: u32, variance: f64) -> (f64, f64) {
        let units: Vec<f64> = (0..n).map(|_| (self.uniform() - 0.5) * (12.0 * variance).sqrt()).collect();
        let mean = units.iter().sum::<f64>() / f64::from(n);
        (mean, units.iter().map(|unit| (unit - mean).powi(2)).sum::<f64>() / f64::from(n - 1))
    }
}

#[test]
fn an_imputed_control_variance_is_within_13_to_17_percent_and_its_correlation_within_6_hundredths() {
    let mut draws = Draws(14);
    for round in 0..40 {
        let (treatment_units, control_units) = if round % 2 == 0 { (4_000, 4_000) } else { (3_000, 6_000) };
        // The extremes, then ratios between them.
        let ratio = match round {
            0 | 1 => 0.8,
            2 | 3 => 1.25,
            _ => 0.8 * (draws.uniform() * (1.25_f64 / 0.8).ln()).exp(),
        };
        let (control_mean, control_variance) = draws.arm(control_units, 1.0);
        let c = control_variance / f64::from(control_units);
        let treatments = 1 + round % 3;
        let mut effects = Vec::new();
        let mut own = Vec::new();
        for i in 0..treatments {
            let (mean, variance) = draws.arm(treatment_units, ratio);
            own.push(variance / f64::from(treatment_units));
            effects.push(format!(
                r#"{{"variant":"{i}","n":{treatment_units},"estimate":{:?},"variance":{:?}}}"#,
                mean - control_mean,
                own[i] + c
            ));
        }
        let control = format!(r#""control":{{"variant":"c","n":{control_units}}},"#);
        let effects: Vec<&str> = effects.iter().map(String::as_str).collect();
        let (_, imputed) = parts(&measured(&of("absolute", &control, &effects)));
        // 1.5% for the sampling error of the variances themselves.
        let off = imputed / c - 1.0;
        assert!((-0.148..0.182).contains(&off), "round {round}: {off}");
        for d in own {
            let off = (imputed - c) / (d + c);
            assert!(off.abs() < 0.06, "round {round}: correlation off by {off}");
        }
    }
}
