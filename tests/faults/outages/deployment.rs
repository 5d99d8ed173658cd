//! A worker with a topic and a database of its own, watched by Prometheus under a job of its own.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd::store::Store;

use super::monitoring::Monitoring;
use super::prometheus::get;
use crate::common::database::{Database, PostgresDatabase};
use crate::common::topic::Topic;
use crate::common::worker::{Worker, from_kafka, program};

/// How long a worker may take to be ready.
const READY: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(50);

/// A worker and what it depends on.
pub struct Deployment {
    pub monitoring: Arc<Monitoring>,
    pub job: &'static str,
    pub topic: Topic,
    pub database: PostgresDatabase,
    pub environment: Vec<(&'static str, String)>,
    pub worker: Worker,
}

impl Deployment {
    /// Starts a worker with a new topic of two partitions and a new database, and waits until it is ready.
    pub async fn start(
        monitoring: &Arc<Monitoring>,
        job: &'static str,
        settings: &[(&'static str, &str)],
    ) -> Deployment {
        let topic = Topic::new(2).await;
        let database = PostgresDatabase::create().await.expect("there is a server");
        Deployment::start_on(monitoring, job, settings, topic, database).await
    }

    /// With a given topic and database.
    pub async fn start_on(
        monitoring: &Arc<Monitoring>,
        job: &'static str,
        settings: &[(&'static str, &str)],
        topic: Topic,
        database: PostgresDatabase,
    ) -> Deployment {
        Store::migrate(&database.config()).await.expect("the schema is made");
        let environment = environment(&topic, &database, settings);
        let worker = monitoring.worker(job, 1, &environment);
        monitoring.watch(job, &[&worker]);
        let deployment = Deployment { monitoring: Arc::clone(monitoring), job, topic, database, environment, worker };
        ready(&deployment.worker).await;
        deployment
    }

    /// Starts one more worker of the job, which is scraped beside the first.
    pub async fn start_another(&self, number: u32) -> Worker {
        let worker = self.monitoring.worker(self.job, number, &self.environment);
        self.monitoring.watch(self.job, &[&self.worker, &worker]);
        ready(&worker).await;
        worker
    }

    /// Replaces the worker by a new one, which has the environment as it is now.
    pub async fn restart(&mut self, number: u32) {
        let worker = self.monitoring.worker(self.job, number, &self.environment);
        self.monitoring.watch(self.job, &[&worker]);
        std::mem::replace(&mut self.worker, worker).kill();
        ready(&self.worker).await;
    }

    /// Runs a command of shrinkd with the worker's configuration.
    pub fn shrinkd(&self, arguments: &[&str]) {
        let mut command = Command::new(program());
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let output = command.output().expect("shrinkd runs");
        assert!(output.status.success(), "shrinkd {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub async fn fires(&self, began: Instant, alert: &str) {
        self.monitoring.fires(self.job, began, alert).await;
    }

    pub async fn clears(&self, ended: Instant, alert: &str) {
        self.monitoring.clears(self.job, ended, alert).await;
    }

    /// Ends everything. These must be the critical alerts that have fired.
    pub async fn end(self, pages: &[&str]) {
        assert_eq!(self.monitoring.pages(self.job), pages, "critical alerts of {}", self.job);
        self.monitoring.watch(self.job, &[]);
        self.worker.kill();
        self.topic.remove().await;
        self.database.remove().await;
    }
}

/// The environment of a worker.
pub fn environment(
    topic: &Topic,
    database: &PostgresDatabase,
    settings: &[(&'static str, &str)],
) -> Vec<(&'static str, String)> {
    let mut environment = from_kafka(topic, &database.url());
    environment.extend([
        // So that brokers which are restarted are found soon.
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__RECONNECT_BACKOFF_MAX_MS", "500".to_owned()),
        ("SHRINKD__STORE__CONNECTIONS", "4".to_owned()),
    ]);
    environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
    environment
}

/// Waits until a worker is ready.
pub async fn ready(worker: &Worker) {
    let (address, since) = (worker.http(), Instant::now());
    while get(&address, "/readyz").is_none_or(|answer| !answer.starts_with("HTTP/1.0 200")) {
        assert!(since.elapsed() < READY, "the worker is not ready: {:?}\n{}", get(&address, "/readyz"), worker.log());
        tokio::time::sleep(PACE).await;
    }
}
