//! Replays and tombstones: what was refused before an experiment was retracted whole stays out, and no revision says so.

use shrinkd::row::replay::RejectedSelection;
use shrinkd::worker::source::Record;

use super::replay::{keyed, partly_refused, refused, replay, stands, two};
use super::{Worker, event, population, promises, tombstone};
use crate::common::database::Database;

promises! {
    what_was_refused_before_a_tombstone_stays_out,
    what_was_refused_in_the_transaction_of_a_tombstone_stays_out_whichever_partition_it_is_of,
    a_tombstone_that_is_under_way_is_waited_for,
    a_tombstone_is_not_replayed,
    the_last_tombstone_of_an_experiment_is_kept_with_its_time,
    a_tombstone_of_a_holdout_forgets_it_and_its_revisions,
}

async fn what_was_refused_before_a_tombstone_stays_out<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0, 1]).await;
    worker.ingest(vec![refused(1, 50, "exp-3", &event("exp-3", 1, "m", &[1.0]))]).await;
    worker.ingest(vec![partly_refused(0, 0, "exp-1", &two("exp-1", 1, 0.1, 0.3), 1)]).await;
    // The partitions of the topic were added to since: exp-3 is in another one now.
    let records = vec![
        refused(0, 1, "exp-2", &event("exp-2", 1, "m", &[1.0])),
        keyed(0, 2, "exp-1", &tombstone("exp-1")),
        keyed(0, 3, "exp-2", &tombstone("exp-2")),
        keyed(0, 4, "exp-3", &tombstone("exp-3")),
        refused(0, 5, "exp-2", &event("exp-2", 1, "m", &[5.0])),
    ];
    worker.ingest(records).await;
    let said = replay(&store, &RejectedSelection::All).await;
    let whole = |outcome| format!("unsupported_version -> {outcome}");
    let before = whole("retracted");
    assert_eq!(said, [&before, "too_many_variants -> retracted", &before, &whole("accepted")]);
    assert_eq!(replay(&store, &RejectedSelection::Ids(vec![2, 3])).await, said[1..3], "also where it is named");
    let blocks = database.texts("select experiment_id || ' ' || revision from blocks").await;
    assert_eq!(blocks, [Some("exp-2 1".to_owned())]);
    let estimate = database.texts("select experiment_id || ' ' || round(raw_estimate) from effect_estimates").await;
    assert!(estimate[0].as_ref().is_some_and(|row| row.starts_with("exp-2 5")) && estimate.len() == 1, "{estimate:?}");
}

/// Nobody knows which of the two was produced first.
async fn what_was_refused_in_the_transaction_of_a_tombstone_stays_out_whichever_partition_it_is_of<D: Database>(
    database: &D,
) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0, 1]).await;
    let event = |experiment_id: &str| event(experiment_id, 1, "m", &[1.0]);
    let records = vec![
        keyed(0, 0, "exp-1", &tombstone("exp-1")),
        refused(1, 0, "exp-1", &event("exp-1")),
        refused(1, 1, "exp-2", &event("exp-2")),
        // In one partition the offsets decide.
        keyed(0, 1, "exp-2", &tombstone("exp-2")),
        refused(0, 2, "exp-2", &event("exp-2")),
    ];
    worker.ingest(records).await;
    worker.ingest(vec![refused(1, 2, "exp-1", &event("exp-1"))]).await;
    let (out, again) = ("unsupported_version -> retracted", "unsupported_version -> accepted");
    assert_eq!(replay(&store, &RejectedSelection::All).await, [out, out, again, again]);
}

/// It finds nothing of the experiment to lock: only that the replay is alone keeps the two in an order.
async fn a_tombstone_that_is_under_way_is_waited_for<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![refused(0, 0, "exp-1", &event("exp-1", 1, "m", &[1.0]))]).await;
    let (under_way, ..) = worker.write(vec![keyed(0, 1, "exp-1", &tombstone("exp-1"))]).await.unwrap();
    let commit = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        under_way.commit().await.unwrap();
    };
    let (said, ()) = tokio::join!(replay(&store, &RejectedSelection::All), commit);
    assert_eq!(said, ["unsupported_version -> retracted"]);
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 0);
}

async fn a_tombstone_is_not_replayed<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let null = Record { payload: None, payload_bytes: 0, ..refused(0, 1, "exp-1", "") };
    let records =
        vec![refused(0, 0, "exp-1", &tombstone("exp-1")), null, keyed(0, 2, "exp-1", &event("exp-1", 1, "m", &[1.0]))];
    worker.ingest(records).await;
    let before = stands(database).await;
    assert_eq!(replay(&store, &RejectedSelection::All).await, ["unsupported_version -> tombstone"; 2]);
    assert_eq!(stands(database).await, before);
}

async fn the_last_tombstone_of_an_experiment_is_kept_with_its_time<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0, 1, 2]).await;
    worker.ingest(vec![keyed(0, 0, "exp-1", &tombstone("exp-1"))]).await;
    database.execute("update tombstones set retracted_at = '2020-01-01T00:00:00.000000Z'").await;
    worker.ingest(vec![refused(2, 0, "exp-1", &event("exp-1", 1, "m", &[1.0]))]).await;
    worker.ingest(vec![keyed(1, 4, "exp-1", &tombstone("exp-1"))]).await;
    let kept = "select p.partition_number || ' ' || t.record_offset
                from tombstones as t join partition_progress as p on p.partition_id = t.partition_id";
    assert_eq!(database.texts(kept).await, [Some("1 4".to_owned())]);
    // The message came after the first and before the second.
    assert_eq!(replay(&store, &RejectedSelection::All).await, ["unsupported_version -> retracted"]);
}

async fn a_tombstone_of_a_holdout_forgets_it_and_its_revisions<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let holdout =
        event("exp-1", 7, "m", &[1.0, 2.0]).replace(r#""schema_version":1"#, r#""schema_version":2,"kind":"holdout""#);
    worker.ingest(vec![keyed(0, 0, "exp-1", &holdout), keyed(0, 1, "exp-2", &event("exp-2", 1, "m", &[3.0]))]).await;
    let state = store.population_state(&population("m")).await.unwrap();
    assert_eq!((state.statistics.counters.experiments, state.statistics.counters.effects), (1, 1));
    worker.ingest(vec![keyed(0, 2, "exp-1", &tombstone("exp-1"))]).await;
    let after = store.population_state(&population("m")).await.unwrap();
    assert_eq!(
        (&after.statistics.sketches, after.statistics.counters.experiments),
        (&state.statistics.sketches, 1),
        "it was in no population"
    );
    for table in ["experiments", "blocks", "effect_estimates"] {
        let held = database.texts(format!("select experiment_id from {table}").leak()).await;
        assert_eq!(held, [Some("exp-2".to_owned())], "{table}");
    }
    // What comes next is taken as if for the first time, of whichever kind.
    let counts = worker.ingest(vec![keyed(0, 3, "exp-1", &event("exp-1", 1, "m", &[1.0, 2.0]))]).await;
    assert_eq!(counts.accepted, 1);
    assert_eq!(store.population_state(&population("m")).await.unwrap().statistics.counters.effects, 3);
}
