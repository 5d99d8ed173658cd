//! Many rows in one statement: what each statement costs by itself is many times what a row costs.

use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

/// Rows of one statement. Their columns must fit SQLite's 32,766 variables.
const ROWS: usize = 200;

/// The columns of one row, to be bound one after the other.
pub(super) type Columns<'a> = Separated<'a, Sqlite, &'static str>;

/// Executes `head values (..), (..) tail` for all rows, as often as it takes; returns how many rows it wrote.
pub(super) async fn write<T>(
    connection: &mut SqliteConnection,
    head: &str,
    rows: &[T],
    mut bind: impl FnMut(&mut Columns<'_>, &T),
    tail: &str,
) -> Result<u64, sqlx::Error> {
    let mut written = 0;
    for rows in rows.chunks(ROWS) {
        let mut query = QueryBuilder::new(head);
        query.push_values(rows, |mut columns, row| bind(&mut columns, row)).push(tail);
        // Only the full ones come again.
        let query = query.build().persistent(rows.len() == ROWS);
        written += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(written)
}
