//! Outages of workers, and of their consumer group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::deployment::Deployment;
use super::load::Load;
use super::monitoring::Monitoring;
use super::prometheus::free_address;
use crate::common::settling::committed;

pub async fn another_program_takes_partitions(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-unowned", &[]).await;
    let began = Instant::now();
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &deployment.topic.brokers)
        .set("group.id", &deployment.topic.name)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()
        .expect("a consumer");
    other.subscribe(&[&deployment.topic.name]).expect("it subscribes");
    let polls = async {
        loop {
            drop(other.poll(Duration::ZERO));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = polls => {}
        () = deployment.fires(began, "ShrinkdPartitionsUnowned") => {}
    }
    drop(other);
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdPartitionsUnowned").await;
    deployment.end(&["ShrinkdPartitionsUnowned"]).await;
}

pub async fn two_deployments_share_a_store(monitoring: Arc<Monitoring>) {
    let mut deployment = Deployment::start(&monitoring, "shrinkd-fenced", &[]).await;
    let load = Load::start(&deployment.topic, 50);
    deployment.environment.push(("SHRINKD__SOURCE__KAFKA__GROUP", format!("{}-too", deployment.topic.name)));
    let began = Instant::now();
    let other = deployment.start_another(2).await;
    deployment.fires(began, "ShrinkdFencedRepeatedly").await;
    other.kill();
    monitoring.watch(deployment.job, &[&deployment.worker]);
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdFencedRepeatedly").await;
    drop(load);
    deployment.end(&[]).await;
}

pub async fn one_of_two_workers_is_down(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-worker-down", &[]).await;
    let other = deployment.start_another(2).await;
    let _load = Load::start(&deployment.topic, 20);
    committed(&deployment.database, 20).await;
    let began = Instant::now();
    // Not killed: its partitions would wait for the session timeout, which is not shortened.
    other.stop();
    deployment.fires(began, "ShrinkdWorkerDown").await;
    // A new one takes its place.
    let other = deployment.start_another(3).await;
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdWorkerDown").await;
    other.kill();
    deployment.end(&[]).await;
}

/// With a Prometheus of its own, because the alert concerns all workers.
pub async fn there_is_no_worker(monitoring: Arc<Monitoring>) {
    let (job, address) = ("shrinkd-absent", free_address());
    let began = Instant::now();
    monitoring.prometheus.scrape(job, &[&address]);
    monitoring.fires(job, began, "ShrinkdWorkerDown").await;
    monitoring.fires("", began, "ShrinkdAbsent").await;
    let deployment = Deployment::start(&monitoring, job, &[("SHRINKD__HTTP__LISTEN", &address)]).await;
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdWorkerDown").await;
    monitoring.clears("", ended, "ShrinkdAbsent").await;
    assert_eq!(monitoring.pages(""), ["ShrinkdAbsent"]);
    deployment.end(&[]).await;
}
