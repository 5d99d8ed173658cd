//! How many populations there may be: the limit is held whoever creates them, and nobody else notices it.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use shrinkd::row::replay::RejectedSelection;
use shrinkd::row::{NewPopulations, StoreSettings};
use shrinkd::store::{Ingest, Store};
use shrinkd::worker::replay::Replay;
use shrinkd::worker::report::PopulationReport;
use shrinkd::worker::source::Record;
use shrinkd_core::{Grouping, KeyRule, Message, PopulationName};
use time::OffsetDateTime;

use super::poison::ingest_within;
use super::publish::end_pass;
use super::refit::{largest, refit};
use super::{Worker, event, message, population, promises, record, retraction, tombstone};
use crate::common::database::{Database, PostgresDatabase, settings};

promises! {
    a_result_that_would_create_a_population_beyond_the_limit_is_refused_and_the_others_are_taken,
    existing_populations_are_not_affected_though_there_are_more_than_the_limit_allows,
    a_stale_or_repeated_result_creates_no_population_and_is_not_refused,
    an_event_whose_labels_would_move_blocks_to_a_population_beyond_the_limit_is_refused_as_a_whole,
    what_was_refused_for_the_limit_is_replayed_once_the_limit_is_raised,
    which_populations_are_admitted_does_not_depend_on_batches,
    two_workers_that_each_bring_the_last_population_do_not_both_create_it,
    workers_that_create_populations_at_once_hold_the_limit,
    the_largest_populations_come_with_the_totals_of_all,
    a_report_follows_what_refits_and_passes_change_and_reads_nothing_else,
}

const REJECTED: &str = "select record_offset || ' ' || coalesce(result_index, -1) || ' ' || reason from rejected_events
                        order by rejected_event_id";

async fn populations(database: &impl Database) -> Vec<String> {
    database.texts("select population_id from populations order by 1").await.into_iter().flatten().collect()
}

async fn rejected(database: &impl Database) -> Vec<String> {
    database.texts(REJECTED).await.into_iter().flatten().collect()
}

