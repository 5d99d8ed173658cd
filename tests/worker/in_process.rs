//! What a worker promises beyond the order of its input: which population a block is in, when estimates are published, what
//! is written and what is left alone. In process, from a file to SQLite.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use shrinkd::config::Config;
use shrinkd::refit::Judged;
use shrinkd::row::FitStatus;
use shrinkd::store::Store;
use shrinkd::telemetry::Telemetry;
use shrinkd::worker::supervise;
use shrinkd_core::{History, decode};
use shrinkd_model::{Analysis, BlockPosterior, Correlation, Direction, PriorIcc, Priors, Request};
use sqlx::{Row, SqlitePool};
use tokio_util::sync::CancellationToken;

use crate::common::database::{Database as _, SqliteDatabase};

/// An experiment of three variants against one control.
fn event(experiment: usize, revision: u64, team: &str) -> String {
    let effect = |variant: &str, shift: f64| {
        let estimate = (experiment as f64 * 0.7).sin() + shift;
        format!(r#"{{"variant":"{variant}","estimate":{estimate},"variance":0.5}}"#)
    };
    let effects = [effect("b", 0.1), effect("c", -0.2), effect("d", 0.3)].join(",");
    format!(
        r#"{{"schema_version":1,"experiment_id":"exp-{experiment}","revision":{revision},"completed_at":"2026-01-01T00:00:00Z","labels":{{"team":"{team}"}},"decision":"shipped","results":[{{"metric":"m","effects":[{effects}],"control_variance":0.3}}]}}"#
    )
}

fn events(experiments: usize) -> String {
    (0..experiments).map(|experiment| event(experiment, 1, "search") + "\n").collect()
}

/// Runs a worker on some more lines of the test's file to its end; returns connections to what it wrote.
async fn run(database: &SqliteDatabase, lines: &str, settings: &[(&str, &str)]) -> SqlitePool {
    let path = database.path().with_file_name("events.ndjson");
    append(&path, lines);
    let mut environment: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| (format!("SHRINKD__{name}"), (*value).to_owned())).collect();
    environment.insert("SHRINKD__SOURCE__FILE__PATH".to_owned(), path.display().to_string());
    environment.insert("SHRINKD__STORE__URL".to_owned(), database.url());
    let environment = environment.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let config = Arc::new(Config::load(None, environment).expect("a configuration"));
    let store = Store::connect(&config.store, &config.store_settings()).await.expect("the database opens");
    let stop = CancellationToken::new();
    supervise::run(store.clone(), config, Telemetry::default(), stop).await.expect("the worker ends well");
    SqlitePool::connect(&database.url()).await.expect("the database opens")
}

fn append(path: &Path, lines: &str) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file opens");
    file.write_all(lines.as_bytes()).expect("the lines are written");
}

async fn texts(tables: &SqlitePool, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(tables).await.expect("text")
}

async fn count(tables: &SqlitePool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(tables).await.expect("a count")
}

#[tokio::test]
async fn below_the_fewest_experiments_the_rows_carry_the_raw_estimates_and_from_there_on_shrunken_ones() {
    let database = SqliteDatabase::absent();
    let tables = run(&database, &events(4), &[]).await;
    assert_eq!(texts(&tables, "select distinct status from effect_estimates").await, ["cold_start"]);
    assert_eq!(
        count(&tables, "select count(*) from effect_estimates where posterior_mean is null and fit_id = 0").await,
        12
    );
    assert_eq!(texts(&tables, "select distinct status from current_population_fits").await, ["cold_start"]);

    let tables = run(&database, &(event(4, 1, "search") + "\n"), &[]).await;
    assert_eq!(texts(&tables, "select distinct status from effect_estimates").await, ["fitted"]);
    assert_eq!(count(&tables, "select count(*) from effect_estimates where posterior_mean is not null").await, 15);
    let orphans = "select count(*) from effect_estimates as e
                   where not exists (select 1 from population_fits as f
                                     where f.population_id = e.population_id and f.fit_id = e.fit_id)";
    assert_eq!(count(&tables, orphans).await, 0, "every row's fit is in the history");
}

