//! SQLite: the embedded store, one file and no server. One process owns the file; what others do meanwhile is read.
//!
//! There is one connection that writes, and its transactions take the write lock as they begin (`begin immediate`): they
//! come one after another, each sees all that came before, and no other lock is needed. Reading goes on beside them. Whoever
//! has such a transaction open must end it before asking for the next one, which waits for it.

mod audit;
mod estimates;
mod fits;
mod ingest;
mod partitions;
mod publish;
mod rebuild;
mod refit;
mod replay;
mod rows;
mod settings;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shrinkd_core::PopulationName;
use sqlx::migrate::{Migrate, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection};
use time::{OffsetDateTime, UtcOffset};

use super::{Advance, DuePass, Pass, RefitState, Skipped, Store, StoreError, StoreSettings};
use crate::row::replay::{RejectedMessage, RejectedRef, RejectedSelection};
use crate::row::{
    BlockToPublish, CellDiagnostics, CurrentFit, CurrentPopulation, EstimateRow, Halt, PartitionStatus,
    PassDiagnostics, PublishedEffect, Skip,
};
use crate::stream::{Claim, Topic};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a call may wait for a connection, or for another process that has the file locked.
const PATIENCE: Duration = Duration::from_secs(30);

/// Memory for the pages that a batch changes: those that do not fit are written more than once.
const CACHE_KIB: u32 = 32 * 1024;

/// Pages (of 4 KiB) of the write-ahead log after which its contents move to the file, and reach the disk.
const LOG_PAGES: u32 = 8192;

/// Connections that only read: for the passes and for whoever looks on.
const READERS: u32 = 4;

/// An open database file, and what it should be filled with.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    settings: Arc<StoreSettings>,
}

impl SqliteStore {
    /// Opens a database file, and checks that it has this build's schema and was filled with the same settings. A file that
    /// is missing or empty becomes a new database.
    ///
    /// Commits are kept in a write-ahead log that reaches the disk every few thousand pages (`synchronous = normal`). When the
    /// process dies nothing is lost. A power cut may take back the last commits, but never a part of one: offsets go back
    /// with the effects that they cover, and the records are read again.
    ///
    /// # Errors
    /// Where the file cannot be opened, or is not for this build.
    pub async fn open(path: &Path, settings: &StoreSettings) -> Result<SqliteStore, StoreError> {
        let store = SqliteStore::open_to_rebuild(path, settings).await?;
        store.check_settings().await?;
        Ok(store)
    }

    /// The same, whatever settings the database was filled with.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`].
    pub async fn open_to_rebuild(path: &Path, settings: &StoreSettings) -> Result<SqliteStore, StoreError> {
        let mut connection = connect(path).await?;
        if is_empty(&mut connection).await? {
            migrate(&mut connection).await?;
        }
        check_schema(&mut connection).await?;
        connection.close().await.map_err(|error| cannot_open(path, &error))?;
        // Nothing but the process itself can break a connection to a file: none is tried before it is used.
        let pool = |connections| {
            let pool = SqlitePoolOptions::new().max_connections(connections);
            // Waiting for the one connection that writes is how writers take turns, and no news.
            pool.acquire_timeout(PATIENCE).acquire_slow_threshold(PATIENCE).test_before_acquire(false)
        };
        let writer = pool(1).connect_with(options(path)).await.map_err(|error| cannot_open(path, &error))?;
        let reading = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(PATIENCE);
        let readers = pool(READERS).connect_with(reading).await.map_err(|error| cannot_open(path, &error))?;
        Ok(SqliteStore { writer, readers, settings: Arc::new(settings.clone()) })
    }

    /// Brings the schema of a database up to this build's.
    ///
    /// # Errors
    /// Where the file cannot be opened, has a newer schema, or a migration fails.
    pub async fn migrate(path: &Path) -> Result<(), StoreError> {
        let mut connection = connect(path).await?;
        migrate(&mut connection).await?;
        connection.close().await.map_err(|error| cannot_open(path, &error))
    }

