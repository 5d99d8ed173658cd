//! What a new release promises for databases that earlier ones have filled: it migrates them, finds nothing wrong, knows the
//! events that they hold, and would have stored the same. The databases are in `tests/data/stored/`, one of each kind for each
//! release, and were made by `tests/data/stored/fill`.

use std::collections::BTreeMap;

use crate::common::database::{Database, PostgresDatabase, SqliteDatabase};
use crate::common::promises;
use crate::rebuild::tables::{Figures, assert_published_whole, estimates, fits};
use crate::site::Site;

promises! {
    a_migrated_database_holds_what_this_build_stores_of_the_same_events,
    events_that_an_earlier_release_took_are_duplicates_and_change_nothing,
    a_rebuild_of_a_migrated_database_changes_no_figure,
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

async fn a_migrated_database_holds_what_this_build_stores_of_the_same_events<D: Released>(fresh: &D) {
    fill(fresh);
    let expected = Stored::of(fresh).await;
    for (database, site) in migrated::<D>().await {
        site.start("verify", &[]).ends_with(0);
        assert_eq!(Stored::of(&database).await, expected);
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
    for (database, site) in migrated::<D>().await {
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

async fn a_rebuild_of_a_migrated_database_changes_no_figure<D: Released>(fresh: &D) {
    fill(fresh).rebuild(&[]);
    for (database, site) in migrated::<D>().await {
        let before = (Stored::of(&database).await, estimates(&database).await);
        site.rebuild(&[]);
        assert_eq!((Stored::of(&database).await, estimates(&database).await), before);
        assert_published_whole(&database).await;
        assert_eq!(before, (Stored::of(fresh).await, estimates(fresh).await));
        database.remove().await;
    }
}

/// Whatever does not depend on when and in which batches it was taken in, as it is stored.
#[derive(Debug, PartialEq)]
struct Stored {
    experiments: Vec<(String, Option<Vec<u8>>)>,
    /// With statistics, block and components.
    blocks: Vec<(String, [Option<Vec<u8>>; 3])>,
    cells: BTreeMap<String, Vec<i128>>,
    fits: Figures,
}

impl Stored {
    async fn of(database: &impl Database) -> Stored {
        let experiments = database.texts(
            "select experiment_id || ' ' || cast(revision as text) || ' ' || coalesce(decision, '') || ' ' || cast(labels as text)
                    || ' ' || cast(completed_at as text)
             from experiments order by experiment_id",
        );
        let retractions = database.bytes("select retractions from experiments order by experiment_id");
        let blocks = database.texts(
            "select experiment_id || ' ' || metric || ' ' || segment || ' ' || scale || ' ' || population_id || ' '
                    || cast(revision as text) || ' ' || coalesce(pending_reason, '')
             from blocks order by experiment_id, metric, segment, scale",
        );
        let [statistics, block, components] = [
            "select statistics from blocks order by experiment_id, metric, segment, scale",
            "select block from blocks order by experiment_id, metric, segment, scale",
            "select components from blocks order by experiment_id, metric, segment, scale",
        ]
        .map(|query| database.bytes(query));
        let packed = statistics.await.into_iter().zip(block.await).zip(components.await);
        let packed = packed.map(|((statistics, block), components)| [statistics, block, components]);
        Stored {
            experiments: experiments.await.into_iter().flatten().zip(retractions.await).collect(),
            blocks: blocks.await.into_iter().flatten().zip(packed).collect(),
            cells: cells(database).await,
            fits: fits(database).await,
        }
    }
}

/// The sums over partitions of what the cells hold.
async fn cells(database: &impl Database) -> BTreeMap<String, Vec<i128>> {
    let keys = database.texts(
        "select population_id || ' ' || correlation || ' ' || cast(octave as text)
         from sketch_cells order by population_id, partition_id, correlation, octave",
    );
    let moments =
        database.bytes("select moments from sketch_cells order by population_id, partition_id, correlation, octave");
    let mut sums: BTreeMap<String, Vec<i128>> = BTreeMap::new();
    for (key, moments) in keys.await.into_iter().flatten().zip(moments.await.into_iter().flatten()) {
        let (integers, rest) = moments.as_chunks();
        assert!(rest.is_empty(), "whole integers");
        let sum = sums.entry(key).or_insert_with(|| vec![0; integers.len()]);
        sum.iter_mut().zip(integers).for_each(|(sum, bytes)| *sum += i128::from_le_bytes(*bytes));
    }
    sums.retain(|_, sum| sum.iter().any(|&moment| moment != 0));
    sums
}
