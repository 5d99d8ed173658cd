//! Fits of the latest cells, and which of them are published.

use std::collections::BTreeMap;
use std::time::Duration;

use shrinkd::refit::{Judged, Publication, RefitState, apply};
use shrinkd::row::{CellDiagnostics, CurrentPopulation, FitRow, FitStatus, Pass, PopulationTotals};
use shrinkd::store::{Refit, Refitted, Store};
use shrinkd::worker::report::PopulationReport;
use shrinkd_core::PopulationName;
use shrinkd_model::{Correlation, Direction, Distance, IccPosterior, IccStatus, Node, Summary};
use time::OffsetDateTime;

use super::publish::end_pass;
use super::{Worker, event, population, promises, record};
use crate::common::database::{Database, PostgresDatabase, SqliteDatabase};

promises! {
    news_is_what_no_refit_has_seen,
    a_postponed_publish_leaves_the_news,
    a_refit_that_is_not_committed_has_not_been,
    only_published_fits_enter_the_history,
    what_a_fit_says_comes_back_as_it_was,
    an_ingest_computes_with_the_published_fit,
    a_population_that_is_not_there_has_no_refit,
    a_fit_without_a_mean_of_mu_is_judged_by_its_median,
    of_fits_that_were_published_the_latest_counts,
    a_refit_says_what_it_has_seen_and_when,
    a_refit_replaces_all_that_the_one_before_left,
    a_request_concerns_its_populations_alone,
    a_refit_is_reported_as_of_when_it_was_written_however_long_ago_it_began,
}

async fn a_postponed_publish_leaves_the_news<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    refit(&store, "m", 2.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    let (mut refit, state) = begin_refit(&store, "m").await.expect("the population is free");
    let rows = [fit_row(Correlation::Modelled, 1.0, 0.5)];
    refit.write(vec![refitted("m", &state, &rows, Publication::Postponed)]).await.unwrap();
    refit.commit().await.unwrap();
    worker.ingest(vec![record(0, 2, &event("exp-9", 1, "m", &[2.0]))]).await;
    assert!(store.populations_with_news().await.unwrap().is_empty(), "not at once, not even for a change");
    let is_later = match database.url().starts_with("sqlite") {
        true => {
            "select cast(count(*) as text) from populations
             where refit_due_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 minute')"
        }
        false => "select cast(count(*) as text) from populations where refit_due_at > now() + interval '1 minute'",
    };
    assert_eq!(database.count(is_later).await, 1, "passes of thousands of populations may take long");
    end_pass(&store, &pass, false, None).await;
    assert_eq!(store.populations_with_news().await.unwrap(), [population("m")], "but when the pass has ended");
    refit_again(&store).await;
    assert!(store.populations_with_news().await.unwrap().is_empty());
}

async fn refit_again(store: &Store) {
    refit(store, "m", 1.0, 0.5, false).await;
}

/// A refit of one population under way, and what it has found; `None` where another has the population.
pub async fn begin_refit(store: &Store, metric: &str) -> Option<(Refit, RefitState)> {
    let mut refit = store.begin_refit(&[population(metric)]).await.unwrap();
    let mut states = refit.populations().await.unwrap();
    refit.read_statistics(&mut states).await.unwrap();
    while let Some(taken) = refit.take().await.unwrap() {
        apply(&mut states, taken).unwrap();
    }
    Some((refit, states.remove(&population(metric))?))
}

/// The populations with the most effects, and the totals of all.
pub async fn largest(store: &Store, most: usize) -> (Vec<CurrentPopulation>, PopulationTotals) {
    let mut report = PopulationReport::default();
    report.update(store).await.expect("populations");
    report.largest(most)
}

/// A population with these fits.
pub fn refitted(metric: &str, state: &RefitState, fits: &[FitRow], publication: Publication) -> Refitted {
    let (population, fit_settings) = (population(metric), "as configured".to_owned());
    Refitted { population, state: state.clone(), fits: fits.to_vec(), fit_settings, publication }
}

