//! Opening a database: connections to it, and whether it has this build's schema.

use std::cmp::Ordering;
use std::io;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Pool, Row as _, Sqlite};

use super::StoreError;
use super::database::Pools;
use super::error::{cannot_connect, classify};
use crate::config::{self, StoreUrl};

/// The migrations of a database, from their files. `sqlx::migrate!` would list them by itself, but the crate of sqlx's macros
/// compiles both drivers, and SQLite, a second time.
macro_rules! migrations {
    ($database:literal) => {
        migrations!(
            $database: 1 => "initial", 2 => "operations", 3 => "tombstones", 4 => "names", 5 => "changes", 6 => "icc"
        )
    };
    ($database:literal: $($version:literal => $name:literal),*) => {
        LazyLock::new(|| Migrator::with_migrations(vec![$({
            let sql = include_str!(concat!("../../migrations/", $database, "/000", $version, "_", $name, ".sql"));
            Migration::new($version, $name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        }),*]))
    };
}

static POSTGRES: LazyLock<Migrator> = migrations!("postgres");
static SQLITE: LazyLock<Migrator> = migrations!("sqlite");

/// The table in which sqlx notes the migrations that were applied.
const MIGRATIONS: &str = "_sqlx_migrations";

/// How long connecting to PostgreSQL may take, with the check of its schema.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call may wait for a connection of PostgreSQL's pool. The pool tries again by itself meanwhile, and says nothing.
const POOL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call may wait for SQLite's connection that writes, or for another process that has the file locked.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// PostgreSQL ends a transaction whose worker is silent for so long: one that was stopped, or whose machine is gone, would
/// otherwise keep the rows of its partitions locked, and the next owner's claim waiting. And it gives up waiting for a lock
/// after a while: the statement is tried again, but until then the worker says what it waits for. In the middle of a COPY only a
/// connection that is gone ends the transaction.
const SESSION: &str = "set idle_in_transaction_session_timeout = '30s'; set lock_timeout = '20s';
                       set tcp_keepalives_idle = 15; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";

/// Memory for the pages that a batch changes: those that do not fit are written more than once.
const SQLITE_CACHE_KIB: u32 = 32 * 1024;

/// Pages (of 4 KiB) of the write-ahead log after which its contents move to the file, and reach the disk.
const SQLITE_LOG_PAGES: u32 = 8192;

/// Connections that only read.
const SQLITE_READERS: u32 = 4;

/// Connects, and checks the schema, within [`CONNECT_TIMEOUT`].
pub(super) async fn connect_postgres(url: &StoreUrl, connections: u32) -> Result<Pools, StoreError> {
    let options = postgres_options(url)?.application_name("shrinkd");
    let check = async {
        let mut connection = connect(url, &options).await?;
        refuse_shared_session(url, &options, &mut connection).await?;
        check_postgres_schema(&mut connection).await.map_err(|error| error.while_connecting(url))?;
        connection.close().await.map_err(|error| cannot_connect(url, error))
    };
    in_time(url, check).await?;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(POOL_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options);
    Ok(Pools::Postgres { pool, url: url.clone() })
}

/// One connection of its own: the pool would try again by itself for as long as a statement may wait for a connection, and say
/// nothing meanwhile.
async fn connect(url: &StoreUrl, options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    PgConnection::connect_with(options).await.map_err(|error| cannot_connect(url, error))
}

/// Why the pool gave no connection in time: it does not tell, so one is made without it. If that succeeds, all connections are in
/// use.
pub(super) async fn why_no_connection(url: &StoreUrl, pool: &PgPool) -> StoreError {
    match in_time(url, connect(url, &pool.connect_options())).await {
        Err(error) => error,
        Ok(connection) => {
            let _ = connection.close().await;
            classify("connect to PostgreSQL", sqlx::Error::PoolTimedOut)
        }
    }
}

/// Refuses a pooler that gives one session of the server to several clients in turns, as PgBouncer does with `pool_mode =
/// transaction`. Prepared statements, the settings of the session and the lock of a migration would be those of another client.
///
/// It shows in that a second connection is served by the process that serves the first, which is still open. A pooler does that
/// when the process is idle; one that has others idle as well may go unnoticed.
async fn refuse_shared_session(
    url: &StoreUrl,
    options: &PgConnectOptions,
    connection: &mut PgConnection,
) -> Result<(), StoreError> {
    // A server that has no room for a second connection says so again later.
    let Ok(mut other) = PgConnection::connect_with(options).await else { return Ok(()) };
    for _ in 0..2 {
        let failed = |error| cannot_connect(url, error);
        let first = process_id(connection).await.map_err(failed)?;
        sqlx::raw_sql("begin").execute(&mut other).await.map_err(failed)?;
        let second = process_id(&mut other).await.map_err(failed)?;
        sqlx::raw_sql("rollback").execute(&mut other).await.map_err(failed)?;
        if first == second {
            return Err(StoreError::Open { database: url.to_string(), message: SHARED_SESSION.to_owned() });
        }
    }
    other.close().await.map_err(|error| cannot_connect(url, error))
}

const SHARED_SESSION: &str = "a pooler gives each transaction another session, as PgBouncer does with pool_mode = transaction; \
                              connect to PostgreSQL directly, or set pool_mode = session for this database";

/// The server's process, asked for without a prepared statement.
async fn process_id(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

/// Ends an attempt to connect that takes too long.
pub(super) async fn in_time<T>(
    url: &StoreUrl,
    attempt: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
            Err(cannot_connect(url, sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))))
        }
    }
}

