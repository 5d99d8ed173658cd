//! What a snapshot that somebody keeps open for minutes does to refits, at a steady rate: rows that were deleted stay as long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shrinkd::simulate::Draws;
use sqlx::{Connection, PgConnection};

use crate::events::Shape;
use crate::report::{Table, heading, milliseconds, progress};
use crate::topic::Topic;
use crate::worker::{Setting, Worker};
use crate::{Bench, Outcome, report};

const RATE: f64 = 200.0;

/// The buckets of a histogram by their upper limits.
type Buckets = Vec<(f64, f64)>;

pub fn measure(bench: &Bench) -> Outcome<()> {
    let shape = Shape { prefix: "snapshot".to_owned(), populations: 20, results: 1, variants: 3, shift: 0.0 };
    let topic = Topic::create(&bench.brokers, "snapshot")?;
    let database = bench.server.database()?;
    let (url, group) = (database.url(), report::unique("group"));
    let worker =
        Setting { topic: &topic, group: &group, store_url: &url, properties: &[], settings: &[], log_level: "info" }
            .start()?;
    let (minute, minutes) = (Duration::from_secs(bench.size(60, 3)), bench.size(10, 1));
    let producer = topic.producer()?;
    let (mut draws, mut number, started) = (Draws::new(3, 0), 0, Instant::now());
    let mut produce = |until: Instant| -> Outcome<()> {
        while Instant::now() < until {
            producer.wait_until(started + Duration::from_secs_f64(f64::from(number) / RATE));
            producer.send(&shape.event(number as usize, &mut draws))?;
            number += 1;
        }
        Ok(())
    };
    progress("snapshot: a steady rate without one");
    produce(started + minute)?;
    let begun = buckets(&worker)?;
    produce(started + 2 * minute)?;
    let without = p99(&begun, &buckets(&worker)?);
    progress("the same with one that is kept open");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut snapshot = runtime.block_on(PgConnection::connect_with(&database.options))?;
    let open = "begin isolation level repeatable read; select count(*) from populations";
    runtime.block_on(sqlx::raw_sql(open).execute(&mut snapshot))?;
    produce(started + (1 + minutes) * minute)?;
    let begun = buckets(&worker)?;
    produce(started + (2 + minutes) * minute)?;
    let with = p99(&begun, &buckets(&worker)?);
    runtime.block_on(snapshot.close())?;
    producer.flush()?;
    worker.stop()?;
    heading(&format!(
        "A snapshot held open for {minutes} minutes at {RATE} events/s: p99 of a population's share of a refit"
    ));
    let mut table = Table::new(&["without", "with, in its last minute", "ratio", "aim"]);
    let share = format!("{:.2}", with.as_secs_f64() / without.as_secs_f64());
    table.row(&[&milliseconds(without), &milliseconds(with), &share, "2"]);
    table.print();
    println!("  interpolated within the buckets of shrinkd_refit_seconds");
    Ok(())
}

/// What `shrinkd_refit_seconds` has counted.
fn buckets(worker: &Worker) -> Outcome<Buckets> {
    let metrics: BTreeMap<String, f64> = worker.metrics()?;
    let bucket = |(name, count): (&String, &f64)| {
        let limit = name.strip_prefix("shrinkd_refit_seconds_bucket{le=\"")?.strip_suffix("\"}")?;
        Some((limit.replace("+Inf", "inf").parse().ok()?, *count))
    };
    let mut buckets: Buckets = metrics.iter().filter_map(bucket).collect();
    buckets.sort_by(|x, y| x.0.total_cmp(&y.0));
    Ok(buckets)
}

/// The 99% quantile of what came between two counts.
fn p99(before: &Buckets, after: &Buckets) -> Duration {
    let counts: Vec<(f64, f64)> =
        before.iter().zip(after).map(|((limit, before), (_, after))| (*limit, after - before)).collect();
    let rank = 0.99 * counts.last().map_or(0.0, |(_, count)| *count);
    let (mut low, mut below) = (0.0, 0.0);
    for (limit, count) in counts {
        if count >= rank && limit.is_finite() {
            return Duration::from_secs_f64(low + (limit - low) * (rank - below) / (count - below).max(1.0));
        }
        (low, below) = (limit.min(1e3), count);
    }
    Duration::from_secs_f64(low)
}
