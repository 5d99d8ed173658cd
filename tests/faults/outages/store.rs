//! Outages of PostgreSQL.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::deployment::{Deployment, environment};
use super::load::{Load, produce, produce_z};
use super::monitoring::Monitoring;
use crate::common::database::{Database, PostgresDatabase};
use crate::common::role::Role;
use crate::common::settling::{committed, settled};
use crate::common::skipped::skipped;
use crate::common::topic::Topic;
use crate::common::worker::TIMEOUT;
use crate::services::OwnServers;

/// How long a lock waits for a statement that is executed often.
const OFTEN: Duration = Duration::from_millis(300);
/// The same for one that comes after some seconds.
const SELDOM: Duration = Duration::from_secs(10);

pub async fn postgres_is_down(monitoring: Arc<Monitoring>, servers: Arc<OwnServers>) {
    let database = PostgresDatabase::empty_on(&servers.postgres_url).await;
    let deployment =
        Deployment::start_on(&monitoring, "shrinkd-postgres-down", &[], Topic::new(2).await, database).await;
    let _load = Load::start(&deployment.topic, 20);
    committed(&deployment.database, 20).await;
    let began = Instant::now();
    servers.down("postgres");
    deployment.fires(began, "ShrinkdNotReady").await;
    deployment.fires(began, "ShrinkdLagHigh").await;
    servers.up("postgres");
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdNotReady").await;
    deployment.clears(ended, "ShrinkdLagHigh").await;
    deployment.end(&["ShrinkdNotReady"]).await;
}

pub async fn the_disk_is_full(monitoring: Arc<Monitoring>) {
    let Some(disk) = SmallDisk::mount(&monitoring.folder.path("disk")) else {
        skipped("nobody but root can mount a small file system, to fill the database's disk");
        return;
    };
    let database = PostgresDatabase::empty().await.expect("there is a server");
    disk.take(&database).await;
    let deployment = Deployment::start_on(&monitoring, "shrinkd-disk-full", &[], Topic::new(2).await, database).await;
    let _load = Load::start(&deployment.topic, 20);
    committed(&deployment.database, 20).await;
    let began = Instant::now();
    disk.fill();
    deployment.fires(began, "ShrinkdNotReady").await;
    disk.clear();
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdNotReady").await;
    let options = deployment.database.options();
    deployment.end(&["ShrinkdNotReady"]).await;
    disk.give_back(&options).await;
}

pub async fn a_table_is_locked(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-table-locked", &[]).await;
    let _load = Load::start(&deployment.topic, 20);
    committed(&deployment.database, 20).await;
    let began = Instant::now();
    let lock = locked(&deployment.database, "blocks in access exclusive mode").await;
    // Statements of a worker wait 20 s for a lock, and fail then. This is not shortened with the rules, so that another alert
    // comes first.
    let page = if monitoring.is_shortened() { "ShrinkdBatchStuck" } else { "ShrinkdNotReady" };
    deployment.fires(began, page).await;
    deployment.fires(began, "ShrinkdLagHigh").await;
    drop(lock);
    let ended = Instant::now();
    deployment.clears(ended, page).await;
    deployment.clears(ended, "ShrinkdLagHigh").await;
    deployment.end(&[page]).await;
}

/// The database takes no fit any more, as if every figure of one were NaN. The worker goes on, and is ready.
pub async fn a_population_cannot_be_fitted(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-population-failed", &[]).await;
    produce(&deployment.topic, "before", 20, false);
    settled(&deployment.database, 20).await;
    let refuse = "alter table current_population_fits add constraint planted check (status <> 'fitted') not valid";
    deployment.database.execute(refuse).await;
    let began = Instant::now();
    produce(&deployment.topic, "after", 20, false);
    deployment.fires(began, "ShrinkdPopulationsFailed").await;
    deployment.database.execute("alter table current_population_fits drop constraint planted").await;
    let ended = Instant::now();
    produce(&deployment.topic, "then", 20, false);
    deployment.clears(ended, "ShrinkdPopulationsFailed").await;
    deployment.end(&[]).await;
}

/// Of 60 experiments only those with z above 1.96 are sent, and then the others.
pub async fn only_winners_arrive(monitoring: Arc<Monitoring>) {
    let settings = [("SHRINKD__DIAGNOSTICS__INTERVAL", "1s")];
    let deployment = Deployment::start(&monitoring, "shrinkd-only-winners", &settings).await;
    let began = Instant::now();
    produce_z(&deployment.topic, "winner", (0..60).map(|i| 1.96 - 0.6 * ((f64::from(i) + 0.5) / 60.0).ln()));
    deployment.fires(began, "ShrinkdSelectionSuspected").await;
    let ended = Instant::now();
    produce_z(&deployment.topic, "loser", (0..600).map(|i| -1.5 + 3.4 * (f64::from(i) + 0.5) / 600.0));
    deployment.clears(ended, "ShrinkdSelectionSuspected").await;
    deployment.end(&[]).await;
}

