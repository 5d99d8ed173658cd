//! The refit and the publish loop: what they leave to others, when they end, and what they report of themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd::config::PopulationSettings;
use shrinkd::store::{Store, StoreError};
use shrinkd::telemetry::Telemetry;
use shrinkd::telemetry::health::{BEAT_LIMIT, Health, Loop};
use shrinkd::worker::WorkerError;
use shrinkd::worker::publish::PublishLoop;
use shrinkd::worker::refit::{Occasion, RefitLoop};
use shrinkd_core::{Grouping, PopulationName, ShippedDecisions};
use shrinkd_model::{Direction, Priors, Thresholds};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::refit::begin_refit;
use super::{Worker, event, population, promises, record};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::until_it_waits;
use crate::common::worker::TIMEOUT;

promises! {
    a_publish_under_way_ends_before_the_next_one_begins,
    a_refit_that_republishes_replaces_the_publish_under_way,
    a_pass_that_goes_on_from_a_cursor_diagnoses_nothing,
    passes_that_begin_together_begin_with_the_first_block_of_each,
    a_block_that_cannot_be_read_keeps_no_other_from_being_published,
    a_pass_for_diagnostics_alone_writes_no_rows,
    rows_that_a_pass_leaves_as_they_are_count_as_skipped,
    the_shipped_share_is_of_all_experiments_where_any_was_decided,
    the_loops_end_once_the_store_has_other_settings,
    a_loop_whose_store_fails_is_not_ready_until_it_succeeds_and_ends_when_it_is_told_to,
}

/// The loops of a worker with these priors.
pub fn loops(store: &Store, priors: Priors) -> (RefitLoop, PublishLoop) {
    let settings = Arc::new(move |_: &PopulationName| PopulationSettings {
        priors: priors.into(),
        min_experiments: 1,
        direction: Direction::Increase,
    });
    let telemetry = Telemetry::default();
    let refit = RefitLoop {
        store: store.clone(),
        settings: settings.clone(),
        tolerance: 0.01,
        interval: Duration::from_millis(20),
        reported: 10,
        telemetry: telemetry.clone(),
    };
    let publish = PublishLoop {
        store: store.clone(),
        settings,
        grouping: Grouping::default(),
        thresholds: Thresholds::default(),
        shipped_decisions: ShippedDecisions::default(),
        diagnostics_interval: Duration::from_secs(600),
        owner: "worker".to_owned(),
        telemetry,
    };
    (refit, publish)
}

pub fn priors(mu: &str, tau: &str) -> Priors {
    Priors { mu: mu.parse().expect("a prior"), tau: tau.parse().expect("a prior"), ..Priors::default() }
}

fn usual(store: &Store) -> (RefitLoop, PublishLoop) {
    loops(store, priors("flat", "half-normal:1"))
}

/// Refits and publishes until nothing is due, as a worker does at the end of its file.
pub async fn settle((refit, publish): &(RefitLoop, PublishLoop)) {
    for _ in 0..10 {
        let refitted = refit.refit_all(Occasion::News).await.expect("no population stops the others");
        if refitted + publish_due(publish).await == 0 {
            return;
        }
    }
    panic!("there is always something due");
}

/// Runs the passes that are due, but for diagnostics that have an age.
async fn publish_due(publish: &PublishLoop) -> usize {
    let due = publish.publish_due(Some(OffsetDateTime::UNIX_EPOCH), &CancellationToken::new()).await;
    due.expect("no population stops the others")
}

/// Takes in an experiment of two populations, `a` and `b`.
pub async fn take(worker: &mut Worker, offset: i64, shift: f64) {
    let id = format!("exp-{offset}");
    let estimates = [(offset as f64 * 0.7).sin() + shift, 0.5 + shift];
    let records = [("a", 0), ("b", 1)]
        .map(|(metric, i)| record(0, 2 * offset + i, &event(&format!("{id}{metric}"), 1, metric, &estimates)));
    worker.ingest(records.into()).await;
}

/// Some experiments of both populations.
async fn filled(store: &Store, experiments: i64) -> Worker {
    let mut worker = Worker::claim(store, &[0]).await;
    for i in 0..experiments {
        take(&mut worker, i, 0.0).await;
    }
    worker
}

/// The published fits of both populations.
async fn published_fits(database: &impl Database) -> Vec<Option<String>> {
    database.texts("select cast(published_fit_id as text) from populations order by population_id").await
}

