//! `shrinkd fit` of metrics of which less is better.

use super::fit::{fit, json, number, stderr_lines, text};

/// Five latencies of a faster and a slower variant, see tests/data/README.md.
const LATENCIES: &str = include_str!("../data/cases/inverse_metric.ndjson");

/// P(best) of the faster and of the slower variant, the smallest over all experiments.
fn smallest(events: &str, arguments: &[&str]) -> [f64; 2] {
    let output = fit(events, &[&["--best", "--format", "json"], arguments].concat());
    let estimates = json(&output)["populations"][0]["estimates"].as_array().expect("rows").clone();
    ["faster", "slower"].map(|variant| {
        let own = estimates.iter().filter(|row| row["variant"] == variant);
        own.map(|row| number(&row["prob_best"])).fold(1.0, f64::min)
    })
}

#[test]
fn the_faster_variant_is_best_once_the_direction_is_sent_or_given() {
    let sent = LATENCIES.replace(r#""metric": "latency""#, r#""metric": "latency", "direction": "decrease""#);
    for [faster, slower] in [smallest(&sent, &[]), smallest(LATENCIES, &["--direction", "latency=decrease"])] {
        assert!(faster > 0.9999 && slower < 1e-4, "{faster} {slower}");
    }
    let [faster, slower] = smallest(LATENCIES, &[]);
    assert!(slower > 0.9999 && faster < 1e-4, "more is better where nobody says otherwise: {faster} {slower}");
    let [faster, _] = smallest(&sent, &["--direction", "latency=increase"]);
    assert!(faster > 0.9999, "what a result says counts: {faster}");
}

#[test]
fn estimates_do_not_depend_on_the_direction_and_the_table_says_it() {
    let rows = |arguments: &[&str]| {
        let output = fit(LATENCIES, &[&["--format", "csv"], arguments].concat());
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let (up, down) = (rows(&[]), rows(&["--direction", "latency=decrease"]));
    assert_eq!(up.replace(",increase\n", ",decrease\n"), down);
    let table = |arguments: &[&str]| {
        let output = fit(LATENCIES, arguments);
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(table(&["--direction", "latency=decrease"]).contains("; less is better"));
    assert!(!table(&[]).contains("less is better"));
    let refused = fit("", &["--direction", "latency=down"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr_lines(&refused).join(" ").contains("expected METRIC=increase or METRIC=decrease"));
}

#[test]
fn a_holdout_is_counted_and_in_no_population() {
    let holdout = LATENCIES
        .lines()
        .next()
        .expect("a line")
        .replace("lat0", "holdout")
        .replace(r#""schema_version": 1"#, r#""schema_version": 2, "kind": "holdout""#);
    let output = fit(&format!("{LATENCIES}{holdout}\n"), &["--format", "json"]);
    assert_eq!(number(&json(&output)["populations"][0]["experiments"]), 5.0);
    let table = fit(&format!("{LATENCIES}{holdout}\n"), &[]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("1 holdout, in no population"));
    assert_eq!(text(&json(&output)["populations"][0]["estimates"][0]["direction"]), "increase");
}
