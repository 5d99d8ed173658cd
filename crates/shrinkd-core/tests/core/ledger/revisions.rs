//! Whole results and their revisions.

use proptest::prelude::*;
use shrinkd_core::{Message, decode};
use shrinkd_model::Direction;

use super::*;

#[test]
fn a_larger_revision_replaces_the_block_and_the_change_names_both() {
    let mut ledger = folded([event(1, [whole(conversion(), 0.1)])]);
    let applied = ledger.apply(event(2, [whole(conversion(), 0.2)]));

    assert_eq!(applied.outcomes, [Outcome::Accepted]);
    assert_eq!(blocks(&ledger), [(conversion(), 2, vec![0.2])]);
    let [change] = applied.changes.try_into().unwrap();
    let (before, after) = (change.before.unwrap(), change.after.unwrap());
    assert_eq!((before.revision, before.measured.block.effects()), (1, &[0.1][..]));
    assert_eq!((after.revision, after.measured.block.effects()), (2, &[0.2][..]));
}

#[test]
fn the_first_result_of_a_key_changes_nothing_into_something() {
    let mut ledger = ExperimentLedger::default();
    let applied = ledger.apply(event(0, [whole(conversion(), 0.1)]));
    assert_eq!(applied.outcomes, [Outcome::Accepted]);
    assert!(applied.changes[0].before.is_none());
    assert!(applied.changes[0].after.is_some());
}

#[test]
fn a_larger_revision_counts_even_with_equal_content() {
    let mut ledger = folded([event(1, [whole(conversion(), 0.1)])]);
    assert_eq!(apply(&mut ledger, event(3, [whole(conversion(), 0.1)])), Outcome::Accepted);
    assert_eq!(apply(&mut ledger, event(2, [whole(conversion(), 0.2)])), Outcome::Stale);
    assert_eq!(blocks(&ledger), [(conversion(), 3, vec![0.1])]);
}

#[test]
fn a_smaller_revision_is_stale_and_changes_nothing() {
    let mut ledger = folded([event(2, [whole(conversion(), 0.2)])]);
    let before = ledger.clone();
    let applied = ledger.apply(event(1, [whole(conversion(), 0.1)]));
    assert_eq!(applied, Applied { outcomes: vec![Outcome::Stale], changes: vec![], ..Applied::default() });
    assert_eq!(ledger, before);
}

#[test]
fn equal_content_under_the_same_revision_is_a_duplicate_whatever_the_rest_of_the_event_says() {
    let first = event(2, [whole(conversion(), 0.2)]);
    let mut ledger = folded([first.clone()]);
    let again = Event {
        completed_at: first.completed_at + time::Duration::days(1),
        event_id: Some("another".to_owned()),
        labels: BTreeMap::from([("team".to_owned(), "search".to_owned())]),
        decision: Some("shipped".to_owned()),
        ..first
    };
    assert_eq!(
        ledger.apply(again),
        Applied { outcomes: vec![Outcome::Duplicate], changes: vec![], ..Applied::default() }
    );
}

#[test]
fn other_content_under_the_same_revision_is_a_conflict_and_the_first_to_arrive_stands() {
    let mut ledger = folded([event(2, [whole(conversion(), 0.2)])]);
    let before = ledger.clone();
    let applied = ledger.apply(event(2, [whole(conversion(), 0.3)]));
    assert_eq!(refused_for(&applied.outcomes[0]), Some(Reason::RevisionConflict));
    assert!(applied.changes.is_empty());
    assert_eq!(ledger, before);
}

#[test]
fn whole_part_and_retraction_conflict_under_the_same_revision_whichever_comes_first() {
    let events = [
        event(4, [whole(conversion(), 0.2)]),
        part(4, "p", conversion(), arms(Some(arm("A", &[1.0, 2.0])), [arm("B", &[2.0, 4.0])])),
        event(4, [retraction_of(&conversion())]),
    ];
    for (i, first) in events.iter().enumerate() {
        for second in events.iter().enumerate().filter(|(j, _)| i != *j).map(|(_, second)| second) {
            let mut ledger = folded([first.clone()]);
            let before = ledger.clone();
            let outcome = apply(&mut ledger, second.clone());
            assert_eq!(refused_for(&outcome), Some(Reason::RevisionConflict), "{first:?} then {second:?}");
            assert_eq!(ledger, before);
        }
    }
}

