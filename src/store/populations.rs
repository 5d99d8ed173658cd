//! Populations as they stand: for metrics, the status page and the demo.

use std::collections::BTreeSet;

use shrinkd_core::PopulationName;

use super::database::Transaction;
use super::fits::summary;
use super::query::{record, values};
use super::{Store, StoreError};
use crate::row::{CurrentFit, CurrentPopulation, NewPopulations, PopulationTotals, PublishedEffect};

impl Store {
    /// Every population, by name.
    pub async fn current_populations(&self) -> Result<Vec<CurrentPopulation>, StoreError> {
        current(&mut self.pools.read().await?, usize::MAX).await
    }

    /// The populations with the most effects, at most so many, by name; and the totals of all.
    pub async fn largest_populations(
        &self,
        most: usize,
    ) -> Result<(Vec<CurrentPopulation>, PopulationTotals), StoreError> {
        let mut reader = self.pools.read().await?;
        let sql = "select (select count(*) from populations) as populations,
                          (select count(distinct population_id) from current_population_fits where status = 'failed')
                              as failed,
                          (select count(distinct population_id) from current_population_fits where is_prior_far)
                              as prior_far,
                          (select count(*) from populations as p
                           where (select d.is_selection_suspected from population_diagnostics as d
                                  where d.population_id = p.population_id order by d.fit_id desc limit 1))
                              as selection_suspected,
                          cast(coalesce(sum(experiments), 0) as bigint) as experiments,
                          cast(coalesce(sum(effects), 0) as bigint) as effects
                   from populations";
        let totals =
            record!(PopulationTotals: populations, failed, prior_far, selection_suspected, experiments, effects);
        let totals = reader.query("populations: totals", sql, []).one(totals).await?;
        Ok((current(&mut reader, most).await?, totals))
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

async fn current(on: &mut Transaction, most: usize) -> Result<Vec<CurrentPopulation>, StoreError> {
    let sql = "select p.population_id, f.status, p.experiments, p.effects, coalesce(f.mu_mean, f.mu_median) as mu,
                      f.tau_median, d.deff, d.verdict, d.verdict_rests_on, d.verdict_value, f.computed_at,
                      d.diagnosed_at, p.fit_settings
               from (select * from populations order by effects desc, population_id limit $1) as p
               left join current_population_fits as f
                   on f.population_id = p.population_id and f.correlation = 'modelled'
               left join population_diagnostics as d on d.population_id = p.population_id
                   and d.fit_id = (select max(l.fit_id) from population_diagnostics as l
                                   where l.population_id = p.population_id)
               order by p.population_id";
    let current = record!(CurrentPopulation:
        population = "population_id", status, experiments, effects, mu, tau = "tau_median", deff, verdict,
        verdict_rests_on, verdict_value, fitted_at = "computed_at", fit_settings, diagnosed_at);
    on.query("populations: read", sql, values![i64::try_from(most).unwrap_or(i64::MAX)]).all(current).await
}

/// Which of these populations have no row, and how many more rows there may be.
pub(super) async fn new(
    on: &mut Transaction,
    named: &BTreeSet<PopulationName>,
    limit: u64,
) -> Result<NewPopulations, StoreError> {
    let names: Vec<String> = named.iter().map(PopulationName::to_string).collect();
    let sql = "select population_id from populations where population_id {any $1}";
    let known: Vec<PopulationName> =
        on.query("ingest: known populations", sql, values![names]).all(|row| row.get("population_id")).await?;
    let known = BTreeSet::from_iter(known);
    let names: BTreeSet<PopulationName> = named.difference(&known).cloned().collect();
    let room = if names.is_empty() { 0 } else { limit.saturating_sub(count(on).await?) };
    Ok(NewPopulations { names, room: usize::try_from(room).unwrap_or(usize::MAX), limit })
}

pub(super) async fn count(on: &mut Transaction) -> Result<u64, StoreError> {
    let sql = "select count(*) as populations from populations";
    on.query("count populations", sql, []).one(|row| row.get("populations")).await
}
