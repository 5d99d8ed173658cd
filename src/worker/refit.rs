//! The refit loop: populations with news are fitted anew from their cells, and it is decided whether the estimates are
//! still near enough to exact or a whole publish is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::WorkerError;
use crate::config::PopulationSettings;
use crate::model::diagnostics::{Diagnostics, log_tau_sd};
use crate::model::fit::{Correlation, Distance, Fit, Method};
use crate::model::likelihood::SketchLikelihood;
use crate::model::posterior::laplace::laplace;
use crate::model::posterior::variational::variational;
use crate::model::posterior::{Posterior, PosteriorError, Summary};
use crate::model::prior::PriorTau;
use crate::model::spectrum::Component;
use crate::population::PopulationName;
use crate::row::{CellDiagnostics, CurrentPopulation, FitRow, FitStatus, Judged};
use crate::store::{Publication, Refit as _, RefitState, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Dependency, Loop};
use crate::telemetry::metrics::PopulationSummary;

/// The settings of each population.
pub type SettingsOf = Arc<dyn Fn(&PopulationName) -> PopulationSettings + Send + Sync>;

/// How often every population is reported, news or not.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// The loop's state.
#[derive(Clone)]
pub struct RefitLoop<S> {
    pub store: S,
    pub settings: SettingsOf,
    /// How far mu and tau may move, in units of tau, before all rows are written anew.
    pub tolerance: f64,
    pub interval: Duration,
    pub telemetry: Telemetry,
}

