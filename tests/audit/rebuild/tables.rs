//! What two databases of the same history must have in common, bit for bit.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::Grouping;
use shrinkd_model::{ARITHMETIC_VERSION, Sketches};

use shrinkd::row::{Statistics, StoreSettings, StoredExperiment};
use shrinkd::store::Store;

use crate::common::database::Database;
use crate::common::statistics::StoredStatistics;

/// Rows of texts and, beside them, of numbers as their bits.
pub type Figures = Vec<(String, Vec<Option<u64>>)>;

/// Whatever does not depend on when, by whom and in which batches it was taken in.
#[derive(Debug, PartialEq)]
pub struct Tables {
    /// Experiments with their blocks and statistics.
    pub experiments: BTreeMap<String, StoredExperiment>,
    /// Cells, experiments and effects of the populations that have any.
    pub cells: BTreeMap<String, (Sketches, i64, i64)>,
    /// The same as it is stored.
    pub stored: StoredStatistics,
    pub fits: Figures,
}

/// What a store is filled with under these labels and this seed.
pub fn filled_with(labels: &[&str], one_per_experiment_seed: u64) -> StoreSettings {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    StoreSettings { arithmetic_version: ARITHMETIC_VERSION, grouping: Grouping { labels, one_per_experiment_seed } }
}

pub async fn tables<D: Database>(database: &D, settings: &StoreSettings) -> Tables {
    let store = database.open(settings).await.expect("the settings are the database's");
    let ids: BTreeSet<String> =
        database.texts("select experiment_id from experiments").await.into_iter().flatten().collect();
    let mut batch = store.begin_ingest(&[]).await.expect("a batch");
    let mut experiments = batch.experiments(&ids).await.expect("the experiments");
    drop(batch);
    assert!(!experiments.is_empty(), "the database is filled");
    for experiment in experiments.values_mut() {
        experiment.blocks.sort_by(|x, y| x.key.cmp(&y.key));
    }
    Tables {
        experiments,
        cells: statistics(&store).await,
        stored: StoredStatistics::of(database).await,
        fits: fits(database).await,
    }
}

/// Cells, experiments and effects of the populations that have any.
pub async fn statistics(store: &Store) -> BTreeMap<String, (Sketches, i64, i64)> {
    let mut cells = BTreeMap::new();
    for population in store.current_populations().await.expect("the populations") {
        let state = store.population_state(&population.population).await.expect("the cells");
        let Statistics { sketches, counters } = state.statistics;
        if counters.experiments != 0 {
            let own = (sketches, counters.experiments, counters.effects);
            cells.insert(population.population.to_string(), own);
        }
    }
    cells
}

/// The figures of the latest fits.
pub async fn fits<D: Database>(database: &D) -> Figures {
    let keys = database.texts(
        "select population_id || ' ' || correlation || ' ' || status || ' ' || cast(experiments as text) || ' '
                || cast(effects as text)
         from current_population_fits where experiments > 0 order by population_id, correlation",
    );
    let numbers = database.numbers(
        "select mu_mean, mu_median, mu_sd, mu_q025, mu_q25, mu_q75, mu_q975, tau_mean, tau_median, tau_sd, tau_q025,
                tau_q25, tau_q75, tau_q975, log_tau_sd, tau_shortest95_low,
                tau_shortest95_high, prob_tau_negligible, mu_tau_correlation, log_evidence, predictive_mean, predictive_sd,
                predictive_median, predictive_q025, predictive_q975, laplace_mu_distance, laplace_tau_distance,
                variational_mu_distance, variational_tau_distance
         from current_population_fits where experiments > 0 order by population_id, correlation",
    );
    figures(keys.await, numbers.await)
}

/// The figures of all estimates.
pub async fn estimates<D: Database>(database: &D) -> Figures {
    let keys = database.texts(
        "select population_id || ' ' || experiment_id || ' ' || variant || ' ' || status || ' ' || cast(block_revision as text)
                || ' ' || coalesce(control_variance_source, '')
         from effect_estimates order by population_id, experiment_id, variant",
    );
    let numbers = database.numbers(
        "select raw_estimate, raw_se, treatment_variance, control_variance, posterior_mean, posterior_sd,
                ci80_low, ci80_high, ci95_low, ci95_high, prob_positive, lfsr, shrinkage_factor, weight_of_mu, naive_posterior_mean,
                prob_best, control_shift, control_shift_sd
         from effect_estimates order by population_id, experiment_id, variant",
    );
    figures(keys.await, numbers.await)
}

fn figures(keys: Vec<Option<String>>, numbers: Vec<Vec<Option<f64>>>) -> Figures {
    let bits = |row: Vec<Option<f64>>| row.into_iter().map(|number| number.map(f64::to_bits)).collect();
    keys.into_iter().flatten().zip(numbers.into_iter().map(bits)).collect()
}

/// Demands that every row is of the published fit, which is that of the latest cells, and that nothing is left to do.
pub async fn assert_published_whole<D: Database>(database: &D) {
    let stale = database.count(
        "select cast(count(*) as text) from effect_estimates as e
         join populations as p on p.population_id = e.population_id
         left join current_population_fits as f on f.population_id = e.population_id and f.correlation = 'modelled'
         where e.fit_id <> coalesce(p.published_fit_id, 0) or p.published_fit_id <> f.fit_id or p.publish_cursor is not null",
    );
    assert_eq!(stale.await, 0, "rows of another fit than the latest");
    assert!(database.count("select cast(count(*) as text) from effect_estimates").await > 0);
}
