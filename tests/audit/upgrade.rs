//! What a new release promises for databases that earlier ones have filled: it migrates them, refuses statistics of another
//! arithmetic until they are rebuilt, then holds what it would have stored itself, and knows the events that they hold. The
//! databases are in `tests/data/stored/`, one of each kind for each release, and were made by `tests/data/stored/fill`.

use std::collections::BTreeMap;
use std::path::Path;

use shrinkd_model::Sketches;
use sqlx::migrate::{Migration, Migrator};

use crate::common::database::{Database, PostgresDatabase, SqliteDatabase, settings};
use crate::common::promises;
use crate::common::statistics::StoredStatistics;
use crate::rebuild::tables::{Figures, assert_published_whole, estimates, fits, statistics};
use crate::site::Site;

promises! {
    a_database_of_another_arithmetic_is_refused_and_left_as_it_is_until_it_is_rebuilt,
    a_rebuilt_database_holds_what_this_build_stores_of_the_same_events,
    events_that_an_earlier_release_took_are_duplicates_and_change_nothing,
    what_an_earlier_release_meant_otherwise_is_null_until_the_next_pass,
    figures_of_an_earlier_release_that_are_not_finite_are_set_to_null_and_made_again,
    every_file_of_the_folder_of_migrations_is_applied,
}

/// What each release was fed.
const EVENTS: &str = include_str!("../data/stored/events.ndjson");

/// What each release left: its version, a SQLite file, and a dump of PostgreSQL.
const RELEASES: [(&str, &[u8], &str); 1] =
    [("0.1", include_bytes!("../data/stored/0.1/sqlite.db"), include_str!("../data/stored/0.1/postgres.sql"))];

