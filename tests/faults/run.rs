//! One run: load, faults in the order of a plan, what each did, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rdkafka::admin::NewPartitions;
use shrinkd::simulate::Draws;

use super::common::database::{Database, PostgresDatabase};
use super::common::folder::Folder;
use super::common::settling::settled;
use super::common::topic::{Topic, options};
use super::fleet::{CAUGHT_UP, Effects, Fleet};
use super::plan::Fault;
use super::points::Mark;
use super::producer::Producer;
use super::proxy::Proxy;
use super::services::Services;
use super::verdict;

/// Partitions at first.
pub const PARTITIONS: i32 = 6;

/// After so long the group has given a stopped worker's partitions away.
const SESSION: Duration = Duration::from_secs(6);
/// How long a stopped worker is waited with for its partitions to be taken over.
const TAKEOVER: Duration = Duration::from_secs(20);
/// What is said of a fault that did not come about.
const MISSED: &str = "NOT REACHED";
/// How long a pass is held, while batches retract and replace what it has read.
const HELD: Duration = Duration::from_secs(3);
/// How long a point may take to be reached.
const REACH: Duration = Duration::from_secs(25);

pub struct Run {
    services: Services,
    topic: Topic,
    database: PostgresDatabase,
    proxy: Proxy,
    fleet: Fleet,
    producer: Producer,
    draws: Draws,
    started: Instant,
    partitions: i32,
    zombie: Option<Zombie>,
    /// Blocks that were replaced or retracted while a pass was held that had read them.
    changed_while_held: usize,
    /// By kind: how many there were, and what was seen until the next fault.
    tally: BTreeMap<String, (u64, Effects)>,
    // The last to go, because the logs in it are what a failure is understood by.
    folder: Folder,
}

/// A worker that is stopped.
struct Zombie {
    worker: usize,
    id: u32,
    since: Instant,
    /// Lets its batch go on.
    release: Option<Sender<()>>,
}

impl Run {
    /// Starts the load and one worker.
    pub async fn start(services: Services, name: &str, seed: u64, rate: u64) -> Run {
        let folder = Folder::new(name);
        let database = PostgresDatabase::create().await.expect("there is a server");
        verdict::watch_progress(&database).await;
        let topic = Topic::new(PARTITIONS).await;
        let proxy = Proxy::new(&database.options());
        let mut fleet = Fleet::new(&folder, &topic, &database, &proxy);
        let producer = Producer::start(&topic, seed, rate, PARTITIONS);
        fleet.start();
        let run = Run {
            services,
            topic,
            database,
            proxy,
            fleet,
            producer,
            draws: Draws::new(seed, 3),
            started: Instant::now(),
            partitions: PARTITIONS,
            zombie: None,
            changed_while_held: 0,
            tally: BTreeMap::new(),
            folder,
        };
        run.say(&format!("seed {seed}, {rate} messages a second, {PARTITIONS} partitions"));
        run
    }

    /// One fault after the other.
    pub async fn suffer(&mut self, plan: &[Fault]) {
        self.wait(Duration::from_secs(4)).await;
        self.fleet.effects();
        for (i, fault) in plan.iter().enumerate() {
            let kind = self.inflict(*fault).await;
            let effects = self.fleet.effects();
            let seen: Vec<String> = effects.iter().map(|(effect, n)| format!("{n} {effect}")).collect();
            self.say(&format!("{:>3}/{} {kind}: {}", i + 1, plan.len(), seen.join(", ")));
            let (count, sum) = self.tally.entry(kind).or_default();
            *count += 1;
            for (effect, n) in effects {
                *sum.entry(effect).or_default() += n;
            }
        }
        while self.zombie.is_some() {
            self.wait(Duration::from_millis(100)).await;
        }
    }

    /// Ends the load, waits until everything is taken in, and demands that nothing is to be seen of the faults.
    pub async fn judge(mut self) {
        let commits = verdict::moves(&self.database).await;
        let records = self.producer.finish();
        say(self.started, &format!("{records} messages sent, {commits} moves of offsets so far: waiting for the rest"));
        settled(&self.database, records).await;
        self.fleet.stop_all();
        say(self.started, "everything is taken in: once more without faults, to compare");
        let said = verdict::check(&self.folder, &self.topic, &self.database, records).await;
        say(self.started, &format!("equal: {}", said.join(", ")));
        report(&self.tally);
        let missed: u64 = self.tally.iter().filter(|(kind, _)| kind.starts_with(MISSED)).map(|(_, (n, _))| n).sum();
        let faults: u64 = self.tally.values().map(|(n, _)| n).sum();
        assert!(missed <= faults / 50, "{missed} of {faults} faults did not come about: what they test was not tested");
        let caught_up: u64 = self.tally.values().filter_map(|(_, effects)| effects.get(CAUGHT_UP)).sum();
        assert!(caught_up > 0, "no worker was ever so far behind that it left estimates to a pass");
        assert!(self.changed_while_held > 0, "nothing was replaced or retracted while a pass was held");
        let unforeseen: Vec<&String> = self.fleet.deaths.iter().filter(|death| !is_foreseen(death)).collect();
        self.fleet.deaths.iter().for_each(|death| say(self.started, death));
        assert!(unforeseen.is_empty(), "workers ended as they should not: {unforeseen:#?}");
        let Run { topic, database, .. } = self;
        topic.remove().await;
        database.remove().await;
    }

