//! What one transaction of a batch makes one, and who may commit it.

use shrinkd::store::StoreError;
use shrinkd::stream::{Advance, Epoch, NextOffset, Topic};

use super::{Worker, event, message, population, promises, record, retraction, tombstone, topic};
use crate::common::database::{Database, settings};

promises! {
    a_claim_shuts_the_earlier_owner_out,
    a_batch_from_another_offset_is_fenced_and_changes_nothing,
    a_batch_that_is_fenced_in_one_partition_moves_none,
    offsets_move_with_the_effects_or_neither_does,
    a_commit_in_doubt_is_judged_by_what_is_stored,
    offsets_of_a_topic_that_was_made_again_are_not_used,
    a_claim_goes_on_where_the_last_commit_ended,
    commit_ids_grow_with_every_batch,
    what_is_stored_of_an_experiment_comes_back_as_it_was,
    a_tombstone_forgets_all_that_is_stored,
    rejected_rows_are_kept_once_though_applied_twice,
    records_that_are_applied_again_change_nothing,
    any_rfc_3339_time_can_be_stored,
    a_batch_logs_what_it_changed_of_each_block,
    an_estimate_that_is_written_again_says_when,
}

/// Everything that a batch could have changed, as text.
pub async fn contents(database: &impl Database) -> Vec<Option<String>> {
    let mut contents = Vec::new();
    for query in [
        "select topic || partition_number || ' ' || coalesce(next_offset, -1) || ' ' || epoch from partition_progress order by 1",
        "select experiment_id || revision || labels || coalesce(length(retractions), 0) from experiments order by 1",
        "select experiment_id || population_id || revision || ' ' || commit_id || ' ' || length(block) from blocks order by 1",
        "select population_id || coalesce(length(before), 0) || ' ' || coalesce(length(after), 0) from block_changes order by 1",
        "select partition_id || ' ' || record_offset || reason from rejected_events order by 1",
        "select population_id || experiment_id || variant || block_revision || ' ' || commit_id from effect_estimates order by 1",
        "select population_id from populations order by 1",
    ] {
        contents.extend(database.texts(query).await);
    }
    contents
}

fn is_fenced<T>(result: Result<T, StoreError>, expected: &[i32]) -> bool {
    matches!(result, Err(StoreError::Fenced { partitions }) if partitions == expected)
}

async fn a_claim_shuts_the_earlier_owner_out<D: Database>(database: &D) {
    let store = database.store().await;
    let mut earlier = Worker::claim(&store, &[0, 1]).await;
    earlier.ingest(vec![record(0, 4, &event("exp-1", 1, "m", &[1.0]))]).await;
    let mut later = Worker::claim(&store, &[0]).await;
    let before = contents(database).await;

    let late = vec![record(0, 5, &event("exp-2", 1, "m", &[2.0]))];
    assert!(is_fenced(earlier.write(late.clone()).await, &[0]));
    assert_eq!(contents(database).await, before);

    later.ingest(late).await;
    earlier.ingest(vec![record(1, 0, &event("exp-3", 1, "m", &[2.0]))]).await;
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 3);
}

async fn a_batch_from_another_offset_is_fenced_and_changes_nothing<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![record(0, 0, &event("exp-1", 1, "m", &[1.0]))]).await;
    let before = contents(database).await;
    let claim = worker.claims[&0];
    for from in [None, Some(NextOffset(0)), Some(NextOffset(2))] {
        let advance =
            Advance { partition: 0, partition_id: claim.partition_id, epoch: claim.epoch, from, to: NextOffset(9) };
        assert!(is_fenced(store.begin_ingest(&[advance]).await, &[0]));
    }
    assert_eq!(contents(database).await, before);
}

async fn a_batch_that_is_fenced_in_one_partition_moves_none<D: Database>(database: &D) {
    let store = database.store().await;
    let worker = Worker::claim(&store, &[0, 1]).await;
    Worker::claim(&store, &[1]).await;
    let before = contents(database).await;
    let records = vec![record(0, 0, &event("exp-1", 1, "m", &[1.0])), record(1, 0, &event("exp-2", 1, "m", &[1.0]))];
    assert!(is_fenced(worker.write(records).await, &[1]));
    assert_eq!(contents(database).await, before);
}