async fn check_postgres_schema(connection: &mut PgConnection) -> Result<(), StoreError> {
    let is_there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| classify("schema: find", error))?;
    check_schema(&POSTGRES, is_there, connection).await
}

pub(super) async fn migrate_postgres(url: &StoreUrl) -> Result<(), StoreError> {
    let options = postgres_options(url)?.application_name("shrinkd migrate");
    let connecting = async {
        let mut connection = connect(url, &options).await?;
        refuse_shared_session(url, &options, &mut connection).await?;
        Ok(connection)
    };
    let mut connection = in_time(url, connecting).await?;
    POSTGRES.run(&mut connection).await.map_err(|error| migration_error(&POSTGRES, error))
}

fn postgres_options(url: &StoreUrl) -> Result<PgConnectOptions, StoreError> {
    config::postgres_options(url.expose())
        // PgBouncer refuses the parameter, whose default has been precise since PostgreSQL 12.
        .map(|options| options.extra_float_digits(None))
        .map_err(|message| StoreError::Open { database: "of store.url".to_owned(), message })
}

/// Opens a database file; one that is missing or empty becomes a new database.
///
/// Commits are kept in a write-ahead log that reaches the disk every few thousand pages (`synchronous = normal`). When the
/// process dies nothing is lost. A power cut may take back the last commits, but never a part of one: offsets go back with
/// the effects that they cover, and the records are read again.
pub(super) async fn open_sqlite(path: &Path) -> Result<Pools, StoreError> {
    let failed = |error| cannot_open(path, &error);
    let mut connection = SqliteConnection::connect_with(&sqlite_options(path)).await.map_err(failed)?;
    let is_empty: bool = sqlx::query_scalar("select not exists (select 1 from sqlite_schema)")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if is_empty {
        SQLITE.run(&mut connection).await.map_err(|error| migration_error(&SQLITE, error))?;
    }
    let is_there: bool =
        sqlx::query_scalar("select exists (select 1 from sqlite_schema where name = '_sqlx_migrations')")
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
    check_schema(&SQLITE, is_there, &mut connection).await?;
    connection.close().await.map_err(failed)?;

    let pool = async |connections, options| -> Result<Pool<Sqlite>, StoreError> {
        let pool = SqlitePoolOptions::new().max_connections(connections);
        // Waiting for the one connection that writes is how writers take turns, and nothing to log. Only the process itself
        // can break a connection to a file: none is tried before it is used.
        let pool = pool.acquire_timeout(ACQUIRE_TIMEOUT).acquire_slow_threshold(ACQUIRE_TIMEOUT);
        pool.test_before_acquire(false).connect_with(options).await.map_err(failed)
    };
    let reading = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(ACQUIRE_TIMEOUT);
    Ok(Pools::Sqlite { writer: pool(1, sqlite_options(path)).await?, readers: pool(SQLITE_READERS, reading).await? })
}

pub(super) async fn migrate_sqlite(path: &Path) -> Result<(), StoreError> {
    let failed = |error| cannot_open(path, &error);
    let mut connection = SqliteConnection::connect_with(&sqlite_options(path)).await.map_err(failed)?;
    SQLITE.run(&mut connection).await.map_err(|error| migration_error(&SQLITE, error))?;
    connection.close().await.map_err(failed)
}

fn sqlite_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        // What a statement may have to take back goes to memory instead of a file: it is a page of rows at most.
        .pragma("temp_store", "memory")
        .pragma("cache_size", format!("-{SQLITE_CACHE_KIB}"))
        .pragma("wal_autocheckpoint", SQLITE_LOG_PAGES.to_string())
        .busy_timeout(ACQUIRE_TIMEOUT)
}

fn cannot_open(path: &Path, error: &sqlx::Error) -> StoreError {
    let message = match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        error => error.to_string(),
    };
    let message = format!("{message}; it must be a SQLite file in a folder that can be written to");
    StoreError::Open { database: path.display().to_string(), message }
}

/// Refuses a database whose migrations are not exactly this build's.
async fn check_schema<C: Migrate>(known: &Migrator, is_there: bool, connection: &mut C) -> Result<(), StoreError> {
    let applied = match is_there {
        true => connection.list_applied_migrations(MIGRATIONS).await.map_err(|error| migration_error(known, error))?,
        false => Vec::new(),
    };
    let newest = newest(known);
    let found = applied.iter().map(|migration| migration.version).max().unwrap_or(0);
    let schema = |advice| Err(StoreError::Schema { found, known: newest, advice });
    match found.cmp(&newest) {
        Ordering::Less => schema("run `shrinkd migrate`"),
        Ordering::Greater => schema(RUN_THE_NEWER_BUILD),
        Ordering::Equal => {
            let is_same = |migration: &AppliedMigration| {
                known.iter().any(|own| own.version == migration.version && own.checksum == migration.checksum)
            };
            match applied.iter().all(is_same) {
                true => Ok(()),
                false => schema("a migration was changed after it was applied: restore the database or the build"),
            }
        }
    }
}

const RUN_THE_NEWER_BUILD: &str = "it was migrated by a newer build: run that one";

fn newest(known: &Migrator) -> i64 {
    known.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn migration_error(known: &Migrator, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(found) => {
            StoreError::Schema { found, known: newest(known), advice: RUN_THE_NEWER_BUILD }
        }
        MigrateError::ExecuteMigration(error, version) => match classify("migrate", error) {
            StoreError::Permanent { statement, code, message } => {
                StoreError::Permanent { statement, code, message: format!("migration {version}: {message}") }
            }
            error => error,
        },
        MigrateError::Execute(error) => classify("migrate", error),
        error => StoreError::Permanent { statement: "migrate", code: None, message: error.to_string() },
    }
}
