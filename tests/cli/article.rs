//! What `shrinkd study --article` promises: the article's tables, met within the error of its sampler.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use shrinkd::study::Article;
use shrinkd::study::article::{Figure, Table};
use shrinkd_model::{Correlation, Verdict};

use crate::common::skipped::shared;

/// The data sets as files, in the order of the tables.
const FILES: [&str; 4] = ["single_variant", "many_variants", "bad_control", "treatment_heavy"];

fn shrinkd(arguments: &[&str], columns: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
    command.args(arguments).env("COLUMNS", columns).output().expect("the program starts")
}

fn printed(arguments: &[&str]) -> String {
    let output = shrinkd(&[&["study", "--article"], arguments].concat(), "80");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn events(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/study/article/{file}.ndjson"));
    fs::read_to_string(path).expect("the events")
}

fn tables() -> [Table; 4] {
    Article::new().expect("its fits").tables.try_into().expect("four tables")
}

fn is_within(bound: f64, exact: Figure, published: Figure) -> bool {
    (exact.median - published.median).abs() <= bound && (exact.sd - published.sd).abs() <= bound
}

#[test]
fn every_figure_of_the_article_is_met_within_the_error_of_its_sampler() {
    for table in tables() {
        let published: Vec<_> = table.rows.iter().filter_map(|row| Some((row, row.published?))).collect();
        assert_eq!(published.iter().map(|(row, _)| row.label).collect::<Vec<_>>(), ["Correlated", "Naive"]);
        for (row, published) in published {
            assert!(is_within(0.02, row.exact.mu, published.mu), "{}: {row:?}", table.name);
            assert!(is_within(0.03, row.exact.tau, published.tau), "{}: {row:?}", table.name);
        }
    }
}

#[test]
fn what_is_called_published_is_what_the_article_printed_and_the_data_are_its_own() {
    let Some(folder) = shared("article") else { return };
    let text = fs::read_to_string(folder.join("published.json")).expect("the published figures");
    let published: Value = serde_json::from_str(&text).expect("JSON");
    for (file, table) in FILES.into_iter().zip(tables()) {
        assert_eq!(events(file), fs::read_to_string(folder.join(format!("{file}.ndjson"))).expect("events"));
        let expected = &published[file];
        assert_eq!(
            [table.experiments, table.effects].map(Value::from),
            ["experiments", "effects"].map(|n| expected[n].clone())
        );
        assert_eq!([expected["true"]["mu"].as_f64(), expected["true"]["tau"].as_f64()], [Some(1.0); 2]);
        assert_eq!((table.truth.mu, table.truth.tau), (1.0, 1.0));
        for (row, model) in table.rows.iter().zip(["correlated", "naive"]) {
            let told = row.published.expect("a published row");
            let told = [told.mu.median, told.mu.sd, told.tau.median, told.tau.sd];
            let names = ["mu_median", "mu_sd", "tau_median", "tau_sd"];
            assert_eq!(told.map(Some), names.map(|name| expected["published"][model][name].as_f64()), "{file} {model}");
        }
    }
}

#[test]
fn without_a_shared_control_both_of_the_articles_models_are_one_posterior() {
    let [first, ..] = tables();
    let exact: Vec<_> = first.rows.iter().map(|row| row.exact).collect();
    assert_eq!(exact, vec![exact[0]; 3]);
    let told = printed(&[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("the difference between its two published rows is the Monte Carlo error of its sampler"),
        "{told}"
    );
}

#[test]
fn leaving_out_the_bad_control_is_shown_beside_keeping_it() {
    let [.., bad_control, _] = tables();
    let [with, .., without] = &bad_control.rows[..] else { panic!("several rows") };
    assert_eq!((without.correlation, without.without), (Correlation::Modelled, Some("exp-01")));
    for (figures, mu) in
        [(with.exact, 1.47), (without.exact, 1.02), (with.flat_priors, 1.45), (without.flat_priors, 1.02)]
    {
        assert!((figures.mu.median - mu).abs() < 0.005, "{mu}: {figures:?}");
    }
    let told = printed(&[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("mu is 1.47 with it and 1.02 without; 1.45 and 1.02 under flat priors"), "{told}");
}

#[test]
fn correlation_is_negligible_in_the_articles_first_table_and_material_in_the_others() {
    let verdicts = tables().map(|table| table.correlation.verdict);
    assert_eq!(verdicts, [Verdict::Negligible, Verdict::Material, Verdict::Material, Verdict::Material]);
}

#[test]
fn the_exact_figures_are_those_of_fit_under_the_articles_priors() {
    for (file, table) in FILES.into_iter().zip(tables()) {
        let path = format!("src/study/article/{file}.ndjson");
        let priors = ["--prior-mu", "normal:mean,1sd", "--prior-tau", "half-cauchy:1sd", "--format", "json"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_shrinkd"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("fit").arg(path).args(priors);
        let report: Value =
            serde_json::from_slice(&command.output().expect("the program starts").stdout).expect("JSON");
        let fits = report["populations"][0]["fits"].as_array().expect("fits");
        for row in table.rows.iter().filter(|row| row.without.is_none()) {
            let fit = fits.iter().find(|fit| fit["correlation"] == row.correlation.as_str()).expect("a fit");
            for (told, figure) in [(&fit["mu"], row.exact.mu), (&fit["tau"], row.exact.tau)] {
                assert_eq!([&told["median"], &told["sd"]].map(Value::as_f64), [figure.median, figure.sd].map(Some));
            }
        }
    }
}

#[test]
fn the_tables_fit_the_page_and_no_label_is_shortened() {
    for columns in ["80", "100"] {
        let output = String::from_utf8(shrinkd(&["study", "--article"], columns).stdout).expect("text");
        let widest = output.lines().map(|line| line.chars().count()).max();
        assert!(widest <= columns.parse().ok() && !output.contains('…'), "{output}");
        for (label, rows) in
            [("Correlated ", 5), ("Naive ", 5), ("One per experiment ", 5), ("Without exp-01 ", 1), ("True ", 5)]
        {
            let found = output.lines().filter(|line| line.trim_start().starts_with(label)).count();
            assert_eq!(found, rows, "{label}: {output}");
        }
    }
}

#[test]
fn csv_and_json_have_every_row_of_the_tables() {
    let csv = printed(&["--format", "csv"]);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 1 + 2 * (4 * 3 + 1));
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    assert_eq!(rows[1][..6], ["single-variant", "Correlated", "modelled", "", "mu", "1"]);
    assert_eq!(rows[1][8..10], ["0.8403", "0.2193"]);

    let json: Value = serde_json::from_str(&printed(&["--format", "json"])).expect("JSON");
    for (told, table) in json["tables"].as_array().expect("tables").iter().zip(tables()) {
        assert_eq!(told["name"], table.name);
        assert_eq!(told["correlation"]["verdict"], table.correlation.verdict.as_str());
        assert_eq!(told["rows"].as_array().map(Vec::len), Some(table.rows.len()));
        assert_eq!(told["rows"][0]["mu"]["median"].as_f64(), Some(table.rows[0].exact.mu.median));
    }
}

#[test]
fn the_article_has_neither_seed_nor_design() {
    for flags in [
        "--seed 1",
        "--replicates 2",
        "--threads 1",
        "--experiments 9",
        "--variants 3",
        "--control-share 0.3",
        "--rho 0.5",
        "--tau 1se",
    ] {
        let arguments: Vec<&str> = ["study", "--article"].into_iter().chain(flags.split(' ')).collect();
        let output = shrinkd(&arguments, "80");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{flags}");
    }
}
