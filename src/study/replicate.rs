//! One draw of a scenario: its fits under the models of correlation, and whether the correlation matters.

use shrinkd_core::{Grouping, Refusal, UnfitBlock};
use shrinkd_model::{
    BlockError, BlockPass, BlockPosterior, Correlation, Estimate, Fit, LeaveOneOuts, Measure, Member, MemberError,
    Method, PosteriorError, Priors, SketchLikelihood, Sketches, Summary, Thresholds, Verdict,
};

use super::performance::Score;
use crate::simulate::Experiment;

/// The results of one replicate.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicate {
    /// In the order of [`Correlation::ALL`].
    pub fits: [ScoredFit; Correlation::COUNT],
    pub verdict: Verdict,
    /// The measure that decides the verdict, and its value.
    pub rests_on: (Measure, f64),
}

/// One fit, with its effects scored against the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredFit {
    pub mu: Located,
    pub tau: Located,
    /// Of the effects that the model of correlation keeps, averaged.
    pub theta: Score,
}

/// Location and spread of a parameter's posterior, in the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Located {
    pub median: f64,
    pub sd: Option<f64>,
    pub ci95: (f64, f64),
}

/// Why a replicate, or the article's data, could not be fitted.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Unfit(#[from] UnfitBlock),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error(transparent)]
    Posterior(#[from] PosteriorError),
    #[error("the posterior has no quantiles")]
    NoQuantiles,
}

/// A population fitted under one model of correlation.
#[derive(Clone)]
struct Fitted {
    fit: Fit,
    /// For each block, the estimates of the effects that the model of correlation keeps.
    estimates: Vec<Vec<Estimate>>,
    scored: ScoredFit,
}

impl Replicate {
    /// Fits the experiments of one population.
    ///
    /// # Errors
    /// Where there are too few for flat priors, or their numbers are outside the range of the model.
    pub fn new(experiments: &[Experiment]) -> Result<Replicate, StudyError> {
        let grouping = Grouping::default();
        let mut sketches = Sketches::default();
        let mut members = Vec::with_capacity(experiments.len());
        for experiment in experiments {
            let Experiment { experiment_id, variants, .. } = experiment;
            let chosen = grouping.chosen_variant(experiment_id, variants);
            let member = Member::new(experiment.block()?, chosen)?;
            sketches.add(&member)?;
            members.push(member);
        }
        let fitted = |correlation| Fitted::new(correlation, &sketches, &members, experiments);
        let [modelled, ignored, one] =
            [Correlation::Modelled, Correlation::Ignored, Correlation::OnePerExperiment].map(fitted);
        let modelled = modelled?;
        let fitted = [modelled.clone(), modelled, ignored?, one?];
        let (verdict, measure, value) = verdict(&sketches, &members, &fitted)?;
        Ok(Replicate { fits: fitted.map(|fitted| fitted.scored), verdict, rests_on: (measure, value) })
    }
}

fn verdict(
    sketches: &Sketches,
    members: &[Member],
    fitted: &[Fitted; Correlation::COUNT],
) -> Result<(Verdict, Measure, f64), StudyError> {
    let (priors, fits) = (Priors::default(), fitted.each_ref().map(|fitted| Some(&fitted.fit)));
    let leave_one_outs = LeaveOneOuts::new(sketches, &priors, fits);
    let mut pass = BlockPass::new(&fitted[0].fit).ok_or(StudyError::NoQuantiles)?;
    for (k, member) in members.iter().enumerate() {
        let estimates = fitted.each_ref().map(|fitted| fitted.estimates[k].as_slice());
        let left_out = leave_one_outs.predict(member, Correlation::Modelled);
        let scores = leave_one_outs.scores(member, left_out.as_ref());
        pass.add(member, estimates, scores, &[]);
    }
    Ok(pass.verdict(&Thresholds::default()))
}

impl Fitted {
    fn new(
        correlation: Correlation,
        sketches: &Sketches,
        members: &[Member],
        experiments: &[Experiment],
    ) -> Result<Fitted, StudyError> {
        let likelihood = SketchLikelihood::new(&sketches.of(correlation));
        let fit = Fit::new(&likelihood, &Priors::default(), Method::Quadrature)?;

        let mut estimates = Vec::with_capacity(members.len());
        let mut scores = Vec::new();
        for (member, experiment) in members.iter().zip(experiments) {
            let shrunk = BlockPosterior::new(&member.under(correlation), &fit.nodes);
            let kept = member.variants(correlation);
            let of_block = shrunk.estimates();
            for (i, (estimate, &truth)) in of_block.iter().zip(&experiment.true_effects[kept]).enumerate() {
                scores.push(Score::new(estimate.mean, shrunk.intervals(i, estimate).ci95, truth));
            }
            estimates.push(of_block);
        }
        let scored = ScoredFit {
            mu: Located::new(&fit.posterior.mu).ok_or(StudyError::NoQuantiles)?,
            tau: Located::new(&fit.posterior.tau).ok_or(StudyError::NoQuantiles)?,
            theta: Score::mean(&scores),
        };
        Ok(Fitted { fit, estimates, scored })
    }
}

impl Located {
    fn new(summary: &Summary) -> Option<Located> {
        Some(Located { median: summary.median?, sd: summary.sd, ci95: (summary.q025?, summary.q975?) })
    }
}
