//! docs/tables.md promises what both migrations make: no table, column or query of it is out of date.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::database::{Database, PostgresDatabase, SqliteDatabase};
use crate::common::docs::Page;

const POSTGRES: &str = concat!(
    include_str!("../../migrations/postgres/0001_initial.sql"),
    include_str!("../../migrations/postgres/0002_operations.sql"),
    include_str!("../../migrations/postgres/0003_tombstones.sql"),
    include_str!("../../migrations/postgres/0004_names.sql"),
    include_str!("../../migrations/postgres/0005_changes.sql"),
    include_str!("../../migrations/postgres/0006_icc.sql")
);
const SQLITE: &str = concat!(
    include_str!("../../migrations/sqlite/0001_initial.sql"),
    include_str!("../../migrations/sqlite/0002_operations.sql"),
    include_str!("../../migrations/sqlite/0003_tombstones.sql"),
    include_str!("../../migrations/sqlite/0004_names.sql"),
    include_str!("../../migrations/sqlite/0005_changes.sql"),
    include_str!("../../migrations/sqlite/0006_icc.sql")
);

/// Of these every column is a contract.
const OUTPUT: [&str; 7] = [
    "effect_estimates",
    "plug_in_estimates",
    "current_population_fits",
    "population_fits",
    "population_diagnostics",
    "rejected_events",
    "skipped_offsets",
];

const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");

type Columns = BTreeMap<String, BTreeSet<String>>;

fn page() -> Page {
    Page::all().into_iter().find(|page| page.path.ends_with("docs/tables.md")).expect("the page is there")
}

