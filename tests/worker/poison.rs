//! Poison among good messages: a batch folds to what it would have without it, but for the rows that say so.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shrinkd::worker::admission::Admission;
use shrinkd::worker::fold::{Folded, fold};
use shrinkd::worker::source::Record;
use shrinkd_core::{Counts, Grouping, decode};

fn record(offset: usize, bytes: Vec<u8>) -> Record {
    let message = decode(&bytes);
    let payload_bytes = bytes.len();
    Record {
        partition: 3,
        offset: offset as i64,
        produced_at: None,
        key: None,
        payload: Some(bytes),
        payload_bytes,
        message,
    }
}

fn folded(records: &[Record]) -> Folded {
    fold(records, BTreeMap::new(), &Grouping::default(), Admission::default(), |_| Some(7))
        .expect("input causes no error")
}

/// A message of few experiments, revisions and metrics, or its withdrawal.
fn good() -> impl Strategy<Value = String> {
    (0..3, 0..4, prop::collection::vec((0..3, -3.0..3.0), 0..4), 0..12).prop_map(|(id, revision, results, kind)| {
        if kind == 0 {
            return format!(r#"{{"schema_version":1,"experiment_id":"e{id}","retracted":true}}"#);
        }
        let result = |(metric, estimate): (i32, f64)| {
            format!(r#"{{"metric":"m{metric}","effects":[{{"variant":"a","estimate":{estimate},"variance":1}}]}}"#)
        };
        let results: Vec<String> = results.into_iter().map(result).collect();
        format!(
            r#"{{"schema_version":1,"experiment_id":"e{id}","revision":{revision},"completed_at":"2026-11-01T12:00:00Z","results":[{}]}}"#,
            results.join(",")
        )
    })
}

/// Bytes that are no message: a good one cut short, random ones, or another version.
fn poison() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (good(), any::<prop::sample::Index>()).prop_map(|(text, at)| text.as_bytes()[..at.index(text.len())].to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
        good().prop_map(|text| text.replacen(":1,", ":9,", 1).into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_batch_folds_as_if_its_poison_were_not_there_and_keeps_it(
        batch in prop::collection::vec(prop_oneof![3 => good().prop_map(Ok), 1 => poison().prop_map(Err)], 0..10)
    ) {
        let bytes = |message: Result<String, Vec<u8>>| message.map_or_else(|poison| poison, String::into_bytes);
        let is_poison: Vec<bool> = batch.iter().map(Result::is_err).collect();
        let records: Vec<Record> =
            batch.into_iter().enumerate().map(|(offset, message)| record(offset, bytes(message))).collect();
        let clean: Vec<Record> =
            records.iter().zip(&is_poison).filter(|(_, is_poison)| !**is_poison).map(|(record, _)| record.clone()).collect();
        let Folded { changes: with, counts, .. } = folded(&records);
        let Folded { changes: without, counts: clean_counts, .. } = folded(&clean);
        prop_assert_eq!(with.experiments, without.experiments);
        prop_assert_eq!(with.blocks, without.blocks);
        prop_assert_eq!(with.block_changes, without.block_changes);
        prop_assert_eq!(with.changed, without.changed);
        prop_assert_eq!(Counts { messages: counts.messages, ..clean_counts }, counts);

        let kept: Vec<_> = with.rejected.iter().filter(|row| row.result_index.is_none()).collect();
        let poison: Vec<&Record> =
            records.iter().zip(&is_poison).filter(|(_, is_poison)| **is_poison).map(|(record, _)| record).collect();
        prop_assert_eq!(kept.len(), poison.len());
        for (row, record) in kept.into_iter().zip(poison) {
            prop_assert_eq!((row.partition_id, row.offset), (7, record.offset));
            prop_assert_eq!(&row.payload, &record.payload);
            prop_assert_eq!(Some(&row.refusal), record.message.as_ref().err());
        }
    }
}