/// The server does not answer a statement of a batch, and does not fail either.
pub async fn a_batch_is_not_answered(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-batch-stuck", &[]).await;
    produce(&deployment.topic, "before", 20, false);
    // A publish would wait for the batch, and fail after 20 s.
    settled(&deployment.database, 20).await;
    let (database, topic) = (&deployment.database, &deployment.topic);
    let batch = async {
        tokio::time::sleep(OFTEN).await;
        produce(topic, "batch", 20, false);
        Instant::now()
    };
    let (frozen, began) = tokio::join!(freeze(database, "blocks in share mode", "ingest: ", SELDOM), batch);
    deployment.fires(began, "ShrinkdBatchStuck").await;
    drop(frozen);
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdBatchStuck").await;
    committed(&deployment.database, 40).await;
    deployment.end(&["ShrinkdBatchStuck"]).await;
}

/// The same with the claim of a partition, during which no records are read.
pub async fn a_claim_is_not_answered(monitoring: Arc<Monitoring>) {
    let database = PostgresDatabase::create().await.expect("there is a server");
    let deployment =
        Deployment::start_on(&monitoring, "shrinkd-ingest-stuck", &[], Topic::new(1).await, database).await;
    deployment.database.execute("update partition_progress set epoch = epoch + 1").await;
    produce(&deployment.topic, "fenced", 1, false);
    let since = Instant::now();
    while !deployment.worker.log().contains("fenced: another worker") {
        assert!(since.elapsed() < TIMEOUT, "the worker is not fenced:\n{}", deployment.worker.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let frozen = freeze(&deployment.database, "partition_progress in share mode", "claim: ", SELDOM).await;
    let began = Instant::now();
    produce(&deployment.topic, "waiting", 20, false);
    deployment.fires(began, "ShrinkdIngestStuck").await;
    drop(frozen);
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdIngestStuck").await;
    committed(&deployment.database, 21).await;
    deployment.end(&["ShrinkdIngestStuck"]).await;
}

/// The same with the query for populations to refit. Batches are committed meanwhile.
pub async fn a_refit_is_not_answered(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-refit-stuck", &[]).await;
    let load = Load::start(&deployment.topic, 20);
    // Long enough for refits to be scraped.
    committed(&deployment.database, 100).await;
    let began = Instant::now();
    let frozen = freeze(&deployment.database, "block_changes in access exclusive mode", "refit: waiting", OFTEN).await;
    deployment.fires(began, "ShrinkdRefitStuck").await;
    drop(frozen);
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdRefitStuck").await;
    drop(load);
    deployment.end(&["ShrinkdRefitStuck"]).await;
}

/// Every fourth attempt to commit a batch of a partition fails, as it would with conflicting writers: often enough for the alert,
/// and seldom enough that scrapes, which are few while durations are shortened, do not find the workers retrying each time.
pub async fn transactions_are_refused_time_and_again(monitoring: Arc<Monitoring>) {
    let deployment = Deployment::start(&monitoring, "shrinkd-retry-storm", &[]).await;
    let other = deployment.start_another(2).await;
    let load = Load::start(&deployment.topic, 50);
    let began = Instant::now();
    let refuse = "create sequence attempts_0; create sequence attempts_1;
         create function refuse() returns trigger language plpgsql as $$
         begin
             if nextval('attempts_' || new.partition_number) % 4 = 0 then raise serialization_failure; end if;
             return null;
         end $$;
         create trigger refuse after update of next_offset on partition_progress for each row execute function refuse()";
    deployment.database.execute(refuse).await;
    deployment.fires(began, "ShrinkdRetryStorm").await;
    deployment.database.execute("drop trigger refuse on partition_progress").await;
    let ended = Instant::now();
    deployment.clears(ended, "ShrinkdRetryStorm").await;
    drop(load);
    other.kill();
    deployment.end(&[]).await;
}

/// The worker is started with a wrong password, which is then made the right one.
pub async fn the_password_is_wrong(monitoring: Arc<Monitoring>) {
    let job = "shrinkd-wrong-password";
    let (topic, database) = (Topic::new(2).await, PostgresDatabase::create().await.expect("there is a server"));
    let role = Role::worker(&database).await;
    let environment = [environment(&topic, &database, &[]), vec![("SHRINKD__STORE__URL", role.url("wrong"))]].concat();
    let began = Instant::now();
    tokio::select! {
        () = monitoring.keep_running(job, &environment) => {}
        () = async {
            monitoring.fires(job, began, "ShrinkdNotReady").await;
            on_server(&database.options(), &format!("alter role {} password 'wrong'", role.name)).await;
            let ended = Instant::now();
            monitoring.clears(job, ended, "ShrinkdNotReady").await;
        } => {}
    }
    assert_eq!(monitoring.pages(job), ["ShrinkdNotReady"]);
    role.remove().await;
    topic.remove().await;
    database.remove().await;
}

/// Locks a table until the session is dropped.
async fn locked(database: &PostgresDatabase, table: &'static str) -> PgConnection {
    let mut session = PgConnection::connect_with(&database.options()).await.expect("the database answers");
    let statements = AssertSqlSafe(format!("begin; lock table {table}"));
    sqlx::raw_sql(statements).execute(&mut session).await.expect("the table is locked");
    session
}

/// Stops the server's process that executes a worker's next statement of this name. A lock makes the statement wait until then.
/// It is released after `patience`, and taken again, because another statement may be waiting for it.
async fn freeze(database: &PostgresDatabase, table: &'static str, statement: &str, patience: Duration) -> Frozen {
    let mut session = PgConnection::connect_with(&database.options()).await.expect("the database answers");
    let waiting = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                   and query like '/* ' || $1 || '%'";
    let since = Instant::now();
    while since.elapsed() < TIMEOUT {
        let (lock, locked_at) = (locked(database, table).await, Instant::now());
        while locked_at.elapsed() < patience {
            let pid =
                sqlx::query_scalar(waiting).bind(statement).fetch_optional(&mut session).await.expect("a process");
            if let Some(pid) = pid {
                signal("STOP", pid);
                return Frozen(pid);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(lock);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no statement {statement} waits for {table}");
}

/// A stopped process, which continues when this is dropped.
struct Frozen(i32);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("CONT", self.0);
    }
}

fn signal(signal: &str, pid: i32) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "the server's process {pid} is there");
}

/// Executes a statement outside a database, with the database's name for `{name}`.
async fn on_server(database: &PgConnectOptions, statement: &str) {
    let server = database.clone().database("postgres");
    let mut session = PgConnection::connect_with(&server).await.expect("the server answers");
    let statement = AssertSqlSafe(statement.replace("{name}", name(database)));
    sqlx::raw_sql(statement).execute(&mut session).await.expect("the statement runs");
}

fn name(database: &PgConnectOptions) -> &str {
    database.get_database().expect("it has a name")
}

/// A small file system in memory.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None` if this user is not allowed to mount it.
    fn mount(path: &Path) -> Option<SmallDisk> {
        fs::create_dir(path).expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(path);
        let is_mounted = command.output().is_ok_and(|output| output.status.success());
        is_mounted.then(|| SmallDisk { path: path.to_owned() })
    }

    /// Moves a database to it.
    async fn take(&self, database: &PostgresDatabase) {
        let folder = self.path.join("tablespace");
        fs::create_dir(&folder).expect("a folder");
        let data = database.texts("show data_directory").await.remove(0).expect("the server says where its data is");
        let owner = fs::metadata(data).expect("the server's folder");
        chown(&folder, Some(owner.uid()), Some(owner.gid())).expect("the folder is the server's");
        on_server(&database.options(), &format!("create tablespace {{name}}_disk location '{}'", folder.display()))
            .await;
        on_server(&database.options(), "alter database {name} set tablespace {name}_disk").await;
    }

    /// Fills it with a file.
    fn fill(&self) {
        let room = fs::File::create(self.path.join("ballast"))
            .and_then(|mut file| std::io::copy(&mut std::io::repeat(0), &mut file));
        assert_eq!(room.map_err(|error| error.kind()), Err(std::io::ErrorKind::StorageFull));
    }

    fn clear(&self) {
        fs::remove_file(self.path.join("ballast")).expect("it is there");
    }

    /// Unmounts it after the database was dropped. A failed test leaves it mounted: without its files the server would panic.
    async fn give_back(&self, database: &PgConnectOptions) {
        on_server(database, "drop tablespace {name}_disk").await;
        let status = Command::new("umount").arg(&self.path).status();
        assert!(status.is_ok_and(|status| status.success()), "{} is unmounted", self.path.display());
    }
}
