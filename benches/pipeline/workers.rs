//! One, two and three workers of a group on the same backlog: how much faster they are, and whether they leave the same.

use std::time::Duration;

use crate::database::Database;
use crate::events::Shape;
use crate::report::{Table, heading, progress, rate, ratio, seconds};
use crate::throughput::server_cpu;
use crate::topic::Topic;
use crate::worker::{Setting, Worker};
use crate::{Bench, Outcome, report};

const MOST: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(1_800);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One run of a group.
struct Run {
    committed: Duration,
    published: Duration,
    /// CPU seconds of the workers and of their backends.
    cpu: f64,
    server_cpu: f64,
    content: (Option<String>, Option<String>),
}

pub fn measure(bench: &Bench) -> Outcome<()> {
    let shape = Shape { prefix: "workers".to_owned(), populations: 20, results: 1, variants: 3, shift: 0.0 };
    let topic = Topic::create(&bench.brokers, "workers")?;
    progress("filling the topic");
    let count = topic.fill(shape.events(bench.size(200_000, 5_000)))?;
    let mut runs = Vec::new();
    for workers in 1..=MOST {
        progress(&format!("{workers} workers"));
        runs.push(run(bench, &topic, count, workers)?);
    }
    heading(&format!("Workers of one group: {count} events, 3 variants, 20 populations, one PostgreSQL"));
    let mut table =
        Table::new(&["workers", "committed", "of one", "published", "of one", "events/s", "CPU: workers, server"]);
    for (workers, run) in (1..).zip(&runs) {
        table.row(&[
            &workers.to_string(),
            &seconds(run.committed),
            &ratio(run.committed, runs[0].committed),
            &seconds(run.published),
            &ratio(run.published, runs[0].published),
            &rate(count, run.committed),
            &format!("{:.1} s, {:.1} s", run.cpu, run.server_cpu),
        ]);
    }
    table.print();
    let is_equal = runs.iter().all(|run| run.content == runs[0].content);
    println!("  cells, and estimates after all were published anew: {}", if is_equal { "equal" } else { "NOT EQUAL" });
    if is_equal { Ok(()) } else { Err("the groups have left different tables".into()) }
}

fn run(bench: &Bench, topic: &Topic, count: usize, workers: usize) -> Outcome<Run> {
    let mut database = bench.server.database()?;
    let (url, group) = (database.url(), report::unique("group"));
    let before = sum(&server_cpu(&mut database)?);
    let setting = Setting { topic, group: &group, store_url: &url, properties: &[], settings: &[], log_level: "info" };
    let workers: Outcome<Vec<Worker>> = (0..workers).map(|_| setting.start()).collect();
    let mut workers = workers?;
    let started = workers[0].started;
    let wait = |workers: &mut [Worker], database: &mut Database, is_so: fn(&mut Database, usize) -> Outcome<bool>| {
        database.wait(POLL_INTERVAL, TIMEOUT, |database| {
            workers.iter_mut().try_for_each(Worker::check)?;
            is_so(database, count)
        })
    };
    wait(&mut workers, &mut database, |database, count| Ok(database.committed()? >= count))?;
    let committed = started.elapsed();
    wait(&mut workers, &mut database, |database, _| database.is_published())?;
    let published = started.elapsed();
    let cpu = workers.iter().map(Worker::cpu).sum();
    let server_cpu = sum(&server_cpu(&mut database)?) - before;
    // Which fits were published on the way depends on when refits came.
    database.execute("update populations set published_fit_id = null, refit_due_at = now()")?;
    wait(&mut workers, &mut database, |database, _| database.is_published())?;
    workers.into_iter().try_for_each(|worker| worker.stop().map(drop))?;
    Ok(Run { committed, published, cpu, server_cpu, content: content(&mut database)? })
}

fn sum(cpu: &[(String, f64)]) -> f64 {
    cpu.iter().map(|(_, seconds)| seconds).sum()
}

/// Hashes of the cells, and of the estimates without ids and times.
fn content(database: &mut Database) -> Outcome<(Option<String>, Option<String>)> {
    let sql = "select (select md5(string_agg(md5(moments), '' order by population_id, part))
                       from population_cells) as cells,
                      (select md5(string_agg(md5((to_jsonb(e) - 'fit_id' - 'commit_id' - 'computed_at')::text), ''
                                             order by population_id, experiment_id, variant))
                       from effect_estimates as e) as estimates";
    database.rows(sql)?.into_iter().next().ok_or_else(|| "no row".into())
}