#[tokio::test]
async fn a_proper_prior_of_tau_lifts_the_cold_start() {
    let database = SqliteDatabase::absent();
    let settings = [("REFIT__PRIOR_TAU", "half-normal:1"), ("REFIT__PRIOR_MU", "normal:0,1")];
    let tables = run(&database, &events(1), &settings).await;
    assert_eq!(texts(&tables, "select distinct status from effect_estimates").await, ["fitted"]);
}

#[tokio::test]
async fn a_population_that_falls_below_the_fewest_experiments_goes_back_to_raw_estimates() {
    let database = SqliteDatabase::absent();
    run(&database, &events(5), &[]).await;
    let gone = r#"{"schema_version":1,"experiment_id":"exp-0","retracted":true}"#;
    let tables = run(&database, &format!("{gone}\n"), &[]).await;
    assert_eq!(texts(&tables, "select distinct status from effect_estimates").await, ["cold_start"]);
    assert_eq!(count(&tables, "select count(*) from effect_estimates where posterior_mean is null").await, 12);
}

#[tokio::test]
async fn labels_divide_populations_and_new_labels_move_every_block_of_the_experiment() {
    let database = SqliteDatabase::absent();
    let settings = [("POPULATIONS__LABELS", r#"["team"]"#)];
    let lines = events(6);
    let tables = run(&database, &lines, &settings).await;
    let populations = "select population_id from effect_estimates group by population_id order by population_id";
    assert_eq!(texts(&tables, populations).await, ["m/all/absolute/team=search"]);

    // The event that moves it has no result at all.
    let moved = r#"{"schema_version":1,"experiment_id":"exp-0","revision":2,"completed_at":"2026-01-02T00:00:00Z","labels":{"team":"ads"},"results":[]}"#;
    let tables = run(&database, &format!("{moved}\n"), &settings).await;
    assert_eq!(texts(&tables, populations).await, ["m/all/absolute/team=ads", "m/all/absolute/team=search"]);
    let counted =
        "select population_id || ' ' || experiments || ' ' || effects from populations order by population_id";
    assert_eq!(texts(&tables, counted).await, ["m/all/absolute/team=ads 1 3", "m/all/absolute/team=search 5 15"]);
    let rows = "select population_id || ' ' || count(*) from effect_estimates group by population_id order by 1";
    let expected = ["m/all/absolute/team=ads 3", "m/all/absolute/team=search 15"];
    assert_eq!(texts(&tables, rows).await, expected, "no estimate is left behind");
}

#[tokio::test]
async fn what_does_not_change_is_not_written_again() {
    let database = SqliteDatabase::absent();
    let tables = run(&database, &events(200), &[]).await;
    let rows = "select experiment_id || variant || computed_at || fit_id from effect_estimates order by 1";
    let before = texts(&tables, rows).await;

    // The same events, and one more experiment among two hundred, which moves mu and tau by less than the tolerance.
    let more = events(200) + &event(200, 1, "search") + "\n";
    let tables = run(&database, &more, &[("PUBLISH__TOLERANCE", "0.2")]).await;
    let after = texts(&tables, rows).await;
    let rewritten = before.iter().filter(|row| !after.contains(row)).count();
    assert_eq!((rewritten, after.len() - before.len()), (0, 3));
}

#[tokio::test]
async fn the_verdict_is_the_one_that_a_fit_of_the_same_history_gives() {
    check_diagnostics(&events(40)).await;
}

#[tokio::test]
async fn an_outlier_is_left_out_as_a_fit_leaves_it_out() {
    let outlier = event(40, 1, "search").replace(r#""estimate":"#, r#""estimate":6"#);
    assert!(outlier.contains(r#""estimate":60."#), "{outlier}");
    check_diagnostics(&(events(40) + &outlier + "\n")).await;
}

/// Compares the diagnostics that a worker stores for these events with those of a fit.
async fn check_diagnostics(lines: &str) {
    let database = SqliteDatabase::absent();
    let tables = run(&database, lines, &[]).await;
    let mut history = History::default();
    lines.lines().for_each(|line| drop(history.take(decode(line.as_bytes()))));
    let populations = history.into_populations(1).expect("blocks fit");
    let population = populations.values().next().expect("one population");
    let analysis = Analysis::new(&population.members, &population.sketches, &Request::default()).expect("a posterior");
    let correlation = analysis.comparison.expect("two models");
    let calibration = analysis.calibration.expect("predictions");

    let row = sqlx::query(
        "select verdict, verdict_rests_on, verdict_value, deff, mu_shift, coverage95, calibration_rms_z,
                shipped_share, hausman_z, naive_coverage, rmse_excess, changed_decision_share, risk_modelled, risk_control_only, risk_ignored,
                risk_one_per_experiment, score_modelled, score_control_only, score_ignored, score_one_per_experiment,
                selection_log_lr,
                selection_eta, selection_missing_share, caliper_p, is_selection_suspected, coverage80_low, coverage80_high,
                pit_histogram, calibration_cause
         from population_diagnostics order by fit_id desc limit 1",
    )
    .fetch_one(&tables)
    .await
    .expect("a row");
    assert_eq!(row.get::<String, _>(0), correlation.verdict.as_str());
    assert_eq!(row.get::<String, _>(1), correlation.rests_on.0.as_str());
    let near = |i: usize, expected: f64| {
        let found: f64 = row.get(i);
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e-3), "column {i}: {found}, not {expected}");
    };
    near(2, correlation.rests_on.1);
    near(3, correlation.consequences.deff());
    near(4, correlation.diagnostics.mu_shift.expect("a shift"));
    near(5, calibration.coverage95);
    near(6, calibration.rms_z);
    near(7, 1.0);
    assert_eq!(row.get::<Option<f64>, _>(8), correlation.hausman_z, "blocks of one shape leave nothing to test");
    near(9, correlation.consequences.naive_coverage());
    near(10, correlation.consequences.rmse_excess().expect("an excess"));
    near(11, correlation.consequences.changed_decision_share());
    for (i, correlation_model) in Correlation::ALL.into_iter().enumerate() {
        near(12 + i, correlation.misfit.risk(correlation_model).expect("a risk"));
        near(16 + i, correlation.misfit.score(correlation_model).expect("a score"));
    }
    let selection = analysis.selection.expect("effects");
    assert_eq!(row.get::<f64, _>(20), selection.log_lr);
    assert_eq!(row.get::<f64, _>(21), selection.eta);
    assert_eq!(row.get::<f64, _>(22), selection.missing_share);
    assert_eq!(row.get::<Option<f64>, _>(23), selection.caliper_p);
    assert_eq!(row.get::<bool, _>(24), selection.is_suspected());
    assert_eq!((row.get::<f64, _>(25), row.get::<f64, _>(26)), calibration.bounds(0.8));
    assert_eq!(row.get::<String, _>(27), format!("{:?}", calibration.pit_histogram));
    assert_eq!(row.get::<Option<String>, _>(28).as_deref(), analysis.miscalibration.map(|cause| cause.as_str()));
}

/// An experiment of a single variant with this z, whose decision is `Launched`.
fn launched(experiment: usize, z: f64) -> String {
    let (error, effect) = (0.28, 0.28 * z);
    format!(
        r#"{{"schema_version":1,"experiment_id":"launch-{experiment}","revision":1,"completed_at":"2026-01-01T00:00:00Z","decision":"Launched","results":[{{"metric":"m","effects":[{{"variant":"b","estimate":{effect},"variance":{}}}]}}]}}"#,
        error * error
    ) + "\n"
}

#[tokio::test]
async fn winners_alone_are_suspected_and_what_means_shipped_is_configured() {
    let database = SqliteDatabase::absent();
    // As many above 1.96 as fall off there, and none below.
    let winners: String =
        (0..60).map(|i| launched(i, 1.96 - 0.6 * ((f64::from(i as u32) + 0.5) / 60.0).ln())).collect();
    let settings = [("DIAGNOSTICS__SHIPPED_DECISIONS", "[\"shipped\", \"launched\"]")];
    let tables = run(&database, &winners, &settings).await;
    let row = sqlx::query(
        "select is_selection_suspected, selection_log_lr, selection_missing_share, caliper_p, shipped_share
         from population_diagnostics order by fit_id desc limit 1",
    )
    .fetch_one(&tables)
    .await
    .expect("a row");
    assert!(row.get::<bool, _>(0));
    assert!(row.get::<f64, _>(1) > 10.0 && row.get::<f64, _>(2) > 0.5 && row.get::<f64, _>(3) < 1e-6);
    assert_eq!(row.get::<f64, _>(4), 1.0);
}

#[test]
fn a_publish_is_due_when_mu_tau_or_their_sds_have_moved_by_more_than_the_tolerance() {
    let fitted = |mu: f64, mu_sd: f64, tau: f64, log_tau_sd: f64| Judged {
        status: FitStatus::Fitted,
        mu: Some(mu),
        mu_sd: Some(mu_sd),
        tau: Some(tau),
        log_tau_sd: Some(log_tau_sd),
        icc: None,
        icc_sd: None,
        direction: Direction::Increase,
    };
    let published = fitted(1.0, 0.1, 2.0, 0.3);
    let has_moved = |current: Judged| current.has_moved(Some(&published), 0.01);
    assert!(!has_moved(published));
    assert!(!has_moved(fitted(1.019, 0.1, 2.0, 0.3)) && has_moved(fitted(1.021, 0.1, 2.0, 0.3)), "mu");
    assert!(!has_moved(fitted(1.0, 0.119, 2.0, 0.3)) && has_moved(fitted(1.0, 0.121, 2.0, 0.3)), "its sd likewise");
    assert!(!has_moved(fitted(1.0, 0.1, 2.019, 0.3)) && has_moved(fitted(1.0, 0.1, 2.021, 0.3)), "log tau");
    assert!(!has_moved(fitted(1.0, 0.1, 2.0, 0.309)) && has_moved(fitted(1.0, 0.1, 2.0, 0.311)), "its sd");
    let cold = Judged {
        status: FitStatus::ColdStart,
        mu: None,
        mu_sd: None,
        tau: None,
        log_tau_sd: None,
        icc: None,
        icc_sd: None,
        direction: Direction::Increase,
    };
    assert!(has_moved(cold), "a population that fell below the fewest experiments");
    assert!(!cold.has_moved(None, 0.01), "nothing was published, and nothing is to be");
    assert!(published.has_moved(None, 0.01), "the first fit");
    assert!(has_moved(Judged { direction: Direction::Decrease, ..published }), "what is configured to be better");
}

#[test]
fn a_publish_is_due_when_the_intraclass_correlation_or_its_sd_has_moved_by_more_than_the_tolerance() {
    let fitted = |icc: f64, icc_sd: f64| Judged {
        status: FitStatus::Fitted,
        mu: Some(1.0),
        mu_sd: Some(0.1),
        tau: Some(2.0),
        log_tau_sd: Some(0.3),
        icc: Some(icc),
        icc_sd: Some(icc_sd),
        direction: Direction::Increase,
    };
    // 2 / ((1 - icc) (1 + 3 icc)) is 2 at 0 and 1.6 at 1/2.
    for (icc, slope) in [(0.0, 2.0), (0.5, 1.6)] {
        let published = fitted(icc, 0.1);
        let has_moved = |current: Judged| current.has_moved(Some(&published), 0.01);
        let [near, far] = [0.0095 / slope, 0.0105 / slope];
        assert!(!has_moved(published));
        assert!(!has_moved(fitted(icc + near, 0.1)) && has_moved(fitted(icc + far, 0.1)), "icc from {icc}");
        assert!(!has_moved(fitted(icc, 0.1 + near)) && has_moved(fitted(icc, 0.1 + far)), "its sd at {icc}");
        let known = Judged { icc: None, icc_sd: None, ..published };
        assert!(has_moved(known) && !known.has_moved(Some(&known), 0.01), "another prior");
        assert!(published.has_moved(Some(&known), 0.01));
    }
    let near_one = fitted(0.9, 0.02);
    assert!(
        fitted(0.903, 0.02).has_moved(Some(&near_one), 0.01),
        "near 1 small moves count: the sd within an experiment"
    );
}

#[test]
fn a_fixed_tau_of_0_has_not_moved() {
    let known = |tau: f64| Judged {
        status: FitStatus::Fitted,
        mu: Some(1.0),
        mu_sd: Some(0.1),
        tau: Some(tau),
        log_tau_sd: Some(0.0),
        icc: None,
        icc_sd: None,
        direction: Direction::Increase,
    };
    assert!(!known(0.0).has_moved(Some(&known(0.0)), 0.01));
    assert!(known(0.0).has_moved(Some(&known(0.1)), 0.01) && known(0.1).has_moved(Some(&known(0.0)), 0.01));
}

#[test]
fn a_figure_that_appears_or_goes_has_moved_and_one_that_neither_fit_has_has_not() {
    let all = Judged {
        status: FitStatus::Fitted,
        mu: Some(1.0),
        mu_sd: Some(0.1),
        tau: Some(2.0),
        log_tau_sd: Some(0.3),
        icc: None,
        icc_sd: None,
        direction: Direction::Increase,
    };
    let lacking = [
        Judged { mu: None, ..all },
        Judged { mu_sd: None, ..all },
        Judged { tau: None, ..all },
        Judged { log_tau_sd: None, ..all },
        Judged { mu: None, mu_sd: None, tau: None, log_tau_sd: None, ..all },
    ];
    for lacking in lacking {
        assert!(!lacking.has_moved(Some(&lacking), 0.01), "{lacking:?} from itself");
        assert!(lacking.has_moved(Some(&all), 0.01), "a figure has gone: {lacking:?}");
        assert!(all.has_moved(Some(&lacking), 0.01), "a figure has appeared: {lacking:?}");
    }
}

#[test]
fn a_status_decides_before_any_figure() {
    let of = |status, mu| Judged {
        status,
        mu: Some(mu),
        mu_sd: Some(0.1),
        tau: Some(2.0),
        log_tau_sd: Some(0.3),
        icc: None,
        icc_sd: None,
        direction: Direction::Increase,
    };
    let (fitted, failed) = (of(FitStatus::Fitted, 1.0), of(FitStatus::Failed, 1.0));
    assert!(!failed.has_moved(Some(&fitted), 0.01) && !failed.has_moved(None, 0.01), "the estimates stay as they are");
    for status in [FitStatus::ColdStart, FitStatus::Improper] {
        assert!(of(status, 1.0).has_moved(Some(&fitted), 0.01) && fitted.has_moved(Some(&of(status, 1.0)), 0.01));
        assert!(!of(status, 1.0).has_moved(Some(&of(status, 9.0)), 0.01), "raw estimates do not depend on mu");
    }
    assert!(of(FitStatus::Improper, 1.0).has_moved(None, 0.01), "it is published why there are no estimates");
}

#[tokio::test]
async fn a_prior_in_units_of_the_data_stands_with_the_fit_as_a_number_and_in_the_settings_as_stated() {
    let database = SqliteDatabase::absent();
    let settings = [("REFIT__PRIOR_TAU", "half-normal:0.5se"), ("REFIT__PRIOR_MU", "normal:mean,1sd")];
    let tables = run(&database, &events(3), &settings).await;
    let row = sqlx::query(
        "select f.prior_tau, f.status, p.fit_settings, f.tau_shortest95_low, f.prob_tau_negligible
         from current_population_fits f join populations p using (population_id) where f.correlation = 'modelled'",
    )
    .fetch_one(&tables)
    .await
    .expect("a row");
    // Every effect has variance 0.5.
    let prior: String = row.get(0);
    let scale: f64 = prior.strip_prefix("half-normal:").expect("a half-normal").parse().expect("a number");
    assert!((scale - 0.5 * 0.5_f64.sqrt()).abs() < 1e-12, "{prior}");
    assert_eq!(row.get::<String, _>(1), "fitted");
    assert!(row.get::<String, _>(2).contains("mu normal:mean,1sd, tau half-normal:0.5se"));
    assert_eq!(row.get::<Option<f64>, _>(3), Some(0.0));
    assert!(row.get::<Option<f64>, _>(4).is_some_and(|probability| probability > 0.0 && probability < 1.0));
}

#[tokio::test]
async fn a_prior_of_the_intraclass_correlation_gives_what_a_fit_of_the_same_events_gives() {
    let database = SqliteDatabase::absent();
    let lines = events(30);
    let tables = run(&database, &lines, &[("REFIT__PRIOR_ICC", "uniform")]).await;
    let mut history = History::default();
    lines.lines().for_each(|line| drop(history.take(decode(line.as_bytes()))));
    let populations = history.into_populations(1).expect("blocks fit");
    let population = populations.values().next().expect("one population");
    let request = Request { priors: Priors { icc: PriorIcc::Uniform, ..Priors::default() }, ..Request::default() };
    let analysis = Analysis::new(&population.members, &population.sketches, &request).expect("a posterior");
    let icc = analysis.fit.posterior.icc.expect("several variants");

    let row = sqlx::query(
        "select icc_mean, icc_median, icc_sd, icc_q025, icc_q975, prob_icc_above_090, icc_log_bayes_factor,
                icc_log_bayes_factor_half, tau_within_median, tau_shared_median, mu_mean, mu_sd, tau_median, icc_status, prior_icc
         from current_population_fits where correlation = 'modelled'",
    );
    let row = row.fetch_one(&tables).await.expect("a row");
    let expected = [
        icc.icc.mean,
        icc.icc.median,
        icc.icc.sd,
        icc.icc.q025,
        icc.icc.q975,
        Some(icc.prob_above_090),
        Some(icc.log_bayes_factor),
        Some(icc.log_bayes_factor_half),
        Some(icc.tau_within_median),
        Some(icc.tau_shared_median),
        analysis.fit.posterior.mu.mean,
        analysis.fit.posterior.mu.sd,
        analysis.fit.posterior.tau.median,
    ];
    for (i, expected) in expected.into_iter().enumerate() {
        assert_eq!(row.get::<Option<f64>, _>(i), expected, "column {i}");
    }
    assert_eq!(
        (row.get::<&str, _>(13), row.get::<&str, _>(14)),
        (icc.status().expect("it is not known").as_str(), "uniform")
    );
    let others = "select count(*) from current_population_fits
                  where correlation <> 'modelled' and icc_mean is null and icc_status is null and prior_icc is null";
    assert_eq!(count(&tables, others).await, 3, "the other models have none");
    let independent = sqlx::query(
        "select mu_mean, tau_median, multi_variant_experiments from current_population_fits where correlation = 'control_only'",
    );
    let independent = independent.fetch_one(&tables).await.expect("a row");
    let posterior = analysis.posteriors[Correlation::ControlOnly as usize].as_ref().expect("a posterior");
    assert_eq!(independent.get::<Option<f64>, _>(0), posterior.mu.mean);
    assert_eq!(independent.get::<Option<f64>, _>(1), posterior.tau.median);
    assert_ne!(posterior.mu.mean, analysis.fit.posterior.mu.mean);
    let several = population.members.iter().filter(|member| member.block().len() > 1).count();
    assert_eq!(independent.get::<i64, _>(2), several as i64);

    // Every row is averaged over icc, too.
    let sql = "select experiment_id, variant, posterior_mean, posterior_sd from effect_estimates order by 1, 2";
    let rows = sqlx::query(sql).fetch_all(&tables).await.expect("rows");
    for row in rows.iter().filter(|row| row.get::<&str, _>(0) == "exp-7") {
        let variant = ["b", "c", "d"].iter().position(|variant| *variant == row.get::<&str, _>(1)).expect("a variant");
        let member = population.members.iter().zip(&population.experiments).find(|(_, it)| it.experiment_id == "exp-7");
        let (member, _) = member.expect("it is a member");
        let estimate = BlockPosterior::new(member.block(), &analysis.fit.nodes).estimate(variant);
        assert_eq!((row.get::<f64, _>(2), row.get::<f64, _>(3)), (estimate.mean, estimate.sd));
    }

    // Single variants have none.
    let database = SqliteDatabase::absent();
    let single: String = (0..8).map(|i| launched(i, 0.3 * i as f64)).collect();
    let tables = run(&database, &single, &[("REFIT__PRIOR_ICC", "uniform")]).await;
    let statuses = "select icc_status from current_population_fits where correlation = 'modelled' and icc_mean is null";
    assert_eq!(texts(&tables, statuses).await, ["no_multi_variant"]);
}

#[tokio::test]
async fn a_unit_that_the_data_do_not_set_fails_the_fit_with_what_to_do() {
    let database = SqliteDatabase::absent();
    let one = r#"{"schema_version":1,"experiment_id":"one","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{"metric":"m","effects":[{"variant":"b","estimate":1,"variance":0.5}]}]}"#;
    let tables = run(&database, &format!("{one}\n"), &[("REFIT__PRIOR_TAU", "half-normal:1sd")]).await;
    let row = sqlx::query("select status, message from current_population_fits where correlation = 'modelled'");
    let row = row.fetch_one(&tables).await.expect("a row");
    assert_eq!(row.get::<String, _>(0), "failed");
    assert!(row.get::<String, _>(1).contains("state it in se or in the effects' unit"));
}

/// Rows of `effect_estimates`: variant, direction, whether it is best for sure, coverage, whether it was shipped.
async fn described(pool: &SqlitePool) -> Vec<String> {
    let sql =
        "select variant || ' ' || coalesce(direction, '-') || ' ' || coalesce(prob_best > 0.99, '-') || ' ' || coverage
                      || ' ' || coalesce(is_shipped, '-') as row
               from effect_estimates where experiment_id = 'lat0' order by variant";
    let rows = sqlx::query(sql).fetch_all(pool).await.expect("rows");
    rows.iter().map(|row| row.get("row")).collect()
}

#[tokio::test]
async fn the_direction_of_a_result_or_else_of_its_population_decides_which_variant_is_best() {
    const LATENCIES: &str = include_str!("../data/cases/inverse_metric.ndjson");
    let decrease = ("POPULATIONS__SETTINGS", r#"{ "latency/all/absolute" = { direction = "decrease" } }"#);

    let database = SqliteDatabase::absent();
    let pool = run(&database, LATENCIES, &[]).await;
    assert_eq!(described(&pool).await, ["faster increase 0 1.0 -", "slower increase 1 1.0 -"]);
    // As configured from now on, although no event has come.
    let pool = run(&database, "", &[decrease]).await;
    assert_eq!(described(&pool).await, ["faster decrease 1 1.0 -", "slower decrease 0 1.0 -"]);
    // What a result says counts; the rest of a later revision follows too.
    let sent = LATENCIES
        .replace(r#""revision": 1"#, r#""revision": 2, "shipped_variant": "slower""#)
        .replace(r#""metric": "latency""#, r#""metric": "latency", "direction": "increase", "coverage": 0.5"#);
    let pool = run(&database, &sent, &[decrease]).await;
    assert_eq!(described(&pool).await, ["faster increase 0 0.5 0", "slower increase 1 0.5 1"]);
}
