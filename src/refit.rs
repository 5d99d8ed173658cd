//! The refit of a population, pure: from what has changed to its statistics, from these to its fits under every model of
//! correlation, and whether they have moved so far from the published fit that the estimates have to be rewritten.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::PopulationName;
use shrinkd_model::{
    Block, Component, Correlation, DataScale, Diagnostics, Direction, Distance, FarPrior, Fit, IccStatus, MemberError,
    Method, Part, Posterior, PosteriorError, PriorTau, SketchLikelihood, Sketches, available_threads,
    chunk_of_exact_sums, laplace, map_chunks, variational,
};

use crate::config::PopulationSettings;
use crate::panics::caught;
use crate::row::{BlockChange, CellDiagnostics, FitRow, FitStatus, InputOffset, Statistics, TakenChanges};

/// A population of at most so many experiments has no cells: its statistics are summed from its blocks, which are less to read and
/// nothing to write.
pub const MOST_WITHOUT_CELLS: i64 = 64;

/// How long what batches have left to a pass waits for it at most, s.
const UNPUBLISHED_WAIT: f64 = 30.0;

/// The same where as much is unpublished as published, s.
const DOUBLED_WAIT: f64 = 15.0;

/// Most changes that one refit takes out of the log, for which it has its populations locked.
pub const MOST_CHANGES: i64 = 20_000;

/// A population that is being refitted: its statistics, and everything else that its fits and what becomes of them follow from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RefitState {
    pub statistics: Statistics,
    /// Whether the statistics are kept in cells.
    pub has_cells: bool,
    /// The parts whose cells differ from those that are stored.
    pub changed_parts: BTreeSet<Part>,
    /// Whether a refit is due even if nothing has changed.
    pub is_due: bool,
    /// Whether it had to wait for its next refit, so that its changes may be older than all that are looked for.
    pub has_waited: bool,
    /// How many changes it has in the log; one more than [`MOST_CHANGES`] stands for any larger number.
    pub logged: i64,
    /// The parameters of the published fit; `None` if none was published.
    pub published: Option<Judged>,
    /// What the latest fit says of itself.
    pub message: Option<String>,
    /// Whether a whole publish is due or under way. The next one waits until it has ended.
    pub is_publishing: bool,
    pub unpublished: Unpublished,
    /// How far each partition had been read when its last changes were taken.
    pub input_offsets: Vec<InputOffset>,
}

impl RefitState {
    /// Whether its blocks have to be read, because neither cells nor changes alone say what it holds.
    pub fn is_of_blocks(&self) -> bool {
        !self.has_cells && self.statistics.counters.experiments > 0
    }

    /// Whether there is anything to refit it for.
    pub fn has_news(&self) -> bool {
        self.is_due || self.logged > 0
    }

    /// Whether one refit cannot take all of its changes: what it takes is added to its cells, and fitted once the rest is.
    pub fn is_for_several_refits(&self) -> bool {
        self.logged > MOST_CHANGES
    }

    /// Where its blocks are read, they are counted anew.
    pub fn forget_blocks(&mut self) {
        let Statistics { counters, sketches } = &mut self.statistics;
        (counters.experiments, counters.effects) = (0, 0);
        *sketches = Sketches::default();
    }

    /// A population that has outgrown its blocks has cells from now on.
    pub fn grow(&mut self) {
        self.has_cells |= needs_cells(self.statistics.counters.experiments) || self.is_for_several_refits();
    }
}

/// Changes of blocks whose estimates batches that were far behind have left to a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Unpublished {
    /// Those that no pass has begun with, as the refit before has left them; and since when the first of them waits, s.
    pub waiting: i64,
    pub waited: Option<f64>,
    /// Those that have come with the changes of this refit.
    pub new: i64,
    /// Whether others have come lately, of whichever population: batches are still far behind.
    pub is_behind: bool,
}

impl Unpublished {
    pub fn count(&self) -> i64 {
        self.waiting + self.new
    }

