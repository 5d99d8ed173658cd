//! Whatever the prior, a worker publishes finite numbers, and a population that cannot be fitted stops neither the worker nor an
//! audit or a rebuild.

use super::site::{Keys, Site};
use crate::common::database::{Database, refuse_fits};
use crate::common::promises;

promises! {
    a_prior_far_narrower_than_the_standard_errors_gives_finite_estimates,
    a_prior_in_another_unit_concerns_its_population_alone_and_is_named,
    a_failed_population_is_a_remark_of_the_audit_and_no_obstacle_to_a_rebuild,
}

/// One experiment of one variant.
fn event(id: usize, metric: &str, scale: &str, estimate: f64, variance: f64) -> String {
    format!(
        r#"{{"schema_version":1,"experiment_id":"{metric}-{id}","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[{{"metric":"{metric}","scale":"{scale}","effects":[{{"variant":"t","estimate":{estimate},"variance":{variance}}}]}}]}}"#
    ) + "\n"
}

/// Effects of some experiments, with standard errors of 1.
fn events(metric: &str, experiments: usize, unit: f64) -> String {
    (0..experiments).map(|i| event(i, metric, "absolute", unit * (i as f64 * 0.7).sin(), unit * unit)).collect()
}

async fn fits(database: &impl Database) -> Vec<String> {
    let fits = "select population_id || ' ' || status || ' ' || coalesce(message, '-') from current_population_fits
                where correlation = 'modelled' order by 1";
    database.texts(fits).await.into_iter().flatten().collect()
}

/// Estimates that are said to be fitted, and have no figures.
async fn hollow(database: &impl Database) -> i64 {
    let hollow = "select cast(count(*) as text) from effect_estimates
                  where status = 'fitted' and (posterior_mean is null or posterior_sd is null or ci95_low is null
                                               or prob_positive is null or lfsr is null or shrinkage_factor is null)";
    database.count(hollow).await
}

/// One effect of 1 with variance 1 under mu ~ N(0, 1) and hardly any tau: mu and the effect are half of it.
async fn a_prior_far_narrower_than_the_standard_errors_gives_finite_estimates<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&event(0, "m", "absolute", 1.0, 1.0));
    for scale in ["half-normal:0.00001", "half-normal:1e-12", "half-cauchy:1e-9", "half-t:3,1e-9"] {
        let keys: Keys<'_> = &[("REFIT__PRIOR_MU", "normal:0,1"), ("REFIT__PRIOR_TAU", scale)];
        site.run(keys);
        let [fit] = &fits(database).await[..] else { panic!("one population") };
        assert!(fit.starts_with("m/all/absolute fitted the prior of tau has scale "), "{scale}: {fit}");
        let mu = "select mu_mean, mu_sd from current_population_fits where correlation = 'modelled'";
        let figures = database.numbers("select posterior_mean, posterior_sd from effect_estimates").await;
        for (found, right) in
            [(&database.numbers(mu).await[0], [0.5, 0.5_f64.sqrt()]), (&figures[0], [0.5, 0.5_f64.sqrt()])]
        {
            for (found, right) in found.iter().zip(right) {
                let found = found.expect("a figure");
                assert!((found - right).abs() < 1e-3, "{scale}: {found}, not {right}");
            }
        }
        assert_eq!(hollow(database).await, 0);
        site.start("verify", keys).ends_with(0);
    }
}

/// A prior in seconds, of effects in nanoseconds.
async fn a_prior_in_another_unit_concerns_its_population_alone_and_is_named<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&(events("latency_ns", 12, 4e5) + &events("conversion", 12, 0.01)));
    let keys: Keys<'_> =
        &[("POPULATIONS__SETTINGS", r#"{ "latency_ns/all/absolute" = { prior_tau = "half-normal:1" } }"#)];
    let said = site.start("run", keys).ends_with(0);
    let found = fits(database).await;
    let far = "the prior of tau has scale 1e0, but effects and standard errors are of the order of 3e5: priors are in the unit \
               of the effects";
    assert_eq!(found, ["conversion/all/absolute fitted -".to_owned(), format!("latency_ns/all/absolute fitted {far}")]);
    assert_eq!(said.matches(far).count(), 1, "said once:\n{said}");
    assert_eq!(hollow(database).await, 0);
    let published = "select cast(count(*) as text) from effect_estimates where status = 'fitted'";
    assert_eq!(database.count(published).await, 24);
    let said = site.start("run", keys).ends_with(0);
    assert_eq!(said.matches(far).count(), 0, "and not again:\n{said}");
}

async fn a_failed_population_is_a_remark_of_the_audit_and_no_obstacle_to_a_rebuild<D: Database>(database: &D) {
    let site = Site::new(database);
    site.append(&(events("a", 8, 1.0) + &events("b", 8, 1.0)));
    site.run(&[]);
    refuse_fits(database).await;
    site.append(&(event(8, "a", "absolute", 3.0, 1.0) + &event(8, "b", "absolute", 3.0, 1.0)));
    let said = site.start("run", &[]).ends_with(0);
    assert!(said.contains("cannot be refitted"), "{said}");
    let of_b =
        "select cast(count(*) as text) from effect_estimates where population_id like 'b/%' and status = 'fitted'";
    assert_eq!(database.count(of_b).await, 9);
    let said = site.start("verify", &[]).ends_with(0);
    // Without the breaks of its lines.
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("a/all/absolute could not be fitted, and keeps its earlier estimates: `refit: fits`"),
        "{said}"
    );
    site.rebuild(&[]);
    let found = fits(database).await;
    assert!(found[0].starts_with("a/all/absolute failed ") && found[1] == "b/all/absolute fitted -", "{found:?}");
    assert_eq!(hollow(database).await, 0);

    let take = match database.url().starts_with("sqlite") {
        true => "drop trigger planted",
        false => "alter table current_population_fits drop constraint planted",
    };
    database.execute(take).await;
    site.run(&[]);
    assert_eq!(fits(database).await, ["a/all/absolute fitted -", "b/all/absolute fitted -"]);
    site.start("verify", &[]).ends_with(0);
}
