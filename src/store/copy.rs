//! Rows that go to PostgreSQL in a COPY, in its binary format ("Binary Format" under COPY in its manual), made of the same columns
//! as every other statement.
//!
//! A row that is copied into its table costs the server half of what one costs that an insert takes from arrays: nothing is
//! unpacked, many rows at once go into a page and into the log, and no row is looked for that may be in the way. Few rows are not
//! worth the further answers that are waited for.

use std::borrow::Borrow;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArgumentBuffer;
use sqlx::{AssertSqlSafe, Encode, PgConnection, Postgres};

use super::StoreError;
use super::columns::{Columns, JSONB};
use super::database::Transaction;
use super::error::{classify, is_unique_violation};
use super::query::Value;

/// Fewer rows go as arrays: what a COPY saves of them is less than what waiting for its answers may take.
const FEWEST_ROWS: usize = 200;

/// Fewer rows go as arrays: through a stage they would cost the server no less (1.04 of that at 200, 1.03 at 1,000, 0.92 at 2,000, 0.78
/// at 5,000).
const FEWEST_STAGED: usize = 2_000;

/// Rows that are sent at a time.
const ROWS_IN_MESSAGE: usize = 500;

/// The signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// A table whose columns have exactly the types of [`Columns`], and further columns of it with one value for all rows.
#[derive(Clone, Copy)]
pub(super) struct Target<'v> {
    pub table: &'v str,
    pub constants: &'v [(&'static str, Value<'v>)],
}

impl<R> Columns<R> {
    /// Puts new rows into a table: many in a COPY, others with an insert, `sql`, in which constants are `$1` and so on.
    ///
    /// # Errors
    /// If one of them is there already.
    pub async fn insert(
        &self,
        on: &mut Transaction,
        name: &'static str,
        rows: &[impl Borrow<R> + Sync],
        target: Target<'_>,
        sql: &str,
    ) -> Result<u64, StoreError> {
        let Some(connection) = on.postgres().filter(|_| rows.len() >= FEWEST_ROWS) else {
            return self.execute(on, name, rows, sql, &target.values()).await;
        };
        self.check_finite(name, rows)?;
        self.copy(connection, rows, target, name).await.map_err(|error| classify(name, error))
    }

    /// Puts rows into a table of which none should be there: if one is after all, `sql` says what becomes of it.
    pub async fn insert_or(
        &self,
        on: &mut Transaction,
        name: &'static str,
        rows: &[impl Borrow<R> + Sync],
        target: Target<'_>,
        sql: &str,
    ) -> Result<u64, StoreError> {
        let failed = |error| classify(name, error);
        if let Some(connection) = on.postgres().filter(|_| rows.len() >= FEWEST_ROWS) {
            self.check_finite(name, rows)?;
            savepoint(connection, name, "savepoint before_copy").await?;
            match self.copy(connection, rows, target, name).await {
                Err(error) if is_unique_violation(&error) => {}
                result => {
                    let copied = result.map_err(failed)?;
                    savepoint(connection, name, "release savepoint before_copy").await?;
                    return Ok(copied);
                }
            }
            savepoint(connection, name, "rollback to savepoint before_copy").await?;
        }
        self.execute(on, name, rows, sql, &target.values()).await
    }

