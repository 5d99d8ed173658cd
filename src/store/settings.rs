//! `store_settings`, the one row of what the contents of a database were computed with.

use shrinkd_core::Grouping;

use super::database::{Executor, Session};
use super::error::unreadable;
use super::query::values;
use super::{Store, StoreError};
use crate::row::StoreSettings;

impl Store {
    /// Checks that the database is filled with the store's settings; one that nobody has filled takes them on. Nothing is
    /// written to one that has settings: whoever only reads may not.
    pub(super) async fn check_settings(&self) -> Result<(), StoreError> {
        if stored(&mut self.pools.reader().await?).await?.is_none() {
            put_in(&mut self.pools.writer().await?, &self.settings).await?;
        }
        check(&mut self.pools.reader().await?, &self.settings).await
    }
}

/// Makes these the settings of a database that has none yet.
async fn put_in(on: &mut impl Executor, settings: &StoreSettings) -> Result<(), StoreError> {
    let sql =
        "insert into store_settings (arithmetic_version, grouping_labels, one_per_experiment_seed) values ($1, $2, $3)
         on conflict do nothing";
    on.query(
        "settings: put in",
        sql,
        values![
            i16::from(settings.arithmetic_version),
            settings.grouping.labels.clone(),
            settings.grouping.one_per_experiment_seed as i64
        ],
    )
    .await
    .map(drop)
}

/// The settings of the database, if it has any.
pub(super) async fn stored(on: &mut impl Executor) -> Result<Option<StoreSettings>, StoreError> {
    let labels = match on.session() {
        Session::Postgres(_) => "cast(array_to_json(grouping_labels) as text)",
        Session::Sqlite(_) => "grouping_labels",
    };
    let sql = format!(
        "select cast(arithmetic_version as bigint) as arithmetic_version, {labels} as grouping_labels,
                one_per_experiment_seed
         from store_settings"
    );
    on.query("settings: read", sql, [])
        .optional(|row| {
            let labels: String = row.get("grouping_labels")?;
            Ok(StoreSettings {
                arithmetic_version: row.get::<i64>("arithmetic_version")? as u8,
                grouping: Grouping {
                    labels: serde_json::from_str(&labels).map_err(|error| unreadable("grouping_labels", error))?,
                    one_per_experiment_seed: row.unsigned("one_per_experiment_seed")?,
                },
            })
        })
        .await
}

/// Refuses a database that is filled with other settings, as the transaction sees it.
pub(super) async fn check(on: &mut impl Executor, own: &StoreSettings) -> Result<(), StoreError> {
    match stored(on).await? {
        Some(stored) if stored == *own => Ok(()),
        Some(stored) => Err(StoreError::Settings { stored: stored.to_string(), found: own.to_string() }),
        None => Err(unreadable("store_settings", "it has no row")),
    }
}

/// Makes these the settings of the database, and returns those that it had.
pub(super) async fn replace(on: &mut impl Executor, own: &StoreSettings) -> Result<Option<StoreSettings>, StoreError> {
    let replaced = stored(on).await?;
    let sql = "delete from store_settings";
    on.query("settings: replace", sql, []).await?;
    put_in(on, own).await?;
    Ok(replaced)
}
