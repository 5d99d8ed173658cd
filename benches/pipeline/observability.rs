//! What it costs to be watched: the same topic with info logs and a scrape of the metrics every second, and with neither.
//! Metrics are counted in both, because nothing switches them off.

use std::time::{Duration, Instant};

use crate::events::Shape;
use crate::report::{Table, heading, median, progress, rate, seconds};
use crate::topic::Topic;
use crate::worker::{Setting, Worker};
use crate::{Bench, Outcome, report};

const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long one run may take.
const TIMEOUT: Duration = Duration::from_secs(1_800);

/// One run of a worker on an empty database.
#[derive(Clone, Copy)]
struct Run {
    /// From the claim of the partitions to the last commit.
    ingest: Duration,
    /// CPU time of the worker, from its start.
    cpu: Duration,
}

pub fn measure(bench: &Bench) -> Outcome<()> {
    let shape = Shape { prefix: "observability".to_owned(), populations: 20, results: 1, variants: 3, shift: 0.0 };
    let topic = Topic::create(&bench.brokers, "observability")?;
    progress("filling the topic");
    let count = topic.fill(shape.events(bench.size(200_000, 5_000)))?;
    // The first run finds cold caches.
    run(bench, &topic, count, false)?;
    let rounds = bench.size(9, 2);
    let mut pairs = Vec::new();
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}: watched and unwatched, in turns", round + 1));
        let is_first_watched = round % 2 == 0;
        let (first, second) =
            (run(bench, &topic, count, is_first_watched)?, run(bench, &topic, count, !is_first_watched)?);
        pairs.push(if is_first_watched { (first, second) } else { (second, first) });
    }
    heading(&format!(
        "Observability: {count} events, info logs and a scrape every second against neither; {rounds} rounds"
    ));
    let mut table = Table::new(&["what", "time", "events/s", "CPU of the worker"]);
    let mut row = |what: &str, runs: Vec<Run>| {
        let time = median(runs.iter().map(|run| run.ingest).collect());
        let cpu = median(runs.iter().map(|run| run.cpu).collect());
        table.row(&[what, &seconds(time), &rate(count, time), &seconds(cpu)]);
    };
    row("watched, from its claim of the partitions on", pairs.iter().map(|(watched, _)| *watched).collect());
    row("unwatched", pairs.iter().map(|(_, unwatched)| *unwatched).collect());
    table.print();
    let ratios = |figure: fn(&Run) -> Duration| {
        let ratio = |(watched, unwatched): &(Run, Run)| figure(watched).as_secs_f64() / figure(unwatched).as_secs_f64();
        let mut ratios: Vec<f64> = pairs.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    let (slower, busier) = (ratios(|run| run.ingest), ratios(|run| run.cpu));
    let all: Vec<String> = slower.iter().map(|ratio| format!("{ratio:.3}")).collect();
    println!(
        "  watched over unwatched, the median of the rounds: time {:.3} (aim at most 1.03), CPU {:.3}; times of all: {}",
        slower[slower.len() / 2],
        busier[busier.len() / 2],
        all.join(", ")
    );
    Ok(())
}

fn run(bench: &Bench, topic: &Topic, count: usize, is_watched: bool) -> Outcome<Run> {
    let mut database = bench.server.database()?;
    let (group, url) = (report::unique("group"), database.url());
    let log_level = if is_watched { "info" } else { "off" };
    let mut worker =
        Setting { topic, group: &group, store_url: &url, properties: &[], settings: &[], log_level }.start()?;
    database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        database.is_claimed()
    })?;
    let (claimed, mut scraped) = (Instant::now(), Instant::now());
    database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        if is_watched && scraped.elapsed() >= SCRAPE_INTERVAL {
            scraped = Instant::now();
            worker.metrics()?;
        }
        Ok(database.committed()? >= count)
    })?;
    let ingest = claimed.elapsed();
    let cpu = cpu(&worker);
    worker.stop()?;
    Ok(Run { ingest, cpu })
}

fn cpu(worker: &Worker) -> Duration {
    Duration::from_secs_f64(worker.cpu())
}