    /// Whether a pass is to begin, through a population of so many experiments: once nothing more comes, or they have waited long
    /// enough. As a pass writes every row of the population, it would be in the way of batches that are far behind.
    pub fn is_pass_due(&self, experiments: i64) -> bool {
        let waited = self.waited.unwrap_or(0.0);
        let have_doubled = self.count() >= experiments - self.count();
        let is_quiet = self.new == 0 && !self.is_behind;
        self.count() > 0 && (is_quiet || waited >= UNPUBLISHED_WAIT || have_doubled && waited >= DOUBLED_WAIT)
    }
}

/// Whether a population of so many experiments is too large to be summed from its blocks.
pub fn needs_cells(experiments: i64) -> bool {
    experiments > MOST_WITHOUT_CELLS
}

/// Of the populations of a group, in the order in which they come, leaves those in `states` that one refit can take all changes
/// of, or the first alone. Returns the others.
pub fn split_group(group: &[PopulationName], states: &mut BTreeMap<PopulationName, RefitState>) -> Vec<PopulationName> {
    let (mut changes, mut count, mut others) = (0, 0, Vec::new());
    for population in group {
        let Some(logged) = states.get(population).map(|state| state.logged) else { continue };
        if count > 0 && changes + logged > MOST_CHANGES {
            states.remove(population);
            others.push(population.clone());
        } else {
            (changes, count) = (changes + logged, count + 1);
        }
    }
    others
}

/// A block that has no place in the statistics of its population. Batches log none of that kind.
#[derive(Debug, thiserror::Error)]
#[error("a block of {population} cannot be added: {source}")]
pub struct UnfitBlock {
    pub population: String,
    pub source: MemberError,
}

/// Applies changes to the statistics of their populations, on several threads, whose number changes no bit.
///
/// # Errors
/// If a block has no place in a sketch. `states` is of no use then.
pub fn apply(states: &mut BTreeMap<PopulationName, RefitState>, taken: TakenChanges) -> Result<(), UnfitBlock> {
    let TakenChanges { changes, counts, mut input_offsets } = taken;
    let threads = available_threads();
    let parts = map_chunks(&changes, chunk_of_exact_sums(changes.len(), threads), threads, |changes| {
        let mut sums: BTreeMap<PopulationName, Statistics> = BTreeMap::new();
        for BlockChange { population, before, after } in changes {
            let applied = sums.entry(population.clone()).or_default().apply(before.as_ref(), after.as_ref());
            applied.map_err(|source| UnfitBlock { population: population.to_string(), source })?;
        }
        Ok(sums)
    });
    for part in parts {
        for (population, sum) in part? {
            let Some(state) = states.get_mut(&population) else { continue };
            state.changed_parts.extend(sum.sketches.parts());
            state.statistics.merge(&sum);
        }
    }
    input_offsets.sort();
    // Those of other populations were taken at another moment.
    for (population, count) in &counts {
        if let Some(state) = states.get_mut(population) {
            state.statistics.counters.changes += count.changes;
            state.unpublished.new += count.unpublished;
            state.input_offsets.clone_from(&input_offsets);
        }
    }
    Ok(())
}

/// The fits of a population under every model of correlation.
#[derive(Debug, Clone, PartialEq)]
pub struct Fits {
    pub fits: Vec<FitRow>,
    pub judged: Judged,
    /// `None` if the model with the correlation modelled or the one with it ignored has no posterior.
    pub diagnostics: Option<CellDiagnostics>,
}

impl Fits {
    /// Fits the cells of a population, which hold that many experiments, under the models of correlation. A panic of the
    /// arithmetic is caught: see [`Fits::failed`].
    pub fn new(sketches: &Sketches, experiments: i64, settings: &PopulationSettings) -> Fits {
        let mut refitted = caught(|| Fits::compute(sketches, experiments, settings)).unwrap_or_else(|why| {
            Fits::failed(&why, Correlation::ALL.map(|correlation| sketches.of(correlation).effects()))
        });
        refitted.fits.iter_mut().for_each(|fit| fit.direction = settings.direction);
        refitted.judged.direction = settings.direction;
        refitted
    }

    /// What stands for the fits of a population that cannot be fitted, with so many effects under each model of correlation: rows
    /// that say why, and have no figures.
    pub fn failed(why: &str, effects: [u64; Correlation::COUNT]) -> Fits {
        Fits::without_posterior(FitStatus::Failed, why, effects)
    }