#[test]
fn results_that_a_newer_event_does_not_mention_stay() {
    let revenue = key("revenue", "all", Scale::Absolute);
    let mut ledger = folded([event(1, [whole(conversion(), 0.1), whole(revenue.clone(), 3.0)])]);
    ledger.apply(event(2, [whole(conversion(), 0.2)]));
    assert_eq!(blocks(&ledger), [(conversion(), 2, vec![0.2]), (revenue.clone(), 1, vec![3.0])]);

    let late = event(1, [whole(key("latency", "all", Scale::LogRatio), 0.5)]);
    assert_eq!(apply(&mut ledger, late), Outcome::Accepted, "each key has its own revision");
}

#[test]
fn segments_and_scales_of_a_metric_are_separate_results() {
    let keys = [
        key("conversion", "all", Scale::Absolute),
        key("conversion", "all", Scale::Relative),
        key("conversion", "new", Scale::Absolute),
    ];
    let ledger = folded((0..3).map(|i| event(3 - i, [whole(keys[i as usize].clone(), i as f64)])));
    assert_eq!(
        ledger.blocks().map(|(key, revision, _)| (key.clone(), revision)).collect::<Vec<_>>(),
        [(keys[0].clone(), 3), (keys[1].clone(), 2), (keys[2].clone(), 1)]
    );
}

#[test]
fn a_refused_result_leaves_the_accepted_block_standing_and_the_others_of_its_event_are_taken() {
    let revenue = key("revenue", "all", Scale::Absolute);
    let mut ledger = folded([event(1, [whole(conversion(), 0.1), whole(revenue.clone(), 3.0)])]);
    let refusal = Refusal::new(Reason::NonFinite, "$.results[0].effects[0].estimate is 1e400");
    let applied = ledger.apply(event(2, [Err(refusal.clone()), whole(revenue.clone(), 4.0)]));
    assert_eq!(applied.outcomes, [Outcome::Refused(refusal), Outcome::Accepted]);
    assert_eq!(blocks(&ledger), [(conversion(), 1, vec![0.1]), (revenue, 2, vec![4.0])]);
}

#[test]
fn a_tombstone_withdraws_every_block_and_forgets_all_revisions() {
    let revenue = key("revenue", "all", Scale::Absolute);
    let mut ledger = folded([
        event(7, [whole(conversion(), 0.1), whole(revenue.clone(), 3.0), retraction("old", None, None)]),
        part(7, "p", key("latency", "all", Scale::Absolute), arms(None, [arm("B", &[2.0, 4.0])])),
    ]);
    let changes = ledger.tombstone();
    let withdrawn: Vec<_> = changes.iter().map(|c| (&c.key, c.before.is_some(), c.after.is_none())).collect();
    assert_eq!(withdrawn, [(&conversion(), true, true), (&revenue, true, true)]);
    assert_eq!(ledger, ExperimentLedger::default());

    let older = event(1, [whole(conversion(), 0.1), whole(key("old", "all", Scale::Absolute), 0.2)]);
    assert_eq!(ledger.apply(older).outcomes, [Outcome::Accepted, Outcome::Accepted]);
    ledger.tombstone();
    assert_eq!(ledger.tombstone(), [], "a second tombstone has nothing to withdraw");
}

#[test]
fn the_decision_is_that_of_the_largest_revision_seen() {
    let decided = |revision, decision: Option<&str>| Event {
        decision: decision.map(str::to_owned),
        ..event(revision, [whole(conversion(), revision as f64)])
    };
    let mut ledger = folded([decided(2, Some("shipped")), decided(1, Some("stopped"))]);
    assert_eq!(ledger.decision(), Some("shipped"));
    ledger.apply(decided(3, None));
    assert_eq!(ledger.decision(), None, "revision 3 has not decided yet");
    ledger.tombstone();
    ledger.apply(decided(0, Some("stopped")));
    assert_eq!(ledger.decision(), Some("stopped"));
}

