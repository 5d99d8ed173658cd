//! What must hold when the load is over: the same as if nothing had happened.

use std::collections::BTreeMap;

use shrinkd_model::{BlockPosterior, Correlation, Fit, Method, Priors, SketchLikelihood};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use shrinkd::refit::furthest_from_exact;

use super::common::database::{Database, PostgresDatabase};
use super::common::folder::Folder;
use super::common::program::{printed, shrinkd};
use super::common::settling::settled;
use super::common::statistics::StoredStatistics;
use super::common::topic::Topic;
use super::common::worker::{Worker, from_kafka};
use super::tables::{FIGURES, STATE, check_equal, connect, statistics};

/// Experiments from which on estimates are shrunken.
const MIN_EXPERIMENTS: i64 = 5;

/// The tolerance that publishes are judged by, unless configured.
const TOLERANCE: f64 = 0.01;

/// Blocks that are read at a time.
const PAGE: usize = 1_000;

/// Reads the topic into a fresh database without a fault, and demands that the other one, which `records` records went
/// into, says the same. Says what was compared.
pub async fn check(folder: &Folder, topic: &Topic, faulty: &PostgresDatabase, records: i64) -> Vec<String> {
    let mut said = Vec::new();
    check_progress(faulty).await;
    let reference = PostgresDatabase::create().await.expect("there is a server");
    let worker = Worker::start(&alone(topic, &reference, "reference"), folder.path("reference.log"));
    settled(&reference, records).await;

    let ((own, own_counts), (expected, counts)) = (statistics(faulty).await, statistics(&reference).await);
    assert_eq!(own_counts, counts, "experiments and effects of populations");
    for (key, cell) in &expected {
        assert_eq!(own.get(key), Some(cell), "the cell {key:?}");
    }
    assert_eq!(own.len(), expected.len(), "cells that should be empty");
    said.push(format!("{} cells", own.len()));
    let (own, expected) = (StoredStatistics::of(faulty).await, StoredStatistics::of(&reference).await);
    assert_eq!(own.counts, expected.counts, "experiments and effects of populations, as they are stored");
    // One that was small whenever it was refitted has no cells.
    let of_both = own.moments.iter().filter_map(|(key, moments)| Some((key, moments, expected.moments.get(key)?)));
    let of_both = of_both.map(|(key, own, expected)| assert!(own == expected, "the moments of {key}"));
    said.push(format!("{} cells as they are stored", of_both.count()));
    for table in &STATE {
        said.push(format!("{} rows of {}", check_equal(table, faulty, &reference).await, table.name));
    }
    said.push(format!("{} estimates within tolerance", check_estimates(faulty, &reference).await));

    // One worker more for the database with the faults: those of its own group have ended.
    let beside = Worker::start(&alone(topic, faulty, "after"), folder.path("after.log"));
    for database in [faulty, &reference] {
        force_publish(database).await;
        settled(database, records).await;
    }
    beside.stop();
    worker.stop();
    for table in &FIGURES {
        said.push(format!("{} rows of {}", check_equal(table, faulty, &reference).await, table.name));
    }
    for database in [faulty, &reference] {
        verify(&alone(topic, database, "audit"));
    }
    said.push("verify clean in both".to_owned());
    reference.remove().await;
    said
}

