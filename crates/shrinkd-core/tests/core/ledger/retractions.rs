//! Retractions: of one result, of every scale or segment of a metric, and of what was never seen.

use super::*;

const SCALES: [Scale; 3] = [Scale::Absolute, Scale::Relative, Scale::LogRatio];

/// Every key of two metrics x two segments x three scales.
fn universe() -> Vec<ResultKey> {
    let mut keys = Vec::new();
    for metric in ["conversion", "revenue"] {
        for segment in ["all", "new"] {
            keys.extend(SCALES.map(|scale| key(metric, segment, scale)));
        }
    }
    keys
}

#[test]
fn a_retraction_covers_every_segment_or_scale_that_it_does_not_name() {
    let segments = [None, Some("all")];
    let scales = [None, Some(Scale::Relative)];
    for (segment, scale) in segments.into_iter().flat_map(|segment| scales.map(|scale| (segment, scale))) {
        let mut ledger = folded([event(1, universe().into_iter().map(|key| whole(key, 0.1)))]);
        let applied = ledger.apply(event(2, [retraction("conversion", segment, scale)]));
        assert_eq!(applied.outcomes, [Outcome::Accepted]);

        let (withdrawn, kept): (Vec<_>, Vec<_>) = universe().into_iter().partition(|key| {
            key.metric == "conversion"
                && segment.is_none_or(|segment| segment == key.segment)
                && scale.is_none_or(|scale| scale == key.scale)
        });
        assert_eq!(applied.changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>(), withdrawn);
        assert!(applied.changes.iter().all(|change| change.before.is_some() && change.after.is_none()));
        assert_eq!(ledger.blocks().map(|(key, ..)| key.clone()).collect::<Vec<_>>(), kept);
    }
}

#[test]
fn a_metric_is_not_its_prefix() {
    let longer = key("conversion_rate", "all", Scale::Absolute);
    let mut ledger = folded([event(1, [whole(longer.clone(), 0.1)])]);
    assert!(ledger.apply(event(2, [retraction("conversion", None, None)])).changes.is_empty());
    assert!(ledger.apply(event(2, [retraction("conversion_rate", Some("al"), None)])).changes.is_empty());
    assert_eq!(blocks(&ledger), [(longer, 1, vec![0.1])]);
}

#[test]
fn a_retraction_of_something_never_seen_is_accepted_and_makes_older_results_stale() {
    for retraction in [
        retraction_of(&conversion()),
        retraction("conversion", Some("all"), None),
        retraction("conversion", None, Some(Scale::Absolute)),
        retraction("conversion", None, None),
    ] {
        let mut ledger = ExperimentLedger::default();
        assert_eq!(
            ledger.apply(event(5, [retraction.clone()])),
            Applied { outcomes: vec![Outcome::Accepted], changes: vec![], ..Applied::default() }
        );
        assert_eq!(apply(&mut ledger, event(3, [whole(conversion(), 0.1)])), Outcome::Stale);
        assert_eq!(apply(&mut ledger, event(5, [retraction.clone()])), Outcome::Duplicate);
        assert_eq!(apply(&mut ledger, event(4, [retraction])), Outcome::Stale);
        assert_eq!(apply(&mut ledger, event(7, [whole(conversion(), 0.2)])), Outcome::Accepted);
        assert_eq!(blocks(&ledger), [(conversion(), 7, vec![0.2])]);
    }
}

#[test]
fn a_retraction_of_a_newer_result_is_stale() {
    let mut ledger = folded([event(7, [whole(conversion(), 0.2)])]);
    let before = ledger.clone();
    assert_eq!(apply(&mut ledger, event(5, [retraction_of(&conversion())])), Outcome::Stale);
    assert_eq!(ledger, before);
}

#[test]
fn a_retraction_a_newer_result_and_an_older_one_end_the_same_in_every_order() {
    for retraction in [retraction("conversion", None, None), retraction_of(&conversion())] {
        let events = [
            event(3, [whole(conversion(), 0.3), whole(key("conversion", "new", Scale::Absolute), 0.4)]),
            event(5, [retraction.clone(), self::retraction("conversion", Some("new"), None)]),
            event(7, [whole(conversion(), 0.7)]),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let ledger = folded(order.map(|i| events[i].clone()));
            assert_eq!(blocks(&ledger), [(conversion(), 7, vec![0.7])], "{order:?}");
            assert_eq!(ledger, folded(events.clone()), "{order:?}");
        }
    }
}

#[test]
fn a_retraction_of_a_metric_conflicts_only_with_results_of_its_own_revision() {
    let (newer, older) = (key("conversion", "new", Scale::Absolute), key("conversion", "old", Scale::Absolute));
    let mut ledger = folded([
        event(3, [whole(older.clone(), 0.3)]),
        event(5, [whole(conversion(), 0.5)]),
        event(6, [whole(newer.clone(), 0.6)]),
    ]);
    let retract = event(5, [retraction("conversion", None, None)]);
    let applied = ledger.apply(retract.clone());
    assert_eq!(refused_for(&applied.outcomes[0]), Some(Reason::RevisionConflict));
    assert_eq!(applied.changes.iter().map(|change| &change.key).collect::<Vec<_>>(), [&older]);
    assert_eq!(blocks(&ledger), [(conversion(), 5, vec![0.5]), (newer, 6, vec![0.6])]);

    ledger.apply(event(7, [whole(conversion(), 0.7), whole(older, 0.7)]));
    let before = ledger.clone();
    assert!(ledger.apply(retract).changes.is_empty());
    assert_eq!(ledger, before, "applied again after the result in its way has moved on");
}

#[test]
fn a_wider_retraction_replaces_the_narrower_ones_that_it_overtakes() {
    let narrower = universe().into_iter().map(|key| event(3, [retraction_of(&key)]));
    let by_segment = event(4, [retraction("conversion", Some("all"), None)]);
    let by_scale = event(5, [retraction("conversion", None, Some(Scale::Relative))]);
    let wide = event(5, [retraction("conversion", None, None), retraction("revenue", None, None)]);
    let all = narrower.chain([by_segment, by_scale, wide.clone()]);
    assert_eq!(folded(all), folded([wide]), "nothing is left of what cannot matter any more");
}

#[test]
fn a_narrower_retraction_that_is_newer_stays_beside_a_wider_one() {
    for order in [[0, 1], [1, 0]] {
        let events =
            [event(5, [retraction("conversion", None, None)]), event(8, [retraction("conversion", Some("all"), None)])];
        let mut ledger = folded(order.map(|i| events[i].clone()));
        assert_eq!(apply(&mut ledger, event(7, [whole(conversion(), 0.1)])), Outcome::Stale);
        let new_users = key("conversion", "new", Scale::Absolute);
        assert_eq!(apply(&mut ledger, event(7, [whole(new_users, 0.1)])), Outcome::Accepted);
    }
}
