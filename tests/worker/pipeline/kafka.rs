//! From Kafka to PostgreSQL.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::truth::{self, EstimateFigures, Figures, Tables, Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::settled;
use crate::common::topic::Topic;
use crate::common::worker::{TIMEOUT, Worker, from_kafka, get};

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
    let events = stream::portfolio(&folder, 180);
    let truth = Truth::of(&events);
    assert!(!truth.is_empty() && !truth.refused.is_empty(), "the stream has blocks and results to refuse");
    check_stream(&folder, &events, &truth, 1).await;
}

#[tokio::test]
async fn three_workers_of_a_group_leave_the_sketches_that_one_leaves() {
    let folder = Folder::new("three");
    let events = stream::portfolio(&folder, 180);
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

/// The series of populations that a worker shows.
fn populations(address: &str) -> Vec<String> {
    let metrics = get(address, "/metrics");
    metrics.lines().filter(|line| line.starts_with("shrinkd_population")).map(str::to_owned).collect()
}

#[tokio::test]
async fn one_worker_of_a_group_reports_the_populations_and_another_takes_over_when_it_ends() {
    let folder = Folder::new("reporting");
    let Some(database) = PostgresDatabase::create().await else { return };
    let (topic, url) = (Topic::new(6).await, database.url());
    let environment = [from_kafka(&topic, &url), vec![("SHRINKD__METRICS__POPULATIONS", "2".to_owned())]].concat();
    let mut workers: Vec<Worker> =
        (0..2).map(|i| Worker::start(&environment, folder.path(&format!("worker-{i}.log")))).collect();
    let addresses: Vec<String> = workers.iter().map(Worker::http).collect();
    let events = stream::portfolio(&folder, 100);
    topic.produce(&events);
    settled(&database, stream::count(&events)).await;
    let totals = database
        .texts("select (select count(*) from populations) || ' ' || sum(effects) || ' ' || sum(experiments) from populations")
        .await;
    let totals = totals[0].as_deref().expect("totals");

    let reporting = async |among: &[usize]| {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let shown: Vec<Vec<String>> = among.iter().map(|&i| populations(&addresses[i])).collect();
            let is_whole = |series: &&Vec<String>| summed(series) == totals;
            if shown.iter().filter(|series| !series.is_empty()).count() == 1
                && shown.iter().any(|series| is_whole(&series))
            {
                return among[shown.iter().position(|series| !series.is_empty()).expect("one of them")];
            }
            assert!(Instant::now() < deadline, "of {totals}: {shown:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let first = reporting(&[0, 1]).await;
    workers.remove(first).stop();
    assert_eq!(reporting(&[1 - first]).await, 1 - first);
    workers.into_iter().for_each(Worker::stop);
    topic.remove().await;
    database.remove().await;
}

/// How many populations there are, and the effects and experiments of two of them and of the others.
fn summed(series: &[String]) -> String {
    let values = |name: &str| -> Vec<u64> {
        let own = series.iter().filter(|line| line.starts_with(name));
        own.map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number")).collect()
    };
    let of = |figure: &str| values(&format!("shrinkd_population_{figure}{{"));
    assert!(of("effects").len() <= 3 && of("experiments").len() <= 3, "{series:?}");
    let count: u64 = values("shrinkd_populations ").iter().sum();
    format!("{count} {} {}", of("effects").iter().sum::<u64>(), of("experiments").iter().sum::<u64>())
}
