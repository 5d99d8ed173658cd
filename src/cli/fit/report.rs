//! The report of a fit, independent of the output format.

use std::collections::BTreeMap;

use shrinkd_core::{Counts, History, Population, PopulationName, Refusal, Scale};
use shrinkd_model::{Analysis, Correlation, FarPrior, PosteriorError, Request, SketchLikelihood};

use crate::cli::CliError;

/// A fit of every population of a history.
pub(super) struct Report {
    pub(super) request: Request,
    pub(super) counts: Counts,
    /// Sums of parts that cannot be estimated yet: experiment, population, and the reason.
    pub(super) pending: Vec<(String, PopulationName, Refusal)>,
    pub(super) populations: BTreeMap<PopulationName, FittedPopulation>,
}

/// One population and its analysis.
pub(super) struct FittedPopulation {
    pub(super) scale: Scale,
    pub(super) population: Population,
    pub(super) analysis: Result<Analysis, PosteriorError>,
    /// Reasons for caution in using the numbers.
    pub(super) warnings: Vec<String>,
}

/// The share of shipped experiments above which losing experiments seem to be missing (selection bias).
const SHIPPED_WARNING: f64 = 0.8;

impl Report {
    /// Fits every population of the history.
    ///
    /// # Errors
    /// Where a block that was accepted does not fit its population, which is a bug.
    pub(super) fn new(history: History, request: &Request) -> Result<Report, CliError> {
        let counts = history.counts;
        let pending = history
            .pending()
            .map(|(experiment, key, why)| (experiment.to_owned(), PopulationName::from(key.clone()), why.clone()))
            .collect();
        let populations =
            history.into_populations(request.threads).map_err(|error| CliError::Internal(error.to_string()))?;
        let fit = |scale: Scale, population: Population| {
            let analysis = Analysis::new(&population.members, &population.sketches, request);
            let warnings = warnings(&population, request);
            FittedPopulation { scale, population, analysis, warnings }
        };
        let populations = populations
            .into_iter()
            .map(|(name, population)| (name.clone(), fit(name.key().scale, population)))
            .collect();
        Ok(Report { request: *request, counts, pending, populations })
    }

    pub(super) fn is_any_fitted(&self) -> bool {
        self.populations.values().any(|fitted| fitted.analysis.is_ok())
    }
}

impl FittedPopulation {
    pub(super) fn experiments(&self) -> usize {
        self.population.experiments.len()
    }

    /// Number of effects that this model of correlation uses.
    pub(super) fn effects(&self, correlation: Correlation) -> u64 {
        self.population.sketches.of(correlation).effects()
    }
}

fn warnings(population: &Population, request: &Request) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(share) = population.shipped_share().filter(|&share| share > SHIPPED_WARNING) {
        warnings.push(format!(
            "{:.0}% of the experiments were shipped: shrinkage corrects the winner's curse only if the experiments that \
             were not shipped are included too",
            100.0 * share
        ));
    }
    if !request.method.is_point() {
        let ignored = SketchLikelihood::new(population.sketches.of(Correlation::Ignored));
        warnings.extend(FarPrior::all(&request.priors, &ignored).iter().map(FarPrior::to_string));
    }
    warnings
}