/// A fit at one point.
pub fn fit_row(correlation: Correlation, mu: f64, tau: f64) -> FitRow {
    let summary = |x| Summary { mean: Some(x), median: Some(x), sd: Some(0.25), ..Summary::default() };
    FitRow {
        correlation,
        status: FitStatus::Fitted,
        message: None,
        direction: Direction::Increase,
        is_prior_far: false,
        effects: 7,
        multi_variant_experiments: 2,
        mu: summary(mu),
        tau: summary(tau),
        icc: None,
        icc_status: None,
        mu_tau_correlation: None,
        log_evidence: None,
        predictive: Summary::default(),
        log_tau_sd: Some(0.5),
        tau_shortest95: Some((0.0, 1.0)),
        prob_tau_negligible: Some(0.125),
        prior_mu: Some("flat".to_owned()),
        prior_tau: Some("half-normal:0.5".to_owned()),
        prior_icc: None,
        laplace: None,
        variational: None,
        nodes: vec![node(mu, tau)],
    }
}

pub fn diagnostics() -> CellDiagnostics {
    CellDiagnostics {
        information: 3.0,
        information_ignored: 4.0,
        effective_effects: 5.0,
        tau_squared_moment_bias: Some(-0.1),
        mu_shift: None,
        log_tau_shift: Some(0.2),
    }
}

/// Refits a population to this mu and tau; with `is_published`, its rows are to be rewritten.
pub async fn refit(store: &Store, metric: &str, mu: f64, tau: f64, is_published: bool) -> RefitState {
    let (mut refit, state) = begin_refit(store, metric).await.expect("the population is free");
    let rows = [fit_row(Correlation::Modelled, mu, tau), fit_row(Correlation::Ignored, mu + 1.0, tau)];
    let publication = match is_published {
        true => Publication::Due(Some(diagnostics())),
        false => Publication::NotDue,
    };
    refit.write(vec![refitted(metric, &state, &rows, publication)]).await.unwrap();
    refit.commit().await.unwrap();
    state
}

/// Refits those of these populations that are free in one transaction, and returns what it has found of them.
pub async fn refit_at_once(store: &Store, metrics: &[&str]) -> BTreeMap<PopulationName, RefitState> {
    refit_found(store, &metrics.iter().map(|metric| population(metric)).collect::<Vec<_>>()).await
}

pub async fn refit_found(store: &Store, populations: &[PopulationName]) -> BTreeMap<PopulationName, RefitState> {
    let mut refit = store.begin_refit(populations).await.unwrap();
    let mut states = refit.populations().await.unwrap();
    refit.read_statistics(&mut states).await.unwrap();
    while let Some(taken) = refit.take().await.unwrap() {
        apply(&mut states, taken).unwrap();
    }
    states.values_mut().for_each(RefitState::grow);
    let refitted = states.iter().map(|(population, state)| Refitted {
        population: population.clone(),
        ..refitted("any", state, &[fit_row(Correlation::Modelled, 1.0, 0.5)], Publication::NotDue)
    });
    refit.write(refitted.collect()).await.unwrap();
    refit.commit().await.unwrap();
    states
}

/// A fit at one point, of which the intraclass correlation is known.
pub fn alike_row(mu: f64, tau: f64, icc: f64) -> FitRow {
    let known = IccPosterior {
        icc: Summary { mean: Some(icc), median: Some(icc), sd: Some(0.0), ..Summary::default() },
        log_bayes_factor: 8.5,
        log_bayes_factor_half: -3.25,
        prob_above_090: 0.0,
        tau_within_median: tau * (1.0 - icc).sqrt(),
        tau_shared_median: tau * icc.sqrt(),
    };
    let nodes = vec![Node { icc, ..node(mu, tau) }];
    FitRow {
        icc: Some(known),
        prior_icc: Some(format!("fixed:{icc}")),
        nodes,
        ..fit_row(Correlation::Modelled, mu, tau)
    }
}

pub fn node(mu: f64, tau: f64) -> Node {
    Node { weight: 1.0, tau, icc: 0.0, mu_mean: mu, mu_variance: 0.0 }
}

/// Some experiments of one population, and the worker that took them in.
pub async fn filled(store: &Store, experiments: i64) -> Worker {
    let mut worker = Worker::claim(store, &[0]).await;
    let records = (0..experiments).map(|i| record(0, i, &event(&format!("exp-{i}"), 1, "m", &[i as f64, 0.5])));
    worker.ingest(records.collect()).await;
    worker
}

/// (fit, posterior mean) of every row, by experiment and variant.
pub async fn written(database: &impl Database) -> Vec<(i64, Option<f64>)> {
    let rows = database.numbers(
        "select cast(fit_id as double precision), posterior_mean from effect_estimates order by experiment_id, variant",
    );
    rows.await.into_iter().map(|row| (row[0].expect("a fit") as i64, row[1])).collect()
}

