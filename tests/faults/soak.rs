//! Ten minutes of load with revisions, retractions and rebalances, and what grows meanwhile: nothing.

use std::fs;
use std::time::{Duration, Instant};

use super::common::database::{Database, PostgresDatabase};
use super::common::folder::Folder;
use super::common::settling::settled;
use super::common::topic::Topic;
use super::fleet::Fleet;
use super::producer::Producer;
use super::proxy::Proxy;
use super::run::{PARTITIONS, say};
use super::services::Services;
use super::verdict;

/// Messages a second.
const RATE: u64 = 200;
/// Workers that stay; one more comes and goes.
const STAYING: usize = 2;
/// How often is looked.
const PACE: Duration = Duration::from_secs(2);
/// How long the one that comes stays, and stays away.
const TURN: Duration = Duration::from_secs(20);

/// By how much the median of the last fifth may be above that of the second: a tenth and 8 MiB of memory, which is what
/// an allocator keeps one way or the other, and a few connections.
const MEMORY_SHARE: f64 = 0.10;
const MEMORY_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
const DESCRIPTORS: f64 = 3.0;

/// What was seen of one worker.
#[derive(Default)]
struct Samples {
    memory: Vec<f64>,
    descriptors: Vec<f64>,
}

/// Loads workers for so long, and demands that their memory and descriptors stay and that nothing is left to read.
pub async fn soak(_services: Services, seed: u64, duration: Duration) {
    let folder = Folder::new("soak");
    let database = PostgresDatabase::create().await.expect("there is a server");
    verdict::watch_progress(&database).await;
    let topic = Topic::new(PARTITIONS).await;
    let proxy = Proxy::new(&database.options());
    let mut fleet = Fleet::new(&folder, &topic, &database, &proxy);
    let producer = Producer::start(&topic, seed, RATE, PARTITIONS);
    for _ in 0..STAYING {
        fleet.start();
    }
    let staying = fleet.ids();
    let (started, mut turned, mut told) = (Instant::now(), Instant::now(), Instant::now());
    let mut samples: Vec<Samples> = staying.iter().map(|_| Samples::default()).collect();
    let (mut guest, mut turns, mut largest_lag) = (None, 0, 0);
    while started.elapsed() < duration {
        std::thread::sleep(PACE);
        for ((_, id), samples) in staying.iter().zip(&mut samples) {
            samples.memory.push(memory(*id));
            samples.descriptors.push(descriptors(*id));
        }
        let lag = producer.sent() - taken(&database).await;
        largest_lag = largest_lag.max(lag);
        if turned.elapsed() >= TURN {
            turned = Instant::now();
            turns += 1;
            guest = match guest.take() {
                Some(worker) => {
                    fleet.stop(worker);
                    None
                }
                None => fleet.start(),
            };
        }
        if told.elapsed() >= Duration::from_secs(30) {
            told = Instant::now();
            let now: Vec<String> = samples.iter().map(Samples::now).collect();
            say(started, &format!("{} sent, lag {lag}; {}", producer.sent(), now.join("; ")));
        }
        fleet.tend();
        assert!(fleet.deaths.is_empty(), "a worker ended: {:?}", fleet.deaths);
    }
    let records = producer.finish();
    let over = Instant::now();
    settled(&database, records).await;
    assert_eq!(records - taken(&database).await, 0, "the lag at the end");
    let commits = verdict::moves(&database).await;
    fleet.stop_all();
    println!(
        "\n{records} messages in {:.0} s, {commits} moves of offsets, {turns} workers came or went; the lag was at most \
         {largest_lag}, and 0 {:.1} s after the last message\n",
        started.elapsed().as_secs_f64(),
        over.elapsed().as_secs_f64()
    );
    println!(
        "| worker | memory, second fifth | last fifth | largest | descriptors, second fifth | last fifth | largest |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for ((worker, _), samples) in staying.iter().zip(&samples) {
        let (memory, descriptors) = (Fifths::of(&samples.memory), Fifths::of(&samples.descriptors));
        let mib = |bytes: f64| format!("{:.1} MiB", bytes / 1024.0 / 1024.0);
        println!(
            "| {worker} | {} | {} | {} | {} | {} | {} |",
            mib(memory.second),
            mib(memory.last),
            mib(memory.largest),
            descriptors.second,
            descriptors.last,
            descriptors.largest
        );
        let bound = memory.second * (1.0 + MEMORY_SHARE) + MEMORY_BYTES;
        assert!(memory.last <= bound, "memory of worker {worker} grows: {} to {}", memory.second, memory.last);
        let bound = descriptors.second + DESCRIPTORS;
        assert!(descriptors.last <= bound, "worker {worker}: {} to {}", descriptors.second, descriptors.last);
    }
    topic.remove().await;
    database.remove().await;
}

impl Samples {
    fn now(&self) -> String {
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        format!("{:.1} MiB, {} descriptors", last(&self.memory) / 1024.0 / 1024.0, last(&self.descriptors))
    }
}

/// Medians of parts of a series.
struct Fifths {
    second: f64,
    last: f64,
    largest: f64,
}

impl Fifths {
    fn of(series: &[f64]) -> Fifths {
        let n = series.len();
        let median = |part: &[f64]| {
            let mut part = part.to_vec();
            part.sort_by(f64::total_cmp);
            part[part.len() / 2]
        };
        Fifths {
            second: median(&series[n / 5..(2 * n / 5).max(n / 5 + 1)]),
            last: median(&series[4 * n / 5..]),
            largest: series.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// Records that are committed.
async fn taken(database: &PostgresDatabase) -> i64 {
    database.count("select coalesce(sum(next_offset), 0)::text from partition_progress").await
}

/// Resident memory of a process, in bytes.
fn memory(id: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the worker runs, on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024.0
}

/// Open files, sockets and pipes of a process.
fn descriptors(id: u32) -> f64 {
    fs::read_dir(format!("/proc/{id}/fd")).expect("the worker runs").count() as f64
}
