//! What `shrinkd study` promises: definitions by the book, results that depend on the seed alone, and a model that
//! covers where the naive one does not.

use std::io::Write;
use std::num::NonZero;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use shrinkd::simulate::Scenario;
use shrinkd::study::performance::{Performance, Score};
use shrinkd::study::report::{FitReport, ScenarioReport};
use shrinkd::study::{Replicate, Report, Study};
use shrinkd_model::Verdict;

use crate::fit::fit;

fn study(replicates: usize, threads: usize) -> Report {
    let some = |number| NonZero::new(number).unwrap();
    Study { design: None, seed: 1, replicates: some(replicates), threads: some(threads) }.run(|| {}).unwrap()
}

fn shrinkd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shrinkd")).arg("study").args(arguments).output().unwrap()
}

fn is_near(x: f64, y: f64) -> bool {
    (x - y).abs() < 1e-12
}

#[test]
fn bias_rmse_and_coverage_are_what_the_textbook_says() {
    let scores = [1.5, 2.5, 0.0, 3.0].map(|estimate| Score::new(estimate, (estimate - 1.0, estimate + 1.0), 2.0));
    let performance = Performance::of(&scores);
    // Errors -0.5, 0.5, -2, 1; squares 0.25, 0.25, 4, 1.
    assert!(is_near(performance.bias, -0.25));
    assert!(is_near(performance.rmse, 1.375f64.sqrt()));
    assert!(is_near(performance.coverage, 0.75));
    assert!(is_near(performance.bias_mcse.unwrap(), (5.25f64 / 12.0).sqrt()));
    assert!(is_near(performance.coverage_mcse.unwrap(), (0.75f64 * 0.25 / 3.0).sqrt()));
    let squares: f64 = [0.25f64, 0.25, 4.0, 1.0].iter().map(|square| (square - 1.375).powi(2)).sum();
    assert!(is_near(performance.rmse_mcse.unwrap(), (squares / 12.0).sqrt() / (2.0 * 1.375f64.sqrt())));
}

#[test]
fn an_interval_covers_its_ends() {
    for (truth, covers) in [(1.0, 1.0), (3.0, 1.0), (0.999, 0.0), (3.001, 0.0)] {
        assert_eq!(Score::new(2.0, (1.0, 3.0), truth).coverage, covers);
    }
}

#[test]
fn one_replicate_has_no_monte_carlo_error() {
    let performance = Performance::of(&[Score::new(1.0, (0.0, 2.0), 1.5)]);
    assert_eq!((performance.bias_mcse, performance.rmse_mcse, performance.coverage_mcse), (None, None, None));
}

#[test]
fn the_number_of_threads_changes_no_bit_of_the_report() {
    let alone = study(4, 1);
    for threads in [2, 7] {
        assert_eq!(study(4, threads), alone);
    }
}

#[test]
fn the_tables_show_the_data_that_simulate_prints_for_the_seed() {
    let report = study(2, 2);
    for (scenario, told) in Scenario::ALL.into_iter().zip(&report.scenarios) {
        let experiments: Vec<_> = scenario.population().draw(1, 0).collect();
        let first = Replicate::new(&experiments).unwrap();
        assert_eq!(told.experiments, experiments.len());
        assert_eq!(told.effects, experiments.iter().map(|experiment| experiment.effects.len()).sum::<usize>());
        assert_eq!(told.correlation.verdict, first.verdict);
        for told in &told.fits {
            let fit = &first.fits[told.correlation as usize];
            assert_eq!((told.mu.median, told.mu.sd), (fit.mu.median, fit.mu.sd));
            assert_eq!((told.tau.median, told.tau.sd), (fit.tau.median, fit.tau.sd));
        }
    }
}

