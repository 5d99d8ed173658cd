//! What replaying refused messages does, beside all that came and comes in the ordinary way.

use std::collections::BTreeMap;

use shrinkd::row::replay::RejectedSelection;
use shrinkd::store::Store;
use shrinkd::stream::{Claim, Topic};
use shrinkd::worker::replay::{Replay, ReplayError};
use shrinkd::worker::source::Record;
use shrinkd_core::{Grouping, KeyRule, Message, Reason, Refusal};

use super::ingest::contents;
use super::{Worker, event, message, population, promises, record, retraction, tombstone};
use crate::common::database::Database;

promises! {
    a_replayed_message_leaves_what_it_would_have_left_at_once,
    results_that_were_taken_of_the_same_message_are_not_doubled,
    a_message_is_found_by_any_of_its_rows_though_the_first_alone_keeps_it,
    a_second_replay_changes_nothing,
    a_replay_that_ends_early_goes_on_where_it_was,
    a_larger_revision_that_came_meanwhile_stands,
    a_message_of_which_only_the_beginning_was_kept_is_named,
    what_is_refused_again_keeps_its_row_and_says_why_now,
    a_message_is_held_against_its_key_where_it_came_by_kafka_alone,
    a_message_is_replayed_in_its_frame_and_under_the_rule_for_keys_as_it_is_now,
    messages_are_replayed_in_the_order_in_which_they_were_refused,
    only_what_is_selected_is_replayed,
    a_dry_run_says_what_would_come_of_it_and_changes_nothing,
    a_later_replay_shuts_an_earlier_one_out,
    a_replay_beside_workers_leaves_what_one_worker_would_have_left,
}

/// A message as Kafka brings it.
pub fn keyed(partition: i32, offset: i64, experiment_id: &str, message: &str) -> Record {
    Record { key: Some(experiment_id.as_bytes().to_vec()), ..record(partition, offset, message) }
}

/// The same, refused whole by a build that does not know its version.
pub fn refused(partition: i32, offset: i64, experiment_id: &str, message: &str) -> Record {
    let refusal = Refusal::new(Reason::UnsupportedVersion, "an older build");
    Record { message: Err(refusal), ..keyed(partition, offset, experiment_id, message) }
}

/// The same, with one result refused by a build that has other limits.
pub fn partly_refused(partition: i32, offset: i64, experiment_id: &str, message: &str, result: usize) -> Record {
    let mut record = keyed(partition, offset, experiment_id, message);
    let Ok(Message::Event(event)) = &mut record.message else { panic!("an event") };
    event.results[result] = Err(Refusal::new(Reason::TooManyVariants, "an older build"));
    record
}

async fn begin(store: &Store, selection: &RejectedSelection, is_dry_run: bool) -> Replay {
    Replay::begin(store.clone(), Grouping::default(), u64::MAX, KeyRule::default(), selection, is_dry_run)
        .await
        .expect("a replay")
}

async fn a_message_is_replayed_in_its_frame_and_under_the_rule_for_keys_as_it_is_now<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let framed = |offset, experiment_id: &str| {
        let payload = [b"\0\0\0\0\x07", event(experiment_id, 1, "m", &[1.0]).as_bytes()].concat();
        let (payload_bytes, payload) = (payload.len(), Some(payload));
        Record { key: None, payload, payload_bytes, ..refused(0, offset, experiment_id, "") }
    };
    worker.ingest(vec![framed(0, "exp-1"), framed(1, "exp-2")]).await;
    assert_eq!(
        replay(&store, &RejectedSelection::Ids(vec![1])).await,
        ["unsupported_version -> refused: key_mismatch"]
    );
    let all = RejectedSelection::All;
    let replay = Replay::begin(store.clone(), Grouping::default(), u64::MAX, KeyRule::Any, &all, false).await;
    let came = said(replay.expect("a replay")).await;
    assert_eq!(came, ["key_mismatch -> accepted", "unsupported_version -> accepted"]);
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 2);
}

/// Replays, and says what came of each row.
pub async fn replay(store: &Store, selection: &RejectedSelection) -> Vec<String> {
    said(begin(store, selection, false).await).await
}

async fn said(mut replay: Replay) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(rows) = replay.next().await.expect("a batch") {
        said.extend(rows.into_iter().map(|row| format!("{} -> {}", row.reason, row.outcome)));
    }
    said
}

