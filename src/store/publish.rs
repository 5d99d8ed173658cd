//! Whole publishes: passes through the blocks of populations, page by page.

use std::collections::BTreeSet;

use shrinkd_core::PopulationName;
use time::OffsetDateTime;

use super::columns::{Columns, boolean, integer, text};
use super::error::unreadable;
use super::experiments::read_properties;
use super::query::{Row, record, values};
use super::{Store, StoreError, changes, estimates, fits, settings};
use crate::row::{
    BlockToEstimate, BlockToPublish, DuePass, EndedPass, EstimateRow, Pass, PublishedFit, ReadBlock, UnreadableBlock,
};

/// Where a pass stands after a page: population, fit and experiment.
struct Position {
    population: String,
    fit_id: i64,
    cursor: String,
}

/// Passes of one owner, whose populations are locked in the order of their names, as everybody locks several.
const LOCKED: &str = "p.pass_owner = $1 and coalesce(p.published_fit_id, 0) = n.fit_id
    and p.population_id in (select population_id from populations where population_id in (select name from n)
                            order by population_id {for no key update})";

const POSITIONS: Columns<Position> = Columns::of(&[&[
    text("name", |position| Some(position.population.as_str().into())),
    integer("fit_id", |position| Some(position.fit_id)),
    text("cursor", |position| Some(position.cursor.as_str().into())),
]]);

const ENDED: Columns<EndedPass> = Columns::of(&[&[
    text("name", |ended| Some(ended.pass.population.to_string().into())),
    integer("fit_id", |ended| Some(ended.pass.fit.fit_id)),
    boolean("is_diagnosis", |ended| Some(ended.is_diagnosis)),
    integer("changes", |ended| Some(ended.pass.changes)),
]]);

/// What a pass is begun with.
struct Begun {
    population: PopulationName,
    /// `None` where there is nothing to publish.
    cursor: Option<String>,
    has_unpublished: bool,
    is_fitted: bool,
    changes: i64,
}

impl Store {
    /// Populations that wait for a whole publish; where `diagnosed_before` is given, also those that wait for diagnostics of all of
    /// their blocks, because these are older than that and blocks have changed since. A pass of another worker does not wait; one
    /// that the owner itself has left does.
    pub async fn due_passes(
        &self,
        diagnosed_before: Option<OffsetDateTime>,
        owner: &str,
    ) -> Result<Vec<DuePass>, StoreError> {
        let mut reader = self.pools.read().await?;
        let is_due = match diagnosed_before {
            Some(_) => "(publish_cursor is not null or published_fit_id is not null and is_diagnosis_due)",
            None => "publish_cursor is not null",
        };
        let sql = format!(
            "select population_id, experiments, is_diagnosis_due
             from (select *, published_fit_id is not null
                       and (diagnosed_at is null or diagnosed_at < $2 and diagnosed_changes <> changes) as is_diagnosis_due
                   from populations) as p
             where {is_due} and (pass_owner is null or pass_owner = $1 or pass_touched_at < {{30 s ago}})
             order by population_id"
        );
        let read = record!(DuePass: population = "population_id", experiments, is_diagnosis_due);
        let diagnosed_before = diagnosed_before.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        reader.query("publish: due passes", sql, values![owner, diagnosed_before]).all(read).await
    }