pub async fn begin(store: &Store, owner: &str) -> Option<Pass> {
    store.begin_passes(&[population("m")], owner).await.unwrap().pop()
}

async fn news_is_what_no_refit_has_seen<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    assert_eq!(store.populations_with_news().await.unwrap(), [population("m")]);
    refit(&store, "m", 1.0, 0.5, false).await;
    assert!(store.populations_with_news().await.unwrap().is_empty());
    worker.ingest(vec![record(0, 2, &event("exp-0", 1, "m", &[0.0, 0.5]))]).await;
    assert!(store.populations_with_news().await.unwrap().is_empty(), "a duplicate is no news");
    worker.ingest(vec![record(0, 3, &event("exp-0", 2, "m", &[0.0, 0.5]))]).await;
    assert_eq!(store.populations_with_news().await.unwrap(), [population("m")]);
}

async fn a_refit_that_is_not_committed_has_not_been<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    let (mut given_up, state) = begin_refit(&store, "m").await.unwrap();
    let rows = [fit_row(Correlation::Modelled, 1.0, 1.0)];
    given_up.write(vec![refitted("m", &state, &rows, Publication::Due(Some(diagnostics())))]).await.unwrap();
    drop(given_up);
    assert_eq!(store.populations_with_news().await.unwrap(), [population("m")]);
    assert!(begin(&store, "a").await.is_none());
    for table in [
        "select cast(count(*) as text) from current_population_fits",
        "select cast(count(*) as text) from population_fits",
        "select cast(count(*) as text) from population_diagnostics",
    ] {
        assert_eq!(database.count(table).await, 0);
    }
}

async fn only_published_fits_enter_the_history<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    assert_eq!(refit(&store, "m", 1.0, 0.5, false).await.published, None);
    assert_eq!(refit(&store, "m", 2.0, 0.6, true).await.published, None);
    let state = refit(&store, "m", 3.0, 0.7, false).await;
    let expected = Judged {
        status: FitStatus::Fitted,
        mu: Some(2.0),
        mu_sd: Some(0.25),
        tau: Some(0.6),
        log_tau_sd: Some(0.5),
        icc: None,
        icc_sd: None,
        direction: Direction::Increase,
    };
    assert_eq!((state.published, state.is_publishing), (Some(expected), true));
    let history = database.numbers("select mu_mean, tau_median from population_fits where correlation = 'modelled'");
    assert_eq!(history.await, [[Some(2.0), Some(0.6)]]);
    let current = &store.current_populations().await.unwrap()[0];
    assert_eq!((current.mu, current.tau, current.status), (Some(3.0), Some(0.7), Some(FitStatus::Fitted)));
    assert_eq!((current.experiments, current.effects), (2, 4));
}

async fn what_a_fit_says_comes_back_as_it_was<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    let (mut refit, state) = begin_refit(&store, "m").await.unwrap();
    assert_eq!(state.input_offsets, [("experiments".to_owned(), 0, 2)]);
    let summary = |x: f64| Summary {
        mean: Some(x),
        median: Some(x / 3.0),
        sd: Some(x * 1e-300),
        q025: Some(-x),
        q25: None,
        q75: Some(x * 1e300),
        q975: Some(x + 0.1),
    };
    let distance =
        |x| Distance { mu_mean: Some(x), tau_median: Some(x / 7.0), mu_sd: None, tau_sd: None, log_evidence: None };
    let row = FitRow {
        mu: summary(0.1),
        tau: summary(0.7),
        predictive: summary(1.3),
        mu_tau_correlation: Some(-0.25),
        log_evidence: Some(-1234.5),
        laplace: Some(distance(0.01)),
        variational: Some(distance(0.02)),
        icc: Some(IccPosterior {
            icc: summary(0.5),
            log_bayes_factor: 8.5,
            log_bayes_factor_half: -3.25,
            prob_above_090: 0.0625,
            tau_within_median: 0.375,
            tau_shared_median: 0.875,
        }),
        icc_status: Some(IccStatus::Weak),
        prior_icc: Some("beta:1,2".to_owned()),
        ..fit_row(Correlation::Modelled, 0.0, 0.0)
    };
    refit.write(vec![refitted("m", &state, &[row], Publication::NotDue)]).await.unwrap();
    refit.commit().await.unwrap();
    let found = database.numbers(
        "select mu_mean, mu_median, mu_sd, mu_q025, mu_q25, mu_q75, mu_q975, tau_mean, tau_q975, predictive_mean,
                predictive_median, predictive_q975, mu_tau_correlation, log_evidence, laplace_mu_distance,
                laplace_tau_distance, variational_mu_distance, variational_tau_distance, log_tau_sd, icc_mean, icc_median, icc_q25,
                icc_q975, prob_icc_above_090, icc_log_bayes_factor, icc_log_bayes_factor_half, tau_within_median,
                tau_shared_median
         from current_population_fits",
    );
    let (x, third) = (0.1, 0.1 / 3.0);
    let expected = [x, third, x * 1e-300, -x, f64::NAN, x * 1e300, x + 0.1, 0.7, 0.7 + 0.1, 1.3, 1.3 / 3.0, 1.3 + 0.1]
        .into_iter()
        .chain([-0.25, -1234.5, 0.01, 0.01 / 7.0, 0.02, 0.02 / 7.0, 0.5])
        .chain([0.5, 0.5 / 3.0, f64::NAN, 0.5 + 0.1, 0.0625, 8.5, -3.25, 0.375, 0.875]);
    let expected: Vec<Option<f64>> = expected.map(|x| (!x.is_nan()).then_some(x)).collect();
    assert_eq!(found.await, [expected]);
    let words = database.texts("select icc_status || ' ' || prior_icc from current_population_fits").await;
    assert_eq!(words, [Some("weak beta:1,2".to_owned())]);
    let offsets = database.texts("select cast(input_offsets as text) from current_population_fits").await;
    assert_eq!(offsets[0].as_deref().map(|json| json.replace(' ', "")).unwrap(), r#"{"experiments/0":2}"#);
}

