//! Refusals of inputs that public reports led to name the way out.

use shrinkd_core::ReportedResult;

use super::{refusal, result};

/// netmeta#17: the variances of a study's two contrasts, and an implied covariance above the smaller of them.
#[test]
fn a_control_variance_above_an_effects_own_names_covariance_and_the_controls_n() {
    let netmeta = r#"{"metric":"smd","effects":[{"variant":"b","estimate":-0.6531304,"variance":0.02892411102681},
        {"variant":"c","estimate":-1.9118454,"variance":0.07504657528369}],"control_variance":0.02925340457987}"#;
    // gemtc#55: the standard error of the control's mean is larger than that of a contrast with it.
    let gemtc = r#"{"metric":"smd","effects":[{"variant":"a","estimate":-0.3,"variance":0.04},
        {"variant":"b","estimate":-0.5,"variance":0.0625}],"control_variance":0.050625}"#;
    for (text, variant) in [(netmeta, "b"), (gemtc, "a")] {
        let refusal = refusal(text);
        assert_eq!(
            (refusal.reason.as_str(), refusal.variant.as_deref()),
            ("control_variance_too_large", Some(variant))
        );
        for advice in ["send covariance", "the control's own n", "experiment \"exp-1\", metric \"smd\""] {
            assert!(refusal.detail.contains(advice), "{refusal}");
        }
        assert!(!refusal.detail.contains("treatment_variance"), "of no use on absolute: {refusal}");
    }
}

/// r-sig-meta-analysis: three contrasts of a study with three arms, of which one is the difference of the others.
#[test]
fn all_pairwise_contrasts_name_those_against_the_control() {
    let text = r#"{"metric":"md","effects":[{"variant":"1vC","estimate":9.23},{"variant":"2vC","estimate":5.71},
        {"variant":"2v1","estimate":-3.5200000000000005}],"covariance":[[0.32,0.16,-0.16],
        [0.16,0.3418181818181818,0.18181818181818182],[-0.16,0.18181818181818182,0.3418181818181818]]}"#;
    let refusal = refusal(text);
    assert_eq!(refusal.reason.as_str(), "covariance_not_positive_definite");
    assert!(
        refusal.detail.contains("pairwise contrasts") && refusal.detail.contains("against its control"),
        "{refusal}"
    );
}

/// multinma#38: contrasts of a study with three arms, without the variance of the control's mean.
#[test]
fn effects_without_the_controls_part_name_how_to_impute_it() {
    let text = r#"{"metric":"y","effects":[{"variant":"TrtA","estimate":-1,"variance":0.09},
        {"variant":"TrtB","estimate":-0.5,"variance":0.04}]}"#;
    let refusal = refusal(text);
    assert_eq!(refusal.reason.as_str(), "covariance_required");
    assert!(refusal.detail.contains("from its own n") && refusal.detail.contains("covariance"), "{refusal}");
}

/// The scale that is advised instead of `relative`, where the result is refused or warned of.
fn advised(text: &str) -> String {
    let sentence = match result(text) {
        Ok(ReportedResult::Whole { findings, .. }) => findings.warnings[0].detail.clone(),
        Ok(other) => panic!("{text}: {other:?}"),
        Err(refusal) => refusal.detail,
    };
    let (_, advice) = sentence.split_once("use scale ").unwrap_or_else(|| panic!("{sentence} advises no scale"));
    advice.split(" (experiment").next().unwrap_or_default().to_owned()
}