/// What is kept of each refusal.
async fn kept(database: &impl Database) -> Vec<String> {
    let rows =
        "select reason || ' -> ' || coalesce(replay_outcome, '') || case when replayed_at is null then '?' else '' end
                from rejected_events order by rejected_event_id";
    database.texts(rows).await.into_iter().flatten().collect()
}

/// What stands: cells bit for bit, counts, blocks, estimates.
pub async fn stands<D: Database>(database: &D) -> (String, Vec<Option<String>>) {
    let state = database.store().await.population_state(&population("m")).await.expect("its cells");
    let cells = format!(
        "{:?} {} {}",
        state.statistics.sketches, state.statistics.counters.experiments, state.statistics.counters.effects
    );
    let mut rows = Vec::new();
    for query in [
        "select experiment_id || ' ' || metric || ' ' || revision || ' ' || length(block) from blocks order by 1",
        "select experiment_id || ' ' || revision || ' ' || coalesce(length(retractions), 0) from experiments order by 1",
        "select experiment_id || ' ' || variant || ' ' || raw_estimate || ' ' || fit_id from effect_estimates order by 1",
    ] {
        rows.extend(database.texts(query).await);
    }
    (cells, rows)
}

/// Two results of one experiment.
pub fn two(experiment_id: &str, revision: u64, m: f64, other: f64) -> String {
    let result = |metric, estimate| {
        format!(r#"{{"metric":"{metric}","effects":[{{"variant":"a","estimate":{estimate},"variance":0.5}}]}}"#)
    };
    message(experiment_id, revision, &format!("{},{}", result("m", m), result("other", other)))
}

async fn a_replayed_message_leaves_what_it_would_have_left_at_once<D: Database>(database: &D) {
    let messages = [
        ("exp-1", event("exp-1", 1, "m", &[1.0, 2.0])),
        ("exp-2", two("exp-2", 1, 0.1, 0.3)),
        ("exp-1", event("exp-1", 2, "m", &[1.0 / 3.0, 2.5])),
        ("exp-3", retraction("exp-3", 7, "m")),
        ("exp-3", event("exp-3", 4, "m", &[9.0])),
        ("exp-4", event("exp-4", 1, "m", &[-0.7])),
    ];
    let at = |i: usize| (i as i64, messages[i].0, messages[i].1.as_str());
    let good = |i| keyed(0, at(i).0, at(i).1, at(i).2);
    let bad = |i| refused(0, at(i).0, at(i).1, at(i).2);
    let expected = D::create().await.expect("a database");
    Worker::claim(&expected.store().await, &[0]).await.ingest((0..6).map(good).collect()).await;

    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![good(0), partly_refused(0, 1, at(1).1, at(1).2, 0), bad(2), bad(3), good(4), bad(5)]).await;
    assert_ne!(stands(database).await, stands(&expected).await);
    let said = replay(&store, &RejectedSelection::All).await;
    let whole = "unsupported_version -> accepted";
    assert_eq!(said, ["too_many_variants -> accepted", whole, whole, whole]);
    assert_eq!(kept(database).await, said);
    assert_eq!(stands(database).await, stands(&expected).await);
    expected.remove().await;
}

async fn results_that_were_taken_of_the_same_message_are_not_doubled<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![partly_refused(0, 0, "exp-1", &two("exp-1", 1, 0.1, 0.3), 1)]).await;
    let before = store.population_state(&population("m")).await.unwrap();
    assert_eq!(replay(&store, &RejectedSelection::All).await, ["too_many_variants -> accepted"]);
    let after = store.population_state(&population("m")).await.unwrap();
    assert_eq!(after.statistics, before.statistics);
    assert_eq!(store.population_state(&population("other")).await.unwrap().statistics.counters.experiments, 1);
}

async fn a_message_is_found_by_any_of_its_rows_though_the_first_alone_keeps_it<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let mut record = partly_refused(0, 0, "exp-1", &two("exp-1", 1, 0.1, 0.3), 0);
    let Ok(Message::Event(event)) = &mut record.message else { panic!("an event") };
    event.results[1] = Err(Refusal::new(Reason::TooManyVariants, "an older build"));
    worker.ingest(vec![record]).await;
    let rows = "select result_index || ' ' || (payload is null) from rejected_events order by rejected_event_id";
    let has_none: Vec<bool> = database
        .texts(rows)
        .await
        .into_iter()
        .flatten()
        .map(|row| row.ends_with('1') || row.ends_with("true"))
        .collect();
    assert_eq!(has_none, [false, true]);
    let last = database.count("select cast(max(rejected_event_id) as text) from rejected_events").await;
    let accepted = "too_many_variants -> accepted";
    assert_eq!(replay(&store, &RejectedSelection::Ids(vec![last])).await, [accepted, accepted]);
    for metric in ["m", "other"] {
        assert_eq!(
            store.population_state(&population(metric)).await.unwrap().statistics.counters.experiments,
            1,
            "{metric}"
        );
    }
}