async fn offsets_move_with_the_effects_or_neither_does<D: Database>(database: &D) {
    let store = database.store().await;
    let worker = Worker::claim(&store, &[0]).await;
    let before = contents(database).await;
    let records = vec![record(0, 0, &event("exp-1", 1, "m", &[1.0, 2.0])), record(0, 1, "not JSON")];

    let (given_up, ..) = worker.write(records.clone()).await.unwrap();
    drop(given_up);
    assert_eq!(contents(database).await, before);

    let (kept, ..) = worker.write(records).await.unwrap();
    kept.commit().await.unwrap();
    let after = contents(database).await;
    assert!(after.contains(&Some("experiments0 2 1".to_owned())), "{after:?}");
    assert_eq!(database.count("select cast(count(*) as text) from effect_estimates").await, 2);
    assert_eq!(database.count("select cast(count(*) as text) from rejected_events").await, 1);
}

async fn a_commit_in_doubt_is_judged_by_what_is_stored<D: Database>(database: &D) {
    let store = database.store().await;
    let worker = Worker::claim(&store, &[0]).await;
    let records = vec![record(0, 6, &event("exp-1", 1, "m", &[1.0]))];
    let advances = worker.advances(&records);
    assert!(!store.is_committed(&advances).await.unwrap());
    let (ingest, ..) = worker.write(records).await.unwrap();
    ingest.commit().await.unwrap();
    assert!(store.is_committed(&advances).await.unwrap());
    Worker::claim(&store, &[0]).await;
    assert!(is_fenced(store.is_committed(&advances).await, &[0]));
}

async fn offsets_of_a_topic_that_was_made_again_are_not_used<D: Database>(database: &D) {
    let store = database.store().await;
    let unknown = Topic { id: String::new(), ..topic() };
    let again = Topic { id: "made-again".to_owned(), ..topic() };
    store.claim(&unknown, &[0], "worker").await.unwrap();
    store.claim(&topic(), &[0], "worker").await.unwrap();
    store.claim(&unknown, &[0], "worker").await.unwrap();
    let before = contents(database).await;
    assert!(matches!(store.claim(&again, &[0], "worker").await, Err(StoreError::TopicChanged { .. })));
    assert_eq!(contents(database).await, before);
}

async fn a_claim_goes_on_where_the_last_commit_ended<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[2, 0]).await;
    assert!(worker.claims.values().all(|claim| claim.epoch == Epoch(1) && claim.next_offset.is_none()));
    worker.ingest(vec![record(2, 41, &event("exp-1", 1, "m", &[1.0]))]).await;
    let again = Worker::claim(&database.store().await, &[0, 2]).await;
    assert!(again.claims.values().all(|claim| claim.epoch == Epoch(2)));
    assert_eq!(again.claims[&2].next_offset, Some(NextOffset(42)));
    assert_eq!(again.claims[&0].next_offset, None);
    assert_eq!(again.claims[&0].partition_id, worker.claims[&0].partition_id);
}

async fn commit_ids_grow_with_every_batch<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let mut last = 0;
    for revision in 1..4 {
        worker.ingest(vec![record(0, revision, &event("exp-1", revision as u64, "m", &[1.0]))]).await;
        let of_block = database.count("select cast(commit_id as text) from blocks").await;
        assert_eq!(database.count("select cast(commit_id as text) from effect_estimates").await, of_block);
        assert!(of_block > last);
        last = of_block;
    }
}

