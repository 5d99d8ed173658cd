//! Populations as they stand: for metrics, the status page and the demo.

use shrinkd_core::PopulationName;

use super::fits::summary;
use super::query::{record, values};
use super::{Store, StoreError};
use crate::row::{CurrentFit, CurrentPopulation, PublishedEffect};

impl Store {
    /// Every population, by name.
    pub async fn current_populations(&self) -> Result<Vec<CurrentPopulation>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select p.population_id, f.status, cast(coalesce(c.experiments, 0) as bigint) as experiments,
                          cast(coalesce(c.effects, 0) as bigint) as effects, coalesce(f.mu_mean, f.mu_median) as mu,
                          f.tau_median, d.design_effect, d.verdict, d.verdict_rests_on, d.verdict_value, f.computed_at,
                          d.diagnosed_at, p.fit_settings
                   from populations as p
                   left join (select population_id, sum(experiments) as experiments, sum(effects) as effects
                              from cell_counters group by population_id) as c on c.population_id = p.population_id
                   left join current_population_fits as f
                       on f.population_id = p.population_id and f.correlation = 'modelled'
                   left join population_diagnostics as d on d.population_id = p.population_id
                       and d.fit_id = (select max(l.fit_id) from population_diagnostics as l
                                       where l.population_id = p.population_id)
                   order by p.population_id";
        let current = record!(CurrentPopulation:
            population = "population_id", status, experiments, effects, mu, tau = "tau_median", design_effect, verdict,
            verdict_rests_on, verdict_value, fitted_at = "computed_at", fit_settings, diagnosed_at);
        reader.query("populations: read", sql, []).all(current).await
    }

    /// The latest fits of a population, in the order of [`Correlation::ALL`](shrinkd_model::Correlation::ALL).
    pub async fn current_fits(&self, population: &PopulationName) -> Result<Vec<CurrentFit>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select * from current_population_fits where population_id = $1";
        let fit =
            record!(CurrentFit: correlation, effects; mu: |row| summary(row, "mu"), tau: |row| summary(row, "tau"));
        let mut fits = reader.query("populations: read fits", sql, values![population.to_string()]).all(fit).await?;
        fits.sort_by_key(|fit| fit.correlation);
        Ok(fits)
    }

    /// The effects of a population that have shrunken estimates, by experiment and variant. All at once: for the demo.
    pub async fn published_effects(&self, population: &PopulationName) -> Result<Vec<PublishedEffect>, StoreError> {
        let mut reader = self.pools.read().await?;
        let sql =
            "select experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, ci95_low, ci95_high
             from effect_estimates where population_id = $1 and status = 'fitted'
             order by experiment_id, variant";
        let effect = record!(PublishedEffect:
            experiment_id, variant, raw_estimate, raw_se, posterior_mean, posterior_sd, ci95_low, ci95_high);
        reader.query("populations: read estimates", sql, values![population.to_string()]).all(effect).await
    }
}
