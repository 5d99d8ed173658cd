//! What the table of `shrinkd fit` promises to people: everything that matters is named, and nothing runs out of line.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use shrinkd::simulate::{Portfolio, Scenario};
use unicode_width::UnicodeWidthStr;

/// The table of some events, in a terminal of `columns`.
fn fit(events: &[String], columns: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.arg("fit").args(arguments).env("COLUMNS", columns.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), events.join("\n"));
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

fn table(events: &[String], columns: usize, arguments: &[&str]) -> String {
    String::from_utf8(fit(events, columns, arguments).stdout).unwrap()
}

/// One line for all, so that sentences can be searched wherever they wrap.
fn unwrapped(table: &str) -> String {
    table.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn simulated(scenario: Scenario) -> Vec<String> {
    scenario.population().messages(1).map(|message| serde_json::to_string(&message).unwrap()).collect()
}

fn portfolio() -> Vec<String> {
    let messages = Portfolio { experiments: 40, max_variants: 5 }.messages(1);
    messages.map(|message| serde_json::to_string(&message).unwrap()).collect()
}

/// One event of one experiment: effects (variant, estimate, variance) with the control's variance, on metric `m`.
fn event(experiment: &str, effects: &[(&str, f64, f64)], control_variance: f64) -> String {
    let effects: Vec<Value> = effects
        .iter()
        .map(|(variant, estimate, variance)| json!({"variant": variant, "estimate": estimate, "variance": variance}))
        .collect();
    let result = json!({"metric": "m", "scale": "absolute", "effects": effects, "control_variance": control_variance});
    json!({
        "schema_version": 1, "experiment_id": experiment, "revision": 1, "completed_at": "2026-01-01T00:00:00Z",
        "results": [result]
    })
    .to_string()
}

/// Single-variant experiments with these estimates, in a unit.
fn singles(estimates: &[f64], unit: f64) -> Vec<String> {
    let experiments = estimates.iter().enumerate();
    experiments.map(|(i, x)| event(&format!("e{i}"), &[("v", unit * x, unit * unit)], 0.0)).collect()
}

/// Where in each of some lines a text stands, in columns of the terminal.
fn columns_of<'a>(lines: impl IntoIterator<Item = &'a str>, text: &str) -> Vec<usize> {
    lines.into_iter().filter_map(|line| Some(line.split_once(text)?.0.width())).collect()
}

#[test]
fn every_population_is_named_with_its_verdict_and_the_messages_are_counted() {
    let (events, format) = (portfolio(), ["--format", "json"]);
    let table = table(&events, 80, &[]);
    let report: Value = serde_json::from_slice(&fit(&events, 80, &format).stdout).unwrap();
    let populations = report["populations"].as_array().unwrap();
    assert!(populations.len() > 3);
    for population in populations {
        let name = population["population"].as_str().unwrap();
        let block = table.split("\n\n").find(|block| block.lines().next() == Some(name)).expect(name);
        for (count, noun) in [("experiments", "experiment"), ("effects", "effect")] {
            let told = format!("{} {noun}", population[count]);
            assert!(unwrapped(block).contains(&told), "{told}: {block}");
        }
    }
    for verdict in ["negligible", "noticeable", "material", "misfit"] {
        let judged = populations.iter().filter(|population| population["diagnostics"]["verdict"] == verdict);
        assert_eq!(table.matches(&format!("  correlation   {verdict}: ")).count(), judged.count(), "{verdict}");
    }
    let input = &report["input"];
    let summary = table.rsplit("\n\n").next().unwrap();
    for (count, noun) in [("accepted", "results accepted"), ("duplicates", "duplicate"), ("refused", "refused")] {
        assert!(unwrapped(summary).contains(&format!("{} {noun}", input[count])), "{count}: {summary}");
    }
}