/// The words in backticks.
fn names(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The first cells of a text's tables.
fn first_cells(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
}

/// The columns that the page describes, by table.
fn documented() -> Columns {
    let page = page();
    let sections = page.text.split("\n## `").skip(1).filter_map(|section| section.split_once('\n'));
    let columns = sections.flat_map(|(heading, text)| {
        let columns: BTreeSet<String> = first_cells(text).flat_map(names).collect();
        names(&format!("`{heading}")).map(|table| (table, columns.clone())).collect::<Vec<_>>()
    });
    columns.collect()
}

/// The columns of the tables that the migrations make: one stands on each line of a statement.
fn created(migration: &str) -> Columns {
    let mut columns = Columns::new();
    for statement in migration.split("\ncreate table ").skip(1) {
        let (head, body) = statement.split_once('\n').expect("more than one line");
        let words: Vec<&str> = head.split([' ', '(']).filter(|word| !word.is_empty()).collect();
        let own = match words[..] {
            [_, "like", other, ..] => columns[other].clone(),
            _ => body
                .lines()
                .take_while(|line| !line.starts_with(')'))
                .filter_map(|line| line.split_whitespace().next())
                .filter(|word| !matches!(*word, "primary" | "unique" | "check"))
                .map(str::to_owned)
                .collect(),
        };
        columns.insert(words[0].to_owned(), own);
    }
    for statement in migration.split("\nalter table ").skip(1) {
        let (table, rest) = statement.split_once(char::is_whitespace).expect("a table");
        let (rest, _) = rest.split_once(';').expect("its end");
        let added = rest.split("add column ").skip(1).filter_map(|column| column.split_whitespace().next());
        let columns = columns.get_mut(table).expect("a table that was made");
        columns.extend(added.map(str::to_owned));
        for dropped in rest.split("drop column ").skip(1).filter_map(|column| column.split([',', ' ', '\n']).next()) {
            assert!(columns.remove(dropped), "{table} has no {dropped} to drop");
        }
        for renamed in rest.split("rename column ").skip(1) {
            let words: Vec<&str> = renamed.split_whitespace().collect();
            assert!(columns.remove(words[0]), "{table} has no {} to rename", words[0]);
            columns.insert(words[2].to_owned());
        }
    }
    for table in migration.split("\ndrop table ").skip(1).filter_map(|rest| rest.split(';').next()) {
        columns.remove(table);
    }
    columns
}

/// What SQLite itself says of the tables and views that its migration makes.
async fn read_from_sqlite() -> Columns {
    let database = SqliteDatabase::create().await.expect("a file");
    let query = "select m.name || ' ' || p.name from sqlite_master m join pragma_table_info(m.name) p
                 where m.type in ('table', 'view') and m.name not like 'sqlite%' and m.name <> '_sqlx_migrations'";
    let mut columns = Columns::new();
    for name in database.texts(query).await.into_iter().flatten() {
        let (table, column) = name.split_once(' ').expect("two names");
        columns.entry(table.to_owned()).or_default().insert(column.to_owned());
    }
    columns
}

/// The view as it was last defined, without its comments.
fn view(migration: &str) -> Vec<&str> {
    let (_, view) = migration.rsplit_once("view plug_in_estimates as\n").expect("the view");
    let (view, _) = view.split_once(';').expect("its end");
    view.lines().filter(|line| !line.starts_with("--")).collect()
}

#[tokio::test]
async fn both_stores_have_the_same_tables_and_columns() {
    let (postgres, mut sqlite) = (created(POSTGRES), created(SQLITE));
    assert!(postgres.len() > 10, "the statements are found");
    assert!(sqlite.remove("last_ids").is_some(), "what the sequences are in PostgreSQL");
    assert_eq!(postgres, sqlite);
    assert_eq!(view(POSTGRES), view(SQLITE));
    let mut in_fact = read_from_sqlite().await;
    for name in ["last_ids", "plug_in_estimates"] {
        assert!(in_fact.remove(name).is_some(), "{name}");
    }
    assert_eq!(in_fact, sqlite, "the statements are read as they are meant");
}

#[tokio::test]
async fn the_page_lists_every_table() {
    let page = page();
    let (overview, _) = page.text.split_once("\n## ").expect("sections");
    let listed: BTreeSet<String> = first_cells(overview).flat_map(names).collect();
    let mut tables: BTreeSet<String> = read_from_sqlite().await.into_keys().collect();
    tables.insert("_sqlx_migrations".to_owned());
    assert_eq!(listed, tables);
}

#[tokio::test]
async fn the_page_describes_every_column_of_the_output_and_no_column_that_is_not_there() {
    let (documented, in_fact) = (documented(), read_from_sqlite().await);
    for table in OUTPUT {
        assert_eq!(documented.get(table), in_fact.get(table), "{table}");
    }
    for (table, columns) in &documented {
        let unknown: Vec<&String> = columns.difference(&in_fact[table]).collect();
        assert!(unknown.is_empty(), "{table} has no {unknown:?}");
    }
}

async fn every_query_runs(database: &impl Database) {
    let page = page();
    let queries: Vec<&str> = page.blocks("sql").collect();
    assert!(queries.len() > 5, "the queries are found");
    for query in queries {
        database.execute(query.to_owned().leak()).await;
    }
}

#[tokio::test]
async fn every_query_of_the_page_runs_in_sqlite() {
    every_query_runs(&SqliteDatabase::create().await.expect("a file")).await;
}

#[tokio::test]
async fn every_query_of_the_page_runs_in_postgresql() {
    let Some(database) = PostgresDatabase::create().await else { return };
    every_query_runs(&database).await;
    database.remove().await;
}

#[test]
fn the_worker_may_use_every_table_and_sequence() {
    for table in created(POSTGRES).keys() {
        let is_granted =
            |line: &str| line.starts_with("grant ") && line.ends_with(&format!(" on {table} to shrinkd_worker;"));
        assert!(ROLES.lines().any(is_granted), "{table}");
    }
    for sequence in POSTGRES.split("\ncreate sequence ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let is_granted = |line: &str| line.starts_with("grant usage on sequence ") && line.contains(sequence);
        assert!(ROLES.lines().any(is_granted), "{sequence}");
    }
}

#[test]
fn analysts_may_read_what_the_page_describes_but_not_the_messages() {
    let mut readable = documented();
    for column in ["message_key", "payload"] {
        assert!(readable.get_mut("rejected_events").is_some_and(|columns| columns.remove(column)), "{column}");
    }
    let mut granted = Columns::new();
    for grant in ROLES.split("\ngrant select ").skip(1).filter_map(|rest| rest.split(" to shrinkd_reader;").next()) {
        let Some((columns, table)) = grant.split_once("on ") else { continue };
        let columns = columns.split(['(', ')', ',']).map(str::trim).filter(|name| !name.is_empty());
        granted.insert(table.to_owned(), columns.map(str::to_owned).collect());
    }
    granted.retain(|table, _| readable.contains_key(table));
    // Without a list of columns all of them are.
    for (table, columns) in &mut granted {
        if columns.is_empty() && OUTPUT.contains(&table.as_str()) {
            columns.clone_from(&readable[table]);
        }
    }
    assert_eq!(granted, readable);
}
