//! The columns of a table, each named once: statements that write rows, their lists of columns and of assignments, and what
//! audits compare, all come from the same list.
//!
//! A statement on rows, which it knows as `n`, has marks for their columns:
//!
//! | mark | stands for |
//! | --- | --- |
//! | `{columns}` | `a, b, c` |
//! | `{columns of n}` | `n.a, n.b, n.c` |
//! | `{set from n}` | `b = n.b, c = n.c`: all but the key |
//! | `{set from excluded}` | `b = excluded.b, c = excluded.c` |
//!
//! A figure that is no finite number is refused before the statement is executed: every floating-point column is written from
//! here.

use std::borrow::{Borrow, Cow};

use time::OffsetDateTime;

use super::StoreError;
use super::database::Transaction;
use super::query::{Query, Row, Value};

/// Columns in groups: first those by which a row is found (its key), then those that are set.
pub(super) struct Columns<R: 'static>(pub Groups<R>, pub Groups<R>);

type Groups<R> = &'static [&'static [Column<R>]];

/// A column, and its value in a row.
pub(super) struct Column<R> {
    pub name: &'static str,
    get: Get<R>,
}

/// For each kind of column: its type on PostgreSQL, what its value in a row is, and the values of a statement that hold one,
/// or one of each row.
macro_rules! kinds {
    ($($column:ident: $kind:ident, $postgres:expr, $value:ty, $one:ident, $many:ident;)*) => {
        enum Get<R> {
            $($kind(fn(&R) -> $value)),*
        }

        $(pub(super) const fn $column<R>(name: &'static str, get: fn(&R) -> $value) -> Column<R> {
            Column { name, get: Get::$kind(get) }
        })*

        impl<R: 'static> Get<R> {
            fn postgres_type(&self) -> &'static str {
                match self { $(Get::$kind(_) => $postgres),* }
            }

            fn value<'r>(&self, row: &'r R) -> Value<'r> {
                match self { $(Get::$kind(get) => Value::$one(get(row))),* }
            }

            fn array<'r>(&self, rows: &'r [impl Borrow<R>]) -> Value<'r> {
                match self { $(Get::$kind(get) => Value::$many(rows.iter().map(|row| get(row.borrow())).collect())),* }
            }
        }
    };
}

kinds! {
    text: Text, "text", Option<Cow<'_, str>>, Text, Texts;
    json: Json, JSONB, Option<Cow<'_, str>>, Text, Texts;
    integer: Integer, "bigint", Option<i64>, Integer, Integers;
    boolean: Boolean, "boolean", Option<bool>, Boolean, Booleans;
    float: Float, "float8", Option<f64>, Float, Floats;
    bytes: Bytes, "bytea", Option<Cow<'_, [u8]>>, Bytes, Blobs;
    time: Time, "timestamptz", Option<OffsetDateTime>, Time, Times;
}

pub(super) const JSONB: &str = "jsonb";

/// No further values.
pub(super) const NONE: &[Value<'static>] = &[];

/// Rows of one statement on SQLite. Their columns must fit its 32,766 variables.
const SQLITE_ROWS: usize = 200;

impl<R: 'static> Column<R> {
    pub fn postgres_type(&self) -> &'static str {
        self.get.postgres_type()
    }

    pub fn value<'r>(&self, row: &'r R) -> Value<'r> {
        self.get.value(row)
    }
}

impl<R> Columns<R> {
    /// Columns of which none is set by a mark.
    pub const fn of(columns: Groups<R>) -> Columns<R> {
        Columns(columns, &[])
    }