impl<S: Store> RefitLoop<S> {
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
        self.store.ask_for_refits(&changed).await?;
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
                Err(WorkerError::Store(StoreError::Transient { code: Some(code), .. })) if code == "40001" => {
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
            Err(WorkerError::Store(StoreError::Transient { code: Some(code), .. })) if code == "40001" => Ok(false),
            result => result,
        }
    }

    async fn refit(&self, population: &PopulationName, is_whole: bool) -> Result<bool, WorkerError> {
        let started = Instant::now();
        let Some(mut transaction) = self.store.begin_refit(population).await? else { return Ok(false) };
        let state = transaction.state().await?;
        let (settings, tolerance) = ((self.settings)(population), self.tolerance);
        let (state, refitted) = tokio::task::spawn_blocking(move || {
            let refitted = Refitted::new(&state, &settings);
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

/// The fits of a population under every model of correlation.
#[derive(Debug, Clone, PartialEq)]
pub struct Refitted {
    pub fits: Vec<FitRow>,
    pub judged: Judged,
    /// `None` where one of the models has no posterior.
    pub diagnostics: Option<CellDiagnostics>,
}

impl Refitted {
    /// Fits the cells under the three models of correlation.
    pub fn new(state: &RefitState, settings: &PopulationSettings) -> Refitted {
        let likelihoods = Correlation::ALL.map(|correlation| SketchLikelihood::new(state.sketches.of(correlation)));
        let fits = likelihoods.each_ref().map(|likelihood| Fit::new(likelihood, &settings.priors, Method::Quadrature));
        let is_cold =
            (state.counters.experiments as u64) < settings.min_experiments && settings.priors.tau == PriorTau::Flat;
        let rows = Correlation::ALL.into_iter().zip(&fits).map(|(correlation, fit)| {
            let likelihood = &likelihoods[correlation as usize];
            let effects = state.sketches.of(correlation).effects();
            match fit {
                Ok(fit) => FitRow {
                    correlation,
                    status: if is_cold { FitStatus::ColdStart } else { FitStatus::Fitted },
                    message: is_cold.then(|| cold_start(state.counters.experiments, settings.min_experiments)),
                    effects,
                    mu: fit.posterior.mu,
                    tau: fit.posterior.tau,
                    mu_tau_correlation: fit.posterior.correlation,
                    log_evidence: fit.posterior.log_evidence,
                    predictive: fit.predictive,
                    log_tau_sd: Some(log_tau_sd(&fit.posterior.nodes)),
                    laplace: distance(laplace(likelihood, &settings.priors), &fit.posterior),
                    variational: distance(variational(likelihood, &settings.priors), &fit.posterior),
                    nodes: fit.nodes.clone(),
                },
                Err(error) => FitRow {
                    correlation,
                    status: if is_cold { FitStatus::ColdStart } else { FitStatus::Improper },
                    message: Some(error.to_string()),
                    effects,
                    mu: Summary::default(),
                    tau: Summary::default(),
                    mu_tau_correlation: None,
                    log_evidence: None,
                    predictive: Summary::default(),
                    log_tau_sd: None,
                    laplace: None,
                    variational: None,
                    nodes: Vec::new(),
                },
            }
        });
        let rows: Vec<FitRow> = rows.collect();
        let diagnostics = match &fits {
            [Ok(modelled), Ok(ignored), _] => Some(Diagnostics::new(
                (state.sketches.of(Correlation::Modelled), &likelihoods[0], &modelled.posterior),
                (&likelihoods[1], &ignored.posterior),
            )),
            _ => None,
        };
        Refitted { judged: Judged::of(&rows[Correlation::Modelled as usize]), fits: rows, diagnostics }
    }
}

fn cold_start(experiments: i64, needed: u64) -> String {
    format!(
        "{experiments} experiment(s) of the {needed} that a flat prior of tau needs: until then the raw estimates stand. A \
         proper prior of tau in the configuration lifts that"
    )
}

fn distance(approximate: Result<Posterior, PosteriorError>, exact: &Posterior) -> Option<Distance> {
    Some(Distance::new(&approximate.ok()?, exact))
}

impl Judged {
    /// What a fit is judged by.
    pub fn of(fit: &FitRow) -> Judged {
        Judged {
            status: fit.status,
            mu: fit.mu.mean.or(fit.mu.median),
            mu_sd: fit.mu.sd,
            tau: fit.tau.median,
            log_tau_sd: fit.log_tau_sd,
        }
    }

    /// Whether estimates under the `published` fit have become too far from those under this one: mu or its sd moved by
    /// more than `tolerance sqrt(tau^2 + sd(mu)^2)`, log tau or its sd by more than `tolerance`, or the status is another.
    ///
    /// A move of mu by `x` moves an effect by `h x`, `h = (I - tau^2 V^-1) 1`, and its posterior variance is at least
    /// `h^2 (tau^2 / n + sd(mu)^2)` (Cauchy-Schwarz), so that no effect moves by more than `tolerance sqrt(n)` of its
    /// posterior sds on account of mu. On account of tau a plug-in mean moves by `tolerance sqrt(r'V^-1 r)` at most.
    pub fn has_moved(&self, published: Option<&Judged>, tolerance: f64) -> bool {
        let Some(published) = published else { return self.status != FitStatus::ColdStart };
        if self.status != published.status {
            return true;
        }
        if self.status != FitStatus::Fitted {
            return false;
        }
        let apart = |x: Option<f64>, y: Option<f64>, unit: f64| match (x, y) {
            (Some(x), Some(y)) => (x - y).abs() > tolerance * unit,
            (None, None) => false,
            _ => true,
        };
        let unit = published.tau.unwrap_or(0.0).hypot(published.mu_sd.unwrap_or(0.0));
        apart(self.mu, published.mu, unit)
            || apart(self.mu_sd, published.mu_sd, unit)
            || apart(self.tau.map(f64::ln), published.tau.map(f64::ln), 1.0)
            || apart(self.log_tau_sd, published.log_tau_sd, 1.0)
    }
}

/// What a fit is made with and judged by, in words.
pub fn fit_settings(settings: &PopulationSettings, tolerance: f64) -> String {
    format!("{settings}, tolerance {tolerance}")
}

/// How far, in posterior sds, a published estimate of a block may be from exact: `tolerance (sqrt(n) + sqrt(r'V^-1 r))` at
/// the exact mu and tau, which [`Judged::has_moved`] sees to.
pub fn furthest_from_exact(tolerance: f64, mu: f64, tau: f64, components: &[Component]) -> f64 {
    let square: f64 = components.iter().map(|c| (c.b - mu * c.a).powi(2) / (c.lambda + tau * tau)).sum();
    tolerance * ((components.len() as f64).sqrt() + square.sqrt())
}
