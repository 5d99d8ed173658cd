//! The scale log_odds: odds ratios of arms that were sent as successes.

use shrinkd_core::WarningCode;

use super::{assert_close, measured, parts, reason, refusal, result};

fn counted(arms: &[(u64, u64)]) -> String {
    let arm =
        |(i, (n, successes)): (usize, &(u64, u64))| format!(r#"{{"variant":"{i}","n":{n},"successes":{successes}}}"#);
    let arms: Vec<String> = arms.iter().enumerate().map(arm).collect();
    format!(r#"{{"metric":"m","scale":"log_odds","control":{},"treatments":[{}]}}"#, arms[0], arms[1..].join(","))
}

#[test]
fn an_effect_is_the_logarithm_of_the_odds_ratio_with_the_variance_of_the_pooled_rate() {
    // The arms differ by no more than chance, so that they are pooled.
    let measured = measured(&counted(&[(1_000, 300), (500, 160)]));
    assert!(!measured.is_continuity_corrected);
    assert_close(measured.block.effects()[0], (160.0 * 700.0 / (340.0 * 300.0_f64)).ln());
    let rate = 460.0 / 1_500.0;
    let (d, c) = parts(&measured);
    assert_close(d[0], 1.0 / (500.0 * rate * (1.0 - rate)));
    assert_close(c, 1.0 / (1_000.0 * rate * (1.0 - rate)));
    // What platforms show is Woolf's.
    assert_close(measured.raw_variances[0], 1.0 / 160.0 + 1.0 / 340.0 + 1.0 / 300.0 + 1.0 / 700.0);
}

#[test]
fn odds_of_failures_are_those_of_successes_turned_round() {
    for arms in [[(1_000, 300), (500, 160)], [(50, 2), (60, 0)], [(1_000, 980), (900, 890)]] {
        let turned = arms.map(|(n, successes)| (n, n - successes));
        let (one, other) = (measured(&counted(&arms)), measured(&counted(&turned)));
        assert_close(one.block.effects()[0], -other.block.effects()[0]);
        assert_close(parts(&one).0[0], parts(&other).0[0]);
        assert_close(one.raw_variances[0], other.raw_variances[0]);
    }
}

#[test]
fn few_events_or_few_units_without_one_get_half_an_event_in_all_cells() {
    for arms in [[(1_000, 30), (500, 0)], [(1_000, 970), (500, 500)]] {
        let measured = measured(&counted(&arms));
        assert!(measured.is_continuity_corrected);
        let logit = |(n, s): (u64, u64)| ((s as f64 + 0.5) / ((n - s) as f64 + 0.5)).ln();
        assert_close(measured.block.effects()[0], logit(arms[1]) - logit(arms[0]));
        let rate = (arms[0].1 + arms[1].1) as f64 / 1_500.0;
        assert_close(parts(&measured).1, 1.0 / (1_000.0 * rate * (1.0 - rate)));
    }
}

#[test]
fn arms_without_odds_are_refused() {
    for arms in [[(90, 0), (90, 0)], [(90, 90), (90, 90)]] {
        assert_eq!(reason(&counted(&arms)).as_str(), "non_positive_mean");
    }
    let mean = r#"{"variant":"x","mean":0.5,"standard_error":0.01}"#;
    let refused = refusal(&format!(
        r#"{{"metric":"m","scale":"log_odds","control":{mean},"treatments":[{{"variant":"t","n":9,"successes":3}}]}}"#
    ));
    assert_eq!(refused.reason.as_str(), "schema_violation");
    assert!(refused.detail.contains("send n and successes"), "{refused}");
}

#[test]
fn few_expected_units_without_an_event_are_rare_events_too() {
    let warns = |arms: &[(u64, u64)]| match result(&counted(arms)) {
        Ok(shrinkd_core::ReportedResult::Whole { findings, .. }) => {
            findings.warnings.iter().any(|warning| warning.code == WarningCode::RareEvents)
        }
        other => panic!("{other:?}"),
    };
    assert!(warns(&[(100, 97), (100, 99)]) && warns(&[(100, 3), (100, 1)]));
    assert!(!warns(&[(100, 60), (100, 70)]));
}

#[test]
fn effects_on_log_odds_carry_the_controls_variance_as_it_is() {
    let text = r#"{"metric":"m","scale":"log_odds","control_variance":0.01,
        "effects":[{"variant":"t","estimate":-2.5,"standard_error":0.2}]}"#;
    let (d, c) = parts(&measured(text));
    assert_eq!(c, 0.01);
    assert_close(d[0], 0.03);
}
