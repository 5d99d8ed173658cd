//! A large history: how soon a worker commits again after it has ended, and how long a rebuild and an audit take.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::database::Database;
use crate::events::Shape;
use crate::report::{Table, heading, megabytes, progress, seconds};
use crate::topic::Topic;
use crate::worker::{Setting, Worker};
use crate::{Bench, Outcome, report};

/// Results of an event.
const RESULTS: usize = 100;
const SESSION: Duration = Duration::from_secs(6);
const TIMEOUT: Duration = Duration::from_secs(3_600);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub fn measure(bench: &Bench) -> Outcome<()> {
    let blocks = bench.size(1_000_000, 10_000);
    let shape = Shape { prefix: "restart".to_owned(), populations: 200, results: RESULTS, variants: 1, shift: 0.0 };
    let topic = Topic::create(&bench.brokers, "restart")?;
    let mut database = bench.server.database()?;
    let (url, group) = (database.url(), report::unique("group"));
    let session = SESSION.as_millis().to_string();
    let properties = [("SESSION_TIMEOUT_MS", session.as_str()), ("HEARTBEAT_INTERVAL_MS", "500")];
    let setting = Setting {
        topic: &topic,
        group: &group,
        store_url: &url,
        properties: &properties,
        settings: &[],
        log_level: "info",
    };

    progress(&format!("{blocks} blocks: loading"));
    let mut events = shape.events(blocks / RESULTS + 2);
    let mut count = topic.fill(events.by_ref().take(blocks / RESULTS))?;
    let mut worker = setting.start()?;
    let loaded = committed(&mut database, &mut worker, count)?;
    let published = database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        database.is_published()
    })?;
    let memory = worker.peak_memory();
    let mut table = Table::new(&["what", "measured", "aim"]);
    table.row(&["until all are committed", &seconds(loaded), ""]);
    table.row(&["until all are published, after that", &seconds(published), ""]);
    table.row(&["peak memory of the worker", &memory.map_or("not known here".to_owned(), megabytes), ""]);

    progress("a stop and a start");
    worker.stop()?;
    count += topic.fill(events.by_ref().take(1))?;
    let mut worker = setting.start()?;
    let after_stop = committed(&mut database, &mut worker, count)?;
    table.row(&["first commit after a clean stop, from the start", &seconds(after_stop), "2 s"]);
    progress("kill -9 and a start");
    worker.kill()?;
    count += topic.fill(events.by_ref().take(1))?;
    let mut worker = setting.start()?;
    let after_kill = committed(&mut database, &mut worker, count)?;
    table.row(&[
        "first commit after kill -9, likewise",
        &seconds(after_kill),
        &seconds(SESSION + Duration::from_secs(2)),
    ]);
    database.wait(POLL_INTERVAL, TIMEOUT, Database::is_published)?;
    worker.stop()?;

    for command in ["verify", "rebuild"] {
        progress(command);
        table.row(&[&format!("shrinkd {command}"), &seconds(run(&topic, &url, command)?), ""]);
    }
    heading(&format!("{blocks} blocks of one effect, 200 populations"));
    table.print();
    Ok(())
}

/// How long after the worker's start so many records were committed.
fn committed(database: &mut Database, worker: &mut Worker, count: usize) -> Outcome<Duration> {
    database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        Ok(database.committed()? >= count)
    })?;
    Ok(worker.started.elapsed())
}

fn run(topic: &Topic, url: &str, command: &str) -> Outcome<Duration> {
    let started = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_shrinkd"))
        .arg(command)
        .env("SHRINKD__SOURCE__KAFKA__BROKERS", &topic.brokers)
        .env("SHRINKD__SOURCE__KAFKA__TOPIC", &topic.name)
        .env("SHRINKD__STORE__URL", url)
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(started.elapsed()),
        false => Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
