//! PostgreSQL: the product's store. Rows travel as arrays, one statement for each table of a batch.

mod audit;
mod estimates;
mod fits;
mod ingest;
mod partitions;
mod publish;
mod rebuild;
mod refit;
mod replay;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use shrinkd_core::PopulationName;
use sqlx::migrate::{Migrate, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::{Advance, DuePass, Pass, RefitState, Skipped, Store, StoreError, StoreSettings};
use crate::row::replay::{RejectedMessage, RejectedRef, RejectedSelection};
use crate::row::{
    BlockToPublish, CellDiagnostics, CurrentFit, CurrentPopulation, EstimateRow, Halt, PartitionStatus,
    PassDiagnostics, PublishedEffect, Skip,
};
use crate::stream::{Claim, Topic};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Every ingest holds this advisory lock shared; whoever takes it alone has waited for all that were under way.
const INGEST_LOCK: i64 = i64::from_be_bytes(*b"shrinkd\0");

/// How long a call may wait for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// A transaction whose worker says nothing for so long is ended by the server. A worker that was stopped, or whose machine
/// is gone, would otherwise keep the rows of its partitions locked, and the next owner's claim waiting.
const IDLE_IN_TRANSACTION: &str = "set idle_in_transaction_session_timeout = '30s'";

/// A pool of connections to a database whose schema this build knows, and what it should be filled with.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    settings: Arc<StoreSettings>,
}

impl PostgresStore {
    /// Connects, and checks that the database has this build's schema and was filled with the same settings.
    ///
    /// # Errors
    /// Where the database cannot be reached, or is not for this build.
    pub async fn connect(
        options: PgConnectOptions,
        connections: u32,
        settings: &StoreSettings,
    ) -> Result<Self, StoreError> {
        let store = PostgresStore::connect_to_rebuild(options, connections, settings).await?;
        store.check_settings().await?;
        Ok(store)
    }

    /// The same, whatever settings the database was filled with.
    ///
    /// # Errors
    /// As for [`PostgresStore::connect`].
    pub async fn connect_to_rebuild(
        options: PgConnectOptions,
        connections: u32,
        settings: &StoreSettings,
    ) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { sqlx::raw_sql(IDLE_IN_TRANSACTION).execute(connection).await.map(drop) })
            })
            .connect_with(options.application_name("shrinkd"))
            .await
            .map_err(|error| classify("cannot connect to PostgreSQL", error))?;
        let store = PostgresStore { pool, settings: Arc::new(settings.clone()) };
        store.check_schema().await?;
        Ok(store)
    }

    /// Brings the schema of a database up to this build's.
    ///
    /// # Errors
    /// Where the database cannot be reached, has a newer schema, or a migration fails.
    pub async fn migrate(options: PgConnectOptions) -> Result<(), StoreError> {
        let mut connection = PgConnection::connect_with(&options.application_name("shrinkd migrate"))
            .await
            .map_err(|error| classify("cannot connect to PostgreSQL", error))?;
        MIGRATIONS.run(&mut connection).await.map_err(|error| super::schema::migration_error(&MIGRATIONS, error))
    }

    /// The pool, for tests and tools that look at the tables.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let failed = |error| classify("cannot read the schema version", error);
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let is_there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        let applied = match is_there {
            true => connection
                .list_applied_migrations("_sqlx_migrations")
                .await
                .map_err(|error| super::schema::migration_error(&MIGRATIONS, error))?,
            false => Vec::new(),
        };
        super::schema::check_schema(&MIGRATIONS, &applied)
    }

    /// Checks that the database is filled with the store's settings; one that nobody has filled takes them on. Whoever only
    /// reads finds what a worker has put in: then nothing is written.
    pub(super) async fn check_settings(&self) -> Result<(), StoreError> {
        let connection = self.pool.acquire().await;
        let mut connection = connection.map_err(|error| classify("cannot read store_settings", error))?;
        if settings::read(&mut connection).await?.is_none() {
            settings::put_in(&mut connection, &self.settings).await?;
        }
        settings::check(&mut connection, &self.settings).await
    }

    async fn begin(&self) -> Result<Transaction, StoreError> {
        self.pool.begin().await.map_err(|error| classify("cannot begin a transaction", error))
    }

    /// A transaction that sees one moment, from its first statement on: cells and their counters have to agree.
    async fn begin_snapshot(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("set transaction isolation level repeatable read")
            .execute(&mut *transaction)
            .await
            .map_err(|error| classify("cannot begin a transaction", error))?;
        Ok(transaction)
    }
}

/// Who else may be at a batch meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    Others,
    Alone,
}

type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

impl Store for PostgresStore {
    type Ingest = ingest::PostgresIngest;
    type Refit = refit::PostgresRefit;
    type Audit = audit::PostgresAudit;
    type Rebuild = ingest::PostgresIngest;

    async fn claim(&self, topic: &Topic, partitions: &[i32], owner: &str) -> Result<Vec<Claim>, StoreError> {
        partitions::claim(self.begin().await?, topic, partitions, owner).await
    }

    async fn begin_ingest(&self, advances: &[Advance]) -> Result<Self::Ingest, StoreError> {
        ingest::PostgresIngest::begin(self.begin().await?, advances, Company::Others, &self.settings).await
    }

