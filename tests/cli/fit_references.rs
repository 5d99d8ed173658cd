//! The JSON of `shrinkd fit` against reference posteriors, another program, and real data.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::fit::{fit, json, number, stderr_lines, text};
use crate::common::reference::Oracle;
use crate::common::skipped::shared;

#[test]
fn its_json_meets_every_reference_posterior_to_1e_6() {
    for oracle in Oracle::all() {
        for want in &oracle.fits {
            let correlation = text(&want["correlation"]);
            let mut arguments = vec!["--format", "json", "--correlation", correlation];
            match want["method"].as_str() {
                Some(method) => arguments.extend(["--method", method]),
                None => {
                    arguments.extend(["--prior-mu", text(&want["prior_mu"]), "--prior-tau", text(&want["prior_tau"])])
                }
            }
            let output = fit(&oracle.events, &arguments);
            let document = json(&output);
            let population = &document["populations"][0];
            let label = format!("{} {arguments:?}", oracle.name);
            assert_eq!(population["population"], "effect/all/absolute", "{label}");
            if want["method"].is_string() {
                // The point's own scale: that of the exact posterior under flat priors.
                let flat =
                    oracle.fits.iter().find(|f| f["correlation"] == want["correlation"] && f["prior_tau"] == "flat");
                for parameter in ["mu", "tau"] {
                    let reference = &flat.expect("a flat fit")[parameter];
                    let sd =
                        reference["sd"].as_f64().unwrap_or(number(&reference["q975"]) - number(&reference["q025"]));
                    let error = (number(&population[parameter]["mean"]) - number(&want[parameter])).abs() / sd;
                    assert!(error < 1e-6, "{label}: {parameter} is off by {error:e}");
                }
                assert!(number(&population["mu"]["sd"]) > 0.0 && population["tau"]["sd"].is_null());
                continue;
            }
            if want["proper"] == false {
                assert_eq!(population["status"], "improper", "{label}");
                continue;
            }
            for parameter in ["mu", "tau"] {
                let (got, want) = (&population[parameter], &want[parameter]);
                let sd = want["sd"].as_f64().unwrap_or(number(&want["q975"]) - number(&want["q025"]));
                for name in ["mean", "median", "sd", "q025", "q975"] {
                    let is_met = match (got[name].as_f64(), want[name].as_f64()) {
                        (Some(got), Some(want)) => (got - want).abs() < 1e-6 * sd,
                        (got, want) => got == want,
                    };
                    assert!(is_met, "{label}: {parameter} {name} is {} instead of {}", got[name], want[name]);
                }
            }
            match (population["log_evidence"].as_f64(), want["log_evidence"].as_f64()) {
                (Some(got), Some(want)) => assert!((got - want).abs() < 1e-6, "{label}: {got} {want}"),
                (got, want) => assert_eq!(got, want, "{label}: log evidence"),
            }
            let estimates = population["estimates"].as_array().expect("estimates");
            let theta = &want["theta"];
            assert_eq!(estimates.len(), theta["posterior_mean"].as_array().expect("means").len(), "{label}");
            for (name, experiment_id, variant, i) in &oracle.effect_order() {
                let row = estimates
                    .iter()
                    .find(|row| row["experiment_id"] == experiment_id.as_str() && row["variant"] == variant.as_str())
                    .unwrap_or_else(|| panic!("{label}: no row for {name}"));
                let sd = number(&theta["posterior_sd"][i]);
                let mean = (number(&row["posterior_mean"]) - number(&theta["posterior_mean"][i])).abs() / sd;
                let spread = (number(&row["posterior_sd"]) - sd).abs() / sd;
                let positive = (number(&row["prob_positive"]) - number(&theta["prob_positive"][i])).abs();
                assert!(mean < 1e-6 && spread < 1e-6 && positive < 1e-6, "{label} {name}: {mean} {spread} {positive}");
            }
        }
    }
}

