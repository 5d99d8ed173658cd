//! The study: what becomes of mu, tau and the effects when the correlation of a shared control is modelled, ignored or
//! avoided, on data whose truth is known.
//!
//! Each scenario of [`crate::simulate`] is drawn many times and fitted under three treatments of correlation, with flat
//! priors and the exact posterior. The first draw is the one that `shrinkd simulate` prints for the same seed.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`replicate`] | one draw of a scenario: three fits, and the verdict |
//! | [`performance`] | bias, RMSE and coverage with their Monte-Carlo errors |
//! | [`report`] | what the study found |

pub mod performance;
pub mod replicate;
pub mod report;

use std::num::NonZero;

use shrinkd_model::map_chunks;

pub use replicate::{Replicate, StudyError};
pub use report::Report;

use crate::simulate::Scenario;
use report::ScenarioReport;

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Study {
    pub seed: u64,
    /// How often each scenario is drawn.
    pub replicates: NonZero<usize>,
    pub threads: NonZero<usize>,
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
