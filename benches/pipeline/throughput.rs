//! Throughput from a preloaded topic to committed rows and to published ones, next to two ceilings from the same run: reading the
//! topic without processing it, and replaying the worker's writes without its other work.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::database::Database;
use crate::events::{Shape, repeated};
use crate::proxy::Proxy;
use crate::recording::{INGEST, LANES, Recording};
use crate::replay::Replay;
use crate::report::{Table, heading, median, progress, rate, ratio, seconds};
use crate::topic::{Reading, Topic};
use crate::worker::{Setting, Worker, cpu};
use crate::{Bench, Outcome, copy, report};

/// The target, as a share of the lower ceiling.
const AIM: &str = "aim 0.70";

/// How long one run may take.
const TIMEOUT: Duration = Duration::from_secs(1_800);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One run of a worker.
struct Run {
    /// Measured from the start of the program.
    claim: Duration,
    last_commit: Duration,
    published: Duration,
    times: Times,
}

/// Where the time of a run went, in seconds.
#[derive(Default)]
struct Times {
    /// From the worker's metrics: count and total time.
    commits: (f64, f64),
    refits: (f64, f64),
    pages: (f64, f64),
    estimates_written: f64,
    peak_memory: Option<u64>,
    /// CPU time by thread of the worker, then by process of the server.
    worker_cpu: Vec<(String, f64)>,
    server_cpu: Vec<(String, f64)>,
}

/// The figures in which a replayed database must equal the original: how many blocks and estimates it has, and a hash of its
/// sketch cells.
type Content = (i64, i64, Option<String>);

pub fn measure(bench: &Bench) -> Outcome<()> {
    let shape = Shape { prefix: "throughput".to_owned(), populations: 20, results: 1, variants: 3, shift: 0.0 };
    let topic = Topic::create(&bench.brokers, "throughput")?;
    progress("filling the topic");
    let count = topic.fill(shape.events(bench.size(200_000, 5_000)))?;
    measure_stream(bench, &topic, count, "3 variants, 20 populations, one result an event")?;

    let Some(path) = std::env::var_os("SHRINKD_BENCH_STREAM").map(PathBuf::from) else {
        println!("\nThroughput of your own stream: LEFT OUT, SHRINKD_BENCH_STREAM names no file of events");
        return Ok(());
    };
    let topic = Topic::create(&bench.brokers, "stream")?;
    progress("filling the topic with your own stream");
    let count = topic.fill(repeated(&path, bench.size(50_000, 2_000))?)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    measure_stream(bench, &topic, count, &format!("{name}, repeated under other names"))
}

fn measure_stream(bench: &Bench, topic: &Topic, count: usize, what: &str) -> Outcome<()> {
    progress("recording a run");
    let (recording, recorded) = record(bench, topic, count)?;
    let rounds = bench.size(3, 1);
    let (mut readings, mut runs, mut replays) = (Vec::new(), Vec::new(), Vec::new());
    let mut copied = None;
    for round in 1..=rounds {
        progress(&format!("round {round} of {rounds}: reading, running, replaying"));
        readings.push(topic.read(count)?);
        let mut database = bench.server.database()?;
        let url = database.url();
        runs.push(run(topic, count, &mut database, &url)?);
        if round == rounds {
            copied = Some(copy::measure(&mut database)?);
        }
        drop(database);
        let mut database = bench.server.database()?;
        replays.push(Replay::run(&recording, &database.options)?);
        let replayed = content(&mut database)?;
        if replayed != recorded {
            return Err(format!("the replay left {replayed:?}, the recorded run {recorded:?}").into());
        }
    }
    heading(&format!("Throughput: {count} events, {what}; the median of {rounds}"));
    print_ceilings(count, &readings, &runs, &replays);
    if let Some(copied) = copied {
        print_write_path(&recording, &replays, copied);
    }
    if let (Some(run), Some(replay)) = (runs.last(), replays.last()) {
        print_times(run, replay, &recording);
    }
    Ok(())
}