/// The event of revision 1 that a result makes.
fn sent(result: &str) -> Event {
    let message = format!(
        r#"{{"schema_version":1,"experiment_id":"exp-1","revision":1,"event_id":"e","completed_at":"2026-01-01T00:00:00Z","results":[{result}]}}"#
    );
    match decode(message.as_bytes()) {
        Ok(Message::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_figure_in_another_form_is_a_duplicate_although_its_last_bit_differs() {
    let effect = |error: &str| {
        let control = r#""control":{"variant":"c","n":100}"#;
        format!(r#"{{"metric":"m",{control},"effects":[{{"variant":"t","n":90,"estimate":0.1,{error}}}]}}"#)
    };
    let arms = |more: &str, spread: &str| {
        let arm = |variant| format!(r#"{{"variant":"{variant}","n":90,"mean":1.5,{spread}}}"#);
        format!(r#"{{"metric":"m",{more}"control":{},"treatments":[{}]}}"#, arm("c"), arm("t"))
    };
    let mut roundings = 0;
    for i in 1..200 {
        let variance = f64::from(i) / 7.0;
        let root = variance.sqrt();
        roundings += usize::from(root * root != variance);
        let half = 1.959_963_984_540_054 * root;
        let of = [format!(r#""variance":{variance:?}"#), format!(r#""standard_error":{root:?}"#)];
        let interval = format!(r#""ci_low":{:?},"ci_high":{:?}"#, 0.1 - half, 0.1 + half);
        let deviation = format!(r#""standard_deviation":{root:?}"#);
        let pairs = [
            (effect(&of[0]), effect(&of[1])),
            (effect(&of[0]), effect(&interval)),
            (arms("", &of[0]), arms("", &deviation)),
            (arms(r#""accumulate":true,"#, &of[0]), arms(r#""accumulate":true,"#, &deviation)),
        ];
        for (first, second) in pairs {
            let mut ledger = folded([sent(&first)]);
            let before = ledger.clone();
            assert_eq!(apply(&mut ledger, sent(&second)), Outcome::Duplicate, "{first} {second}");
            assert_eq!(ledger, before, "what came first is kept");
        }
        // A figure that is another, by however little that can matter, is another statement.
        let other = variance * (1.0 + 1e-11);
        for (first, second) in [
            (effect(&of[0]), effect(&format!(r#""variance":{other:?}"#))),
            (arms("", &of[0]), arms("", &format!(r#""variance":{other:?}"#))),
        ] {
            let mut ledger = folded([sent(&first)]);
            assert!(matches!(apply(&mut ledger, sent(&second)), Outcome::Refused(_)), "{first} {second}");
        }
    }
    assert!(roundings > 20, "{roundings} roots whose squares differ in the last bit");
}

/// The moments as which version 0.1 kept successes.
fn as_moments(n: u64, successes: u64) -> ArmStatistics {
    let mean = successes as f64 / n as f64;
    ArmStatistics::Moments { n, mean, m2: mean * (n - successes) as f64 }
}

fn counted(statistics: fn(u64, u64) -> ArmStatistics) -> Arms {
    let arm = |variant: &str, n, successes| Arm { variant: variant.to_owned(), statistics: statistics(n, successes) };
    arms(Some(arm("A", 300, 41)), [arm("B", 299, 53), arm("C", 7, 3), arm("D", 1_000_003, 999_999)])
}

fn measured_whole(arms: Arms) -> Event {
    let measurement = Measurement::Arms(arms);
    let measured = shrinkd_core::measure(Scale::Relative, &measurement).unwrap();
    let key = key("conversion", "all", Scale::Relative);
    event(
        1,
        [Ok(ReportedResult::Whole {
            key,
            measurement,
            measured,
            properties: Properties::default(),
            findings: Findings::default(),
        })],
    )
}

#[test]
fn successes_that_an_earlier_version_kept_as_moments_are_duplicates_and_become_counts_again() {
    let key = key("conversion", "all", Scale::Relative);
    let successes = |n, successes| ArmStatistics::Successes { n, successes };
    let pairs = [
        (measured_whole(counted(as_moments)), measured_whole(counted(successes))),
        (part(1, "a", key.clone(), counted(as_moments)), part(1, "a", key.clone(), counted(successes))),
    ];
    for (earlier, now) in pairs {
        let mut ledger = folded([earlier]);
        assert_eq!(apply(&mut ledger, now.clone()), Outcome::Duplicate);
        let (_, kept) = ledger.statistics(&key).unwrap();
        let (_, expected) = folded([now]).statistics(&key).unwrap();
        assert_ne!(kept, expected);
        assert_eq!(shrinkd_core::with_successes(&kept).unwrap().as_ref(), Some(&expected));
        assert_eq!(shrinkd_core::with_successes(&expected), Ok(None), "there is nothing left to find");
    }
}

proptest! {
    /// The sums of ones and zeros went through other arithmetic, with other last bits.
    #[test]
    fn counts_are_found_again_in_the_moments_that_version_0_1_made_of_successes_and_of_sums(
        n in 2_u64..2_000_000_000, share in 0.0..1.0_f64
    ) {
        let successes = ((n as f64 * share) as u64).clamp(1, n - 1);
        let (count, sum) = (n as f64, successes as f64);
        let mean = sum / count;
        let mean_error = (-mean).mul_add(count, sum) / count;
        let square = sum * mean;
        let of_sums = (sum - square) - (sum.mul_add(mean, -square) + sum * mean_error);
        for m2 in [mean * (n - successes) as f64, of_sums] {
            let kept = ArmStatistics::Moments { n, mean, m2 };
            let arms = |statistics| arms(None, [Arm { variant: "B".to_owned(), statistics }]);
            let mut ledger = folded([part(1, "a", conversion(), arms(kept))]);
            let counted = part(1, "a", conversion(), arms(ArmStatistics::Successes { n, successes }));
            prop_assert_eq!(apply(&mut ledger, counted.clone()), Outcome::Duplicate);
            let (_, kept) = ledger.statistics(&conversion()).unwrap();
            let (_, expected) = folded([counted]).statistics(&conversion()).unwrap();
            prop_assert_eq!(shrinkd_core::with_successes(&kept).unwrap(), Some(expected));
        }
    }
}

#[test]
fn what_was_not_sent_as_successes_stays_as_it_is() {
    let ledger = folded([
        part(1, "a", conversion(), arms(Some(arm("A", &[0.5, 0.25])), [arm("B", &[2.0, 1.0])])),
        event(1, [whole(key("revenue", "all", Scale::Absolute), 0.1)]),
    ]);
    for (key, ..) in ledger.blocks() {
        let (_, kept) = ledger.statistics(key).unwrap();
        assert_eq!(shrinkd_core::with_successes(&kept), Ok(None), "{key:?}");
    }
}

#[test]
fn refused_treatments_and_warnings_are_those_of_what_is_taken_and_not_of_duplicates_or_of_what_is_stale() {
    let text = r#"{"schema_version":1,"experiment_id":"exp-1","revision":1,"completed_at":"2026-11-01T12:00:00Z","results":[
        {"metric":"other","status":"retracted"},
        {"metric":"conversion","scale":"log_ratio","control":{"variant":"A","n":1000,"successes":200},
         "treatments":[{"variant":"B","n":1000,"successes":150},{"variant":"C","n":12,"successes":0},
                       {"variant":"D","n":12,"successes":1}]}]}"#;
    let Ok(Message::Event(event)) = decode(text.as_bytes()) else { panic!("an event") };
    let mut ledger = ExperimentLedger::default();
    let applied = ledger.apply(event.clone());
    assert_eq!(applied.outcomes[1], Outcome::Accepted);
    let [(1, refusal)] = applied.refused_treatments.as_slice() else { panic!("{applied:?}") };
    assert_eq!((refusal.reason, refusal.variant.as_deref()), (Reason::NonPositiveMean, Some("C")));
    assert_eq!(applied.warnings.len(), 1);
    for (revision, outcome) in [(1, Outcome::Duplicate), (0, Outcome::Stale)] {
        let applied = ledger.apply(Event { revision, ..event.clone() });
        assert_eq!(applied.outcomes[1], outcome);
        assert_eq!((applied.refused_treatments, applied.warnings), (vec![], vec![]));
    }
    let (_, _, measured) = ledger.blocks().next().unwrap();
    assert_eq!(measured.variants, ["B", "D"]);
}

fn described(revision: u64, estimate: f64, direction: Option<Direction>, coverage: Option<f64>) -> Event {
    let mut event = event(revision, [whole(conversion(), estimate)]);
    if let Ok(ReportedResult::Whole { properties, .. }) = &mut event.results[0] {
        *properties = Properties { direction, coverage };
    }
    event
}

#[test]
fn what_a_result_says_of_its_effects_follows_the_largest_revision_whatever_the_order() {
    let (up, down) = (Some(Direction::Increase), Some(Direction::Decrease));
    let events = [described(1, 0.5, down, Some(0.5)), described(2, 0.5, up, None), described(2, 0.5, None, Some(0.1))];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut ledger = ExperimentLedger::default();
        for index in order {
            ledger.apply(events[index].clone());
        }
        let expected = Properties { direction: up, coverage: Some(0.1) };
        assert_eq!(ledger.properties(&conversion()), Some(expected), "{order:?}");
    }
}

#[test]
fn a_duplicate_that_says_more_of_its_effects_is_a_change_of_the_same_block() {
    let mut ledger = ExperimentLedger::default();
    ledger.apply(described(1, 0.5, None, None));
    let applied = ledger.apply(described(1, 0.5, Some(Direction::Decrease), None));
    assert_eq!(applied.outcomes, [Outcome::Duplicate]);
    assert_eq!(applied.changes.len(), 1);
    assert_eq!(applied.changes[0].before, applied.changes[0].after);
    let again = ledger.apply(described(1, 0.5, Some(Direction::Decrease), None));
    assert_eq!((again.outcomes, again.changes), (vec![Outcome::Duplicate], Vec::new()));
}
