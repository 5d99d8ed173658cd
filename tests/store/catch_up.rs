//! Batches that leave their estimates to a pass, and the passes that write them.

use std::sync::Arc;

use shrinkd::config::{PopulationSettings, StoreConfig, StoreUrl};
use shrinkd::estimate::BlockEstimates;
use shrinkd::refit::Unpublished;
use shrinkd::row::{EstimateRow, Pass};
use shrinkd::store::Store;
use shrinkd::worker::refit::{Occasion, RefitLoop};
use shrinkd_core::PopulationName;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::loops::{loops, priors, settle};
use super::publish::{end_pass, publish};
use super::refit::begin;
use super::{Record, Worker, event, message, population, promises, record, retraction, tombstone};
use crate::common::database::{Database, PostgresDatabase, settings};
use crate::common::role::Role;
use crate::common::settling::{until_it_waits, until_waiting};

promises! {
    a_batch_that_is_far_behind_writes_no_estimates_and_says_so,
    a_pass_writes_what_batches_have_left_to_it_also_before_the_first_fit,
    a_pass_replaces_rows_of_an_earlier_commit,
    a_pass_does_not_bring_back_what_is_retracted_while_it_writes,
    a_pass_leaves_a_block_alone_that_is_replaced_while_it_writes,
    a_group_of_which_one_is_left_goes_on_with_the_blocks_of_that_one,
    a_row_of_a_commit_with_a_larger_id_is_replaced_where_its_block_is_of_another,
    what_is_retracted_loses_its_rows_at_once,
    a_row_that_a_later_batch_has_written_stays,
    what_comes_while_a_pass_is_under_way_waits_for_the_next,
    a_pass_that_goes_on_counts_only_what_it_began_with,
    the_pass_begins_once_nothing_more_comes,
    a_population_waits_with_its_pass_while_batches_of_others_are_still_far_behind,
    what_is_left_to_the_pass_of_a_population_that_cannot_be_refitted_is_written_all_the_same,
    at_the_end_of_the_source_nothing_waits,
}

impl Worker {
    /// Takes in a batch that leaves its estimates to a pass.
    async fn ingest_behind(&mut self, records: Vec<Record>) {
        self.ingest_with(records, false).await;
    }
}

/// Experiments `exp-0` and so on, of two variants, in a batch that is far behind.
async fn left(store: &Store, experiments: i64) -> Worker {
    let mut worker = Worker::claim(store, &[0]).await;
    let effects = |i: i64| [(i as f64).sin(), (i as f64).cos()];
    let records = (0..experiments).map(|i| record(0, i, &event(&format!("exp-{i}"), 1, "m", &effects(i))));
    worker.ingest_behind(records.collect()).await;
    worker
}

async fn rows(database: &impl Database) -> Vec<String> {
    let rows = "select experiment_id || ' ' || block_revision || ' ' || variant || ' ' || status
                from effect_estimates order by 1";
    database.texts(rows).await.into_iter().flatten().collect()
}

const UNPUBLISHED: &str = "select cast(unpublished as text) || ' ' || cast(pass_unpublished as text) from populations";

async fn unpublished(database: &impl Database) -> Option<String> {
    database.texts(UNPUBLISHED).await.into_iter().flatten().next()
}

async fn a_batch_that_is_far_behind_writes_no_estimates_and_says_so<D: Database>(database: &D) {
    let store = database.store().await;
    left(&store, 3).await;
    assert!(rows(database).await.is_empty());
    let state = store.population_state(&population("m")).await.unwrap();
    assert_eq!(state.unpublished, Unpublished { new: 3, ..Unpublished::default() });
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::News).await.unwrap();
    assert_eq!(unpublished(database).await.as_deref(), Some("3 0"));
    let current = store.current_populations().await.unwrap();
    assert_eq!(current[0].unpublished_changes, 3);
}

