//! `store_settings`, the one row of what the contents of a database were computed with.

use shrinkd_core::Grouping;

use super::database::Transaction;
use super::error::unreadable;
use super::query::{Row, record, values};
use super::{Store, StoreError};
use crate::row::StoreSettings;

impl Store {
    /// Checks that the database is filled with the store's settings; one that nobody has filled takes them on. Nothing is
    /// written to one that has settings: whoever only reads may not.
    pub(super) async fn check_settings(&self) -> Result<(), StoreError> {
        if read(&mut self.pools.read().await?).await?.is_none() {
            let mut transaction = self.pools.begin().await?;
            put_in(&mut transaction, &self.settings).await?;
            transaction.commit("settings: commit").await?;
        }
        check(&mut self.pools.read().await?, &self.settings).await
    }
}

/// Makes these the settings of a database that has none yet.
async fn put_in(on: &mut Transaction, settings: &StoreSettings) -> Result<(), StoreError> {
    let sql =
        "insert into store_settings (arithmetic_version, grouping_labels, one_per_experiment_seed) values ($1, $2, $3)
         on conflict do nothing";
    let Grouping { labels, one_per_experiment_seed } = settings.grouping.clone();
    let values = values![i16::from(settings.arithmetic_version), labels, one_per_experiment_seed as i64];
    on.query("settings: put in", sql, values).await.map(drop)
}

/// The settings of the database, if it has any.
pub(super) async fn read(on: &mut Transaction) -> Result<Option<StoreSettings>, StoreError> {
    let labels = match on.is_postgres() {
        true => "cast(array_to_json(grouping_labels) as text)",
        false => "grouping_labels",
    };
    let sql = format!(
        "select cast(arithmetic_version as bigint) as arithmetic_version, {labels} as grouping_labels,
                one_per_experiment_seed
         from store_settings"
    );
    let labels = |row: &Row| row.json("store_settings", "grouping_labels");
    let grouping = record!(Grouping: one_per_experiment_seed; labels: labels);
    let settings = record!(StoreSettings: arithmetic_version; grouping: grouping);
    on.query("settings: read", sql, []).optional(settings).await
}

/// Refuses a database that is filled with other settings, as the transaction sees it.
pub(super) async fn check(on: &mut Transaction, own: &StoreSettings) -> Result<(), StoreError> {
    match read(on).await? {
        Some(stored) if stored == *own => Ok(()),
        Some(stored) => Err(StoreError::Settings { stored: stored.to_string(), found: own.to_string() }),
        None => Err(unreadable("store_settings", "it has no row")),
    }
}

/// Makes these the settings of the database, and returns those that it had.
pub(super) async fn replace(on: &mut Transaction, own: &StoreSettings) -> Result<Option<StoreSettings>, StoreError> {
    let replaced = read(on).await?;
    on.query("settings: replace", "delete from store_settings", []).await?;
    put_in(on, own).await?;
    Ok(replaced)
}
