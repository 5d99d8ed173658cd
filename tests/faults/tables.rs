//! Two databases that took the same topic in, compared byte for byte.
//!
//! What may differ is what says when and by whose hand: ids that a database gives, epochs, owners, times.

use std::collections::BTreeMap;

use shrinkd::row::{CurrentPopulation, Statistics};
use shrinkd_core::PopulationName;
use shrinkd_model::Part;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::common::database::{Database, PostgresDatabase};

/// A table, the columns that identify a row in both databases, and those that may differ.
pub struct Table {
    pub name: &'static str,
    key: &'static str,
    may_differ: &'static [&'static str],
}

/// What the topic alone decides.
pub const STATE: [Table; 4] = [
    Table { name: "experiments", key: "experiment_id", may_differ: &[] },
    Table { name: "blocks", key: "experiment_id, metric, segment, scale", may_differ: &["commit_id"] },
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

/// The cells of each population and part.
pub type Cells = BTreeMap<(PopulationName, Part), Vec<u8>>;

/// The statistics of all populations: their cells, and how many experiments and effects they have, where they have any.
pub async fn statistics(database: &PostgresDatabase) -> (Cells, BTreeMap<PopulationName, (i64, i64)>) {
    let store = database.store().await;
    let (mut cells, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for CurrentPopulation { population, .. } in store.current_populations().await.expect("populations") {
        let Statistics { sketches, counters } =
            store.population_state(&population).await.expect("its state").statistics;
        for part in sketches.parts() {
            cells.insert((population.clone(), part), sketches.cells_to_bytes(part));
        }
        if counters.effects != 0 {
            counts.insert(population, (counters.experiments, counters.effects));
        }
    }
    (cells, counts)
}

pub async fn connect(database: &PostgresDatabase) -> PgConnection {
    PgConnection::connect_with(&database.options()).await.expect("the database answers")
}
