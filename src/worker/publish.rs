//! The publish loop: passes through all blocks of a population whose fit has moved, or whose estimates batches have left to it. A
//! pass writes the estimates page by page, and computes the diagnostics that need every block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shrinkd_core::{Grouping, PopulationName, ShippedDecisions};
use shrinkd_model::{Thresholds, available_threads, map_chunks};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::WorkerError;
use super::diagnosis::{CHUNK, Diagnosis};
use super::retry::Retryable;
use crate::config::SettingsOf;
use crate::estimate::BlockEstimates;
use crate::panics::caught;
use crate::refit::RefitState;
use crate::row::{
    BlockToEstimate, BlockToPublish, DuePass, EndedPass, EstimateRow, FitStatus, Pass, PublishedFit, ReadBlock,
    UnreadableBlock,
};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Loop, Operation};

/// Blocks of a page, which is held in memory and written in one transaction.
const PAGE: usize = 1_000;

/// Most populations whose passes are made together.
const MOST_IN_GROUP: usize = 100;

/// How often the loop looks for due passes, and for old diagnostics, which takes a scan of all populations.
const INTERVAL: Duration = Duration::from_millis(200);
const DIAGNOSES_INTERVAL: Duration = Duration::from_secs(2);

/// Passes under way, and their diagnoses so far.
type Passes = BTreeMap<PopulationName, Pass>;
type Diagnoses = BTreeMap<PopulationName, Diagnosis>;

/// The loop's state.
#[derive(Clone)]
pub struct PublishLoop {
    pub store: Store,
    pub settings: SettingsOf,
    pub grouping: Grouping,
    pub thresholds: Thresholds,
    pub shipped_decisions: ShippedDecisions,
    /// The age at which diagnostics are recomputed if blocks have changed.
    pub diagnostics_interval: Duration,
    /// Identifies this worker among those that share the store.
    pub owner: String,
    pub telemetry: Telemetry,
}