    fn without_posterior(status: FitStatus, why: &str, effects: [u64; Correlation::COUNT]) -> Fits {
        let row = |(correlation, effects)| FitRow::without_posterior(correlation, status, why.to_owned(), effects);
        let fits: Vec<FitRow> = Correlation::ALL.into_iter().zip(effects).map(row).collect();
        Fits { judged: Judged::of(&fits[Correlation::Modelled as usize]), fits, diagnostics: None }
    }

    fn compute(sketches: &Sketches, experiments: i64, settings: &PopulationSettings) -> Fits {
        let effects = Correlation::ALL.map(|correlation| sketches.of(correlation).effects());
        let is_cold = (experiments as u64) < settings.min_experiments && settings.priors.tau == PriorTau::Flat;
        let cold_start = is_cold.then(|| cold_start(experiments, settings.min_experiments));
        let without = |error: &PosteriorError| match FitStatus::without(error) {
            FitStatus::Improper if is_cold => FitStatus::ColdStart,
            status => status,
        };
        let scale = DataScale::new(&sketches.of(Correlation::Ignored));
        let priors = match settings.priors.resolve(scale.as_ref()) {
            Ok(priors) => priors,
            Err(error) => {
                let error = PosteriorError::from(error);
                return Fits::without_posterior(without(&error), &error.to_string(), effects);
            }
        };
        let likelihoods = Correlation::ALL.map(|correlation| SketchLikelihood::new(&sketches.of(correlation)));
        let fits = sketches.map_distinct(&priors.icc, |correlation| {
            Fit::of(sketches, correlation, &likelihoods[correlation as usize], &priors, Method::Quadrature)
        });
        let far: Vec<FarPrior> = scale.iter().flat_map(|scale| FarPrior::all(&priors, scale)).collect();
        let told: Vec<String> = cold_start.into_iter().chain(far.iter().map(FarPrior::to_string)).collect();
        let mut rows = sketches.map_distinct(&priors.icc, |correlation| {
            let fit = &fits[correlation as usize];
            let likelihood = &likelihoods[correlation as usize];
            let effects = sketches.of(correlation).effects();
            match fit {
                Ok(fit) => FitRow {
                    correlation,
                    status: if is_cold { FitStatus::ColdStart } else { FitStatus::Fitted },
                    message: (!told.is_empty()).then(|| told.join("; ")),
                    direction: settings.direction,
                    is_prior_far: !far.is_empty(),
                    effects,
                    multi_variant_experiments: sketches.blocks_of_several_variants(),
                    mu: fit.posterior.mu,
                    tau: fit.posterior.tau,
                    icc: fit.posterior.icc,
                    icc_status: None,
                    mu_tau_correlation: fit.posterior.correlation,
                    log_evidence: fit.posterior.log_evidence,
                    predictive: fit.predictive,
                    log_tau_sd: Some(fit.posterior.tau_distribution.log_sd()).filter(|sd| sd.is_finite()),
                    tau_shortest95: Some(fit.posterior.tau_distribution.shortest95())
                        .filter(|(low, high)| low.is_finite() && high.is_finite()),
                    prob_tau_negligible: scale.map(|scale| fit.posterior.tau_distribution.negligible(scale.se)),
                    prior_mu: Some(priors.mu.to_string()),
                    prior_tau: Some(priors.tau.to_string()),
                    prior_icc: None,
                    laplace: approximation(fit, || laplace(likelihood, &priors)),
                    variational: approximation(fit, || variational(likelihood, &priors)),
                    nodes: fit.nodes.clone(),
                },
                Err(error) => FitRow::without_posterior(correlation, without(error), error.to_string(), effects),
            }
        });
        rows.iter_mut().zip(Correlation::ALL).for_each(|(row, correlation)| row.correlation = correlation);
        let modelled = &mut rows[Correlation::Modelled as usize];
        if modelled.prior_mu.is_some() {
            modelled.prior_icc = Some(priors.icc.to_string());
            modelled.icc_status = match &modelled.icc {
                Some(posterior) => posterior.status(),
                None => priors.icc.known().is_none().then_some(IccStatus::NoMultiVariant),
            };
        }
        let diagnostics = match &fits {
            [Ok(modelled), _, Ok(ignored), _] => Some(Diagnostics::new(
                sketches,
                (&likelihoods[Correlation::Modelled as usize], &modelled.posterior),
                (&likelihoods[Correlation::Ignored as usize], &ignored.posterior),
            )),
            _ => None,
        };
        let diagnostics = diagnostics.filter(Diagnostics::is_finite);
        Fits { judged: Judged::of(&rows[Correlation::Modelled as usize]), fits: rows.into(), diagnostics }
    }
}

