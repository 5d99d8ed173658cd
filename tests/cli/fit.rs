//! `shrinkd fit` as programs use it: its JSON and CSV, its exit codes and messages.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs `shrinkd fit` on some events.
pub fn fit(events: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_shrinkd"))
        .arg("fit")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let events = events.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(events.as_bytes()));
    let output = child.wait_with_output().expect("the binary ends");
    // A usage error ends the program before it reads.
    let _ = writer.join().expect("the writer ends");
    output
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("stdout is JSON")
}

pub fn stderr_lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stderr.clone()).expect("UTF-8").lines().map(str::to_owned).collect()
}

pub fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Three experiments of one effect each.
const THREE: &str = r#"{"schema_version":1,"experiment_id":"a","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{"metric":"m","effects":[{"variant":"v","estimate":0.1,"variance":1}]}]}
{"schema_version":1,"experiment_id":"b","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{"metric":"m","effects":[{"variant":"v","estimate":0.5,"variance":1}]}]}
{"schema_version":1,"experiment_id":"c","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{"metric":"m","effects":[{"variant":"v","estimate":-2.5,"variance":1}]}]}
"#;

#[test]
fn its_json_has_selection_calibration_with_bounds_and_the_share_of_decisions_that_mean_shipped() {
    let decided = |decision: &str| format!(r#""revision":1,"decision":"{decision}""#);
    let events: Vec<String> = THREE
        .lines()
        .flat_map(|line| (0..4).map(move |i| line.replace(r#"experiment_id":""#, &format!(r#"experiment_id":"{i}"#))))
        .enumerate()
        .map(|(i, line)| line.replace(r#""revision":1"#, &decided(if i % 2 == 0 { "Rolled-Out" } else { "stopped" })))
        .collect();
    let document = |arguments: &[&str]| {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        json(&fit(&events.join("\n"), &all))["populations"][0]["diagnostics"].clone()
    };
    let diagnostics = document(&["--shipped-decisions", "shipped,rolled out"]);
    assert_eq!(number(&diagnostics["shipped_share"]), 0.5);
    assert_eq!(number(&document(&[])["shipped_share"]), 0.0);
    let selection = &diagnostics["selection"];
    assert_eq!(selection["is_suspected"], false);
    assert!(number(&selection["log_lr"]) >= 0.0 && number(&selection["eta"]) <= 1.0);
    assert!(selection["missing_share"].is_number() && selection["caliper_p"].is_null());
    let calibration = &diagnostics["calibration"];
    let histogram = calibration["pit_histogram"].as_array().expect("bins");
    assert_eq!(histogram.iter().map(number).sum::<f64>(), number(&calibration["effects"]));
    for level in ["coverage50", "coverage80", "coverage95"] {
        let [low, coverage, high] = ["_low", "", "_high"].map(|end| number(&calibration[format!("{level}{end}")]));
        assert!(low <= coverage && coverage <= high, "{level}: {calibration}");
    }
    assert!(calibration["cause"].is_null(), "{calibration}");
}

#[test]
fn what_is_refused_is_counted_on_stderr_and_the_rest_is_fitted() {
    let bad = "{\"schema_version\":1,\n\nnot json\n";
    let output = fit(&format!("{bad}{THREE}"), &["--format", "json"]);
    assert!(output.status.success());
    let lines = stderr_lines(&output);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("2 refused") && lines[1].starts_with("  2  line 1: malformed_json: "), "{lines:?}");
    assert_eq!(json(&output)["populations"][0]["effects"], 3);
}

#[test]
fn exit_codes_tell_fitted_from_nothing_to_fit_from_broken_input() {
    assert_eq!(fit(THREE, &["--format", "json"]).status.code(), Some(0));
    let two: String = THREE.lines().take(2).map(|line| format!("{line}\n")).collect();
    let improper = fit(&two, &["--format", "json"]);
    assert_eq!(improper.status.code(), Some(2));
    let population = &json(&improper)["populations"][0];
    assert_eq!(population["status"], "improper");
    assert!(population["mu"]["mean"].is_null() && population["estimates"].as_array().is_some_and(Vec::is_empty));
    assert!(text(&population["message"]).contains("half-normal"));
    let nothing = fit("", &["--format", "json"]);
    assert_eq!((nothing.status.code(), json(&nothing)["populations"].as_array().map(Vec::len)), (Some(2), Some(0)));
    let usage = fit("", &["--prior-tau", "half-normal:-1"]);
    assert_eq!((usage.status.code(), usage.stdout.len()), (Some(2), 0));
    let missing = fit("", &["/no/such/file"]);
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(1), 0));
}

#[test]
fn a_point_estimate_that_does_not_exist_is_failed_and_says_why() {
    let one: String = THREE.lines().take(1).map(|line| format!("{line}\n")).collect();
    for method in ["reml", "dl", "pm"] {
        let output = fit(&one, &["--format", "json", "--method", method]);
        assert_eq!(output.status.code(), Some(2), "{method}");
        let population = &json(&output)["populations"][0];
        assert_eq!(population["status"], "failed");
        assert!(text(&population["message"]).contains("need at least two"), "{population}");
        assert!(population["mu"]["mean"].is_null() && population["estimates"].as_array().is_some_and(Vec::is_empty));
    }
    let ml = fit(&one, &["--format", "json", "--method", "ml"]);
    let population = &json(&ml)["populations"][0];
    assert!((number(&population["mu"]["mean"]) - 0.1).abs() < 1e-9);
    assert_eq!(number(&population["tau"]["mean"]), 0.0);
    let row = &json(&fit(THREE, &["--format", "json", "--method", "reml"]))["populations"][0]["estimates"][0];
    assert!(number(&row["posterior_mean"]).is_finite());
}

/// The eight schools of Rubin (J. Educational Statistics 6, 1981), the example of most meta-analysis software.
fn eight_schools() -> String {
    let schools = [
        (28.39, 14.9),
        (7.94, 10.2),
        (-2.75, 16.3),
        (6.82, 11.0),
        (-0.64, 9.4),
        (0.63, 11.4),
        (18.01, 10.4),
        (12.16, 17.6),
    ];
    let event = |(i, (effect, se)): (usize, (f64, f64))| {
        let variance = se * se;
        format!(
            r#"{{"schema_version":1,"experiment_id":"{i}","revision":1,"completed_at":"1981-01-01T00:00:00Z","results":[{{"metric":"coaching","effects":[{{"variant":"t","estimate":{effect},"variance":{variance}}}]}}]}}"#
        ) + "\n"
    };
    schools.into_iter().enumerate().map(event).collect()
}

#[test]
fn a_point_estimate_carries_the_standard_error_of_mu_into_every_effect() {
    let document = json(&fit(&eight_schools(), &["--format", "json", "--method", "reml"]));
    let population = &document["populations"][0];
    assert_eq!(number(&population["tau"]["mean"]), 0.0);
    // metafor's rma and blup.
    let near = |value: &Value, want: f64| assert!((number(value) - want).abs() < 1e-4, "{value} instead of {want}");
    for row in population["estimates"].as_array().expect("estimates") {
        near(&row["posterior_mean"], 7.8705);
        near(&row["posterior_sd"], 4.1656);
        near(&row["ci95_low"], -0.2938);
        near(&row["ci95_high"], 16.0349);
    }
    for fit in population["fits"].as_array().expect("fits").iter().chain([population]) {
        let heterogeneity = &fit["heterogeneity"];
        near(&heterogeneity["mu_se"], 4.1656);
        near(&heterogeneity["mu_ci95"][1], 16.0349);
        near(&heterogeneity["q"], 4.5632);
        assert_eq!((&heterogeneity["q_df"], &heterogeneity["i_squared"]), (&7.into(), &0.0.into()));
        let [low, high] = [0, 1].map(|i| number(&heterogeneity["knapp_hartung"]["ci95"][i]));
        assert!(low < 0.0 && high < 16.0 && heterogeneity["tau_ci95"][0] == 0.0);
    }
    let quadrature = json(&fit(&eight_schools(), &["--format", "json"]));
    assert!(quadrature["populations"][0]["heterogeneity"].is_null());
}

#[test]
fn revisions_retractions_and_accumulation_count_as_they_do_in_the_worker() {
    let event = |id: &str, revision: u32, extra: &str, result: &str| {
        format!(
            r#"{{"schema_version":1,"experiment_id":"{id}","revision":{revision},"completed_at":"2026-01-01T00:00:00Z"{extra},"results":[{result}]}}"#
        ) + "\n"
    };
    let effect = |x: f64| format!(r#"{{"metric":"m","effects":[{{"variant":"v","estimate":{x},"variance":1}}]}}"#);
    let part = |n: u32| {
        format!(
            r#"{{"metric":"m","accumulate":true,"control":{{"variant":"c","n":{n},"mean":0.1,"variance":1}},"treatments":[{{"variant":"v","n":{n},"mean":0.4,"variance":1}}]}}"#
        )
    };
    let mut events = String::from(THREE);
    events += &event("a", 3, "", &effect(9.0));
    events += &event("a", 2, "", &effect(5.0));
    events += &event("b", 2, "", r#"{"metric":"m","status":"retracted"}"#);
    events += &event("d", 1, r#","event_id":"east""#, &part(40));
    events += &event("d", 1, r#","event_id":"west""#, &part(60));
    events += &event("d", 1, r#","event_id":"west""#, &part(60));
    events += "{\"schema_version\":1,\"experiment_id\":\"e\",\"retracted\":true}\n";
    let output = fit(&events, &["--format", "json"]);
    let document = json(&output);
    let rows = document["populations"][0]["estimates"].as_array().expect("estimates").clone();
    let names: Vec<&str> = rows.iter().map(|row| text(&row["experiment_id"])).collect();
    assert_eq!(names, ["a", "c", "d"]);
    assert_eq!((number(&rows[0]["raw_estimate"]), &rows[0]["revision"]), (9.0, &3.into()));
    assert!((number(&rows[2]["raw_estimate"]) - 0.3).abs() < 1e-12);
    let input = &document["input"];
    assert_eq!((&input["stale"], &input["duplicates"], &input["tombstones"]), (&1.into(), &1.into(), &1.into()));
}

#[test]
fn the_order_of_the_file_does_not_change_one_byte() {
    let reversed: String = THREE.lines().rev().map(|line| format!("{line}\n")).collect();
    assert_eq!(fit(THREE, &["--format", "json"]).stdout, fit(&reversed, &["--format", "json"]).stdout);
}

#[test]
fn csv_has_one_row_for_each_effect() {
    let output = fit(THREE, &["--format", "csv", "--best"]);
    let rows: Vec<String> = String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect();
    assert_eq!(rows.len(), 4);
    let columns = rows[0].split(',').count();
    assert!(rows.iter().all(|row| row.split(',').count() == columns), "{rows:?}");
    assert!(rows[1].starts_with("m/all/absolute,a,v,1,0.1,1.0,"), "{}", rows[1]);
}

#[test]
fn a_prior_in_units_of_the_data_is_printed_as_the_number_that_it_was() {
    let fitted =
        json(&fit(THREE, &["--format", "json", "--prior-mu", "normal:mean,1sd", "--prior-tau", "dumouchel:2se"]));
    let population = &fitted["populations"][0];
    assert_eq!(text(&population["prior_tau"]), "dumouchel:2");
    let mean = -1.9 / 3.0_f64;
    let sd = ([0.1, 0.5, -2.5].iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let prior = text(&population["prior_mu"]).strip_prefix("normal:").expect("a normal").to_owned();
    let numbers: Vec<f64> = prior.split(',').map(|number| number.parse().expect("a number")).collect();
    assert!((numbers[0] - mean).abs() < 1e-11 && (numbers[1] - sd).abs() < 1e-11, "{prior}");
    let figures =
        ["tau_shortest95_low", "tau_shortest95_high", "prob_tau_negligible"].map(|key| number(&population[key]));
    assert!(figures[0] == 0.0 && figures[1] > 0.0 && figures[2] > 0.0, "{figures:?}");

    let first = THREE.lines().next().expect("a line");
    let failed = fit(first, &["--format", "json", "--prior-tau", "half-normal:1sd"]);
    let population = &json(&failed)["populations"][0];
    assert_eq!((failed.status.code(), text(&population["status"])), (Some(2), "failed"));
    assert!(text(&population["message"]).contains("state it in se or in the effects' unit"));
    assert_eq!(text(&population["prior_tau"]), "half-normal:1sd");
}

#[test]
fn a_known_prior_gives_its_conjugate_posterior() {
    let event = r#"{"schema_version":1,"experiment_id":"one","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{"metric":"lift","effects":[{"variant":"t","estimate":0.04,"variance":0.0009}]}]}"#;
    let fitted = json(&fit(event, &["--format", "json", "--prior-mu", "fixed:0", "--prior-tau", "fixed:0.05"]));
    let population = &fitted["populations"][0];
    assert_eq!(text(&population["status"]), "fitted");
    let estimate = &population["estimates"][0];
    assert!((number(&estimate["posterior_mean"]) - 0.029_411_764_7).abs() < 1e-9, "{estimate}");
    assert!((number(&estimate["posterior_sd"]) - 0.025_724_787_8).abs() < 1e-9, "{estimate}");
    assert_eq!((number(&population["mu"]["sd"]), number(&population["tau"]["sd"])), (0.0, 0.0));
}

/// Six experiments of two variants that are alike.
fn alike() -> String {
    let event = |i: u32| {
        let effect = |variant: &str, estimate: f64| {
            format!(r#"{{"variant":"{variant}","estimate":{estimate},"variance":0.05}}"#)
        };
        let idea = f64::from(i) - 2.5;
        let effects = [effect("a", idea + 0.1), effect("b", idea - 0.2)].join(",");
        format!(
            r#"{{"schema_version":1,"experiment_id":"e{i}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"m","control_variance":0.02,"effects":[{effects}]}}]}}"#
        )
    };
    (0..6).map(event).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_prior_of_icc_gives_its_posterior_and_none_leaves_every_figure_as_it_was() {
    let output = |arguments: &[&str]| fit(&alike(), &[&["--format", "json"], arguments].concat());
    let population = |arguments: &[&str]| json(&output(arguments))["populations"][0].clone();
    let (default, none, uniform) =
        (output(&[]), output(&["--prior-icc", "none"]), population(&["--prior-icc", "uniform"]));
    assert_eq!(default.stdout, none.stdout);
    let none = json(&none)["populations"][0].clone();
    assert!(none["icc"].is_null() && none["prior_icc"] == "none");
    let icc = &uniform["icc"];
    assert_eq!((text(&uniform["prior_icc"]), text(&icc["status"])), ("uniform", "identified"));
    let [low, median, high] = ["q025", "median", "q975"].map(|name| number(&icc[name]));
    assert!(0.5 < low && low < median && median < high && high <= 0.98, "{icc}");
    assert!(number(&icc["log_bayes_factor"]) > 3.0 && number(&icc["log_bayes_factor_half"]) > 1.0, "{icc}");
    assert!(
        number(&icc["prob_above_090"]) > 0.5 && number(&icc["tau_within_median"]) < number(&icc["tau_shared_median"])
    );
    assert!(text(&uniform["warnings"][0]).starts_with("icc_at_upper_end: "), "{}", uniform["warnings"]);
    // Two variants that are alike say less of mu than two that are not.
    assert!(number(&uniform["mu"]["sd"]) > 1.1 * number(&none["mu"]["sd"]), "{} {}", uniform["mu"], none["mu"]);
    for other in ["control_only", "ignored", "one_per_experiment"] {
        let of = |population: &Value| {
            let fits = population["fits"].as_array().expect("fits").clone();
            let fit = fits.into_iter().find(|fit| fit["correlation"] == other).expect("a fit");
            (fit["mu"].clone(), fit["tau"].clone())
        };
        assert_eq!(of(&uniform), of(&none), "{other}");
    }
    let half = population(&["--prior-icc", "fixed:0.5"]);
    assert_eq!((number(&half["icc"]["mean"]), number(&half["icc"]["sd"])), (0.5, 0.0));
    assert!(half["icc"]["status"].is_null(), "it is known: {}", half["icc"]);
    assert_eq!(half["icc"]["log_bayes_factor"], half["icc"]["log_bayes_factor_half"]);
    let [least, sd, most] = [&none, &half, &uniform].map(|population| number(&population["mu"]["sd"]));
    assert!(least < sd && sd < most, "{least} {sd} {most}");
}

#[test]
fn a_prior_of_icc_changes_nothing_where_every_experiment_has_one_variant() {
    let of = |prior: &str| {
        let mut population = json(&fit(THREE, &["--format", "json", "--prior-icc", prior]))["populations"][0].clone();
        population["prior_icc"] = Value::Null;
        population
    };
    assert_eq!(of("uniform"), of("none"));
    assert_eq!(of("fixed:0.5"), of("none"));
}

#[test]
fn a_prior_of_icc_is_refused_where_it_is_none_or_the_method_cannot_take_it() {
    for prior in ["flat", "fixed:0.99", "beta:0,1"] {
        let usage = fit("", &["--prior-icc", prior]);
        assert_eq!((usage.status.code(), usage.stdout.len()), (Some(2), 0), "{prior}");
        assert!(stderr_lines(&usage).join(" ").contains("beta:A,B"));
    }
    for method in ["laplace", "variational"] {
        let refused = fit(&alike(), &["--prior-icc", "uniform", "--method", method]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
        assert!(stderr_lines(&refused).join(" ").contains("fixed:VALUE"));
        let taken = fit(&alike(), &["--prior-icc", "fixed:0.5", "--method", method, "--prior-tau", "half-normal:1se"]);
        assert_eq!(taken.status.code(), Some(0), "{method}");
    }
}
