//! Order and repetition cannot matter, and the changes tell the whole story: generated histories.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shrinkd_core::CurrentBlock;

use super::*;

/// What a generated result says; overlaps within one event are refused by the decoder and so left out here.
#[derive(Debug, Clone)]
enum Says {
    Whole(ResultKey, u8),
    Part(ResultKey, Option<&'static str>, u8),
    Retraction(&'static str, Option<&'static str>, Option<Scale>),
}

impl Says {
    fn covers(&self, key: &ResultKey) -> bool {
        match self {
            Says::Whole(own, _) | Says::Part(own, ..) => own == key,
            Says::Retraction(metric, segment, scale) => {
                *metric == key.metric
                    && segment.is_none_or(|segment| segment == key.segment)
                    && scale.is_none_or(|scale| scale == key.scale)
            }
        }
    }

    fn reported(&self) -> Reported {
        match self {
            Says::Whole(key, value) => whole(key.clone(), f64::from(*value)),
            Says::Part(key, control, value) => {
                let control = control.map(|name| arm(name, &[1.0, 2.0, f64::from(*value)]));
                let treatment = arm(["B", "C"][usize::from(*value % 2)], &[f64::from(*value), 5.0]);
                Ok(ReportedResult::Part {
                    key: key.clone(),
                    arms: arms(control, [treatment]),
                    properties: Properties::default(),
                })
            }
            Says::Retraction(metric, segment, scale) => retraction(metric, *segment, *scale),
        }
    }
}

const METRICS: [&str; 2] = ["conversion", "revenue"];
const SEGMENTS: [&str; 2] = ["all", "new"];
const SCALES: [Scale; 2] = [Scale::Absolute, Scale::LogRatio];

fn universe() -> impl Iterator<Item = ResultKey> {
    METRICS.into_iter().flat_map(|metric| {
        SEGMENTS.into_iter().flat_map(move |segment| SCALES.map(|scale| key(metric, segment, scale)))
    })
}

fn any_key() -> impl Strategy<Value = ResultKey> {
    prop::sample::select(universe().collect::<Vec<_>>())
}

fn any_whole() -> impl Strategy<Value = Says> {
    (any_key(), 0..3_u8).prop_map(|(key, value)| Says::Whole(key, value))
}

fn any_retraction() -> impl Strategy<Value = Says> {
    let segment = prop::option::of(prop::sample::select(&SEGMENTS[..]));
    let scale = prop::option::of(prop::sample::select(&SCALES[..]));
    (prop::sample::select(&METRICS[..]), segment, scale)
        .prop_map(|(metric, segment, scale)| Says::Retraction(metric, segment, scale))
}

fn any_part(controls: &'static [&'static str]) -> impl Strategy<Value = Says> {
    (any_key(), prop::option::of(prop::sample::select(controls)), 0..4_u8)
        .prop_map(|(key, control, value)| Says::Part(key, control, value))
}

/// One message; its results do not overlap.
fn message(revision: u64, event_id: usize, says: &[Says], decision: Option<&str>) -> Event {
    let mut mentioned = BTreeSet::new();
    let mut results = Vec::new();
    for one in says {
        let covered: Vec<_> = universe().filter(|key| one.covers(key)).collect();
        if covered.iter().all(|key| !mentioned.contains(key)) {
            mentioned.extend(covered);
            results.push(one.reported());
        }
    }
    let decision = decision.map(str::to_owned);
    Event { event_id: Some(format!("event-{event_id}")), decision, ..event(revision, results) }
}

/// Revisions 0, 1, ..: each one event of whole results and retractions, or several that bring parts.
fn consistent_history() -> impl Strategy<Value = Vec<Event>> {
    let whole = prop::collection::vec(prop_oneof![2 => any_whole(), 1 => any_retraction()], 1..5);
    let parts = prop::collection::vec(prop::collection::vec(any_part(&["A"]), 1..3), 1..4);
    let revision = prop_oneof![3 => whole.prop_map(|says| vec![says]), 1 => parts];
    prop::collection::vec((revision, prop::option::of(Just("shipped"))), 1..8).prop_map(|revisions| {
        let mut events = Vec::new();
        for (revision, (messages, decision)) in revisions.iter().enumerate() {
            for says in messages {
                events.push(message(revision as u64, events.len(), says, *decision));
            }
        }
        events
    })
}

