//! Workers that come and go in the middle of a stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer as _};
use sqlx::ConnectOptions as _;

use super::truth::{Truth, check};
use super::{Folder, stream};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::{committed, settled};
use crate::common::skipped::skipped;
use crate::common::topic::Topic;
use crate::common::worker::{SLACK, TIMEOUT, Worker, from_kafka, get};

#[tokio::test]
async fn a_worker_that_is_stopped_and_one_that_is_killed_lose_nothing_and_double_nothing() {
    let folder = Folder::new("restarts");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 600);
    let records = stream::count(&events);
    let topic = Topic::new(3).await;
    topic.produce(&events);
    // Small batches, so that there are many commits to be interrupted between.
    let mut environment = from_kafka(&topic, &database.url());
    environment.push(("SHRINKD__INGEST__BATCH_RECORDS", "20".to_owned()));

    let first = Worker::start(&environment, folder.path("first.log"));
    committed(&database, records / 5).await;
    first.stop();
    let second = Worker::start(&environment, folder.path("second.log"));
    committed(&database, records / 2).await;
    second.kill();
    let third = Worker::start(&environment, folder.path("third.log"));
    settled(&database, records).await;
    third.stop();

    check(&database, &Truth::of(&events)).await;
    topic.remove().await;
    database.remove().await;
}

/// As a migration to the schema of another build does, while workers of this one run against the advice.
#[tokio::test]
async fn a_schema_that_changes_under_a_worker_ends_it_and_loses_nothing() {
    let folder = Folder::new("schema");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 200);
    let records = stream::count(&events);
    let lines = std::fs::read_to_string(&events).expect("the events are there");
    let middle = lines.match_indices('\n').nth(100).expect("a line").0 + 1;
    let half = |name: &str, lines: &str| {
        let path = folder.path(name);
        std::fs::write(&path, lines).expect("a file");
        path
    };
    let topic = Topic::new(2).await;
    topic.produce(&half("first.ndjson", &lines[..middle]));
    let environment = from_kafka(&topic, &database.url());
    let worker = Worker::start(&environment, folder.path("before.log"));
    settled(&database, 101).await;
    database.execute("alter table block_changes rename column before to renamed").await;
    topic.produce(&half("second.ndjson", &lines[middle..]));
    let log = worker.ends_with(1);
    assert!(log.contains("SQLSTATE 42703"), "{log}");
    assert_eq!(database.count("select sum(next_offset)::text from partition_progress").await, 101);

    database.execute("alter table block_changes rename column renamed to before").await;
    let worker = Worker::start(&environment, folder.path("after.log"));
    settled(&database, records).await;
    worker.stop();
    check(&database, &Truth::of(&events)).await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn what_a_worker_shows_of_itself_agrees_with_the_tables() {
    let folder = Folder::new("metrics");
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 100);
    let topic = Topic::new(2).await;
    topic.produce(&events);
    let worker = Worker::start(&from_kafka(&topic, &database.url()), folder.path("worker.log"));
    settled(&database, stream::count(&events)).await;

    let metrics = get(&worker.http(), "/metrics");
    let total = |name: &str| -> f64 {
        let values = metrics.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        values.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
    };
    let truth = Truth::of(&events);
    assert_eq!(total("shrinkd_records_total"), stream::count(&events) as f64);
    assert_eq!(total("shrinkd_rejected_events_total"), truth.refused.values().sum::<i64>() as f64);
    assert_eq!(total("shrinkd_owned_partitions"), 2.0);
    assert!(total("shrinkd_population_mu{") != 0.0, "populations are shown:\n{metrics}");
    assert!(get(&worker.http(), "/readyz").contains("200 OK"), "{}", get(&worker.http(), "/readyz"));
    assert!(get(&worker.http(), "/livez").contains("200 OK"));
    worker.stop();
    topic.remove().await;
    database.remove().await;
}