async fn a_second_replay_changes_nothing<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let part = r#"{"metric":"part","accumulate":true,"control":{"variant":"c","n":10,"mean":1.0,"variance":0.3},"treatments":[]}"#;
    let part = message("exp-2", 1, part).replacen("\"revision\"", "\"event_id\":\"e1\",\"revision\"", 1);
    let records = vec![
        refused(0, 0, "exp-1", &event("exp-1", 1, "m", &[1.0])),
        refused(0, 1, "exp-2", &part),
        keyed(0, 2, "exp-3", "not JSON"),
    ];
    worker.ingest(records).await;
    let first = [
        "unsupported_version -> accepted",
        "unsupported_version -> pending",
        "malformed_json -> refused: malformed_json",
    ];
    assert_eq!(replay(&store, &RejectedSelection::All).await, first);
    let before = (contents(database).await, stands(database).await);
    assert_eq!(replay(&store, &RejectedSelection::All).await, first[2..], "what was taken is not taken again");
    let ids = RejectedSelection::Ids(vec![1, 2]);
    let again = ["unsupported_version -> duplicate"; 2];
    assert_eq!(replay(&store, &ids).await, again);
    assert_eq!(kept(database).await, first, "a row says what came of it first");
    // But for the replays' own partition, which counts them.
    let without_progress = |contents: Vec<Option<String>>| -> Vec<Option<String>> {
        contents.into_iter().filter(|row| row.as_ref().is_none_or(|row| !row.starts_with("rejected_events"))).collect()
    };
    assert_eq!(without_progress(contents(database).await), without_progress(before.0));
    assert_eq!(stands(database).await, before.1);
}

async fn a_replay_that_ends_early_goes_on_where_it_was<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let id = |i: i64| format!("exp-{i:04}");
    let records = |is_refused: bool| -> Vec<Record> {
        let make = if is_refused { refused } else { keyed };
        (0..700).map(|i| make(0, i, &id(i), &event(&id(i), 1, "m", &[i as f64 / 7.0]))).collect()
    };
    worker.ingest(records(true)).await;
    let mut early = begin(&store, &RejectedSelection::All, false).await;
    let taken = early.next().await.unwrap().expect("a batch").len();
    assert!((1..700).contains(&taken) && early.left() == 700 - taken, "{taken}");
    drop(early);
    assert_eq!(replay(&store, &RejectedSelection::All).await.len(), 700 - taken);
    let expected = D::create().await.expect("a database");
    Worker::claim(&expected.store().await, &[0]).await.ingest(records(false)).await;
    assert_eq!(stands(database).await, stands(&expected).await);
    expected.remove().await;
}

async fn a_larger_revision_that_came_meanwhile_stands<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let records = vec![
        refused(0, 0, "exp-1", &event("exp-1", 1, "m", &[1.0])),
        refused(0, 1, "exp-2", &two("exp-2", 1, 0.1, 0.3)),
        keyed(0, 2, "exp-1", &event("exp-1", 2, "m", &[2.0])),
        keyed(0, 3, "exp-2", &event("exp-2", 2, "m", &[4.0])),
    ];
    worker.ingest(records).await;
    let said = replay(&store, &RejectedSelection::All).await;
    assert_eq!(
        said,
        ["unsupported_version -> stale", "unsupported_version -> accepted"],
        "metric `other` was not revised"
    );
    let blocks = "select experiment_id || ' ' || metric || ' ' || revision from blocks order by 1";
    let blocks: Vec<String> = database.texts(blocks).await.into_iter().flatten().collect();
    assert_eq!(blocks, ["exp-1 m 2", "exp-2 m 2", "exp-2 other 1"]);
}