async fn a_pass_writes_what_batches_have_left_to_it_also_before_the_first_fit<D: Database>(database: &D) {
    let store = database.store().await;
    left(&store, 1).await;
    let (refit, publish) = loops(&store, priors("flat", "flat"));
    let settings = Arc::clone(&refit.settings);
    let of_five = move |name: &PopulationName| PopulationSettings { min_experiments: 5, ..settings(name) };
    let refit = RefitLoop { settings: Arc::new(of_five), ..refit };
    refit.refit_all(Occasion::End).await.unwrap();
    publish.publish_due(None, &CancellationToken::new()).await.unwrap();
    let cold = ["exp-0 1 v0", "exp-0 1 v1"];
    assert_eq!(rows(database).await, cold.map(|row| format!("{row} cold_start")));
    assert_eq!(unpublished(database).await.as_deref(), Some("0 0"));
    let (refit, publish) = loops(&store, priors("flat", "half-normal:1"));
    refit.request_refits_for_changed_settings().await.unwrap();
    settle(&(refit, publish)).await;
    assert_eq!(rows(database).await, cold.map(|row| format!("{row} fitted")));
}

/// A population whose estimates are left to a pass that has begun.
async fn begun(store: &Store, experiments: i64) -> (Worker, Pass) {
    let worker = left(store, experiments).await;
    let (refit, _) = loops(store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::End).await.unwrap();
    (worker, begin(store, "a").await.expect("a pass is due"))
}

async fn a_pass_replaces_rows_of_an_earlier_commit<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![record(0, 0, &event("exp-0", 1, "m", &[1.0, 2.0]))]).await;
    worker.ingest_behind(vec![record(0, 1, &event("exp-0", 2, "m", &[3.0, 4.0]))]).await;
    assert_eq!(rows(database).await, ["exp-0 1 v0 cold_start", "exp-0 1 v1 cold_start"], "they are not touched");
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::End).await.unwrap();
    let pass = begin(&store, "a").await.expect("a pass is due");
    assert!(pass.has_unpublished);
    assert_eq!(publish(&store, &pass, async || ()).await, Some(2));
    assert_eq!(publish(&store, &pass, async || ()).await, Some(0), "they are as they should be");
    let raw = database.numbers("select raw_estimate from effect_estimates order by variant").await;
    assert_eq!(raw, [[Some(3.0)], [Some(4.0)]]);
}

async fn a_pass_does_not_bring_back_what_is_retracted_while_it_writes<D: Database>(database: &D) {
    let store = database.store().await;
    let (mut worker, pass) = begun(&store, 3).await;
    let written = publish(&store, &pass, async || {
        worker.ingest_behind(vec![record(0, 3, &retraction("exp-1", 2, "m"))]).await;
        worker.ingest_behind(vec![record(0, 4, &tombstone("exp-2"))]).await;
    });
    assert_eq!(written.await, Some(2));
    assert_eq!(rows(database).await, ["exp-0 1 v0 fitted", "exp-0 1 v1 fitted"]);
}

async fn a_pass_leaves_a_block_alone_that_is_replaced_while_it_writes<D: Database>(database: &D) {
    let store = database.store().await;
    let (mut worker, pass) = begun(&store, 3).await;
    let written = publish(&store, &pass, async || {
        // With a variant less, and by a batch that writes its estimates itself.
        worker.ingest_behind(vec![record(0, 3, &event("exp-0", 2, "m", &[7.0]))]).await;
        worker.ingest(vec![record(0, 4, &event("exp-1", 2, "m", &[8.0]))]).await;
    });
    assert_eq!(written.await, Some(2));
    let expected = ["exp-1 2 v0 fitted", "exp-2 1 v0 fitted", "exp-2 1 v1 fitted"];
    assert_eq!(rows(database).await, expected);
}

