//! Whole publishes: a pass through the blocks of a population, page by page.

use std::collections::BTreeSet;

use shrinkd_core::PopulationName;
use time::OffsetDateTime;

use super::experiments::read_properties;
use super::query::{Row, record, values};
use super::{Store, StoreError, estimates, fits, settings};
use crate::row::{BlockToEstimate, BlockToPublish, CellDiagnostics, DuePass, EstimateRow, Pass, PassDiagnostics};

impl Store {
    /// Populations that wait for a whole publish, or for diagnostics of all of their blocks because these are older than
    /// `diagnosed_before` and blocks have changed since. A pass of another worker does not wait; one that the owner itself
    /// has left does.
    pub async fn due_passes(&self, diagnosed_before: OffsetDateTime, owner: &str) -> Result<Vec<DuePass>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select population_id, is_diagnosis_due
                   from (select *, diagnosed_at is null or diagnosed_at < $1 and diagnosed_changes <> changes
                             as is_diagnosis_due
                         from populations) as p
                   where published_fit_id is not null and (publish_cursor is not null or is_diagnosis_due)
                     and (pass_owner is null or pass_owner = $2 or pass_touched_at < {30 s ago})
                   order by population_id";
        let read = record!(DuePass: population = "population_id", is_diagnosis_due);
        reader.query("publish: due passes", sql, values![diagnosed_before, owner]).all(read).await
    }

    /// Populations whose whole publish is due or under way, whoever is at it.
    pub async fn publishing_populations(&self) -> Result<BTreeSet<PopulationName>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select population_id from populations where publish_cursor is not null";
        let publishing = reader.query("publish: under way", sql, []).all(|row| row.get("population_id")).await?;
        Ok(publishing.into_iter().collect())
    }

    /// Takes a population for a pass through its blocks, with the fit that is to be published and where to go on; `None`
    /// where another worker is at it. Returns once no ingest is under way that has read an earlier fit.
    ///
    /// # Errors
    /// [`StoreError::Settings`] where the store was rebuilt with other settings.
    pub async fn begin_pass(&self, population: &PopulationName, owner: &str) -> Result<Option<Pass>, StoreError> {
        let mut transaction = self.pools.begin().await?;
        let sql = "update populations set pass_owner = $2, pass_touched_at = {now}
                   where population_id = $1 and published_fit_id is not null
                     and (pass_owner is null or pass_owner = $2 or pass_touched_at < {30 s ago})
                   returning publish_cursor";
        let begun = transaction.query("publish: begin a pass", sql, values![population.to_string(), owner]);
        let cursor: Option<Option<String>> = begun.optional(|row| row.get("publish_cursor")).await?;
        let Some(cursor) = cursor else { return Ok(None) };
        // After the row, which a rebuild holds until its settings can be seen.
        settings::check(&mut transaction, &self.settings).await?;
        let fit = fits::published(&mut transaction, std::slice::from_ref(population)).await?.remove(population);
        transaction.commit("publish: commit").await?;
        let Some(fit) = fit else { return Ok(None) };
        // An ingest that began before the fit was published writes rows with the fit before it. Once all of those have ended,
        // the pass finds their rows; those that come later have the new fit already.
        self.wait_for_ingests().await?;
        Ok(Some(Pass {
            population: population.clone(),
            owner: owner.to_owned(),
            fit,
            is_publish: cursor.is_some(),
            cursor: cursor.unwrap_or_default(),
        }))
    }

    /// The population's blocks after an experiment, in key order, at most `limit`.
    pub async fn blocks_after(
        &self,
        population: &PopulationName,
        after: &str,
        limit: usize,
    ) -> Result<Vec<BlockToPublish>, StoreError> {
        let mut reader = self.pools.read().await?;
        // Looked up one by one: a join reads all experiments for every page, as the planner thinks that cheaper.
        let sql = "select b.experiment_id, b.revision, b.commit_id, b.block, b.direction, b.coverage,
                          (select e.decision from experiments as e where e.experiment_id = b.experiment_id) as decision,
                          (select e.shipped_variant from experiments as e where e.experiment_id = b.experiment_id)
                              as shipped_variant
                   from blocks as b
                   where b.population_id = $1 and b.experiment_id > $2 and b.block is not null
                   order by b.experiment_id limit $3";
        let block = record!(BlockToEstimate:
            experiment_id, revision, shipped_variant;
            population: |_| Ok(population.clone()), measured: |row: &Row| row.unpack("blocks", "block"),
            properties: read_properties);
        let block = record!(BlockToPublish: commit_id, decision; block: block);
        let values = values![population.to_string(), after, limit as i64];
        reader.query("publish: read blocks", sql, values).all(block).await
    }

    /// Writes one page of a whole publish and moves its cursor: rows whose block is still the one that was read and whose
    /// fit is older. Returns how many rows changed, or `None` where the pass was taken by another worker.
    pub async fn write_estimates(
        &self,
        pass: &Pass,
        rows: &[EstimateRow],
        cursor: &str,
    ) -> Result<Option<u64>, StoreError> {
        let mut transaction = self.pools.begin().await?;
        let sql = "update populations
                   set publish_cursor = case when publish_cursor is null then null else $4 end, pass_touched_at = {now}
                   where population_id = $1 and pass_owner = $2 and published_fit_id = $3";
        let values = values![pass.population.to_string(), &pass.owner, pass.fit.fit_id, cursor];
        if transaction.query("publish: move the cursor", sql, values).await? == 0 {
            return Ok(None);
        }
        let written = estimates::rewrite(&mut transaction, pass, rows).await?;
        transaction.commit("publish: commit").await?;
        Ok(Some(written))
    }

    /// Ends a pass: one that saw every block and was to diagnose them, with what it found, if that can be said.
    pub async fn end_pass(
        &self,
        pass: &Pass,
        is_diagnosis: bool,
        diagnostics: Option<&(CellDiagnostics, PassDiagnostics)>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pools.begin().await?;
        let name = pass.population.to_string();
        let sql = "update populations
                   set publish_cursor = null, pass_owner = null, pass_touched_at = null, changed_at = {clock},
                       refit_due_at = case when refit_due_at > {now} then {now} else refit_due_at end,
                       diagnosed_at = case when $4 then {now} else diagnosed_at end,
                       diagnosed_changes = case when $4 then changes else diagnosed_changes end
                   where population_id = $1 and pass_owner = $2 and published_fit_id = $3";
        let values = values![&name, &pass.owner, pass.fit.fit_id, is_diagnosis];
        let ended = transaction.query("publish: end a pass", sql, values).await?;
        if let (Some((cells, found)), 1..) = (diagnostics, ended) {
            fits::write_diagnostics(&mut transaction, &name, pass.fit.fit_id, cells, found).await?;
        }
        transaction.commit("publish: commit").await
    }
}