/// `shrinkd fit` of the events that `shrinkd simulate` prints: its one population.
fn fit_of_simulated(scenario: &str, arguments: &[&str]) -> Value {
    let shrinkd = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let events = shrinkd(&["simulate", "--scenario", scenario, "--seed", "1"]).wait_with_output().unwrap().stdout;
    let mut fit = shrinkd(&[&["fit", "--format", "json"], arguments].concat());
    fit.stdin.take().unwrap().write_all(&events).unwrap();
    let mut report: Value = serde_json::from_slice(&fit.wait_with_output().unwrap().stdout).unwrap();
    report["populations"][0].take()
}

#[test]
fn the_first_replicate_is_what_fit_says_of_the_same_events() {
    // The events carry the sum of the two variances, so that the treatment's own comes back rounded.
    let agree = |fit: &Value, study: f64| (fit.as_f64().unwrap() - study).abs() < 1e-9 * study.abs().max(1.0);
    for scenario in study(1, 2).scenarios {
        let fit = fit_of_simulated(scenario.name(), &[]);
        assert_eq!(fit["diagnostics"]["verdict"], scenario.correlation.verdict.as_str());
        assert_eq!(fit["diagnostics"]["verdict_rests_on"], scenario.correlation.rests_on.as_str());
        assert!(agree(&fit["diagnostics"]["verdict_value"], scenario.correlation.value));
        for told in &scenario.fits {
            let fit = &fit["fits"][told.correlation as usize];
            assert_eq!(fit["correlation"], told.correlation.as_str());
            for (study, fit) in [(told.mu, &fit["mu"]), (told.tau, &fit["tau"])] {
                assert!(agree(&fit["median"], study.median) && agree(&fit["sd"], study.sd.unwrap()), "{fit} {study:?}");
            }
        }
    }
}

#[test]
fn the_effects_are_scored_as_fit_estimates_them() {
    for scenario in study(1, 2).scenarios {
        let experiments: Vec<_> = scenario.population.draw(1, 0).collect();
        let truth = |row: &Value| {
            let experiment = experiments.iter().find(|e| row["experiment_id"] == *e.experiment_id).unwrap();
            experiment.true_effects[experiment.variants.iter().position(|name| row["variant"] == **name).unwrap()]
        };
        let flags = ["modelled", "ignored", "one-per-experiment"];
        for (told, correlation) in scenario.fits.iter().zip(flags) {
            let fit = fit_of_simulated(scenario.name(), &["--correlation", correlation]);
            let rows = fit["estimates"].as_array().unwrap();
            let errors: f64 = rows.iter().map(|row| row["posterior_mean"].as_f64().unwrap() - truth(row)).sum();
            assert!((errors / rows.len() as f64 - told.theta.bias).abs() < 1e-9, "{correlation}");
        }
    }
}

#[test]
fn the_block_model_covers_where_the_naive_one_does_not() {
    let report = study(60, 2);
    let [baseline, many_variants, bad_control, treatment_heavy] = &report.scenarios[..] else {
        panic!("four scenarios")
    };

    // 60 draws of a 95% interval: 0.83 is more than four standard errors low.
    let covers = |performance: &Performance| performance.coverage > 0.83;
    for scenario in [baseline, many_variants, treatment_heavy] {
        for fit in [&scenario.fits[0], &scenario.fits[2]] {
            assert!(covers(&fit.mu.performance) && covers(&fit.tau.performance) && covers(&fit.theta));
        }
    }
    let naive = |scenario: &ScenarioReport| -> FitReport { scenario.fits[1].clone() };
    assert!(naive(many_variants).mu.performance.coverage < 0.5);
    assert!(naive(treatment_heavy).mu.performance.coverage < 0.83);
    assert!(naive(bad_control).mu.performance.bias > 1.0);
    assert!(bad_control.fits[0].mu.performance.bias.abs() < 0.5);
}

