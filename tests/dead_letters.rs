//! When a partition is halted for its dead letters, and what of the batch is committed before.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use shrinkd::config::DeadLettersConfig;
use shrinkd::stream::NextOffset;
use shrinkd::worker::dead_letters::DeadLetters;
use shrinkd::worker::source::{Batch, Record};
use shrinkd_core::decode;

const EVENT: &str = r#"{"schema_version":1,"experiment_id":"e","revision":1,"completed_at":"2026-01-01T00:00:00Z","results":[RESULTS]}"#;
const GOOD: &str = r#"{"metric":"m","effects":[{"variant":"b","estimate":0.1,"variance":0.5}]}"#;
const BAD: &str = r#"{"metric":"n","effects":[{"variant":"b","estimate":0.1,"variance":-1}]}"#;

fn limits(in_a_row: usize, share: f64, window: usize) -> DeadLettersConfig {
    let whole = |n| NonZeroUsize::new(n).expect("above 0");
    DeadLettersConfig { in_a_row: whole(in_a_row), share, window: whole(window) }
}

/// Records of a partition at every third offset from `from` on.
fn records(partition: i32, from: i64, messages: &[String]) -> Vec<Record> {
    let record = |(i, message): (usize, &String)| Record {
        partition,
        offset: from + 3 * i as i64,
        produced_at: None,
        key: None,
        payload: None,
        payload_bytes: message.len(),
        message: decode(message.as_bytes()),
    };
    messages.iter().enumerate().map(record).collect()
}

fn batch(records: Vec<Record>) -> Batch {
    let mut ends: Vec<(i32, NextOffset)> = Vec::new();
    for record in &records {
        ends.retain(|(partition, _)| *partition != record.partition);
        ends.push((record.partition, NextOffset(record.offset + 1)));
    }
    Batch { records, ends }
}

fn dead() -> String {
    "neither JSON nor an event".to_owned()
}

fn alive() -> String {
    EVENT.replace("RESULTS", GOOD)
}

#[test]
fn so_many_in_a_row_halt_their_partition_and_what_comes_after_is_not_committed() {
    let judge = DeadLetters::new(limits(3, 1.0, 1000));
    let messages = [alive(), dead(), dead(), alive(), dead(), dead(), dead(), alive(), dead()];
    let mut batch = batch([records(0, 100, &messages), records(1, 0, &[dead(), dead(), alive()])].concat());
    let judgement = judge.judge(&mut batch, |_| true);
    assert_eq!(judgement.exceeded.keys().copied().collect::<Vec<_>>(), [0]);
    assert!(judgement.exceeded[&0].contains("the last 3 messages were refused"), "{:?}", judgement.exceeded);
    let kept = |partition| batch.records.iter().filter(|record| record.partition == partition).count();
    assert_eq!((kept(0), kept(1)), (7, 3), "up to the one that was too many, and all of the other partition");
    assert_eq!(batch.ends, [(0, NextOffset(121)), (1, NextOffset(7))], "it goes on where the next record begins");
}

#[test]
fn the_count_goes_on_over_batches_that_were_committed_and_only_over_those() {
    let mut judge = DeadLetters::new(limits(4, 1.0, 1000));
    let first = judge.judge(&mut batch(records(0, 0, &[dead(), dead(), dead()])), |_| true);
    let again = judge.judge(&mut batch(records(0, 0, &[dead(), dead(), dead()])), |_| true);
    assert!(again.exceeded.is_empty(), "the first try was not committed");
    judge.keep(first);
    assert!(!judge.judge(&mut batch(records(0, 9, &[dead()])), |_| true).exceeded.is_empty());
    judge.forget(&[0]);
    assert!(judge.judge(&mut batch(records(0, 9, &[dead()])), |_| true).exceeded.is_empty(), "it begins anew");
}

#[test]
fn a_share_is_judged_once_there_are_enough_messages_to_take_it_of() {
    let judge = DeadLetters::new(limits(1000, 0.5, 10));
    let half: Vec<String> = (0..40).map(|i| if i % 2 == 0 { dead() } else { alive() }).collect();
    assert!(judge.judge(&mut batch(records(0, 0, &half)), |_| true).exceeded.is_empty(), "half is not more than half");
    let few = vec![dead(); 9];
    assert!(judge.judge(&mut batch(records(0, 0, &few)), |_| true).exceeded.is_empty(), "too few to be judged");
    let most: Vec<String> = (0..40).map(|i| if i % 3 < 2 { dead() } else { alive() }).collect();
    let mut most = batch(records(0, 0, &most));
    let judgement = judge.judge(&mut most, |_| true);
    assert!(judgement.exceeded[&0].contains("of the last 10 messages"), "{:?}", judgement.exceeded);
    assert_eq!(most.records.len(), 10);
}

#[test]
fn a_message_of_which_anything_is_taken_in_is_no_dead_letter() {
    let judge = DeadLetters::new(limits(2, 1.0, 1000));
    let partly = EVENT.replace("RESULTS", &format!("{BAD},{GOOD}"));
    let empty = EVENT.replace("RESULTS", "");
    let gone = r#"{"schema_version":1,"experiment_id":"e","retracted":true}"#.to_owned();
    let fine = [partly.clone(), partly, empty.clone(), empty, gone.clone(), gone];
    assert!(judge.judge(&mut batch(records(0, 0, &fine)), |_| true).exceeded.is_empty());
    let none = EVENT.replace("RESULTS", BAD);
    assert!(!judge.judge(&mut batch(records(0, 0, &[none.clone(), none])), |_| true).exceeded.is_empty());
}

#[test]
fn what_is_passed_over_counts_for_nothing() {
    let judge = DeadLetters::new(limits(2, 1.0, 1000));
    let mut batch = batch(records(0, 0, &vec![dead(); 10]));
    assert!(judge.judge(&mut batch, |record| record.offset >= 27).exceeded.is_empty());
    assert_eq!(batch.records.len(), 10);
}

proptest! {
    /// However a partition is cut into batches, it is halted at the same message.
    #[test]
    fn the_batches_do_not_matter(is_dead in prop::collection::vec(any::<bool>(), 1..200), size in 1usize..50) {
        let messages: Vec<String> = is_dead.iter().map(|is_dead| if *is_dead { dead() } else { alive() }).collect();
        let records = records(0, 0, &messages);
        let limits = limits(6, 0.6, 20);
        let mut whole = batch(records.clone());
        let at_once = DeadLetters::new(limits.clone()).judge(&mut whole, |_| true);
        let (mut judge, mut committed, mut exceeded) = (DeadLetters::new(limits), 0, false);
        for records in records.chunks(size) {
            let mut batch = batch(records.to_vec());
            let judgement = judge.judge(&mut batch, |_| true);
            committed += batch.records.len();
            exceeded = !judgement.exceeded.is_empty();
            if exceeded {
                break;
            }
            judge.keep(judgement);
        }
        prop_assert_eq!(exceeded, !at_once.exceeded.is_empty());
        prop_assert_eq!(committed, whole.records.len());
    }
}
