//! Workers that start while something is wrong: they say at once what it is, stay, and go on when it is put right.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Folder, stream};
use crate::common::acl::{Operation, PASSWORD, Resource, USER, listener_with_password, login};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::forward;
use crate::common::role::Role;
use crate::common::settling::committed;
use crate::common::topic::Topic;
use crate::common::worker::{SLACK, TIMEOUT, Worker, from_kafka, get};

type Environment = Vec<(&'static str, String)>;

const STORE: &str = "SHRINKD__STORE__URL";
const BROKERS: &str = "SHRINKD__SOURCE__KAFKA__BROKERS";

fn with(mut environment: Environment, changes: Environment) -> Environment {
    environment.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    environment.extend(changes);
    environment
}

fn start(environment: Environment, log: PathBuf) -> Worker {
    Worker::start(&with(environment, vec![("SHRINKD__LOG__FORMAT", "json".to_owned())]), log)
}

/// The lines of the log, each of which is JSON.
fn lines(worker: &Worker) -> Vec<Value> {
    let log = worker.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

fn moment(line: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(line["timestamp"].as_str().expect("a time"), &Rfc3339).expect("RFC 3339")
}

/// Waits for what is to come, and says what was there instead.
#[track_caller]
fn wait_for(what: &str, worker: &Worker, mut is_there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < TIMEOUT, "no {what}:\n{}", worker.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Checks that a worker that starts with a fault says so within 2 s in one line with these words, is alive but not ready, shows the
/// failures to Prometheus.
#[track_caller]
fn assert_waits(environment: &Environment, folder: &Folder, words: &[&str]) -> Worker {
    let worker = start(environment.clone(), folder.path("worker.log"));
    let of_connect = |line: &&Value| line["operation"] == "connect";
    wait_for("failed attempt", &worker, || lines(&worker).iter().any(|line| of_connect(&line)));
    let lines = lines(&worker);
    let first = lines.iter().find(of_connect).expect("it was there");
    let error = first["error"].as_str().expect("an error");
    for word in words {
        assert!(error.contains(word), "no {word} in {error}");
    }
    let starting = lines.iter().find(|line| line["message"] == "starting").expect("a first line");
    let silence = moment(first) - moment(starting);
    assert!(silence < Duration::from_secs(2) + SLACK, "it said nothing for {silence}");
    let address = worker.http();
    let ready = get(&address, "/readyz");
    assert!(ready.contains(" 503 ") && ready.contains("connect: "), "{ready}");
    assert!(get(&address, "/livez").contains(" 200 "));
    let failures = "shrinkd_consecutive_failures{operation=\"connect\"} ";
    let metrics = get(&address, "/metrics");
    let (_, count) = metrics.split_once(failures).unwrap_or_else(|| panic!("no {failures} in {metrics}"));
    assert!(!count.starts_with("0\n"), "{metrics}");
    worker
}

/// Checks that it ends at once with 0.
#[track_caller]
fn assert_stops_at_once(worker: Worker) {
    worker.signal("TERM");
    let told = Instant::now();
    worker.ends_well();
    assert!(told.elapsed() < Duration::from_secs(1) + SLACK, "it took {:?}", told.elapsed());
}

#[tokio::test]
async fn a_worker_that_the_store_refuses_waits_until_it_is_let_in() {
    let folder = Folder::new("starts-store");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 50);
    let (topic, role) = (Topic::new(1).await, Role::worker(&database).await);
    topic.produce(&events);
    let at = |url: String| with(from_kafka(&topic, ""), vec![(STORE, url)]);

    let right = role.url("right");
    let (server, name) = right.rsplit_once('/').expect("a database");
    let (user, address) = server.rsplit_once('@').expect("a server");
    let unknown = at(format!("{server}/no_such_database"));
    let words = [address, "no_such_database", "(SQLSTATE 3D000)", "create the database"];
    assert_stops_at_once(assert_waits(&unknown, &folder, &words));
    database.execute(format!("revoke select on _sqlx_migrations from {}", role.name).leak()).await;
    let words = [address, "permission denied", "run deploy/postgres/roles.sql"];
    let worker = assert_waits(&at(right.clone()), &folder, &words);
    role.grant_as("shrinkd_worker").await;
    wait_for("readiness", &worker, || get(&worker.http(), "/readyz").contains(" 200 "));
    worker.stop();

    let port = forward::closed_port();
    let local = format!("127.0.0.1:{port}");
    let worker = assert_waits(
        &at(format!("{user}@{local}/{name}")),
        &folder,
        &[&local, "refused", "check that PostgreSQL runs"],
    );
    forward::open(port, address);
    wait_for("readiness", &worker, || get(&worker.http(), "/readyz").contains(" 200 "));
    worker.stop();

    let words = [address, "password authentication failed", "check user and password"];
    let worker = assert_waits(&at(role.url("wrong")), &folder, &words);
    database.execute(format!("alter role {} password 'wrong'", role.name).leak()).await;
    committed(&database, stream::count(&events)).await;
    wait_for("readiness", &worker, || get(&worker.http(), "/readyz").contains(" 200 "));
    worker.stop();
    role.remove().await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn a_worker_without_brokers_or_topic_waits_until_they_are_there() {
    let folder = Folder::new("starts-brokers");
    let store = |name: &str| format!("sqlite://{}", folder.path(name).display());
    let topic = Topic::new(1).await;
    let port = forward::closed_port();
    let local = format!("127.0.0.1:{port}");
    let environment = with(from_kafka(&topic, &store("down.db")), vec![(BROKERS, local.clone())]);
    let worker = assert_waits(&environment, &folder, &[&local, &topic.name, "refused", "check that brokers run"]);
    forward::open(port, &topic.brokers);
    wait_for("readiness", &worker, || get(&worker.http(), "/readyz").contains(" 200 "));
    worker.stop();

    if topic.is_real() {
        let mut missing = Topic::new(1).await;
        let wanted = format!("{}-later", missing.name);
        let environment = from_kafka(&missing, &store("missing.db"));
        let environment = with(environment, vec![("SHRINKD__SOURCE__KAFKA__TOPIC", wanted.clone())]);
        let worker = assert_waits(&environment, &folder, &[&missing.brokers, &wanted, "does not exist: create it"]);
        missing.create_as(&wanted).await;
        wait_for("readiness", &worker, || get(&worker.http(), "/readyz").contains(" 200 "));
        worker.stop();
        missing.remove().await;
    }
    topic.remove().await;
}

#[tokio::test]
async fn a_worker_that_the_brokers_refuse_waits_until_it_has_the_rights() {
    let Some(listener) = listener_with_password() else { return };
    let folder = Folder::new("starts-rights");
    let store = format!("sqlite://{}", folder.path("shrinkd.db").display());
    let topic = Topic::new(1).await;
    let environment = with(from_kafka(&topic, &store), vec![(BROKERS, listener.clone())]);
    let wrong = with(environment.clone(), login("wrong"));
    assert_stops_at_once(assert_waits(&wrong, &folder, &[&listener, "Authentication failed", "sasl.password"]));

    let right = with(environment, login(PASSWORD));
    for resource in [Resource::Topic(&topic.name), Resource::Group(&topic.name)] {
        topic.grant("somebody", &Operation::Read, &resource);
        let worker = assert_waits(&right, &folder, &[&listener, "not authorised to read", "kafka-acls --add"]);
        topic.grant(USER, &Operation::Read, &resource);
        wait_for("readiness", &worker, || get(&worker.http(), "/readyz").contains(" 200 "));
        worker.stop();
    }
    topic.remove().await;
}

#[tokio::test]
async fn what_no_waiting_helps_against_ends_the_worker_with_2_in_the_format_of_its_log() {
    let folder = Folder::new("starts-final");
    let topic = Topic::new(1).await;
    let nowhere = format!("sqlite://{}", folder.path("no/such/folder/shrinkd.db").display());
    let mut cases = vec![(nowhere, "cannot open the database")];
    let (empty, filled) = (PostgresDatabase::empty().await, PostgresDatabase::create().await);
    if let (Some(empty), Some(filled)) = (&empty, &filled) {
        filled
            .execute(
                "insert into store_settings (arithmetic_version, grouping_labels, one_per_experiment_seed)
                 values (99, '{}', 0)",
            )
            .await;
        cases.extend([(empty.url(), "run `shrinkd migrate`"), (filled.url(), "shrinkd rebuild")]);
    }
    for (store, says) in cases {
        let worker = start(from_kafka(&topic, &store), folder.path("worker.log"));
        let log = worker.ends_with(2);
        let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["level"], "ERROR");
        assert!(last["error"].as_str().is_some_and(|error| error.contains(says)), "{last}");
    }
    topic.remove().await;
    for database in [empty, filled].into_iter().flatten() {
        database.remove().await;
    }
}
