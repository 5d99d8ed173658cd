//! What public reports, papers and the examples of platforms led to, through `shrinkd fit`.

use std::fmt::Write;

use serde_json::Value;

use crate::fit::{fit, json, number, stderr_lines};

/// One event.
fn event(experiment: &str, result: &str) -> String {
    let head = r#""schema_version":1,"revision":1,"completed_at":"2026-01-01T00:00:00Z""#;
    format!(r#"{{{head},"experiment_id":"{experiment}","results":[{result}]}}"#).replace('\n', "") + "\n"
}

fn population(events: &str) -> Value {
    json(&fit(events, &["--format", "json"]))["populations"][0].clone()
}

/// Ax#342: every experiment has one variant at exactly -20% and one at +20%.
#[test]
fn symmetric_lifts_have_a_mean_of_0() {
    let result = r#"{"metric":"m","scale":"relative","control":{"variant":"c","n":3000,"successes":40},
        "treatments":[{"variant":"a","n":3000,"successes":32},{"variant":"b","n":3000,"successes":48}]}"#;
    let events: String = (0..80).map(|i| event(&format!("e{i:02}"), result)).collect();
    let mu = &population(&events)["mu"];
    assert!(number(&mu["mean"]).abs() < number(&mu["sd"]), "{mu}");
}

/// Two meta-analyses of trials of drugs against Parkinson's disease (metadat: dat.franchini2012, dat.stowe2010), means and
/// variances of the off-time of arms; the posterior under flat priors was computed by quadrature elsewhere.
#[test]
fn trials_of_arms_that_share_a_control_have_their_posteriors_to_1e_6() {
    let cases = [
        (
            include_str!("../data/cases/franchini2012.ndjson"),
            [-0.621_475_502_159_966_7, 0.383_745_306_290_079_47, 0.839_652_464_378_267_8, 0.430_377_329_215_778_9],
        ),
        (
            include_str!("../data/cases/stowe2010.ndjson"),
            [-1.165_446_697_753_940_4, 0.131_808_350_795_520_9, 0.483_805_444_055_608_8, 0.133_860_630_440_817_92],
        ),
    ];
    for (events, expected) in cases {
        let fitted = population(events);
        let found = [&fitted["mu"]["mean"], &fitted["mu"]["sd"], &fitted["tau"]["mean"], &fitted["tau"]["sd"]];
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((number(found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }
}

#[test]
fn a_line_of_stderr_names_experiment_metric_and_variant_of_what_is_refused_and_of_what_is_warned_of() {
    let mut events = event(
        "signup",
        r#"{"metric":"orders","scale":"log_ratio","control":{"variant":"c","n":1000,"successes":100},
            "treatments":[{"variant":"t","n":1000,"successes":0},{"variant":"t2","n":1000,"successes":90}]}"#,
    );
    events += &event(
        "pricing",
        r#"{"metric":"orders","scale":"relative","control":{"variant":"c","n":100000,"successes":1000},
            "treatments":[{"variant":"t","n":100000,"successes":1700}]}"#,
    );
    events += &event(
        "checkout",
        r#"{"metric":"orders","control":{"variant":"c","n":1000,"successes":100},
            "treatments":[{"variant":"t","n":1000,"successes":1001},{"variant":"t2","n":1000,"successes":90}]}"#,
    );
    let output = fit(&events, &["--format", "json"]);
    let lines = stderr_lines(&output);
    assert_eq!(
        lines,
        [
            "line 2: warning: lift_too_large_for_relative: experiment \"pricing\", metric \"orders\": variant \"t\" has a lift \
             of +70%: intervals on relative are too narrow there, use scale log_ratio where every mean is above 0",
            "2 refused; the first of each reason:",
            "  1  line 3: inconsistent_sums: $.results[0].treatments[0]: successes is 1001, more than n = 1000 (experiment \
             \"checkout\", metric \"orders\", variant \"t\")",
            "  1  line 1: non_positive_mean: $.results[0]: variant \"t\" has no events, so that there is no log ratio: use scale \
             absolute (experiment \"signup\", metric \"orders\")",
        ]
    );
}