/// A result of one effect.
fn result(metric: &str) -> String {
    format!(r#"{{"metric":"{metric}","effects":[{{"variant":"a","estimate":1,"variance":0.5}}]}}"#)
}

/// An event with a result for each metric.
fn results(experiment_id: &str, revision: u64, metrics: &[&str]) -> String {
    message(experiment_id, revision, &metrics.iter().map(|metric| result(metric)).collect::<Vec<_>>().join(","))
}

/// Messages of partition 0 as Kafka brings them, each of them a batch.
fn batches(from: i64, messages: &[String]) -> Vec<Vec<Record>> {
    let keyed = |(message, offset): (&String, i64)| {
        let record = record(0, offset, message);
        let key = match &record.message {
            Ok(Message::Event(event)) => Some(event.experiment_id.clone().into_bytes()),
            _ => None,
        };
        vec![Record { key, ..record }]
    };
    messages.iter().zip(from..).map(keyed).collect()
}

async fn ingest(limit: u64, store: &Store, from: i64, messages: &[String]) {
    ingest_within(limit, &Grouping::default(), store, &[0], batches(from, messages)).await;
}

async fn a_result_that_would_create_a_population_beyond_the_limit_is_refused_and_the_others_are_taken<D: Database>(
    database: &D,
) {
    let store = database.store().await;
    ingest(2, &store, 0, &[results("e1", 1, &["b"]), results("e2", 1, &["c", "b", "a", "d"])]).await;
    assert_eq!(populations(database).await, ["b/all/absolute", "c/all/absolute"]);
    assert_eq!(rejected(database).await, ["1 2 too_many_populations", "1 3 too_many_populations"]);
    let detail = database.texts("select detail from rejected_events order by rejected_event_id limit 1").await;
    let detail = detail[0].as_deref().expect("a sentence");
    assert!(detail.contains("a/all/absolute") && detail.contains("limits.max_populations"), "{detail}");
    let blocks = database.texts("select experiment_id || metric from blocks order by 1").await;
    assert_eq!(blocks.into_iter().flatten().collect::<Vec<_>>(), ["e1b", "e2b", "e2c"]);
}

async fn existing_populations_are_not_affected_though_there_are_more_than_the_limit_allows<D: Database>(database: &D) {
    let store = database.store().await;
    ingest(3, &store, 0, &[results("e1", 1, &["a", "b", "c"])]).await;
    let revised = [results("e1", 2, &["a"]), results("e2", 1, &["b", "c"]), retraction("e1", 3, "c")];
    ingest(1, &store, 1, &revised).await;
    assert_eq!(rejected(database).await, [""; 0]);
    assert_eq!(populations(database).await.len(), 3);
}

async fn a_stale_or_repeated_result_creates_no_population_and_is_not_refused<D: Database>(database: &D) {
    let store = database.store().await;
    ingest(1, &store, 0, &[results("e1", 1, &["a"]), retraction("e1", 5, "b")]).await;
    ingest(1, &store, 2, &[results("e1", 1, &["a"]), results("e1", 4, &["b"])]).await;
    assert_eq!(rejected(database).await, [""; 0], "a repeated result, and one that was retracted since");
    assert_eq!(populations(database).await, ["a/all/absolute"]);
}

async fn an_event_whose_labels_would_move_blocks_to_a_population_beyond_the_limit_is_refused_as_a_whole<D: Database>(
    database: &D,
) {
    let grouping = Grouping { labels: vec!["team".to_owned()], ..Grouping::default() };
    let settings = StoreSettings { grouping: grouping.clone(), ..settings() };
    let store = database.open_to_rebuild(&settings).await;
    let (rebuild, _) = store.begin_rebuild().await.expect("a rebuild of nothing");
    rebuild.commit().await.expect("the settings are replaced");
    let of_ads = |message: String| message.replace("search", "ads");
    let messages = [
        results("e1", 1, &["a", "b"]),
        // It names neither a nor b, and would move both.
        of_ads(results("e1", 2, &[])),
        of_ads(results("e1", 3, &["a"])),
        results("e2", 1, &["a"]),
    ];
    ingest_within(2, &grouping, &store, &[0], batches(0, &messages)).await;
    let kept = ["a/all/absolute/team=search", "b/all/absolute/team=search"];
    assert_eq!(populations(database).await, kept);
    assert_eq!(rejected(database).await, ["1 -1 too_many_populations", "2 -1 too_many_populations"]);
    let experiments = database.texts("select experiment_id || ' ' || revision from experiments order by 1").await;
    assert_eq!(experiments.into_iter().flatten().collect::<Vec<_>>(), ["e1 1", "e2 1"], "nothing of it is taken");

    let moved: Vec<Vec<Record>> = vec![vec![record(0, 4, &of_ads(results("e1", 4, &["a", "b"])))]];
    ingest_within(4, &grouping, &store, &[0], moved).await;
    assert_eq!(populations(database).await.len(), 4, "with room for both they move");
}

/// What a replay under this limit says of each row.
async fn replay(store: &Store, limit: u64, is_dry_run: bool) -> Vec<String> {
    let selection = RejectedSelection::All;
    let begun =
        Replay::begin(store.clone(), Grouping::default(), limit, KeyRule::default(), &selection, is_dry_run).await;
    let mut replay = begun.expect("a replay");
    let mut said = Vec::new();
    while let Some(rows) = replay.next().await.expect("a batch") {
        said.extend(rows.into_iter().map(|row| row.outcome.to_string()));
    }
    said
}

/// The blocks, and what the counters say of their populations.
async fn held(database: &impl Database) -> Vec<Option<String>> {
    let blocks = "select experiment_id || population_id || revision from blocks order by 1";
    let changes = "select population_id || count(before) || ' ' || count(after) from block_changes group by population_id order by 1";
    [database.texts(blocks).await, database.texts(changes).await].concat()
}

async fn what_was_refused_for_the_limit_is_replayed_once_the_limit_is_raised<D: Database>(database: &D) {
    let messages =
        [results("e1", 1, &["a"]), results("e1", 2, &["b", "a"]), results("e2", 1, &["c"]), results("e3", 1, &["a"])];
    let store = database.store().await;
    ingest(1, &store, 0, &messages).await;
    let refused = rejected(database).await;
    assert_eq!(refused, ["1 0 too_many_populations", "2 0 too_many_populations"]);
    assert_eq!(replay(&store, 1, false).await, ["refused: too_many_populations"; 2]);
    assert_eq!(rejected(database).await, refused, "a replay writes no second row");
    assert_eq!(replay(&store, 2, true).await, ["accepted", "refused: too_many_populations"], "there is room for one");
    assert_eq!(populations(database).await, ["a/all/absolute"], "a dry run creates none");
    assert_eq!(replay(&store, 3, false).await, ["accepted"; 2]);
    assert_eq!(replay(&store, 3, false).await, [""; 0]);
    let replayed = held(database).await;

    let other = D::create().await.expect("another database");
    let at_once = other.store().await;
    ingest(3, &at_once, 0, &messages).await;
    assert_eq!(replayed, held(&other).await, "what it would have been without a limit");
    other.remove().await;
}

/// Populations are created, emptied and forgotten in one batch as in several.
async fn which_populations_are_admitted_does_not_depend_on_batches<D: Database>(_: &D) {
    let message = (0..3_u64, 0..4_u64, prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..4), 0..10);
    let message = message.prop_map(|(id, revision, metrics, kind)| match kind {
        0 => tombstone(&format!("e{id}")),
        1 => retraction(&format!("e{id}"), revision, "a"),
        _ => results(&format!("e{id}"), revision, &metrics),
    });
    let messages = prop::collection::vec(message, 1..10);
    let mut runner = TestRunner::deterministic();
    for _ in 0..Config::default().cases.div_ceil(64) {
        let messages = messages.new_tree(&mut runner).expect("messages").current();
        let mut found = Vec::new();
        for size in [1, 3, messages.len()] {
            let database = D::create().await.expect("a database");
            let store = database.store().await;
            let records: Vec<Record> = batches(0, &messages).into_iter().flatten().collect();
            let batches = records.chunks(size).map(<[Record]>::to_vec).collect();
            ingest_within(2, &Grouping::default(), &store, &[0], batches).await;
            let blocks = database.texts("select experiment_id || metric || revision from blocks order by 1").await;
            found.push((populations(&database).await, rejected(&database).await, blocks));
            store.close().await;
            database.remove().await;
        }
        assert!(found.iter().all(|other| *other == found[0]), "{messages:?}: {found:?}");
    }
}

