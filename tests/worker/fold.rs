//! What a batch changes of what is stored of its experiments.

use std::collections::BTreeMap;

use shrinkd::row::{Changes, StoredExperiment};
use shrinkd::worker::admission::Admission;
use shrinkd::worker::fold::{Folded, fold};
use shrinkd::worker::source::Record;
use shrinkd_core::{Grouping, decode};

fn by_team() -> Grouping {
    Grouping { labels: vec!["team".to_owned()], ..Grouping::default() }
}

/// A message of the experiment `e`.
fn message(revision: u64, team: &str, results: &str) -> Record {
    let message = format!(
        r#"{{"schema_version":1,"experiment_id":"e","revision":{revision},"completed_at":"2026-11-01T12:00:00Z","labels":{{"team":"{team}"}},"results":[{results}]}}"#
    );
    Record {
        partition: 0,
        offset: 0,
        produced_at: None,
        key: None,
        payload: None,
        payload_bytes: message.len(),
        message: decode(message.as_bytes()),
    }
}

/// Effects of `a` and `b` on the metric `m`.
fn result(segment: &str) -> String {
    format!(
        r#"{{"metric":"m","segment":"{segment}","effects":[{{"variant":"a","estimate":0.1,"variance":1}},{{"variant":"b","estimate":0.2,"variance":1}}],"control_variance":0.5}}"#
    )
}

fn folded(record: Record, stored: Option<&StoredExperiment>) -> Folded {
    let stored = stored.map(|stored| ("e".to_owned(), stored.clone()));
    fold(&[record], BTreeMap::from_iter(stored), &by_team(), Admission::default(), |_| Some(7))
        .expect("input causes no error")
}

/// What the store holds of the experiment after the first batch of it, and after another one that changes no block.
fn stored(first: &Changes, next: Option<&Changes>) -> StoredExperiment {
    let row = next.map_or(&first.new_experiments, |next| &next.experiments);
    let row = row.first().or(first.new_experiments.first()).expect("the experiment is stored");
    StoredExperiment {
        latest: row.latest.clone(),
        retractions: row.retractions.clone(),
        blocks: first.blocks.iter().map(|row| row.block.clone()).collect(),
    }
}

#[test]
fn new_labels_move_the_blocks_of_an_experiment_and_retire_all_its_estimates_in_the_old_population() {
    let first = folded(message(1, "search", &result("all")), None).changes;
    // The event that moves it has no result at all.
    let moved = folded(message(2, "ads", ""), Some(&stored(&first, None))).changes;
    let retired: Vec<String> =
        moved.retired.iter().map(|it| format!("{} {} {}", it.population, it.experiment_id, it.variant)).collect();
    assert_eq!(retired, ["m/all/absolute/team=search e a", "m/all/absolute/team=search e b"]);
    let (from, to) = ("m/all/absolute/team=search".parse().unwrap(), "m/all/absolute/team=ads".parse().unwrap());
    let cells: Vec<_> = moved.cells.keys().collect();
    assert_eq!(cells, [&to, &from]);
    assert_eq!(moved.blocks.iter().map(|row| &row.block.population).collect::<Vec<_>>(), [&to]);
    assert_eq!(moved.changed.iter().map(|block| &block.population).collect::<Vec<_>>(), [&to]);
}

#[test]
fn a_retraction_that_conflicts_with_one_key_is_stored_for_the_others() {
    let first = folded(message(1, "search", &result("all")), None).changes;
    // It covers every segment, and is no newer than the result of one of them.
    let retraction = message(1, "search", r#"{"metric":"m","status":"retracted"}"#);
    let refused = folded(retraction, Some(&stored(&first, None)));
    assert_eq!((refused.counts.refused, refused.changes.rejected.len(), refused.changes.blocks.len()), (1, 1, 0));
    // An older result of another segment comes in a later batch.
    let late = folded(message(0, "search", &result("mobile")), Some(&stored(&first, Some(&refused.changes))));
    assert_eq!((late.counts.accepted, late.counts.stale), (0, 1));
}
