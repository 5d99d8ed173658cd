//! The refit loop: takes what has changed of populations out of the log, refits them, and decides whether their published
//! estimates are still accurate enough or a whole publish is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::PopulationName;
use shrinkd_model::{Correlation, available_threads, map_chunks};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::WorkerError;
use super::report::PopulationReport;
use super::retry::Retryable;
use crate::config::{PopulationSettings, SettingsOf};
use crate::refit::{Fits, Publication, RefitState, apply, fit_settings};
use crate::row::{Counters, CurrentPopulation, FitStatus, PopulationTotals};
use crate::store::{Refit, Refitted, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Loop, Operation};
use crate::telemetry::metrics::{PopulationCounts, PopulationSummary};

/// How often the metrics of all populations are updated if none was refitted.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Most populations that one transaction refits.
const MOST_IN_GROUP: usize = 100;

/// Populations of the first group, before it is known how long they take.
const FIRST_GROUP: usize = 16;

/// Why populations are refitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// They have changed, or were due.
    News,
    /// The source has ended: what batches have left to a pass waits no longer.
    End,
    /// A rebuild: all of their estimates are written again.
    Republish,
}

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
        let mut report = PopulationReport::default();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.telemetry.health.beat(Loop::Refit);
            let refitted = self.refit_all(Occasion::News).await;
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
                if let Err(error) = self.report(&mut report).await {
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
    pub async fn report(&self, report: &mut PopulationReport) -> Result<(), WorkerError> {
        let metrics = &self.telemetry.metrics;
        if !metrics.reports_populations() {
            *report = PopulationReport::default();
            return Ok(());
        }
        report.update(&self.store).await?;
        let (largest, all) = report.largest(self.reported);
        let PopulationTotals { populations, failed, prior_far, selection_suspected, unpublished_changes, .. } = all;
        let counts = PopulationCounts { all: populations, failed, prior_far, selection_suspected, unpublished_changes };
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

    /// Refits every population that has changed or is due, group by group, those first that have waited longest. Returns how many
    /// there were. One that cannot be fitted, or whose fit the store does not take, is noted as failed, and the others go on.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn refit_all(&self, occasion: Occasion) -> Result<usize, WorkerError> {
        let changed = self.store.populations_with_news().await?;
        let (mut left, mut size, mut of_a_row) = (&changed[..], FIRST_GROUP, None);
        while !left.is_empty() {
            let (group, others) = left.split_at(size.min(left.len()));
            left = others;
            self.telemetry.health.beat(Loop::Refit);
            let started = Instant::now();
            match self.refit_group(group, occasion).await {
                Err(WorkerError::Store(error)) if error.is_of_a_row() => {
                    debug!(%error, "a group of populations cannot be refitted at once: one by one");
                    for population in group {
                        match self.refit_or_fail(population, occasion).await {
                            // Not even the failure could be noted.
                            Err(WorkerError::Store(error)) if error.is_of_a_row() => {
                                of_a_row.get_or_insert(error);
                            }
                            result => drop(result?),
                        }
                    }
                }
                result => drop(result?),
            }
            let of_one = started.elapsed().as_secs_f64() / group.len() as f64;
            size = ((self.store.refit_time().as_secs_f64() / of_one) as usize).clamp(1, MOST_IN_GROUP);
        }
        of_a_row.map_or(Ok(changed.len()), |error| Err(error.into()))
    }

    /// Refits a population whether it has changed or not, and makes a whole publish due if the population has estimates of
    /// an earlier fit. Returns false if another worker is refitting the population.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn refit_and_republish(&self, population: &PopulationName) -> Result<bool, WorkerError> {
        self.refit_or_fail(population, Occasion::Republish).await
    }

    /// Refits a population. Returns false if another worker is refitting it: that does just as well.
    async fn refit_or_fail(&self, population: &PopulationName, occasion: Occasion) -> Result<bool, WorkerError> {
        match self.refit_group(std::slice::from_ref(population), occasion).await {
            Err(WorkerError::Store(error)) if error.is_of_a_row() => self.note_failure(population, &error).await,
            result => result,
        }
    }

    /// Refits those populations of a group that no other worker has and that are still due, in one transaction. Returns false if
    /// there were none.
    async fn refit_group(&self, group: &[PopulationName], occasion: Occasion) -> Result<bool, WorkerError> {
        let started = Instant::now();
        let mut transaction = self.store.begin_refit(group).await?;
        match self.refit_in(&mut transaction, occasion).await {
            Ok((0, _)) => {
                transaction.rollback().await?;
                Ok(false)
            }
            Ok((refitted, changes)) => {
                transaction.commit().await?;
                self.telemetry.metrics.count_folded_changes(changes.unsigned_abs());
                self.telemetry.metrics.observe_refits(refitted, started.elapsed());
                Ok(true)
            }
            Err(error) => {
                // The first error says more.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    /// Returns how many populations were refitted, and how many changes were added to their statistics.
    async fn refit_in(&self, transaction: &mut Refit, occasion: Occasion) -> Result<(usize, i64), WorkerError> {
        let mut states = transaction.states().await?;
        let mut taken = 0;
        while let Some(changes) = transaction.take().await? {
            taken += changes.counts.values().map(|count| count.changes).sum::<i64>();
            states = tokio::task::spawn_blocking(move || apply(&mut states, changes).map(|()| states))
                .await?
                .map_err(StoreError::unfit)?;
        }
        let (settings, tolerance) = (Arc::clone(&self.settings), self.tolerance);
        let refitted = tokio::task::spawn_blocking(move || {
            // Another worker may have refitted a population between the look for news and its lock.
            let has_news = |state: &RefitState| occasion == Occasion::Republish || state.is_due || state.has_changed();
            let due: Vec<(PopulationName, RefitState)> =
                states.into_iter().filter(|(_, state)| has_news(state)).collect();
            let refitted = map_chunks(&due, 1, available_threads(), |due| {
                due.iter().map(|due| refit(due, &settings(&due.0), tolerance, occasion)).collect::<Vec<_>>()
            });
            refitted.into_iter().flatten().collect::<Vec<_>>()
        });
        let refitted = refitted.await?;
        if refitted.is_empty() {
            return Ok((0, taken));
        }
        transaction.write(&refitted).await?;
        for Refitted { population, state, fits, .. } in &refitted {
            let fit = &fits[Correlation::Modelled as usize];
            // Told once for each change of it.
            let Some(message) = fit.message.as_ref().filter(|message| state.message.as_ref() != Some(message)) else {
                continue;
            };
            if fit.status == FitStatus::Failed {
                error!(%population, %message, "the population cannot be fitted: estimates that it has stay as they are");
            } else if fit.is_prior_far {
                warn!(%population, %message, "a prior of the population is far from its data");
            }
        }
        Ok((refitted.len(), taken))
    }

    /// Notes that a population cannot be refitted because of what a row of it holds. Its changes stay in the log.
    async fn note_failure(&self, population: &PopulationName, why: &StoreError) -> Result<bool, WorkerError> {
        let started = Instant::now();
        error!(%population, error = %why, "the population cannot be refitted: estimates that it has stay as they are");
        let mut transaction = self.store.begin_refit(std::slice::from_ref(population)).await?;
        let Some(state) = transaction.registered().await?.remove(population) else {
            transaction.rollback().await?;
            return Ok(false);
        };
        let Counters { experiments, effects, .. } = state.statistics.counters;
        let effects = [effects, effects, experiments].map(|count| u64::try_from(count).unwrap_or(0));
        let failed = Fits::failed(&why.summary(), effects);
        let refitted = Refitted {
            population: population.clone(),
            state,
            fits: failed.fits,
            fit_settings: self.fit_settings(population),
            publication: Publication::Failed,
        };
        transaction.write(&[refitted]).await?;
        transaction.commit().await?;
        // The loop is not stuck: what has failed has its own alert.
        self.telemetry.metrics.observe_refits(1, started.elapsed());
        Ok(true)
    }
}

/// Fits a population, and decides whether the fit is to be published.
fn refit(
    (population, state): &(PopulationName, RefitState),
    settings: &PopulationSettings,
    tolerance: f64,
    occasion: Occasion,
) -> Refitted {
    let mut state = state.clone();
    state.grow();
    let fits = Fits::new(&state.statistics.sketches, state.statistics.counters.experiments, settings);
    let (judged, unpublished) = (&fits.judged, &state.unpublished);
    let has_moved = judged.has_moved(state.published.as_ref(), tolerance);
    // A pass that is under way is replaced.
    let is_replaced = occasion == Occasion::Republish && judged.status != FitStatus::Failed;
    let is_pass_due = occasion == Occasion::End || unpublished.is_pass_due(state.statistics.counters.experiments);
    let publication = match has_moved {
        _ if is_replaced && (has_moved || state.published.is_some()) => Publication::Due(fits.diagnostics),
        false if unpublished.count() == 0 => Publication::NotDue,
        _ if state.is_publishing || unpublished.count() > 0 && !is_pass_due => Publication::Postponed,
        true => Publication::Due(fits.diagnostics),
        false => Publication::Pass,
    };
    let fit_settings = fit_settings(settings, tolerance);
    Refitted { population: population.clone(), state, fits: fits.fits, fit_settings, publication }
}
