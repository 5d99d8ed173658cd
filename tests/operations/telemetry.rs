//! What the worker shows of itself: metrics that can be relied on, health that means something.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrinkd::config::{LogConfig, LogFormat};
use shrinkd::telemetry;
use shrinkd::telemetry::health::{BEAT_LIMIT, Health, Loop, Operation};
use shrinkd::telemetry::metrics::{Counted, Metrics, PopulationCounts, PopulationSummary};
use shrinkd_core::{Counts, PopulationName, Reason, ResultKey, Scale, WarningCode};
use shrinkd_model::Verdict;
use time::OffsetDateTime;

pub(super) fn population(metric: &str) -> PopulationName {
    ResultKey { metric: metric.to_owned(), segment: "all".to_owned(), scale: Scale::Relative }.into()
}

pub(super) fn summary() -> PopulationSummary {
    PopulationSummary {
        has_failed: false,
        mu: Some(0.25),
        tau: Some(0.5),
        icc: Some(0.375),
        deff: Some(1.5),
        verdict: Some(Verdict::Material),
        experiments: 12,
        effects: 34,
    }
}

/// So many populations, all of them sound.
fn counts(all: u64) -> PopulationCounts {
    PopulationCounts { all, ..PopulationCounts::default() }
}

/// Has the worker of partition 0 report these populations, and no others.
pub(super) fn report(metrics: &Metrics, populations: impl IntoIterator<Item = (PopulationName, PopulationSummary)>) {
    metrics.own_partitions(&[0]);
    let populations: BTreeMap<PopulationName, PopulationSummary> = populations.into_iter().collect();
    metrics.set_populations(counts(populations.len() as u64), populations, None);
}

/// The value of a series, by its name with labels as it is rendered.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.render(&Health::new());
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

/// Metrics of which every family has a series.
pub(super) fn busy() -> Metrics {
    let metrics = Metrics::new();
    metrics.own_partitions(&[0]);
    metrics.set_lag(0, 3, None);
    report(&metrics, [(population("conversion"), summary())]);
    metrics.count_rows_written("effect_estimates", 2);
    metrics.count_rows_skipped("effect_estimates", 1);
    metrics.count_retry("ingest", Some("40001"));
    metrics.count_unknown_field("segmnt");
    metrics
}

#[test]
fn every_family_is_named_after_what_it_is_and_is_rendered() {
    let metrics = busy();
    let text = metrics.render(&Health::new());
    assert!(metrics.families().len() > 20, "the families are listed");
    for family in metrics.families() {
        assert!(family.name.starts_with("shrinkd_"), "{}", family.name);
        assert_eq!(family.name.ends_with("_total"), family.kind == "counter", "{}", family.name);
        assert!(family.kind != "histogram" || family.name.ends_with("_seconds"), "{}", family.name);
        assert!(text.contains(&format!("# TYPE {} {}\n", family.name, family.kind)), "{} is rendered", family.name);
        assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{} says what it is", family.name);
    }
    let rendered = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(rendered, metrics.families().len(), "nothing else is rendered");
}

#[test]
fn every_reason_and_outcome_has_a_series_from_the_start() {
    let metrics = Metrics::new();
    for reason in Reason::ALL {
        let series = format!("shrinkd_rejected_events_total{{reason=\"{}\"}}", reason.as_str());
        assert_eq!(value(&metrics, &series), Some(0.0), "{series}");
    }
    for outcome in ["accepted", "pending", "duplicate", "stale", "refused"] {
        assert_eq!(value(&metrics, &format!("shrinkd_results_total{{outcome=\"{outcome}\"}}")), Some(0.0));
    }
    for warning in WarningCode::ALL {
        let series = format!("shrinkd_result_warnings_total{{warning=\"{}\"}}", warning.as_str());
        assert_eq!(value(&metrics, &series), Some(0.0), "{series}");
        metrics.count_warnings(&[warning, warning]);
        assert_eq!(value(&metrics, &series), Some(2.0), "{series}");
    }
}

#[test]
fn a_refused_result_counts_as_a_result_and_under_its_reason() {
    let metrics = Metrics::new();
    let counts = Counts { refused: 1, pending: 1, ..Counts::default() };
    metrics.count_batch(&counts, &[Reason::NonFinite, Reason::MalformedJson]);
    assert_eq!(value(&metrics, "shrinkd_results_total{outcome=\"refused\"}"), Some(1.0));
    assert_eq!(value(&metrics, "shrinkd_rejected_events_total{reason=\"non_finite\"}"), Some(1.0));
    assert_eq!(value(&metrics, "shrinkd_results_total{outcome=\"pending\"}"), Some(1.0));
    assert_eq!(value(&metrics, "shrinkd_rejected_events_total{reason=\"sample_too_small\"}"), Some(0.0));
    assert_eq!(value(&metrics, "shrinkd_rejected_events_total{reason=\"malformed_json\"}"), Some(1.0));
    metrics.count_batch(&Counts::default(), &[Reason::NonFinite]);
    assert_eq!(metrics.rejected(), [(Reason::MalformedJson, 1), (Reason::NonFinite, 2)]);
}