/// A batch of a partition of its own, as far as to ask for room.
async fn ask(store: &Store, metric: &str, limit: u64) -> (Ingest, NewPopulations) {
    let mut ingest = store.begin_ingest(&[]).await.expect("a batch");
    let new = ingest.new_populations(&BTreeSet::from([population(metric)]), limit).await.expect("an answer");
    (ingest, new)
}

async fn create(mut ingest: Ingest, metric: &str) {
    ingest.put_populations(&[population(metric)]).await.expect("it is put in");
    ingest.commit().await.expect("it is committed");
}

async fn two_workers_that_each_bring_the_last_population_do_not_both_create_it<D: Database>(database: &D) {
    let (one, other) = (database.store().await, database.store().await);
    let (first, new) = ask(&one, "a", 1).await;
    assert_eq!((new.names.len(), new.room), (1, 1));
    let second = tokio::spawn(async move { ask(&other, "b", 1).await.1 });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished(), "it waits for the first");
    create(first, "a").await;
    assert_eq!(second.await.expect("an answer").room, 0, "it sees what the first has put in");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_lets_batches_without_a_new_population_pass_those_that_create_one() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    create(ask(&store, "a", 9).await.0, "a").await;
    let (held, _) = ask(&store, "b", 9).await;
    let (passing, new) = ask(&store, "a", 9).await;
    assert!(new.names.is_empty(), "a is there");
    passing.commit().await.expect("nothing holds it");
    // Nor does one wait for which there is no room anyway.
    let (full, new) = ask(&store, "c", 1).await;
    assert_eq!((new.names.len(), new.room), (1, 0));
    drop(full);
    create(held, "b").await;
    store.close().await;
    database.remove().await;
}