/// Anything at all: few revisions and event ids, so that most of it conflicts.
fn quarrelsome_history() -> impl Strategy<Value = Vec<Event>> {
    let says = prop_oneof![any_whole(), any_retraction(), any_part(&["A", "B"])];
    prop::collection::vec((0..4_u64, 0..3_usize, prop::collection::vec(says, 1..4)), 1..12).prop_map(|messages| {
        messages.iter().map(|(revision, event_id, says)| message(*revision, *event_id, says, None)).collect()
    })
}

/// The newest statement that covers a key: the definition of what stands.
fn newest<'a>(events: &'a [Event], key: &ResultKey) -> Option<(u64, &'a ReportedResult)> {
    let statements = events.iter().flat_map(|event| event.results.iter().flatten().map(|said| (event.revision, said)));
    let covering = statements.filter(|(_, said)| match said {
        ReportedResult::Whole { key: own, .. } | ReportedResult::Part { key: own, .. } => own == key,
        ReportedResult::Retraction { metric, segment, scale } => {
            *metric == key.metric
                && segment.as_ref().is_none_or(|segment| *segment == key.segment)
                && scale.is_none_or(|scale| scale == key.scale)
        }
    });
    covering.max_by_key(|(revision, _)| *revision)
}

proptest! {
    #[test]
    fn events_of_distinct_revisions_end_the_same_in_any_order(
        (events, reordered) in consistent_history().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
    ) {
        prop_assert_eq!(folded(reordered), folded(events));
    }

    #[test]
    fn what_stands_is_the_newest_statement_about_each_key(events in consistent_history().prop_shuffle()) {
        let ledger = folded(events.clone());
        for key in universe() {
            let standing = ledger.blocks().find(|(own, ..)| **own == key).map(|(_, revision, measured)| (revision, measured));
            match newest(&events, &key) {
                Some((revision, ReportedResult::Whole { measured, .. })) => {
                    prop_assert_eq!(standing, Some((revision, measured)));
                }
                Some((revision, ReportedResult::Part { .. })) => {
                    let is_pending = ledger.pending().any(|(own, _)| *own == key);
                    prop_assert_eq!(standing.map(|(revision, _)| revision), (!is_pending).then_some(revision));
                }
                Some((_, ReportedResult::Retraction { .. })) | None => prop_assert_eq!(standing, None),
            }
        }
    }

    #[test]
    fn applying_what_was_applied_once_more_changes_nothing(
        (events, again) in quarrelsome_history().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
    ) {
        let mut ledger = folded(events);
        let once = ledger.clone();
        for event in again {
            prop_assert_eq!(ledger.apply(event).changes, []);
            prop_assert_eq!(&ledger, &once);
        }
    }

    #[test]
    fn adding_up_the_changes_gives_the_blocks(
        first in quarrelsome_history(),
        second in quarrelsome_history(),
        has_tombstone: bool,
    ) {
        let mut ledger = ExperimentLedger::default();
        let mut changes: Vec<_> = first.into_iter().flat_map(|event| ledger.apply(event).changes).collect();
        if has_tombstone {
            changes.extend(ledger.tombstone());
        }
        changes.extend(second.into_iter().flat_map(|event| ledger.apply(event).changes));

        let mut sum: BTreeMap<ResultKey, CurrentBlock> = BTreeMap::new();
        for change in changes {
            prop_assert!(change.before.is_some() || change.after.is_some());
            prop_assert_eq!(sum.remove(&change.key), change.before, "a change takes out what is there");
            sum.extend(change.after.map(|after| (change.key, after)));
        }
        let standing: BTreeMap<_, _> = ledger.blocks().map(|(key, revision, measured)| {
            (key.clone(), CurrentBlock { revision, measured: measured.clone() })
        }).collect();
        prop_assert_eq!(sum, standing);
    }
}
