//! The transaction of a rebuild: what it leaves of what was there before it, and whom it keeps waiting.

use std::collections::BTreeMap;

use shrinkd::refit::RefitState;
use shrinkd::row::BlockChange;
use shrinkd::store::{Rebuild, Store, StoreError};
use shrinkd::worker::admission::Admission;
use shrinkd::worker::fold::fold;
use shrinkd::worker::source::Record;
use shrinkd_core::{Grouping, PopulationName};
use time::OffsetDateTime;

use super::publish::{end_pass, pass_diagnostics, write_page};
use super::refit::{begin, diagnostics, filled, refit, refit_at_once};
use super::{event, population, promises, record, retraction, settings_by_team};
use crate::common::database::{Database, settings};

promises! {
    diagnostics_from_before_a_rebuild_are_due_whatever_their_age,
    a_pass_from_before_a_rebuild_belongs_to_nobody,
    every_population_is_news_after_a_rebuild,
    a_rebuild_leaves_no_cell_and_no_change_from_before,
    estimates_of_another_commit_than_their_block_go,
    a_population_that_is_left_without_blocks_goes_with_its_fits,
    a_rebuild_that_is_not_committed_has_not_been,
    nothing_begins_after_a_rebuild_with_other_settings,
}

/// The experiments of [`filled`], of which there are three.
fn records() -> Vec<Record> {
    (0..3).map(|i| record(0, i, &event(&format!("exp-{i}"), 1, "m", &[i as f64, 0.5]))).collect()
}

/// A rebuild whose blocks are those of these records; its cells are written, and nothing else has changed.
async fn begun(store: &Store, records: &[Record]) -> Rebuild {
    let (mut rebuild, _) = store.begin_rebuild().await.unwrap();
    let folded = fold(records, BTreeMap::new(), &Grouping::default(), Admission::default(), |_| Some(0)).unwrap();
    let mut states: BTreeMap<PopulationName, RefitState> = BTreeMap::new();
    for BlockChange { population, before, after } in folded.changes.block_changes {
        let state = states.entry(population).or_default();
        state.statistics.apply(before.as_ref(), after.as_ref()).unwrap();
    }
    rebuild.write_statistics(&states).await.unwrap();
    rebuild
}

/// Returns how many populations were left without blocks.
async fn rebuild(store: &Store, records: &[Record]) -> u64 {
    let mut rebuild = begun(store, records).await;
    let emptied = rebuild.finish().await.unwrap();
    rebuild.commit().await.unwrap();
    emptied
}

async fn diagnostics_from_before_a_rebuild_are_due_whatever_their_age<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    end_pass(&store, &pass, true, Some((diagnostics(), pass_diagnostics()))).await;
    let long_ago = OffsetDateTime::UNIX_EPOCH;
    assert!(store.due_passes(Some(long_ago), "a").await.unwrap().is_empty());
    assert_eq!(rebuild(&store, &records()).await, 0);
    let due = store.due_passes(Some(long_ago), "a").await.unwrap();
    assert!(due.len() == 1 && due[0].is_diagnosis_due, "{due:?}");
}

async fn a_pass_from_before_a_rebuild_belongs_to_nobody<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let before = begin(&store, "a").await.unwrap();
    assert!(begin(&store, "b").await.is_none());
    rebuild(&store, &records()).await;
    assert_eq!(write_page(&store, &before, Vec::new(), "exp-1").await, None, "it is shut out");
    let lease = "select cast(count(*) as text) from populations where pass_owner is null and pass_touched_at is null";
    assert_eq!(database.count(lease).await, 1);
    let pass = begin(&store, "b").await.expect("it waits for nobody");
    assert!(pass.is_publish, "it is still due");
}