impl PublishLoop {
    /// Runs due passes until stopped, and retries those that fail.
    ///
    /// # Errors
    /// If the store was rebuilt with other settings, with which this worker must not write.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked_at: Option<Instant> = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.telemetry.health.beat(Loop::Publish);
            let is_look_due = looked_at.is_none_or(|at| at.elapsed() >= DIAGNOSES_INTERVAL);
            let diagnosed_before = is_look_due.then(|| OffsetDateTime::now_utc() - self.diagnostics_interval);
            looked_at = if is_look_due { Some(Instant::now()) } else { looked_at };
            match self.publish_due(diagnosed_before, &stop).await {
                Ok(_) => self.telemetry.health.succeeded(Operation::Publish),
                Err(error @ WorkerError::Store(StoreError::Settings { .. })) => return Err(error),
                Err(error) => {
                    self.telemetry.health.failed(Operation::Publish, error.summary());
                    warn!(%error, "a publish failed, retrying");
                }
            }
        }
        self.telemetry.health.finish(Loop::Publish);
        Ok(())
    }

    /// Publishes every population that is due, many small ones at once; where `diagnosed_before` is given, also recomputes
    /// diagnostics from before that. Returns the number of passes.
    ///
    /// # Errors
    /// If the store fails. A pass that cannot go on because of what a row holds does not stop the others: its error comes last.
    pub async fn publish_due(
        &self,
        diagnosed_before: Option<OffsetDateTime>,
        stop: &CancellationToken,
    ) -> Result<usize, WorkerError> {
        let mut due = self.store.due_passes(diagnosed_before, &self.owner).await?;
        // The small ones first: they are many to a page.
        due.sort_by_key(|due| due.experiments > PAGE as u64);
        let left = Mutex::new(&due[..]);
        let (first, second) = tokio::join!(self.lane(&left, stop), self.lane(&left, stop));
        if stop.is_cancelled() {
            self.store.leave_passes(&self.owner).await?;
        }
        let of_a_row = match (first, second) {
            (Err(error @ WorkerError::Store(StoreError::Settings { .. })), _) | (_, Err(error)) => return Err(error),
            (first, Ok(second)) => first?.or(second),
        };
        of_a_row.map_or(Ok(due.len()), |error| Err(error.into()))
    }

    /// Makes the passes of one group after the other: two lanes do, so that one computes and reads while the other waits for the
    /// database. Returns the first error of a row.
    async fn lane(
        &self,
        left: &Mutex<&[DuePass]>,
        stop: &CancellationToken,
    ) -> Result<Option<StoreError>, WorkerError> {
        let mut of_a_row = None;
        while let Some(group) = next_group(left).filter(|_| !stop.is_cancelled()) {
            // Boxed, because each lane would otherwise have room for two of them on the stack of whoever waits.
            match Box::pin(self.publish(group, stop)).await {
                Err(WorkerError::Store(error)) if error.is_of_a_row() => {
                    debug!(%error, "populations cannot be published at once: one by one");
                    for one in group {
                        match Box::pin(self.publish(std::slice::from_ref(one), stop)).await {
                            Err(WorkerError::Store(error)) if error.is_of_a_row() => {
                                let population = &one.population;
                                error!(%population, %error, "the estimates of the population cannot be published");
                                of_a_row.get_or_insert(error);
                            }
                            result => result?,
                        }
                    }
                }
                result => result?,
            }
        }
        Ok(of_a_row)
    }

    /// A pass through each of some populations.
    async fn publish(&self, due: &[DuePass], stop: &CancellationToken) -> Result<(), WorkerError> {
        let populations: Vec<PopulationName> = due.iter().map(|due| due.population.clone()).collect();
        let begun = self.store.begin_passes(&populations, &self.owner).await?;
        let mut after = match &begun[..] {
            [] => return Ok(()),
            [one] => (one.population.to_string(), one.cursor.clone()),
            // Each of several is small enough to begin anew.
            _ => Default::default(),
        };
        let mut passes: Arc<Passes> = Arc::new(begun.into_iter().map(|pass| (pass.population.clone(), pass)).collect());
        // Diagnostics need every block, so a pass that resumes from a cursor computes none.
        let is_diagnosed =
            |due: &&DuePass| due.is_diagnosis_due && after.1.is_empty() && passes.contains_key(&due.population);
        let diagnosed = due.iter().filter(is_diagnosed).map(|due| due.population.clone()).collect();
        let mut diagnoses = self.diagnoses(&diagnosed).await?;
        let mut cursors: BTreeMap<PopulationName, String> =
            passes.values().map(|pass| (pass.population.clone(), pass.cursor.clone())).collect();
        let mut next;
        (next, diagnoses) = self.page(&passes, &after, diagnoses).await?;
        while let Some(page) = next {
            self.telemetry.health.beat(Loop::Publish);
            let started = Instant::now();
            after = page.last.clone();
            cursors.extend(page.cursors);
            // Read and compute the next page while this one is written.
            let (lost, computed) =
                tokio::join!(self.write(&passes, &cursors, page.rows), self.page(&passes, &after, diagnoses));
            let lost = lost?;
            (next, diagnoses) = computed?;
            self.telemetry.metrics.observe_publish(started.elapsed());
            if !lost.is_empty() {
                Arc::make_mut(&mut passes).retain(|population, _| !lost.contains(population));
            }
            if stop.is_cancelled() || passes.is_empty() {
                // The next worker goes on from the cursor.
                return Ok(());
            }
        }
        self.end(Arc::unwrap_or_clone(passes), diagnosed, diagnoses).await
    }

    /// The diagnoses of populations, before any block.
    async fn diagnoses(&self, populations: &BTreeSet<PopulationName>) -> Result<Diagnoses, WorkerError> {
        if populations.is_empty() {
            return Ok(Diagnoses::new());
        }
        let populations = Vec::from_iter(populations.iter().cloned());
        let states = match self.store.population_states(&populations).await {
            Ok(states) => Vec::from_iter(states),
            Err(error) if error.is_of_a_row() => self.readable_states(&populations).await?,
            Err(error) => return Err(error.into()),
        };
        let (settings, grouping) = (Arc::clone(&self.settings), self.grouping.clone());
        let shipped_decisions = self.shipped_decisions.clone();
        let begun = tokio::task::spawn_blocking(move || {
            let begin = |(population, state): &(PopulationName, RefitState)| {
                let priors = settings(population).priors;
                let begin = || Diagnosis::new(state.clone(), priors, grouping.clone(), shipped_decisions.clone());
                Some((population.clone(), diagnosed(population, begin)?))
            };
            map_chunks(&states, 1, available_threads(), |states| states.iter().filter_map(begin).collect::<Vec<_>>())
        });
        Ok(begun.await?.into_iter().flatten().collect())
    }

    /// The states of those populations that can be read: the others are passed, and not diagnosed.
    async fn readable_states(
        &self,
        populations: &[PopulationName],
    ) -> Result<Vec<(PopulationName, RefitState)>, WorkerError> {
        let mut states = Vec::new();
        for population in populations {
            match self.store.population_states(std::slice::from_ref(population)).await {
                Err(error) if error.is_of_a_row() => warn!(%population, %error, "there are no diagnostics"),
                result => states.extend(result?),
            }
        }
        Ok(states)
    }

    /// Ends passes that have seen every block.
    async fn end(
        &self,
        passes: Passes,
        is_diagnosed: BTreeSet<PopulationName>,
        mut diagnoses: Diagnoses,
    ) -> Result<(), WorkerError> {
        let thresholds = self.thresholds;
        let ended = tokio::task::spawn_blocking(move || {
            let end = |pass: Pass| {
                let diagnosis = diagnoses.remove(&pass.population);
                let finish = || diagnosis?.finish(&pass.population, &thresholds);
                let diagnostics = diagnosed(&pass.population, finish);
                EndedPass { is_diagnosis: is_diagnosed.contains(&pass.population), diagnostics, pass }
            };
            passes.into_values().map(end).collect::<Vec<_>>()
        });
        let mut ended = ended.await?;
        match self.store.end_passes(&ended).await {
            Err(StoreError::NotFinite { .. }) => {}
            result => return Ok(result?),
        }
        // One by one, so that none but those with such figures go without.
        for ended in ended.iter_mut().map(std::slice::from_mut) {
            if let Err(error) = self.store.end_passes(ended).await {
                let [EndedPass { pass, diagnostics, .. }] = ended else { continue };
                match error {
                    StoreError::NotFinite { .. } => {
                        warn!(population = %pass.population, %error, "there are no diagnostics");
                        *diagnostics = None;
                    }
                    _ => return Err(error.into()),
                }
                self.store.end_passes(ended).await?;
            }
        }
        Ok(())
    }

    /// Reads and estimates the blocks after an experiment of a population. `None` if there are no more.
    async fn page(
        &self,
        passes: &Arc<Passes>,
        (population, experiment): &(String, String),
        diagnoses: Diagnoses,
    ) -> Result<(Option<Page>, Diagnoses), WorkerError> {
        let populations = Vec::from_iter(passes.keys().cloned());
        let blocks = self.store.blocks_after(&populations, (population, experiment), PAGE).await?;
        let passes = Arc::clone(passes);
        Ok(tokio::task::spawn_blocking(move || estimate(&passes, blocks, diagnoses)).await?)
    }

    /// Writes a page, and where each pass stands after it. Returns the populations whose passes other workers have taken over.
    async fn write(
        &self,
        passes: &Passes,
        cursors: &BTreeMap<PopulationName, String>,
        rows: Vec<EstimateRow>,
    ) -> Result<BTreeSet<PopulationName>, WorkerError> {
        let positions =
            passes.iter().map(|(population, pass)| (pass, cursors.get(population).map_or("", |cursor| cursor)));
        let positions: Vec<(&Pass, &str)> = positions.collect();
        // A pass that only computes diagnostics writes no rows, but still has to renew its lease.
        let is_published = |row: &EstimateRow| passes.get(&row.population).is_some_and(|pass| pass.is_publish);
        let rows: Vec<EstimateRow> = rows.into_iter().filter(is_published).collect();
        let count = rows.len() as u64;
        let (kept, written) = self.store.write_estimates(&positions, rows).await?;
        self.telemetry.metrics.count_rows_written("effect_estimates", written);
        self.telemetry.metrics.count_rows_skipped("effect_estimates", count - written);
        let mut lost: BTreeSet<PopulationName> = passes.keys().cloned().collect();
        lost.retain(|population| !kept.contains(population));
        for population in &lost {
            debug!(%population, "another worker has taken over the pass");
        }
        Ok(lost)
    }
}