#[test]
fn instead_of_relative_log_ratio_is_advised_where_it_takes_the_control_and_all_treatments_and_absolute_elsewhere() {
    let counted =
        |variant: &str, successes: u32| format!(r#"{{"variant":"{variant}","n":1000,"successes":{successes}}}"#);
    let mean = |variant: &str, mean: f64, error: f64| {
        format!(r#"{{"variant":"{variant}","mean":{mean},"standard_error":{error}}}"#)
    };
    for (control, treatments, scale) in [
        // With fewer than 40 events an arm, half an event is added to each.
        (counted("c", 0), [counted("t", 10), counted("u", 12)], "log_ratio"),
        (counted("c", 0), [counted("t", 100), counted("u", 120)], "absolute"),
        (counted("c", 100), [counted("t", 0), counted("u", 120)], "absolute"),
        (counted("c", 100), [counted("t", 90), counted("u", 120)], "log_ratio"),
        (counted("c", 0), [counted("t", 0), counted("u", 0)], "absolute"),
        (mean("c", 1.0, 0.5), [mean("t", 1.0, 0.5), mean("u", 1.0, 0.5)], "log_ratio"),
        (mean("c", 1.0, 1.5), [mean("t", 1.0, 0.5), mean("u", 1.0, 0.5)], "absolute"),
        (mean("c", 1.0, 0.5), [mean("t", -1.0, 0.5), mean("u", 1.0, 0.5)], "absolute"),
        (mean("c", -1.0, 0.5), [mean("t", 1.0, 0.5), mean("u", 1.0, 0.5)], "absolute"),
    ] {
        let treatments = treatments.join(",");
        let on = |scale: &str| {
            format!(r#"{{"metric":"m","scale":"{scale}","control":{control},"treatments":[{treatments}]}}"#)
        };
        assert_eq!(advised(&on("relative")), scale, "{control} {treatments}");
        match result(&on(scale)) {
            Ok(ReportedResult::Whole { findings, .. }) => assert_eq!(findings.refused, [], "{control} {treatments}"),
            other => panic!("{scale} is advised and does not take {control} {treatments}: {other:?}"),
        }
    }
}

#[test]
fn of_effects_log_ratio_is_advised_on_the_condition_that_every_mean_is_above_0() {
    let text = |estimate: f64| {
        format!(
            r#"{{"metric":"m","scale":"relative","control_variance":0.09,"effects":[{{"variant":"t","estimate":{estimate},"treatment_variance":0.1}}]}}"#
        )
    };
    assert_eq!(advised(&text(0.1)), "log_ratio where every mean is above 0");
    assert_eq!(advised(&text(-1.1)), "absolute");
}

#[test]
fn the_sentence_about_a_controls_mean_says_by_how_much_it_is_beyond_the_limit_and_that_a_mean_is_0() {
    let arms = |mean: f64, error: f64| {
        format!(
            r#"{{"metric":"m","scale":"relative","control":{{"variant":"c","mean":{mean},"standard_error":{error}}},
                "treatments":[{{"variant":"t","mean":{mean},"standard_error":{error}}}]}}"#
        )
    };
    let effects = |variation: f64| {
        let control_variance = variation * variation;
        format!(
            r#"{{"metric":"m","scale":"relative","control_variance":{control_variance},
                "effects":[{{"variant":"t","estimate":0.1,"treatment_variance":1}}]}}"#
        )
    };
    for (text, sentence) in [
        (arms(0.0, 1.0), "the control's mean is 0 beside its standard error, so that there is no ratio"),
        (arms(1.0, 0.25), "is 25.0% of it, and a ratio needs at most 20%"),
        (effects(0.2000001), "is 20.00001% of it, and a ratio needs at most 20%"),
        (effects(0.200_04), "is 20.004% of it, and a ratio needs at most 20%"),
        (effects(0.0500001), "is 5.00001% of it, above 5%"),
        (effects(0.0523), "is 5.23% of it, above 5%"),
        (effects(1e30), "is 1.0e32% of it, and a ratio needs at most 20%"),
    ] {
        let found = match result(&text) {
            Ok(ReportedResult::Whole { findings, .. }) => findings.warnings[0].detail.clone(),
            Ok(other) => panic!("{text}: {other:?}"),
            Err(refusal) => refusal.detail,
        };
        assert!(found.contains(sentence), "{found}");
    }
}

#[test]
fn an_effect_that_is_out_of_all_proportion_is_named_as_the_culprit_and_not_the_variance_that_follows_from_it() {
    let text = |scale: &str, estimate: f64, variance: &str| {
        format!(
            r#"{{"metric":"m","scale":"{scale}","control_variance":0.0004,
                "effects":[{{"variant":"B","estimate":{estimate},"{variance}":0.001}}]}}"#
        )
    };
    for (text, sentence) in [
        (text("relative", 1e300, "variance"), "has numbers that overflow on this scale: its effect is 1e300"),
        (text("relative", 1e300, "treatment_variance"), "has the effect 1e300, more than 1e6 of its standard errors"),
        (text("absolute", 1e300, "variance"), "has the effect 1e300, more than 1e6 of its standard errors"),
    ] {
        let refusal = refusal(&text);
        assert_eq!((refusal.reason.as_str(), refusal.variant.as_deref()), ("implausible_scale", Some("B")));
        assert!(refusal.detail.contains(&format!("variant \"B\" {sentence}")), "{refusal}");
    }
}