#[test]
fn unknown_fields_are_counted_by_name_and_beyond_fifty_names_together() {
    let metrics = Metrics::new();
    for field in 0..60 {
        let counted = match field {
            0..50 => Counted::First,
            50 => Counted::FirstOfOthers,
            _ => Counted::Again,
        };
        assert_eq!(metrics.count_unknown_field(&format!("field_{field}")), counted, "{field}");
    }
    assert_eq!(metrics.count_unknown_field("field_7"), Counted::Again);
    let of = |field: &str| value(&metrics, &format!("shrinkd_unknown_fields_total{{field=\"{field}\"}}"));
    assert_eq!(
        (of("field_7"), of("field_49"), of("field_50"), of("(other)")),
        (Some(2.0), Some(1.0), None, Some(10.0))
    );
}

#[test]
fn clones_share_their_counts_and_workers_of_one_process_do_not() {
    let (metrics, other) = (Metrics::new(), Metrics::new());
    metrics.clone().count_batch(&Counts { messages: 5, ..Counts::default() }, &[]);
    assert_eq!(value(&metrics, "shrinkd_records_total"), Some(5.0));
    assert_eq!(value(&other, "shrinkd_records_total"), Some(0.0));
}

#[test]
fn a_partition_that_is_given_away_leaves_no_series_and_a_late_word_brings_none_back() {
    let metrics = Metrics::new();
    metrics.own_partitions(&[0, 1]);
    metrics.own_partitions(&[4]);
    metrics.set_lag(1, 7, None);
    assert_eq!(value(&metrics, "shrinkd_owned_partitions"), Some(3.0));
    assert_eq!(value(&metrics, "shrinkd_lag_records{partition=\"1\"}"), Some(7.0));
    metrics.set_halted(1, true);
    assert_eq!(value(&metrics, "shrinkd_partition_halted{partition=\"1\"}"), Some(1.0));
    assert_eq!(value(&metrics, "shrinkd_partition_halted{partition=\"0\"}"), Some(0.0));
    metrics.release_partitions(&[1]);
    metrics.set_lag(1, 9, None);
    metrics.set_halted(1, true);
    assert_eq!(value(&metrics, "shrinkd_owned_partitions"), Some(2.0));
    assert!(!metrics.render(&Health::new()).contains("partition=\"1\""));
}

#[test]
fn the_lag_in_seconds_grows_while_nobody_reports_and_is_0_when_all_is_committed() {
    let metrics = Metrics::new();
    metrics.own_partitions(&[0, 1]);
    let minute_ago = OffsetDateTime::now_utc() - Duration::from_secs(60);
    metrics.set_lag(0, 2, Some(minute_ago));
    // Produced when is not known: it counts from now on.
    metrics.set_lag(1, 2, None);
    let lag =
        |partition: u8| value(&metrics, &format!("shrinkd_lag_seconds{{partition=\"{partition}\"}}")).expect("lag");
    let (first, unknown) = (lag(0), lag(1));
    assert!((60.0..70.0).contains(&first) && unknown < 10.0, "{first} {unknown}");
    std::thread::sleep(Duration::from_millis(20));
    assert!(lag(0) > first && lag(1) > unknown);
    let before = lag(1);
    metrics.set_lag(1, 1, None);
    assert!(lag(1) >= before, "a report without a time does not start the count again");
    metrics.set_lag(0, 0, Some(minute_ago));
    assert_eq!(lag(0), 0.0);
}

#[test]
fn what_is_not_known_of_a_population_has_no_series_and_the_verdict_is_one_of_three() {
    let metrics = Metrics::new();
    report(&metrics, [(population("a/b"), summary())]);
    let labels = "{population=\"a%2Fb/all/relative\"";
    assert_eq!(value(&metrics, &format!("shrinkd_population_tau{labels}}}")), Some(0.5));
    assert_eq!(value(&metrics, &format!("shrinkd_population_icc{labels}}}")), Some(0.375));
    let verdict =
        |verdict: &str| value(&metrics, &format!("shrinkd_population_verdict{labels},verdict=\"{verdict}\"}}"));
    assert_eq!(verdict("material"), Some(1.0));
    assert_eq!((verdict("negligible"), verdict("noticeable")), (Some(0.0), Some(0.0)));
    report(&metrics, [(population("a/b"), PopulationSummary { tau: None, icc: None, verdict: None, ..summary() })]);
    assert_eq!(value(&metrics, &format!("shrinkd_population_tau{labels}}}")), None);
    assert_eq!(value(&metrics, &format!("shrinkd_population_icc{labels}}}")), None);
    assert_eq!(value(&metrics, &format!("shrinkd_population_mu{labels}}}")), Some(0.25));
    assert_eq!(verdict("material"), None);
}

