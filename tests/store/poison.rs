//! Poison: what cannot be taken stops nothing and is kept as it came. Through the ingest loop of a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shrinkd::config::{CatchUpConfig, DeadLettersConfig};
use shrinkd::store::Store;
use shrinkd::stream::NextOffset;
use shrinkd::telemetry::Telemetry;
use shrinkd::worker::ingest::{IngestLimits, IngestLoop};
use shrinkd::worker::retry::Retry;
use shrinkd::worker::source::{Batch, Record, SourceEvent};
use shrinkd_core::{Grouping, decode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Worker, event, message, promises, record};
use crate::common::database::Database;

promises! {
    poison_in_any_places_of_a_batch_stops_no_partition_and_is_kept_as_it_came,
    any_refused_results_of_an_event_leave_its_good_ones_standing,
    a_message_of_many_refused_results_is_kept_once,
}

/// Messages that no version takes, among them what a text column could not hold.
const POISON: [&[u8]; 5] =
    [b"\xff\xfe\0", b"", b"{\"schema_version\":2}", b"[[[[[[", b"{\"schema_version\":1,\"experiment_id\":\"\\u0000\"}"];

fn bytes_record(partition: i32, offset: i64, bytes: &[u8]) -> Record {
    let (payload, message) = (Some(bytes.to_vec()), decode(bytes));
    Record { payload, payload_bytes: bytes.len(), message, ..record(partition, offset, "") }
}

/// Has the ingest loop of a worker that owns these partitions take batch after batch, to the end.
async fn ingest(store: &Store, partitions: &[i32], batches: Vec<Vec<Record>>) {
    ingest_within(u64::MAX, &Grouping::default(), store, partitions, batches).await;
}

/// The same, with a limit of the populations.
pub(super) async fn ingest_within(
    max_populations: u64,
    grouping: &Grouping,
    store: &Store,
    partitions: &[i32],
    batches: Vec<Vec<Record>>,
) {
    let claims = Worker::claim(store, partitions).await.claims;
    let (sender, events) = mpsc::channel(batches.len() + 2);
    sender.try_send(SourceEvent::Assigned(claims.into_values().collect())).expect("room");
    for records in batches {
        let ends: BTreeMap<i32, NextOffset> =
            records.iter().map(|record| (record.partition, NextOffset(record.offset + 1))).collect();
        let batch = Batch { records, ends: ends.into_iter().collect() };
        sender.try_send(SourceEvent::Batch(batch)).expect("room");
    }
    sender.try_send(SourceEvent::Ended).expect("room");
    let ingest = IngestLoop::new(
        store.clone(),
        grouping.clone(),
        IngestLimits {
            max_populations,
            dead_letters: DeadLettersConfig::default(),
            catch_up: CatchUpConfig::default(),
        },
        None,
        Telemetry::default(),
        Retry::new(Telemetry::default(), CancellationToken::new(), Duration::from_secs(10)),
    );
    ingest.run(events).await.expect("the loop ends well");
}

