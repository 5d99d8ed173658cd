//! The refit loop: populations with news are fitted anew from their cells, and it is decided whether the estimates are
//! still near enough to exact or a whole publish is due.

use std::time::{Duration, Instant};

use shrinkd_core::PopulationName;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::WorkerError;
use crate::config::SettingsOf;
use crate::refit::{Refitted, fit_settings};
use crate::row::CurrentPopulation;
use crate::store::{Publication, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Dependency, Loop};
use crate::telemetry::metrics::PopulationSummary;

/// How often every population is reported, news or not.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// The loop's state.
#[derive(Clone)]
pub struct RefitLoop {
    pub store: Store,
    pub settings: SettingsOf,
    /// How far mu and tau may move, in units of tau, before all rows are written anew.
    pub tolerance: f64,
    pub interval: Duration,
    pub telemetry: Telemetry,
}

impl RefitLoop {
    /// Refits at most every interval until told to stop. What fails is tried again at the next.
    ///
    /// # Errors
    /// Where the store was rebuilt with other settings: this worker's time is over.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reported: Option<Instant> = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.telemetry.health.beat(Loop::Refit);
            let refitted = self.refit_all().await;
            match &refitted {
                Ok(_) => self.telemetry.health.ready(Dependency::Store),
                Err(WorkerError::Store(StoreError::Settings { .. })) => return refitted.map(drop),
                Err(error) => {
                    self.telemetry.health.not_ready(Dependency::Store, error);
                    warn!(%error, "a refit failed and is tried again");
                }
            }
            if refitted.is_ok_and(|count| count > 0) || reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                if let Err(error) = self.report().await {
                    warn!(%error, "the populations cannot be reported");
                }
            }
        }
        self.telemetry.health.finish(Loop::Refit);
        Ok(())
    }

    /// Makes it news of populations whose latest fit was made with other settings than they have now.
    ///
    /// This is for the start of a worker: two with different files, as a rolling deployment has them for a while, would
    /// otherwise take turns at undoing what the other did.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn ask_for_changed_settings(&self) -> Result<(), WorkerError> {
        let has_changed =
            |current: &CurrentPopulation| current.fit_settings != Some(self.fit_settings(&current.population));
        let populations = self.store.current_populations().await?.into_iter();
        let changed: Vec<PopulationName> = populations.filter(has_changed).map(|current| current.population).collect();
        self.store.request_refits(&changed).await?;
        Ok(())
    }

    /// What a fit is made with and judged by, in words.
    fn fit_settings(&self, population: &PopulationName) -> String {
        fit_settings(&(self.settings)(population), self.tolerance)
    }

    /// Sets the metrics of every population, whichever worker fitted it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn report(&self) -> Result<(), WorkerError> {
        for population in self.store.current_populations().await? {
            let summary = PopulationSummary {
                mu: population.mu,
                tau: population.tau,
                design_effect: population.design_effect,
                verdict: population.verdict,
                experiments: population.experiments.max(0) as u64,
                effects: population.effects.max(0) as u64,
            };
            self.telemetry.metrics.set_population(&population.population, summary);
        }
        Ok(())
    }

    /// Refits every population with news; returns how many there were.
    ///
    /// # Errors
    /// Where the store fails for other reasons than two workers meeting.
    pub async fn refit_all(&self) -> Result<usize, WorkerError> {
        let populations = self.store.populations_with_news().await?;
        for population in &populations {
            match self.refit(population, false).await {
                // Two workers met at one population: the other's refit is as good.
                Err(WorkerError::Store(StoreError::Conflict { .. })) => {
                    debug!(%population, "another worker refits");
                }
                result => drop(result?),
            }
        }
        Ok(populations.len())
    }

    /// Refits a population, news or not, and has all of its rows written anew if there are any of an earlier fit. Returns
    /// whether it did: another worker may have the population at this moment.
    ///
    /// # Errors
    /// Where the store fails for other reasons than two workers meeting.
    pub async fn refit_whole(&self, population: &PopulationName) -> Result<bool, WorkerError> {
        match self.refit(population, true).await {
            Err(WorkerError::Store(StoreError::Conflict { .. })) => Ok(false),
            result => result,
        }
    }

    async fn refit(&self, population: &PopulationName, is_whole: bool) -> Result<bool, WorkerError> {
        let started = Instant::now();
        let Some(mut transaction) = self.store.begin_refit(population).await? else { return Ok(false) };
        let state = transaction.state().await?;
        let (settings, tolerance) = ((self.settings)(population), self.tolerance);
        let (state, refitted) = tokio::task::spawn_blocking(move || {
            let refitted = Refitted::new(&state.sketches, state.counters.experiments, &settings);
            (state, refitted)
        })
        .await?;
        let publication = match refitted.judged.has_moved(state.published.as_ref(), tolerance) {
            // A pass under way gives way to the next one.
            has_moved if is_whole && (has_moved || state.published.is_some()) => Publication::Due(refitted.diagnostics),
            false => Publication::NotDue,
            true if state.is_publishing => Publication::Postponed,
            true => Publication::Due(refitted.diagnostics),
        };
        transaction.write(&state, &refitted.fits, &self.fit_settings(population), &publication).await?;
        transaction.commit().await?;
        self.telemetry.metrics.observe_refit(started.elapsed());
        Ok(true)
    }
}