fn cold_start(experiments: i64, needed: u64) -> String {
    format!(
        "{experiments} experiment(s), but a flat prior of tau needs {needed}: until then only raw estimates are \
         published. With a proper prior of tau in the configuration, fewer are enough"
    )
}

/// How far an approximation that takes true effects as independent is from a fit that does, too.
fn approximation(exact: &Fit, approximate: impl FnOnce() -> Result<Posterior, PosteriorError>) -> Option<Distance> {
    let approximate = exact.has_independent_effects().then(approximate)?.ok()?;
    Some(Distance::new(&approximate, &exact.posterior))
}

/// Whether a fit is to be published.
#[derive(Debug, Clone, PartialEq)]
pub enum Publication {
    /// The published rows are near enough to it.
    NotDue,
    /// It is appended to the history, with what the cells say of the population where it has a posterior, and every row is
    /// to be written again.
    Due(Option<CellDiagnostics>),
    /// The published fit stays, but rows are to be written that batches have left to a pass.
    Pass,
    /// It should be, but the publish before it is still under way, or batches are still far behind: the population is refitted once
    /// that has ended, or after a while, and not before.
    Postponed,
    /// There is none, because the population could not be read or what was computed could not be written: it is tried again after a
    /// while. What batches have left to a pass may be written all the same.
    Failed { is_pass_due: bool },
}

/// The parameters of a fit that decide whether a whole publish is due: see [`Judged::has_moved`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    pub status: FitStatus,
    pub mu: Option<f64>,
    pub mu_sd: Option<f64>,
    /// Posterior median.
    pub tau: Option<f64>,
    pub log_tau_sd: Option<f64>,
    /// Posterior mean of the intraclass correlation and its sd; `None` where it is no part of the fit.
    pub icc: Option<f64>,
    pub icc_sd: Option<f64>,
    pub direction: Direction,
}

impl Judged {
    /// The parameters of a fit.
    pub fn of(fit: &FitRow) -> Judged {
        Judged {
            status: fit.status,
            mu: fit.mu.mean.or(fit.mu.median),
            mu_sd: fit.mu.sd,
            tau: fit.tau.median,
            log_tau_sd: fit.log_tau_sd,
            icc: fit.icc.and_then(|posterior| posterior.icc.mean),
            icc_sd: fit.icc.and_then(|posterior| posterior.icc.sd),
            direction: fit.direction,
        }
    }

    /// Whether estimates under the `published` fit are too far from those under this one. They are if mu or its sd moved by
    /// more than `tolerance sqrt(tau^2 + sd(mu)^2)`, if log tau or its sd moved by more than `tolerance`, if
    /// `log((1 + 3 icc) / (1 - icc))`, icc being the posterior mean, or with it the sd of icc moved by more than twice that, or if the
    /// status or the direction changed. A fit that failed is never published: the estimates stay as they are.
    ///
    /// If mu moves by `x`, an effect moves by `h x`, where `h = (I - tau^2 V^-1) 1`, and its posterior variance is at least
    /// `h^2 (tau^2 / n + sd(mu)^2)` (Cauchy-Schwarz). The move of mu therefore shifts no effect by more than
    /// `tolerance sqrt(n)` of its posterior sds. The move of tau shifts a plug-in mean by at most `tolerance sqrt(r'V^-1 r)`.
    pub fn has_moved(&self, published: Option<&Judged>, tolerance: f64) -> bool {
        if self.status == FitStatus::Failed {
            return false;
        }
        let Some(published) = published else { return self.status != FitStatus::ColdStart };
        if self.status != published.status || self.direction != published.direction {
            return true;
        }
        if self.status != FitStatus::Fitted {
            return false;
        }
        let apart = |x: Option<f64>, y: Option<f64>, unit: f64| match (x, y) {
            // Logs of a tau that is fixed at 0 have no difference.
            (Some(x), Some(y)) => x != y && (x - y).abs() > tolerance * unit,
            (None, None) => false,
            _ => true,
        };
        let unit = published.tau.unwrap_or(0.0).hypot(published.mu_sd.unwrap_or(0.0));
        apart(self.mu, published.mu, unit)
            || apart(self.mu_sd, published.mu_sd, unit)
            || apart(self.tau.map(f64::ln), published.tau.map(f64::ln), 1.0)
            || apart(self.log_tau_sd, published.log_tau_sd, 1.0)
            || self.has_moved_in_icc(published, tolerance)
    }