    /// Closes the file, so that everything is in it and its write-ahead log is gone. Whoever keeps a clone of the store open
    /// is waited for.
    pub async fn close(self) {
        // A connection that only reads cannot put the log away: one that writes goes last.
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The connections that read, for tests and tools that look at the tables.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Checks that the database is filled with the store's settings; one that nobody has filled takes them on. Whoever only
    /// reads finds what a worker has put in: then nothing is written.
    pub(super) async fn check_settings(&self) -> Result<(), StoreError> {
        let failed = |error| classify("cannot read store_settings", error);
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        if settings::read(&mut reader).await?.is_none() {
            let mut writer = self.writer.acquire().await.map_err(failed)?;
            settings::put_in(&mut writer, &self.settings).await?;
        }
        settings::check(&mut reader, &self.settings).await
    }

    /// A transaction that holds the write lock from its first moment, so that it cannot fail for it later on.
    async fn begin(&self) -> Result<Transaction, StoreError> {
        let begun = self.writer.begin_with("begin immediate").await;
        begun.map_err(|error| classify("cannot begin a transaction", error))
    }
}

type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;

impl Store for SqliteStore {
    type Ingest = ingest::SqliteIngest;
    type Refit = refit::SqliteRefit;
    type Audit = audit::SqliteAudit;
    type Rebuild = ingest::SqliteIngest;

    async fn claim(&self, topic: &Topic, partitions: &[i32], owner: &str) -> Result<Vec<Claim>, StoreError> {
        partitions::claim(self.begin().await?, topic, partitions, owner).await
    }

    async fn begin_ingest(&self, advances: &[Advance]) -> Result<Self::Ingest, StoreError> {
        ingest::SqliteIngest::begin(self.begin().await?, advances, &self.settings).await
    }

    async fn begin_replay(&self, advance: &Advance) -> Result<Self::Ingest, StoreError> {
        // The one connection that writes has no other transaction.
        self.begin_ingest(std::slice::from_ref(advance)).await
    }

    async fn rejected_rows(&self, selection: &RejectedSelection) -> Result<Vec<RejectedRef>, StoreError> {
        replay::rejected_rows(&self.readers, selection).await
    }

    async fn rejected_messages(&self, rows: &[RejectedRef]) -> Result<Vec<RejectedMessage>, StoreError> {
        replay::rejected_messages(&self.readers, rows).await
    }

    async fn is_committed(&self, advances: &[Advance]) -> Result<bool, StoreError> {
        partitions::is_committed(&self.readers, advances).await
    }

