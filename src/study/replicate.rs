//! One draw of a scenario: its fits under the three treatments of correlation, and whether the correlation mattered.

use super::performance::Score;
use crate::model::block::{Block, BlockError};
use crate::model::diagnostics::{BlockPass, Diagnostics, Thresholds, Verdict};
use crate::model::likelihood::SketchLikelihood;
use crate::model::posterior::quadrature::quadrature;
use crate::model::posterior::{Posterior, PosteriorError, Summary};
use crate::model::prior::Priors;
use crate::model::shrinkage::{BlockPosterior, Estimate};
use crate::model::sketch::{OutOfRange, Sketch};
use crate::simulate::Experiment;

/// How a fit treats the correlation between the variants of one experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// The block as it is.
    Correlated,
    /// The off-diagonals dropped: the naive model.
    Independent,
    /// One variant of each experiment.
    OnePerExperiment,
}

/// What one replicate came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicate {
    /// In the order of [`Treatment::ALL`].
    pub fits: [Fit; 3],
    pub verdict: Verdict,
    /// The measure that the verdict rests on, and its value.
    pub rests_on: (&'static str, f64),
}

/// One treatment's fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    pub mu: Located,
    pub tau: Located,
    /// Of the effects that the treatment keeps, averaged.
    pub theta: Score,
}

/// Where the posterior of a parameter lies, in the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Located {
    pub median: f64,
    pub sd: Option<f64>,
    pub ci95: (f64, f64),
}

/// Why a replicate could not be fitted.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    Sketch(#[from] OutOfRange),
    #[error(transparent)]
    Posterior(#[from] PosteriorError),
    #[error("a posterior came without its quantiles")]
    NoQuantiles,
}

/// A population under one treatment, with all that was fitted to it.
struct Fitted {
    blocks: Vec<Block>,
    sketch: Sketch,
    likelihood: SketchLikelihood,
    posterior: Posterior,
    /// For each block those of its effects.
    estimates: Vec<Vec<Estimate>>,
    fit: Fit,
}

impl Treatment {
    /// Every treatment, in the order in which they are told.
    pub const ALL: [Treatment; 3] = [Treatment::Correlated, Treatment::Independent, Treatment::OnePerExperiment];

    /// The treatment's name in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Treatment::Correlated => "correlated",
            Treatment::Independent => "independent",
            Treatment::OnePerExperiment => "one_per_experiment",
        }
    }

    fn of(self, block: Block) -> Block {
        match self {
            Treatment::Correlated => block,
            Treatment::Independent => block.independent(),
            // Simulated variants are exchangeable: the first is as good as one that was drawn.
            Treatment::OnePerExperiment => block.single(0),
        }
    }
}

impl Replicate {
    /// Fits the experiments of one population.
    ///
    /// # Errors
    /// Where they are too few for flat priors, or their numbers are none that a population takes.
    pub fn new(experiments: &[Experiment]) -> Result<Replicate, StudyError> {
        let correlated = Fitted::new(Treatment::Correlated, experiments)?;
        let independent = Fitted::new(Treatment::Independent, experiments)?;
        let one_per_experiment = Fitted::new(Treatment::OnePerExperiment, experiments)?;
        let (verdict, measure, value) = verdict(&correlated, &independent);
        Ok(Replicate {
            fits: [correlated.fit, independent.fit, one_per_experiment.fit],
            verdict,
            rests_on: (measure, value),
        })
    }
}

fn verdict(correlated: &Fitted, independent: &Fitted) -> (Verdict, &'static str, f64) {
    let tau = correlated.fit.tau.median;
    let mut pass = BlockPass::default();
    let estimates = correlated.estimates.iter().zip(&independent.estimates);
    for (block, (estimates, naive)) in correlated.blocks.iter().zip(estimates) {
        pass.add(block, tau * tau, estimates, naive);
    }
    let diagnostics = Diagnostics::new(
        (&correlated.sketch, &correlated.likelihood, &correlated.posterior),
        (&independent.likelihood, &independent.posterior),
    );
    Thresholds::default().verdict(&diagnostics, &pass)
}

impl Fitted {
    fn new(treatment: Treatment, experiments: &[Experiment]) -> Result<Fitted, StudyError> {
        let mut sketch = Sketch::new();
        let mut blocks = Vec::with_capacity(experiments.len());
        for experiment in experiments {
            let block = treatment.of(experiment.block()?);
            sketch.add(&block.components()?)?;
            blocks.push(block);
        }
        let likelihood = SketchLikelihood::new(&sketch);
        let posterior = quadrature(&likelihood, &Priors::default())?;

        let mut estimates = Vec::with_capacity(blocks.len());
        let mut scores = Vec::new();
        for (block, experiment) in blocks.iter().zip(experiments) {
            let shrunk = BlockPosterior::new(block, &posterior.nodes);
            let of_block: Vec<Estimate> = (0..block.len()).map(|i| shrunk.estimate(i)).collect();
            for (i, (estimate, &truth)) in of_block.iter().zip(&experiment.true_effects).enumerate() {
                scores.push(Score::new(estimate.mean, shrunk.intervals(i, estimate).ci95, truth));
            }
            estimates.push(of_block);
        }
        let fit = Fit {
            mu: Located::new(&posterior.mu).ok_or(StudyError::NoQuantiles)?,
            tau: Located::new(&posterior.tau).ok_or(StudyError::NoQuantiles)?,
            theta: Score::mean(&scores),
        };
        Ok(Fitted { blocks, sketch, likelihood, posterior, estimates, fit })
    }
}

impl Located {
    fn new(summary: &Summary) -> Option<Located> {
        Some(Located { median: summary.median?, sd: summary.sd, ci95: (summary.q025?, summary.q975?) })
    }
}