    /// Populations whose whole publish is due or under way, whoever is at it.
    pub async fn publishing_populations(&self) -> Result<BTreeSet<PopulationName>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select population_id from populations where publish_cursor is not null";
        let publishing = reader.query("publish: under way", sql, []).all(|row| row.get("population_id")).await?;
        Ok(publishing.into_iter().collect())
    }

    /// Takes populations for passes through their blocks, each with the fit that is to be published and where to go on; those that
    /// other workers are at are left out. Returns once no ingest is under way that has read an earlier fit.
    ///
    /// # Errors
    /// [`StoreError::Settings`] where the store was rebuilt with other settings.
    pub async fn begin_passes(&self, populations: &[PopulationName], owner: &str) -> Result<Vec<Pass>, StoreError> {
        let mut transaction = self.pools.begin().await?;
        // A pass that begins with the first block will have written all that is unpublished.
        let sql = "update populations
                   set pass_owner = $2, pass_touched_at = {now},
                       pass_unpublished = case when publish_cursor = '' then unpublished else pass_unpublished end,
                       unpublished_at = case when publish_cursor = '' then null else unpublished_at end
                   where population_id in (select population_id from populations where population_id {any $1}
                                           order by population_id {for no key update})
                     and (publish_cursor is not null or published_fit_id is not null)
                     and (pass_owner is null or pass_owner = $2 or pass_touched_at < {30 s ago})
                   returning population_id, publish_cursor, pass_unpublished > 0 as has_unpublished,
                             published_fit_id is not null as is_fitted, changes";
        let begun = transaction.query("publish: begin passes", sql, values![changes::names(populations), owner]);
        let read = record!(Begun:
            population = "population_id", cursor = "publish_cursor", has_unpublished, is_fitted, changes);
        let begun: Vec<Begun> = begun.all(read).await?;
        // After the rows, which a rebuild holds until its settings can be seen.
        settings::check(&mut transaction, &self.settings).await?;
        let names: Vec<PopulationName> = begun.iter().map(|begun| begun.population.clone()).collect();
        let mut fits = fits::published(&mut transaction, &names).await?;
        let is_without_fit = |begun: &&Begun| begun.is_fitted && !fits.contains_key(&begun.population);
        if let Some(Begun { population, .. }) = begun.iter().find(is_without_fit) {
            let why = format!("{population} has one that its history does not have");
            return Err(unreadable("populations.published_fit_id", why));
        }
        transaction.commit("publish: commit").await?;
        if begun.is_empty() {
            return Ok(Vec::new());
        }
        // An ingest that began before the fit was published writes rows with the fit before it. Once all of those have ended,
        // the pass finds their rows; those that come later have the new fit already.
        self.wait_for_ingests().await?;
        let pass = |Begun { population, cursor, has_unpublished, changes, .. }: Begun| Pass {
            owner: owner.to_owned(),
            fit: fits.remove(&population).unwrap_or_else(PublishedFit::none),
            population,
            is_publish: cursor.is_some(),
            has_unpublished,
            changes,
            cursor: cursor.unwrap_or_default(),
        };
        let mut passes: Vec<Pass> = begun.into_iter().map(pass).collect();
        passes.sort_by(|x, y| x.population.cmp(&y.population));
        Ok(passes)
    }

    /// The blocks of populations after an experiment of one of them, in the order of populations and experiments, at most `limit`.
    /// One that cannot be read stands for itself: what it holds keeps no other from being published.
    pub async fn blocks_after(
        &self,
        populations: &[PopulationName],
        (population, experiment): (&str, &str),
        limit: usize,
    ) -> Result<Vec<ReadBlock>, StoreError> {
        let mut reader = self.pools.read().await?;
        // Of one population its index has them in order. Experiments are looked up one by one: a join reads all of them for every
        // page, as the planner thinks that cheaper.
        let of_populations = match populations {
            [one] if one.to_string() == population => {
                "b.population_id = $2 and b.experiment_id > $3 and b.population_id {any $1}"
            }
            _ => "b.population_id {any $1} and (b.population_id, b.experiment_id) > ($2, $3)",
        };
        let sql = format!(
            "select b.population_id, b.experiment_id, b.revision, b.commit_id, b.block, b.direction, b.coverage,
                    (select e.decision from experiments as e where e.experiment_id = b.experiment_id) as decision,
                    (select e.shipped_variant from experiments as e where e.experiment_id = b.experiment_id)
                        as shipped_variant
             from blocks as b
             where {of_populations} and b.block is not null
             order by b.population_id, b.experiment_id limit $4"
        );
        let block = record!(BlockToEstimate:
            experiment_id, revision, shipped_variant;
            population: |row: &Row| row.get("population_id"), measured: |row: &Row| row.unpack("blocks", "block"),
            properties: read_properties);
        let block = record!(BlockToPublish: commit_id, decision; block: block);
        let read = |row: &Row| match block(row) {
            Err(error @ StoreError::Damaged { .. }) => {
                let (population, experiment_id) = (row.get("population_id")?, row.get("experiment_id")?);
                Ok(Err(UnreadableBlock { population, experiment_id, why: error.to_string() }))
            }
            result => result.map(Ok),
        };
        let values = values![changes::names(populations), population, experiment, limit as i64];
        reader.query("publish: read blocks", sql, values).all(read).await
    }

    /// Writes one page of passes of one owner and moves their cursors, each to an experiment. Of a block that is no longer the one
    /// that was read nothing is written. Returns the populations whose pass no other worker has taken, and how many rows changed.
    pub async fn write_estimates(
        &self,
        passes: &[(&Pass, &str)],
        rows: Vec<EstimateRow>,
    ) -> Result<(BTreeSet<PopulationName>, u64), StoreError> {
        let Some((Pass { owner, .. }, _)) = passes.first() else { return Ok((BTreeSet::new(), 0)) };
        let position = |(pass, cursor): &(&Pass, &str)| Position {
            population: pass.population.to_string(),
            fit_id: pass.fit.fit_id,
            cursor: (*cursor).to_owned(),
        };
        let positions: Vec<Position> = passes.iter().map(position).collect();
        let mut transaction = self.pools.begin().await?;
        let sql = format!(
            "update populations as p
             set publish_cursor = case when p.publish_cursor is null then null else n.cursor end, pass_touched_at = {{now}}
             from n where p.population_id = n.name and {LOCKED} returning population_id"
        );
        let owner = [owner.as_str().into()];
        let kept = POSITIONS.fetch(&mut transaction, "publish: move the cursor", &positions, &sql, &owner, |row| {
            row.get("population_id")
        });
        let kept: BTreeSet<PopulationName> = kept.await?.into_iter().collect();
        let kept_passes = passes.iter().filter(|(pass, _)| kept.contains(&pass.population));
        let missing: BTreeSet<&PopulationName> =
            kept_passes.filter(|(pass, _)| pass.has_unpublished).map(|(pass, _)| &pass.population).collect();
        let rows = rows.into_iter().filter(|row| kept.contains(&row.population));
        let (missing, written): (Vec<_>, Vec<_>) = rows.partition(|row| missing.contains(&row.population));
        let written =
            estimates::rewrite(&mut transaction, &written).await? + estimates::put(&mut transaction, &missing).await?;
        transaction.commit("publish: commit").await?;
        Ok((kept, written))
    }

    /// Leaves the passes of one owner to whoever goes on with them, without the wait that an owner that is silent is given.
    pub async fn leave_passes(&self, owner: &str) -> Result<(), StoreError> {
        let mut transaction = self.pools.begin().await?;
        let sql = "update populations set pass_owner = null
                   where population_id in (select population_id from populations where pass_owner = $1
                                           order by population_id {for no key update})
                     and pass_owner = $1";
        transaction.query("publish: leave passes", sql, values![owner]).await?;
        transaction.commit("publish: commit").await
    }

    /// Ends passes of one owner.
    pub async fn end_passes(&self, ended: &[EndedPass]) -> Result<(), StoreError> {
        let Some(EndedPass { pass: Pass { owner, .. }, .. }) = ended.first() else { return Ok(()) };
        let mut transaction = self.pools.begin().await?;
        let sql = format!(
            "update populations as p
             set publish_cursor = null, pass_owner = null, pass_touched_at = null, changed_at = {{clock}},
                 unpublished = p.unpublished - p.pass_unpublished, pass_unpublished = 0,
                 refit_due_at = case when p.refit_due_at > {{now}} then {{now}} else p.refit_due_at end,
                 diagnosed_at = case when n.is_diagnosis then {{now}} else p.diagnosed_at end,
                 diagnosed_changes = case when n.is_diagnosis then n.changes else p.diagnosed_changes end
             from n where p.population_id = n.name and {LOCKED} returning population_id"
        );
        let owner = [owner.as_str().into()];
        let kept =
            ENDED.fetch(&mut transaction, "publish: end passes", ended, &sql, &owner, |row| row.get("population_id"));
        let kept: BTreeSet<PopulationName> = kept.await?.into_iter().collect();
        let diagnosed = ended.iter().filter(|ended| kept.contains(&ended.pass.population));
        fits::write_diagnostics(&mut transaction, diagnosed).await?;
        transaction.commit("publish: commit").await
    }
}