#[test]
fn populations_without_series_of_their_own_are_summed_and_those_that_are_gone_have_none() {
    let metrics = Metrics::new();
    let effects = |name: &str| value(&metrics, &format!("shrinkd_population_effects{{population=\"{name}\"}}"));
    report(&metrics, [(population("a"), summary()), (population("b"), summary())]);
    assert_eq!(value(&metrics, "shrinkd_populations"), Some(2.0));
    assert_eq!((effects("b/all/relative"), effects("(other)")), (Some(34.0), None));

    let others = PopulationSummary { experiments: 70, effects: 80, ..PopulationSummary::default() };
    metrics.set_populations(counts(9), BTreeMap::from([(population("a"), summary())]), Some(others));
    assert_eq!(value(&metrics, "shrinkd_populations"), Some(9.0));
    assert_eq!((effects("a/all/relative"), effects("(other)")), (Some(34.0), Some(80.0)));
    assert_eq!(value(&metrics, "shrinkd_population_experiments{population=\"(other)\"}"), Some(70.0));
    let text = metrics.render(&Health::new());
    assert!(!text.contains("b/all/relative"), "{text}");
    for figure in ["mu", "tau", "deff", "verdict"] {
        assert!(!text.contains(&format!("shrinkd_population_{figure}{{population=\"(other)\"")), "{figure} has no sum");
    }
}

#[test]
fn populations_that_failed_or_have_a_far_prior_or_only_winners_are_counted_with_or_without_series_of_their_own() {
    let metrics = Metrics::new();
    metrics.own_partitions(&[0]);
    let of_all = PopulationCounts { all: 9, failed: 3, prior_far: 2, selection_suspected: 1, unpublished_changes: 7 };
    metrics.set_populations(of_all, BTreeMap::from([(population("a"), summary())]), Some(summary()));
    assert_eq!(metrics.population_counts(), of_all);
    for (series, count) in [("failed", 3.0), ("prior_far", 2.0), ("selection_suspected", 1.0)] {
        assert_eq!(value(&metrics, &format!("shrinkd_populations_{series}")), Some(count));
    }
    assert_eq!(value(&metrics, "shrinkd_unpublished_changes"), Some(7.0));
    metrics.set_populations(counts(9), BTreeMap::new(), Some(summary()));
    assert_eq!(value(&metrics, "shrinkd_populations_failed"), Some(0.0), "an alert ends");
}

#[test]
fn a_worker_reports_the_populations_as_long_as_it_owns_partition_0() {
    let metrics = Metrics::new();
    let is_reported = || metrics.render(&Health::new()).lines().any(|line| line.starts_with("shrinkd_population"));
    let populations = || BTreeMap::from([(population("a"), summary())]);
    metrics.own_partitions(&[1]);
    metrics.set_populations(counts(2), populations(), Some(summary()));
    assert!(!metrics.reports_populations() && !is_reported(), "another worker reports them");
    metrics.own_partitions(&[0]);
    metrics.set_populations(counts(2), populations(), Some(summary()));
    assert!(metrics.reports_populations() && is_reported());
    metrics.release_partitions(&[0]);
    assert!(!is_reported(), "the next owner reports them");
    metrics.set_populations(counts(2), populations(), Some(summary()));
    assert!(!is_reported(), "a late report brings nothing back");
    assert_eq!((metrics.population_counts(), metrics.populations()), (counts(0), Vec::new()));
}

#[test]
fn retries_count_by_operation_and_by_the_class_of_their_sqlstate() {
    let metrics = Metrics::new();
    for sqlstate in [Some("40001"), Some("40P01"), Some("08006"), None] {
        metrics.count_retry("ingest", sqlstate);
    }
    metrics.count_retry("claim", Some("08006"));
    let retries = |operation: &str, class: &str| {
        value(&metrics, &format!("shrinkd_retries_total{{operation=\"{operation}\",sqlstate_class=\"{class}\"}}"))
    };
    assert_eq!(retries("ingest", "40"), Some(2.0));
    assert_eq!(retries("ingest", "08"), Some(1.0));
    assert_eq!(retries("ingest", "other"), Some(1.0));
    assert_eq!(retries("claim", "08"), Some(1.0));
}