async fn an_ingest_computes_with_the_published_fit<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 1).await;
    assert_eq!(written(database).await, [(0, None), (0, None)]);
    refit(&store, "m", 2.0, 0.5, true).await;
    let fit_id = begin(&store, "a").await.unwrap().fit.fit_id;
    refit(&store, "m", 9.0, 0.5, false).await;
    worker.ingest(vec![record(0, 1, &event("exp-9", 1, "m", &[2.0]))]).await;
    let [.., (found, Some(mean))] = written(database).await[..] else { panic!("the new row is fitted") };
    assert_eq!(found, fit_id);
    assert!((mean - 2.0).abs() < 1e-12, "{mean}: at mu of the published fit it stays where it is");
}

async fn a_population_that_is_not_there_has_no_refit<D: Database>(database: &D) {
    let store = database.store().await;
    assert!(begin_refit(&store, "m").await.is_none());
    assert!(begin(&store, "a").await.is_none());
    assert!(store.due_passes(Some(OffsetDateTime::now_utc()), "another").await.unwrap().is_empty());
}

async fn a_fit_without_a_mean_of_mu_is_judged_by_its_median<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    let (mut refit, state) = begin_refit(&store, "m").await.unwrap();
    let mu = Summary { median: Some(3.0), sd: None, ..Summary::default() };
    let row = FitRow { mu, ..fit_row(Correlation::Modelled, 1.0, 0.5) };
    let judged = Judged::of(&row);
    assert_eq!(judged.mu, Some(3.0));
    let rows = [row, fit_row(Correlation::Ignored, 1.0, 0.5)];
    refit.write(vec![refitted("m", &state, &rows, Publication::Due(None))]).await.unwrap();
    refit.commit().await.unwrap();
    assert_eq!(store.population_state(&population("m")).await.unwrap().published, Some(judged));
    assert_eq!(store.current_populations().await.unwrap()[0].mu, Some(3.0));
}

async fn of_fits_that_were_published_the_latest_counts<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    for mu in [2.0, 3.0, 1.0] {
        refit(&store, "m", mu, 0.5, true).await;
        let published = store.population_state(&population("m")).await.unwrap().published.expect("it is published");
        assert_eq!(published.mu, Some(mu));
        assert_eq!(begin(&store, "a").await.unwrap().fit.nodes, [node(mu, 0.5)]);
    }
    // Not because it is the last one that is read.
    database.execute("update populations set published_fit_id = (select min(fit_id) from population_fits)").await;
    assert_eq!(store.population_state(&population("m")).await.unwrap().published.unwrap().mu, Some(2.0));
    assert_eq!(begin(&store, "a").await.unwrap().fit.nodes, [node(2.0, 0.5)]);
}

