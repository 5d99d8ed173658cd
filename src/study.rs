//! A simulation study: how well mu, tau and the effects are estimated when the correlation from a shared control is
//! modelled, ignored or avoided, on data with known truth.
//!
//! Each scenario of [`crate::simulate`], or a design of one's own, is drawn many times and fitted under three models of
//! correlation, with flat priors and the exact posterior. The first draw of a scenario is the one that `shrinkd simulate` prints
//! for the same seed.
//!
//! | module | contents |
//! | --- | --- |
//! | [`replicate`] | one draw of a scenario: three fits, and the verdict on correlation |
//! | [`performance`] | bias, RMSE and coverage with their Monte Carlo standard errors |
//! | [`report`] | the results, as they are serialized to JSON |
//! | [`article`] | the data of the article behind this project, beside the figures that it published |

pub mod article;
pub mod performance;
pub mod replicate;
pub mod report;

use std::num::NonZero;

use shrinkd_model::map_chunks;

pub use article::Article;
pub use replicate::{Replicate, StudyError};
pub use report::Report;

use crate::simulate::{Population, Scenario};
use report::ScenarioReport;

/// The parameters of a study.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Study {
    /// A population to draw instead of the scenarios.
    pub design: Option<Population>,
    pub seed: u64,
    /// Number of replicates of each population.
    pub replicates: NonZero<usize>,
    pub threads: NonZero<usize>,
}

impl Study {
    /// The number of replicates over all populations.
    pub fn total(&self) -> usize {
        self.populations().len() * self.replicates.get()
    }

    /// Runs the study. `replicate_done` is called after each replicate, from any thread.
    ///
    /// # Errors
    /// Where a replicate cannot be fitted, which does not happen in any of the scenarios, nor in a design of three
    /// experiments or more whose variances are within some 20 orders of magnitude.
    pub fn run(&self, replicate_done: impl Fn() + Sync) -> Result<Report, StudyError> {
        let count = self.replicates.get();
        let populations = self.populations();
        let indices: Vec<usize> = (0..self.total()).collect();
        let replicates = map_chunks(&indices, 1, self.threads.get(), |indices| {
            let replicates = indices.iter().map(|index| {
                let (_, population) = populations[index / count];
                let experiments: Vec<_> = population.draw(self.seed, (index % count) as u64).collect();
                let replicate = Replicate::new(&experiments);
                replicate_done();
                replicate
            });
            replicates.collect::<Result<Vec<Replicate>, StudyError>>()
        });
        let replicates = replicates.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        let scenarios = populations.into_iter().zip(replicates.chunks(count));
        Ok(Report {
            seed: self.seed,
            replicates: count,
            scenarios: scenarios
                .map(|((scenario, population), replicates)| ScenarioReport::new(scenario, population, replicates))
                .collect(),
        })
    }

    /// What is drawn: the scenarios, or the design, which is none of them.
    fn populations(&self) -> Vec<(Option<Scenario>, Population)> {
        match self.design {
            Some(design) => vec![(None, design)],
            None => Scenario::ALL.map(|scenario| (Some(scenario), scenario.population())).to_vec(),
        }
    }
}