    async fn begin_replay(&self, advance: &Advance) -> Result<Self::Ingest, StoreError> {
        ingest::PostgresIngest::begin(
            self.begin().await?,
            std::slice::from_ref(advance),
            Company::Alone,
            &self.settings,
        )
        .await
    }

    async fn rejected_rows(&self, selection: &RejectedSelection) -> Result<Vec<RejectedRef>, StoreError> {
        replay::rejected_rows(&self.pool, selection).await
    }

    async fn rejected_messages(&self, rows: &[RejectedRef]) -> Result<Vec<RejectedMessage>, StoreError> {
        replay::rejected_messages(&self.pool, rows).await
    }

    async fn is_committed(&self, advances: &[Advance]) -> Result<bool, StoreError> {
        partitions::is_committed(&self.pool, advances).await
    }

    async fn halt(&self, halt: &Halt) -> Result<(), StoreError> {
        partitions::halt(&self.pool, halt).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, StoreError> {
        partitions::all(&self.pool).await
    }

    async fn resume(&self, partition_id: i64) -> Result<bool, StoreError> {
        partitions::resume(&self.pool, partition_id).await
    }

    async fn skip(&self, skip: &Skip) -> Result<Option<Skipped>, StoreError> {
        partitions::skip(self.begin().await?, skip).await
    }

    async fn populations_with_news(&self) -> Result<Vec<PopulationName>, StoreError> {
        refit::populations_with_news(&self.pool).await
    }

    async fn ask_for_refits(&self, populations: &[PopulationName]) -> Result<(), StoreError> {
        refit::ask_for(&self.pool, populations).await
    }

    async fn begin_refit(&self, population: &PopulationName) -> Result<Option<Self::Refit>, StoreError> {
        refit::PostgresRefit::begin(self.begin_snapshot().await?, population, &self.settings).await
    }

    async fn population_state(&self, population: &PopulationName) -> Result<RefitState, StoreError> {
        refit::read_state(&mut self.begin_snapshot().await?, population).await
    }

    async fn due_passes(&self, diagnosed_before: OffsetDateTime, owner: &str) -> Result<Vec<DuePass>, StoreError> {
        publish::due_passes(&self.pool, diagnosed_before, owner).await
    }

    async fn begin_pass(&self, population: &PopulationName, owner: &str) -> Result<Option<Pass>, StoreError> {
        publish::begin_pass(self, population, owner).await
    }

    async fn blocks_after(
        &self,
        population: &PopulationName,
        after: &str,
        limit: usize,
    ) -> Result<Vec<BlockToPublish>, StoreError> {
        publish::blocks_after(&self.pool, population, after, limit).await
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
        publish::current_populations(&self.pool).await
    }

    async fn current_fits(&self, population: &PopulationName) -> Result<Vec<CurrentFit>, StoreError> {
        publish::current_fits(&self.pool, population).await
    }

    async fn published_effects(&self, population: &PopulationName) -> Result<Vec<PublishedEffect>, StoreError> {
        publish::published_effects(&self.pool, population).await
    }

    async fn begin_audit(&self) -> Result<Self::Audit, StoreError> {
        let mut transaction = self.begin_snapshot().await?;
        sqlx::query("set transaction read only")
            .execute(&mut *transaction)
            .await
            .map_err(|error| classify("cannot begin a transaction", error))?;
        Ok(audit::PostgresAudit::new(transaction))
    }

    async fn begin_rebuild(&self) -> Result<(Self::Rebuild, Option<StoreSettings>), StoreError> {
        rebuild::begin(self.begin().await?, &self.settings).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1")
            .execute(&self.pool)
            .await
            .map_err(|error| classify("the store does not answer", error))?;
        Ok(())
    }
}

/// Reads `postgres://...`. The message of a url that cannot be read does not repeat it: it can hold a password.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    url.parse().map_err(|error: sqlx::Error| StoreError::Permanent {
        context: "cannot read store.url",
        code: None,
        message: error.to_string(),
    })
}

/// One column of many rows, for `unnest`.
fn column<'a, T, U>(rows: &'a [T], value: impl FnMut(&'a T) -> U) -> Vec<U> {
    rows.iter().map(value).collect()
}

/// Sorts an error by its SQLSTATE into what is worth another try and what is not.
fn classify(context: &'static str, error: sqlx::Error) -> StoreError {
    let (code, is_transient) = match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().map(|code| code.into_owned());
            let is_transient = code.as_deref().is_some_and(is_transient);
            (code, is_transient)
        }
        // A connection that dies in the middle of an answer leaves half a message.
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_) => (None, true),
        _ => (None, false),
    };
    let message = error.to_string();
    match is_transient {
        true => StoreError::Transient { context, code, message },
        false => StoreError::Permanent { context, code, message },
    }
}

/// Serialisation failures and deadlocks, lost connections, a server without room or about to stop, a transaction that was
/// idle for too long (25P03), and two workers that put in the same new experiment at once (23505).
fn is_transient(code: &str) -> bool {
    matches!(code, "25P03" | "40001" | "40P01" | "57P01" | "57P02" | "57P03" | "23505" | "55P03")
        || code.starts_with("08")
        || code.starts_with("53")
}
