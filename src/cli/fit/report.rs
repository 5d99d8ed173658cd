//! The report of a fit, independent of the output format.

use std::collections::BTreeMap;

use shrinkd_core::{Counts, History, Population, PopulationName, Refusal, ResultKey, Scale, ShippedDecisions};
use shrinkd_model::{
    Analysis, Correlation, DataScale, Direction, FarPrior, IccPosterior, LARGEST_ICC, PosteriorError, Request,
    Selection,
};

use crate::cli::CliError;
use crate::panics::caught;
use crate::row::FitStatus;

/// A fit of every population of a history.
pub(in crate::cli) struct Report {
    pub(in crate::cli) request: Request,
    pub(in crate::cli) counts: Counts,
    /// They are in no population.
    pub(super) holdouts: usize,
    /// Sums of parts that cannot be estimated yet: experiment, population, and the reason.
    pub(in crate::cli) pending: Vec<(String, PopulationName, Refusal)>,
    pub(in crate::cli) populations: BTreeMap<PopulationName, FittedPopulation>,
}

/// One population and its analysis.
pub(in crate::cli) struct FittedPopulation {
    pub(in crate::cli) scale: Scale,
    pub(in crate::cli) population: Population,
    /// The share of its experiments that were shipped; `None` where none has a decision.
    pub(in crate::cli) shipped_share: Option<f64>,
    pub(in crate::cli) analysis: Result<Analysis, NoAnalysis>,
    /// Reasons for caution in using the numbers.
    pub(in crate::cli) warnings: Vec<String>,
    /// Likely mix-ups of units, all of them.
    pub(in crate::cli) mix_ups: Vec<String>,
}

/// Number of likely mix-ups of a population that are reported one by one.
const MIX_UPS: usize = 5;

/// Why a population has no analysis. The others have theirs.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum NoAnalysis {
    #[error(transparent)]
    Posterior(#[from] PosteriorError),
    #[error("{0}. This is a bug of shrinkd: please report it with these priors and data")]
    Panic(String),
}

/// The share of shipped experiments above which losing experiments seem to be missing (selection bias).
const SHIPPED_WARNING: f64 = 0.8;

impl Report {
    /// Fits every population of the history.
    ///
    /// # Errors
    /// Where a block that was accepted does not fit its population, which is a bug.
    pub(in crate::cli) fn new(
        history: History,
        request: &Request,
        directions: &[(String, Direction)],
        shipped: &ShippedDecisions,
    ) -> Result<Report, CliError> {
        let (counts, holdouts) = (history.counts, history.holdouts());
        let pending = history
            .pending()
            .map(|(experiment, key, why)| (experiment.to_owned(), PopulationName::from(key.clone()), why.clone()))
            .collect();
        let populations =
            history.into_populations(request.threads).map_err(|error| CliError::Internal(error.to_string()))?;
        let fit = |name: &PopulationName, mut population: Population| {
            let ResultKey { metric, scale, .. } = name.key();
            if let Some((_, direction)) = directions.iter().rfind(|(of, _)| of == metric) {
                population.set_direction(*direction);
            }
            let analysis = caught(|| Analysis::new(&population.members, &population.sketches, request));
            let analysis = analysis.map_err(NoAnalysis::Panic).and_then(|analysis| Ok(analysis?));
            let shipped_share = population.shipped_share(shipped);
            let mut warnings = warnings(&population, shipped_share, request);
            warnings.extend(analysis.iter().flat_map(not_borne_out));
            let mix_ups = analysis
                .as_ref()
                .map_or_else(|_| Vec::new(), |analysis| mix_ups(&population, analysis, request.correlation));
            warnings.extend(at_most(MIX_UPS, mix_ups.clone()));
            FittedPopulation { scale: *scale, population, shipped_share, analysis, warnings, mix_ups }
        };
        let populations =
            populations.into_iter().map(|(name, population)| (name.clone(), fit(&name, population))).collect();
        Ok(Report { request: *request, counts, holdouts, pending, populations })
    }

    pub(in crate::cli) fn is_any_fitted(&self) -> bool {
        self.populations.values().any(|fitted| fitted.analysis.is_ok())
    }
}

impl FittedPopulation {
    pub(in crate::cli) fn experiments(&self) -> usize {
        self.population.experiments.len()
    }

    /// Whether there is a fit, and if not, why.
    pub(in crate::cli) fn status(&self) -> FitStatus {
        match &self.analysis {
            Ok(_) => FitStatus::Fitted,
            Err(NoAnalysis::Posterior(error)) => FitStatus::without(error),
            Err(NoAnalysis::Panic(_)) => FitStatus::Failed,
        }
    }

    /// Whether less is better in every experiment.
    pub(super) fn is_less_better(&self) -> bool {
        self.population.members.iter().all(|member| member.direction() == Direction::Decrease)
    }

    /// Number of effects that this model of correlation uses.
    pub(in crate::cli) fn effects(&self, correlation: Correlation) -> u64 {
        self.population.sketches.of(correlation).effects()
    }
}

fn warnings(population: &Population, shipped_share: Option<f64>, request: &Request) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(share) = shipped_share.filter(|&share| share > SHIPPED_WARNING) {
        warnings.push(format!(
            "{:.0}% of the experiments were shipped: shrinkage corrects the winner's curse only if the experiments that \
             were not shipped are included too",
            100.0 * share
        ));
    }
    if !request.method.is_point() {
        let scale = DataScale::new(&population.sketches.of(Correlation::Ignored));
        let priors = request.priors.resolve(scale.as_ref()).unwrap_or_default();
        warnings.extend(scale.iter().flat_map(|scale| FarPrior::all(&priors, scale)).map(|far| far.to_string()));
    }
    warnings
}

/// That losers seem to be missing, and that predictions are not borne out.
fn not_borne_out(analysis: &Analysis) -> Vec<String> {
    let selection = analysis.selection.filter(Selection::is_suspected).map(|selection| selection.to_string());
    let cause = analysis.miscalibration.map(|cause| format!("predictions are not borne out: {cause}"));
    let at_end = analysis.fit.posterior.icc.filter(IccPosterior::is_at_upper_end).map(|icc| {
        format!(
            "icc_at_upper_end: the intraclass correlation is above 0.9 with probability {:.2}, so that the figures depend on its largest value, \
             {LARGEST_ICC}",
            icc.prob_above_090
        )
    });
    selection.into_iter().chain(cause).chain(at_end).collect()
}

/// What looks as if it had been sent in another unit: the population, then its effects.
fn mix_ups(population: &Population, analysis: &Analysis, correlation: Correlation) -> Vec<String> {
    let mut told: Vec<String> = analysis.mix_up.iter().map(ToString::to_string).collect();
    for ((experiment, member), block) in population.experiments.iter().zip(&population.members).zip(&analysis.blocks) {
        for (effect, variant) in block.effects.iter().zip(member.variants(correlation)) {
            let name = |mix_up| format!("{} {}: {mix_up}", experiment.experiment_id, experiment.variants[variant]);
            told.extend(effect.mix_up.as_ref().map(name));
        }
    }
    told
}

/// The first of several, and how many more there are.
fn at_most(most: usize, mut told: Vec<String>) -> Vec<String> {
    let more = told.len().saturating_sub(most);
    told.truncate(most);
    told.extend((more > 0).then(|| format!("and {more} more likely mix-ups (mix_up in the JSON)")));
    told
}