/// A producer that hangs in a transaction holds up the whole partition. On the mock broker transactions are not isolated.
#[tokio::test]
async fn what_an_open_transaction_holds_back_is_lag_and_what_it_leaves_behind_is_none() {
    if std::env::var("SHRINKD_TEST_KAFKA").is_err() {
        return skipped("SHRINKD_TEST_KAFKA names no Apache Kafka, which isolates transactions");
    }
    let folder = Folder::new("transaction");
    let Some(database) = PostgresDatabase::create().await else { return };
    let topic = Topic::new(1).await;
    let worker = Worker::start(&from_kafka(&topic, &database.url()), folder.path("worker.log"));
    let producer = topic.transactional();
    let lag = |records: u64| {
        let series = format!("shrinkd_lag_records{{partition=\"0\"}} {records}\n");
        let deadline = Instant::now() + TIMEOUT;
        while !get(&worker.http(), "/metrics").contains(&series) {
            assert!(Instant::now() < deadline, "no lag of {records}:\n{}", get(&worker.http(), "/metrics"));
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let send = || {
        let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic.name).partition(0).payload("{}");
        producer.send(record).expect("there is room");
        producer.flush(TIMEOUT).expect("it is sent");
    };
    producer.begin_transaction().expect("a transaction");
    send();
    producer.commit_transaction(TIMEOUT).expect("it is committed");
    committed(&database, 1).await;
    lag(0);
    producer.begin_transaction().expect("a transaction");
    send();
    topic.produce_to(0, "{}\n{}\n{}\n");
    lag(4);
    producer.abort_transaction(TIMEOUT).expect("it is aborted");
    lag(0);
    worker.stop();
    topic.remove().await;
    database.remove().await;
}

/// A way to the server that can be closed: then nothing gets through, and new connections are refused, or accepted and never
/// answered.
struct Gate {
    address: SocketAddr,
    is_closed: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    fn before(server: String, is_silent: bool) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let gate = Gate {
            address: listener.local_addr().expect("an address"),
            is_closed: Arc::default(),
            streams: Arc::default(),
        };
        let (is_closed, streams) = (Arc::clone(&gate.is_closed), Arc::clone(&gate.streams));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut streams = streams.lock().expect("no panic");
                match is_closed.load(Ordering::SeqCst) {
                    true if is_silent => streams.push(client),
                    true => drop(client),
                    false => {
                        let server = TcpStream::connect(&server).expect("the server answers");
                        for (from, to) in [(&client, &server), (&server, &client)] {
                            let (from, to) = (from.try_clone().expect("a clone"), to.try_clone().expect("a clone"));
                            let is_closed = Arc::clone(&is_closed);
                            std::thread::spawn(move || carry(from, to, &is_closed, is_silent));
                        }
                        streams.extend([client, server]);
                    }
                }
            }
        });
        gate
    }

    fn close(&self, is_silent: bool) {
        self.is_closed.store(true, Ordering::SeqCst);
        if !is_silent {
            self.streams.lock().expect("no panic").drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }
}

/// Carries bytes until either side ends; those that come after the gate was closed are swallowed.
fn carry(mut from: TcpStream, mut to: TcpStream, is_closed: &AtomicBool, is_silent: bool) {
    let mut buffer = [0; 8192];
    let mut carry = || -> io::Result<usize> {
        let count = from.read(&mut buffer)?;
        if !(is_silent && is_closed.load(Ordering::SeqCst)) {
            to.write_all(&buffer[..count])?;
        }
        Ok(count)
    };
    while carry().is_ok_and(|count| count > 0) {}
    let _ = to.shutdown(Shutdown::Write);
}

/// A stop, while the server refuses connections or does not answer, takes no longer than the drain budget and the two seconds for
/// leaving the group.
async fn stops_within_the_budget(is_silent: bool) {
    let folder = Folder::new(if is_silent { "silent" } else { "refused" });
    let Some(database) = PostgresDatabase::create().await else { return };
    let events = stream::portfolio(&folder, 200);
    let records = stream::count(&events);
    let topic = Topic::new(2).await;
    topic.produce(&events);
    let options = database.options();
    let gate = Gate::before(format!("{}:{}", options.get_host(), options.get_port()), is_silent);
    let through = options.clone().host("127.0.0.1").port(gate.address.port());
    let mut environment = from_kafka(&topic, through.to_url_lossy().as_str());
    environment.push(("SHRINKD__INGEST__BATCH_RECORDS", "5".to_owned()));
    environment.push(("SHRINKD__INGEST__DRAIN_BUDGET", "1s".to_owned()));
    let worker = Worker::start(&environment, folder.path("worker.log"));
    committed(&database, records / 10).await;
    gate.close(is_silent);
    std::thread::sleep(Duration::from_secs(3));
    let stopped = Instant::now();
    worker.signal("TERM");
    let log = worker.ends_with(1);
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(3) + SLACK, "it took {took:?}:\n{log}");
    // A silent server is found out by whatever is waited for; one that refuses says so at once.
    let port = gate.address.port();
    assert!(is_silent || log.contains(&format!("127.0.0.1:{port}")) && log.contains("cannot connect"), "{log}");

    environment.push(("SHRINKD__STORE__URL", database.url()));
    let next = Worker::start(&environment, folder.path("next.log"));
    settled(&database, records).await;
    next.stop();
    check(&database, &Truth::of(&events)).await;
    topic.remove().await;
    database.remove().await;
}

#[tokio::test]
async fn a_stop_takes_no_longer_than_the_drain_budget_while_the_server_refuses_connections() {
    stops_within_the_budget(false).await;
}

#[tokio::test]
async fn a_stop_takes_no_longer_than_the_drain_budget_while_the_server_is_silent() {
    stops_within_the_budget(true).await;
}