/// A worker with two populations of three experiments each, whose estimates are left to passes that have begun.
async fn two_begun(store: &Store) -> (Worker, Vec<Pass>) {
    let mut worker = Worker::claim(store, &[0]).await;
    let effects = r#""effects":[{"variant":"v0","estimate":1.0,"variance":0.5}]"#;
    let results = ["m", "n"].map(|metric| format!(r#"{{"metric":"{metric}",{effects}}}"#)).join(",");
    let records = (0..3).map(|i| record(0, i, &message(&format!("exp-{i}"), 1, &results)));
    worker.ingest_behind(records.collect()).await;
    let (refit, _) = loops(store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::End).await.unwrap();
    let passes = store.begin_passes(&[population("m"), population("n")], "a").await.unwrap();
    (worker, passes)
}

/// All of their rows.
async fn page_of(store: &Store, passes: &[Pass]) -> Vec<EstimateRow> {
    let populations: Vec<PopulationName> = passes.iter().map(|pass| pass.population.clone()).collect();
    let blocks = store.blocks_after(&populations, ("", ""), 100).await.unwrap();
    let rows = blocks.into_iter().map(|it| it.expect("it can be read")).map(|it| {
        let fit = &passes.iter().find(|pass| pass.population == it.block.population).expect("its pass").fit;
        BlockEstimates::new(&it.block, it.commit_id, fit).rows
    });
    rows.flatten().collect()
}

#[tokio::test]
async fn postgres_lets_a_pass_wait_for_a_batch_that_retracts_what_it_writes_and_then_leave_it_alone() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let (worker, passes) = two_begun(&store).await;
    let rows = page_of(&store, &passes).await;
    let (batch, ..) = worker.write_with(vec![record(0, 3, &tombstone("exp-1"))], false).await.unwrap();
    let writing = tokio::spawn({
        let (store, passes) = (store.clone(), passes.clone());
        async move { store.write_estimates(&[(&passes[0], "exp-2"), (&passes[1], "exp-2")], rows).await }
    });
    until_it_waits(&database, &writing).await;
    batch.commit().await.unwrap();
    let (_, written) = writing.await.unwrap().unwrap();
    assert_eq!(written, 4);
    let left = "select distinct experiment_id from effect_estimates order by 1";
    assert_eq!(database.texts(left).await, [Some("exp-0".to_owned()), Some("exp-2".to_owned())]);
    database.remove().await;
}

#[tokio::test]
async fn postgres_lets_a_batch_wait_for_the_page_of_a_pass_that_has_what_it_retracts() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let (mut worker, passes) = two_begun(&store).await;
    let rows = page_of(&store, &passes).await;
    // The page has its first blocks, and waits for the last row.
    let mut other = PgConnection::connect_with(&database.options()).await.unwrap();
    let lock = "begin; select from blocks where experiment_id = 'exp-2' for update";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let writing = tokio::spawn({
        let (store, passes) = (store.clone(), passes.clone());
        async move { store.write_estimates(&[(&passes[0], "exp-2"), (&passes[1], "exp-2")], rows).await }
    });
    until_it_waits(&database, &writing).await;
    // It retracts one block and replaces another before it: in any order but that of the keys one would wait for the other.
    let batch = tokio::spawn(async move {
        let records = vec![record(0, 3, &tombstone("exp-1")), record(0, 4, &event("exp-0", 2, "m", &[9.0]))];
        worker.ingest_behind(records).await;
    });
    until_waiting(&database, &batch, 2).await;
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    assert_eq!(writing.await.unwrap().unwrap().1, 6);
    batch.await.unwrap();
    let left = "select distinct experiment_id || ' ' || population_id from effect_estimates order by 1";
    let left: Vec<String> = database.texts(left).await.into_iter().flatten().collect();
    let expected = ["exp-0 m/all/absolute", "exp-0 n/all/absolute", "exp-2 m/all/absolute", "exp-2 n/all/absolute"];
    assert_eq!(left, expected);
    database.remove().await;
}

async fn a_group_of_which_one_is_left_goes_on_with_the_blocks_of_that_one<D: Database>(database: &D) {
    let store = database.store().await;
    let (_, passes) = two_begun(&store).await;
    let second = [passes[1].population.clone()];
    let blocks = store.blocks_after(&second, ("m/all/absolute", "exp-1"), 100).await.unwrap();
    assert_eq!(blocks.len(), 3, "the other population was lost in the middle of its blocks");
    let behind = store.blocks_after(&second, ("n/all/absolute", "exp-1"), 100).await.unwrap();
    assert_eq!(behind.len(), 1);
}