/// Takes the next of the populations that have passes together.
fn next_group<'d>(left: &Mutex<&'d [DuePass]>) -> Option<&'d [DuePass]> {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    let (group, others) = left.split_at(group_size(&left));
    *left = others;
    (!group.is_empty()).then_some(group)
}

/// How many populations of these, at least one, have passes together: those that fit on one page.
fn group_size(due: &[DuePass]) -> usize {
    let mut experiments = 0;
    let fits = |due: &&DuePass| {
        experiments += due.experiments;
        experiments <= PAGE as u64
    };
    due.iter().take(MOST_IN_GROUP).take_while(fits).count().max(1).min(due.len())
}

/// The estimates of some blocks, in the order of populations and experiments.
struct Page {
    rows: Vec<EstimateRow>,
    /// The last experiment of each population on the page, and of all.
    cursors: BTreeMap<PopulationName, String>,
    last: (String, String),
}

/// Estimates some blocks, and adds them to the diagnoses of their populations. `None` if there are none. Of one that cannot be read
/// nothing is estimated, and its population is not diagnosed.
fn estimate(passes: &Passes, read: Vec<ReadBlock>, mut diagnoses: Diagnoses) -> (Option<Page>, Diagnoses) {
    let key = |block: &ReadBlock| match block {
        Ok(BlockToPublish { block, .. }) => (block.population.clone(), block.experiment_id.clone()),
        Err(UnreadableBlock { population, experiment_id, .. }) => (population.clone(), experiment_id.clone()),
    };
    let Some((last_population, last_experiment)) = read.last().map(key) else { return (None, diagnoses) };
    let cursors: BTreeMap<PopulationName, String> = read.iter().map(key).collect();
    let last = (last_population.to_string(), last_experiment);
    let mut blocks = Vec::with_capacity(read.len());
    for block in read {
        match block {
            Ok(block) => blocks.push(block),
            Err(UnreadableBlock { population, experiment_id, why }) => {
                error!(%population, experiment_id, why, "a block cannot be read: its estimates stay as they are");
                diagnoses.remove(&population);
            }
        }
    }
    let blocks = &blocks[..];
    let none = PublishedFit::none();
    let estimates = map_chunks(blocks, CHUNK, available_threads(), |blocks| {
        let estimate = |to_publish: &BlockToPublish| {
            let fit = passes.get(&to_publish.block.population).map_or(&none, |pass| &pass.fit);
            BlockEstimates::new(&to_publish.block, to_publish.commit_id, fit)
        };
        blocks.iter().map(estimate).collect::<Vec<_>>()
    });
    let estimates: Vec<BlockEstimates> = estimates.into_iter().flatten().collect();
    let mut begin = 0;
    for blocks in blocks.chunk_by(|x, y| x.block.population == y.block.population) {
        let estimates = &estimates[begin..begin + blocks.len()];
        begin += blocks.len();
        let Some(BlockToPublish { block: BlockToEstimate { population, .. }, .. }) = blocks.first() else { continue };
        if let Some(mut diagnosis) = diagnoses.remove(population) {
            let added = || {
                diagnosis.add(blocks, estimates);
                Some(diagnosis)
            };
            diagnoses.extend(diagnosed(population, added).map(|diagnosis| (population.clone(), diagnosis)));
        }
    }
    warn_of_failures(estimates.iter().flat_map(|block| &block.rows));
    let rows = estimates.into_iter().flat_map(|block| block.rows).collect();
    (Some(Page { rows, cursors, last }), diagnoses)
}

/// A step of the diagnostics. There are none if it panics, and the estimates are published without.
fn diagnosed<T>(population: &PopulationName, step: impl FnOnce() -> Option<T>) -> Option<T> {
    caught(step).unwrap_or_else(|error| {
        warn!(%population, error, "there are no diagnostics");
        None
    })
}

/// Logs the first of the estimates that have failed, and how many there are.
pub(super) fn warn_of_failures<'r>(rows: impl Iterator<Item = &'r EstimateRow>) {
    let failed: Vec<&EstimateRow> = rows.filter(|row| row.status == FitStatus::Failed).collect();
    if let Some(EstimateRow { population, experiment_id, .. }) = failed.first() {
        let effects = failed.len();
        error!(%population, experiment_id, effects, "the arithmetic of these estimates failed (a bug): raw figures only");
    }
}