#[test]
fn without_a_shared_control_every_model_of_correlation_gives_the_same_and_correlation_is_negligible() {
    let report = study(20, 2);
    let baseline = &report.scenarios[0];
    assert_eq!(baseline.correlation.replicates.negligible, 20);
    let [modelled, others @ ..] = &baseline.fits[..] else { panic!("three fits") };
    for other in others {
        assert_eq!((other.mu, other.tau), (modelled.mu, modelled.tau));
        // The effects go through d and c here, through d + c there.
        assert!(is_near(other.theta.bias, modelled.theta.bias) && is_near(other.theta.rmse, modelled.theta.rmse));
        assert_eq!(other.theta.coverage, modelled.theta.coverage);
    }
    for shared in &report.scenarios[1..] {
        assert_eq!(shared.correlation.verdict, Verdict::Material);
        assert_eq!(shared.correlation.replicates.negligible, 0);
    }
}

#[test]
fn the_command_prints_one_json_document() {
    let output = shrinkd(&["--replicates", "2", "--format", "json"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["seed"].as_u64(), report["replicates"].as_u64()), (Some(1), Some(2)));
    for scenario in report["scenarios"].as_array().unwrap() {
        assert!(scenario["correlation"]["verdict"].is_string() && scenario["correlation"]["value"].is_number());
        for fit in scenario["fits"].as_array().unwrap() {
            for parameter in ["mu", "tau"] {
                assert!(fit[parameter]["median"].is_f64() && fit[parameter]["sd"].is_f64());
            }
            for parameter in ["mu", "tau", "theta"] {
                for figure in ["bias", "bias_mcse", "rmse", "rmse_mcse", "coverage", "coverage_mcse"] {
                    assert!(fit[parameter][figure].is_f64(), "{parameter} {figure}");
                }
            }
        }
    }
}

#[test]
fn the_csv_has_a_row_for_each_scenario_model_of_correlation_and_parameter() {
    let output = String::from_utf8(shrinkd(&["--replicates", "1", "--format", "csv"]).stdout).unwrap();
    let rows: Vec<Vec<&str>> = output.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 1 + 4 * 3 * 3);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    assert_eq!(rows[1][..4], ["baseline", "modelled", "mu", "1"]);
    assert_eq!(rows[3][..6], ["baseline", "modelled", "theta", "", "", ""]);
}