    async fn halt(&self, halt: &Halt) -> Result<(), StoreError> {
        partitions::halt(&self.writer, halt).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, StoreError> {
        partitions::all(&self.readers).await
    }

    async fn resume(&self, partition_id: i64) -> Result<bool, StoreError> {
        partitions::resume(&self.writer, partition_id).await
    }

    async fn skip(&self, skip: &Skip) -> Result<Option<Skipped>, StoreError> {
        partitions::skip(self.begin().await?, skip).await
    }

    async fn populations_with_news(&self) -> Result<Vec<PopulationName>, StoreError> {
        refit::populations_with_news(&self.readers).await
    }

    async fn ask_for_refits(&self, populations: &[PopulationName]) -> Result<(), StoreError> {
        refit::ask_for(self.begin().await?, populations).await
    }

    async fn begin_refit(&self, population: &PopulationName) -> Result<Option<Self::Refit>, StoreError> {
        refit::SqliteRefit::begin(self.begin().await?, population, &self.settings).await
    }

    async fn population_state(&self, population: &PopulationName) -> Result<RefitState, StoreError> {
        let snapshot = self.readers.begin().await;
        refit::read_state(&mut snapshot.map_err(|error| classify("cannot begin to read", error))?, population).await
    }

    async fn due_passes(&self, diagnosed_before: OffsetDateTime, owner: &str) -> Result<Vec<DuePass>, StoreError> {
        publish::due_passes(&self.readers, diagnosed_before, owner).await
    }

    async fn begin_pass(&self, population: &PopulationName, owner: &str) -> Result<Option<Pass>, StoreError> {
        publish::begin_pass(self.begin().await?, population, owner, &self.settings).await
    }

    async fn blocks_after(
        &self,
        population: &PopulationName,
        after: &str,
        limit: usize,
    ) -> Result<Vec<BlockToPublish>, StoreError> {
        publish::blocks_after(&self.readers, population, after, limit).await
    }

    async fn write_estimates(
        &self,
        pass: &Pass,
        rows: &[EstimateRow],
        commits: &[i64],
        cursor: &str,
    ) -> Result<Option<u64>, StoreError> {
        publish::write_estimates(self.begin().await?, pass, rows, commits, cursor).await
    }

    async fn end_pass(
        &self,
        pass: &Pass,
        diagnostics: Option<&(CellDiagnostics, PassDiagnostics)>,
    ) -> Result<(), StoreError> {
        publish::end_pass(self.begin().await?, pass, diagnostics).await
    }

    async fn current_populations(&self) -> Result<Vec<CurrentPopulation>, StoreError> {
        publish::current_populations(&self.readers).await
    }

    async fn current_fits(&self, population: &PopulationName) -> Result<Vec<CurrentFit>, StoreError> {
        publish::current_fits(&self.readers, population).await
    }

    async fn published_effects(&self, population: &PopulationName) -> Result<Vec<PublishedEffect>, StoreError> {
        publish::published_effects(&self.readers, population).await
    }

    async fn begin_audit(&self) -> Result<Self::Audit, StoreError> {
        let transaction = self.readers.begin().await;
        Ok(audit::SqliteAudit::new(transaction.map_err(|error| classify("cannot begin to read", error))?))
    }

    async fn begin_rebuild(&self) -> Result<(Self::Rebuild, Option<StoreSettings>), StoreError> {
        rebuild::begin(self.begin().await?, &self.settings).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1 from store_settings")
            .execute(&self.readers)
            .await
            .map_err(|error| classify("the store does not answer", error))?;
        Ok(())
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        // What a statement may have to take back goes to memory instead of a file: it is a page of rows at most.
        .pragma("temp_store", "memory")
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .pragma("wal_autocheckpoint", LOG_PAGES.to_string())
        .busy_timeout(PATIENCE)
}

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    SqliteConnection::connect_with(&options(path)).await.map_err(|error| cannot_open(path, &error))
}

async fn is_empty(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("select not exists (select 1 from sqlite_schema)")
        .fetch_one(connection)
        .await
        .map_err(|error| classify("cannot read the schema", error))
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    MIGRATIONS.run(connection).await.map_err(|error| super::schema::migration_error(&MIGRATIONS, error))
}

async fn check_schema(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let is_there: bool =
        sqlx::query_scalar("select exists (select 1 from sqlite_schema where name = '_sqlx_migrations')")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| classify("cannot read the schema version", error))?;
    let applied = match is_there {
        true => connection
            .list_applied_migrations("_sqlx_migrations")
            .await
            .map_err(|error| super::schema::migration_error(&MIGRATIONS, error))?,
        false => Vec::new(),
    };
    super::schema::check_schema(&MIGRATIONS, &applied)
}

fn cannot_open(path: &Path, error: &sqlx::Error) -> StoreError {
    let message = format!("{}: {error}; it must be a SQLite file in a folder that can be written to", path.display());
    StoreError::Permanent { context: "cannot open the database file", code: None, message }
}

/// The one form that timestamps have in the tables.
fn timestamp(time: OffsetDateTime) -> String {
    // Only times whose year has four digits in UTC come this far.
    let utc = time.checked_to_offset(UtcOffset::UTC).unwrap_or(time);
    let (year, month, day) = utc.to_calendar_date();
    let (hour, minute, second, microsecond) = utc.to_hms_micro();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{microsecond:06}Z", u8::from(month))
}

fn now() -> String {
    timestamp(OffsetDateTime::now_utc())
}

/// Text as a JSON array, for `json_each`.
fn json_array<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts = texts.into_iter().map(|text| serde_json::Value::from(text.as_ref()));
    serde_json::Value::Array(texts.collect()).to_string()
}

/// Sorts an error by its result code into what is worth another try and what is not. The message names the code.
fn classify(context: &'static str, error: sqlx::Error) -> StoreError {
    let is_transient = match &error {
        // An extended code carries its kind in the lowest byte.
        sqlx::Error::Database(database) => {
            database.code().and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| is_transient(code & 0xff))
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        _ => false,
    };
    let message = error.to_string();
    match is_transient {
        true => StoreError::Transient { context, code: None, message },
        false => StoreError::Permanent { context, code: None, message },
    }
}

/// Another process at the file (SQLITE_BUSY, SQLITE_LOCKED), a disk that does not answer (SQLITE_IOERR) or is full
/// (SQLITE_FULL).
fn is_transient(code: i32) -> bool {
    matches!(code, 5 | 6 | 10 | 13)
}
