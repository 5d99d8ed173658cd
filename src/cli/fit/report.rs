//! The report of a fit, independent of the output format.

use std::collections::BTreeMap;

use shrinkd_core::{Counts, History, Population, PopulationName, Refusal};
use shrinkd_model::{Analysis, Correlation, PosteriorError, PriorMu, PriorTau, Request};

use crate::cli::CliError;
use crate::cli::text::rounded;

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
    pub(super) population: Population,
    pub(super) analysis: Result<Analysis, PosteriorError>,
    /// Reasons for caution in using the numbers.
    pub(super) warnings: Vec<String>,
}

/// The share of shipped experiments above which losing experiments seem to be missing (selection bias).
const SHIPPED_WARNING: f64 = 0.8;

/// The factor by which a prior's scale may differ from the data's without a warning.
const SCALE_WARNING: f64 = 1_000.0;

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
        let fit = |population: Population| {
            let analysis = Analysis::new(&population.members, &population.sketches, request);
            let warnings = warnings(&population, request);
            FittedPopulation { population, analysis, warnings }
        };
        let populations = populations.into_iter().map(|(name, population)| (name, fit(population))).collect();
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

    /// Whether there is a fit, and if not, why.
    pub(super) fn status(&self) -> &'static str {
        match self.analysis {
            Ok(_) => "fitted",
            Err(PosteriorError::OneEffect) => "failed",
            Err(PosteriorError::Empty | PosteriorError::Improper { .. } | PosteriorError::Degenerate) => "improper",
        }
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
    let scales = [
        (
            "mu",
            match request.priors.mu {
                PriorMu::Flat => None,
                PriorMu::Normal { sd, .. } => Some(sd),
            },
        ),
        (
            "tau",
            match request.priors.tau {
                PriorTau::Flat => None,
                PriorTau::HalfNormal { scale } | PriorTau::HalfCauchy { scale } | PriorTau::HalfT { scale, .. } => {
                    Some(scale)
                }
            },
        ),
    ];
    let data = data_scale(population);
    for (parameter, scale) in scales {
        if !request.method.is_point()
            && let Some(scale) = scale.filter(|scale| (scale / data).ln().abs() > SCALE_WARNING.ln())
        {
            warnings.push(format!(
                "the prior of {parameter} has scale {scale:e}, but the effects are of the order of {}: priors are in the unit \
                 of the effects",
                rounded(data, 1)
            ));
        }
    }
    warnings
}

/// The order of magnitude of the effects: their root mean square.
fn data_scale(population: &Population) -> f64 {
    let blocks = || population.members.iter().map(|member| member.block());
    let squares: f64 = blocks().flat_map(|block| block.effects()).map(|effect| effect * effect).sum();
    let count: usize = blocks().map(|block| block.len()).sum();
    (squares / count as f64).sqrt()
}
