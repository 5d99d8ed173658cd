//! Rows that go to PostgreSQL in a COPY, in its binary format ("Binary Format" under COPY in its manual), made of the same columns
//! as every other statement.
//!
//! The server takes a row in for less than half of what one costs it as elements of arrays: it parses nothing, and puts many
//! rows at once into a page and into its log. Few rows are not worth the two answers to wait for.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArgumentBuffer;
use sqlx::{AssertSqlSafe, Encode, PgConnection, Postgres};

use super::StoreError;
use super::columns::{Columns, JSONB};
use super::database::Transaction;
use super::error::classify;
use super::query::Value;

/// Fewer rows go as arrays.
const FEWEST_ROWS: usize = 200;

/// Rows that are sent while the server takes in those before.
const ROWS_IN_MESSAGE: usize = 500;

/// The signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = &(-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

impl<R> Columns<R> {
    /// Executes a statement on rows as [`execute`](Columns::execute) does. Many rows go to PostgreSQL in a COPY into a temporary
    /// table, the stage, of which each name of a statement has its own; its rows are gone when the transaction ends.
    pub async fn stage(
        &self,
        on: &mut Transaction,
        name: &'static str,
        rows: &[R],
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let Some(connection) = on.postgres().filter(|_| rows.len() >= FEWEST_ROWS) else {
            return self.execute(on, name, rows, sql, values).await;
        };
        self.check_finite(name, rows)?;
        let stage: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let stage = format!("pg_temp.stage_{stage}");
        // Without the notice that it is there already.
        let create = format!(
            "/* {name} */ set local client_min_messages = warning;
             create temporary table if not exists {stage} ({}) on commit delete rows;
             delete from {stage}",
            self.definitions()
        );
        let created = sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await;
        created.map_err(|error| classify(name, error))?;
        self.copy_into(connection, name, &stage, rows).await?;
        let sql = format!("with n as (select * from {stage}) {}", self.replace_marks(sql));
        // Planned anew each time, with the sizes that the tables have by now.
        on.query(name, sql, values.iter().cloned()).once().await
    }

    /// Sends rows to a table that has these columns. Returns how many.
    async fn copy_into(
        &self,
        connection: &mut PgConnection,
        name: &'static str,
        table: &str,
        rows: &[R],
    ) -> Result<u64, StoreError> {
        let failed = |error| classify(name, error);
        let copy = format!("/* {name} */ copy {table} ({}) from stdin (format binary)", self.names(""));
        let mut copy = connection.copy_in_raw(&copy).await.map_err(failed)?;
        copy.send(HEADER).await.map_err(failed)?;
        for rows in rows.chunks(ROWS_IN_MESSAGE) {
            match self.binary(rows) {
                Ok(bytes) => copy.send(bytes.as_slice()).await.map_err(failed)?,
                Err(error) => {
                    copy.abort("a value cannot be sent").await.map_err(failed)?;
                    return Err(failed(sqlx::Error::Encode(error)));
                }
            };
        }
        copy.send(TRAILER).await.map_err(failed)?;
        copy.finish().await.map_err(failed)
    }

    /// Each row is the number of its columns (16 bits), then each value after its length (32 bits), which is -1 for null.
    fn binary(&self, rows: &[R]) -> Result<PgArgumentBuffer, BoxDynError> {
        let width = i16::try_from(self.all().count())?.to_be_bytes();
        let mut bytes = PgArgumentBuffer::default();
        for row in rows {
            bytes.extend(width);
            for column in self.all() {
                let start = bytes.len();
                bytes.extend(NULL);
                if column.postgres_type() == JSONB {
                    // The version of the format.
                    bytes.push(1);
                }
                match encode(column.value(row), &mut bytes)? {
                    IsNull::No => {
                        let length = i32::try_from(bytes.len() - start - NULL.len())?.to_be_bytes();
                        bytes[start..start + length.len()].copy_from_slice(&length);
                    }
                    IsNull::Yes => bytes.truncate(start + NULL.len()),
                }
            }
        }
        Ok(bytes)
    }
}

/// A value as it is sent with any statement.
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
