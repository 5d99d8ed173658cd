//! The refit loop: refits changed populations from their cells, and decides whether their published estimates are still
//! accurate enough or a whole publish is due.

use std::time::{Duration, Instant};

use shrinkd_core::PopulationName;
use shrinkd_model::Correlation;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::WorkerError;
use super::retry::Retryable;
use crate::config::SettingsOf;
use crate::refit::{Publication, Refitted, fit_settings};
use crate::row::{Counters, CurrentPopulation, FitStatus, PopulationTotals};
use crate::store::{Refit, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Loop, Operation};
use crate::telemetry::metrics::{PopulationCounts, PopulationSummary};

/// How often the metrics of all populations are updated if none was refitted.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// The loop's state.
#[derive(Clone)]
pub struct RefitLoop {
    pub store: Store,
    pub settings: SettingsOf,
    /// How far mu and tau may move before all estimates are rewritten: see [`has_moved`](crate::refit::Judged::has_moved).
    pub tolerance: f64,
    pub interval: Duration,
    /// Most populations with series of metrics of their own.
    pub reported: usize,
    pub telemetry: Telemetry,
}

impl RefitLoop {
    /// Refits changed populations once per interval until stopped. A refit that fails is retried in the next interval.
    ///
    /// # Errors
    /// If the store was rebuilt with other settings, with which this worker must not write.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reported: Option<Instant> = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.telemetry.health.beat(Loop::Refit);
            let refitted = self.refit_all().await;
            match &refitted {
                Ok(_) => self.telemetry.health.succeeded(Operation::Refit),
                Err(WorkerError::Store(StoreError::Settings { .. })) => return refitted.map(drop),
                Err(error) => {
                    self.telemetry.health.failed(Operation::Refit, error.summary());
                    warn!(%error, "a refit failed, retrying");
                }
            }
            if refitted.is_ok_and(|count| count > 0) || reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                if let Err(error) = self.report().await {
                    warn!(%error, "cannot update the metrics of the populations");
                }
            }
        }
        self.telemetry.health.finish(Loop::Refit);
        Ok(())
    }

    /// Requests refits of the populations whose latest fit was made with other settings than they have now, or failed: a new
    /// build may fit them.
    ///
    /// A worker does this at its start only. Otherwise two workers with different configurations, as in a rolling deployment,
    /// would keep undoing each other's refits.
    pub async fn request_refits_for_changed_settings(&self) -> Result<(), WorkerError> {
        let has_changed = |current: &CurrentPopulation| {
            current.status == Some(FitStatus::Failed)
                || current.fit_settings != Some(self.fit_settings(&current.population))
        };
        let populations = self.store.current_populations().await?.into_iter();
        let changed: Vec<PopulationName> = populations.filter(has_changed).map(|current| current.population).collect();
        self.store.request_refits(&changed).await?;
        Ok(())
    }

    /// See [`fit_settings`].
    fn fit_settings(&self, population: &PopulationName) -> String {
        fit_settings(&(self.settings)(population), self.tolerance)
    }

    /// Updates the metrics of the populations, whichever worker fitted them, if this worker reports them.
    pub async fn report(&self) -> Result<(), WorkerError> {
        let metrics = &self.telemetry.metrics;
        if !metrics.reports_populations() {
            return Ok(());
        }
        let (largest, all) = self.store.largest_populations(self.reported).await?;
        let PopulationTotals { populations, failed, prior_far, selection_suspected, .. } = all;
        let counts = PopulationCounts { all: populations, failed, prior_far, selection_suspected };
        // They may move while they are read.
        let rest = |all: u64, of: fn(&CurrentPopulation) -> u64| all.saturating_sub(largest.iter().map(of).sum());
        let others = PopulationSummary {
            experiments: rest(all.experiments, |current| current.experiments),
            effects: rest(all.effects, |current| current.effects),
            ..PopulationSummary::default()
        };
        let others = (all.populations > largest.len() as u64).then_some(others);
        let summary = |current: CurrentPopulation| {
            let summary = PopulationSummary {
                has_failed: current.status == Some(FitStatus::Failed),
                mu: current.mu,
                tau: current.tau,
                deff: current.deff,
                verdict: current.verdict,
                experiments: current.experiments,
                effects: current.effects,
            };
            (current.population, summary)
        };
        metrics.set_populations(counts, largest.into_iter().map(summary).collect(), others);
        Ok(())
    }

    /// Refits every changed population, and returns how many there were. One that cannot be fitted, or whose fit the store does
    /// not take, is noted as failed, and the others go on.
    ///
    /// # Errors
    /// If the store fails. A conflict with another worker is no error.
    pub async fn refit_all(&self) -> Result<usize, WorkerError> {
        let changed = self.store.populations_with_news().await?;
        let mut of_a_row = None;
        for population in &changed {
            match self.refit_or_fail(population, false).await {
                // Not even the failure could be noted.
                Err(WorkerError::Store(error)) if error.is_of_a_row() => drop(of_a_row.get_or_insert(error)),
                result => drop(result?),
            }
        }
        of_a_row.map_or(Ok(changed.len()), |error| Err(error.into()))
    }

    /// Refits a population whether it has changed or not, and makes a whole publish due if the population has estimates of
    /// an earlier fit. Returns false if another worker is refitting the population.
    ///
    /// # Errors
    /// If the store fails. A conflict with another worker is no error.
    pub async fn refit_and_republish(&self, population: &PopulationName) -> Result<bool, WorkerError> {
        self.refit_or_fail(population, true).await
    }

    /// Refits a population. Returns false if another worker is refitting or has refitted it: that does just as well.
    async fn refit_or_fail(&self, population: &PopulationName, is_republish: bool) -> Result<bool, WorkerError> {
        let refitted = match self.refit(population, is_republish).await {
            Err(WorkerError::Store(error)) if error.is_of_a_row() => self.note_failure(population, &error).await,
            result => result,
        };
        match refitted {
            Err(WorkerError::Store(StoreError::Conflict { .. })) => {
                debug!(%population, "another worker has refitted this population");
                Ok(false)
            }
            result => result,
        }
    }

    async fn refit(&self, population: &PopulationName, is_republish: bool) -> Result<bool, WorkerError> {
        let started = Instant::now();
        let Some(mut transaction) = self.store.begin_refit(population).await? else { return Ok(false) };
        match self.refit_in(&mut transaction, population, is_republish).await {
            Ok(()) => transaction.commit().await?,
            Err(error) => {
                // The first error says more.
                let _ = transaction.rollback().await;
                return Err(error);
            }
        }
        self.telemetry.metrics.observe_refit(started.elapsed());
        Ok(true)
    }

    async fn refit_in(
        &self,
        transaction: &mut Refit,
        population: &PopulationName,
        is_republish: bool,
    ) -> Result<(), WorkerError> {
        let state = transaction.state().await?;
        let (settings, tolerance) = ((self.settings)(population), self.tolerance);
        let (state, refitted) = tokio::task::spawn_blocking(move || {
            let refitted = Refitted::new(&state.sketches, state.counters.experiments, &settings);
            (state, refitted)
        })
        .await?;
        let has_failed = refitted.judged.status == FitStatus::Failed;
        let publication = match refitted.judged.has_moved(state.published.as_ref(), tolerance) {
            // A pass that is under way is replaced.
            has_moved if is_republish && !has_failed && (has_moved || state.published.is_some()) => {
                Publication::Due(refitted.diagnostics)
            }
            false => Publication::NotDue,
            true if state.is_publishing => Publication::Postponed,
            true => Publication::Due(refitted.diagnostics),
        };
        let fit = &refitted.fits[Correlation::Modelled as usize];
        // Told once for each change of it.
        let news = match &fit.message {
            Some(message) if transaction.latest_message().await?.as_ref() != Some(message) => Some(message),
            _ => None,
        };
        transaction.write(&state, &refitted.fits, &self.fit_settings(population), &publication).await?;
        if let Some(message) = news {
            if has_failed {
                error!(%population, %message, "the population cannot be fitted: estimates that it has stay as they are");
            } else if fit.is_prior_far {
                warn!(%population, %message, "a prior of the population is far from its data");
            }
        }
        Ok(())
    }

    /// Notes that a population cannot be refitted because of what a row of it holds.
    async fn note_failure(&self, population: &PopulationName, why: &StoreError) -> Result<bool, WorkerError> {
        let started = Instant::now();
        error!(%population, error = %why, "the population cannot be refitted: estimates that it has stay as they are");
        let Some(mut transaction) = self.store.begin_refit(population).await? else { return Ok(false) };
        let state = transaction.state_without_cells().await?;
        let Counters { experiments, effects, .. } = state.counters;
        let effects = [effects, effects, experiments].map(|count| u64::try_from(count).unwrap_or(0));
        let failed = Refitted::failed(&why.summary(), effects);
        transaction.write(&state, &failed.fits, &self.fit_settings(population), &Publication::NotDue).await?;
        transaction.commit().await?;
        // The loop is not stuck: what has failed has its own alert.
        self.telemetry.metrics.observe_refit(started.elapsed());
        Ok(true)
    }
}