    /// Executes a statement on rows as [`execute`](Columns::execute) does. Many rows go to PostgreSQL in a COPY into a temporary
    /// table, the stage, of which each name of a statement has its own; its rows are gone when the transaction ends.
    pub async fn stage(
        &self,
        on: &mut Transaction,
        name: &'static str,
        rows: &[impl Borrow<R> + Sync],
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let failed = |error| classify(name, error);
        let Some(connection) = on.postgres().filter(|_| rows.len() >= FEWEST_STAGED) else {
            return self.execute(on, name, rows, sql, values).await;
        };
        self.check_finite(name, rows)?;
        let stage: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let stage = format!("pg_temp.stage_{stage}");
        // Without the notice that it is there already. Rows of an earlier use in this transaction, as in a rebuild, are not deleted but
        // truncated: every later use would read past them.
        let create = format!(
            "/* {name} */ set local client_min_messages = warning;
             create temporary table if not exists {stage} ({}) on commit delete rows;
             do $$ begin if exists (select from {stage}) then truncate {stage}; end if; end $$",
            self.definitions()
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await.map_err(failed)?;
        self.copy(connection, rows, Target { table: &stage, constants: &[] }, name).await.map_err(failed)?;
        let sql = format!("with n as (select * from {stage}) {}", self.replace_marks(sql));
        // Planned anew each time, with the sizes that the tables have by now.
        on.query(name, sql, values.iter().cloned()).once().await
    }

    /// Sends rows to a table. Returns how many.
    async fn copy(
        &self,
        connection: &mut PgConnection,
        rows: &[impl Borrow<R> + Sync],
        Target { table, constants }: Target<'_>,
        name: &'static str,
    ) -> Result<u64, sqlx::Error> {
        let columns = self.all().map(|column| column.name).chain(constants.iter().map(|(name, _)| *name));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let sql = format!("/* {name} */ copy {table} ({columns}) from stdin (format binary)");
        // Before the COPY begins: the server ends no transaction that is silent in the middle of one.
        let parts: Result<Vec<PgArgumentBuffer>, BoxDynError> =
            rows.chunks(ROWS_IN_MESSAGE).map(|rows| self.binary(rows, constants)).collect();
        let parts = parts.map_err(sqlx::Error::Encode)?;
        let mut copy = connection.copy_in_raw(&sql).await?;
        copy.send(HEADER).await?;
        for part in parts {
            copy.send(part.as_slice()).await?;
        }
        copy.send(TRAILER.as_slice()).await?;
        copy.finish().await
    }

    /// Each row is the number of its columns (16 bits), then each value after its length (32 bits), which is -1 for null.
    fn binary(
        &self,
        rows: &[impl Borrow<R>],
        constants: &[(&'static str, Value<'_>)],
    ) -> Result<PgArgumentBuffer, BoxDynError> {
        let width = i16::try_from(self.all().count() + constants.len())?.to_be_bytes();
        let mut bytes = PgArgumentBuffer::default();
        for row in rows {
            bytes.extend(width);
            for column in self.all() {
                let is_json = column.postgres_type() == JSONB;
                append(column.value(row.borrow()), is_json, &mut bytes)?;
            }
            for (_, value) in constants {
                append(value.clone(), false, &mut bytes)?;
            }
        }
        Ok(bytes)
    }
}

impl<'v> Target<'v> {
    /// A table without further columns.
    pub fn table(table: &'v str) -> Target<'v> {
        Target { table, constants: &[] }
    }

    fn values(&self) -> Vec<Value<'v>> {
        self.constants.iter().map(|(_, value)| value.clone()).collect()
    }
}

async fn savepoint(connection: &mut PgConnection, name: &'static str, sql: &str) -> Result<(), StoreError> {
    let done = sqlx::raw_sql(AssertSqlSafe(format!("/* {name} */ {sql}"))).execute(connection).await;
    done.map(drop).map_err(|error| classify(name, error))
}

/// Appends a value after its length.
fn append(value: Value<'_>, is_json: bool, to: &mut PgArgumentBuffer) -> Result<(), BoxDynError> {
    let start = to.len();
    to.extend(NULL);
    if is_json {
        // The version of the format of jsonb.
        to.push(1);
    }
    match encode(value, to)? {
        IsNull::No => {
            let length = i32::try_from(to.len() - start - NULL.len())?.to_be_bytes();
            to[start..start + length.len()].copy_from_slice(&length);
        }
        IsNull::Yes => to.truncate(start + NULL.len()),
    }
    Ok(())
}

/// The bytes of a value, as they are sent with any statement.
fn encode(value: Value<'_>, to: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
    fn one<'v>(value: Option<impl Encode<'v, Postgres>>, to: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        value.map_or(Ok(IsNull::Yes), |value| value.encode(to))
    }
    match value {
        Value::Text(text) => one(text.as_deref(), to),
        Value::Integer(number) => one(number, to),
        Value::Float(number) => one(number, to),
        Value::Bytes(bytes) => one(bytes.as_deref(), to),
        Value::Time(time) => one(time, to),
        Value::Boolean(flag) => one(flag, to),
        Value::Texts(_)
        | Value::Integers(_)
        | Value::Floats(_)
        | Value::Blobs(_)
        | Value::Booleans(_)
        | Value::Times(_) => Err("a list is no value of a column".into()),
    }
}