#[test]
fn commits_and_refits_leave_their_time() {
    let metrics = Metrics::new();
    assert_eq!((metrics.last_commit(), metrics.last_refit()), (None, None));
    assert_eq!(value(&metrics, "shrinkd_last_commit_timestamp_seconds"), Some(0.0));
    metrics.observe_commit(Duration::from_millis(20));
    metrics.observe_refits(1, Duration::from_millis(1));
    let now = OffsetDateTime::now_utc();
    for moment in [metrics.last_commit(), metrics.last_refit()] {
        assert!((now - moment.expect("a time")).abs() < Duration::from_secs(10));
    }
    assert_eq!(value(&metrics, "shrinkd_ingest_commit_seconds_bucket{le=\"0.01\"}"), Some(0.0));
    assert_eq!(value(&metrics, "shrinkd_ingest_commit_seconds_bucket{le=\"0.025\"}"), Some(1.0));
}

#[test]
fn a_loop_without_a_heartbeat_is_named_and_one_that_has_finished_is_not_missed() {
    let health = Health::new();
    let late = Instant::now() + BEAT_LIMIT + Duration::from_secs(1);
    assert_eq!(health.live(Instant::now()), Ok(()));
    health.finish(Loop::Ingest);
    assert_eq!(health.live(late), Err("no heartbeat of the refit loop for 61 s".to_owned()));
    health.finish(Loop::Refit);
    assert!(health.live(late).expect_err("publish is late").contains("publish"));
    health.finish(Loop::Publish);
    assert_eq!(health.live(late), Ok(()));
    health.beat(Loop::Refit);
    assert!(health.live(late).is_err(), "what beats again is watched again");
}

#[test]
fn it_is_ready_when_source_and_store_are_connected_and_says_in_one_line_what_fails() {
    let health = Health::new();
    let reason = "connect: not connected yet; group: not joined yet";
    assert_eq!(health.readiness(), Err(reason.to_owned()));
    health.succeeded(Operation::Connect);
    health.failed(Operation::Group, "broker down:\nconnection refused; check the host");
    assert_eq!(health.readiness(), Err("group: broker down: connection refused, check the host".to_owned()));
    health.succeeded(Operation::Group);
    assert_eq!(health.readiness(), Ok(()));
}

#[test]
fn what_fails_is_over_only_when_the_same_succeeds() {
    let (metrics, health) = (Metrics::new(), Health::new());
    let failures = |operation: &str| {
        let series = format!("shrinkd_consecutive_failures{{operation=\"{operation}\"}} ");
        let text = metrics.render(&health);
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok()).expect("a series from the start")
    };
    health.succeeded(Operation::Connect);
    health.succeeded(Operation::Group);
    assert!(metrics.render(&health).contains("shrinkd_ready 1\n"));
    health.failed(Operation::Ingest, "the disk is full");
    health.failed(Operation::Ingest, "the disk is full");
    for other in Operation::ALL.into_iter().filter(|operation| *operation != Operation::Ingest) {
        health.succeeded(other);
    }
    assert_eq!(health.readiness(), Err("ingest: the disk is full".to_owned()));
    assert_eq!((failures("ingest"), failures("refit")), (2, 0));
    assert!(metrics.render(&health).contains("shrinkd_ready 0\n"));
    health.succeeded(Operation::Ingest);
    assert_eq!((failures("ingest"), health.readiness()), (0, Ok(())));
}

#[test]
fn a_batch_grows_older_for_as_long_as_it_is_in_hand() {
    let (metrics, health) = (Metrics::new(), Health::new());
    let age = || {
        let text = metrics.render(&health);
        let series = text.lines().find_map(|line| line.strip_prefix("shrinkd_batch_age_seconds "));
        series.expect("a series").parse::<f64>().expect("a number")
    };
    assert_eq!(age(), 0.0);
    metrics.begin_batch();
    let young = age();
    std::thread::sleep(Duration::from_millis(5));
    assert!(age() > young);
    metrics.end_batch();
    assert_eq!(age(), 0.0);
}

/// Log lines of a test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, level: &str) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let config = LogConfig { format, level: level.parse().expect("a level") };
    tracing::subscriber::with_default(telemetry::subscriber(&config, move || writer.clone()), || {
        tracing::info!(partition = 3, "batch committed");
        tracing::debug!("details");
        tracing::debug!(target: "noise", "details of others");
    });
    let bytes = lines.0.lock().expect("not poisoned").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn log_lines_for_programs_are_one_json_object_each_with_its_fields() {
    let text = logged(LogFormat::Json, "info");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["message"], &lines[0]["partition"]), (&"batch committed".into(), &3.into()));
    assert!(lines[0]["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{text}");
    assert_eq!(lines[0]["level"], "INFO");
}

#[test]
fn the_level_holds_for_all_or_by_target() {
    assert_eq!(logged(LogFormat::Text, "off"), "");
    assert!(logged(LogFormat::Text, "info").contains("batch committed"));
    let text = logged(LogFormat::Text, "info,operations::telemetry=debug");
    assert!(text.contains("details") && !text.contains("details of others"), "{text}");
}
