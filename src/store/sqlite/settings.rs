//! Statements on `store_settings`, the one row of what the store is filled with.

use shrinkd_core::Grouping;
use sqlx::SqliteConnection;

use super::{classify, json_array};
use crate::store::{StoreError, StoreSettings, settings};

/// Makes these the settings of a store that has none yet.
pub(super) async fn put_in(connection: &mut SqliteConnection, settings: &StoreSettings) -> Result<(), StoreError> {
    sqlx::query(
        "insert into store_settings (arithmetic_version, grouping_labels, one_per_experiment_seed) values ($1, $2, $3)
         on conflict do nothing",
    )
    .bind(settings.arithmetic_version)
    .bind(json_array(&settings.grouping.labels))
    .bind(settings.grouping.one_per_experiment_seed as i64)
    .execute(connection)
    .await
    .map_err(|error| classify("cannot write store_settings", error))?;
    Ok(())
}

pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Option<StoreSettings>, StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged {
        what: "store_settings.grouping.labels",
        detail: error.to_string(),
    };
    let row: Option<(u8, String, i64)> =
        sqlx::query_as("select arithmetic_version, grouping_labels, one_per_experiment_seed from store_settings")
            .fetch_optional(connection)
            .await
            .map_err(|error| classify("cannot read store_settings", error))?;
    let Some((arithmetic_version, grouping_labels, one_per_experiment_seed)) = row else { return Ok(None) };
    let grouping_labels = serde_json::from_str(&grouping_labels).map_err(damaged)?;
    Ok(Some(StoreSettings {
        arithmetic_version,
        grouping: Grouping { labels: grouping_labels, one_per_experiment_seed: one_per_experiment_seed as u64 },
    }))
}

/// Refuses a store that is filled with other settings, as the transaction sees it.
pub(super) async fn check(connection: &mut SqliteConnection, own: &StoreSettings) -> Result<(), StoreError> {
    settings::check(own, read(connection).await?)
}

/// Makes these the settings of the store, and returns those that it had.
pub(super) async fn replace(
    connection: &mut SqliteConnection,
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
