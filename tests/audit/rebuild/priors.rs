//! Changed priors and limits need no rebuild: the next start of a worker refits, without any event.

use super::tables::{estimates, filled_with, tables};
use super::{Keys, Site, events, fresh, promises};
use crate::common::database::Database;

promises! {
    changed_priors_alone_refit_and_publish_at_the_next_start,
    a_setting_of_one_population_refits_that_population_alone,
    a_smaller_tolerance_alone_publishes_at_the_next_start,
}

const PRIORS: Keys<'_> = &[("REFIT__PRIOR_MU", "normal:0,0.05"), ("REFIT__PRIOR_TAU", "half-normal:0.02")];

const FITS: &str = "select population_id || ' ' || cast(fit_id as text) from current_population_fits
                    where correlation = 'modelled' order by population_id";

async fn changed_priors_alone_refit_and_publish_at_the_next_start<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&events().0);
    site.run(&[]);
    let fits = database.texts(FITS).await;
    site.run(&[]);
    assert_eq!(database.texts(FITS).await, fits, "nothing changed, nothing is fitted");
    let settings = filled_with(&[], 0);
    let (before, flat) = (tables(database, &settings).await, estimates(database).await);

    site.run(PRIORS);
    let fresh = fresh::<D>().await;
    let other = site.of(&fresh);
    other.run(PRIORS);
    let after = tables(database, &settings).await;
    assert_eq!(after, tables(&fresh, &settings).await);
    assert_ne!(after.fits, before.fits);
    assert_ne!(estimates(database).await, flat, "published, where it moved");
    let made_with = database.texts("select distinct fit_settings from populations").await;
    let made_with: Vec<String> = made_with.into_iter().flatten().collect();
    assert_eq!(made_with, ["mu normal:0,0.05, tau half-normal:0.02, from 5 experiments, tolerance 0.01"]);

    site.run(&[]);
    assert_eq!(tables(database, &settings).await, before, "and back");
    fresh.remove().await;
}

async fn a_setting_of_one_population_refits_that_population_alone<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&events().0);
    site.run(&[]);
    let before = database.texts(FITS).await;
    let fitted = "select min(population_id) from current_population_fits where status = 'fitted'";
    let population = database.texts(fitted).await.remove(0).expect("a fitted population");

    let own = format!("{{ \"{population}\" = {{ min_experiments = 1000 }} }}");
    site.run(&[("POPULATIONS__SETTINGS", &own)]);
    let after = database.texts(FITS).await;
    let changed: Vec<&String> = after.iter().flatten().filter(|fit| !before.contains(&Some((*fit).clone()))).collect();
    assert!(changed.len() == 1 && changed[0].starts_with(&format!("{population} ")), "{changed:?}");
    let cold = "select distinct population_id from effect_estimates where status = 'cold_start' and fit_id > 0";
    assert_eq!(database.texts(cold).await, [Some(population)], "its rows carry the raw figures again");
}

async fn a_smaller_tolerance_alone_publishes_at_the_next_start<D: Database>(database: &D) {
    let (first, rest) = events();
    let site = Site::new(database);
    let lax: Keys<'_> = &[("PUBLISH__TOLERANCE", "0.9")];
    for lines in [first, rest] {
        site.append(&lines);
        site.run(lax);
    }
    let behind = "select cast(count(*) as text) from populations as p
                  join current_population_fits as f on f.population_id = p.population_id and f.correlation = 'modelled'
                  join population_fits as o on o.population_id = p.population_id and o.fit_id = p.published_fit_id
                      and o.correlation = f.correlation
                  where f.status = 'fitted' and (f.mu_median <> o.mu_median or f.tau_median <> o.tau_median)";
    assert!(database.count(behind).await > 0, "the second half moved less than that");
    site.run(&[("PUBLISH__TOLERANCE", "1e-9")]);
    assert_eq!(database.count(behind).await, 0);
}