async fn a_message_of_which_only_the_beginning_was_kept_is_named<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let whole = event("exp-1", 1, "m", &[1.0]);
    let large = Record { payload_bytes: 2 << 20, ..refused(0, 0, "exp-1", &whole) };
    worker.ingest(vec![large]).await;
    assert_eq!(replay(&store, &RejectedSelection::All).await, ["unsupported_version -> refused: too_large"]);
    let detail = database.texts("select detail from rejected_events").await.remove(0).unwrap();
    assert!(detail.contains("2097152 bytes") && detail.contains(&whole.len().to_string()), "{detail}");
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 0);
}

async fn what_is_refused_again_keeps_its_row_and_says_why_now<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let bad = r#"{"metric":"bad","effects":[{"variant":"a","estimate":1,"variance":0}]}"#;
    let good = r#"{"metric":"m","effects":[{"variant":"a","estimate":1,"variance":1}]}"#;
    let mixed = message("exp-2", 1, &format!("{bad},{good},{{\"metric\":\"none\",\"effects\":[]}}"));
    worker.ingest(vec![refused(0, 0, "exp-1", "not JSON"), refused(0, 1, "exp-2", &mixed)]).await;
    let said = replay(&store, &RejectedSelection::All).await;
    assert_eq!(
        said,
        ["unsupported_version -> refused: malformed_json", "unsupported_version -> refused: non_positive_variance"]
    );
    let rows = database.texts("select reason || ' ' || detail from rejected_events order by rejected_event_id").await;
    let rows: Vec<String> = rows.into_iter().flatten().collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0].starts_with("malformed_json the message is not JSON"), "{rows:?}");
    assert!(rows[1].starts_with("non_positive_variance $.results[0]"), "{rows:?}");
    assert!(rows[1].ends_with("(1 more of its results are refused)"), "{rows:?}");
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 1, "the good one of its results");
}

async fn a_message_is_held_against_its_key_where_it_came_by_kafka_alone<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![refused(0, 0, "exp-7", &event("exp-1", 1, "m", &[1.0]))]).await;
    let file = Topic { cluster_id: "file".to_owned(), name: "/events".to_owned(), id: String::new(), partitions: 1 };
    let claims = store.claim(&file, &[0], "worker").await.unwrap();
    let claims: BTreeMap<i32, Claim> = claims.into_iter().map(|claim| (claim.partition, claim)).collect();
    let mut of_file = Worker { store: store.clone(), claims };
    let line = Record { key: None, ..refused(0, 0, "", &event("exp-2", 1, "m", &[1.0])) };
    of_file.ingest(vec![line]).await;
    let said = replay(&store, &RejectedSelection::All).await;
    assert_eq!(said, ["unsupported_version -> refused: key_mismatch", "unsupported_version -> accepted"]);
}

async fn messages_are_replayed_in_the_order_in_which_they_were_refused<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let records = [3.0, 4.0].map(|m| refused(0, m as i64, "exp-1", &event("exp-1", 1, "m", &[m])));
    worker.ingest(records.to_vec()).await;
    let said = replay(&store, &RejectedSelection::All).await;
    assert_eq!(said, ["unsupported_version -> accepted", "unsupported_version -> refused: revision_conflict"]);
    let estimate = database.numbers("select raw_estimate from effect_estimates").await;
    assert_eq!(estimate, [[Some(3.0)]]);
}

async fn only_what_is_selected_is_replayed<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let both = {
        let mut record = partly_refused(0, 0, "exp-1", &two("exp-1", 1, 0.1, 0.3), 1);
        let Ok(Message::Event(event)) = &mut record.message else { panic!("an event") };
        event.results[0] = Err(Refusal::new(Reason::NonFinite, "an older build"));
        record
    };
    let records = vec![
        both,
        refused(0, 1, "exp-2", &event("exp-2", 1, "m", &[1.0])),
        refused(0, 2, "exp-3", &event("exp-3", 1, "m", &[1.0])),
    ];
    worker.ingest(records).await;
    let said = replay(&store, &RejectedSelection::Reasons(vec![Reason::NonFinite, Reason::NonPositiveMean])).await;
    assert_eq!(
        said,
        ["non_finite -> accepted", "too_many_variants -> accepted"],
        "a message is replayed whole, and once"
    );
    assert_eq!(replay(&store, &RejectedSelection::Ids(vec![4])).await, ["unsupported_version -> accepted"]);
    assert_eq!(kept(database).await[2], "unsupported_version -> ?");
    let missing = RejectedSelection::Ids(vec![3, 99]);
    let begun = Replay::begin(store.clone(), Grouping::default(), u64::MAX, KeyRule::default(), &missing, false).await;
    assert!(matches!(begun, Err(ReplayError::NoSuchRow(99))));
    assert_eq!(kept(database).await[2], "unsupported_version -> ?");
}