#[test]
fn the_verdict_says_what_it_rests_on() {
    let told = unwrapped(&table(&simulated(Scenario::Baseline), 80, &[]));
    assert!(
        told.contains(
            "negligible: the naive 95% interval of mu would cover about 95.0%; no two effects share a control"
        ),
        "{told}"
    );

    let pair = |i: usize| event(&format!("e{i}"), &[("a", 3.0, 2.0), ("b", 3.0, 2.0)], 1.0);
    let told = unwrapped(&table(&(0..8).map(pair).collect::<Vec<_>>(), 80, &[]));
    assert!(told.contains("material: the naive 95% interval of mu would cover about 89.4%"), "{told}");
    assert!(told.contains("16 effects carry as much information about mu as"), "{told}");
}

#[test]
fn all_models_of_correlation_stand_side_by_side_with_the_figures_of_the_json() {
    let events = simulated(Scenario::TreatmentHeavy);
    let table = table(&events, 80, &[]);
    let report: Value = serde_json::from_slice(&fit(&events, 80, &["--format", "json"]).stdout).unwrap();
    assert!(!table.contains("control only"), "it is the model above: {table}");
    assert_stand_with_figures(&table, &report, &[(0, "modelled"), (2, "ignored"), (3, "one per experiment")]);
    let alike = ["--prior-icc", "uniform", "--format", "json"];
    let report: Value = serde_json::from_slice(&fit(&events, 80, &alike).stdout).unwrap();
    let all = [(0, "modelled"), (1, "control only"), (2, "ignored"), (3, "one per experiment")];
    assert_stand_with_figures(&self::table(&events, 80, &alike[..2]), &report, &all);
}

fn assert_stand_with_figures(table: &str, report: &Value, models: &[(usize, &str)]) {
    for &(correlation, label) in models {
        let rows: Vec<&str> = table.lines().filter(|line| line.contains(&format!(" {label}  "))).collect();
        assert_eq!(rows.len(), 2, "{label}");
        for (row, parameter) in rows.iter().zip(["mu", "tau"]) {
            let exact = &report["populations"][0]["fits"][correlation][parameter];
            let numbers = row.split(label).nth(1).unwrap().replace("to", " ");
            let numbers: Vec<f64> = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
            for (number, name) in numbers.iter().zip(["median", "sd", "q025", "q975"]) {
                assert!((number - exact[name].as_f64().unwrap()).abs() <= 0.0005, "{label} {parameter} {name}: {row}");
            }
        }
    }
}

#[test]
fn an_improper_population_says_so_and_what_would_mend_it() {
    let output = fit(&singles(&[1.0, 2.0], 1.0), 80, &[]);
    let told = unwrapped(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(2));
    assert!(told.starts_with("m/all/absolute improper posterior; 2 experiments, 2 effects; flat priors"), "{told}");
    assert!(told.contains("give tau a proper prior"), "{told}");
}

#[test]
fn without_any_accepted_result_the_table_says_so() {
    let told = table(&["{}".to_owned()], 80, &[]);
    assert!(told.starts_with("no result was accepted"), "{told}");
    assert!(told.contains("1 message: 0 results accepted, 0 duplicate, 0 stale, 0 pending, 1 refused"), "{told}");
}

#[test]
fn a_suspect_control_is_named_with_what_that_does_not_prove() {
    let mut events = singles(&[0.3, -0.2, 0.1, 0.0, -0.4, 0.2, 0.5, -0.1, -0.3, 0.4], 1.0);
    events.push(event("off", &[("a", 9.0, 1.1), ("b", 9.3, 1.1), ("c", 8.8, 1.1)], 1.0));
    let told = unwrapped(&table(&events, 80, &[]));
    assert!(told.contains("bad control? off: its 3 effects are jointly"), "{told}");
    assert!(told.contains("cannot tell a bad control from variants that are all truly good"), "{told}");
}

/// Single-variant experiments whose z fall off above 1.96, and so many in which it lies below.
fn winners(losers: usize) -> Vec<String> {
    let above = (0..60).map(|i| 1.96 - 0.6 * ((f64::from(i) + 0.5) / 60.0).ln());
    let below = (0..losers).map(|i| -1.5 + 3.4 * (i as f64 + 0.5) / losers as f64);
    singles(&above.chain(below).collect::<Vec<_>>(), 1.0)
}

