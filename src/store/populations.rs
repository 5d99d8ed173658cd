//! Populations as they stand: for metrics, the status page and the demo.

use std::collections::BTreeSet;

use shrinkd_core::PopulationName;
use time::OffsetDateTime;

use super::database::Transaction;
use super::fits::summary;
use super::query::{Value, record, values};
use super::{Store, StoreError, changes};
use crate::row::{ChangedPopulations, CurrentFit, CurrentPopulation, NewPopulations, PublishedEffect};

impl Store {
    /// Every population, by name.
    pub async fn current_populations(&self) -> Result<Vec<CurrentPopulation>, StoreError> {
        Ok(self.populations_since(None).await?.populations)
    }

    /// The populations that a refit or a pass has changed since a time of the store's clock (`None`: all), by name.
    pub async fn populations_since(&self, since: Option<OffsetDateTime>) -> Result<ChangedPopulations, StoreError> {
        let on = &mut self.pools.read().await?;
        let sql = "select {now} as read_at, (select count(*) from populations) as count";
        let (read_at, count) =
            on.query("populations: count", sql, []).one(|row| Ok((row.get("read_at")?, row.get("count")?))).await?;
        let is_changed = if since.is_some() { "where p.changed_at >= $1" } else { "" };
        let sql = format!(
            "select p.population_id, f.status, p.experiments, p.effects, coalesce(f.mu_mean, f.mu_median) as mu,
                    f.tau_median, f.icc_mean, d.deff, d.verdict, d.verdict_rests_on, d.verdict_value, f.computed_at,
                    d.diagnosed_at, p.fit_settings, p.unpublished, coalesce(d.is_selection_suspected, false) as is_selection_suspected,
                    exists (select 1 from current_population_fits as a
                            where a.population_id = p.population_id and a.status = 'failed') as has_failed,
                    exists (select 1 from current_population_fits as a
                            where a.population_id = p.population_id and a.is_prior_far) as is_prior_far
             from populations as p
             left join current_population_fits as f
                 on f.population_id = p.population_id and f.correlation = 'modelled'
             left join population_diagnostics as d on d.population_id = p.population_id
                 and d.fit_id = (select max(l.fit_id) from population_diagnostics as l
                                 where l.population_id = p.population_id)
             {is_changed} order by p.population_id"
        );
        let current = record!(CurrentPopulation:
            population = "population_id", status, experiments, effects, mu, tau = "tau_median", icc = "icc_mean",
            deff, verdict, verdict_rests_on, verdict_value, fitted_at = "computed_at", fit_settings, diagnosed_at, has_failed,
            is_prior_far, is_selection_suspected, unpublished_changes = "unpublished");
        let populations = on.query("populations: read", sql, since.map(Value::from)).all(current).await?;
        Ok(ChangedPopulations { read_at, count, populations })
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

/// Which of these populations have no row, and how many more rows there may be.
pub(super) async fn new(
    on: &mut Transaction,
    named: &BTreeSet<PopulationName>,
    limit: u64,
) -> Result<NewPopulations, StoreError> {
    let sql = "select population_id from populations where population_id {any $1}";
    let known: Vec<PopulationName> = on
        .query("ingest: known populations", sql, values![changes::names(named)])
        .all(|row| row.get("population_id"))
        .await?;
    let known = BTreeSet::from_iter(known);
    let names: BTreeSet<PopulationName> = named.difference(&known).cloned().collect();
    let room = if names.is_empty() { 0 } else { limit.saturating_sub(count(on).await?) };
    Ok(NewPopulations { names, room: usize::try_from(room).unwrap_or(usize::MAX), limit })
}

pub(super) async fn count(on: &mut Transaction) -> Result<u64, StoreError> {
    let sql = "select count(*) as populations from populations";
    on.query("count populations", sql, []).one(|row| row.get("populations")).await
}