async fn what_is_stored_of_an_experiment_comes_back_as_it_was<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let largest = i64::MAX as u64;
    let dense = r#"{"metric":"dense","effects":[{"variant":"a","estimate":0.1},{"variant":"b","estimate":1e-300}],
        "covariance":[[0.02,0.01],[0.01,0.03]]}"#;
    let part = r#"{"metric":"part","accumulate":true,"control":{"variant":"c","n":10,"mean":1.0,"variance":0.3},"treatments":[]}"#;
    let part = message("Grüße \\\"1\\\" / %", 3, part).replacen("\"revision\"", "\"event_id\":\"e1\",\"revision\"", 1);
    let retracted = retraction("Grüße \\\"1\\\" / %", 2, "gone/away");
    let records = vec![
        record(0, 0, &message("Grüße \\\"1\\\" / %", largest, dense)),
        record(0, 1, &part),
        record(0, 2, &retracted),
        record(0, 3, &event("exp-2", 0, "m", &[0.1 + 0.2, -0.0, 1.0 / 3.0])),
    ];
    let (ingest, changes, counts) = worker.write(records).await.unwrap();
    ingest.commit().await.unwrap();
    assert_eq!((counts.accepted, counts.pending, counts.refused), (3, 1, 0));

    let stored = worker.stored(&["Grüße \"1\" / %", "exp-2", "exp-3"]).await;
    assert_eq!(stored.len(), 2);
    for row in &changes.experiments {
        let experiment = &stored[&row.experiment_id];
        assert_eq!((&experiment.latest, &experiment.retractions), (&row.latest, &row.retractions));
        let mut expected: Vec<_> = changes.blocks.iter().filter(|b| b.experiment_id == row.experiment_id).collect();
        let mut found = experiment.blocks.clone();
        expected.sort_by(|a, b| a.block.key.cmp(&b.block.key));
        found.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(found, expected.into_iter().map(|row| row.block.clone()).collect::<Vec<_>>());
    }
    assert_eq!(stored["Grüße \"1\" / %"].latest.revision, largest);
    assert!(stored["Grüße \"1\" / %"].retractions.is_some());
    worker.claims.get_mut(&0).unwrap().next_offset = Some(NextOffset(4));
}

async fn a_tombstone_forgets_all_that_is_stored<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![record(0, 0, &event("exp-1", 5, "m", &[1.0, 2.0]))]).await;
    worker.ingest(vec![record(0, 1, &retraction("exp-1", 6, "other"))]).await;
    worker.ingest(vec![record(0, 2, &tombstone("exp-1"))]).await;
    assert!(worker.stored(&["exp-1"]).await.is_empty());
    for query in ["select cast(count(*) as text) from blocks", "select cast(count(*) as text) from effect_estimates"] {
        assert_eq!(database.count(query).await, 0);
    }
    worker.ingest(vec![record(0, 3, &event("exp-1", 1, "m", &[3.0]))]).await;
    assert_eq!(worker.stored(&["exp-1"]).await["exp-1"].blocks[0].revision, 1);
}

async fn rejected_rows_are_kept_once_though_applied_twice<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0, 1]).await;
    let bad_result = message("exp-1", 1, r#"{"metric":"m","effects":[{"variant":"a","estimate":1,"variance":0}]}"#);
    let records = |partition| vec![record(partition, 0, "not JSON \0 \u{7f}"), record(partition, 1, &bad_result)];
    assert_eq!(worker.ingest(records(0)).await.refused, 1, "the result; the other message has none");
    assert_eq!(worker.ingest(records(1)).await.refused, 1);
    // The offsets were set back by hand: the same records come again.
    database.execute("update partition_progress set next_offset = null").await;
    let mut worker = Worker::claim(&store, &[0, 1]).await;
    worker.ingest(records(0)).await;
    let kept = "select partition_number || ' ' || record_offset || ' ' || coalesce(result_index, -1) || ' ' || reason
                    || ' ' || coalesce(experiment_id, 'none') || ' ' || topic || ' ' || cluster_id
                from rejected_events order by 1";
    let kept: Vec<String> = database.texts(kept).await.into_iter().flatten().collect();
    let expected = [0, 1].map(|partition| {
        [
            format!("{partition} 0 -1 malformed_json none experiments cluster"),
            format!("{partition} 1 0 non_positive_variance exp-1 experiments cluster"),
        ]
    });
    assert_eq!(kept, expected.as_flattened());
    let lengths = database.texts("select distinct length(payload) || ' ' || payload_bytes from rejected_events").await;
    assert_eq!(lengths.len(), 2);
}