    async fn inflict(&mut self, fault: Fault) -> String {
        match fault {
            Fault::Cut(point) => {
                let shot = self.proxy.cut(point);
                if point.is_of_a_claim() {
                    self.replace_one();
                }
                let armed = Instant::now();
                let mut reached = false;
                let mut is_forced = false;
                while !reached && armed.elapsed() < REACH {
                    self.tend().await;
                    reached = shot.reached(Duration::from_millis(50)).is_some();
                    if point.is_of_a_publish() && !is_forced && armed.elapsed() > Duration::from_secs(1) {
                        is_forced = true;
                        self.force_passes().await;
                    }
                }
                self.proxy.disarm();
                let pause = self.draws.between(0.3, 1.2);
                self.wait(Duration::from_secs_f64(pause)).await;
                if reached { point.name().to_owned() } else { format!("{MISSED} {}", point.name()) }
            }
            Fault::HeldPass => {
                let (shot, release) = self.proxy.hold(None, Mark::Page);
                self.force_passes().await;
                let armed = Instant::now();
                let mut reached = false;
                while !reached && armed.elapsed() < REACH {
                    self.tend().await;
                    reached = shot.reached(Duration::from_millis(50)).is_some();
                }
                let before = self.blocks().await;
                self.wait(HELD).await;
                let after = self.blocks().await;
                self.changed_while_held += before.difference(&after).count();
                let _ = release.send(());
                self.proxy.disarm();
                let kind = "a pass held between reading a page and writing it";
                if reached { kind.to_owned() } else { format!("{MISSED} {kind}") }
            }
            Fault::Kill => {
                self.kill_one();
                let pause = self.draws.between(0.5, 4.0);
                self.wait(Duration::from_secs_f64(pause)).await;
                "kill -9 and restart".to_owned()
            }
            Fault::Zombie(None) => {
                self.freeze(None).await;
                let pause = self.draws.between(1.0, 9.0);
                self.wait(Duration::from_secs_f64(pause)).await;
                "SIGSTOP for longer than the session".to_owned()
            }
            Fault::Zombie(Some(mark)) => self.freeze_with_batch(mark).await,
            Fault::Postgres => {
                let signal = self.services.restart("postgres");
                self.wait(Duration::from_secs(2)).await;
                format!("PostgreSQL restarted, {}", if signal == "QUIT" { "as by a crash" } else { "in order" })
            }
            Fault::Kafka => {
                let signal = self.services.restart("kafka");
                self.wait(Duration::from_secs(4)).await;
                format!("Kafka restarted, {}", if signal == "KILL" { "kill -9" } else { "in order" })
            }
            Fault::Scale(size) => {
                let from = self.fleet.ids().len();
                self.scale(size).await;
                self.wait(Duration::from_secs(2)).await;
                format!("scaled {}", if size > from { "up" } else { "down" })
            }
            Fault::AddPartitions => {
                self.partitions += 1;
                let new = NewPartitions::new(&self.topic.name, self.partitions as usize);
                let made = self.topic.admin().create_partitions([&new], &options()).await.expect("the broker answers");
                made.into_iter().for_each(|result| drop(result.expect("there is one more")));
                self.producer.set_partitions(self.partitions);
                self.wait(Duration::from_secs(4)).await;
                "a partition added".to_owned()
            }
        }
    }

    fn kill_one(&mut self) {
        let awake = self.fleet.awake();
        if let Some(worker) = self.draws.pick(&awake) {
            self.fleet.kill(worker);
        }
    }

    /// As in a rolling restart: one is asked to end, and another one comes.
    fn replace_one(&mut self) {
        let awake = self.fleet.awake();
        if let Some(worker) = self.draws.pick(&awake) {
            self.fleet.stop(worker);
        }
        self.fleet.start();
    }

    async fn scale(&mut self, size: usize) {
        while self.fleet.ids().len() < size && self.fleet.start().is_some() {}
        while self.fleet.ids().len() > size.max(self.zombie.iter().len() + 1) {
            let awake = self.fleet.awake();
            let Some(worker) = self.draws.pick(&awake) else { return };
            self.fleet.stop(worker);
        }
    }