async fn a_row_of_a_commit_with_a_larger_id_is_replaced_where_its_block_is_of_another<D: Database>(database: &D) {
    let store = database.store().await;
    let (_, pass) = begun(&store, 2).await;
    publish(&store, &pass, async || ()).await;
    // A batch that drew its id later had locked the experiment first.
    database
        .execute("update effect_estimates set commit_id = commit_id + 1, raw_estimate = 99 where variant = 'v0'")
        .await;
    assert_eq!(publish(&store, &pass, async || ()).await, Some(2));
    let wrong = "select cast(count(*) as text) from effect_estimates where raw_estimate = 99";
    assert_eq!(database.count(wrong).await, 0);
}

async fn what_is_retracted_loses_its_rows_at_once<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let effects = [1.0, 2.0];
    worker.ingest((0..3).map(|i| record(0, i, &event(&format!("exp-{i}"), 1, "m", &effects))).collect()).await;
    let behind = vec![record(0, 3, &retraction("exp-0", 2, "m")), record(0, 4, &event("exp-1", 2, "m", &[5.0]))];
    worker.ingest_behind(behind).await;
    let expected = ["exp-1 1 v0 cold_start", "exp-2 1 v0 cold_start", "exp-2 1 v1 cold_start"];
    assert_eq!(rows(database).await, expected, "also the variant that is gone");
    let state = store.population_state(&population("m")).await.unwrap();
    assert_eq!(state.unpublished.new, 1, "of what is withdrawn there is nothing to publish");
}

async fn a_row_that_a_later_batch_has_written_stays<D: Database>(database: &D) {
    let store = database.store().await;
    let (mut worker, pass) = begun(&store, 2).await;
    worker.ingest(vec![record(0, 2, &event("exp-0", 2, "m", &[7.0, 8.0]))]).await;
    let before = database.texts("select cast(commit_id as text) from effect_estimates").await;
    assert_eq!(publish(&store, &pass, async || ()).await, Some(2), "those of the other experiment");
    let after = database.texts("select cast(commit_id as text) from effect_estimates where experiment_id = 'exp-0'");
    assert_eq!(after.await, before);
}

async fn what_comes_while_a_pass_is_under_way_waits_for_the_next<D: Database>(database: &D) {
    let store = database.store().await;
    let (mut worker, pass) = begun(&store, 3).await;
    assert_eq!(unpublished(database).await.as_deref(), Some("3 3"));
    worker.ingest_behind(vec![record(0, 3, &event("exp-3", 1, "m", &[1.0]))]).await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::News).await.unwrap();
    assert_eq!(unpublished(database).await.as_deref(), Some("4 3"));
    publish(&store, &pass, async || ()).await;
    end_pass(&store, &pass, false, None).await;
    assert_eq!(unpublished(database).await.as_deref(), Some("1 0"));
    assert!(begin(&store, "a").await.is_none_or(|pass| !pass.is_publish), "it has not been asked for");
    refit.refit_all(Occasion::News).await.unwrap();
    let next = begin(&store, "a").await.expect("a pass is due, as nothing more has come");
    assert!(next.is_publish && next.has_unpublished);
}

async fn a_pass_that_goes_on_counts_only_what_it_began_with<D: Database>(database: &D) {
    let store = database.store().await;
    let (mut worker, _) = begun(&store, 3).await;
    database.execute("update populations set publish_cursor = 'exp-2'").await;
    worker.ingest_behind(vec![record(0, 3, &event("exp-00", 1, "m", &[1.0]))]).await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::News).await.unwrap();
    let pass = begin(&store, "a").await.expect("it goes on");
    end_pass(&store, &pass, false, None).await;
    assert_eq!(unpublished(database).await.as_deref(), Some("1 0"), "it has gone on behind that experiment");
}

async fn the_pass_begins_once_nothing_more_comes<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = left(&store, 3).await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    assert_eq!(refit.refit_all(Occasion::News).await.unwrap(), 1);
    worker.ingest_behind(vec![record(0, 3, &event("exp-3", 1, "m", &[1.0]))]).await;
    assert_eq!(refit.refit_all(Occasion::News).await.unwrap(), 0, "it waits");
    assert!(store.due_passes(None, "a").await.unwrap().is_empty());
    let is_due = "update populations set refit_due_at = '2020-01-01T00:00:00.000000Z'";
    database.execute(is_due).await;
    assert_eq!(refit.refit_all(Occasion::News).await.unwrap(), 1);
    assert!(store.due_passes(None, "a").await.unwrap().is_empty(), "something has come");
    database.execute(is_due).await;
    assert_eq!(refit.refit_all(Occasion::News).await.unwrap(), 1);
    assert_eq!(store.due_passes(None, "a").await.unwrap().len(), 1);
}

