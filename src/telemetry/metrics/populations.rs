//! The series of populations. All workers share the populations; one of a group reports them.

use std::collections::BTreeMap;

use prometheus::{GaugeVec, IntGauge, IntGaugeVec};
use shrinkd_core::PopulationName;
use shrinkd_model::Verdict;

use super::family::Families;
use super::{Metrics, PopulationCounts, PopulationSummary};

/// The worker that owns this partition of its topic reports the populations: every topic has it, one worker of a group owns
/// it, and when that worker is gone another is given it.
const REPORTING_PARTITION: i32 = 0;

/// The label of the populations that have no series of their own. No population is named so: names have slashes.
pub(super) const OTHER: &str = "(other)";

pub(super) struct PopulationGauges {
    mu: GaugeVec,
    tau: GaugeVec,
    icc: GaugeVec,
    deff: GaugeVec,
    experiments: IntGaugeVec,
    effects: IntGaugeVec,
    verdict: IntGaugeVec,
    /// Without labels: a vector, because a worker that does not report has no series.
    populations: IntGaugeVec,
    failed: IntGaugeVec,
    prior_far: IntGaugeVec,
    selection_suspected: IntGaugeVec,
    unpublished: IntGaugeVec,
    max_populations: IntGauge,
}

/// The populations that were reported last.
#[derive(Default)]
pub(super) struct Reported {
    counts: PopulationCounts,
    largest: BTreeMap<PopulationName, PopulationSummary>,
}

impl PopulationGauges {
    pub fn new(f: &mut Families) -> PopulationGauges {
        PopulationGauges {
            mu: f.gauges("shrinkd_population_mu", &["population"], "Posterior mean of mu, in the unit of the effects"),
            tau: f.gauges(
                "shrinkd_population_tau",
                &["population"],
                "Posterior median of tau, in the unit of the effects",
            ),
            icc: f.gauges(
                "shrinkd_population_icc",
                &["population"],
                "Posterior mean of the intraclass correlation of the true effects of one experiment's variants",
            ),
            deff: f.gauges(
                "shrinkd_population_deff",
                &["population"],
                "Factor by which the variance of mu is too small when correlation is ignored",
            ),
            experiments: f.int_gauges(
                "shrinkd_population_experiments",
                &["population"],
                "Experiments in the population",
            ),
            effects: f.int_gauges("shrinkd_population_effects", &["population"], "Effects in the population"),
            verdict: f.int_gauges(
                "shrinkd_population_verdict",
                &["population", "verdict"],
                "1 for the current verdict on correlation, 0 for the others",
            ),
            populations: f.int_gauges("shrinkd_populations", &[], "Populations in the store"),
            failed: f.int_gauges(
                "shrinkd_populations_failed",
                &[],
                "Populations whose latest fit failed: their estimates are those of an earlier fit",
            ),
            prior_far: f.int_gauges(
                "shrinkd_populations_prior_far",
                &[],
                "Populations with a prior whose scale is more than 1,000 times off that of their data",
            ),
            selection_suspected: f.int_gauges(
                "shrinkd_populations_selection_suspected",
                &[],
                "Populations where only winners seem to arrive, results with z above 1.96",
            ),
            unpublished: f.int_gauges(
                "shrinkd_unpublished_changes",
                &[],
                "Changes of blocks whose estimates are left to a pass, because the worker that committed them was far behind",
            ),
            max_populations: f.int_gauge(
                "shrinkd_max_populations",
                "Populations beyond which results that would create another are refused",
            ),
        }
    }

    /// A figure that is `None` loses its series.
    fn set(&self, label: &str, summary: PopulationSummary) {
        let figures =
            [(&self.mu, summary.mu), (&self.tau, summary.tau), (&self.icc, summary.icc), (&self.deff, summary.deff)];
        for (gauges, value) in figures {
            match value {
                Some(value) => gauges.with_label_values(&[label]).set(value),
                None => drop(gauges.remove_label_values(&[label])),
            }
        }
        self.experiments.with_label_values(&[label]).set(summary.experiments as i64);
        self.effects.with_label_values(&[label]).set(summary.effects as i64);
        for verdict in Verdict::ALL {
            let labels = [label, verdict.as_str()];
            match summary.verdict {
                Some(holds) => self.verdict.with_label_values(&labels).set(i64::from(verdict == holds)),
                None => drop(self.verdict.remove_label_values(&labels)),
            }
        }
    }

    fn remove(&self, label: &str) {
        // What has no series needs none removed.
        self.set(label, PopulationSummary::default());
        let _ = self.experiments.remove_label_values(&[label]);
        let _ = self.effects.remove_label_values(&[label]);
    }

    /// Removes all series of populations if the partition is released that decides who reports them.
    pub fn release(&self, reported: &mut Reported, partitions: &[i32]) {
        if !partitions.contains(&REPORTING_PARTITION) {
            return;
        }
        for name in std::mem::take(reported).largest.keys() {
            self.remove(&name.to_string());
        }
        self.remove(OTHER);
        for counts in [&self.populations, &self.failed, &self.prior_far, &self.selection_suspected, &self.unpublished] {
            let _ = counts.remove_label_values::<&str>(&[]);
        }
    }
}

impl Metrics {
    /// Sets beyond how many populations results that would create another are refused.
    pub fn set_max_populations(&self, limit: u64) {
        self.0.populations.max_populations.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Whether this worker reports the populations: the one of its group that owns the topic's partition 0.
    pub fn reports_populations(&self) -> bool {
        self.state().partitions.contains_key(&REPORTING_PARTITION)
    }

    /// Sets the counts of populations, the summaries of those that have series of their own, and the experiments and
    /// effects of the others (`None` if there are none). Does nothing unless this worker reports the populations.
    pub fn set_populations(
        &self,
        counts: PopulationCounts,
        largest: BTreeMap<PopulationName, PopulationSummary>,
        others: Option<PopulationSummary>,
    ) {
        let mut state = self.state();
        // A late report on populations that another worker reports by now must not bring their series back.
        if !state.partitions.contains_key(&REPORTING_PARTITION) {
            return;
        }
        let gauges = &self.0.populations;
        for name in state.populations.largest.keys().filter(|name| !largest.contains_key(name)) {
            gauges.remove(&name.to_string());
        }
        for (name, summary) in &largest {
            gauges.set(&name.to_string(), *summary);
        }
        match others {
            Some(others) => gauges.set(OTHER, others),
            None => gauges.remove(OTHER),
        }
        for (gauge, count) in [
            (&gauges.populations, counts.all),
            (&gauges.failed, counts.failed),
            (&gauges.prior_far, counts.prior_far),
            (&gauges.selection_suspected, counts.selection_suspected),
            (&gauges.unpublished, counts.unpublished_changes),
        ] {
            gauge.with_label_values::<&str>(&[]).set(count as i64);
        }
        state.populations = Reported { counts, largest };
    }

    /// The populations that have series of their own, with their summaries; none unless this worker reports them.
    pub fn populations(&self) -> Vec<(PopulationName, PopulationSummary)> {
        self.state().populations.largest.iter().map(|(name, &summary)| (name.clone(), summary)).collect()
    }

    /// How many populations there are; none unless this worker reports them.
    pub fn population_counts(&self) -> PopulationCounts {
        self.state().populations.counts
    }
}