    /// Stops a worker in its tracks; it goes on later, while other faults happen.
    async fn freeze(&mut self, held: Option<(usize, Sender<()>)>) {
        while self.zombie.is_some() {
            self.wait(Duration::from_millis(100)).await;
        }
        let awake = self.fleet.awake();
        let worker = held.as_ref().map(|(worker, _)| *worker).or_else(|| self.draws.pick(&awake));
        let Some((worker, id)) = worker.and_then(|worker| Some((worker, self.fleet.freeze(worker)?))) else { return };
        self.zombie = Some(Zombie { worker, id, since: Instant::now(), release: held.map(|(_, release)| release) });
    }

    /// The blocks, each with the commit that changed it last.
    async fn blocks(&self) -> BTreeSet<String> {
        let blocks = "select experiment_id || ' ' || metric || ' ' || commit_id from blocks";
        self.database.texts(blocks).await.into_iter().flatten().collect()
    }

    async fn freeze_with_batch(&mut self, mark: Mark) -> String {
        while self.zombie.is_some() {
            self.wait(Duration::from_millis(100)).await;
        }
        // Somebody else has to take the partitions over.
        self.scale(self.fleet.ids().len().max(2)).await;
        let armed = Instant::now();
        while armed.elapsed() < REACH {
            let awake = self.fleet.awake();
            let Some(worker) = self.draws.pick(&awake) else { break };
            let (shot, release) = self.proxy.hold(Some(worker), mark);
            let reached = shot.reached(Duration::from_secs(2)).is_some();
            self.proxy.disarm();
            // Between the two it can have been reached all the same.
            if reached || shot.reached(Duration::ZERO).is_some() {
                self.freeze(Some((worker, release))).await;
                while self.zombie.is_some() {
                    self.wait(Duration::from_millis(100)).await;
                }
                self.wait(Duration::from_secs(2)).await;
                let place = if mark == Mark::IngestLock { "before" } else { "after" };
                return format!("SIGSTOP for longer than the session, with a batch in hand, {place} its fence");
            }
            self.tend().await;
        }
        format!("{MISSED} SIGSTOP with a batch in hand")
    }

    /// Has every population published again, as after a crash in the middle of that, by passes that also put rows in.
    async fn force_passes(&self) {
        self.database
            .execute(
                "update populations set publish_cursor = '', pass_owner = null, unpublished = unpublished + 1
                 where published_fit_id is not null and publish_cursor is null",
            )
            .await;
    }

    /// Waits, and does meanwhile what has to be done.
    async fn wait(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            self.tend().await;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Starts again what has ended by itself, and wakes a stopped worker when somebody else has its partitions.
    async fn tend(&mut self) {
        self.fleet.tend();
        let Some(zombie) = &self.zombie else { return };
        let stopped = zombie.since.elapsed();
        if stopped < SESSION || stopped < TAKEOVER && self.has_partitions(zombie.id).await {
            return;
        }
        if let Some(Zombie { worker, release, .. }) = self.zombie.take() {
            if let Some(release) = release {
                let _ = release.send(());
            }
            self.fleet.thaw(worker);
            self.say(&format!("        worker {worker} goes on after {:.1} s", stopped.as_secs_f64()));
        }
    }

    /// Whether the store still has a process for the owner of partitions.
    async fn has_partitions(&self, id: u32) -> bool {
        let owners = self.database.texts("select owner from partition_progress").await;
        owners.into_iter().flatten().any(|owner| owner.contains(&format!("/{id}/")))
    }

    fn say(&self, what: &str) {
        say(self.started, what);
    }
}

/// Written past the test harness, so that people can follow.
pub fn say(started: Instant, what: &str) {
    let _ = writeln!(std::io::stderr(), "[{:6.1} s] {what}", started.elapsed().as_secs_f64());
}

/// Whether a worker may end for this: what it waited for did not come back in the time that it gives it.
fn is_foreseen(death: &str) -> bool {
    ["cannot claim partitions", "cannot identify the topic"].iter().any(|reason| death.contains(reason))
}

/// What each kind of fault did, as a table in Markdown.
fn report(tally: &BTreeMap<String, (u64, Effects)>) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "\n| fault | times | seen from then until the next one |\n| --- | --- | --- |");
    let mut total = 0;
    for (kind, (count, effects)) in tally {
        let effects: Vec<String> = effects.iter().map(|(effect, n)| format!("{n} {effect}")).collect();
        let _ = writeln!(stdout, "| {kind} | {count} | {} |", effects.join(", "));
        total += count;
    }
    let _ = writeln!(stdout, "| all | {total} | |\n");
}
