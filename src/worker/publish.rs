//! The publish loop: passes through all blocks of a population whose fit has moved. A pass rewrites the estimates page by
//! page, and computes the diagnostics that need every block.

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
use crate::row::{BlockToPublish, DuePass, EstimateRow, FitStatus, Pass, PublishedFit};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Loop, Operation};

/// Blocks of a page, which is held in memory and written in one transaction.
const PAGE: usize = 1_000;

/// How often the loop looks for due passes.
const INTERVAL: Duration = Duration::from_millis(200);

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
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.telemetry.health.beat(Loop::Publish);
            let diagnosed_before = OffsetDateTime::now_utc() - self.diagnostics_interval;
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

    /// Publishes every population that is due, and recomputes diagnostics from before `diagnosed_before`. Returns the number
    /// of passes.
    ///
    /// # Errors
    /// If the store fails. A pass that cannot go on because of what a row holds does not stop the others: its error comes last.
    pub async fn publish_due(
        &self,
        diagnosed_before: OffsetDateTime,
        stop: &CancellationToken,
    ) -> Result<usize, WorkerError> {
        let due = self.store.due_passes(diagnosed_before, &self.owner).await?;
        let mut of_a_row = None;
        for due in &due {
            if stop.is_cancelled() {
                break;
            }
            match self.pass(due, stop).await {
                Err(WorkerError::Store(error)) if error.is_of_a_row() => {
                    error!(population = %due.population, %error, "the estimates of the population cannot be published");
                    of_a_row.get_or_insert(error);
                }
                result => result?,
            }
        }
        of_a_row.map_or(Ok(due.len()), |error| Err(error.into()))
    }

    async fn pass(&self, due: &DuePass, stop: &CancellationToken) -> Result<(), WorkerError> {
        match self.store.begin_pass(&due.population, &self.owner).await? {
            Some(pass) => self.publish(pass, due, stop).await,
            None => Ok(()),
        }
    }

    async fn publish(&self, mut pass: Pass, due: &DuePass, stop: &CancellationToken) -> Result<(), WorkerError> {
        let priors = (self.settings)(&pass.population).priors;
        // Diagnostics need every block, so a pass that resumes from a cursor computes none.
        let is_diagnosis = due.is_diagnosis_due && pass.cursor.is_empty();
        let diagnosis = match is_diagnosis {
            true => {
                let state = self.store.population_state(&pass.population).await?;
                let (grouping, shipped_decisions) = (self.grouping.clone(), self.shipped_decisions.clone());
                let begin = move || Diagnosis::new(state, priors, grouping, shipped_decisions);
                diagnosed_aside(&pass.population, begin).await?
            }
            false => None,
        };
        let (mut next, mut diagnosis) = self.page(&pass, pass.cursor.clone(), diagnosis).await?;
        while let Some(page) = next {
            self.telemetry.health.beat(Loop::Publish);
            let started = Instant::now();
            // Read and compute the next page while this one is written.
            let after = self.page(&pass, page.cursor.clone(), diagnosis);
            let (written, after) = tokio::join!(self.write(&pass, &page), after);
            if written?.is_none() {
                debug!(population = %pass.population, "another worker has taken over the pass");
                return Ok(());
            }
            (next, diagnosis) = after?;
            self.telemetry.metrics.observe_publish(started.elapsed());
            pass.cursor = page.cursor;
            if stop.is_cancelled() {
                // The next worker continues from the cursor.
                return Ok(());
            }
        }
        let diagnostics = match diagnosis {
            Some(diagnosis) => {
                let (population, thresholds) = (pass.population.clone(), self.thresholds);
                diagnosed_aside(&pass.population, move || diagnosis.finish(&population, &thresholds)).await?
            }
            None => None,
        };
        match self.store.end_pass(&pass, is_diagnosis, diagnostics.as_ref()).await {
            Err(error @ StoreError::NotFinite { .. }) => {
                warn!(population = %pass.population, %error, "there are no diagnostics");
                Ok(self.store.end_pass(&pass, is_diagnosis, None).await?)
            }
            result => Ok(result?),
        }
    }

    /// Reads and estimates the blocks after an experiment. `None` if there are no more.
    async fn page(
        &self,
        pass: &Pass,
        after: String,
        diagnosis: Option<Diagnosis>,
    ) -> Result<(Option<Page>, Option<Diagnosis>), WorkerError> {
        let blocks = self.store.blocks_after(&pass.population, &after, PAGE).await?;
        let Some(last) = blocks.last() else { return Ok((None, diagnosis)) };
        let cursor = last.block.experiment_id.clone();
        let own = pass.clone();
        let (rows, diagnosis) = tokio::task::spawn_blocking(move || estimate(&own, &blocks, diagnosis)).await?;
        Ok((Some(Page { rows, cursor }), diagnosis))
    }

    /// Writes a page. `None` if another worker has taken over the pass.
    async fn write(&self, pass: &Pass, page: &Page) -> Result<Option<u64>, WorkerError> {
        // A pass that only computes diagnostics writes no rows, but still has to renew its lease.
        let rows = if pass.is_publish { &page.rows[..] } else { &[] };
        let written = self.store.write_estimates(pass, rows, &page.cursor).await?;
        if let Some(written) = written {
            self.telemetry.metrics.count_rows_written("effect_estimates", written);
            self.telemetry.metrics.count_rows_skipped("effect_estimates", rows.len() as u64 - written);
        }
        Ok(written)
    }
}

