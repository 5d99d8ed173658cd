//! Statements: their values, their marks, and the rows that they return.
//!
//! Statements are SQL that both databases take, with values as `$1`, `$2`, .. and the following marks:
//!
//! | mark | PostgreSQL | SQLite |
//! | --- | --- | --- |
//! | `{now}` | `now()`: when the transaction began, by the server's clock | the same by the clock of this process, bound as a value |
//! | `{clock}` | `clock_timestamp()`: when the statement is executed | the same, to the millisecond |
//! | `{30 s ago}` | `now() - interval '30 s'` | the same, to the millisecond |
//! | `{any $1}` | `= any($1)` | `in (select value from json_each($1))` |
//! | `{json $1}` | `cast($1 as jsonb)` | `$1` |
//! | `{for update}` | `for update` | nothing: there is one writer at a time |
//! | `{for no key update}`, `{for no key update skip locked}` | the same | nothing, likewise |
//! | `{for share of b}` | the same | nothing, likewise |
//! | `{s since a.time}` | the seconds from then to `now()`, as a float | the same, to the millisecond |
//! | `{s from now $1}` | `now() + make_interval(secs => $1)` | the same, to the millisecond |
//!
//! Each has a name, which precedes it in a comment: `/* ingest: fence */`. By that it is known in error messages, in
//! `pg_stat_activity`, and to tests and benchmarks.

use std::borrow::Cow;
use std::pin::Pin;

use shrinkd_core::{ExperimentKind, PopulationName, Scale, unpack};
use shrinkd_model::{Correlation, Direction, Measure, Part, Verdict};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, PgConnection, Postgres, Row as _, Sqlite, SqliteConnection, ValueRef as _};
use time::{OffsetDateTime, UtcOffset};

use super::StoreError;
use super::database::Transaction;
use super::error::{classify, unreadable};
use crate::row::FitStatus;
use crate::stream::{Epoch, NextOffset};

/// A value of a statement, or a list of them: an array on PostgreSQL, JSON on SQLite.
#[derive(Clone)]
pub(super) enum Value<'v> {
    Text(Option<Cow<'v, str>>),
    Integer(Option<i64>),
    Float(Option<f64>),
    Bytes(Option<Cow<'v, [u8]>>),
    Time(Option<OffsetDateTime>),
    Boolean(Option<bool>),
    Texts(Vec<Option<Cow<'v, str>>>),
    Integers(Vec<Option<i64>>),
    Floats(Vec<Option<f64>>),
    Blobs(Vec<Option<Cow<'v, [u8]>>>),
    Booleans(Vec<Option<bool>>),
    Times(Vec<Option<OffsetDateTime>>),
}

/// The values of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::store::query::Value::from($value)),*] };
}
pub(super) use values;

/// Reads a struct from a row: each field from the column of its name, or from the one that is given, or with a function, as
/// in `record!(CurrentFit: correlation, effects, fitted_at = "computed_at"; mu: |row| summary(row, "mu"))`.
macro_rules! record {
    ($record:ident: $($field:ident $(= $column:literal)?),* $(; $($other:ident: $read:expr),*)?) => {
        |row: &$crate::store::query::Row| Ok($record {
            $($field: row.get(record!(@ $field $($column)?))?,)*
            $($($other: $read(row)?),*)?
        })
    };
    (@ $field:ident) => { stringify!($field) };
    (@ $field:ident $column:literal) => { $column };
}
pub(super) use record;

macro_rules! value_from {
    ($($from:ty, $value:ident => $to:expr;)*) => {
        $(impl<'v> From<$from> for Value<'v> {
            fn from($value: $from) -> Value<'v> {
                $to
            }
        })*
    };
}

value_from! {
    &'v str, text => Value::Text(Some(text.into()));
    &'v String, text => Value::Text(Some(text.into()));
    String, text => Value::Text(Some(text.into()));
    i16, number => Value::Integer(Some(number.into()));
    i64, number => Value::Integer(Some(number));
    bool, flag => Value::Boolean(Some(flag));
    OffsetDateTime, time => Value::Time(Some(time));
    Vec<String>, texts => Value::Texts(texts.into_iter().map(|text| Some(text.into())).collect());
    Vec<i64>, numbers => Value::Integers(numbers.into_iter().map(Some).collect());
}

/// A statement with its values.
pub(super) struct Query<'c> {
    transaction: &'c mut Transaction,
    name: &'static str,
    sql: Cow<'static, str>,
    values: Vec<Value<'c>>,
    is_cached: bool,
}

