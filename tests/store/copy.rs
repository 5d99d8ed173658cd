//! Many rows at once reach the tables by another way than few do, and are the same there.

use shrinkd::estimate::BlockEstimates;
use shrinkd::row::EstimateRow;
use shrinkd::store::StoreError;
use shrinkd::worker::source::Record;

use super::loops::{loops, priors, settle};
use super::{Worker, event, message, promises, record, retraction};
use crate::common::database::Database;

promises! {
    many_rows_at_once_become_the_rows_that_few_become,
    many_rows_with_a_figure_that_is_not_finite_become_none,
    many_rows_at_once_leave_nothing_behind,
    many_new_rows_replace_those_that_a_lost_experiment_left,
    many_new_experiments_that_are_there_by_now_are_refused,
}

/// Everything of the tables that does not say when or in which batch a row was written.
async fn contents(database: &impl Database) -> Vec<Option<String>> {
    let mut contents = Vec::new();
    for query in [
        "select experiment_id || ' ' || revision || ' ' || coalesce(decision, 'none') || ' ' || labels || ' ' || completed_at
                || ' ' || kind || ' ' || coalesce(cast(started_at as text), 'none') || ' '
                || coalesce(shipped_variant, 'none') || ' ' || coalesce(length(retractions), -1)
         from experiments order by 1",
        "select experiment_id || ' ' || metric || ' ' || segment || ' ' || scale || ' ' || coalesce(population_id, 'none') || ' '
                || revision || ' ' || coalesce(direction, 'none') || ' ' || coalesce(coverage, -1) || ' '
                || coalesce(pending_reason, 'none') || ' ' || coalesce(pending_detail, 'none')
         from blocks order by 1",
        "select population_id || ' ' || experiment_id || ' ' || variant || ' ' || block_revision || ' ' || status || ' '
                || raw_estimate || ' ' || raw_se || ' ' || coalesce(treatment_variance, -1) || ' '
                || coalesce(control_variance, -1) || ' ' || control_variance_source || ' '
                || coalesce(posterior_mean, -1) || ' ' || coalesce(ci95_low, -1) || ' ' || coalesce(prob_best, -1) || ' '
                || coalesce(control_shift, -1) || ' ' || coalesce(naive_posterior_mean, -1) || ' '
                || case when is_continuity_corrected then 'corrected' else 'as it is' end || ' '
                || case when is_shipped then 'shipped' when is_shipped is null then 'unknown' else 'not shipped' end
                || ' ' || coalesce(direction, 'none') || ' ' || coverage
         from effect_estimates order by 1",
    ] {
        contents.extend(database.texts(query).await);
    }
    contents
}

/// Everything that rows are made of, per statement.
async fn packed(database: &impl Database) -> Vec<Option<Vec<u8>>> {
    let mut packed = Vec::new();
    for query in [
        "select retractions from experiments order by experiment_id",
        "select statistics from blocks order by experiment_id, metric",
        "select block from blocks order by experiment_id, metric",
        "select before from block_changes order by population_id, before, after",
        "select after from block_changes order by population_id, before, after",
    ] {
        packed.extend(database.bytes(query).await);
    }
    packed
}

/// So many events that what they make goes in a COPY, those that replace others through a stage; of every kind, with figures of every size, and texts that need care.
fn events(revision: u64) -> Vec<String> {
    let sizes = [1.0, -1e-300, 1e5, -0.0, 4.9e-307];
    let events = (0..2_200).map(|number: usize| {
        let id = format!("exp-{number:04} é{{}},\\\\N");
        match number % 5 {
            0 => event(&id, revision, "wild", &[sizes[number / 5 % 5], 2.0, revision as f64]),
            1 => format!(
                r#"{{"schema_version":1,"experiment_id":"{id}","revision":{revision},"completed_at":"9999-12-31T23:59:59.999999Z",
                    "started_at":"0001-01-01T00:00:00Z","shipped_variant":"v1","labels":{{"team":"a\\b","country":"✓"}},
                    "results":[{{"metric":"m","direction":"decrease","coverage":0.25,
                    "control":{{"variant":"control","n":900,"sum":40,"sum_squares":40}},
                    "treatments":[{{"variant":"v1","n":1000,"sum":40,"sum_squares":40}}]}}]}}"#
            ),
            2 => message(&id, revision, &format!(r#"{{"metric":"m","effects":[{{"variant":"only","estimate":{number},"variance":1e-5}}],"control_variance":0}}"#)),
            3 => retraction(&id, revision, "gone"),
            _ => event(&id, 1, "m", &[1.0]),
        }
    });
    events.collect()
}