#[test]
fn a_population_of_winners_is_warned_of_and_one_with_its_losers_is_not() {
    let told = unwrapped(&table(&winners(0), 80, &[]));
    assert!(told.contains("selection as if 0% of the results with z below 1.96 had arrived"), "{told}");
    assert!(
        told.contains("warning only winners seem to arrive: hardly any result with z below 1.96 is here"),
        "{told}"
    );
    assert!(told.contains("shrinkage undoes the winner's curse only if the losers arrive too"), "{told}");

    let told = unwrapped(&table(&winners(600), 80, &[]));
    assert!(!told.contains("selection"), "{told}");
    assert!(!told.contains("only winners seem to arrive"), "{told}");
}

#[test]
fn predictions_that_are_not_borne_out_are_warned_of_with_the_likely_cause_and_their_bounds() {
    let spread: Vec<f64> = (0..60).map(|i| 4.0 * (f64::from(i) / 59.0 - 0.5)).collect();
    let told = unwrapped(&table(&singles(&spread, 1.0), 80, &["--prior-tau", "fixed:0"]));
    assert!(told.contains("calibration predicted from the other experiments, 60 effects"), "{told}");
    assert!(!told.contains("not borne out"), "{told}");
    let told = unwrapped(&table(&singles(&spread, 3.0), 80, &["--prior-tau", "fixed:30"]));
    assert!(
        told.contains("warning predictions are not borne out: predictive intervals hold too many effects"),
        "{told}"
    );
}

#[test]
fn more_than_one_mode_of_tau_is_told() {
    let mut events = singles(&[0.0, 0.1, -0.1, 0.05, -0.05, 0.0, 0.1, -0.1, 0.02, -0.02], 1.0);
    events.extend([25.0, -25.0].map(|far| event(&format!("far {far}"), &[("v", far, 25.0)], 0.0)));
    let exact = unwrapped(&table(&events, 80, &[]));
    assert!(exact.contains("tau its posterior has more than one mode: 0 and 7.8"), "{exact}");
    assert!(exact.contains("all of them are in the exact posterior, which every figure here is based on"), "{exact}");
    let laplace = unwrapped(&table(&events, 80, &["--method", "laplace"]));
    assert!(!laplace.contains("every figure here"), "{laplace}");
}

#[test]
fn an_approximation_says_how_far_from_exact_it_is_and_a_point_estimate_what_meta_analysis_reports_with_it() {
    let events = simulated(Scenario::BadControl);
    assert!(
        unwrapped(&table(&events, 80, &["--method", "laplace"]))
            .contains("laplace difference from the exact posterior")
    );
    let point = table(&events, 80, &["--method", "reml"]);
    assert!(point.contains("estimate") && !point.contains("median") && !point.contains("prior"), "{point}");
    for told in ["Knapp-Hartung", "heterogeneity Q ", "I² ", "H² ", "next experiment"] {
        assert!(point.contains(told), "{told}: {point}");
    }
    let none = table(&singles(&[1.0], 1.0), 80, &["--method", "reml"]);
    assert!(none.contains("no reml estimate") && unwrapped(&none).contains("need at least two"), "{none}");
}