impl Transaction {
    /// A statement with its values, in the order of `$1`, `$2`, ..: see `values!`.
    pub fn query<'c>(
        &'c mut self,
        name: &'static str,
        sql: impl Into<Cow<'static, str>>,
        values: impl IntoIterator<Item = Value<'c>>,
    ) -> Query<'c> {
        Query { transaction: self, name, sql: sql.into(), values: values.into_iter().collect(), is_cached: true }
    }
}

/// A statement as a database takes it.
enum Prepared<'c> {
    Postgres(&'c mut PgConnection, sqlx::query::Query<'static, Postgres, PgArguments>),
    Sqlite(&'c mut SqliteConnection, sqlx::query::Query<'static, Sqlite, SqliteArguments>),
}

/// Awaited, a statement is executed; the result is how many rows it wrote.
impl<'c> IntoFuture for Query<'c> {
    type Output = Result<u64, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let name = self.name;
            let done = match self.prepare()? {
                Prepared::Postgres(on, query) => query.execute(on).await.map(|done| done.rows_affected()),
                Prepared::Sqlite(on, query) => query.execute(on).await.map(|done| done.rows_affected()),
            };
            done.map_err(|error| classify(name, error))
        })
    }
}

impl<'c> Query<'c> {
    /// Does not keep the prepared statement: it does not come again.
    pub fn once(mut self) -> Query<'c> {
        self.is_cached = false;
        self
    }

    /// Every row, read by `read`.
    pub async fn all<T>(self, read: impl Fn(&Row) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
        let name = self.name;
        let rows: Result<Vec<Row>, sqlx::Error> = match self.prepare()? {
            Prepared::Postgres(on, query) => {
                query.fetch_all(on).await.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
            Prepared::Sqlite(on, query) => {
                query.fetch_all(on).await.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
        };
        rows.map_err(|error| classify(name, error))?.iter().map(read).collect()
    }

    /// The first row, where there is one.
    pub async fn optional<T>(self, read: impl Fn(&Row) -> Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        Ok(self.all(read).await?.into_iter().next())
    }

    /// The first row, of a statement that always has one.
    pub async fn one<T>(self, read: impl Fn(&Row) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let name = self.name;
        self.optional(read).await?.ok_or_else(|| classify(name, sqlx::Error::RowNotFound))
    }

    fn prepare(self) -> Result<Prepared<'c>, StoreError> {
        let Query { transaction, name, sql, mut values, is_cached } = self;
        let invalid = |error| classify(name, sqlx::Error::Encode(error));
        let sql = format!("/* {name} */ {sql}");
        Ok(match transaction {
            Transaction::Postgres(connection) => {
                let sql = replace_marks(sql, POSTGRES_MARKS);
                let mut arguments = PgArguments::default();
                values.into_iter().try_for_each(|value| bind_postgres(&mut arguments, value)).map_err(invalid)?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                Prepared::Postgres(connection, query.persistent(is_cached))
            }
            Transaction::Sqlite(connection, began) => {
                let mut sql = replace_marks(sql, SQLITE_MARKS);
                if sql.contains("{now}") {
                    values.push((*began).into());
                    sql = sql.replace("{now}", &format!("?{}", values.len()));
                }
                let mut arguments = SqliteArguments::default();
                values.into_iter().try_for_each(|value| bind_sqlite(&mut arguments, value)).map_err(invalid)?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                Prepared::Sqlite(connection, query.persistent(is_cached))
            }
        })
    }
}