/// Every subset of the five places, the poisons in turn.
async fn poison_in_any_places_of_a_batch_stops_no_partition_and_is_kept_as_it_came<D: Database>(database: &D) {
    let store = database.store().await;
    let (mut good, mut poisoned) = (Vec::new(), Vec::new());
    let batches = (0..32_i64).map(|places| {
        let record = |place: i64| {
            let (partition, offset) = ((place % 2) as i32, 5 * places + place);
            if places >> place & 1 == 0 {
                good.push(format!("exp-{offset:03}"));
                return record(partition, offset, &event(&format!("exp-{offset:03}"), 1, "m", &[1.0, 2.0]));
            }
            let bytes = POISON[poisoned.len() % POISON.len()];
            poisoned.push((format!("experiments/{partition}/{offset:03}"), bytes));
            bytes_record(partition, offset, bytes)
        };
        (0..5).map(record).collect()
    });
    let batches: Vec<Vec<Record>> = batches.collect();
    ingest(&store, &[0, 1], batches).await;

    let next = "select partition_number || ' ' || next_offset from partition_progress order by partition_number";
    assert_eq!(database.texts(next).await, [Some("0 160".to_owned()), Some("1 159".to_owned())]);
    let taken = database.texts("select experiment_id from blocks order by experiment_id").await;
    assert_eq!(taken.into_iter().flatten().collect::<Vec<_>>(), good);
    poisoned.sort();
    let places = "select topic || '/' || partition_number || '/' || substr('00' || record_offset, length('00' || record_offset) - 2)
                  from rejected_events order by partition_number, record_offset";
    let payloads = "select payload from rejected_events order by partition_number, record_offset";
    let found: Vec<_> = database.texts(places).await.into_iter().zip(database.bytes(payloads).await).collect();
    let expected: Vec<_> = poisoned.into_iter().map(|(place, bytes)| (Some(place), Some(bytes.to_vec()))).collect();
    assert_eq!(found, expected);
}

/// Every subset of the four results of an event.
async fn any_refused_results_of_an_event_leave_its_good_ones_standing<D: Database>(database: &D) {
    let store = database.store().await;
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    let mut texts = Vec::new();
    for bad in 0..16 {
        let result = |place: i32| {
            let is_bad = bad >> place & 1 == 1;
            let entry = format!("exp-{bad:02} m{place}");
            if is_bad {
                refused.push(format!("exp-{bad:02} {place}"))
            } else {
                good.push(entry)
            }
            let variance = if is_bad { "0" } else { "1" };
            format!(r#"{{"metric":"m{place}","effects":[{{"variant":"a","estimate":1,"variance":{variance}}}]}}"#)
        };
        let results: Vec<String> = (0..4).map(result).collect();
        texts.push(message(&format!("exp-{bad:02}"), 1, &results.join(",")));
    }
    let records = texts.iter().enumerate().map(|(offset, text)| record(0, offset as i64, text)).collect();
    ingest(&store, &[0], vec![records]).await;

    let blocks =
        database.texts("select experiment_id || ' ' || metric from blocks order by experiment_id, metric").await;
    assert_eq!(blocks.into_iter().flatten().collect::<Vec<_>>(), good);
    let rows = "select experiment_id || ' ' || result_index from rejected_events order by experiment_id, result_index";
    assert_eq!(database.texts(rows).await.into_iter().flatten().collect::<Vec<_>>(), refused);
    let payloads = database.bytes("select payload from rejected_events order by experiment_id, result_index").await;
    let mut kept = BTreeSet::new();
    for (row, payload) in refused.iter().zip(payloads) {
        let offset: usize = row[4..6].parse().unwrap();
        let own = kept.insert(offset).then(|| texts[offset].clone().into_bytes());
        assert_eq!(payload, own, "the first row of a message has it: {row}");
    }
}

/// With each of them it would grow a thousandfold.
async fn a_message_of_many_refused_results_is_kept_once<D: Database>(database: &D) {
    let store = database.store().await;
    let name = "é".repeat(250);
    let result =
        |i: usize| format!(r#"{{"metric":"{name}{i}","effects":[{{"variant":"a","estimate":1,"variance":0}}]}}"#);
    let good = r#"{"metric":"m","effects":[{"variant":"a","estimate":1,"variance":1}]}"#.to_owned();
    let results: Vec<String> = (0..250).map(result).chain([good]).collect();
    let text = message("exp-1", 1, &results.join(","));
    ingest(&store, &[0], vec![vec![record(0, 0, &text)]]).await;
    let kept =
        "select count(*) || ' ' || count(distinct result_index) || ' ' || count(payload) || ' ' || sum(length(payload))
                from rejected_events";
    assert_eq!(database.texts(kept).await, [Some(format!("250 250 1 {}", text.len()))]);
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 1);
}
