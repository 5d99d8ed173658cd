//! The estimates of a population as rows, the same in every output format.

use serde::Serialize;
use shrinkd_core::{Experiment, Scale, is_lift_too_large};
use shrinkd_model::{Analysis, Correlation, EffectAnalysis, Member};

use super::report::FittedPopulation;

/// One effect, raw and shrunk.
#[derive(Serialize)]
pub(super) struct EstimateRow<'a> {
    pub(super) experiment_id: &'a str,
    pub(super) variant: &'a str,
    pub(super) revision: u64,
    pub(super) raw_estimate: f64,
    pub(super) raw_se: f64,
    pub(super) is_continuity_corrected: bool,
    pub(super) lift_too_large_for_relative: bool,
    pub(super) control_variance_source: &'static str,
    pub(super) posterior_mean: f64,
    pub(super) posterior_sd: f64,
    pub(super) ci80_low: f64,
    pub(super) ci80_high: f64,
    pub(super) ci95_low: f64,
    pub(super) ci95_high: f64,
    pub(super) prob_positive: f64,
    pub(super) lfsr: f64,
    pub(super) shrinkage_factor: f64,
    pub(super) weight_of_mu: f64,
    pub(super) naive_posterior_mean: Option<f64>,
    pub(super) predictive_z: Option<f64>,
    pub(super) mix_up: Option<&'static str>,
    /// Which way of the effect is better.
    pub(super) direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prob_best: Option<f64>,
}

/// Calls `each` for every effect that this model of correlation keeps, by experiment and variant.
pub(super) fn for_each_effect<'a, E>(
    fitted: &'a FittedPopulation,
    analysis: &'a Analysis,
    correlation: Correlation,
    mut each: impl FnMut(EstimateRow<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let population = &fitted.population;
    for ((experiment, member), block) in population.experiments.iter().zip(&population.members).zip(&analysis.blocks) {
        for (i, (effect, variant)) in block.effects.iter().zip(member.variants(correlation)).enumerate() {
            let best = block.best.as_ref().map(|best| best.variants[i]);
            each(row(fitted.scale, experiment, member, effect, variant, best))?;
        }
    }
    Ok(())
}

fn row<'a>(
    scale: Scale,
    experiment: &'a Experiment,
    member: &Member,
    effect: &EffectAnalysis,
    variant: usize,
    prob_best: Option<f64>,
) -> EstimateRow<'a> {
    let EffectAnalysis { estimate, intervals, naive_mean, prediction, mix_up } = *effect;
    EstimateRow {
        experiment_id: &experiment.experiment_id,
        variant: &experiment.variants[variant],
        revision: experiment.revision,
        raw_estimate: member.block().effects()[variant],
        raw_se: experiment.raw_variances[variant].sqrt(),
        is_continuity_corrected: experiment.is_continuity_corrected,
        lift_too_large_for_relative: is_lift_too_large(scale, member.block().effects()[variant]),
        control_variance_source: experiment.control_variance_source.as_str(),
        posterior_mean: estimate.mean,
        posterior_sd: estimate.sd,
        ci80_low: intervals.ci80.0,
        ci80_high: intervals.ci80.1,
        ci95_low: intervals.ci95.0,
        ci95_high: intervals.ci95.1,
        prob_positive: estimate.prob_positive,
        lfsr: estimate.lfsr(),
        shrinkage_factor: estimate.shrinkage_factor,
        weight_of_mu: estimate.weight_of_mu,
        naive_posterior_mean: naive_mean,
        predictive_z: prediction.map(|prediction| prediction.z),
        mix_up: mix_up.map(|mix_up| mix_up.as_str()),
        direction: member.direction().as_str(),
        prob_best,
    }
}