async fn a_publish_under_way_ends_before_the_next_one_begins<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, publish) = usual(&store);
    let mut worker = filled(&store, 3).await;
    assert_eq!(refit.refit_all(Occasion::News).await.unwrap(), 2);
    let (first, both) = (published_fits(database).await, [population("a"), population("b")]);
    assert_eq!(Vec::from_iter(store.publishing_populations().await.unwrap()), both);
    for (offset, refitted) in [(3, 2), (4, 0), (5, 0)] {
        take(&mut worker, offset, 5.0).await;
        assert_eq!(refit.refit_all(Occasion::News).await.unwrap(), refitted, "the news waits for the publish to end");
        assert_eq!(published_fits(database).await, first, "else none would ever end");
    }
    assert_eq!(publish_due(&publish).await, 2);
    assert!(store.publishing_populations().await.unwrap().is_empty());
    assert_eq!(refit.refit_all(Occasion::News).await.unwrap(), 2);
    let second = published_fits(database).await;
    assert!(first.iter().zip(&second).all(|(first, second)| first != second), "{first:?} {second:?}");
    settle(&(refit.clone(), publish.clone())).await;
    assert_eq!(published_fits(database).await, second, "nothing is left");
    let shown = refit.telemetry.metrics.render(&refit.telemetry.health);
    assert!(shown.contains("shrinkd_refit_seconds_count 6\n"), "{shown}");
    assert!(shown.contains("shrinkd_publish_seconds_count 2\n"), "both are on one page: {shown}");
}

async fn a_refit_that_republishes_replaces_the_publish_under_way<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, _) = usual(&store);
    filled(&store, 3).await;
    refit.refit_all(Occasion::News).await.unwrap();
    let first = published_fits(database).await;
    assert!(refit.refit_and_republish(&population("a")).await.unwrap());
    let second = published_fits(database).await;
    assert!(first[0] != second[0] && first[1] == second[1], "{first:?} {second:?}");
}

const NOBODY: [&str; 0] = [];

async fn diagnosed(database: &impl Database) -> Vec<String> {
    let diagnosed = "select d.population_id from population_diagnostics as d
                     join populations as p on p.population_id = d.population_id
                     where d.deff is not null and p.diagnosed_at is not null order by 1";
    database.texts(diagnosed).await.into_iter().flatten().collect()
}

async fn a_pass_that_goes_on_from_a_cursor_diagnoses_nothing<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, publish) = usual(&store);
    filled(&store, 3).await;
    refit.refit_all(Occasion::News).await.unwrap();
    // Another worker got as far as this.
    database.execute("update populations set publish_cursor = 'exp-0a' where population_id like 'a/%'").await;
    let not_due =
        "update populations set publish_cursor = null, diagnosed_at = created_at where population_id like 'b/%'";
    database.execute(not_due).await;
    assert_eq!(publish_due(&publish).await, 1);
    assert_eq!(diagnosed(database).await, NOBODY, "it has not seen every block");
    assert_eq!(shrunken(database).await, ["exp-1a", "exp-2a"]);
    assert_eq!(publish_due(&publish).await, 1, "diagnostics are still due");
    assert_eq!(diagnosed(database).await, ["a/all/absolute"]);
    assert_eq!(publish_due(&publish).await, 0);
}

/// The experiments with shrunken estimates.
async fn shrunken(database: &impl Database) -> Vec<String> {
    let written = "select distinct experiment_id from effect_estimates where posterior_mean is not null order by 1";
    database.texts(written).await.into_iter().flatten().collect()
}

async fn passes_that_begin_together_begin_with_the_first_block_of_each<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, publish) = usual(&store);
    filled(&store, 3).await;
    refit.refit_all(Occasion::News).await.unwrap();
    database.execute("update populations set publish_cursor = 'exp-0a' where population_id like 'a/%'").await;
    assert_eq!(publish_due(&publish).await, 2);
    assert_eq!(diagnosed(database).await, ["a/all/absolute", "b/all/absolute"]);
    assert_eq!(shrunken(database).await, ["exp-0a", "exp-0b", "exp-1a", "exp-1b", "exp-2a", "exp-2b"]);
    assert_eq!(publish_due(&publish).await, 0);
}