async fn every_population_is_news_after_a_rebuild<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    assert!(store.populations_with_news().await.unwrap().is_empty());
    let before = store.population_state(&population("m")).await.unwrap();
    database.execute("update populations set changed_at = '2001-01-01T00:00:00.000000Z'").await;
    rebuild(&store, &records()).await;
    let lately = Some(OffsetDateTime::now_utc() - std::time::Duration::from_secs(60));
    assert_eq!(store.populations_since(lately).await.unwrap().populations.len(), 1, "it is reported anew");
    assert_eq!(
        store.populations_with_news().await.unwrap(),
        [population("m")],
        "though its statistics are what they were"
    );
    let after = store.population_state(&population("m")).await.unwrap();
    assert_eq!((after.statistics.counters.experiments, after.statistics.counters.effects), (3, 6));
    assert_eq!(before.statistics.sketches, after.statistics.sketches, "neither lost nor doubled");
}

async fn a_rebuild_leaves_no_cell_and_no_change_from_before<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 70).await;
    refit_at_once(&store, &["m"]).await;
    worker.ingest(vec![record(0, 70, &event("exp-70", 1, "m", &[1.0]))]).await;
    let left = "select cast((select count(*) from population_cells) as text)
                union all select cast((select count(*) from block_changes) as text)";
    assert!(database.texts(left).await.iter().all(|count| count.as_deref() != Some("0")));
    // It is small enough to be summed from its blocks now.
    rebuild(&store, &records()).await;
    assert_eq!(database.texts(left).await, ["0", "0"].map(|zero| Some(zero.to_owned())));
}

async fn estimates_of_another_commit_than_their_block_go<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 3).await;
    database.execute("update effect_estimates set commit_id = commit_id - 1 where variant = 'v1'").await;
    database.execute("update effect_estimates set experiment_id = 'other' where experiment_id = 'exp-1'").await;
    database.execute("update blocks set block = null where experiment_id = 'exp-2'").await;
    rebuild(&store, &records()).await;
    let left = database.texts("select experiment_id || ' ' || variant from effect_estimates").await;
    assert_eq!(left, [Some("exp-0 v0".to_owned())]);
}

async fn a_population_that_is_left_without_blocks_goes_with_its_fits<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 3).await;
    worker.ingest(vec![record(0, 3, &event("exp-9", 1, "gone", &[1.0]))]).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    refit(&store, "gone", 1.0, 0.5, true).await;
    worker.ingest(vec![record(0, 4, &retraction("exp-9", 2, "gone"))]).await;
    assert_eq!(rebuild(&store, &records()).await, 1);
    for table in
        ["select distinct population_id from populations", "select distinct population_id from current_population_fits"]
    {
        assert_eq!(database.texts(table).await, [Some("m/all/absolute".to_owned())], "{table}");
    }
    let history = "select distinct population_id from population_fits order by 1";
    assert_eq!(database.texts(history).await.len(), 2, "the history stays");
}

async fn a_rebuild_that_is_not_committed_has_not_been<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let before = begin(&store, "a").await.unwrap();
    let mut given_up = begun(&store, &records()[..1]).await;
    given_up.finish().await.unwrap();
    drop(given_up);
    let state = store.population_state(&population("m")).await.unwrap();
    assert_eq!((state.statistics.counters.experiments, state.statistics.counters.effects), (3, 6));
    assert_eq!(write_page(&store, &before, Vec::new(), "exp-1").await, Some(0), "its pass goes on");
}

async fn nothing_begins_after_a_rebuild_with_other_settings<D: Database>(database: &D) {
    let store = database.store().await;
    let worker = filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let (rebuild, replaced) = database.open_to_rebuild(&settings_by_team()).await.begin_rebuild().await.unwrap();
    assert_eq!(replaced, Some(settings()));
    rebuild.commit().await.unwrap();
    let advance = worker.advances(&[record(0, 3, "")])[0];
    let refused = [
        store.begin_ingest(&[advance]).await.err(),
        store.begin_replay(&advance).await.err(),
        store.begin_refit(&[population("m")]).await.err(),
        store.begin_passes(&[population("m")], "a").await.err(),
    ];
    for refused in refused {
        assert!(matches!(refused, Some(StoreError::Settings { .. })), "{refused:?}");
    }
    assert_eq!(database.texts("select pass_owner from populations").await, [None], "all is left as it was");
    let offsets = "select cast(next_offset as text) from partition_progress";
    assert_eq!(database.texts(offsets).await, [Some("3".to_owned())]);
}