async fn records_that_are_applied_again_change_nothing<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let records: Vec<_> = [
        event("exp-1", 1, "m", &[1.0, 2.0]),
        event("exp-2", 1, "m", &[0.5]),
        event("exp-1", 2, "m", &[1.5]),
        retraction("exp-2", 3, "m"),
    ]
    .iter()
    .enumerate()
    .map(|(offset, message)| record(0, offset as i64, message))
    .collect();
    worker.ingest(records.clone()).await;
    let before = contents(database).await;
    let state = store.population_state(&population("m")).await.unwrap();
    database.execute("update partition_progress set next_offset = null").await;
    worker.claims.get_mut(&0).unwrap().next_offset = None;
    worker.ingest(records).await;
    assert_eq!(contents(database).await, before);
    let again = store.population_state(&population("m")).await.unwrap();
    assert_eq!(again.statistics, state.statistics);
}

async fn any_rfc_3339_time_can_be_stored<D: Database>(database: &D) {
    let store = database.open(&settings()).await.unwrap();
    let mut worker = Worker::claim(&store, &[0]).await;
    let times = ["0001-01-01T00:00:00+01:00", "9999-12-31T22:59:59.999999999-01:00", "1969-12-31T23:59:60Z"];
    for (offset, time) in times.into_iter().enumerate() {
        let id = format!("exp-{offset}");
        let message = event(&id, 1, "m", &[1.0]).replace("2026-11-01T12:00:00.123456789+01:00", time);
        let (ingest, changes, _) = worker.write(vec![record(0, offset as i64, &message)]).await.unwrap();
        ingest.commit().await.unwrap();
        worker.claims.get_mut(&0).unwrap().next_offset = Some(NextOffset(offset as i64 + 1));
        let [row] = &changes.new_experiments[..] else { panic!("{time}: one experiment") };
        assert_eq!(worker.stored(&[&id]).await[&id].latest, row.latest);
    }
}

async fn a_batch_logs_what_it_changed_of_each_block<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0, 1]).await;
    let log = "select population_id || case when before is null then '' else ' before' end
                      || case when after is null then '' else ' after' end from block_changes order by change_id";
    let batches: [(&[String], &[&str]); 4] = [
        (&[event("exp-1", 1, "m", &[1.0])], &["m/all/absolute after"]),
        // Of two revisions in one batch only the last is ever seen.
        (&[event("exp-1", 2, "m", &[2.0]), event("exp-1", 3, "m", &[3.0])], &["m/all/absolute before after"]),
        (&[event("exp-2", 1, "n", &[2.0]), retraction("exp-2", 2, "n")], &[]),
        (&[retraction("exp-1", 4, "m")], &["m/all/absolute before"]),
    ];
    for (i, (messages, expected)) in batches.into_iter().enumerate() {
        let records = messages.iter().zip(0..).map(|(message, at)| record(0, 10 * i as i64 + at, message));
        worker.ingest(records.collect()).await;
        assert_eq!(database.texts(log).await.into_iter().flatten().collect::<Vec<_>>(), expected, "{messages:?}");
        database.execute("delete from block_changes").await;
    }
}

async fn an_estimate_that_is_written_again_says_when<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![record(0, 0, &event("exp-1", 1, "m", &[1.0]))]).await;
    database.execute("update effect_estimates set computed_at = '2001-01-01 00:00:00+00:00'").await;
    worker.ingest(vec![record(0, 1, &event("exp-1", 2, "m", &[1.5]))]).await;
    let old = "select cast(count(*) as text) from effect_estimates where cast(computed_at as text) like '2001%'";
    assert_eq!(database.count(old).await, 0);
}
