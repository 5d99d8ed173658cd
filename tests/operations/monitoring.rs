//! What operators are given: the page, the alert rules and the registry of metrics say the same.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shrinkd::telemetry::health::Health;
use shrinkd::telemetry::metrics::Metrics;

use super::telemetry::report;
use crate::common::skipped::skipped;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).expect("readable")
}

/// Every word of a text that names a metric; of a histogram's series, the histogram.
fn metrics_named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| word.starts_with("shrinkd_"));
    metrics
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect()
}

#[test]
fn the_table_of_metrics_is_the_registry() {
    let page = read("docs/operations.md");
    let documented: Vec<String> =
        page.lines().filter(|line| line.starts_with("| `shrinkd_")).map(str::to_owned).collect();
    let metrics = Metrics::new();
    let registered = metrics.families().iter().map(|family| {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}` ")).collect();
        let labels = labels.join(", ").replace(" ,", ",");
        format!("| `{}` | {} | {labels}| {} |", family.name, family.kind, family.help)
    });
    assert_eq!(documented, registered.collect::<Vec<_>>());
}

#[test]
fn every_metric_that_the_page_or_an_alert_names_exists() {
    let metrics = Metrics::new();
    let registered: BTreeSet<&str> = metrics.families().iter().map(|family| family.name).collect();
    for file in ["docs/operations.md", "deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"] {
        let text = read(file);
        let named = metrics_named(&text);
        assert!(named.len() > 5, "{file} names metrics");
        let unknown: Vec<&&str> = named.difference(&registered).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

#[test]
fn every_alert_has_a_severity_a_summary_tests_that_fire_and_do_not_and_a_section_that_says_what_to_do() {
    let (alerts, page, tests) =
        (read("deploy/prometheus/alerts.yml"), read("docs/operations.md"), read("deploy/prometheus/alerts_test.yml"));
    let rules: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() >= 7, "the rules are found");
    for rule in rules {
        let name = rule.lines().next().expect("a name");
        let anchor = format!("runbook: docs/operations.md#{}\n", name.to_lowercase());
        for needed in ["severity: ", "summary: ", "description: ", &anchor] {
            assert!(rule.contains(needed), "{name} has no {needed}");
        }
        assert!(page.contains(&format!("\n### {name}\n")), "{name} has no section");
        let severity = rule.split_once("severity: ").and_then(|(_, rest)| rest.lines().next()).unwrap_or_default();
        let row = format!("\n| [{name}](#{}) | {severity} | ", name.to_lowercase());
        assert!(page.contains(&row), "the table of alerts has no row {row}");
        let fires = format!("alertname: {name}\n        exp_alerts:\n");
        assert!(tests.contains(&fires), "no test lets {name} fire");
        assert!(tests.contains(&format!("alertname: {name}}}\n")), "no test has {name} stay silent");
    }
    for section in page.split("\n### Shrinkd").skip(1).filter_map(|section| section.lines().next()) {
        assert!(alerts.contains(&format!("- alert: Shrinkd{section}\n")), "Shrinkd{section} is no alert");
    }
}

/// What promtool says of its input: that of scripts/services, else one that is installed.
fn promtool(arguments: &[&str], input: &str) -> Option<Result<(), String>> {
    let programs = std::env::var_os("SHRINKD_TEST_PROMETHEUS").map(PathBuf::from).unwrap_or_default();
    let mut command = Command::new(programs.join("promtool"));
    command.args(arguments).current_dir(path("deploy/prometheus"));
    let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        skipped("promtool is not there (Debian's package `prometheus` has it)");
        return None;
    };
    // A command that reads nothing may have ended already.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

#[test]
fn prometheus_takes_the_files_and_each_alert_fires_when_it_should() {
    for arguments in
        [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]]
    {
        assert_eq!(promtool(&arguments, "").unwrap_or(Ok(())), Ok(()), "promtool {}", arguments.join(" "));
    }
}

#[test]
fn prometheus_finds_no_fault_in_the_names_and_texts_of_the_metrics() {
    let metrics = Metrics::new();
    report(&metrics, [("a \"b\" %25/all/absolute".parse().expect("a name"), Default::default())]);
    metrics.set_lag(0, 1, None);
    metrics.count_rows_written("blocks", 1);
    metrics.count_rows_skipped("effect_estimates", 1);
    metrics.count_retry("ingest", None);
    assert_eq!(promtool(&["check", "metrics"], &metrics.render(&Health::new())).unwrap_or(Ok(())), Ok(()));
}