async fn a_refit_says_what_it_has_seen_and_when<D: Database>(database: &D) {
    let store = database.store().await;
    // Nothing of the last partition has been read.
    let mut worker = Worker::claim(&store, &[0, 1, 2]).await;
    worker.ingest(vec![record(1, 6, &event("exp-0", 1, "m", &[1.0]))]).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    database.execute("update current_population_fits set computed_at = '2020-01-01T00:00:00.000000Z'").await;
    worker.ingest(vec![record(0, 1, &event("exp-1", 1, "m", &[1.0]))]).await;
    let state = refit(&store, "m", 1.0, 0.5, false).await;
    let topic = || "experiments".to_owned();
    assert_eq!(state.input_offsets, [(topic(), 0, 2), (topic(), 1, 7)], "in the order of their numbers");
    let offsets = database.texts("select distinct cast(input_offsets as text) from current_population_fits").await;
    let offsets: Vec<String> = offsets.into_iter().flatten().map(|json| json.replace(' ', "")).collect();
    assert_eq!(offsets, [r#"{"experiments/0":2,"experiments/1":7}"#]);
    let seen = "select cast(count(*) as text) from current_population_fits
                where experiments = 2 and computed_at > '2020-01-02T00:00:00Z'";
    assert_eq!(database.count(seen).await, 2);
    assert_eq!(store.current_populations().await.unwrap()[0].fit_settings.as_deref(), Some("as configured"));
}

async fn a_refit_replaces_all_that_the_one_before_left<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    let (mut refit, state) = begin_refit(&store, "m").await.unwrap();
    let failed =
        |correlation, message: &str| FitRow { message: Some(message.to_owned()), ..fit_row(correlation, 2.0, 0.5) };
    for why in ["another", "why"] {
        let rows = Correlation::ALL.map(|correlation| failed(correlation, why));
        refit.write(vec![refitted("m", &state, &rows, Publication::NotDue)]).await.unwrap();
        let left = refit.populations().await.unwrap().remove(&population("m")).unwrap();
        assert_eq!(left.message.as_deref(), Some(why));
    }
    refit.commit().await.unwrap();
    let current = store.current_fits(&population("m")).await.unwrap();
    let current: Vec<_> = current.into_iter().map(|fit| (fit.correlation, fit.mu.mean)).collect();
    assert_eq!(current, Correlation::ALL.map(|correlation| (correlation, Some(2.0))));
    let ids = "select cast(count(distinct fit_id) as text) from current_population_fits";
    assert_eq!(database.count(ids).await, 1, "they are one fit");
}

async fn a_refit_is_reported_as_of_when_it_was_written_however_long_ago_it_began<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    let (mut refit, state) = begin_refit(&store, "m").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let looked_at = store.populations_since(None).await.unwrap().read_at;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let rows = [fit_row(Correlation::Modelled, 1.0, 0.5)];
    refit.write(vec![refitted("m", &state, &rows, Publication::NotDue)]).await.unwrap();
    refit.commit().await.unwrap();
    let changed = store.populations_since(Some(looked_at)).await.unwrap().populations;
    assert_eq!(changed.len(), 1);
}

async fn a_request_concerns_its_populations_alone<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    worker.ingest(vec![record(0, 2, &event("exp-2", 1, "n", &[1.0]))]).await;
    for metric in ["m", "n"] {
        refit(&store, metric, 1.0, 0.5, false).await;
    }
    store.request_refits(&[population("n")]).await.unwrap();
    assert_eq!(store.populations_with_news().await.unwrap(), [population("n")]);
}

#[tokio::test]
async fn postgres_gives_a_population_to_one_refit_at_a_time() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    filled(&store, 2).await;
    let (held, _) = begin_refit(&store, "m").await.unwrap();
    assert!(begin_refit(&store, "m").await.is_none());
    held.commit().await.unwrap();
    assert!(begin_refit(&store, "m").await.is_some());
    database.remove().await;
}

#[tokio::test]
async fn sqlite_reads_while_a_batch_is_under_way_and_makes_the_next_writer_wait() {
    let database = SqliteDatabase::create().await.unwrap();
    let store = database.store().await;
    let worker = filled(&store, 2).await;
    let (open, ..) = worker.write(vec![record(0, 2, &event("exp-2", 1, "m", &[1.0]))]).await.unwrap();
    let during = store.population_state(&population("m")).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { refit(&store, "m", 1.0, 0.5, true).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    open.commit().await.unwrap();
    let after = waiting.await.unwrap();
    assert_eq!((during.statistics.counters.experiments, after.statistics.counters.experiments), (2, 3));
}