async fn a_dry_run_says_what_would_come_of_it_and_changes_nothing<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let records = vec![
        refused(0, 0, "exp-1", &event("exp-1", 1, "m", &[1.0])),
        keyed(0, 1, "exp-2", "not JSON"),
        refused(0, 2, "exp-3", &event("exp-3", 1, "m", &[1.0])),
        keyed(0, 3, "exp-3", &tombstone("exp-3")),
    ];
    worker.ingest(records).await;
    let before = (contents(database).await, kept(database).await);
    let dry = said(begin(&store, &RejectedSelection::All, true).await).await;
    assert_eq!((contents(database).await, kept(database).await), before);
    assert_eq!(dry, replay(&store, &RejectedSelection::All).await);
    assert_eq!(dry[0], "unsupported_version -> accepted");
}

async fn a_later_replay_shuts_an_earlier_one_out<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![refused(0, 0, "exp-1", &event("exp-1", 1, "m", &[1.0]))]).await;
    let mut earlier = begin(&store, &RejectedSelection::All, false).await;
    let later = begin(&store, &RejectedSelection::All, false).await;
    assert!(matches!(earlier.next().await, Err(ReplayError::Overtaken)));
    assert_eq!(said(later).await, ["unsupported_version -> accepted"]);
    assert_eq!(kept(database).await, ["unsupported_version -> accepted"]);
}

/// Of 1,200 refused messages, workers of two partitions bring newer revisions of a third and retract another third, and are
/// half through with it when all are replayed.
async fn a_replay_beside_workers_leaves_what_one_worker_would_have_left<D: Database>(database: &D) {
    let id = |i: i64| format!("exp-{i:04}");
    let first = |make: fn(i32, i64, &str, &str) -> Record| -> Vec<Record> {
        (0..1200).map(|i| make((i % 2) as i32, i, &id(i), &event(&id(i), 1, "m", &[i as f64 / 11.0]))).collect()
    };
    let later = |partition: i32| -> Vec<Vec<Record>> {
        let later = (0..1200).filter(|i| i % 2 == i64::from(partition)).filter_map(|i| {
            let message = match i % 3 {
                0 => event(&id(i), 2, "m", &[-i as f64 / 13.0, 1.0]),
                1 => tombstone(&id(i)),
                _ => return None,
            };
            Some(keyed(partition, 2000 + i, &id(i), &message))
        });
        later.collect::<Vec<_>>().chunks(7).map(<[Record]>::to_vec).collect()
    };
    let expected = D::create().await.expect("a database");
    let mut alone = Worker::claim(&expected.store().await, &[0, 1]).await;
    alone.ingest(first(keyed)).await;
    for batch in [later(0), later(1)].into_iter().flatten() {
        alone.ingest(batch).await;
    }

    let store = database.store().await;
    Worker::claim(&store, &[0, 1]).await.ingest(first(refused)).await;
    let mut workers = [Worker::claim(&store, &[0]).await, Worker::claim(&store, &[1]).await];
    let mut batches = [later(0), later(1)].map(Vec::into_iter);
    for (worker, batches) in workers.iter_mut().zip(&mut batches) {
        for batch in batches.take(30) {
            worker.ingest(batch).await;
        }
    }
    let ([first, second], [rest_of_first, rest_of_second]) = (workers, batches);
    let go_on = async |mut worker: Worker, batches: std::vec::IntoIter<Vec<Record>>| {
        assert!(batches.len() > 20, "there is work left");
        for batch in batches {
            worker.ingest(batch).await;
        }
    };
    let replaying = replay(&store, &RejectedSelection::All);
    let (said, ..) = tokio::join!(replaying, go_on(first, rest_of_first), go_on(second, rest_of_second));
    assert_eq!(said.len(), 1200);
    let accepted = said.iter().filter(|said| said.ends_with("accepted")).count();
    assert!((400..1200).contains(&accepted), "{accepted}: some, but not all, are news");
    assert_eq!(stands(database).await, stands(&expected).await);
    expected.remove().await;
}