/// What the marks of a statement stand for: in the first column the mark, or how one begins that has a value in it.
type Marks = [(&'static str, &'static str, &'static str)];

const POSTGRES_MARKS: &Marks = &[
    ("{now}", "now()", ""),
    ("{clock}", "clock_timestamp()", ""),
    ("{30 s ago}", "now() - interval '30 s'", ""),
    ("{for update}", "for update", ""),
    ("{for no key update}", "for no key update", ""),
    ("{for share of b}", "for share of b", ""),
    ("{for no key update skip locked}", "for no key update skip locked", ""),
    ("{s from now ", "now() + make_interval(secs => ", ")"),
    ("{s since ", "cast(extract(epoch from now() - ", ") as double precision)"),
    ("{any ", "= any(", ")"),
    ("{json ", "cast(", " as jsonb)"),
];

const SQLITE_MARKS: &Marks = &[
    ("{clock}", "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')", ""),
    ("{30 s ago}", "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-30 seconds')", ""),
    ("{for update}", "", ""),
    ("{for no key update}", "", ""),
    ("{for share of b}", "", ""),
    ("{for no key update skip locked}", "", ""),
    ("{s from now ", "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+' || ", " || ' seconds')"),
    ("{s since ", "86400.0 * (julianday('now') - julianday(", "))"),
    ("{any ", "in (select value from json_each(", "))"),
    ("{json ", "", ""),
];

fn replace_marks(mut sql: String, marks: &Marks) -> String {
    for (mark, before, after) in marks {
        while let Some((start, rest)) = sql.split_once(mark) {
            sql = match mark.ends_with('}') {
                true => format!("{start}{before}{rest}"),
                false => {
                    let (value, rest) = rest.split_once('}').unwrap_or((rest, ""));
                    format!("{start}{before}{value}{after}{rest}")
                }
            };
        }
    }
    sql
}

type Bound = Result<(), sqlx::error::BoxDynError>;

fn bind_postgres(arguments: &mut PgArguments, value: Value<'_>) -> Bound {
    match value {
        Value::Text(text) => arguments.add(text),
        Value::Integer(number) => arguments.add(number),
        Value::Float(number) => arguments.add(number),
        Value::Bytes(bytes) => arguments.add(bytes.as_deref()),
        Value::Time(time) => arguments.add(time),
        Value::Boolean(flag) => arguments.add(flag),
        Value::Texts(texts) => arguments.add(texts),
        Value::Integers(numbers) => arguments.add(numbers),
        Value::Floats(numbers) => arguments.add(numbers),
        Value::Blobs(blobs) => arguments.add(blobs.iter().map(|bytes| bytes.as_deref()).collect::<Vec<_>>()),
        Value::Times(times) => arguments.add(times),
        Value::Booleans(flags) => arguments.add(flags),
    }
}

fn bind_sqlite(arguments: &mut SqliteArguments, value: Value<'_>) -> Bound {
    match value {
        Value::Text(text) => arguments.add(text),
        Value::Integer(number) => arguments.add(number),
        Value::Float(number) => arguments.add(number),
        Value::Bytes(bytes) => arguments.add(bytes),
        Value::Time(time) => arguments.add(time.map(timestamp)),
        Value::Boolean(flag) => arguments.add(flag),
        Value::Texts(texts) => arguments.add(serde_json::to_string(&texts)?),
        Value::Integers(numbers) => arguments.add(serde_json::to_string(&numbers)?),
        Value::Floats(_) | Value::Blobs(_) | Value::Times(_) | Value::Booleans(_) => {
            Err("SQLite has no such list".into())
        }
    }
}

/// The one form that times have in SQLite's tables: RFC 3339 in UTC with microseconds, which sorts as time does.
fn timestamp(time: OffsetDateTime) -> String {
    // Only times whose year has four digits in UTC come this far.
    let utc = time.checked_to_offset(UtcOffset::UTC).unwrap_or(time);
    let (year, month, day) = utc.to_calendar_date();
    let (hour, minute, second, microsecond) = utc.to_hms_micro();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{microsecond:06}Z", u8::from(month))
}

/// A row of either database.
pub(super) enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

/// What can be read from a column.
pub(super) trait Field: Sized {
    fn read(row: &Row, column: &str) -> Result<Self, StoreError>;
}

impl<T: Field> Field for Option<T> {
    fn read(row: &Row, column: &str) -> Result<Option<T>, StoreError> {
        let is_null = match row {
            Row::Postgres(row) => row.try_get_raw(column).map(|value| value.is_null()),
            Row::Sqlite(row) => row.try_get_raw(column).map(|value| value.is_null()),
        };
        match is_null.map_err(|error| unreadable(column, error))? {
            true => Ok(None),
            false => T::read(row, column).map(Some),
        }
    }
}

macro_rules! stored_as_they_are {
    ($($field:ty),*) => {
        $(impl Field for $field {
            fn read(row: &Row, column: &str) -> Result<$field, StoreError> {
                let value = match row {
                    Row::Postgres(row) => row.try_get(column),
                    Row::Sqlite(row) => row.try_get(column),
                };
                value.map_err(|error| unreadable(column, error))
            }
        })*
    };
}

stored_as_they_are!(String, i16, i32, i64, f64, bool, Vec<u8>, OffsetDateTime);

macro_rules! stored_as {
    ($($field:ty, $value:ident: $stored:ty => $read:expr;)*) => {
        $(impl Field for $field {
            fn read(row: &Row, column: &str) -> Result<$field, StoreError> {
                let $value: $stored = row.get(column)?;
                $read.map_err(|detail: String| unreadable(column, detail))
            }
        })*
    };
}

stored_as! {
    u8, number: i64 => Ok(number as u8);
    // Counts and revisions are never below 0.
    u64, number: i64 => Ok(number as u64);
    NextOffset, offset: i64 => Ok(NextOffset(offset));
    Epoch, epoch: i64 => Ok(Epoch(epoch));
    PopulationName, name: String => name.parse().map_err(|error| format!("{error}"));
    Scale, name: String => named(&name, Scale::ALL, Scale::as_str);
    Correlation, name: String => named(&name, Correlation::ALL, Correlation::as_str);
    Part, name: String => named(&name, Part::ALL, Part::as_str);
    Direction, name: String => named(&name, Direction::ALL, Direction::as_str);
    ExperimentKind, name: String => named(&name, ExperimentKind::ALL, ExperimentKind::as_str);
    Verdict, name: String => named(&name, Verdict::ALL, Verdict::as_str);
    Measure, name: String => named(&name, Measure::ALL, Measure::as_str);
    FitStatus, name: String => named(&name, FitStatus::ALL, FitStatus::as_str);
}

/// The value that a text names.
fn named<T: Copy, const N: usize>(name: &str, all: [T; N], as_str: fn(T) -> &'static str) -> Result<T, String> {
    all.into_iter().find(|value| as_str(*value) == name).ok_or_else(|| format!("unknown value `{name}`"))
}

impl Row {
    /// The value of a column.
    pub fn get<T: Field>(&self, column: &str) -> Result<T, StoreError> {
        T::read(self, column)
    }

    /// A value that is stored as JSON, in this column of that table.
    pub fn json<T: serde::de::DeserializeOwned>(&self, table: &str, column: &str) -> Result<T, StoreError> {
        let value = serde_json::from_str(&self.get::<String>(column)?);
        value.map_err(|error| unreadable(&format!("{table}.{column}"), error))
    }

    /// A value that is stored packed, in this column of that table.
    pub fn unpack<T: serde::de::DeserializeOwned>(&self, table: &str, column: &'static str) -> Result<T, StoreError> {
        let value = unpack(column, &self.get::<Vec<u8>>(column)?);
        value.map_err(|error| unreadable(&format!("{table}.{column}"), error))
    }
}
