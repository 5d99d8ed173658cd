//! What those read who look on: the latest fits, and the effects that are published.

use shrinkd_model::Correlation;

use shrinkd::row::CurrentFit;
use shrinkd::stream::NextOffset;

use super::refit::{filled, fit_row, refit};
use super::{event, population, promises, record};
use crate::common::database::Database;

promises! {
    the_latest_fits_are_read_by_correlation_published_or_not,
    only_effects_with_shrunken_estimates_are_read,
    an_audit_reads_everything_as_of_one_moment,
}

async fn the_latest_fits_are_read_by_correlation_published_or_not<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    assert_eq!(store.current_fits(&population("m")).await.unwrap(), []);
    refit(&store, "m", 1.0, 0.5, true).await;
    refit(&store, "m", 1.5, 0.25, false).await;
    let fit = |correlation, mu| {
        let row = fit_row(correlation, mu, 0.25);
        CurrentFit { correlation, effects: 7, mu: row.mu, tau: row.tau }
    };
    let expected = [fit(Correlation::Modelled, 1.5), fit(Correlation::Ignored, 2.5)];
    assert_eq!(store.current_fits(&population("m")).await.unwrap(), expected);
}

async fn only_effects_with_shrunken_estimates_are_read<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    assert_eq!(store.published_effects(&population("m")).await.unwrap(), []);
    refit(&store, "m", 1.0, 0.5, true).await;
    let other = event("exp-new", 1, "other", &[1.0]);
    worker.ingest(vec![record(0, 2, &event("exp-new", 1, "m", &[2.0, 3.0])), record(0, 3, &other)]).await;
    worker.ingest(vec![record(0, 4, &event("exp-mean", 1, "m", &[4.0]))]).await;

    let effects = store.published_effects(&population("m")).await.unwrap();
    let names: Vec<_> = effects.iter().map(|effect| (&*effect.experiment_id, &*effect.variant)).collect();
    assert_eq!(names, [("exp-mean", "v0"), ("exp-new", "v0"), ("exp-new", "v1")]);
    let rows = database.numbers(
        "select raw_estimate, raw_se, posterior_mean, posterior_sd, ci95_low, ci95_high from effect_estimates
         where experiment_id > 'exp-m' and population_id = 'm/all/absolute' order by experiment_id, variant",
    );
    for (effect, row) in effects.iter().zip(rows.await) {
        let (low, high) = (effect.ci95_low, effect.ci95_high);
        let read = [effect.raw_estimate, effect.raw_se, effect.posterior_mean, effect.posterior_sd, low, high];
        assert_eq!(read.map(Some).as_slice(), row);
    }
}

async fn an_audit_reads_everything_as_of_one_moment<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    let mut audit = store.begin_audit().await.unwrap();
    assert_eq!(audit.partitions().await.unwrap()[0].next_offset, Some(NextOffset(2)));
    worker.ingest(vec![record(0, 2, &event("exp-2", 1, "n", &[1.0]))]).await;
    assert_eq!(audit.count_blocks().await.unwrap(), 2, "what came meanwhile is not seen");
    assert_eq!(audit.population_ids().await.unwrap(), ["m/all/absolute"]);
    let mut later = store.begin_audit().await.unwrap();
    assert_eq!(later.count_blocks().await.unwrap(), 3);
    assert_eq!(later.population_ids().await.unwrap(), ["m/all/absolute", "n/all/absolute"]);
}