async fn a_block_that_cannot_be_read_keeps_no_other_from_being_published<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, publish) = usual(&store);
    filled(&store, 3).await;
    refit.refit_all(Occasion::News).await.unwrap();
    let damage = "update blocks set block = statistics where experiment_id = 'exp-1a'";
    database.execute(damage).await;
    assert_eq!(publish_due(&publish).await, 2);
    assert_eq!(diagnosed(database).await, ["b/all/absolute"], "not every block of the other could be read");
    assert_eq!(shrunken(database).await, ["exp-0a", "exp-0b", "exp-1b", "exp-2a", "exp-2b"]);
    assert!(store.publishing_populations().await.unwrap().is_empty());
}

async fn a_pass_for_diagnostics_alone_writes_no_rows<D: Database>(database: &D) {
    let store = database.store().await;
    let loops = usual(&store);
    filled(&store, 3).await;
    settle(&loops).await;
    database.execute("update populations set diagnosed_at = null").await;
    database.execute("update effect_estimates set fit_id = 0, posterior_mean = null").await;
    assert_eq!(publish_due(&loops.1).await, 2);
    assert_eq!(diagnosed(database).await, ["a/all/absolute", "b/all/absolute"]);
    let written = "select cast(count(*) as text) from effect_estimates where fit_id <> 0";
    assert_eq!(database.count(written).await, 0, "they were published before");
}

async fn rows_that_a_pass_leaves_as_they_are_count_as_skipped<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, publish) = usual(&store);
    filled(&store, 3).await;
    refit.refit_all(Occasion::News).await.unwrap();
    // The next worker has been there: five of twelve rows have a newer fit.
    database
        .execute("update effect_estimates set fit_id = 1000 where variant = 'v1' and experiment_id <> 'exp-1a'")
        .await;
    publish_due(&publish).await;
    let shown = publish.telemetry.metrics.render(&publish.telemetry.health);
    for series in ["written_total{table=\"effect_estimates\"} 7\n", "skipped_total{table=\"effect_estimates\"} 5\n"] {
        assert!(shown.contains(&format!("shrinkd_rows_{series}")), "{series}{shown}");
    }
}

