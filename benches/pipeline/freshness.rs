//! The latency from the producer to a row that a query sees, at a steady rate, with the default configuration.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shrinkd::simulate::Draws;

use crate::database::Database;
use crate::events::Shape;
use crate::proxy::lock;
use crate::report::{Table, heading, milliseconds, progress, quantile};
use crate::topic::{Producer, Topic};
use crate::worker::Setting;
use crate::{Bench, Outcome, report};

const RATE: f64 = 200.0;

/// The interval between queries for rows.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long to wait for the last events.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Events that were produced but not seen yet: their number, and when they were produced.
type Pending = Mutex<Vec<(usize, Instant)>>;

pub fn measure(bench: &Bench) -> Outcome<()> {
    let shape = Shape { prefix: "freshness".to_owned(), populations: 20, results: 1, variants: 3, shift: 0.0 };
    let (warm_up, measured) = bench.size((30.0, 60.0), (3.0, 5.0));
    let topic = Topic::create(&bench.brokers, "freshness")?;
    let mut database = bench.server.database()?;
    let url = database.url();
    let group = report::unique("group");
    let mut worker =
        Setting { topic: &topic, group: &group, store_url: &url, properties: &[], settings: &[], log_level: "info" }
            .start()?;
    progress("freshness: a steady rate");
    database.wait(Duration::from_millis(50), TIMEOUT, |database| {
        worker.check()?;
        database.is_claimed()
    })?;
    // Look up the few keys by index: a sequential scan of the growing table would disturb the measurement.
    database.execute("set enable_hashjoin = off")?;
    database.execute("set enable_mergejoin = off")?;
    database.execute("set enable_seqscan = off")?;

    let (pending, is_through) = (Pending::default(), AtomicBool::new(false));
    let (first, last) = ((warm_up * RATE) as usize, ((warm_up + measured) * RATE) as usize);
    let producer = topic.producer()?;
    let delays = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let result = produce(&producer, &shape, last, &pending);
            is_through.store(true, Ordering::Release);
            result
        });
        let delays = observe(&mut database, &shape, &pending, &is_through);
        producing.join().unwrap_or_else(|_| Err("the producer has panicked".into()))?;
        delays
    })?;
    worker.check()?;
    let estimates: i64 = database.value("select count(*) from effect_estimates where status = 'fitted'")?;
    worker.stop()?;

    let mut delays: Vec<Duration> =
        delays.into_iter().filter(|(number, _)| *number >= first).map(|(_, delay)| delay).collect();
    delays.sort_unstable();
    heading(&format!(
        "Freshness: produced to visible in effect_estimates, {RATE} events/s over {measured} s after {warm_up} s of warm-up"
    ));
    let mut table = Table::new(&["events", "p50", "p99", "largest", "p99 of the aim (2 s)"]);
    let p99 = quantile(&delays, 0.99);
    table.row(&[
        &delays.len().to_string(),
        &milliseconds(quantile(&delays, 0.5)),
        &milliseconds(p99),
        &milliseconds(quantile(&delays, 1.0)),
        &format!("{:.2}", p99.as_secs_f64() / 2.0),
    ]);
    table.print();
    println!("  looked for every {}; {estimates} rows are fitted at the end", milliseconds(POLL_INTERVAL));
    Ok(())
}

/// Sends each event when it is due, and records the time.
fn produce(producer: &Producer, shape: &Shape, count: usize, pending: &Pending) -> Outcome<()> {
    let mut draws = Draws::new(2, 0);
    let started = Instant::now();
    for number in 0..count {
        let event = shape.event(number, &mut draws);
        producer.wait_until(started + Duration::from_secs_f64(number as f64 / RATE));
        lock(pending).push((number, Instant::now()));
        producer.send(&event)?;
    }
    producer.flush()
}

/// Queries the rows of all pending events until each has been seen, and returns the latencies.
fn observe(
    database: &mut Database,
    shape: &Shape,
    pending: &Pending,
    is_through: &AtomicBool,
) -> Outcome<Vec<(usize, Duration)>> {
    let mut delays = Vec::new();
    let mut seen_at = Instant::now();
    loop {
        // Read the flag first: once it is set, no further event becomes pending.
        let is_last = is_through.load(Ordering::Acquire);
        let waiting = lock(pending).clone();
        if is_last && waiting.is_empty() {
            return Ok(delays);
        }
        if seen_at.elapsed() > TIMEOUT {
            return Err(format!("{} events have no estimates after a minute", waiting.len()).into());
        }
        let turn = Instant::now();
        if !waiting.is_empty() {
            let keys = waiting.iter().map(|(number, _)| {
                format!("('{}/all/absolute', '{}', 'v0')", shape.metric(*number, 0), shape.experiment(*number))
            });
            let sql = format!(
                "select e.experiment_id from (values {}) as k (p, e, v)
                 join effect_estimates as e on (e.population_id, e.experiment_id, e.variant) = (k.p, k.e, k.v)",
                keys.collect::<Vec<_>>().join(", ")
            );
            let visible: Vec<(String,)> = database.rows(&sql)?;
            let now = Instant::now();
            if !visible.is_empty() {
                seen_at = now;
            }
            lock(pending).retain(|(number, produced)| {
                let experiment = shape.experiment(*number);
                let is_visible = visible.iter().any(|(id,)| *id == experiment);
                if is_visible {
                    delays.push((*number, now - *produced));
                }
                !is_visible
            });
        }
        std::thread::sleep(POLL_INTERVAL.saturating_sub(turn.elapsed()));
    }
}
