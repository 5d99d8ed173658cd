//! The transaction of a rebuild: a batch of all that is stored, page by page, with the store to itself.

use std::collections::BTreeMap;

use shrinkd_core::{Grouping, PopulationName};

use super::estimates::{self, RAW_COLUMNS};
use super::query::values;
use super::{Ingest, Store, StoreError, cells, changes, experiments, ingest, populations, settings, statistics};
use crate::refit::RefitState;
use crate::row::{BlockChange, RawEstimate, StoreSettings, StoredExperiment};

/// A rebuild under way. Dropped without a commit, nothing of it has happened.
pub struct Rebuild {
    /// What is computed anew is written as a batch is.
    pub batch: Ingest,
    grouping: Grouping,
}

/// By population and experiment, in the order of the variants.
pub type RawEstimates = BTreeMap<(String, String), Vec<RawEstimate>>;

impl Store {
    /// Begins the transaction of a rebuild: waits for all batches, refits and pages under way, and keeps those that come
    /// until it has ended. The settings of the store become those that it was opened with, and its cells and the log of changes go.
    /// Also returns the settings that it had; a store that nobody has filled has none.
    ///
    /// First batches and then populations are locked out, each in the order that everybody else keeps too. Partitions are
    /// not: they can be claimed meanwhile, as rebalances need it.
    pub async fn begin_rebuild(&self) -> Result<(Rebuild, Option<StoreSettings>), StoreError> {
        let mut transaction = self.pools.begin().await?;
        ingest::lock(&mut transaction, ingest::ALONE).await?;
        let sql = "select population_id from populations order by population_id {for update}";
        transaction.query("rebuild: lock populations", sql, []).await?;
        let replaced = settings::replace(&mut transaction, &self.settings).await?;
        cells::delete(&mut transaction).await?;
        changes::delete(&mut transaction).await?;
        let batch = Ingest::within(transaction).await?;
        Ok((Rebuild { batch, grouping: self.settings.grouping.clone() }, replaced))
    }
}

impl Rebuild {
    pub async fn count_experiments(&mut self) -> Result<u64, StoreError> {
        let on = &mut self.batch.transaction;
        let sql = "select count(*) as experiments from experiments";
        on.query("rebuild: count", sql, []).one(|row| row.get("experiments")).await
    }

    pub async fn count_populations(&mut self) -> Result<u64, StoreError> {
        populations::count(&mut self.batch.transaction).await
    }

    /// What is stored of the experiments after this one, in key order, of at most `limit` of them.
    pub async fn experiments_after(
        &mut self,
        after: &str,
        limit: usize,
    ) -> Result<BTreeMap<String, StoredExperiment>, StoreError> {
        let condition = "where experiment_id > $1 order by experiment_id limit $2";
        let values = values![after, limit as i64].into();
        experiments::read(&mut self.batch.transaction, condition, values, false).await
    }

    /// What the estimates of each block say of it, by population and experiment, of the experiments after one up to another.
    pub async fn raw_estimates(&mut self, after: &str, last: &str) -> Result<RawEstimates, StoreError> {
        let on = &mut self.batch.transaction;
        // Block by block: a join reads all estimates for every page, which `offset 0` keeps PostgreSQL from.
        let sql = format!(
            "select e.population_id, e.experiment_id, e.variant, {}
             from blocks as b {}
             where b.experiment_id > $1 and b.experiment_id <= $2 and b.block is not null
             order by e.variant",
            RAW_COLUMNS.names("e."),
            match on.is_postgres() {
                true => "cross join lateral (select * from effect_estimates as e
                                             where e.population_id = b.population_id and e.experiment_id = b.experiment_id
                                               and e.commit_id = b.commit_id offset 0) as e",
                false => "join effect_estimates as e on e.population_id = b.population_id
                              and e.experiment_id = b.experiment_id and e.commit_id = b.commit_id",
            }
        );
        let rows = on.query("rebuild: read estimates", sql, values![after, last]).all(|row| {
            let block: (String, String) = (row.get("population_id")?, row.get("experiment_id")?);
            Ok((block, estimates::read_raw(row)?))
        });
        let mut by_block = RawEstimates::new();
        for (block, estimate) in rows.await? {
            by_block.entry(block).or_default().push(estimate);
        }
        Ok(by_block)
    }

    /// The blocks of a population after an experiment, at most `limit`, each as a change that puts it in; and the last of their
    /// experiments.
    pub async fn blocks_after(
        &mut self,
        population: &PopulationName,
        after: &str,
        limit: i64,
    ) -> Result<(Vec<BlockChange>, Option<String>), StoreError> {
        changes::blocks_after(&mut self.batch.transaction, population, after, limit, &self.grouping).await
    }

    /// Writes the statistics of populations: counts, and cells of those that have some.
    pub async fn write_statistics(&mut self, states: &BTreeMap<PopulationName, RefitState>) -> Result<(), StoreError> {
        statistics::write_statistics(&mut self.batch.transaction, states).await
    }

    /// Once all is written: removes estimates without a block and populations without one, whose number it returns, and
    /// requests that the others are refitted and diagnosed.
    pub async fn finish(&mut self) -> Result<u64, StoreError> {
        let on = &mut self.batch.transaction;
        let sql = "delete from effect_estimates as e
                   where not exists (select 1 from blocks as b
                                     where b.population_id = e.population_id and b.experiment_id = e.experiment_id
                                       and b.commit_id = e.commit_id and b.block is not null)";
        on.query("rebuild: delete estimates", sql, []).await?;
        let sql = "delete from current_population_fits as f
                   where not exists (select 1 from blocks as b where b.population_id = f.population_id and b.block is not null)";
        on.query("rebuild: delete fits", sql, []).await?;
        let sql = "delete from populations as p
                   where not exists (select 1 from blocks as b where b.population_id = p.population_id and b.block is not null)";
        let emptied = on.query("rebuild: delete populations", sql, []).await?;
        // Passes under way have read blocks as they were: nobody owns them any more. What was left to them is written.
        let sql = "update populations
                   set refit_due_at = {now}, changed_at = {clock}, diagnosed_at = null, pass_owner = null,
                       pass_touched_at = null, unpublished = 0, pass_unpublished = 0, unpublished_at = null";
        on.query("rebuild: request refits", sql, []).await?;
        Ok(emptied)
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        self.batch.commit().await
    }
}
