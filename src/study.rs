//! A simulation study: how well mu, tau and the effects are estimated when the correlation from a shared control is
//! modelled, ignored or avoided, on data with known truth.
//!
//! Each scenario of [`crate::simulate`] is drawn many times and fitted under three models of correlation, with flat
//! priors and the exact posterior. The first draw is the one that `shrinkd simulate` prints for the same seed.
//!
//! | module | contents |
//! | --- | --- |
//! | [`replicate`] | one draw of a scenario: three fits, and the verdict on correlation |
//! | [`performance`] | bias, RMSE and coverage with their Monte Carlo standard errors |
//! | [`report`] | the results, as they are serialized to JSON |

pub mod performance;
pub mod replicate;
pub mod report;

use std::num::NonZero;

use shrinkd_model::map_chunks;

pub use replicate::{Replicate, StudyError};
pub use report::Report;

use crate::simulate::Scenario;
use report::ScenarioReport;

/// The parameters of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Study {
    pub seed: u64,
    /// Number of replicates of each scenario.
    pub replicates: NonZero<usize>,
    pub threads: NonZero<usize>,
}

impl Study {
    /// The number of replicates over all scenarios.
    pub fn total(&self) -> usize {
        Scenario::ALL.len() * self.replicates.get()
    }

    /// Runs the study. `replicate_done` is called after each replicate, from any thread.
    ///
    /// # Errors
    /// Where a replicate cannot be fitted, which does not happen in any of the scenarios.
    pub fn run(&self, replicate_done: impl Fn() + Sync) -> Result<Report, StudyError> {
        let count = self.replicates.get();
        let indices: Vec<usize> = (0..self.total()).collect();
        let replicates = map_chunks(&indices, 1, self.threads.get(), |indices| {
            let replicates = indices.iter().map(|index| {
                let population = Scenario::ALL[index / count].population();
                let experiments: Vec<_> = population.draw(self.seed, (index % count) as u64).collect();
                let replicate = Replicate::new(&experiments);
                replicate_done();
                replicate
            });
            replicates.collect::<Result<Vec<Replicate>, StudyError>>()
        });
        let replicates = replicates.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        let scenarios = Scenario::ALL.into_iter().zip(replicates.chunks(count));
        Ok(Report {
            seed: self.seed,
            replicates: count,
            scenarios: scenarios.map(|(scenario, replicates)| ScenarioReport::new(scenario, replicates)).collect(),
        })
    }
}
