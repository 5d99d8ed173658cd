//! From Kafka to PostgreSQL.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::{Connection, PgConnection};

use super::truth::{self, EstimateFigures, Figures, Tables, Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::settled;
use crate::common::topic::Topic;
use crate::common::worker::{Worker, from_kafka};

impl Tables for PostgresDatabase {
    async fn fits(&self) -> BTreeMap<(String, String), Figures> {
        truth::fits(&sqlx::query(truth::FITS).fetch_all(&mut connect(self).await).await.expect("fits"))
    }

    async fn estimates(&self) -> Vec<EstimateFigures> {
        truth::estimates(&sqlx::query(truth::ESTIMATES).fetch_all(&mut connect(self).await).await.expect("estimates"))
    }

    async fn refused(&self) -> BTreeMap<String, i64> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as(truth::REFUSED).fetch_all(&mut connect(self).await).await.expect("refused events");
        rows.into_iter().collect()
    }
}

async fn connect(database: &PostgresDatabase) -> PgConnection {
    PgConnection::connect_with(&database.options()).await.expect("the database answers")
}

/// Sends a stream to a topic of six partitions, has `workers` of one group take it in, and checks the tables.
async fn check_stream(folder: &Folder, events: &Path, truth: &Truth, workers: usize) {
    let Some(database) = PostgresDatabase::create().await else { return };
    let topic = Topic::new(6).await;
    let url = database.url();
    let running: Vec<Worker> = (0..workers)
        .map(|i| Worker::start(&from_kafka(&topic, &url), folder.path(&format!("worker-{i}.log"))))
        .collect();
    topic.produce(events);
    settled(&database, stream::count(events)).await;
    running.into_iter().for_each(Worker::stop);
    check(&database, truth).await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn a_generated_stream_ends_in_the_tables_as_a_fit_of_it_says_bit_for_bit() {
    let folder = Folder::new("portfolio");
    let events = stream::portfolio(&folder, 300);
    let truth = Truth::of(&events);
    assert!(!truth.is_empty() && !truth.refused.is_empty(), "the stream has blocks and results to refuse");
    check_stream(&folder, &events, &truth, 1).await;
}

#[tokio::test]
async fn three_workers_of_a_group_leave_the_sketches_that_one_leaves() {
    let folder = Folder::new("three");
    let events = stream::portfolio(&folder, 300);
    check_stream(&folder, &events, &Truth::of(&events), 3).await;
}

#[tokio::test]
async fn the_real_stream_ends_in_the_tables_as_a_fit_of_its_final_snapshots_says_bit_for_bit() {
    let folder = Folder::new("asos");
    let Some((events, finals)) = stream::asos(&folder) else { return };
    let truth = Truth::of_snapshots(&events, &finals);
    assert_eq!(truth.refused.values().sum::<i64>(), 605, "600 without a variance, 5 with a variance of 0");
    check_stream(&folder, &events, &truth, 1).await;
}

#[tokio::test]
async fn the_real_stream_through_three_workers_leaves_the_same() {
    let folder = Folder::new("asos-three");
    let Some((events, finals)) = stream::asos(&folder) else { return };
    let truth = Truth::of_snapshots(&events, &finals);
    check_stream(&folder, &events, &truth, 3).await;
}