    fn has_moved_in_icc(&self, published: &Judged, tolerance: f64) -> bool {
        let Some((icc, last)) = self.icc.zip(published.icc) else { return self.icc != published.icc };
        let along = |icc: f64| 0.5 * ((1.0 + 3.0 * icc) / (1.0 - icc)).ln();
        let slope = 2.0 / ((1.0 - last) * (1.0 + 3.0 * last));
        let [sd, last_sd] = [self.icc_sd, published.icc_sd].map(|sd| slope * sd.unwrap_or(0.0));
        (along(icc) - along(last)).abs() > tolerance || (sd - last_sd).abs() > tolerance
    }

    /// The largest distance of a published estimate of a block from the one under this fit, in posterior sds, which
    /// [`Judged::has_moved`] ensures: [`furthest_from_exact`], and where icc is not known one more move.
    ///
    /// `tau^2 R` has the eigenvalues `tau^2 (1 - icc)` and `tau^2 (1 + (n - 1) icc)`, whose logs move with
    /// `log((1 + 3 icc) / (1 - icc))` by up to 1 and up to `max(1, (n - 1) / 4)` times as much. If all of them move by `2 x` at most, no
    /// plug-in mean shifts by more than `x sqrt(r'V^-1 r)`, as by a move of log tau.
    pub fn furthest_from_exact(&self, tolerance: f64, block: &Block) -> f64 {
        let (mu, tau) = (self.mu.unwrap_or(0.0), self.tau.unwrap_or(0.0));
        let components = block.components_at(self.icc.unwrap_or(0.0)).unwrap_or_default();
        let of_both = furthest_from_exact(tolerance, mu, tau, &components);
        let of_mu = tolerance * (components.len() as f64).sqrt();
        match self.icc {
            None => of_both,
            Some(_) => of_both + (of_both - of_mu) * (0.25 * (components.len() as f64 - 1.0)).max(1.0),
        }
    }
}

/// The settings of a fit and of the decision to publish it, as stored with the population.
pub fn fit_settings(settings: &PopulationSettings, tolerance: f64) -> String {
    format!("{settings}, tolerance {tolerance}")
}

/// The largest distance of a published estimate of a block from the exact one, in posterior sds:
/// `tolerance (sqrt(n) + sqrt(r'V^-1 r))` at the exact mu and tau. [`Judged::has_moved`] ensures it.
pub fn furthest_from_exact(tolerance: f64, mu: f64, tau: f64, components: &[Component]) -> f64 {
    let square: f64 = components.iter().map(|c| (c.b - mu * c.a).powi(2) / (c.lambda + tau * tau)).sum();
    tolerance * ((components.len() as f64).sqrt() + square.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_begins_once_nothing_more_comes_or_what_is_left_to_it_has_waited_long_enough() {
        let left = |waiting, new, waited, is_behind| Unpublished { waiting, new, waited: Some(waited), is_behind };
        for (unpublished, is_due) in [
            (Unpublished::default(), false),
            (left(0, 0, 100.0, false), false),
            (left(1, 0, 0.0, false), true),
            (left(1, 0, 0.0, true), false),
            (left(1, 1, 0.0, false), false),
            (left(0, 1, 0.0, false), false),
            (left(49, 0, 29.9, true), false),
            (left(49, 0, 30.0, true), true),
            (left(50, 0, 14.9, true), false),
            (left(50, 0, 15.0, true), true),
            (left(49, 1, 15.0, false), true),
            (left(49, 0, 15.0, true), false),
        ] {
            assert_eq!(unpublished.is_pass_due(100), is_due, "{unpublished:?}");
        }
    }
}
