//! Outages of Kafka, and of what producers send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;

use super::deployment::{Deployment, environment};
use super::load::{Load, produce, produce_in_transactions, produce_populations};
use super::monitoring::Monitoring;
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::committed;
use crate::common::topic::Topic;
use crate::common::worker::TIMEOUT;
use crate::services::OwnServers;

pub async fn kafka_is_gone(monitoring: Arc<Monitoring>, servers: Arc<OwnServers>) {
    let topic = Topic::absent(&servers.brokers);
    topic.create(2).await;
    let database = PostgresDatabase::create().await.expect("there is a server");
    let deployment = Deployment::start_on(&monitoring, "shrinkd-kafka-gone", &[], topic, database).await;
    produce(&deployment.topic, "before", 20, false);
    committed(&deployment.database, 20).await;
    let began = Instant::now();
    servers.down("kafka");
    deployment.fires(began, "ShrinkdNotReady").await;
    servers.up("kafka");
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdNotReady").await;
    produce(&deployment.topic, "after", 20, false);
    committed(&deployment.database, 40).await;
    deployment.end(&["ShrinkdNotReady"]).await;
}

pub async fn reading_is_not_allowed_any_more(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-read-revoked", &[]).await;
    let _load = Load::start(&deployment.topic, 20);
    committed(&deployment.database, 20).await;
    let began = Instant::now();
    deployment.topic.deny_read();
    deployment.fires(began, "ShrinkdNotReady").await;
    deployment.fires(began, "ShrinkdLagHigh").await;
    deployment.topic.allow_all();
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdNotReady").await;
    deployment.clears(ended, "ShrinkdLagHigh").await;
    deployment.end(&["ShrinkdNotReady"]).await;
}

/// The worker is started before its topic is created.
pub async fn the_topic_is_missing(monitoring: Arc<Monitoring>) {
    let job = "shrinkd-topic-missing";
    let brokers = std::env::var("SHRINKD_TEST_KAFKA").expect("it was there before");
    let (topic, database) = (Topic::absent(&brokers), PostgresDatabase::create().await.expect("there is a server"));
    let environment = environment(&topic, &database, &[]);
    let began = Instant::now();
    tokio::select! {
        () = monitoring.keep_running(job, &environment) => {}
        () = async {
            monitoring.fires(job, began, "ShrinkdNotReady").await;
            topic.create(2).await;
            let ended = Instant::now();
            monitoring.clears(job, ended, "ShrinkdNotReady").await;
        } => {}
    }
    assert_eq!(monitoring.pages(job), ["ShrinkdNotReady"]);
    topic.remove().await;
    database.remove().await;
}

pub async fn a_partition_is_halted(monitoring: Arc<Monitoring>) {
    let topic = Topic::new(1).await;
    let database = PostgresDatabase::create().await.expect("there is a server");
    let settings = [("SHRINKD__DEAD_LETTERS__IN_A_ROW", "5")];
    let deployment = Deployment::start_on(&monitoring, "shrinkd-halted", &settings, topic, database).await;
    let began = Instant::now();
    produce(&deployment.topic, "refused", 5, true);
    produce(&deployment.topic, "waiting", 20, false);
    deployment.fires(began, "ShrinkdPartitionHalted").await;
    // Long enough for the records that wait to raise another alert, if they could.
    monitoring.pause(Duration::from_secs(600)).await;
    deployment.shrinkd(&["partitions", "resume", "0"]);
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdPartitionHalted").await;
    committed(&deployment.database, 25).await;
    deployment.end(&["ShrinkdPartitionHalted"]).await;
}

pub async fn producers_create_too_many_populations(monitoring: Arc<Monitoring>) {
    let limit = "SHRINKD__LIMITS__MAX_POPULATIONS";
    let mut deployment = Deployment::start(&monitoring, "shrinkd-populations", &[(limit, "10")]).await;
    let began = Instant::now();
    produce_populations(&deployment.topic, 12);
    deployment.fires(began, "ShrinkdPopulationsNearLimit").await;
    deployment.environment.push((limit, "20".to_owned()));
    deployment.restart(2).await;
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdPopulationsNearLimit").await;
    deployment.end(&[]).await;
}

pub async fn a_producer_sends_what_is_refused(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-rejected", &[]).await;
    let load = Load::start(&deployment.topic, 50);
    let began = Instant::now();
    load.set_refused(10);
    deployment.fires(began, "ShrinkdRejectedRatioHigh").await;
    load.set_refused(0);
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdRejectedRatioHigh").await;
    drop(load);
    deployment.end(&[]).await;
}

/// A producer hangs in the middle of a transaction: nothing behind its first record can be read.
pub async fn a_transaction_stays_open(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-open-transaction", &[]).await;
    let began = Instant::now();
    let producer = produce_in_transactions(&deployment.topic, 50, &["committed", "open"]);
    deployment.fires(began, "ShrinkdIngestStuck").await;
    deployment.fires(began, "ShrinkdLagHigh").await;
    producer.abort_transaction(TIMEOUT).expect("it is aborted");
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdIngestStuck").await;
    deployment.clears(ended, "ShrinkdLagHigh").await;
    deployment.end(&["ShrinkdIngestStuck"]).await;
}

/// The control: an idle worker on a topic that ends with an aborted transaction.
pub async fn nothing_to_do_after_transactions(monitoring: Arc<Monitoring>) -> Deployment {
    let deployment = Deployment::start(&monitoring, "shrinkd-idle", &[]).await;
    produce_in_transactions(&deployment.topic, 50, &["committed", "aborted"]);
    committed(&deployment.database, 50).await;
    deployment
}