    pub fn all(&self) -> impl Iterator<Item = &'static Column<R>> {
        self.0.iter().chain(self.1).copied().flatten()
    }

    /// `a, b, c`, each behind a prefix.
    pub fn names(&self, prefix: &str) -> String {
        let names: Vec<String> = self.all().map(|column| format!("{prefix}{}", column.name)).collect();
        names.join(", ")
    }

    /// `a text, b bigint`, as PostgreSQL has it.
    pub fn definitions(&self) -> String {
        let columns: Vec<String> =
            self.all().map(|column| format!("{} {}", column.name, column.postgres_type())).collect();
        columns.join(", ")
    }

    fn assignments(&self, from: &str) -> String {
        let set = self.1.iter().copied().flatten();
        let assignments: Vec<String> = set.map(|column| format!("{0} = {from}.{0}", column.name)).collect();
        assignments.join(", ")
    }

    pub fn replace_marks(&self, sql: &str) -> String {
        sql.replace("{columns}", &self.names(""))
            .replace("{columns of n}", &self.names("n."))
            .replace("{set from n}", &self.assignments("n"))
            .replace("{set from excluded}", &self.assignments("excluded"))
    }

    /// The names of the columns that hold floating-point figures, in their order.
    pub fn figure_names(&self) -> impl Iterator<Item = &'static str> {
        self.all().filter(|column| matches!(column.get, Get::Float(_))).map(|column| column.name)
    }

    /// The figures of a row that is stored, in their order.
    pub fn read_figures(&self, row: &Row) -> Result<Vec<Option<f64>>, StoreError> {
        self.figure_names().map(|name| row.get(name)).collect()
    }

    /// The figures of a row that is to be written, in their order.
    pub fn figures(&self, row: &R) -> Vec<Option<f64>> {
        let figure = |column: &'static Column<R>| match column.get {
            Get::Float(get) => Some(get(row)),
            _ => None,
        };
        self.all().filter_map(figure).collect()
    }

    /// The names of the columns that hold texts or booleans, in their order.
    pub fn word_names(&self) -> impl Iterator<Item = &'static str> {
        self.all().filter(|column| matches!(column.get, Get::Text(_) | Get::Boolean(_))).map(|column| column.name)
    }

    /// The texts and booleans of a row that is stored, in their order, all as text.
    pub fn read_words(&self, row: &Row) -> Result<Vec<Option<String>>, StoreError> {
        let word = |column: &'static Column<R>| match column.get {
            Get::Text(_) => Some(row.get::<Option<String>>(column.name)),
            Get::Boolean(_) => {
                let boolean = row.get::<Option<bool>>(column.name);
                Some(boolean.map(|boolean| boolean.map(|boolean| boolean.to_string())))
            }
            _ => None,
        };
        self.all().filter_map(word).collect()
    }

    /// The texts and booleans of a row that is to be written, likewise.
    pub fn words(&self, row: &R) -> Vec<Option<String>> {
        let word = |column: &'static Column<R>| match column.get {
            Get::Text(get) => Some(get(row).map(Cow::into_owned)),
            Get::Boolean(get) => Some(get(row).map(|boolean| boolean.to_string())),
            _ => None,
        };
        self.all().filter_map(word).collect()
    }

    /// Executes a statement on rows and on further values, `$1` and so on: in one go on PostgreSQL, in parts on SQLite.
    /// Returns how many rows it wrote.
    pub async fn execute(
        &self,
        on: &mut Transaction,
        name: &'static str,
        rows: &[impl Borrow<R> + Sync],
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        self.check_finite(name, rows)?;
        let mut written = 0;
        for part in rows.chunks(self.part(on, rows)) {
            written += self.query(on, name, part, sql, values).await?;
        }
        Ok(written)
    }

    /// The same, of a statement that returns rows.
    pub async fn fetch<T>(
        &self,
        on: &mut Transaction,
        name: &'static str,
        rows: &[R],
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.check_finite(name, rows)?;
        let mut found = Vec::new();
        for part in rows.chunks(self.part(on, rows)) {
            found.extend(self.query(on, name, part, sql, values).all(&read).await?);
        }
        Ok(found)
    }

    pub fn check_finite(&self, statement: &'static str, rows: &[impl Borrow<R>]) -> Result<(), StoreError> {
        for row in rows.iter().map(Borrow::borrow) {
            let is_not_finite = |column: &&Column<R>| match column.get {
                Get::Float(get) => get(row).is_some_and(|figure| !figure.is_finite()),
                _ => false,
            };
            if let Some(column) = self.all().find(is_not_finite) {
                return Err(StoreError::NotFinite { statement, column: column.name, row: self.key(row) });
            }
        }
        Ok(())
    }

    /// The texts by which a row is found.
    fn key(&self, row: &R) -> String {
        let text = |column: &Column<R>| match column.get {
            Get::Text(get) => get(row).map(Cow::into_owned),
            _ => None,
        };
        let key: Vec<String> = self.0.iter().copied().flatten().filter_map(text).collect();
        key.join(" ")
    }

    fn part(&self, on: &mut Transaction, rows: &[impl Borrow<R>]) -> usize {
        if on.is_postgres() { rows.len().max(1) } else { SQLITE_ROWS }
    }

    fn query<'q>(
        &self,
        on: &'q mut Transaction,
        name: &'static str,
        rows: &'q [impl Borrow<R>],
        sql: &str,
        values: &[Value<'q>],
    ) -> Query<'q> {
        let own = values.iter().cloned();
        let mut sql = self.replace_marks(sql);
        match on.is_postgres() {
            true => {
                let columns = self.all().zip(values.len() + 1..);
                let types = columns.map(|(column, i)| format!("${i}::{}[]", column.postgres_type()));
                let unnest = format!("select * from unnest({})", types.collect::<Vec<_>>().join(", "));
                let rows = self.all().map(|column| column.get.array(rows));
                on.query(name, format!("with n ({}) as ({unnest}) {sql}", self.names("")), own.chain(rows))
            }
            false => {
                let width = self.all().count();
                // Numbered variables are looked up one by one: among thousands of rows they are left without numbers.
                let row = format!("({})", vec!["?"; width].join(", "));
                let variables = vec![row.as_str(); rows.len()].join(", ");
                for i in (1..=values.len()).rev() {
                    sql = sql.replace(&format!("${i}"), &format!("?{}", width * rows.len() + i));
                }
                let cells = rows.iter().flat_map(|row| self.all().map(|column| column.value(row.borrow())));
                let sql = format!("with n ({}) as (values {variables}) {sql}", self.names(""));
                let query = on.query(name, sql, cells.chain(own));
                if rows.len() == SQLITE_ROWS { query } else { query.once() }
            }
        }
    }
}
