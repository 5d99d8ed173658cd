//! What a batch changes of what is stored of its experiments.

use std::collections::BTreeMap;

use shrinkd::row::{BlockChange, Changes, Counters, Statistics, StoredExperiment};
use shrinkd::worker::admission::Admission;
use shrinkd::worker::fold::{Folded, fold};
use shrinkd::worker::source::Record;
use shrinkd_core::{ExperimentKind, Grouping, Properties, decode};
use shrinkd_model::Direction;

fn by_team() -> Grouping {
    Grouping { labels: vec!["team".to_owned()], ..Grouping::default() }
}

/// A message of the experiment `e`.
fn message(revision: u64, team: &str, results: &str) -> Record {
    message_with(1, revision, team, "", results)
}

/// The same of a version of the contract, with further fields.
fn message_with(version: u64, revision: u64, team: &str, fields: &str, results: &str) -> Record {
    let message = format!(
        r#"{{"schema_version":{version},"experiment_id":"e","revision":{revision},{fields}"completed_at":"2026-11-01T12:00:00Z","labels":{{"team":"{team}"}},"results":[{results}]}}"#
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

/// What changes add to the counts of all populations together.
fn counted(changes: &Changes) -> Counters {
    let mut sum = Statistics::default();
    for BlockChange { before, after, .. } in &changes.block_changes {
        sum.apply(before.as_ref(), after.as_ref()).expect("sound blocks");
    }
    sum.counters
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
    let changes: Vec<_> =
        moved.block_changes.iter().map(|it| (&it.population, it.before.is_some(), it.after.is_some())).collect();
    assert_eq!(changes, [(&from, true, false), (&to, false, true)]);
    assert_eq!(moved.blocks.iter().map(|row| &row.block.population).collect::<Vec<_>>(), [&Some(to.clone())]);
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

#[test]
fn a_holdout_is_stored_with_its_blocks_and_is_in_no_population() {
    let holdout = message_with(2, 1, "search", r#""kind":"holdout","#, &result("all"));
    let first = folded(holdout.clone(), None).changes;
    assert_eq!(first.new_experiments[0].latest.kind, ExperimentKind::Holdout);
    let block = &first.blocks[0].block;
    assert!(block.population.is_none() && block.block.is_some(), "{block:?}");
    assert!(first.block_changes.is_empty() && first.changed.is_empty() && first.new_populations.is_empty());

    // Its revisions and retractions are those of an experiment.
    let kept = stored(&first, None);
    assert_eq!(folded(holdout, Some(&kept)).counts.duplicates, 1);
    let retraction = message_with(2, 2, "search", r#""kind":"holdout","#, r#"{"metric":"m","status":"retracted"}"#);
    let withdrawn = folded(retraction, Some(&kept)).changes;
    assert_eq!(withdrawn.withdrawn_blocks.len(), 1);
    assert!(withdrawn.block_changes.is_empty() && withdrawn.retired.is_empty());
}

#[test]
fn an_experiment_that_turns_out_a_holdout_leaves_its_population_and_may_come_back() {
    let first = folded(message(1, "search", &result("all")), None).changes;
    let left = folded(message_with(2, 2, "search", r#""kind":"holdout","#, ""), Some(&stored(&first, None))).changes;
    assert_eq!(left.retired.len(), 2);
    assert_eq!((counted(&left).experiments, left.changed.len()), (-1, 0));
    assert_eq!(left.blocks[0].block.population, None);

    let holdout = StoredExperiment {
        latest: left.experiments[0].latest.clone(),
        retractions: None,
        blocks: left.blocks.iter().map(|row| row.block.clone()).collect(),
    };
    let back = folded(message(3, "search", ""), Some(&holdout)).changes;
    assert_eq!((counted(&back).experiments, back.changed.len(), back.retired.len()), (1, 1, 0));
    assert_eq!(back.blocks[0].block, first.blocks[0].block);
}

#[test]
fn what_was_shipped_is_written_with_every_estimate_of_the_experiment() {
    let first = folded(message(1, "search", &[result("all"), result("new")].join(",")), None).changes;
    let kept = stored(&first, None);
    let shipped = folded(message_with(1, 2, "search", r#""shipped_variant":"b","#, ""), Some(&kept)).changes;
    assert_eq!(shipped.changed.len(), 2);
    assert!(shipped.changed.iter().all(|block| block.shipped_variant.as_deref() == Some("b")));
    assert_eq!(shipped.block_changes.len(), 2, "they are diagnosed anew");
    assert_eq!(counted(&shipped), Counters::default(), "the statistics stay");
}

#[test]
fn a_direction_that_comes_later_takes_effect_on_the_rows_of_the_same_block() {
    let first = folded(message(1, "search", &result("all")), None).changes;
    let kept = stored(&first, None);
    for revision in [1, 2] {
        let directed =
            result("all").replace(r#""metric":"m""#, r#""metric":"m","direction":"decrease","coverage":0.5"#);
        let changes = folded(message(revision, "search", &directed), Some(&kept)).changes;
        let expected = Properties { direction: Some(Direction::Decrease), coverage: Some(0.5) };
        assert_eq!(changes.changed[0].properties, expected);
        assert_eq!(changes.blocks[0].block.properties, expected);
        assert_eq!(changes.changed[0].measured, first.changed[0].measured);
    }
}

#[test]
fn what_a_duplicate_says_of_a_sum_that_waits_for_its_parts_is_stored() {
    let part = |properties: &str| {
        format!(
            r#"{{"metric":"m",{properties}"accumulate":true,"treatments":[{{"variant":"a","n":9,"mean":1,"variance":1}}]}}"#
        )
    };
    let sent = |properties: &str| message_with(1, 1, "search", r#""event_id":"one","#, &part(properties));
    let first = folded(sent(""), None).changes;
    assert!(first.blocks[0].pending.is_some());
    let kept = stored(&first, None);
    let directed = folded(sent(r#""direction":"decrease","coverage":0.5,"#), Some(&kept));
    let expected = Properties { direction: Some(Direction::Decrease), coverage: Some(0.5) };
    assert_eq!(directed.counts.duplicates, 1);
    let [row] = &directed.changes.blocks[..] else { panic!("{:?}", directed.changes.blocks) };
    assert!(row.block.properties == expected && row.pending.is_some(), "{row:?}");
    assert!(directed.changes.block_changes.is_empty());

    // The same again says nothing new, and neither does one that is silent.
    let kept = StoredExperiment { blocks: vec![row.block.clone()], ..kept };
    for properties in [r#""direction":"decrease","coverage":0.5,"#, ""] {
        assert!(folded(sent(properties), Some(&kept)).changes.blocks.is_empty());
    }
    // A larger revision says all anew.
    let newer = message_with(1, 2, "growth", r#""event_id":"two","#, &part(r#""direction":"increase","#));
    let changes = folded(newer, Some(&kept)).changes;
    let block = &changes.blocks[0].block;
    assert_eq!(block.properties, Properties { direction: Some(Direction::Increase), coverage: None });
    assert_eq!(changes.experiments[0].latest.labels["team"], "growth");
    assert_eq!(block.population.as_ref().map(ToString::to_string).as_deref(), Some("m/all/absolute/team=growth"));
}