/// The estimates of some blocks of a population, in the order of the blocks' keys.
struct Page {
    rows: Vec<EstimateRow>,
    /// The last experiment of the page.
    cursor: String,
}

/// Estimates some blocks, and adds them to the diagnostics.
fn estimate(
    pass: &Pass,
    blocks: &[BlockToPublish],
    diagnosis: Option<Diagnosis>,
) -> (Vec<EstimateRow>, Option<Diagnosis>) {
    let fit: &PublishedFit = &pass.fit;
    let estimates = map_chunks(blocks, CHUNK, available_threads(), |blocks| {
        let estimate = |to_publish: &BlockToPublish| BlockEstimates::new(&to_publish.block, to_publish.commit_id, fit);
        blocks.iter().map(estimate).collect::<Vec<_>>()
    });
    let estimates: Vec<BlockEstimates> = estimates.into_iter().flatten().collect();
    let diagnosis = diagnosis.and_then(|mut diagnosis| {
        let added = || {
            diagnosis.add(blocks, &estimates);
            Some(diagnosis)
        };
        diagnosed(&pass.population, added)
    });
    warn_of_failures(estimates.iter().flat_map(|block| &block.rows));
    (estimates.into_iter().flat_map(|block| block.rows).collect(), diagnosis)
}

/// A step of the diagnostics. There are none if it panics, and the estimates are published without.
fn diagnosed<T>(population: &PopulationName, step: impl FnOnce() -> Option<T>) -> Option<T> {
    caught(step).unwrap_or_else(|error| {
        warn!(%population, error, "there are no diagnostics");
        None
    })
}

/// The same on a thread that may take its time.
async fn diagnosed_aside<T: Send + 'static>(
    population: &PopulationName,
    step: impl FnOnce() -> Option<T> + Send + 'static,
) -> Result<Option<T>, WorkerError> {
    let population = population.clone();
    Ok(tokio::task::spawn_blocking(move || diagnosed(&population, step)).await?)
}

/// Logs the first of the estimates that have failed, and how many there are.
pub(super) fn warn_of_failures<'r>(rows: impl Iterator<Item = &'r EstimateRow>) {
    let failed: Vec<&EstimateRow> = rows.filter(|row| row.status == FitStatus::Failed).collect();
    if let Some(EstimateRow { population, experiment_id, .. }) = failed.first() {
        let effects = failed.len();
        error!(%population, experiment_id, effects, "the arithmetic of these estimates failed (a bug): raw figures only");
    }
}
