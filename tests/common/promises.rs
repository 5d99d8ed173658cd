//! Promises that both databases keep.

/// Makes two tests of every promise, an `async fn promise<D: Database>(database: &D)`: one for each store.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod on_sqlite { $(crate::common::promises!(@test $promise, crate::common::database::SqliteDatabase);)* }
        mod on_postgres { $(crate::common::promises!(@test $promise, crate::common::database::PostgresDatabase);)* }
    };
    (@test $promise:ident, $database:ty) => {
        #[tokio::test]
        async fn $promise() {
            use crate::common::database::Database;
            let Some(database) = <$database>::create().await else { return };
            super::$promise(&database).await;
            database.remove().await;
        }
    };
}
pub(crate) use promises;