#[test]
fn the_rows_of_a_point_estimate_are_the_figures_of_the_json() {
    let events = simulated(Scenario::BadControl);
    let table = table(&events, 80, &["--method", "reml"]);
    let output = fit(&events, 80, &["--method", "reml", "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (i, label) in [(0, "modelled"), (2, "ignored"), (3, "one per experiment")] {
        let fit = &report["populations"][0]["fits"][i];
        let (mu, more) = (&fit["mu"]["mean"], &fit["heterogeneity"]);
        let rows: Vec<&str> = table.lines().filter(|line| line.contains(&format!(" {label}  "))).collect();
        for (row, figures) in rows.iter().zip([
            [mu, &more["mu_se"], &more["mu_ci95"][0], &more["mu_ci95"][1]],
            [mu, &more["knapp_hartung"]["se"], &more["knapp_hartung"]["ci95"][0], &more["knapp_hartung"]["ci95"][1]],
            [&fit["tau"]["mean"], &Value::Null, &more["tau_ci95"][0], &more["tau_ci95"][1]],
        ]) {
            let numbers = row.split(label).nth(1).unwrap().replace(" to ", " ");
            let numbers: Vec<&str> = numbers.split_whitespace().collect();
            // The first row ends with the number of effects.
            assert!(numbers.len() >= figures.len(), "{row}");
            for (number, figure) in numbers.into_iter().zip(figures) {
                match figure.as_f64() {
                    Some(figure) => {
                        let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
                        assert_eq!(number, format!("{figure:.decimals$}"), "{row}");
                        assert!(decimals > 0, "{row}");
                    }
                    None => assert_eq!(number, "-", "{row}"),
                }
            }
        }
        assert_eq!(rows.len(), 3, "{label}");
    }
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let long = "a very long name 实验名称很长很长很长 with everything in it/".repeat(6);
    let mut hostile: Vec<String> = (0..6)
        .map(|i| event(&format!("{long}{i}"), &[(&long, i as f64, 2.0), ("b", 1e5, 3.0), ("c", -0.001, 2.5)], 1.0))
        .collect();
    hostile.push(event("e", &[("v", 1e-9, 1e-12)], 0.0));
    hostile.push(event("f", &[("v", 0.1, 1e16)], 0.0));
    let unit = |unit| singles(&[1.0, 2.0, -3.0, 0.5, 0.1, 1.2], unit);
    let cases =
        [portfolio(), simulated(Scenario::ManyVariants), hostile, unit(1e-50), unit(1e-4), unit(1e5), unit(1e50)];
    for (case, events) in cases.iter().enumerate() {
        for columns in [80, 91, 100] {
            for arguments in [&[][..], &["--best"], &["--correlation", "one-per-experiment"], &["--method", "reml"]] {
                for line in table(events, columns, arguments).lines() {
                    assert!(line.width() <= columns, "case {case}: {} of {columns}: {line}", line.width());
                }
            }
        }
    }
}

#[test]
fn columns_line_up_whatever_the_names_look_like() {
    let names = ["checkout", "支付", "Größe", "e\u{301}te\u{301}", "a/b,c"];
    let events: Vec<String> =
        names.iter().enumerate().map(|(i, name)| event(name, &[("변형", i as f64, 1.0)], 0.0)).collect();
    let table = table(&events, 100, &[]);
    let corrections: Vec<&str> = table.lines().skip_while(|line| !line.starts_with("  experiment ")).take(6).collect();
    let marks = columns_of(corrections.iter().copied(), " ± ");
    assert_eq!(marks.len(), 6);
    assert!(marks.iter().all(|mark| *mark == marks[0]), "{marks:?}\n{table}");

    let plot: Vec<&str> = table.lines().filter(|line| line.contains('┼') || line.contains('│')).skip(1).collect();
    let mu = plot.iter().map(|line| columns_of([*line], if line.contains('┼') { "┼" } else { "│" })[0]);
    let mu: Vec<usize> = mu.collect();
    assert!(mu.len() >= 3 && mu.iter().all(|column| *column == mu[0]), "{mu:?}\n{table}");
}

#[test]
fn no_number_is_shown_that_is_none() {
    let cases = [
        singles(&[1.0, 1.0, 1.0, 1.0, 1.0], 1.0),
        singles(&[0.0, 0.0, 0.0, 0.0], 1.0),
        singles(&[1.0, -2.0, 3.0], 1e-40),
        singles(&[5.0], 1.0),
    ];
    for events in &cases {
        for method in ["quadrature", "laplace", "variational", "reml", "ml", "dl", "pm"] {
            let table = table(events, 80, &["--method", method]);
            for none in ["NaN", "inf", "-0.00 ", "Some", "None"] {
                assert!(!table.contains(none), "{none} by {method}: {table}");
            }
        }
    }
}
