//! The columns of a table, each named once: statements that write rows, their lists of columns and of assignments, and what
//! audits compare, all come from the same list.

use std::borrow::Cow;

use time::OffsetDateTime;

use super::StoreError;
use super::database::{Executor, Session};
use super::query::{Query, Row, Value};

/// Columns in groups, such as the key and the rest.
pub(super) struct Columns<R: 'static>(pub &'static [&'static [Column<R>]]);

/// A column, and its value in a row.
pub(super) struct Column<R> {
    pub name: &'static str,
    get: Get<R>,
}

enum Get<R> {
    Text(fn(&R) -> Option<Cow<'_, str>>),
    Json(fn(&R) -> String),
    Integer(fn(&R) -> Option<i64>),
    Float(fn(&R) -> Option<f64>),
    Bytes(fn(&R) -> Option<Cow<'_, [u8]>>),
    Time(fn(&R) -> Option<OffsetDateTime>),
}

macro_rules! kinds {
    ($($name:ident: $kind:ident, $value:ty;)*) => {
        $(pub(super) const fn $name<R>(name: &'static str, get: fn(&R) -> $value) -> Column<R> {
            Column { name, get: Get::$kind(get) }
        })*
    };
}

kinds! {
    text: Text, Option<Cow<'_, str>>;
    json: Json, String;
    integer: Integer, Option<i64>;
    float: Float, Option<f64>;
    bytes: Bytes, Option<Cow<'_, [u8]>>;
    time: Time, Option<OffsetDateTime>;
}

/// No further values.
pub(super) const NONE: &[Value<'static>] = &[];

/// Rows of one statement on SQLite. Their columns must fit its 32,766 variables.
const SQLITE_ROWS: usize = 200;

impl<R> Columns<R> {
    fn all(&self) -> impl Iterator<Item = &'static Column<R>> {
        self.0.iter().copied().flatten()
    }

    /// `a, b, c`.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.all().map(|column| column.name).collect();
        names.join(", ")
    }

    /// `a = from.a, b = from.b`.
    pub fn assignments(&self, from: &str) -> String {
        let assignments: Vec<String> = self.all().map(|column| format!("{0} = {from}.{0}", column.name)).collect();
        assignments.join(", ")
    }

    /// The names of the columns that hold floating-point figures, in their order.
    pub fn figure_names(&self) -> impl Iterator<Item = &'static str> {
        self.all().filter(|column| matches!(column.get, Get::Float(_))).map(|column| column.name)
    }

    /// The floating-point figures of a row, in their order.
    pub fn figures(&self, row: &R) -> Vec<Option<f64>> {
        let figure = |column: &'static Column<R>| match column.get {
            Get::Float(get) => Some(get(row)),
            _ => None,
        };
        self.all().filter_map(figure).collect()
    }

    /// Executes a statement on rows, which it knows as `n`, and on further values, `$1` and so on: in one go on PostgreSQL, in
    /// parts on SQLite. Returns how many rows it wrote.
    pub async fn execute(
        &self,
        on: &mut impl Executor,
        name: &'static str,
        rows: &[R],
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let mut written = 0;
        for part in rows.chunks(self.part(on, rows)) {
            written += self.query(on, name, part, sql, values).await?;
        }
        Ok(written)
    }

    /// The same, of a statement that returns rows.
    pub async fn fetch<T>(
        &self,
        on: &mut impl Executor,
        name: &'static str,
        rows: &[R],
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        for part in rows.chunks(self.part(on, rows)) {
            found.extend(self.query(on, name, part, sql, values).all(&read).await?);
        }
        Ok(found)
    }

    fn part(&self, on: &mut impl Executor, rows: &[R]) -> usize {
        match on.session() {
            Session::Postgres(_) => rows.len().max(1),
            Session::Sqlite(_) => SQLITE_ROWS,
        }
    }

    fn query<'q>(
        &self,
        on: &'q mut impl Executor,
        name: &'static str,
        rows: &'q [R],
        sql: &str,
        values: &[Value<'q>],
    ) -> Query<'q> {
        let own = values.iter().cloned();
        match on.session() {
            Session::Postgres(_) => {
                let types: Vec<String> = self
                    .all()
                    .zip(values.len() + 1..)
                    .map(|(column, i)| format!("${i}::{}[]", column.get.postgres_type()))
                    .collect();
                let rows = self.all().map(|column| column.get.array(rows));
                let unnest = format!("select * from unnest({})", types.join(", "));
                on.query(name, format!("with n ({}) as ({unnest}) {sql}", self.names()), own.chain(rows))
            }
            Session::Sqlite(_) => {
                let width = self.all().count();
                // Numbered variables are looked up one by one: among thousands of rows they are left without numbers.
                let row = format!("({})", vec!["?"; width].join(", "));
                let variables = vec![row.as_str(); rows.len()].join(", ");
                let mut sql = sql.to_owned();
                for i in (1..=values.len()).rev() {
                    sql = sql.replace(&format!("${i}"), &format!("?{}", width * rows.len() + i));
                }
                let cells = rows.iter().flat_map(|row| self.all().map(|column| column.get.value(row)));
                let sql = format!("with n ({}) as (values {variables}) {sql}", self.names());
                let query = on.query(name, sql, cells.chain(own));
                if rows.len() == SQLITE_ROWS { query } else { query.once() }
            }
        }
    }
}

impl<R> Get<R> {
    fn postgres_type(&self) -> &'static str {
        match self {
            Get::Text(_) => "text",
            Get::Json(_) => "jsonb",
            Get::Integer(_) => "bigint",
            Get::Float(_) => "float8",
            Get::Bytes(_) => "bytea",
            Get::Time(_) => "timestamptz",
        }
    }

    fn value<'r>(&self, row: &'r R) -> Value<'r> {
        match self {
            Get::Text(get) => Value::Text(get(row)),
            Get::Json(get) => Value::Text(Some(get(row).into())),
            Get::Integer(get) => Value::Integer(get(row)),
            Get::Float(get) => Value::Float(get(row)),
            Get::Bytes(get) => Value::Bytes(get(row)),
            Get::Time(get) => Value::Time(get(row)),
        }
    }

    fn array<'r>(&self, rows: &'r [R]) -> Value<'r> {
        match self {
            Get::Text(get) => Value::Texts(rows.iter().map(get).collect()),
            Get::Json(get) => Value::Texts(rows.iter().map(|row| Some(get(row).into())).collect()),
            Get::Integer(get) => Value::Integers(rows.iter().map(get).collect()),
            Get::Float(get) => Value::Floats(rows.iter().map(get).collect()),
            Get::Bytes(get) => Value::Blobs(rows.iter().map(get).collect()),
            Get::Time(get) => Value::Times(rows.iter().map(get).collect()),
        }
    }
}