async fn the_shipped_share_is_of_all_experiments_where_any_was_decided<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let decisions = [
        ("decided", r#""decision":"shipped","#),
        ("decided", r#""decision":"stopped","#),
        ("decided", ""),
        ("decided", ""),
        ("undecided", ""),
        ("undecided", ""),
    ];
    let records = (0..).zip(decisions).map(|(i, (metric, decision))| {
        let event = event(&format!("exp-{i}"), 1, metric, &[i as f64]);
        record(0, i, &event.replace(r#""decision":"shipped","#, decision))
    });
    worker.ingest(records.collect()).await;
    settle(&usual(&store)).await;
    let shares = "select shipped_share from population_diagnostics order by population_id";
    assert_eq!(database.numbers(shares).await, [[Some(0.25)], [None]]);
}

async fn the_loops_end_once_the_store_has_other_settings<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, publish) = usual(&store);
    let mut worker = filled(&store, 3).await;
    refit.refit_all(Occasion::News).await.unwrap();
    take(&mut worker, 3, 5.0).await;
    database.execute("update store_settings set one_per_experiment_seed = 7").await;
    let never = CancellationToken::new();
    let ended = tokio::time::timeout(TIMEOUT, refit.run(never.clone())).await.expect("it ends");
    assert!(matches!(ended, Err(WorkerError::Store(StoreError::Settings { .. }))), "{ended:?}");
    let ended = tokio::time::timeout(TIMEOUT, publish.run(never)).await.expect("it ends");
    assert!(matches!(ended, Err(WorkerError::Store(StoreError::Settings { .. }))), "{ended:?}");
}

/// Waits until something is so of a worker's health.
pub async fn until(health: &Health, what: &str, is_so: impl Fn(&Health) -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so(health) {
        assert!(Instant::now() < deadline, "{what}: not within {TIMEOUT:?}: {:?}", health.readiness());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn fails(health: &Health, operation: &str) -> bool {
    health.readiness().is_err_and(|why| why.contains(&format!("{operation}: `")))
}

async fn a_loop_whose_store_fails_is_not_ready_until_it_succeeds_and_ends_when_it_is_told_to<D: Database>(
    database: &D,
) {
    let store = database.store().await;
    filled(&store, 2).await;
    let (refit, publish) = usual(&store);
    let (stop, health) = (CancellationToken::new(), refit.telemetry.health.clone());
    // Only a heartbeat makes these be expected.
    Loop::ALL.into_iter().for_each(|which| health.finish(which));
    let expected = |which: &'static str| {
        move |health: &Health| health.live(Instant::now() + 2 * BEAT_LIMIT).is_err_and(|why| why.contains(which))
    };
    let publishing = tokio::spawn(publish.run(stop.clone()));
    until(&health, "the one beats", expected("publish")).await;
    let refitting = tokio::spawn(refit.run(stop.clone()));
    until(&health, "the other beats", expected("refit")).await;
    database.execute("alter table block_changes rename to elsewhere").await;
    until(&health, "the refit fails", |health| fails(health, "refit")).await;
    assert!(!fails(&health, "publish"));
    database.execute("alter table elsewhere rename to block_changes").await;
    until(&health, "the refit succeeds", |health| !fails(health, "refit")).await;
    database.execute("alter table populations rename column publish_cursor to elsewhere").await;
    until(&health, "the publish fails", |health| fails(health, "publish")).await;
    database.execute("alter table populations rename column elsewhere to publish_cursor").await;
    until(&health, "all succeed", |health| !fails(health, "refit") && !fails(health, "publish")).await;
    stop.cancel();
    refitting.await.unwrap().expect("it ends well");
    publishing.await.unwrap().expect("it ends well");
    assert_eq!(health.live(Instant::now() + 2 * BEAT_LIMIT), Ok(()), "no heartbeat is expected any more");
}

#[tokio::test]
async fn postgres_lets_two_workers_refit_the_same_populations_at_once() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let (refit, _) = usual(&store);
    filled(&store, 3).await;
    // The other worker commits once this one has begun to read.
    let mut other = PgConnection::connect_with(&database.options()).await.unwrap();
    sqlx::raw_sql("begin; lock table populations in exclusive mode").execute(&mut other).await.unwrap();
    let refitting = tokio::spawn({
        let refit = refit.clone();
        async move { refit.refit_all(Occasion::News).await }
    });
    until_it_waits(&database, &refitting).await;
    let theirs = "delete from block_changes where population_id like 'a/%'; commit";
    sqlx::raw_sql(theirs).execute(&mut other).await.unwrap();
    assert_eq!(refitting.await.unwrap().expect("it is no error"), 2);
    let fitted = database.texts("select distinct population_id from current_population_fits").await;
    assert_eq!(fitted, [Some("b/all/absolute".to_owned())], "what the other has done is not done again");

    let (held, _) = begin_refit(&store, "b").await.expect("the population is free");
    assert!(!refit.refit_and_republish(&population("b")).await.unwrap(), "the other is at it");
    assert!(refit.refit_and_republish(&population("a")).await.unwrap());
    held.rollback().await.unwrap();
    database.remove().await;
}

#[tokio::test]
async fn postgres_shows_that_a_stop_is_heard_between_two_pages() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let (refit, publish) = usual(&store);
    let mut worker = Worker::claim(&store, &[0]).await;
    // One more than there are in a page.
    let records = (0..1_001).map(|i| record(0, i, &event(&format!("exp-{i:04}"), 1, "m", &[(i as f64).sin()])));
    worker.ingest(records.collect()).await;
    refit.refit_all(Occasion::News).await.unwrap();
    // The first page waits until the stop has come.
    let mut other = PgConnection::connect_with(&database.options()).await.unwrap();
    let lock = "begin; select from effect_estimates where experiment_id = 'exp-0000' for update";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let stop = CancellationToken::new();
    let publishing = tokio::spawn({
        let (publish, stop) = (publish.clone(), stop.clone());
        async move { publish.publish_due(Some(OffsetDateTime::UNIX_EPOCH), &stop).await }
    });
    until_it_waits(&database, &publishing).await;
    stop.cancel();
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    publishing.await.unwrap().expect("a stop is no error");
    let cursor = "select publish_cursor from populations";
    assert_eq!(database.texts(cursor).await, [Some("exp-0999".to_owned())]);
    assert_eq!(database.texts("select pass_owner from populations").await, [None], "whoever comes next need not wait");
    let raw = "select experiment_id from effect_estimates where posterior_mean is null";
    assert_eq!(database.texts(raw).await, [Some("exp-1000".to_owned())], "the page under way is written");
    let again = publish.publish_due(Some(OffsetDateTime::UNIX_EPOCH), &stop).await;
    again.expect("no pass begins after the stop");
    assert_eq!(database.texts(raw).await.len(), 1);
    assert_eq!(publish_due(&publish).await, 1, "the next worker goes on from there");
    assert_eq!((database.texts(raw).await, database.texts(cursor).await), (vec![], vec![None]));
    database.remove().await;
}
