//! Memory, and time from start to first commit, on a long history.
//!
//! The history is loaded once, through a worker: experiments of one effect in each population.

use std::time::Duration;

use crate::database::Database;
use crate::events::Shape;
use crate::report::{Table, heading, megabytes, milliseconds, progress, seconds};
use crate::topic::Topic;
use crate::worker::{Setting, Worker};
use crate::{Bench, Outcome, report};

const POPULATIONS: usize = 100;

/// How often each way to stop is measured.
const STOPS: usize = 3;

/// Properties of librdkafka, in milliseconds.
const SESSION_TIMEOUT: (&str, &str) = ("SESSION_TIMEOUT_MS", "6000");

const TIMEOUT: Duration = Duration::from_secs(3_600);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// For operations that take about a second.
const SHORT_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A topic, and a database that has ingested all of it.
struct History<'a> {
    topic: &'a Topic,
    database: Database,
    setting: Setting<'a>,
    produced: usize,
}

impl History<'_> {
    fn produce(&mut self, shape: &Shape, events: usize) -> Outcome<()> {
        self.produced += self.topic.fill(shape.events(events))?;
        Ok(())
    }

    /// Waits until everything that was produced is committed and published.
    fn settle(&mut self, worker: &mut Worker) -> Outcome<Duration> {
        let produced = self.produced;
        self.database.wait(POLL_INTERVAL, TIMEOUT, |database| {
            worker.check()?;
            Ok(database.committed()? >= produced && database.is_published()?)
        })
    }

    /// Starts a worker that finds new events, and returns how long its first commit took.
    fn restart(&mut self, shape: &Shape) -> Outcome<(Worker, Duration)> {
        let before = self.database.committed()?;
        self.produce(shape, POPULATIONS)?;
        let mut worker = self.setting.start()?;
        self.database.wait(SHORT_POLL_INTERVAL, TIMEOUT, |database| {
            worker.check()?;
            Ok(database.committed()? > before)
        })?;
        let first_commit = worker.started.elapsed();
        self.settle(&mut worker)?;
        Ok((worker, first_commit))
    }
}

pub fn measure(bench: &Bench) -> Outcome<()> {
    let (experiments, events) = bench.size((10_000, 10_000), (100, 500));
    let shape = |prefix: &str, results, shift| Shape {
        prefix: prefix.to_owned(),
        populations: POPULATIONS,
        results,
        variants: 1,
        shift,
    };
    let topic = Topic::create(&bench.brokers, "bounded")?;
    let database = bench.server.database()?;
    let (url, group) = (database.url(), report::unique("group"));
    let setting = Setting {
        topic: &topic,
        group: &group,
        store_url: &url,
        properties: &[SESSION_TIMEOUT],
        settings: &[],
        log_level: "info",
    };
    let mut history = History { topic: &topic, database, setting, produced: 0 };
    let mut table = Table::new(&["what", "measured", "aim"]);
    let memory = |worker: &Worker| worker.peak_memory().map_or("not known here".to_owned(), megabytes);

    progress("bounded: loading the history through a worker");
    history.produce(&shape("history", POPULATIONS, 0.0), experiments)?;
    let mut worker = history.setting.start()?;
    let loading = history.settle(&mut worker)?;
    let loading_memory = memory(&worker);
    let stopping = worker.stop()?;
    let blocks: i64 = history.database.value("select count(*) from blocks")?;
    let last_fit: i64 = history.database.value("select coalesce(max(published_fit_id), 0) from populations")?;

    progress("bounded: further events on the history");
    // Far enough from the history that every population moves, and is published as a whole.
    history.produce(&shape("further", 1, 5.0), events)?;
    let mut worker = history.setting.start()?;
    let working = history.settle(&mut worker)?;
    let published: i64 =
        history.database.value(&format!("select count(*) from populations where published_fit_id > {last_fit}"))?;
    table.row(&[&format!("peak memory, {events} further events"), &memory(&worker), "300 MB"]);
    table.row(&["  populations published whole meanwhile", &published.to_string(), &POPULATIONS.to_string()]);
    table.row(&["  until all was published", &seconds(working), ""]);

    for (is_clean, how, aim) in [(true, "a clean stop", "2 s"), (false, "kill -9", "8 s")] {
        let mut first_commits = Vec::new();
        for stop in 1..=STOPS {
            progress(&format!("bounded: {how} {stop}, and a start"));
            match is_clean {
                true => drop(worker.stop()?),
                false => worker.kill()?,
            }
            let (next, first_commit) = history.restart(&shape(&format!("after {how} {stop}"), 1, 0.0))?;
            worker = next;
            first_commits.push(milliseconds(first_commit));
        }
        table.row(&[&format!("start to first commit, after {how}"), &first_commits.join(", "), aim]);
    }
    worker.stop()?;
    for command in ["verify", "rebuild"] {
        progress(&format!("bounded: shrinkd {command}"));
        table.row(&[&format!("shrinkd {command}"), &seconds(history.setting.run(command)?), ""]);
    }
    table.row(&[&format!("loading: peak memory, {POPULATIONS} results an event"), &loading_memory, ""]);
    table.row(&["loading: until all was published", &seconds(loading), ""]);
    table.row(&["loading: SIGTERM to the end", &milliseconds(stopping), ""]);

    heading(&format!("Bounded: {blocks} blocks of history in {POPULATIONS} populations"));
    table.print();
    println!(
        "  session.timeout.ms is {}: so long the group keeps the partitions of a worker that was killed",
        SESSION_TIMEOUT.1
    );
    Ok(())
}
