//! Many small populations: refits a second with all their writes, the state that they take, and what a worker needs for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd::config::{PopulationSettings, StoreConfig, StoreUrl};
use shrinkd::row::StoreSettings;
use shrinkd::store::Store;
use shrinkd::telemetry::Telemetry;
use shrinkd::worker::refit::{Occasion, RefitLoop};
use shrinkd_core::{Grouping, PopulationName};
use shrinkd_model::{ARITHMETIC_VERSION, Direction, Priors, Quantity};

use crate::database::Database;
use crate::events::Shape;
use crate::report::{Table, heading, megabytes, milliseconds, progress, rate, seconds};
use crate::throughput::server_cpu;
use crate::topic::Topic;
use crate::worker::{Setting, cpu};
use crate::{Bench, Outcome, report};

/// Experiments of each population, of one effect each.
const EXPERIMENTS: usize = 8;

/// Results of an event, each of another population.
const RESULTS: usize = 100;

const TIMEOUT: Duration = Duration::from_secs(3_600);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// So long that the worker that loads the history refits nothing.
const NEVER: (&str, &str) = ("REFIT__INTERVAL", "24h");

/// Refits a second, and CPU seconds of this process and of the server.
struct Refits {
    count: usize,
    elapsed: Duration,
    own_cpu: f64,
    server_cpu: f64,
}

pub fn measure(bench: &Bench, populations: usize) -> Outcome<()> {
    let shape = Shape { prefix: "populations".to_owned(), populations, results: RESULTS, variants: 1, shift: 0.0 };
    let topic = Topic::create(&bench.brokers, "populations")?;
    let mut database = bench.server.database()?;
    let (url, group) = (database.url(), report::unique("group"));
    let most = (2 * populations).to_string();
    let limit = ("LIMITS__MAX_POPULATIONS", most.as_str());
    let setting = |settings| Setting {
        topic: &topic,
        group: &group,
        store_url: &url,
        properties: &[],
        settings,
        log_level: "info",
    };
    let mut table = Table::new(&["what", "measured", "aim"]);

    progress(&format!("{populations} populations: loading"));
    let events = topic.fill(shape.events(populations * EXPERIMENTS / RESULTS))?;
    let loading = [limit, NEVER];
    let mut worker = setting(&loading).start()?;
    let loaded = database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        Ok(database.committed()? >= events)
    })?;
    worker.stop()?;

    progress("refits, with what was loaded");
    let first = refit(&mut database)?;
    progress("refits, with nothing new");
    database.execute("update populations set refit_due_at = now()")?;
    let again = refit(&mut database)?;
    for (what, aim, Refits { count, elapsed, own_cpu, server_cpu }) in
        [("of what was loaded, each published", "2000", first), ("again, none published", "", again)]
    {
        table.row(&[&format!("refits a second, {what}"), &rate(count, elapsed), ""]);
        table.row(&[
            "  the same for each core that was busy",
            &format!("{:.0}", count as f64 / (own_cpu + server_cpu)),
            aim,
        ]);
        table.row(&[
            "  CPU us of a refit: here, in the server",
            &format!("{:.0}, {:.0}", own_cpu / count as f64 * 1e6, server_cpu / count as f64 * 1e6),
            "",
        ]);
    }
    for (what, tables, aim) in [
        ("its row and cells", "'populations', 'population_cells', 'block_changes'", "40 kB"),
        ("its current fits", "'current_population_fits'", ""),
        ("its published fits", "'population_fits', 'population_diagnostics'", ""),
    ] {
        let bytes: i64 = database.value(&format!(
            "select sum(pg_total_relation_size(name::regclass))::bigint from unnest(array[{tables}]) as name"
        ))?;
        table.row(&[&format!("bytes of a population: {what}"), &(bytes / populations as i64).to_string(), aim]);
    }

    progress("a worker that publishes all of them");
    let mut worker = setting(&[limit]).start()?;
    let published = database.wait(POLL_INTERVAL, TIMEOUT, |database| {
        worker.check()?;
        database.is_published()
    })?;
    let scrapes: Outcome<Vec<Duration>> = (0..20)
        .map(|_| {
            let started = Instant::now();
            worker.metrics().map(|_| started.elapsed())
        })
        .collect();
    let slowest = scrapes?.into_iter().max().unwrap_or_default();
    table.row(&["until all were published", &seconds(published), ""]);
    table.row(&[
        "peak memory of the worker",
        &worker.peak_memory().map_or("not known here".to_owned(), megabytes),
        "300 MB",
    ]);
    table.row(&["the slowest of 20 scrapes", &milliseconds(slowest), "50 ms"]);
    worker.stop()?;

    heading(&format!(
        "{populations} populations of {EXPERIMENTS} experiments with one effect; loaded in {}",
        seconds(loaded)
    ));
    table.print();
    Ok(())
}

/// Refits in this process, as a worker does, until nothing is due.
fn refit(database: &mut Database) -> Outcome<Refits> {
    let config = StoreConfig { url: StoreUrl::Postgres(database.url()), connections: 4 };
    let settings = StoreSettings { arithmetic_version: ARITHMETIC_VERSION, grouping: Grouping::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let refit = RefitLoop {
        store: runtime.block_on(Store::connect(&config, &settings))?,
        settings: Arc::new(|_: &PopulationName| PopulationSettings {
            priors: Priors::<Quantity>::default(),
            min_experiments: 5,
            direction: Direction::Increase,
        }),
        tolerance: 0.01,
        interval: Duration::from_secs(1),
        reported: 0,
        telemetry: Telemetry::default(),
    };
    let own = || i32::try_from(std::process::id()).ok().and_then(cpu).unwrap_or_default();
    let (own_before, server_before, started) = (own(), server_seconds(database)?, Instant::now());
    let mut count = 0;
    loop {
        match runtime.block_on(refit.refit_all(Occasion::News))? {
            0 => break,
            refitted => count += refitted,
        }
    }
    let elapsed = started.elapsed();
    // Before its connections are closed: the server counts none that has ended.
    Ok(Refits { count, elapsed, own_cpu: own() - own_before, server_cpu: server_seconds(database)? - server_before })
}

fn server_seconds(database: &mut Database) -> Outcome<f64> {
    Ok(server_cpu(database)?.iter().map(|(_, seconds)| seconds).sum())
}
