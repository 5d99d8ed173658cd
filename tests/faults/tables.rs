//! Two databases that took the same topic in, compared byte for byte.
//!
//! What may differ is what says when and by whose hand: ids that a database gives, epochs, owners, times. `changes` of
//! `cell_counters` differs too: two changes of a block within one batch are one change.

use std::collections::BTreeMap;

use shrinkd_model::{Cell, cell_from_bytes};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::common::database::PostgresDatabase;

/// A table, the columns that identify a row in both databases, and those that may differ.
pub struct Table {
    pub name: &'static str,
    key: &'static str,
    may_differ: &'static [&'static str],
}

/// What the topic alone decides.
pub const STATE: [Table; 4] = [
    Table { name: "experiments", key: "experiment_id", may_differ: &[] },
    Table { name: "blocks", key: "experiment_id, metric, segment, scale", may_differ: &["commit_id", "partition_id"] },
    Table {
        name: "rejected_events",
        key: "partition_number, record_offset, result_index",
        may_differ: &["rejected_event_id", "partition_id", "rejected_at"],
    },
    Table {
        name: "partition_progress",
        key: "partition_number",
        may_differ: &["partition_id", "epoch", "owner", "claimed_at", "committed_at"],
    },
];

/// What a whole publish with the latest fit writes.
pub const FIGURES: [Table; 2] = [
    Table {
        name: "current_population_fits",
        key: "population_id, correlation",
        may_differ: &["fit_id", "computed_at"],
    },
    Table {
        name: "effect_estimates",
        key: "population_id, experiment_id, variant",
        may_differ: &["fit_id", "commit_id", "computed_at"],
    },
];

/// Rows that are read at a time.
const PAGE: usize = 2_000;

/// Demands that a table says the same in both databases, and gives the number of its rows.
pub async fn check_equal(table: &Table, one: &PostgresDatabase, other: &PostgresDatabase) -> usize {
    let (mut one, mut other) = (Rows::of(table, one).await, Rows::of(table, other).await);
    let mut count = 0;
    loop {
        let (left, right) = (one.page().await, other.page().await);
        for (left, right) in left.iter().zip(&right) {
            assert_eq!(left, right, "a row of {} (with faults, without)", table.name);
        }
        count += left.len();
        assert_eq!(left.len(), right.len(), "{} has more rows in one database, after {count} equal ones", table.name);
        if left.is_empty() {
            return count;
        }
    }
}

/// A table's rows as text, in the order of their keys.
struct Rows(PgConnection);

impl Rows {
    async fn of(table: &Table, database: &PostgresDatabase) -> Rows {
        let mut connection = connect(database).await;
        let columns: Vec<String> = sqlx::query_scalar(
            "select column_name::text from information_schema.columns
             where table_schema = 'public' and table_name = $1 and column_name <> all($2) order by ordinal_position",
        )
        .bind(table.name)
        .bind(table.may_differ)
        .fetch_all(&mut connection)
        .await
        .expect("columns");
        assert!(!columns.is_empty(), "{} is not there", table.name);
        let cursor = format!(
            "begin; declare rows cursor for select row({})::text from {} order by {}",
            columns.join(", "),
            table.name,
            table.key
        );
        sqlx::raw_sql(AssertSqlSafe(cursor)).execute(&mut connection).await.expect("a cursor");
        Rows(connection)
    }

    async fn page(&mut self) -> Vec<String> {
        let fetch = format!("fetch {PAGE} from rows");
        sqlx::query_scalar(AssertSqlSafe(fetch)).fetch_all(&mut self.0).await.expect("rows")
    }
}

/// The sketch cells of each population, correlation and octave, summed over partitions; what is 0 is as good as absent.
pub async fn cells(database: &PostgresDatabase) -> BTreeMap<(String, String, i16), Cell> {
    let rows: Vec<(String, String, i16, Vec<u8>)> =
        sqlx::query_as("select population_id, correlation, octave, moments from sketch_cells")
            .fetch_all(&mut connect(database).await)
            .await
            .expect("cells");
    let mut sums: BTreeMap<(String, String, i16), Cell> = BTreeMap::new();
    for (population, correlation, octave, moments) in rows {
        let cell = cell_from_bytes(&moments).expect("a cell");
        match sums.entry((population, correlation, octave)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(cell);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                for (sum, x) in entry.get_mut().as_flattened_mut().iter_mut().zip(cell.as_flattened()) {
                    *sum += x;
                }
            }
        }
    }
    sums.retain(|_, cell| cell.as_flattened().iter().any(|x| *x != 0));
    sums
}

/// Experiments and effects of each population, summed over partitions.
pub async fn counters(database: &PostgresDatabase) -> BTreeMap<String, (i64, i64)> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select population_id, sum(experiments)::bigint, sum(effects)::bigint from cell_counters
         group by population_id having sum(effects) <> 0",
    )
    .fetch_all(&mut connect(database).await)
    .await
    .expect("counters");
    rows.into_iter().map(|(population, experiments, effects)| (population, (experiments, effects))).collect()
}

pub async fn connect(database: &PostgresDatabase) -> PgConnection {
    PgConnection::connect_with(&database.options()).await.expect("the database answers")
}
