//! The study: what becomes of mu, tau and the effects when the correlation of a shared control is modelled, ignored or
//! avoided, on data whose truth is known.
//!
//! Each scenario of [`crate::simulate`] is drawn many times and fitted under three treatments of correlation, with flat
//! priors and the exact posterior. The first draw is the one that `shrinkd simulate` prints for the same seed.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`parallel`] | replicates on all cores, with results that do not depend on their number |
//! | [`performance`] | bias, RMSE and coverage with their Monte-Carlo errors |

pub mod parallel;
pub mod performance;

use std::num::NonZero;

use serde::Serialize;

use crate::model::block::{Block, BlockError};
use crate::model::likelihood::SketchLikelihood;
use crate::model::posterior::quadrature::quadrature;
use crate::model::posterior::{PosteriorError, Summary};
use crate::model::prior::Priors;
use crate::model::shrinkage::BlockPosterior;
use crate::model::sketch::{OutOfRange, Sketch};
use crate::simulate::{Experiment, Scenario};
use performance::{Performance, Score};

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Study {
    pub seed: u64,
    /// How often each scenario is drawn, at least once.
    pub replicates: NonZero<usize>,
    pub threads: NonZero<usize>,
}

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

/// What the study found, scenario by scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub seed: u64,
    pub replicates: usize,
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario: its sizes, its truth and what each treatment made of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScenarioReport {
    #[serde(serialize_with = "scenario_name")]
    pub scenario: Scenario,
    pub experiments: usize,
    pub effects: usize,
    pub truth: Truth,
    pub treatments: Vec<TreatmentReport>,
}

/// The parameters that the data were drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Truth {
    pub mu: f64,
    pub tau: f64,
}

/// One treatment in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TreatmentReport {
    #[serde(serialize_with = "treatment_name")]
    pub treatment: Treatment,
    pub mu: ParameterReport,
    pub tau: ParameterReport,
    /// Of the posterior means and 95% intervals of the effects that the treatment keeps.
    pub theta: Performance,
}

/// One parameter: its posterior in the first replicate, and how its posterior median and 95% interval did over all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ParameterReport {
    pub median: f64,
    pub sd: Option<f64>,
    #[serde(flatten)]
    pub performance: Performance,
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

/// One treatment's fit of one replicate.
struct Fit {
    mu: Located,
    tau: Located,
    theta: Score,
}

/// Where a posterior lies.
#[derive(Clone, Copy)]
struct Located {
    median: f64,
    sd: Option<f64>,
    ci95: (f64, f64),
}

impl Treatment {
    /// Every treatment, in the order in which they are told.
    pub const ALL: [Treatment; 3] = [Treatment::Correlated, Treatment::Independent, Treatment::OnePerExperiment];

    /// The treatment's name on the command line, in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Treatment::Correlated => "correlated",
            Treatment::Independent => "independent",
            Treatment::OnePerExperiment => "one_per_experiment",
        }
    }

    fn of(self, block: &Block) -> Block {
        match self {
            Treatment::Correlated => block.clone(),
            Treatment::Independent => block.independent(),
            // Simulated variants are exchangeable: the first is as good as one that was drawn.
            Treatment::OnePerExperiment => block.single(0),
        }
    }
}

impl Study {
    /// How many replicates there are in all, over the scenarios.
    pub fn total(&self) -> usize {
        Scenario::ALL.len() * self.replicates.get()
    }

    /// Runs it; `replicate_done` is called after each replicate, from any thread.
    ///
    /// # Errors
    /// Where a replicate cannot be fitted, which no scenario leads to.
    pub fn run(&self, replicate_done: impl Fn() + Sync) -> Result<Report, StudyError> {
        let replicates = self.replicates.get();
        let fits = parallel::map(self.total(), self.threads, |index| {
            let fits = self.replicate(Scenario::ALL[index / replicates], index % replicates);
            replicate_done();
            fits
        })?;
        let scenarios = Scenario::ALL.into_iter().zip(fits.chunks(replicates));
        Ok(Report {
            seed: self.seed,
            replicates,
            scenarios: scenarios.map(|(scenario, fits)| ScenarioReport::new(scenario, fits)).collect(),
        })
    }

    fn replicate(&self, scenario: Scenario, replicate: usize) -> Result<[Fit; 3], StudyError> {
        let experiments: Vec<Experiment> = scenario.population().draw(self.seed, replicate as u64).collect();
        let [correlated, independent, one] = Treatment::ALL.map(|treatment| Fit::new(treatment, &experiments));
        Ok([correlated?, independent?, one?])
    }
}

impl Fit {
    fn new(treatment: Treatment, experiments: &[Experiment]) -> Result<Fit, StudyError> {
        let mut sketch = Sketch::new();
        let mut blocks = Vec::with_capacity(experiments.len());
        for experiment in experiments {
            let block = treatment.of(&experiment.block()?);
            sketch.add(&block.components()?)?;
            blocks.push(block);
        }
        let posterior = quadrature(&SketchLikelihood::new(&sketch), &Priors::default())?;
        let thetas = blocks.iter().zip(experiments).flat_map(|(block, experiment)| {
            let shrunk = BlockPosterior::new(block, &posterior.nodes);
            let truths = experiment.true_effects.iter().take(block.len()).enumerate();
            truths.map(move |(i, &truth)| {
                let estimate = shrunk.estimate(i);
                Score::new(estimate.mean, shrunk.intervals(i, &estimate).ci95, truth)
            })
        });
        Ok(Fit {
            theta: Score::mean(thetas),
            mu: Located::new(&posterior.mu).ok_or(StudyError::NoQuantiles)?,
            tau: Located::new(&posterior.tau).ok_or(StudyError::NoQuantiles)?,
        })
    }
}

impl Located {
    fn new(summary: &Summary) -> Option<Located> {
        Some(Located { median: summary.median?, sd: summary.sd, ci95: (summary.q025?, summary.q975?) })
    }
}

impl ScenarioReport {
    fn new(scenario: Scenario, fits: &[[Fit; 3]]) -> ScenarioReport {
        let population = scenario.population();
        let treatments = Treatment::ALL.into_iter().enumerate();
        ScenarioReport {
            scenario,
            experiments: population.experiments,
            effects: population.effects(),
            truth: Truth { mu: population.mu, tau: population.tau },
            treatments: treatments
                .map(|(i, treatment)| {
                    let of = |parameter: fn(&Fit) -> Located, truth| {
                        let located: Vec<Located> = fits.iter().map(|fit| parameter(&fit[i])).collect();
                        ParameterReport::new(&located, truth)
                    };
                    TreatmentReport {
                        treatment,
                        mu: of(|fit| fit.mu, population.mu),
                        tau: of(|fit| fit.tau, population.tau),
                        theta: Performance::of(&fits.iter().map(|fit| fit[i].theta).collect::<Vec<_>>()),
                    }
                })
                .collect(),
        }
    }
}

impl ParameterReport {
    fn new(located: &[Located], truth: f64) -> ParameterReport {
        let scores: Vec<Score> = located.iter().map(|l| Score::new(l.median, l.ci95, truth)).collect();
        ParameterReport { median: located[0].median, sd: located[0].sd, performance: Performance::of(&scores) }
    }
}

fn scenario_name<S: serde::Serializer>(scenario: &Scenario, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(scenario.as_str())
}

fn treatment_name<S: serde::Serializer>(treatment: &Treatment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(treatment.as_str())
}