#[test]
fn the_smoking_trials_agree_with_metafor_to_1e_6() {
    let mut events = String::new();
    let table = include_str!("../data/smoking_cessation.csv");
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split(',').collect()).collect();
    for study in rows.chunk_by(|x, y| x[0] == y[0]) {
        let arm = |row: &Vec<&str>| {
            let (events, n): (f64, f64) = (row[4].parse().expect("events"), row[5].parse().expect("n"));
            let p = events / n;
            let name = row[3].trim_matches('"');
            format!(r#"{{"variant":"{name}","n":{n},"mean":{p},"variance":{}}}"#, p * (1.0 - p))
        };
        let treatments: Vec<String> = study[1..].iter().map(arm).collect();
        events += &format!(
            r#"{{"schema_version":1,"experiment_id":"study-{}","revision":1,"completed_at":"1998-01-01T00:00:00Z","results":[{{"metric":"cessation","scale":"log_ratio","control":{},"treatments":[{}]}}]}}"#,
            study[0][0],
            arm(&study[0]),
            treatments.join(",")
        );
        events.push('\n');
    }
    let reference: Value = serde_json::from_str(include_str!("../data/smoking_metafor.json")).expect("JSON");
    for (method, name) in [("reml", "REML"), ("ml", "ML")] {
        for (correlation, model) in [("modelled", "correlated"), ("ignored", "independent")] {
            let output = fit(&events, &["--format", "json", "--method", method, "--correlation", correlation]);
            let refused = stderr_lines(&output);
            assert_eq!(refused.len(), 2, "{refused:?}");
            assert_eq!(refused[0], "2 refused; the first of each reason:");
            assert!(refused[1].starts_with("  2  line 5: non_positive_variance: "), "{refused:?}");
            let population = &json(&output)["populations"][0];
            assert_eq!((&population["experiments"], &population["effects"]), (&22.into(), &24.into()));
            for (parameter, figure) in [("mu", "mean"), ("se_mu", "sd"), ("tau", "mean")] {
                let want = number(&reference["metafor"][name][model][parameter]);
                let got = number(&population[parameter.trim_start_matches("se_")][figure]);
                assert!((got - want).abs() < 1e-6, "{name} {correlation} {parameter}: {got} instead of {want}");
            }
        }
    }
}

/// The last snapshot of each ASOS experiment, on a scale.
fn asos(folder: &Path, scale: &str) -> String {
    let output = Command::new("python3")
        .arg(folder.join("asos_events.py"))
        .args(["--final", "--scale", scale])
        .stdin(std::fs::File::open(folder.join("asos_digital_experiments_dataset.csv")).expect("the data"))
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_asos_experiments_are_fitted_on_four_metrics_and_three_scales() {
    let Some(folder) = shared("data") else { return };
    for scale in ["absolute", "relative", "log_ratio"] {
        let events = asos(&folder, scale);
        let lacking = events.matches(r#""variance": null"#).count();
        let output = fit(&events, &["--format", "json"]);
        assert!(output.status.success());
        let refused = stderr_lines(&output);
        assert!(!refused.is_empty() && lacking > 0, "some snapshots have no variance");
        let reasons = ["schema_violation", "non_positive_variance", "sample_too_small", "control_mean_near_zero"];
        for line in refused.iter().filter(|line| line.starts_with("  ")) {
            assert!(line.contains("  line ") && reasons.iter().any(|r| line.contains(&format!(": {r}: "))), "{line}");
        }
        let document = json(&output);
        let populations = document["populations"].as_array().expect("populations");
        assert_eq!(populations.len(), 4, "{scale}");
        for population in populations {
            assert_eq!(population["status"], "fitted");
            for row in population["estimates"].as_array().expect("estimates") {
                let (raw, shrunk) = (number(&row["raw_se"]), number(&row["posterior_sd"]));
                assert!(shrunk > 0.0 && raw > 0.0 && number(&row["ci95_low"]) < number(&row["ci95_high"]));
            }
        }
    }
}