/// Demands that an audit finds nothing.
fn verify(environment: &[(&'static str, String)]) {
    printed(&shrinkd(environment, &["verify"]));
}

/// A worker of a group of its own.
fn alone(topic: &Topic, database: &PostgresDatabase, group: &str) -> Vec<(&'static str, String)> {
    let mut environment = from_kafka(topic, &database.url());
    environment.retain(|(name, _)| *name != "SHRINKD__SOURCE__KAFKA__GROUP");
    environment.push(("SHRINKD__SOURCE__KAFKA__GROUP", format!("{}-{group}", topic.name)));
    environment
}

/// Watches every move of `next_offset` from now on.
pub async fn watch_progress(database: &PostgresDatabase) {
    database
        .execute(
            "create schema watch;
             create table watch.moves (move_id bigint generated always as identity, partition_id bigint, epoch bigint,
                                       from_offset bigint, to_offset bigint, moved_at timestamptz default now());
             create function watch.note() returns trigger language plpgsql as $$ begin
                 insert into watch.moves (partition_id, epoch, from_offset, to_offset)
                 values (new.partition_id, new.epoch, old.next_offset, new.next_offset);
                 return null;
             end $$;
             create trigger watch after update of next_offset on partition_progress for each row
                 execute function watch.note()",
        )
        .await;
}

/// Commits so far.
pub async fn moves(database: &PostgresDatabase) -> i64 {
    database.count("select count(*)::text from watch.moves").await
}

/// Demands that no partition has ever gone back, or been moved by two owners of one epoch.
async fn check_progress(database: &PostgresDatabase) {
    let back = "select count(*)::text from watch.moves where to_offset <= from_offset";
    assert_eq!(database.count(back).await, 0, "next_offset went back: a worker committed that was shut out");
}

/// Has every population fitted and published anew, as if nothing had been published before.
async fn force_publish(database: &PostgresDatabase) {
    database
        .execute("update populations set published_fit_id = null, publish_cursor = null, refit_due_at = now()")
        .await;
}

/// Demands that the estimates which the faults have left are as near to exact as is promised.
async fn check_estimates(faulty: &PostgresDatabase, reference: &PostgresDatabase) -> usize {
    let mut rows = estimates(faulty).await;
    let count = rows.len();
    let store = reference.store().await;
    for population in store.current_populations().await.expect("populations") {
        let name = population.population;
        let state = store.population_state(&name).await.expect("its cells");
        let likelihood = SketchLikelihood::new(&state.statistics.sketches.of(Correlation::Modelled));
        let fit = Fit::new(&likelihood, &Priors::default(), Method::Quadrature)
            .ok()
            .filter(|_| state.statistics.counters.experiments >= MIN_EXPERIMENTS);
        let (id, mut after) = (name.to_string(), String::new());
        loop {
            let page = store.blocks_after(std::slice::from_ref(&name), (&id, &after), PAGE).await.expect("its blocks");
            let Some(Ok(last)) = page.last() else { break };
            after.clone_from(&last.block.experiment_id);
            for read in page {
                let read = read.expect("it can be read");
                let block = &read.block.measured.block;
                let exact = fit.as_ref().map(|fit| (fit, BlockPosterior::new(block, &fit.nodes)));
                for (i, variant) in read.block.measured.variants.iter().enumerate() {
                    let key = (name.to_string(), read.block.experiment_id.clone(), variant.clone());
                    let found = rows.remove(&key).unwrap_or_else(|| panic!("no row for {key:?}"));
                    let Some((fit, posterior)) = &exact else {
                        assert_eq!(found, (None, None), "{key:?} has too few experiments beside it");
                        continue;
                    };
                    let exact = posterior.estimate(i);
                    let (mean, sd) = (found.0.expect("a mean"), found.1.expect("an sd"));
                    let distance = (mean - exact.mean).abs() / exact.sd;
                    let (mu, tau) = (&fit.posterior.mu, &fit.posterior.tau);
                    let (mu, tau) = (mu.mean.or(mu.median).unwrap_or(0.0), tau.median.unwrap_or(0.0));
                    let components = block.components().expect("components");
                    let bound = furthest_from_exact(TOLERANCE, mu, tau, &components);
                    assert!(distance <= bound, "{key:?} is {distance} posterior sds from exact, more than {bound}");
                    assert!((sd / exact.sd - 1.0).abs() < 0.05, "{key:?}: sd {sd}, exact {}", exact.sd);
                }
            }
        }
    }
    assert!(rows.is_empty(), "{} rows that should not be there, as {:?}", rows.len(), rows.keys().next());
    count
}

type Estimates = BTreeMap<(String, String, String), (Option<f64>, Option<f64>)>;

async fn estimates(database: &PostgresDatabase) -> Estimates {
    let estimate = |row: PgRow| ((row.get(0), row.get(1), row.get(2)), (row.get(3), row.get(4)));
    let rows =
        sqlx::query("select population_id, experiment_id, variant, posterior_mean, posterior_sd from effect_estimates")
            .map(estimate)
            .fetch_all(&mut connect(database).await)
            .await
            .expect("estimates");
    rows.into_iter().collect()
}