#[test]
fn a_row_says_whether_it_was_corrected_and_whether_its_lift_is_too_large() {
    let mut events = String::new();
    for i in 0..4 {
        for scale in ["relative", "log_ratio"] {
            let result = |metric: &str, n: u64, events: u64| {
                format!(
                    r#"{{"metric":"{metric}","scale":"{scale}","control":{{"variant":"c","n":{n},"successes":{events}}},
                        "treatments":[{{"variant":"t","n":{n},"successes":{}}}]}}"#,
                    events * 16 / 10 - i
                )
            };
            let few = if scale == "log_ratio" { result("few", 1_000, 20) } else { result("few", 1_000_000, 1_000) };
            write!(events, "{}", event(&format!("e{i}"), &format!("{few},{}", result("many", 100_000, 1_000))))
                .unwrap();
        }
    }
    // One experiment brings its results in two messages of one revision.
    let report = json(&fit(&events, &["--format", "json"]));
    for (population, is_corrected, is_too_large) in
        [("few/all/log_ratio", true, false), ("many/all/log_ratio", false, false), ("many/all/relative", false, true)]
    {
        let populations = report["populations"].as_array().unwrap();
        let found = populations.iter().find(|found| found["population"] == population).expect(population);
        for row in found["estimates"].as_array().unwrap() {
            let flags = (&row["is_continuity_corrected"], &row["lift_too_large_for_relative"]);
            assert_eq!(flags, (&Value::from(is_corrected), &Value::from(is_too_large)), "{population}");
        }
    }
}

#[test]
fn a_row_says_where_the_controls_variance_is_from_and_fit_how_many_are_imputed() {
    let mut events = String::new();
    for (i, (form, control)) in
        [("imputed", r#""control":{"variant":"c","n":900},"#), ("given", r#""control_variance":0.01,"#), ("none", "")]
            .into_iter()
            .cycle()
            .take(6)
            .enumerate()
    {
        let effect = format!(r#"{{"variant":"t","n":900,"estimate":0.{i},"standard_error":0.2}}"#);
        events += &event(&format!("{form}{i}"), &format!(r#"{{"metric":"m",{control}"effects":[{effect}]}}"#));
    }
    events += &event(
        "arms",
        r#"{"metric":"m","control":{"variant":"c","n":900,"mean":1,"standard_deviation":3},
            "treatments":[{"variant":"t","n":900,"mean":1.2,"standard_deviation":3}]}"#,
    );
    let report = json(&fit(&events, &["--format", "json"]));
    let rows = report["populations"][0]["estimates"].as_array().unwrap();
    assert_eq!(rows.len(), 7);
    for row in rows {
        let source = row["control_variance_source"].as_str().unwrap();
        assert!(row["experiment_id"].as_str().unwrap().starts_with(source), "{row}");
    }
    let csv = String::from_utf8(fit(&events, &["--format", "csv"]).stdout).unwrap();
    assert!(csv.lines().next().unwrap().ends_with(",control_variance_source,direction"));
    assert!(csv.lines().any(|line| line.contains(",imputed0,t,") && line.contains(",imputed,")), "{csv}");
    let table = String::from_utf8(fit(&events, &[]).stdout).unwrap();
    let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("the control's variance of 2 of 7 experiments is imputed from the numbers of units"),
        "{table}"
    );
}

#[test]
fn of_many_warnings_the_first_of_each_code_are_written_and_the_others_counted() {
    let event = |i: usize| {
        let arm =
            |variant: &str, successes: usize| format!(r#"{{"variant":"{variant}","n":1000,"successes":{successes}}}"#);
        let (control, treatment) = (arm("c", 100), arm("t", 100 + i));
        format!(
            r#"{{"schema_version":1,"experiment_id":"e{i}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"m","scale":"relative","control":{control},"treatments":[{treatment}]}}]}}"#
        ) + "\n"
    };
    let events: String = (0..40).map(event).collect();
    let lines = stderr_lines(&fit(&events, &[]));
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert!(lines[..5].iter().all(|line| line.contains("warning: control_mean_imprecise")), "{lines:?}");
    assert_eq!(lines[5], "and 35 more warnings control_mean_imprecise");
}
