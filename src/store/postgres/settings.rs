//! Statements on `store_settings`, the one row of what the store is filled with.

use shrinkd_core::Grouping;
use sqlx::PgConnection;

use super::classify;
use crate::store::{StoreError, StoreSettings, settings};

/// Makes these the settings of a store that has none yet.
pub(super) async fn put_in(connection: &mut PgConnection, settings: &StoreSettings) -> Result<(), StoreError> {
    sqlx::query(
        "insert into store_settings (arithmetic_version, grouping_labels, one_per_experiment_seed) values ($1, $2, $3)
         on conflict do nothing",
    )
    .bind(i16::from(settings.arithmetic_version))
    .bind(&settings.grouping.labels)
    .bind(settings.grouping.one_per_experiment_seed as i64)
    .execute(connection)
    .await
    .map_err(|error| classify("cannot write store_settings", error))?;
    Ok(())
}

pub(super) async fn read(connection: &mut PgConnection) -> Result<Option<StoreSettings>, StoreError> {
    let row: Option<(i16, Vec<String>, i64)> =
        sqlx::query_as("select arithmetic_version, grouping_labels, one_per_experiment_seed from store_settings")
            .fetch_optional(connection)
            .await
            .map_err(|error| classify("cannot read store_settings", error))?;
    Ok(row.map(|(arithmetic_version, grouping_labels, one_per_experiment_seed)| StoreSettings {
        arithmetic_version: arithmetic_version as u8,
        grouping: Grouping { labels: grouping_labels, one_per_experiment_seed: one_per_experiment_seed as u64 },
    }))
}

/// Refuses a store that is filled with other settings, as the transaction sees it.
pub(super) async fn check(connection: &mut PgConnection, own: &StoreSettings) -> Result<(), StoreError> {
    settings::check(own, read(connection).await?)
}

/// Makes these the settings of the store, and returns those that it had.
pub(super) async fn replace(
    connection: &mut PgConnection,
    own: &StoreSettings,
) -> Result<Option<StoreSettings>, StoreError> {
    let replaced = read(connection).await?;
    sqlx::query("delete from store_settings")
        .execute(&mut *connection)
        .await
        .map_err(|error| classify("cannot write store_settings", error))?;
    put_in(connection, own).await?;
    Ok(replaced)
}
