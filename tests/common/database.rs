//! Fresh databases for tests: a SQLite file of its own for each, and a PostgreSQL database of its own where a server is
//! named.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use shrinkd::config::{StoreConfig, StoreUrl};
use shrinkd::row::StoreSettings;
use shrinkd::store::{Store, StoreError};
use shrinkd_core::Grouping;
use shrinkd_model::ARITHMETIC_VERSION;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::sync::OnceCell;

use super::skipped::skipped;

/// What tests fill their databases with.
pub fn settings() -> StoreSettings {
    StoreSettings { arithmetic_version: ARITHMETIC_VERSION, grouping: Grouping::default() }
}

/// A database of one test's own.
pub trait Database: Sized {
    /// A new one, with this build's schema; `None` where there is no server.
    async fn create() -> Option<Self>;

    /// What a worker is told.
    fn url(&self) -> String;

    /// The same, parsed.
    fn config(&self) -> StoreConfig;

    /// Opens it as a worker does.
    async fn open(&self, settings: &StoreSettings) -> Result<Store, StoreError> {
        Store::connect(&self.config(), settings).await
    }

    /// Opens it as a rebuild does, whatever it was filled with.
    async fn open_to_rebuild(&self, settings: &StoreSettings) -> Store {
        Store::connect_to_rebuild(&self.config(), settings).await.expect("the database opens")
    }