#[test]
fn the_table_has_the_rows_of_every_scenario() {
    let output = String::from_utf8(shrinkd(&["--replicates", "1"]).stdout).unwrap();
    for row in ["  modelled ", "  ignored ", "  one per experiment ", "  true value "] {
        assert!(output.lines().filter(|line| line.starts_with(row)).count() >= 4, "{row}");
    }
    assert!(output.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_table_has_the_shares_of_the_verdicts_and_the_errors_of_the_coverage() {
    let output = String::from_utf8(shrinkd(&["--replicates", "4"]).stdout).unwrap();
    let told = output.split_whitespace().collect::<Vec<_>>().join(" ");
    for scenario in &study(4, 2).scenarios {
        // Of four, any number is a whole share.
        let counts = scenario.correlation.replicates;
        let [negligible, noticeable, material, misfit] =
            [counts.negligible, counts.noticeable, counts.material, counts.misfit].map(|count| 25 * count);
        let verdicts = format!(
            "negligible in {negligible}%, noticeable in {noticeable}%, material in {material}%, misfit in {misfit}%"
        );
        assert!(told.contains(&verdicts), "{verdicts} in {output}");
        for FitReport { theta, .. } in &scenario.fits {
            let coverage = format!("{:.1}% ± {:.1}", 100.0 * theta.coverage, 100.0 * theta.coverage_mcse.unwrap());
            assert!(told.contains(&coverage), "{coverage} in {output}");
        }
    }
}

#[test]
fn no_replicates_at_all_is_a_usage_error() {
    let output = shrinkd(&["--replicates", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

/// The one population of a design, as the JSON of `shrinkd study` has it.
fn designed(arguments: &str) -> Value {
    let arguments = ["--replicates", "1", "--format", "json"].into_iter().chain(arguments.split(' '));
    let output = shrinkd(&arguments.collect::<Vec<_>>());
    assert!(output.status.success(), "{output:?}");
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["scenarios"].as_array().unwrap().len(), 1);
    report["scenarios"][0].take()
}

#[test]
fn a_design_of_ones_own_is_drawn_instead_of_the_scenarios() {
    let root = 2f64.sqrt();
    for (arguments, experiments, effects, rho, tau) in [
        ("--variants 3", 50, 150, 0.5, root),
        ("--experiments 80", 80, 160, 0.5, root),
        ("--tau 0.5", 50, 100, 0.5, 0.5),
        ("--tau 0.5se", 50, 100, 0.5, 0.5 * root),
        ("--tau 0", 50, 100, 0.5, 0.0),
        ("--rho 0.3", 50, 100, 0.3, root),
        ("--rho 0 --variants 1", 50, 50, 0.0, root),
        ("--control-share 0.25 --variants 3 --experiments 80 --tau 1se", 80, 240, 0.5, root),
        ("--control-share 0.5 --variants 3", 50, 150, 0.25, root),
        ("--control-share 0.1 --variants 4", 50, 200, 0.9 / 1.3, root),
    ] {
        let design = designed(arguments);
        assert_eq!(design["scenario"], "custom");
        assert_eq!((design["experiments"].as_u64(), design["effects"].as_u64()), (Some(experiments), Some(effects)));
        assert!(is_near(design["rho"].as_f64().unwrap(), rho), "{arguments}: {design}");
        assert!(is_near(design["truth"]["tau"].as_f64().unwrap(), tau), "{arguments}: {design}");
        assert_eq!(design["truth"]["mu"], 1.0);
    }
}

#[test]
fn a_design_is_the_population_that_simulate_draws_with_these_sizes() {
    let design = designed("--variants 3 --experiments 20 --rho 0.25 --tau 0.7");
    let [se, control_se] = [1.5f64, 0.5].map(|variance| variance.sqrt().to_string());
    let sizes = ["--variants", "3", "--experiments", "20", "--tau", "0.7", "--se", &se, "--control-se", &control_se];
    let events = Command::new(env!("CARGO_BIN_EXE_shrinkd")).arg("simulate").args(sizes).output().unwrap().stdout;
    let report = fit(&String::from_utf8(events).unwrap(), &["--format", "json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let fits = report["populations"][0]["fits"].as_array().unwrap();
    for told in design["fits"].as_array().unwrap() {
        let fit = fits.iter().find(|fit| fit["correlation"] == told["correlation"]).unwrap();
        let [fit, told] = [fit, told].map(|fit| fit["mu"]["median"].as_f64().unwrap());
        assert!((fit - told).abs() < 1e-9, "{fit} {told}");
    }
}

#[test]
fn an_impossible_design_is_a_usage_error_that_says_what_is_possible() {
    for (arguments, advice) in [
        ("--variants 0", "1..=1000"),
        ("--variants 1001", "1..=1000"),
        ("--experiments 2", "from 3 to 100000"),
        ("--control-share 0", "from 0.001 to 0.999"),
        ("--control-share 1", "from 0.001 to 0.999"),
        ("--control-share -0.5", "from 0.001 to 0.999"),
        ("--control-share 25%", "such as 0.25"),
        ("--rho 1", "from 0"),
        ("--rho -0.1", "from 0"),
        ("--rho NaN", "from 0"),
        ("--rho 0.5 --control-share 0.5", "cannot be used with"),
        ("--tau -1", "such as 0.5se"),
        ("--tau 1sd", "such as 0.5se"),
        ("--tau mean", "such as 0.5se"),
        ("--tau inf", "such as 0.5se"),
    ] {
        let output = shrinkd(&arguments.split(' ').collect::<Vec<_>>());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments}");
        assert!(told.contains(advice), "{arguments}: {told}");
    }
}

#[test]
fn the_widest_designs_can_be_studied() {
    for arguments in
        ["--tau 1e6", "--tau 1e-70", "--rho 0.999", "--control-share 0.001 --variants 1000", "--control-share 0.999"]
    {
        designed(&format!("{arguments} --experiments 3"));
    }
}
