//! Whose a pass is and for how long, and what of it concerns its own population and its own fit alone.

use shrinkd::estimate::BlockEstimates;
use shrinkd::row::{EstimateRow, Pass, PassDiagnostics};
use shrinkd::store::Store;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::publish::{blocks_after, due, pass_diagnostics, publish, write_page};
use super::refit::{begin, diagnostics, filled, refit};
use super::{Worker, event, message, population, promises, record};
use crate::common::database::Database;

promises! {
    a_pass_is_due_for_a_publish_though_its_diagnostics_are_young,
    passes_are_due_in_the_order_of_their_populations,
    a_population_without_a_published_fit_is_left_as_it_was,
    a_pass_is_held_for_as_long_as_its_owner_goes_on,
    a_pass_is_abandoned_after_half_a_minute_of_silence,
    a_pass_concerns_one_population,
    a_pass_of_an_earlier_fit_neither_writes_nor_ends_that_of_its_own_owner,
    a_newer_fit_is_published_from_the_beginning,
    a_pass_without_a_diagnosis_leaves_it_due,
    what_changes_during_a_diagnosis_leaves_the_next_one_due,
    what_a_pass_writes_has_the_time_of_the_pass,
}

const LONG_AGO: &str = "update populations set pass_touched_at = '2020-01-01T00:00:00.000000Z'";

async fn end(store: &Store, pass: &Pass, is_diagnosis: bool) {
    let found = (diagnostics(), pass_diagnostics());
    super::publish::end_pass(store, pass, is_diagnosis, is_diagnosis.then_some(found)).await;
}

/// Takes in an experiment of two populations, `m` and `n`, with the same variants, and publishes a fit of each.
async fn two_populations(store: &Store) -> Worker {
    let mut worker = Worker::claim(store, &[0]).await;
    let effects = r#""effects":[{"variant":"v0","estimate":1.0,"variance":0.5}]"#;
    let results = ["n", "m"].map(|metric| format!(r#"{{"metric":"{metric}",{effects}}}"#)).join(",");
    worker.ingest(vec![record(0, 0, &message("exp-0", 1, &results))]).await;
    for metric in ["n", "m"] {
        refit(store, metric, 1.0, 0.5, true).await;
    }
    worker
}

async fn a_pass_is_due_for_a_publish_though_its_diagnostics_are_young<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    end(&store, &begin(&store, "a").await.unwrap(), true).await;
    assert!(store.due_passes(Some(OffsetDateTime::UNIX_EPOCH), "a").await.unwrap().is_empty());
    refit(&store, "m", 2.0, 0.5, true).await;
    assert_eq!(store.due_passes(Some(OffsetDateTime::UNIX_EPOCH), "a").await.unwrap(), [due("m", 2, false)]);
}

async fn passes_are_due_in_the_order_of_their_populations<D: Database>(database: &D) {
    let store = database.store().await;
    two_populations(&store).await;
    let found = store.due_passes(Some(OffsetDateTime::now_utc()), "a").await.unwrap();
    assert_eq!(found, [due("m", 1, true), due("n", 1, true)]);
}

async fn a_population_without_a_published_fit_is_left_as_it_was<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    assert!(begin(&store, "a").await.is_none());
    assert_eq!(database.texts("select pass_owner from populations").await, [None]);
}

async fn a_pass_is_held_for_as_long_as_its_owner_goes_on<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    begin(&store, "a").await.unwrap();
    database.execute(LONG_AGO).await;
    let pass = begin(&store, "a").await.expect("its owner begins again");
    assert!(begin(&store, "b").await.is_none(), "it has begun again just now");
    database.execute(LONG_AGO).await;
    write_page(&store, &pass, Vec::new(), "exp-0").await.expect("it is still the owner's");
    assert!(begin(&store, "b").await.is_none(), "it has written a page just now");
    end(&store, &pass, false).await;
    let lease = "select coalesce(pass_owner, cast(pass_touched_at as text), publish_cursor) from populations";
    assert_eq!(database.texts(lease).await, [None]);
}

async fn a_pass_is_abandoned_after_half_a_minute_of_silence<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    begin(&store, "a").await.unwrap();
    for (seconds, is_abandoned) in [(15, false), (45, true)] {
        let touched = (OffsetDateTime::now_utc() - Duration::seconds(seconds)).format(&Rfc3339).expect("a time");
        database.execute(format!("update populations set pass_touched_at = '{touched}'").leak()).await;
        assert_eq!(
            store.due_passes(Some(OffsetDateTime::now_utc()), "b").await.unwrap().len(),
            usize::from(is_abandoned)
        );
        assert_eq!(begin(&store, "b").await.is_some(), is_abandoned, "after {seconds} s");
    }
}

