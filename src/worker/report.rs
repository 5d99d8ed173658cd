//! What is reported of all populations, kept up to date from those that have changed.

use std::collections::BTreeMap;
use std::time::Duration;

use shrinkd_core::PopulationName;
use time::OffsetDateTime;

use crate::row::{ChangedPopulations, CurrentPopulation, FitStatus, PopulationTotals};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::{Metrics, PopulationCounts, PopulationSummary};

/// A change carries the time at which it was written, and is seen from the end of its transaction on: so far back changes are read again.
/// Of a refit and of a pass only the COMMIT comes after that. A rebuild that takes longer to its end shows when the population changes the next
/// time, a batch that puts a new population in because the number of populations changes.
const OVERLAP: Duration = Duration::from_secs(5);

/// Every population, as of the last look at the store.
#[derive(Debug, Default)]
pub struct PopulationReport {
    populations: BTreeMap<PopulationName, CurrentPopulation>,
    read_at: Option<OffsetDateTime>,
}

impl PopulationReport {
    /// Updates the metrics of the populations, whichever worker fitted them, if this worker reports them: at most so many have
    /// series of their own.
    pub async fn show(&mut self, store: &Store, metrics: &Metrics, most: usize) -> Result<(), StoreError> {
        if !metrics.reports_populations() {
            *self = PopulationReport::default();
            return Ok(());
        }
        self.update(store).await?;
        let (largest, all) = self.largest(most);
        let PopulationTotals { populations, failed, prior_far, selection_suspected, unpublished_changes, .. } = all;
        let counts = PopulationCounts { all: populations, failed, prior_far, selection_suspected, unpublished_changes };
        let rest = |all: u64, of: fn(&CurrentPopulation) -> u64| all.saturating_sub(largest.iter().map(of).sum());
        let others = PopulationSummary {
            experiments: rest(all.experiments, |current| current.experiments),
            effects: rest(all.effects, |current| current.effects),
            ..PopulationSummary::default()
        };
        let others = (all.populations > largest.len() as u64).then_some(others);
        let summary = |current: CurrentPopulation| {
            let summary = PopulationSummary {
                has_failed: current.status == Some(FitStatus::Failed),
                mu: current.mu,
                tau: current.tau,
                icc: current.icc,
                deff: current.deff,
                verdict: current.verdict,
                experiments: current.experiments,
                effects: current.effects,
            };
            (current.population, summary)
        };
        metrics.set_populations(counts, largest.into_iter().map(summary).collect(), others);
        Ok(())
    }

    /// Reads what has changed since the last look; everything at the first, and where populations are gone.
    pub async fn update(&mut self, store: &Store) -> Result<(), StoreError> {
        let changed = store.populations_since(self.read_at.map(|at| at - OVERLAP)).await?;
        let is_whole = self.read_at.is_none();
        let count = self.take(changed);
        if !is_whole && self.populations.len() as u64 != count {
            *self = PopulationReport::default();
            self.take(store.populations_since(None).await?);
        }
        Ok(())
    }

    /// Returns how many populations there are.
    fn take(&mut self, changed: ChangedPopulations) -> u64 {
        self.read_at = Some(changed.read_at);
        self.populations.extend(changed.populations.into_iter().map(|mut current| {
            // The longest of its texts, which nobody asks for here.
            current.fit_settings = None;
            (current.population.clone(), current)
        }));
        changed.count
    }

    /// The populations with the most effects, at most so many, by name; and the totals of all.
    pub fn largest(&self, most: usize) -> (Vec<CurrentPopulation>, PopulationTotals) {
        let mut totals = PopulationTotals::default();
        for current in self.populations.values() {
            totals.populations += 1;
            totals.failed += u64::from(current.has_failed);
            totals.prior_far += u64::from(current.is_prior_far);
            totals.selection_suspected += u64::from(current.is_selection_suspected);
            totals.unpublished_changes += current.unpublished_changes;
            totals.experiments += current.experiments;
            totals.effects += current.effects;
        }
        let mut largest: Vec<&CurrentPopulation> = self.populations.values().collect();
        // Stable: of equal ones the first by name.
        largest.sort_by_key(|current| std::cmp::Reverse(current.effects));
        largest.truncate(most);
        largest.sort_by(|x, y| x.population.cmp(&y.population));
        (largest.into_iter().cloned().collect(), totals)
    }
}