/// A database as a release left it.
trait Released: Database {
    async fn of_release(sqlite: &[u8], postgres: &'static str) -> Self;
}

impl Released for SqliteDatabase {
    async fn of_release(sqlite: &[u8], _: &'static str) -> SqliteDatabase {
        let database = SqliteDatabase::absent();
        std::fs::write(database.path(), sqlite).expect("a file");
        database
    }
}

impl Released for PostgresDatabase {
    async fn of_release(_: &[u8], postgres: &'static str) -> PostgresDatabase {
        let database = PostgresDatabase::empty().await.expect("a server, which the fresh database is on");
        database.execute(postgres).await;
        database
    }
}

/// The databases of all releases, migrated by this build, each with the events under a path that it has not seen.
async fn migrated<D: Released>() -> Vec<(D, Site)> {
    let mut migrated = Vec::new();
    for (release, sqlite, postgres) in RELEASES {
        println!("release {release}");
        let database = D::of_release(sqlite, postgres).await;
        let site = Site::new(&database);
        site.append(EVENTS);
        site.start("migrate", &[]).ends_with(0);
        migrated.push((database, site));
    }
    migrated
}

/// A database that this build fills with the same events.
fn fill(fresh: &impl Database) -> Site {
    let site = Site::new(fresh);
    site.append(EVENTS);
    site.run(&[]);
    site
}

/// The same, rebuilt.
async fn rebuilt<D: Released>() -> Vec<(D, Site)> {
    let databases = migrated().await;
    databases.iter().for_each(|(_, site)| drop(site.rebuild(&[])));
    databases
}

async fn a_database_of_another_arithmetic_is_refused_and_left_as_it_is_until_it_is_rebuilt<D: Released>(_: &D) {
    for (database, site) in migrated::<D>().await {
        let before = (Stored::of(&database).await, estimates(&database).await);
        for command in ["run", "verify"] {
            let said = site.start(command, &[]).ends_with(2);
            assert!(said.contains("run `shrinkd rebuild`"), "{said}");
        }
        assert_eq!((Stored::of(&database).await, estimates(&database).await), before);
        database.remove().await;
    }
}

async fn a_rebuilt_database_holds_what_this_build_stores_of_the_same_events<D: Released>(fresh: &D) {
    fill(fresh).rebuild(&[]);
    let expected = (Stored::of(fresh).await, estimates(fresh).await);
    for (database, site) in rebuilt::<D>().await {
        site.start("verify", &[]).ends_with(0);
        assert_published_whole(&database).await;
        assert_eq!((Stored::of(&database).await, estimates(&database).await), expected);
        database.remove().await;
    }
}

async fn events_that_an_earlier_release_took_are_duplicates_and_change_nothing<D: Released>(fresh: &D) {
    fill(fresh);
    // Of the topic that was read last. What was refused once is refused again, for the same reasons.
    let refused = "select cast(record_offset as text) || ' ' || coalesce(cast(result_index as text), '') || ' ' || reason || ' ' || detail
                   from rejected_events where partition_id = (select max(partition_id) from partition_progress) order by 1";
    let commits =
        "select experiment_id || ' ' || metric || ' ' || segment || ' ' || scale || ' ' || cast(commit_id as text)
                   from blocks order by 1";
    let rows = "select population_id || ' ' || experiment_id || ' ' || variant || ' ' || cast(commit_id as text) || ' '
                       || cast(fit_id as text) || ' ' || cast(computed_at as text)
                from effect_estimates order by 1";
    for (database, site) in rebuilt::<D>().await {
        let before = (Stored::of(&database).await, estimates(&database).await);
        let written = (database.texts(commits).await, database.texts(rows).await);
        site.run(&[]);
        assert_eq!((Stored::of(&database).await, estimates(&database).await), before);
        assert_eq!((database.texts(commits).await, database.texts(rows).await), written, "no row was written again");
        assert_eq!(database.texts(refused).await, fresh.texts(refused).await);
        site.start("verify", &[]).ends_with(0);
        database.remove().await;
    }
}

/// The design effect was that at the median of tau, and the verdict rested on other measures.
async fn what_an_earlier_release_meant_otherwise_is_null_until_the_next_pass<D: Released>(_: &D) {
    for (database, _) in migrated::<D>().await {
        let rows = "select population_id from population_diagnostics where information is not null";
        assert!(!database.texts(rows).await.is_empty());
        let kept = "select population_id from population_diagnostics
                    where deff is not null or verdict is not null or verdict_rests_on is not null or verdict_value is not null";
        assert!(database.texts(kept).await.is_empty());
        database.remove().await;
    }
}

/// As 0.1 left a population whose prior of tau was narrower than it could take: NaN on PostgreSQL, null on SQLite.
async fn figures_of_an_earlier_release_that_are_not_finite_are_set_to_null_and_made_again<D: Released>(fresh: &D) {
    fill(fresh).rebuild(&[]);
    for (release, sqlite, postgres) in RELEASES {
        println!("release {release}");
        let database = D::of_release(sqlite, postgres).await;
        let plant = match database.url().starts_with("sqlite") {
            true => {
                "update effect_estimates set posterior_mean = null, ci95_high = 9e999 where status = 'fitted';
                 update current_population_fits set mu_mean = null, tau_median = null, tau_sd = 9e999 where status = 'fitted';
                 update population_fits set mu_mean = null, tau_median = null, tau_sd = -9e999 where status = 'fitted';
                 update population_diagnostics set information = 9e999"
            }
            false => {
                "update effect_estimates set posterior_mean = 'NaN', ci95_high = 'Infinity' where status = 'fitted';
                 update current_population_fits set mu_mean = 'NaN', tau_sd = 'Infinity' where status = 'fitted';
                 update population_fits set mu_mean = 'NaN', tau_sd = '-Infinity' where status = 'fitted';
                 update population_diagnostics set information = 'NaN'"
            }
        };
        let fitted = "select cast(count(*) as text) from effect_estimates where status = 'fitted'";
        let planted = database.count(fitted).await;
        database.execute(plant).await;
        let site = Site::new(&database);
        site.append(EVENTS);
        site.start("migrate", &[]).ends_with(0);
        let failed = "select cast(count(*) as text) from effect_estimates
                      where status = 'failed' and posterior_mean is null and ci95_high is null and prob_positive is null";
        assert_eq!((database.count(failed).await, database.count(fitted).await), (planted, 0));
        let fits = "select cast(count(*) as text) from population_fits where status = 'failed' and mu_sd is null";
        assert!(planted > 0 && database.count(fits).await > 0);
        site.rebuild(&[]);
        assert_eq!(Stored::of(&database).await, Stored::of(fresh).await);
        assert_eq!(estimates(&database).await, estimates(fresh).await);
        database.remove().await;
    }
}

/// Whatever does not depend on when and in which batches it was taken in, as it is stored.
#[derive(Debug, PartialEq)]
struct Stored {
    experiments: Vec<(String, Option<Vec<u8>>)>,
    /// With statistics and block.
    blocks: Vec<(String, [Option<Vec<u8>>; 2])>,
    cells: BTreeMap<String, (Sketches, i64, i64)>,
    stored: StoredStatistics,
    fits: Figures,
}

impl Stored {
    /// Without the experiment `tomorrow`, an event of version 2 of the contract, which 0.1 refused.
    async fn of(database: &impl Database) -> Stored {
        let experiments = database.texts(
            "select experiment_id || ' ' || cast(revision as text) || ' ' || coalesce(decision, '') || ' ' || cast(labels as text)
                    || ' ' || cast(completed_at as text)
             from experiments where experiment_id <> 'tomorrow' order by experiment_id",
        );
        let retractions = database
            .bytes("select retractions from experiments where experiment_id <> 'tomorrow' order by experiment_id");
        let blocks = database.texts(
            "select experiment_id || ' ' || metric || ' ' || segment || ' ' || scale || ' ' || population_id || ' '
                    || cast(revision as text) || ' ' || coalesce(pending_reason, '')
             from blocks order by experiment_id, metric, segment, scale",
        );
        let [sent, block] = [
            "select statistics from blocks order by experiment_id, metric, segment, scale",
            "select block from blocks order by experiment_id, metric, segment, scale",
        ]
        .map(|query| database.bytes(query));
        let packed = sent.await.into_iter().zip(block.await).map(|(sent, block)| [sent, block]);
        Stored {
            experiments: experiments.await.into_iter().flatten().zip(retractions.await).collect(),
            blocks: blocks.await.into_iter().flatten().zip(packed).collect(),
            // Whatever it was filled with.
            cells: statistics(&database.open_to_rebuild(&settings()).await).await,
            stored: StoredStatistics::of(database).await,
            fits: fits(database).await,
        }
    }
}

/// A database refuses a build in which a migration that it has had is another: sqlx compares their checksums (SHA-384).
#[tokio::test]
async fn migrations_that_were_released_never_change() {
    // 0004_names, 0005_changes and 0006_icc are part of no release yet, and may still change.
    let released = [
        (
            "migrations/postgres",
            [
                "df77dd580c742274e7fd4ffd1ad244a79869ed088136efc5d07d92d3b341cdf321a381814ef862ec023c1aa2db7e45a3",
                "6b06467e5108b33cc2e847b74109296ddb26c2bf89a27b2c6f25608009b38e130a7dc244328355e4ef0bb8260625729d",
                "72cb43401ba6f481aa36c6fcd71a35e9334d2defff0bf8fb2c0132c8aa49d2f8396904948e9d35b178ea651db067dfd3",
            ],
        ),
        (
            "migrations/sqlite",
            [
                "0d6942096c1baa88ef73375f5a96fb7878595ca06b53975f64fa56c80c2419dfecd6ab9a4eb29acb187cfee1fda9f594",
                "c726dd3aad1e73085cd04347694ee3ca03f12ed3176b59ea501c47aed74d5052eebe9451b152cd60ae222fe1e5329c74",
                "df7b9673c97dbda74b79bfa55aa3cbf67ae0bea36724fb52baf1f20c7518d627874b740c05cf1f78545e9b8cc5635f7e",
            ],
        ),
    ];
    for (folder, checksums) in released {
        let migrator = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).await.expect("migrations");
        let found: Vec<String> = migrator.iter().map(|migration| hex(&migration.checksum)).collect();
        assert_eq!(found[..checksums.len()], checksums, "{folder}: add a migration instead");
    }
}

async fn every_file_of_the_folder_of_migrations_is_applied<D: Database>(database: &D) {
    let folder = if database.url().starts_with("sqlite") { "migrations/sqlite" } else { "migrations/postgres" };
    let migrator = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).await.expect("migrations");
    let name = |migration: &Migration| Some(format!("{} {}", migration.version, migration.description));
    let applied = database.texts("select version || ' ' || description from _sqlx_migrations order by version").await;
    assert_eq!(applied, migrator.iter().map(name).collect::<Vec<_>>());
    let checksums = database.bytes("select checksum from _sqlx_migrations order by version").await;
    let of_files = migrator.iter().map(|migration| Some(migration.checksum.to_vec()));
    assert_eq!(checksums, of_files.collect::<Vec<_>>());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
