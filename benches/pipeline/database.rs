//! Databases on the PostgreSQL server, and the queries that measure a running worker.

use std::str::FromStr;
use std::time::{Duration, Instant};

use shrinkd::config::{StoreConfig, StoreUrl};
use shrinkd::store::Store;
use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, FromRow, PgConnection};
use tokio::runtime::Runtime;

use crate::{Outcome, report};

/// A PostgreSQL server on which databases may be created.
pub struct Server {
    options: PgConnectOptions,
}

/// A database, which is dropped with this value.
pub struct Database {
    pub options: PgConnectOptions,
    admin: PgConnectOptions,
    name: String,
    runtime: Runtime,
    /// `None` once it is being dropped.
    connection: Option<PgConnection>,
}

impl Server {
    pub fn new(url: &str) -> Outcome<Server> {
        Ok(Server { options: PgConnectOptions::from_str(url)?.ssl_mode(PgSslMode::Disable) })
    }

    /// A new database with the schema of this build.
    pub fn database(&self) -> Outcome<Database> {
        let name = report::unique("database");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = self.options.clone().database(&name);
        let connection = runtime.block_on(async {
            let mut admin = PgConnection::connect_with(&self.options).await?;
            sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await?;
            let url = StoreUrl::Postgres(options.to_url_lossy().to_string());
            Store::migrate(&StoreConfig { url, connections: 1 }).await?;
            // Otherwise the measurement would include the writes of earlier parts.
            sqlx::query("checkpoint").execute(&mut admin).await?;
            Outcome::Ok(PgConnection::connect_with(&options.clone().application_name("bench")).await?)
        })?;
        Ok(Database { admin: self.options.clone(), options, name, runtime, connection: Some(connection) })
    }
}

impl Database {
    /// The URL for a worker.
    pub fn url(&self) -> String {
        self.options.to_url_lossy().to_string()
    }

    /// A statement without rows.
    pub fn execute(&mut self, sql: &'static str) -> Outcome<()> {
        let connection = self.connection.as_mut().ok_or("the database is being dropped")?;
        self.runtime.block_on(sqlx::query(sql).execute(connection))?;
        Ok(())
    }

    pub fn rows<T>(&mut self, sql: &str) -> Outcome<Vec<T>>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let connection = self.connection.as_mut().ok_or("the database is being dropped")?;
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(self.runtime.block_on(sqlx::query_as(sql).fetch_all(connection))?)
    }

    /// The first row, which has one column.
    pub fn value<T>(&mut self, sql: &str) -> Outcome<T>
    where
        (T,): for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let rows: Vec<(T,)> = self.rows(sql)?;
        rows.into_iter().next().map(|row| row.0).ok_or_else(|| format!("no row of {sql}").into())
    }

    /// Whether a worker has claimed partitions.
    pub fn is_claimed(&mut self) -> Outcome<bool> {
        self.value("select exists (select from partition_progress)")
    }

    /// How many records are committed, over all partitions.
    pub fn committed(&mut self) -> Outcome<usize> {
        let sql = "select coalesce(sum(next_offset), 0)::bigint from partition_progress";
        Ok(self.value::<i64>(sql)? as usize)
    }

    /// Whether every population is fitted to the last change, and none waits for a pass.
    pub fn is_published(&mut self) -> Outcome<bool> {
        self.value(
            "select not exists (select from populations
                                where publish_cursor is not null or pass_owner is not null or refit_due_at is not null)
                and not exists (select from block_changes)",
        )
    }

    /// Polls until the condition holds, and returns how long that took.
    pub fn wait(
        &mut self,
        pause: Duration,
        patience: Duration,
        mut is_so: impl FnMut(&mut Database) -> Outcome<bool>,
    ) -> Outcome<Duration> {
        let started = Instant::now();
        while !is_so(self)? {
            if started.elapsed() > patience {
                return Err(format!("still waiting after {}", report::seconds(patience)).into());
            }
            std::thread::sleep(pause);
        }
        Ok(started.elapsed())
    }

    /// The kind and process id of each process of the server.
    pub fn server_processes(&mut self) -> Outcome<Vec<(String, i32)>> {
        self.rows(
            "select case when application_name = 'shrinkd' then 'backends of the worker' else backend_type end, pid
             from pg_stat_activity
             where application_name = 'shrinkd' and datname = current_database()
                or backend_type in ('walwriter', 'checkpointer', 'background writer')",
        )
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let connection = self.connection.take();
        // A database that is not dropped does no harm, because the server is temporary.
        let _ = self.runtime.block_on(async {
            if let Some(connection) = connection {
                connection.close().await?;
            }
            let mut admin = PgConnection::connect_with(&self.admin).await?;
            let drop = format!("drop database {} with (force)", self.name);
            sqlx::query(AssertSqlSafe(drop)).execute(&mut admin).await
        });
    }
}