fn print_ceilings(count: usize, readings: &[Reading], runs: &[Run], replays: &[Replay]) {
    let of_runs = |time: fn(&Run) -> Duration| median(runs.iter().map(time).collect());
    let of_replays = |time: fn(&Replay) -> Duration| median(replays.iter().map(time).collect());
    let (committed, published) = (of_runs(|run| run.last_commit), of_runs(|run| run.published));
    let (reading, flow) = (
        median(readings.iter().map(|reading| reading.whole).collect()),
        median(readings.iter().map(|reading| reading.flow).collect()),
    );
    let (writing, all_writing) = (of_replays(|replay| replay.ingest), of_replays(|replay| replay.whole));
    let mut table = Table::new(&["what", "time", "events/s", "of reading", "of replaying"]);
    let mut row = |what: &str, time: Duration, of_reading: &str, of_replaying: &str| {
        table.row(&[what, &seconds(time), &rate(count, time), of_reading, of_replaying]);
    };
    let of_replaying = format!("{} ({AIM})", ratio(writing, committed));
    row("the worker, from its start to committed rows", committed, &ratio(reading, committed), &of_replaying);
    let flowing = of_runs(|run| run.last_commit.saturating_sub(run.claim));
    row("  of which from its claim of the partitions on", flowing, "", &ratio(writing, flowing));
    row("ceiling: reading the topic alone, from the start", reading, "1", "");
    row("  of which from the first message on", flow, "", "");
    row("ceiling: replaying its batches alone", writing, "", "1");
    row("the worker, to everything published", published, "", &ratio(all_writing, published));
    row("ceiling: replaying batches, fits and publishes", all_writing, "", "1");
    table.print();
    let megabytes = readings.first().map_or(0.0, |reading| reading.bytes as f64 / 1e6);
    let each = |times: Vec<Duration>| times.into_iter().map(seconds).collect::<Vec<_>>().join(", ");
    println!(
        "  {megabytes:.0} MB of payload; each round committed after {}, replayed in {}",
        each(runs.iter().map(|run| run.last_commit).collect()),
        each(replays.iter().map(|replay| replay.ingest).collect())
    );
}

fn print_write_path(recording: &Recording, replays: &[Replay], (rows, copying): (usize, Duration)) {
    heading("The write path against binary COPY of the final blocks and estimates into tables without keys");
    let mut table = Table::new(&["what", "rows", "time", "rows/s", "of COPY"]);
    let writing = median(replays.iter().map(|replay| replay.ingest).collect());
    let per_second = |rows: usize, time: Duration| rows as f64 / time.as_secs_f64();
    let written = recording.rows(INGEST) as usize;
    let share = format!("{:.3}", per_second(written, writing) / per_second(rows, copying));
    table.row(&["COPY", &rows.to_string(), &seconds(copying), &rate(rows, copying), "1"]);
    table.row(&["replaying its batches", &written.to_string(), &seconds(writing), &rate(written, writing), &share]);
    table.print();
    let rows = |lane| {
        format!("{} {} of {}", LANES[lane], replays.last().map_or(0, |replay| replay.rows[lane]), recording.rows(lane))
    };
    let lanes: Vec<String> = (0..LANES.len()).map(rows).collect();
    println!(
        "  the recording holds {}; rows that the replay wrote, of those recorded: {}",
        report::megabytes(recording.bytes() as u64),
        lanes.join(", ")
    );
}

fn print_times(run: &Run, replay: &Replay, recording: &Recording) {
    heading("Where the time goes: the last run");
    let Run { claim, last_commit, published, times } = run;
    let mut table = Table::new(&["what", "number", "seconds", "of the wall"]);
    let mut row = |what: &str, number: &str, time: f64| {
        table.row(&[what, number, &format!("{time:.2}"), &format!("{:.2}", time / published.as_secs_f64())]);
    };
    row("wall, to everything published", "", published.as_secs_f64());
    row("  until the claim of the partitions", "", claim.as_secs_f64());
    row("  until the last commit", "", last_commit.as_secs_f64());
    row("in batches", &times.commits.0.to_string(), times.commits.1);
    row("  beyond what replaying them took: reading, computing", "", times.commits.1 - replay.ingest.as_secs_f64());
    row("in refits", &times.refits.0.to_string(), times.refits.1);
    row("in pages of publishes", &times.pages.0.to_string(), times.pages.1);
    for (name, time) in &times.worker_cpu {
        row(&format!("CPU, worker: {name}"), "", *time);
    }
    for (name, time) in &times.server_cpu {
        row(&format!("CPU, PostgreSQL: {name}"), "", *time);
    }
    table.print();
    println!(
        "  the worker wrote {} rows of effect_estimates, and had at most {} of memory",
        times.estimates_written,
        times.peak_memory.map_or("an unknown amount".to_owned(), report::megabytes)
    );

    heading("Where the time goes: the last replay, by statement");
    let mut table = Table::new(&["what", "seconds", "of the whole replay"]);
    let mut others = Duration::ZERO;
    for ((lane, statement), time) in &replay.times {
        if *time < replay.whole / 100 {
            others += *time;
            continue;
        }
        let sql = statement.map_or("begin, commit", |number| &recording.statements[number].sql);
        let words: Vec<&str> = sql.split_whitespace().take_while(|word| !word.starts_with('(')).take(4).collect();
        let what = format!("{}: {}", LANES[*lane], words.join(" "));
        table.row(&[&what, &seconds(*time), &ratio(*time, replay.whole)]);
    }
    table.row(&["others, each below a hundredth", &seconds(others), &ratio(others, replay.whole)]);
    table.print();
}