/// Four workers, whose batches share experiments, metrics and the room.
async fn workers_that_create_populations_at_once_hold_the_limit<D: Database>(database: &D) {
    let store = database.store().await;
    let workers = (0..4).map(|partition: i32| {
        let store = store.clone();
        let batch = move |offset: i64| {
            let metrics = [format!("own-{partition}-{offset}"), format!("shared-{offset}")];
            let names = [metrics[0].as_str(), metrics[1].as_str()];
            let shared = record(partition, 2 * offset, &results(&format!("e{offset}"), partition as u64, &names));
            let own = event(&format!("own-{partition}-{offset}"), 1, &metrics[1], &[1.0]);
            vec![shared, record(partition, 2 * offset + 1, &own)]
        };
        tokio::spawn(async move {
            ingest_within(20, &Grouping::default(), &store, &[partition], (0..20).map(batch).collect()).await;
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("it ends well");
    }
    assert_eq!(populations(database).await.len(), 20);
    let strangers =
        "select population_id from blocks where population_id not in (select population_id from populations)";
    assert_eq!(database.texts(strangers).await, [], "every block has a population");
    let offsets =
        database.texts("select partition_number || ' ' || next_offset from partition_progress order by 1").await;
    assert_eq!(offsets.into_iter().flatten().collect::<Vec<_>>(), ["0 40", "1 40", "2 40", "3 40"]);
}

async fn a_report_follows_what_refits_and_passes_change_and_reads_nothing_else<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let records =
        ["a", "b", "c"].iter().zip(0..).map(|(metric, i)| record(0, i, &event("e", i as u64, metric, &[1.0])));
    worker.ingest(records.collect()).await;
    let mut report = PopulationReport::default();
    report.update(&store).await.expect("populations");
    assert_eq!((report.largest(9).1.populations, report.largest(9).1.effects), (3, 0), "none is refitted yet");
    // As if it were long ago.
    database.execute("update populations set changed_at = '2001-01-01T00:00:00.000000Z'").await;
    let read = store.populations_since(Some(OffsetDateTime::now_utc() - Duration::from_secs(60))).await.unwrap();
    assert_eq!((read.count, read.populations.len()), (3, 0));

    refit(&store, "b", 1.0, 0.5, true).await;
    let read = store.populations_since(Some(OffsetDateTime::now_utc() - Duration::from_secs(60))).await.unwrap();
    assert_eq!(read.populations.iter().map(|it| &it.population).collect::<Vec<_>>(), [&population("b")]);
    report.update(&store).await.expect("populations");
    assert_eq!(report.largest(1).0[0].effects, 1);
    assert_eq!(report.largest(9).1.effects, 1);
    // What nobody has changed is not read again, also if it is wrong.
    database.execute("update populations set effects = 1000 where population_id like 'a/%'").await;
    report.update(&store).await.expect("populations");
    assert_eq!(report.largest(9).1.effects, 1);
    // What was changed shortly before the last look is: its transaction may have ended after that.
    let shortly = match database.url().starts_with("sqlite") {
        true => {
            "update populations set effects = 7, changed_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-4 seconds')
                 where population_id like 'b/%'"
        }
        false => {
            "update populations set effects = 7, changed_at = now() - interval '4 s' where population_id like 'b/%'"
        }
    };
    database.execute(shortly).await;
    report.update(&store).await.expect("populations");
    assert_eq!(report.largest(9).1.effects, 7);
    // So is what a pass has ended.
    database.execute("update populations set changed_at = '2001-01-01T00:00:00.000000Z'").await;
    let pass = store.begin_passes(&[population("b")], "a").await.unwrap().pop().expect("it is published");
    end_pass(&store, &pass, false, None).await;
    let read = store.populations_since(Some(OffsetDateTime::now_utc() - Duration::from_secs(60))).await.unwrap();
    assert_eq!(read.populations.iter().map(|it| &it.population).collect::<Vec<_>>(), [&population("b")]);
    // But where a population is gone, everything is.
    database.execute("delete from populations where population_id like 'c/%'").await;
    report.update(&store).await.expect("populations");
    assert_eq!((report.largest(9).1.populations, report.largest(9).1.effects), (2, 1007));
}

async fn the_largest_populations_come_with_the_totals_of_all<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let events =
        [("e1", "b", vec![1.0; 3]), ("e2", "b", vec![1.0]), ("e3", "a", vec![1.0; 2]), ("e4", "c", vec![1.0; 2])];
    let records = events
        .iter()
        .zip(0..)
        .map(|((id, metric, estimates), offset)| record(0, offset, &event(id, 1, metric, estimates)));
    worker.ingest(records.collect()).await;
    for metric in ["a", "b", "c"] {
        refit(&store, metric, 1.0, 0.5, false).await;
    }
    let (largest, all) = largest(&store, 2).await;
    let largest: Vec<(PopulationName, u64)> =
        largest.into_iter().map(|current| (current.population, current.effects)).collect();
    assert_eq!(largest, [(population("a"), 2), (population("b"), 4)], "of equal ones the first");
    assert_eq!((all.populations, all.experiments, all.effects), (3, 4, 8));
    let all = store.current_populations().await.expect("populations");
    let names: Vec<PopulationName> = all.into_iter().map(|current| current.population).collect();
    assert_eq!(names, [population("a"), population("b"), population("c")]);
}
