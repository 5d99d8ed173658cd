//! Nothing lost, nothing doubled: real workers on a real Kafka topic and a real PostgreSQL database, under load, while
//! connections are cut, processes are killed or stopped, servers are restarted and the group changes. What is in the
//! database in the end must be what a run without any fault leaves, byte for byte.
//!
//! `scripts/services run -- cargo test --test faults` runs the short set, `make chaos` the long one, `make soak` looks for
//! what grows, and `make alerts` tests the alert rules with their real durations. Servers are restarted, so that only those of
//! scripts/services will do, and one test runs at a time.

#[path = "../common/mod.rs"]
mod common;

mod fleet;
mod outages;
mod plan;
mod points;
mod producer;
mod proxy;
mod recreated;
mod run;
mod services;
mod soak;
mod tables;
mod verdict;
mod workload;

use std::time::Duration;

use run::Run;
use services::Services;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_tables_are_those_of_a_run_without_faults() {
    let Some(services) = Services::alone() else { return };
    let mut run = Run::start(services, "faults", setting("SHRINKD_CHAOS_SEED", 1), 25).await;
    run.suffer(&plan::short()).await;
    run.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: make chaos"]
async fn two_hundred_faults_leave_the_tables_of_a_run_without_faults() {
    let Some(services) = Services::alone() else { return };
    let seed = setting("SHRINKD_CHAOS_SEED", 1);
    let mut run = Run::start(services, "chaos", seed, setting("SHRINKD_CHAOS_RATE", 60)).await;
    run.suffer(&plan::long(seed)).await;
    run.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_under_a_running_worker_halts_it_and_nothing_of_the_new_one_counts() {
    let Some(_services) = Services::alone() else { return };
    recreated::check().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes: make soak"]
async fn a_worker_under_load_does_not_grow_and_catches_up() {
    let Some(services) = Services::alone() else { return };
    let duration = Duration::from_secs(setting("SHRINKD_SOAK_SECONDS", 600));
    soak::soak(services, setting("SHRINKD_CHAOS_SEED", 1), duration).await;
}

#[tokio::test]
async fn every_outage_raises_its_alert_in_time_and_no_other_page() {
    outages::all("outages", 30).await;
}

#[tokio::test]
#[ignore = "takes a quarter of an hour: make alerts"]
async fn every_outage_raises_its_alert_within_the_minutes_that_are_stated() {
    outages::all("alerts", 1).await;
}
