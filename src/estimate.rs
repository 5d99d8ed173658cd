//! The estimates of the effects of one block under a published fit: rows of `effect_estimates`.

use shrinkd_core::{Measured, is_lift_too_large};
use shrinkd_model::{Block, BlockPosterior, Covariance, Direction, Estimate, prob_best};

use crate::panics::caught;
use crate::row::{BlockToEstimate, EstimateRow, FitStatus, PublishedFit, ShrunkEstimate};

/// The estimates of one block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockEstimates {
    pub rows: Vec<EstimateRow>,
    /// One for each effect, with the correlation modelled; empty unless fitted.
    pub modelled: Vec<Estimate>,
    /// The same with the correlation ignored; empty if that model has no posterior.
    pub naive: Vec<Estimate>,
}

impl BlockEstimates {
    /// Estimates every effect of a block, which the commit last changed. Without a posterior, rows have raw figures only. So
    /// they have, with the status `failed`, if the arithmetic panics or gives a figure that is no finite number: it concerns this
    /// block alone.
    pub fn new(block: &BlockToEstimate, commit_id: i64, fit: &PublishedFit) -> BlockEstimates {
        let BlockToEstimate { population, experiment_id, revision, measured, properties, shipped_variant } = block;
        let Measured { variants, block, raw_variances, is_continuity_corrected, control_variance_source } = measured;
        let scale = population.key().scale;
        let direction = properties.direction.or(fit.direction);
        let is_fitted = fit.status == FitStatus::Fitted && !fit.nodes.is_empty();
        let (status, shrunken) =
            match is_fitted.then(|| caught(|| Shrunken::new(block, direction.unwrap_or_default(), fit))) {
                None => (fit.status, Shrunken::default()),
                Some(Ok(shrunken)) if shrunken.is_finite() => (fit.status, shrunken),
                Some(_) => (FitStatus::Failed, Shrunken::default()),
            };
        let Shrunken { modelled, naive, figures } = shrunken;
        let row = |(i, variant): (usize, &String)| {
            let shared = shared_control(block, i);
            EstimateRow {
                population: population.clone(),
                experiment_id: experiment_id.clone(),
                variant: variant.clone(),
                block_revision: *revision,
                commit_id,
                status,
                raw_estimate: block.effects()[i],
                raw_se: raw_variances[i].sqrt(),
                is_continuity_corrected: *is_continuity_corrected,
                lift_too_large_for_relative: is_lift_too_large(scale, block.effects()[i]),
                treatment_variance: shared.map(|(d, _)| d),
                control_variance: shared.map(|(_, c)| c),
                control_variance_source: *control_variance_source,
                direction,
                coverage: properties.coverage.unwrap_or(1.0),
                is_shipped: shipped_variant.as_ref().map(|shipped| shipped == variant),
                shrunk: figures.get(i).copied(),
                fit_id: fit.fit_id,
            }
        };
        let rows = variants.iter().enumerate().map(row).collect();
        BlockEstimates { rows, modelled, naive }
    }
}

/// What follows for a block from a fit.
#[derive(Default)]
struct Shrunken {
    modelled: Vec<Estimate>,
    naive: Vec<Estimate>,
    /// One for each effect.
    figures: Vec<ShrunkEstimate>,
}

impl Shrunken {
    fn new(block: &Block, direction: Direction, fit: &PublishedFit) -> Shrunken {
        let posterior = BlockPosterior::new(block, &fit.nodes);
        let naive_posterior =
            (!fit.naive_nodes.is_empty()).then(|| BlockPosterior::new(&block.independent(), &fit.naive_nodes));
        let naive = naive_posterior.as_ref().map(BlockPosterior::estimates).unwrap_or_default();
        let modelled = posterior.estimates();
        let best = prob_best(block, &fit.nodes, direction).ok().map(|best| best.variants);
        let figures = modelled.iter().enumerate().map(|(i, estimate)| {
            let intervals = posterior.intervals(i, estimate);
            ShrunkEstimate {
                posterior_mean: estimate.mean,
                posterior_sd: estimate.sd,
                ci80: intervals.ci80,
                ci95: intervals.ci95,
                prob_positive: estimate.prob_positive,
                lfsr: estimate.lfsr(),
                shrinkage_factor: estimate.shrinkage_factor,
                weight_of_mu: estimate.weight_of_mu,
                naive_posterior_mean: naive.get(i).map(|estimate| estimate.mean),
                prob_best: best.as_ref().and_then(|best| best.get(i).copied()),
                control_shift: posterior.control_shift.map(|shift| shift.mean),
                control_shift_sd: posterior.control_shift.map(|shift| shift.sd),
            }
        });
        Shrunken { figures: figures.collect(), modelled, naive }
    }

    fn is_finite(&self) -> bool {
        self.figures.iter().all(ShrunkEstimate::is_finite)
    }
}

/// d and c of one effect; `None` if the covariance is dense.
fn shared_control(block: &Block, i: usize) -> Option<(f64, f64)> {
    match block.covariance() {
        Covariance::SharedControl { treatment_variances, control_variance } => {
            Some((treatment_variances[i], *control_variance))
        }
        Covariance::Dense { .. } => None,
    }
}