    /// Executes statements beside the store.
    async fn execute(&self, statements: &'static str);

    /// A column of text, read beside the store.
    async fn texts(&self, query: &'static str) -> Vec<Option<String>>;

    /// Columns of numbers, read beside the store.
    async fn numbers(&self, query: &'static str) -> Vec<Vec<Option<f64>>>;

    /// A column of bytes, read beside the store.
    async fn bytes(&self, query: &'static str) -> Vec<Option<Vec<u8>>>;

    /// Removes it, though stores may have it open.
    async fn remove(self);

    /// Opens it with the settings of tests.
    async fn store(&self) -> Store {
        self.open(&settings()).await.expect("the database opens")
    }

    /// One count.
    async fn count(&self, query: &'static str) -> i64 {
        let text = self.texts(query).await.remove(0).expect("a count");
        text.parse().expect("a number")
    }
}

/// A name that no other test has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_nanos();
    format!("shrinkd_test_{}_{}_{since}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A SQLite file in a folder of its own.
pub struct SqliteDatabase {
    folder: PathBuf,
}

impl SqliteDatabase {
    /// A folder without a file.
    pub fn absent() -> SqliteDatabase {
        let folder = std::env::temp_dir().join(name());
        std::fs::create_dir(&folder).expect("a folder for the test");
        SqliteDatabase { folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join("shrinkd.db")
    }

    async fn connect(path: &Path) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(path);
        SqliteConnection::connect_with(&options).await.expect("the file opens")
    }
}

static SQLITE_TEMPLATE: OnceCell<Vec<u8>> = OnceCell::const_new();

/// The file that a store leaves which opens it for the first time, made once: the migrations take a hundred times as long as a copy.
async fn sqlite_template() -> Vec<u8> {
    let database = SqliteDatabase::absent();
    database.store().await;
    // What is in the log moves to the file, whether or not the store has closed it by now.
    let mut connection = SqliteDatabase::connect(&database.path()).await;
    let moved = sqlx::query("pragma wal_checkpoint(truncate)").fetch_one(&mut connection).await.expect("it moves");
    assert_eq!(moved.get::<i64, _>(0), 0, "all of it does");
    std::fs::read(database.path()).expect("the file is there")
}

impl Drop for SqliteDatabase {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Database for SqliteDatabase {
    async fn create() -> Option<SqliteDatabase> {
        let database = SqliteDatabase::absent();
        let file = SQLITE_TEMPLATE.get_or_init(sqlite_template).await;
        std::fs::write(database.path(), file).expect("the file is written");
        Some(database)
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.path().display())
    }

    fn config(&self) -> StoreConfig {
        StoreConfig { url: StoreUrl::Sqlite(self.url()), connections: 4 }
    }

    async fn execute(&self, statements: &'static str) {
        let mut connection = Self::connect(&self.path()).await;
        sqlx::raw_sql(statements).execute(&mut connection).await.expect("the statements run");
    }

    async fn texts(&self, query: &'static str) -> Vec<Option<String>> {
        let mut connection = Self::connect(&self.path()).await;
        sqlx::query_scalar(query).fetch_all(&mut connection).await.expect("text")
    }

    async fn numbers(&self, query: &'static str) -> Vec<Vec<Option<f64>>> {
        let mut connection = Self::connect(&self.path()).await;
        let numbers = |row: SqliteRow| (0..row.len()).map(|i| row.get(i)).collect();
        sqlx::query(query).map(numbers).fetch_all(&mut connection).await.expect("numbers")
    }

    async fn bytes(&self, query: &'static str) -> Vec<Option<Vec<u8>>> {
        sqlx::query_scalar(query).fetch_all(&mut Self::connect(&self.path()).await).await.expect("bytes")
    }

    async fn remove(self) {}
}

/// A database on the server that SHRINKD_TEST_POSTGRES_URL names, as a user who may create databases.
pub struct PostgresDatabase {
    /// The URL of the server.
    server: String,
    name: String,
}

impl PostgresDatabase {
    /// A database without a schema; `None`, with a message, where no server is named.
    pub async fn empty() -> Option<PostgresDatabase> {
        Some(PostgresDatabase::empty_on(&server()?).await)
    }

    /// A database without a schema, on a server of the test's own.
    pub async fn empty_on(server: &str) -> PostgresDatabase {
        let database = PostgresDatabase::named(server);
        database.on_server(format!("create database {}", database.name)).await;
        database
    }

    fn named(server: &str) -> PostgresDatabase {
        PostgresDatabase { server: server.to_owned(), name: name() }
    }

    /// How to connect to it.
    pub fn options(&self) -> PgConnectOptions {
        self.server_options().database(&self.name)
    }

    fn server_options(&self) -> PgConnectOptions {
        self.server.parse().expect("a PostgreSQL URL")
    }

    async fn on_server(&self, statement: String) {
        let mut connection = PgConnection::connect_with(&self.server_options()).await.expect("the server answers");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.expect("the statement runs");
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options()).await.expect("the database answers")
    }
}

/// The server that tests use; `None`, with a message, where none is named.
fn server() -> Option<String> {
    if let Ok(url) = std::env::var("SHRINKD_TEST_POSTGRES_URL") {
        return Some(url);
    }
    let is_required = std::env::var("SHRINKD_REQUIRE_POSTGRES").is_ok_and(|value| value == "1");
    assert!(!is_required, "SHRINKD_REQUIRE_POSTGRES=1, and SHRINKD_TEST_POSTGRES_URL names no server");
    skipped("SHRINKD_TEST_POSTGRES_URL names no PostgreSQL server");
    None
}

static POSTGRES_TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// What a database is made from: its name is that of one with this build's schema, made once on a server and left there. A copy of
/// it is made in a third of the time that the migrations take; of its files, which waits for a checkpoint, in a tenth where
/// nothing waits for the disk.
async fn postgres_template(server: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let files = std::fs::read_dir(folder).expect("the migrations are there").map(|file| file.expect("a file").path());
    let mut migrations = DefaultHasher::new();
    for file in files.collect::<BTreeSet<_>>() {
        // A migration's number is in its name.
        file.file_name().hash(&mut migrations);
        std::fs::read(file).expect("a migration").hash(&mut migrations);
    }
    let template =
        PostgresDatabase { server: server.to_owned(), name: format!("shrinkd_template_{:016x}", migrations.finish()) };
    // Other processes may want it at the same time. The lock ends with the connection.
    let mut connection = PgConnection::connect_with(&template.server_options()).await.expect("the server answers");
    sqlx::raw_sql("select pg_advisory_lock(20261130)").execute(&mut connection).await.expect("the lock is given");
    let is_whole = "select exists (select from pg_database where datname = $1 and datistemplate)";
    let is_whole = sqlx::query_scalar::<_, bool>(is_whole).bind(&template.name).fetch_one(&mut connection).await;
    if !is_whole.expect("the server answers") {
        let name = &template.name;
        template.on_server(format!("drop database if exists {name}")).await;
        template.on_server(format!("create database {name}")).await;
        Store::migrate(&template.config()).await.expect("the schema is made");
        // Nobody may be connected to what is copied.
        template.on_server(format!("alter database {name} with is_template true allow_connections false")).await;
    }
    let copies_files =
        "select current_setting('fsync') = 'off' and current_setting('server_version_num')::int >= 150000";
    let copies_files = sqlx::query_scalar::<_, bool>(copies_files).fetch_one(&mut connection).await;
    let strategy = if copies_files.expect("the server answers") { " strategy file_copy" } else { "" };
    format!("template {}{strategy}", template.name)
}

impl Database for PostgresDatabase {
    async fn create() -> Option<PostgresDatabase> {
        let database = PostgresDatabase::named(&server()?);
        let template = POSTGRES_TEMPLATE.get_or_init(|| postgres_template(&database.server)).await;
        database.on_server(format!("create database {} {template}", database.name)).await;
        Some(database)
    }

    fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{}", self.name)
    }

    fn config(&self) -> StoreConfig {
        StoreConfig { url: StoreUrl::Postgres(self.url()), connections: 4 }
    }

    async fn execute(&self, statements: &'static str) {
        sqlx::raw_sql(statements).execute(&mut self.connect().await).await.expect("the statements run");
    }

    async fn texts(&self, query: &'static str) -> Vec<Option<String>> {
        sqlx::query_scalar(query).fetch_all(&mut self.connect().await).await.expect("text")
    }

    async fn numbers(&self, query: &'static str) -> Vec<Vec<Option<f64>>> {
        let numbers = |row: PgRow| (0..row.len()).map(|i| row.get(i)).collect();
        sqlx::query(query).map(numbers).fetch_all(&mut self.connect().await).await.expect("numbers")
    }

    async fn bytes(&self, query: &'static str) -> Vec<Option<Vec<u8>>> {
        sqlx::query_scalar(query).fetch_all(&mut self.connect().await).await.expect("bytes")
    }

    async fn remove(self) {
        self.on_server(format!("drop database {} with (force)", self.name)).await;
    }
}

/// The database takes no fit of population `a` from now on, as with an arithmetic that gives what a constraint forbids.
pub async fn refuse_fits(database: &impl Database) {
    let statements = match database.url().starts_with("sqlite") {
        true => {
            "create trigger planted before insert on current_population_fits
             when new.population_id like 'a/%' and new.status = 'fitted' begin select raise(abort, 'planted'); end"
        }
        false => {
            "alter table current_population_fits add constraint planted
             check (not (population_id like 'a/%' and status = 'fitted')) not valid"
        }
    };
    database.execute(statements).await;
}
