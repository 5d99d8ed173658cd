//! Holdouts in a database: stored as an experiment is, in no population, and of no concern to an audit or a rebuild.

use crate::common::database::Database;
use crate::common::promises;
use crate::site::Site;

const LATENCIES: &str = include_str!("../data/cases/inverse_metric.ndjson");

promises! {
    a_holdout_is_in_no_population_before_and_after_a_rebuild,
    a_block_without_a_population_that_is_no_holdouts_is_found,
}

/// Four experiments, and a fifth that turned out a holdout at its second revision.
async fn filled(database: &impl Database) -> Site {
    database.execute("delete from store_settings").await;
    let site = Site::new(database);
    let holdout =
        LATENCIES.lines().next().expect("an event").replace(r#""revision": 1"#, r#""revision": 2, "kind": "holdout""#);
    site.append(&format!("{LATENCIES}{}\n", holdout.replace(r#""schema_version": 1"#, r#""schema_version": 2"#)));
    site.run(&[]);
    site
}

async fn a_holdout_is_in_no_population_before_and_after_a_rebuild<D: Database>(database: &D) {
    let site = filled(database).await;
    let rows = "select distinct experiment_id from effect_estimates order by 1";
    let stored = "select experiment_id from blocks where population_id is null and block is not null";
    for _ in 0..2 {
        let found: Vec<String> = database.texts(rows).await.into_iter().flatten().collect();
        assert_eq!(found, ["lat1", "lat2", "lat3", "lat4"]);
        let found: Vec<String> = database.texts(stored).await.into_iter().flatten().collect();
        assert_eq!(found, ["lat0"]);
        site.start("verify", &[]).ends_with(0);
        site.rebuild(&[]);
    }
}

async fn a_block_without_a_population_that_is_no_holdouts_is_found<D: Database>(database: &D) {
    let site = filled(database).await;
    database.execute("update experiments set kind = 'experiment' where experiment_id = 'lat0'").await;
    let said = site.start("verify", &[]).ends_with(1);
    assert!(said.contains("lat0") && said.contains("it is no holdout"), "{said}");
}