async fn a_pass_concerns_one_population<D: Database>(database: &D) {
    let store = database.store().await;
    two_populations(&store).await;
    let of_m = begin(&store, "a").await.unwrap();
    let owners = "select pass_owner from populations order by population_id";
    assert_eq!(database.texts(owners).await, [Some("a".to_owned()), None]);
    assert_eq!(publish(&store, &of_m, async || ()).await, Some(1));
    end(&store, &of_m, true).await;
    let fitted = "select population_id from effect_estimates where posterior_mean is not null";
    assert_eq!(database.texts(fitted).await, [Some("m/all/absolute".to_owned())]);
    // What was found of the one is not carried over to the other.
    refit(&store, "n", 2.0, 0.5, true).await;
    let found = "select distinct population_id from population_diagnostics where deff is not null";
    assert_eq!(database.texts(found).await, [Some("m/all/absolute".to_owned())]);
    let cursors = "select publish_cursor from populations order by population_id";
    assert_eq!(database.texts(cursors).await, [None, Some(String::new())]);
}

async fn a_pass_of_an_earlier_fit_neither_writes_nor_ends_that_of_its_own_owner<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let earlier = begin(&store, "a").await.unwrap();
    refit(&store, "m", 2.0, 0.5, true).await;
    let later = begin(&store, "a").await.unwrap();
    assert_eq!(publish(&store, &earlier, async || ()).await, None);
    end(&store, &earlier, true).await;
    let found = "select cast(count(*) as text) from population_diagnostics where deff is not null";
    assert_eq!(database.count(found).await, 0, "what it found is of blocks that have moved on");
    let under_way = "select pass_owner || publish_cursor from populations where diagnosed_at is null";
    assert_eq!(database.texts(under_way).await, [Some("a".to_owned())]);
    assert_eq!(publish(&store, &later, async || ()).await, Some(4));
}

async fn a_newer_fit_is_published_from_the_beginning<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let earlier = begin(&store, "a").await.unwrap();
    write_page(&store, &earlier, Vec::new(), "exp-0").await.expect("it is free");
    refit(&store, "m", 2.0, 0.5, true).await;
    let later = begin(&store, "a").await.unwrap();
    assert_eq!((later.cursor.as_str(), later.is_publish), ("", true));
    assert_eq!(later.fit.nodes[0].mu_mean, 2.0);
}

async fn a_pass_without_a_diagnosis_leaves_it_due<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    let (past, future) = (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::now_utc() + Duration::HOUR);
    refit(&store, "m", 1.0, 0.5, true).await;
    end(&store, &begin(&store, "a").await.unwrap(), false).await;
    assert_eq!(store.due_passes(Some(past), "a").await.unwrap(), [due("m", 2, true)], "there are none at all");
    end(&store, &begin(&store, "a").await.unwrap(), true).await;
    assert!(store.due_passes(Some(future), "a").await.unwrap().is_empty());
    worker.ingest(vec![record(0, 2, &event("exp-7", 1, "m", &[1.0]))]).await;
    refit(&store, "m", 2.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    end(&store, &pass, false).await;
    assert_eq!(
        store.due_passes(Some(future), "a").await.unwrap(),
        [due("m", 3, true)],
        "they are older than the blocks"
    );
    let pass = begin(&store, "a").await.unwrap();
    assert!(!pass.is_publish, "it was published");
    write_page(&store, &pass, Vec::new(), "exp-0").await.expect("it is free");
    assert!(!begin(&store, "a").await.unwrap().is_publish, "nor is a publish due because it has gone on");
}

async fn what_changes_during_a_diagnosis_leaves_the_next_one_due<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    let future = OffsetDateTime::now_utc() + Duration::HOUR;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    worker.ingest(vec![record(0, 2, &event("exp-7", 1, "m", &[1.0]))]).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    end(&store, &pass, true).await;
    assert_eq!(store.due_passes(Some(future), "a").await.unwrap(), [due("m", 3, true)]);
    end(&store, &begin(&store, "a").await.unwrap(), true).await;
    assert!(store.due_passes(Some(future), "a").await.unwrap().is_empty());
}

async fn what_a_pass_writes_has_the_time_of_the_pass<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    database.execute("update effect_estimates set computed_at = '2020-01-01T00:00:00.000000Z'").await;
    database.execute("update population_diagnostics set computed_at = '2020-01-01T00:00:00.000000Z'").await;
    let blocks = blocks_after(&store, &pass.population, "", 1).await;
    let rows: Vec<EstimateRow> =
        blocks.iter().flat_map(|it| BlockEstimates::new(&it.block, it.commit_id, &pass.fit).rows).collect();
    write_page(&store, &pass, rows, "exp-0").await;
    let of_today = "select distinct experiment_id from effect_estimates where computed_at > '2020-01-02T00:00:00Z'";
    assert_eq!(database.texts(of_today).await, [Some("exp-0".to_owned())]);
    let found = PassDiagnostics { deff: 1.25, ..pass_diagnostics() };
    super::publish::end_pass(&store, &pass, true, Some((diagnostics(), found))).await;
    let of_today = "select cast(count(*) as text) from population_diagnostics
                    where computed_at > '2020-01-02T00:00:00Z' and diagnosed_at > '2020-01-02T00:00:00Z'";
    assert_eq!(database.count(of_today).await, 1);
    assert_eq!(begin(&store, "a").await.unwrap().population, population("m"));
}