fn records(revision: u64, offset: i64) -> Vec<Record> {
    events(revision).iter().zip(offset..).map(|(message, offset)| record(0, offset, message)).collect()
}

async fn many_rows_at_once_become_the_rows_that_few_become<D: Database>(database: &D) {
    let other = D::create().await.expect("as the first");
    for (database, size) in [(database, 5_000), (&other, 100)] {
        let store = database.store().await;
        let mut worker = Worker::claim(&store, &[0]).await;
        for revision in [1, 2] {
            for batch in records(revision, 10_000 * revision as i64).chunks(size) {
                worker.ingest(batch.to_vec()).await;
            }
            settle(&loops(&store, priors("flat", "half-normal:1"))).await;
        }
        store.close().await;
    }
    let (many, few) = (contents(database).await, contents(&other).await);
    assert_eq!(database.texts("select reason || ' ' || detail from rejected_events").await, []);
    assert!(many.len() > 1_000, "{}", many.len());
    assert_eq!(many, few);
    assert_eq!(packed(database).await, packed(&other).await);
    other.remove().await;
}

async fn many_rows_with_a_figure_that_is_not_finite_become_none<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(records(1, 0)).await;
    let before = contents(database).await;
    let (mut ingest, changes, _) = worker.write(records(2, 10_000)).await.expect("the batch is written");
    let fit = shrinkd::row::PublishedFit::none();
    let estimates = |block| BlockEstimates::new(block, ingest.commit_id(), &fit).rows;
    let mut rows: Vec<EstimateRow> = changes.changed.iter().flat_map(estimates).collect();
    rows[2_000].raw_se = f64::NAN;
    let refused = ingest.write_estimates(&changes, &rows).await.expect_err("it is not a number");
    assert!(matches!(refused, StoreError::NotFinite { column: "raw_se", .. }), "{refused}");
    drop(ingest);
    assert_eq!(contents(database).await, before);
}

async fn many_rows_at_once_leave_nothing_behind<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(records(1, 0)).await;
    let (given_up, ..) = worker.write(records(2, 10_000)).await.expect("the batch is written");
    drop(given_up);
    let before = contents(database).await;
    worker.ingest(records(1, 10_000)).await;
    assert_eq!(contents(database).await, before, "what was given up is not written with the next batch");
    worker.ingest(records(3, 20_000)).await;
    let third = contents(database).await;
    assert_ne!(third, before);
    // The stage is there already, and empty; then it is used twice in one transaction.
    worker.ingest(records(4, 30_000)).await;
    assert_ne!(contents(database).await, third);
    let fourth = contents(database).await;
    let (mut ingest, changes, _) = worker.write(records(5, 40_000)).await.expect("the batch is written");
    let fit = shrinkd::row::PublishedFit::none();
    let estimates = |block| BlockEstimates::new(block, ingest.commit_id(), &fit).rows;
    let rows: Vec<EstimateRow> = changes.changed.iter().flat_map(estimates).collect();
    let written = ingest.write_estimates(&changes, &rows[1..]).await.expect("those of the first use are gone");
    assert_eq!(written, [("effect_estimates", rows.len() as u64 - 1)]);
    ingest.commit().await.expect("the batch is committed");
    assert_ne!(contents(database).await, fourth);
}

async fn many_new_rows_replace_those_that_a_lost_experiment_left<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(records(1, 0)).await;
    let before = contents(database).await;
    database.execute("delete from experiments where experiment_id > 'exp-1'; update blocks set revision = 7").await;
    worker.ingest(records(1, 10_000)).await;
    database.execute("update blocks set revision = 1").await;
    assert_eq!(contents(database).await, before);
}

async fn many_new_experiments_that_are_there_by_now_are_refused<D: Database>(database: &D) {
    let store = database.store().await;
    let worker = Worker::claim(&store, &[0]).await;
    let (mut ingest, changes, _) = worker.write(records(1, 0)).await.expect("the batch is written");
    let refused = ingest.write_changes(&changes, true).await.expect_err("they are there");
    assert!(refused.to_string().contains("ingest: new experiments"), "{refused}");
    assert_eq!(refused.code(), refused.is_transient().then_some("23505"));
    drop(ingest);
    assert!(contents(database).await.is_empty());
}
