//! Results that accumulate.

use super::*;

/// What these arms say as one whole result.
fn measured(pooled: Arms) -> Measured {
    shrinkd_core::measure(Scale::Absolute, &Measurement::Arms(pooled)).unwrap()
}

fn control(units: &[f64]) -> Option<Arm> {
    Some(arm("A", units))
}

#[test]
fn parts_add_up_to_their_pooled_units_in_whatever_order_they_arrive() {
    let parts = [
        part(1, "eu", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])])),
        part(1, "us", conversion(), arms(control(&[2.0, 4.0, 3.0]), [arm("B", &[4.0])])),
        part(1, "late", conversion(), arms(None, [arm("C", &[0.5, 0.75, 1.0])])),
    ];
    let ledger = folded(parts.clone());
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(folded(order.map(|i| parts[i].clone())), ledger, "{order:?}");
    }

    let pooled = arms(control(&[1.0, 2.0, 2.0, 4.0, 3.0]), [arm("B", &[3.0, 5.0, 4.0]), arm("C", &[0.5, 0.75, 1.0])]);
    let expected = measured(pooled);
    let (_, revision, sum) = ledger.blocks().next().unwrap();
    assert_eq!((revision, &sum.variants), (1, &expected.variants));
    for i in 0..expected.block.len() {
        assert!((sum.block.effects()[i] - expected.block.effects()[i]).abs() < 1e-12);
        assert!((sum.block.sampling_variance(i) - expected.block.sampling_variance(i)).abs() < 1e-12);
    }
}

#[test]
fn a_sum_is_pending_until_it_can_be_estimated() {
    let mut ledger = ExperimentLedger::default();
    let applied = ledger.apply(part(1, "treatment", conversion(), arms(None, [arm("B", &[3.0, 5.0])])));
    assert!(matches!(&applied.outcomes[..], [Outcome::Pending(_)]), "{applied:?}");
    assert!(applied.changes.is_empty());
    assert_eq!(blocks(&ledger), []);
    assert_eq!(ledger.pending().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [conversion()]);

    let one_unit = part(1, "one", conversion(), arms(control(&[1.0]), []));
    assert!(matches!(apply(&mut ledger, one_unit.clone()), Outcome::Pending(_)));
    let (_, why) = ledger.pending().next().unwrap();
    assert_eq!(why.reason, Reason::SampleTooSmall);
    assert_eq!(apply(&mut ledger, one_unit), Outcome::Duplicate, "a pending part is held like any other");

    let applied = ledger.apply(part(1, "two", conversion(), arms(control(&[2.0]), [])));
    assert_eq!(applied.outcomes, [Outcome::Accepted]);
    assert!(applied.changes[0].before.is_none());
    assert_eq!(blocks(&ledger), [(conversion(), 1, vec![2.5])]);
    assert_eq!(ledger.pending().count(), 0);
}

#[test]
fn a_part_that_makes_the_sum_impossible_to_estimate_withdraws_the_block_until_more_arrive() {
    let key = key("conversion", "all", Scale::LogRatio);
    let mut ledger = folded([part(1, "a", key.clone(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])]))]);
    let applied = ledger.apply(part(1, "b", key.clone(), arms(control(&[-4.0]), [])));
    assert!(matches!(&applied.outcomes[..], [Outcome::Pending(why)] if why.reason == Reason::ControlMeanNearZero));
    assert!(applied.changes[0].before.is_some() && applied.changes[0].after.is_none());

    assert_eq!(apply(&mut ledger, part(1, "c", key, arms(control(&[4.0; 6]), []))), Outcome::Accepted);
    assert_eq!(blocks(&ledger).len(), 1);
}

#[test]
fn a_variant_of_a_sum_that_cannot_be_estimated_yet_leaves_the_others_and_is_not_refused() {
    let mut ledger = folded([part(1, "a", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])]))]);
    let applied = ledger.apply(part(1, "b", conversion(), arms(None, [arm("C", &[4.0])])));
    assert_eq!((&applied.outcomes[..], &applied.refused_treatments[..]), (&[Outcome::Accepted][..], &[][..]));
    assert_eq!(blocks(&ledger), [(conversion(), 1, vec![2.5])]);

    assert_eq!(apply(&mut ledger, part(1, "c", conversion(), arms(None, [arm("C", &[6.0])]))), Outcome::Accepted);
    assert_eq!(blocks(&ledger), [(conversion(), 1, vec![2.5, 3.5])]);
}

