//! The refit loop: takes what has changed of populations out of the log, refits them, and decides whether their published
//! estimates are still accurate enough or a whole publish is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::PopulationName;
use shrinkd_model::{Correlation, available_threads, map_chunks};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::WorkerError;
use super::report::PopulationReport;
use super::retry::Retryable;
use crate::config::SettingsOf;
use crate::panics::caught;
use crate::refit::{Fits, Publication, RefitState, apply, fit_settings, split_group};
use crate::row::{Counters, CurrentPopulation, FitStatus, Statistics};
use crate::store::{Refit, Refitted, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Loop, Operation};

/// How often the metrics of all populations are updated if none was refitted.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Most populations that one transaction refits.
const MOST_IN_GROUP: usize = 100;

/// Populations of the first group, before it is known how long they take.
const FIRST_GROUP: usize = 16;

/// After so many populations in a row that could be neither refitted nor noted as failed, it is the store that fails.
const MOST_ERRORS_IN_A_ROW: usize = 5;

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

/// What became of what a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// How many populations had news.
    pub populations: usize,
    /// Whether one of them has more changes than one refit takes: the next look is due at once.
    pub is_log_left: bool,
}

/// What one transaction has done with a group of populations.
#[derive(Default)]
struct Group {
    /// How many have been fitted.
    refitted: usize,
    /// How many changes were added to their statistics.
    changes: i64,
    /// Whether changes were left that were too many for one transaction.
    is_log_left: bool,
    /// A population that needs cells before a part of its changes can be added to its statistics: it was left as it is.
    lacks_cells: Option<PopulationName>,
    /// Those that it has left to another transaction, because their changes and those of the others are too many for one.
    others: Vec<PopulationName>,
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
            let round = self.round(Occasion::News, &stop).await;
            match &round {
                Ok(_) => self.telemetry.health.succeeded(Operation::Refit),
                Err(WorkerError::Store(StoreError::Settings { .. })) => return round.map(drop),
                Err(error) => {
                    self.telemetry.health.failed(Operation::Refit, error.summary());
                    warn!(%error, "a refit failed, retrying");
                }
            }
            if round.as_ref().is_ok_and(|round| round.is_log_left) {
                ticks.reset_immediately();
            }
            if round.is_ok_and(|round| round.populations > 0)
                || reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL)
            {
                reported = Some(Instant::now());
                if let Err(error) = report.show(&self.store, &self.telemetry.metrics, self.reported).await {
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

    /// Refits every population that has changed or is due. Returns how many there were.
    ///
    /// # Errors
    /// See [`RefitLoop::round`].
    pub async fn refit_all(&self, occasion: Occasion) -> Result<usize, WorkerError> {
        Ok(self.round(occasion, &CancellationToken::new()).await?.populations)
    }

    /// Refits every population that has changed or is due, group by group, those first that have waited longest, until stopped.
    /// One that cannot be fitted, or whose fit the store does not take, is noted as failed.
    ///
    /// # Errors
    /// If the store fails: the first error, once all others have had their turn. Without them where none can succeed: there is no
    /// connection, the store was rebuilt with other settings, or several populations fail one after the other.
    pub async fn round(&self, occasion: Occasion, stop: &CancellationToken) -> Result<Round, WorkerError> {
        let mut left = VecDeque::from(self.store.populations_with_news().await?);
        let mut round = Round { populations: left.len(), is_log_left: false };
        let (mut size, mut one_by_one) = (FIRST_GROUP, 0_usize);
        let (mut first_error, mut errors_in_a_row) = (None, 0);
        while !left.is_empty() && errors_in_a_row < MOST_ERRORS_IN_A_ROW && !stop.is_cancelled() {
            let most = if one_by_one > 0 { 1 } else { size };
            let group: Vec<PopulationName> = left.drain(..most.min(left.len())).collect();
            one_by_one = one_by_one.saturating_sub(1);
            self.telemetry.health.beat(Loop::Refit);
            let started = Instant::now();
            let done = match &group[..] {
                [population] => self.refit_or_fail(population, occasion).await,
                group => self.refit_group(group, occasion).await,
            };
            match done {
                Ok(Group { others, is_log_left, .. }) => {
                    errors_in_a_row = 0;
                    round.is_log_left |= is_log_left;
                    let of_one = started.elapsed().as_secs_f64() / (group.len() - others.len()) as f64;
                    size = ((self.store.refit_time().as_secs_f64() / of_one) as usize).clamp(1, MOST_IN_GROUP);
                    others.into_iter().rev().for_each(|population| left.push_front(population));
                }
                Err(error) if ends_round(&error) => return Err(error),
                Err(error) if group.len() > 1 => {
                    match error.is_of_a_population() {
                        true => debug!(%error, "a group of populations cannot be refitted at once: one by one"),
                        false => warn!(%error, "a refit failed, retrying its populations one by one"),
                    }
                    one_by_one = group.len();
                    group.into_iter().rev().for_each(|population| left.push_front(population));
                }
                Err(error) => {
                    errors_in_a_row += 1;
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(round), Err)
    }

    /// Refits a population whether it has changed or not, and makes a whole publish due if the population has estimates of
    /// an earlier fit. Returns false if another worker is refitting the population, or a part of its changes had to be left in the
    /// log: then this has to be called again.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn refit_and_republish(&self, population: &PopulationName) -> Result<bool, WorkerError> {
        Ok(self.refit_or_fail(population, Occasion::Republish).await?.refitted > 0)
    }

    /// Refits a population, or notes that it cannot be.
    async fn refit_or_fail(&self, population: &PopulationName, occasion: Occasion) -> Result<Group, WorkerError> {
        match self.refit_group(std::slice::from_ref(population), occasion).await {
            Err(error) if error.is_of_a_population() => self.note_failure(population, &error, occasion).await,
            result => result,
        }
    }

    /// Refits those populations of a group that no other worker has and that still have news, in one transaction.
    async fn refit_group(&self, group: &[PopulationName], occasion: Occasion) -> Result<Group, WorkerError> {
        let started = Instant::now();
        let mut transaction = self.store.begin_refit(group).await?;
        match self.refit_in(&mut transaction, group, occasion).await {
            Ok(done) if done.lacks_cells.is_some() || (done.refitted == 0 && !done.is_log_left) => {
                transaction.rollback().await?;
                if let Some(population) = &done.lacks_cells {
                    self.store.give_cells(population).await?;
                }
                Ok(done)
            }
            Ok(done) => {
                transaction.commit().await?;
                self.telemetry.metrics.count_folded_changes(done.changes.unsigned_abs());
                self.telemetry.metrics.observe_refits(done.refitted, started.elapsed());
                Ok(done)
            }
            Err(error) => {
                // The first error says more.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    async fn refit_in(
        &self,
        transaction: &mut Refit,
        group: &[PopulationName],
        occasion: Occasion,
    ) -> Result<Group, WorkerError> {
        let mut states = transaction.populations().await?;
        // Another worker may have refitted a population between the look for news and its lock.
        states.retain(|_, state| occasion == Occasion::Republish || state.has_news());
        let mut done = Group { others: split_group(group, &mut states), ..Group::default() };
        if states.is_empty() {
            return Ok(done);
        }
        done.is_log_left = states.values().any(RefitState::is_for_several_refits);
        if done.is_log_left {
            let lacks_cells = states.iter().find(|(_, state)| state.is_of_blocks());
            done.lacks_cells = lacks_cells.map(|(population, _)| population.clone());
        }
        if done.lacks_cells.is_some() {
            return Ok(done);
        }
        transaction.read_statistics(&mut states).await?;
        while let Some(changes) = transaction.take().await? {
            done.changes += changes.counts.values().map(|count| count.changes).sum::<i64>();
            states =
                computed(move || apply(&mut states, changes).map(|()| states)).await?.map_err(StoreError::unfit)?;
        }
        states.values_mut().for_each(RefitState::grow);
        transaction.look_for_unpublished(&mut states).await?;
        if done.is_log_left {
            transaction.write_statistics(&states).await?;
            return Ok(done);
        }
        let (settings, tolerance) = (Arc::clone(&self.settings), self.tolerance);
        let refitted = computed(move || {
            let states: Vec<(PopulationName, RefitState)> = states.into_iter().collect();
            let fits = map_chunks(&states, 1, available_threads(), |states| {
                let fit = |(population, state): &(PopulationName, RefitState)| {
                    let Statistics { sketches, counters } = &state.statistics;
                    Fits::new(sketches, counters.experiments, &settings(population))
                };
                states.iter().map(fit).collect::<Vec<_>>()
            });
            let judge = |((population, state), fits)| {
                let fit_settings = fit_settings(&settings(&population), tolerance);
                judge(population, state, fits, fit_settings, tolerance, occasion)
            };
            states.into_iter().zip(fits.into_iter().flatten()).map(judge).collect::<Vec<_>>()
        });
        let refitted = refitted.await?;
        done.refitted = refitted.len();
        let messages = refitted.iter().filter_map(new_message).collect::<Vec<_>>();
        transaction.write(refitted).await?;
        for (population, message, status) in messages {
            if status == FitStatus::Failed {
                error!(%population, %message, "the population cannot be fitted: estimates that it has stay as they are");
            } else {
                warn!(%population, %message, "a prior of the population is far from its data");
            }
        }
        Ok(done)
    }

    /// Notes that a population cannot be refitted because of what a row of it holds. Its changes stay in the log.
    async fn note_failure(
        &self,
        population: &PopulationName,
        why: &WorkerError,
        occasion: Occasion,
    ) -> Result<Group, WorkerError> {
        let started = Instant::now();
        error!(%population, error = %why, "the population cannot be refitted: estimates that it has stay as they are");
        let mut transaction = self.store.begin_refit(std::slice::from_ref(population)).await?;
        let mut states = transaction.populations().await?;
        if let Some(state) = states.get_mut(population) {
            state.unpublished.new = transaction.leave_to_pass(population).await?;
        }
        transaction.look_for_unpublished(&mut states).await?;
        let Some(state) = states.remove(population) else {
            transaction.rollback().await?;
            return Ok(Group::default());
        };
        let is_pass_due = state.unpublished.count() > 0
            && (occasion == Occasion::End || state.unpublished.is_pass_due(state.statistics.counters.experiments));
        let Counters { experiments, effects, .. } = state.statistics.counters;
        let effects = [effects, effects, effects, experiments].map(|count| u64::try_from(count).unwrap_or(0));
        let failed = Fits::failed(&why.summary(), effects);
        let refitted = Refitted {
            population: population.clone(),
            state,
            fits: failed.fits,
            fit_settings: self.fit_settings(population),
            publication: Publication::Failed { is_pass_due },
        };
        transaction.write(vec![refitted]).await?;
        transaction.commit().await?;
        // The loop is not stuck: what has failed has its own alert.
        self.telemetry.metrics.observe_refits(1, started.elapsed());
        Ok(Group { refitted: 1, ..Group::default() })
    }
}

/// Runs arithmetic that does not wait beside the others that do.
async fn computed<T: Send + 'static>(arithmetic: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkerError> {
    tokio::task::spawn_blocking(move || caught(arithmetic)).await?.map_err(WorkerError::Panicked)
}

/// Whether an error is one that all other groups would meet, too.
fn ends_round(error: &WorkerError) -> bool {
    matches!(error, WorkerError::Store(StoreError::Connect { .. } | StoreError::Settings { .. }))
}

/// What a fit says that the one before did not: told once for each change of it.
fn new_message(Refitted { population, state, fits, .. }: &Refitted) -> Option<(PopulationName, String, FitStatus)> {
    let fit = &fits[Correlation::Modelled as usize];
    let message = fit.message.as_ref().filter(|message| state.message.as_ref() != Some(message))?;
    (fit.status == FitStatus::Failed || fit.is_prior_far).then(|| (population.clone(), message.clone(), fit.status))
}

/// Decides whether the fits of a population are to be published.
fn judge(
    population: PopulationName,
    state: RefitState,
    fits: Fits,
    fit_settings: String,
    tolerance: f64,
    occasion: Occasion,
) -> Refitted {
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
    Refitted { population, state, fits: fits.fits, fit_settings, publication }
}