/// One run of a worker on an empty database, until everything is published.
fn run(topic: &Topic, count: usize, database: &mut Database, store_url: &str) -> Outcome<Run> {
    let group = report::unique("group");
    let before = server_cpu(database)?;
    let mut worker =
        Setting { topic, group: &group, store_url, properties: &[], settings: &[], log_level: "info" }.start()?;
    let started = worker.started;
    database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        database.is_claimed()
    })?;
    let claim = started.elapsed();
    database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        Ok(database.committed()? >= count)
    })?;
    let last_commit = started.elapsed();
    database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        database.is_published()
    })?;
    let published = started.elapsed();
    let times = times(&worker, database, &before)?;
    worker.stop()?;
    Ok(Run { claim, last_commit, published, times })
}

/// The same through a recording proxy, with the resulting state of the database.
fn record(bench: &Bench, topic: &Topic, count: usize) -> Outcome<(Recording, Content)> {
    let mut database = bench.server.database()?;
    let proxy = Proxy::start(&database.options)?;
    let through: PgConnectOptions = database.options.clone().host("127.0.0.1").port(proxy.address.port());
    let url = through.ssl_mode(PgSslMode::Disable).to_url_lossy().to_string();
    run(topic, count, &mut database, &url)?;
    Ok((proxy.finish()?, content(&mut database)?))
}

fn content(database: &mut Database) -> Outcome<Content> {
    let sql = "select (select count(*) from blocks) as blocks,
                      (select count(*) from effect_estimates) as effect_estimates,
                      (select md5(string_agg(md5(moments), '' order by population_id, part))
                       from population_cells) as population_cells";
    database.rows(sql)?.into_iter().next().ok_or_else(|| "no row".into())
}

fn times(worker: &Worker, database: &mut Database, before: &[(String, f64)]) -> Outcome<Times> {
    let metrics = worker.metrics()?;
    let get = |name: &str| metrics.get(name).copied().unwrap_or(0.0);
    let histogram =
        |name: &str| (get(&format!("shrinkd_{name}_seconds_count")), get(&format!("shrinkd_{name}_seconds_sum")));
    let mut server_cpu = server_cpu(database)?;
    for (name, seconds) in &mut server_cpu {
        // The worker's backends start with it. The other processes were there before.
        let earlier = before.iter().find(|(earlier, _)| earlier == name);
        *seconds -= earlier.map_or(0.0, |(_, seconds)| *seconds);
    }
    Ok(Times {
        commits: histogram("ingest_commit"),
        refits: histogram("refit"),
        pages: histogram("publish"),
        estimates_written: get("shrinkd_rows_written_total{table=\"effect_estimates\"}"),
        peak_memory: worker.peak_memory(),
        worker_cpu: cpu_of(worker),
        server_cpu,
    })
}

/// CPU seconds by thread, and of those that have ended.
fn cpu_of(worker: &Worker) -> Vec<(String, f64)> {
    let mut by_thread: Vec<(String, f64)> = worker.cpu_by_thread().into_iter().collect();
    let ended = worker.cpu() - by_thread.iter().map(|(_, seconds)| seconds).sum::<f64>();
    by_thread.push(("threads that have ended".to_owned(), ended.max(0.0)));
    by_thread
}

/// CPU seconds by kind of server process.
pub fn server_cpu(database: &mut Database) -> Outcome<Vec<(String, f64)>> {
    let mut sums = std::collections::BTreeMap::new();
    for (name, process) in database.server_processes()? {
        // The processes of a server in a container are not visible here.
        if let Some(seconds) = cpu(process) {
            *sums.entry(name).or_insert(0.0) += seconds;
        }
    }
    Ok(sums.into_iter().collect())
}