async fn a_population_waits_with_its_pass_while_batches_of_others_are_still_far_behind<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = left(&store, 3).await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::News).await.unwrap();
    worker.ingest_behind(vec![record(0, 3, &event("exp-3", 1, "other", &[1.0]))]).await;
    let is_due = "update populations set refit_due_at = '2020-01-01T00:00:00.000000Z' where population_id like 'm/%'";
    database.execute(is_due).await;
    refit.refit_all(Occasion::News).await.unwrap();
    assert!(store.due_passes(None, "a").await.unwrap().is_empty(), "there was a change of another");
    database.execute(is_due).await;
    database.execute("update populations set unpublished_at = '2020-01-01T00:00:00.000000Z'").await;
    worker.ingest_behind(vec![record(0, 4, &event("exp-4", 1, "other", &[1.0]))]).await;
    refit.refit_all(Occasion::News).await.unwrap();
    assert_eq!(store.due_passes(None, "a").await.unwrap().len(), 1, "but for no longer than 30 seconds");
}

async fn what_is_left_to_the_pass_of_a_population_that_cannot_be_refitted_is_written_all_the_same<D: Database>(
    database: &D,
) {
    let store = database.store().await;
    left(&store, 3).await;
    database.execute("update block_changes set after = substr(after, 1, 3)").await;
    let (refit, publish) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::News).await.unwrap();
    let failed = "select cast(count(*) as text) from current_population_fits where status = 'failed'";
    assert_eq!(database.count(failed).await, 4);
    assert_eq!(unpublished(database).await.as_deref(), Some("3 0"));
    assert_eq!(publish.publish_due(None, &CancellationToken::new()).await.unwrap(), 0, "more may come");
    database.execute("update populations set refit_due_at = '2020-01-01T00:00:00.000000Z'").await;
    refit.refit_all(Occasion::News).await.unwrap();
    assert_eq!(publish.publish_due(None, &CancellationToken::new()).await.unwrap(), 1);
    assert_eq!((rows(database).await.len(), unpublished(database).await.as_deref()), (6, Some("0 0")));
}

#[tokio::test]
async fn postgres_lets_a_worker_with_no_more_than_its_rights_catch_up_and_note_a_failure() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let role = Role::worker(&database).await;
    let config = StoreConfig { url: StoreUrl::Postgres(role.url("right")), connections: 2 };
    let store = Store::connect(&config, &settings()).await.expect("the rights are enough");
    let mut worker = left(&store, 3).await;
    let (refit, publish) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::End).await.unwrap();
    publish.publish_due(None, &CancellationToken::new()).await.unwrap();
    assert_eq!(rows(&database).await.len(), 6);
    worker.ingest_behind(vec![record(0, 3, &event("exp-3", 1, "m", &[1.0]))]).await;
    database.execute("update blocks set block = statistics where experiment_id = 'exp-1'").await;
    refit.refit_all(Occasion::End).await.expect("it is noted as failed");
    let failed = "select cast(count(*) as text) from current_population_fits where status = 'failed'";
    assert_eq!(database.count(failed).await, 4);
    publish.publish_due(None, &CancellationToken::new()).await.unwrap();
    assert_eq!(rows(&database).await.len(), 7, "what can be read is published");
    drop((store, worker, refit, publish));
    role.remove().await;
    database.remove().await;
}

async fn at_the_end_of_the_source_nothing_waits<D: Database>(database: &D) {
    let store = database.store().await;
    left(&store, 3).await;
    let (refit, publish) = loops(&store, priors("flat", "half-normal:1"));
    refit.refit_all(Occasion::News).await.unwrap();
    store.request_refits_of_unpublished().await.unwrap();
    assert_eq!(refit.refit_all(Occasion::End).await.unwrap(), 1);
    assert_eq!(publish.publish_due(None, &CancellationToken::new()).await.unwrap(), 1);
    assert_eq!(rows(database).await.len(), 6);
}