#[test]
fn only_the_parts_of_the_highest_revision_count() {
    let old = part(1, "old", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])]));
    let new = part(2, "new", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[30.0, 50.0])]));
    let mut ledger = folded([old.clone()]);
    assert_eq!(apply(&mut ledger, new.clone()), Outcome::Accepted);
    assert_eq!(blocks(&ledger), [(conversion(), 2, vec![38.5])]);
    assert_eq!(apply(&mut ledger, old.clone()), Outcome::Stale);
    assert_eq!(folded([new, old]), ledger);
}

#[test]
fn a_newer_revision_withdraws_the_block_even_while_its_own_parts_are_pending() {
    let (old, new) =
        (event(1, [whole(conversion(), 0.1)]), part(2, "new", conversion(), arms(None, [arm("B", &[3.0, 5.0])])));
    let mut ledger = folded([old.clone()]);
    let applied = ledger.apply(new.clone());
    assert!(matches!(&applied.outcomes[..], [Outcome::Pending(_)]));
    assert!(applied.changes[0].before.is_some() && applied.changes[0].after.is_none());
    assert_eq!(folded([new, old]), ledger);
}

#[test]
fn a_higher_revision_that_does_not_accumulate_drops_the_parts() {
    let parts = [
        part(1, "a", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])])),
        part(1, "b", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])])),
    ];
    for newer in [event(2, [whole(conversion(), 0.2)]), event(2, [retraction("conversion", None, None)])] {
        let ledger = folded(parts.clone().into_iter().chain([newer.clone()]));
        assert_eq!(ledger, folded([newer]));
    }
}

#[test]
fn an_event_id_brings_one_part_of_a_result() {
    let first = part(1, "a", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])]));
    let mut ledger = folded([first.clone()]);
    let before = ledger.clone();
    assert_eq!(
        ledger.apply(first),
        Applied { outcomes: vec![Outcome::Duplicate], changes: vec![], ..Applied::default() }
    );

    let reused = part(1, "a", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 6.0])]));
    let applied = ledger.apply(reused);
    assert_eq!(refused_for(&applied.outcomes[0]), Some(Reason::RevisionConflict));
    assert!(applied.changes.is_empty());
    assert_eq!(ledger, before);

    let other_key = part(1, "a", key("revenue", "all", Scale::Absolute), arms(None, [arm("B", &[3.0, 6.0])]));
    assert!(matches!(apply(&mut ledger, other_key), Outcome::Pending(_)), "an event may bring parts of many results");
}

#[test]
fn an_event_id_may_return_with_other_content_under_a_larger_revision() {
    let mut ledger = folded([part(1, "a", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])]))]);
    let revised = part(2, "a", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[4.0, 6.0])]));
    assert_eq!(apply(&mut ledger, revised), Outcome::Accepted);
    assert_eq!(blocks(&ledger), [(conversion(), 2, vec![3.5])]);
}

#[test]
fn a_part_against_another_control_is_refused_and_the_sum_stays() {
    let mut ledger = folded([part(1, "a", conversion(), arms(control(&[1.0, 2.0]), [arm("B", &[3.0, 5.0])]))]);
    let before = ledger.clone();
    let other = part(1, "b", conversion(), arms(Some(arm("Z", &[1.0, 2.0])), [arm("B", &[3.0, 5.0])]));
    let applied = ledger.apply(other);
    assert!(matches!(&applied.outcomes[..], [Outcome::Refused(_)]), "{applied:?}");
    assert!(applied.changes.is_empty());
    assert_eq!(ledger, before);
}

#[test]
fn a_part_without_an_event_id_is_refused() {
    let nameless = Event { event_id: None, ..part(1, "", conversion(), arms(None, [arm("B", &[3.0, 5.0])])) };
    let mut ledger = ExperimentLedger::default();
    assert_eq!(refused_for(&apply(&mut ledger, nameless)), Some(Reason::NotAccumulable));
    assert_eq!((ledger.blocks().count(), ledger.pending().count()), (0, 0));
}
