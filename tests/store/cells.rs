//! Whatever way events come in, the cells, the counters and the estimates are those of the blocks that stand.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd::row::Counters;
use shrinkd::simulate::Draws;
use shrinkd::store::Store;
use shrinkd::worker::source::Record;
use shrinkd_core::{History, PopulationName};
use shrinkd_model::Sketches;
use sqlx::{Connection, PgConnection};

use super::refit::{filled, refit, refit_at_once};
use super::{Worker, event, message, promises, record, retraction, tombstone};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::settling::until_it_waits;

promises! {
    cells_after_any_interleaving_are_those_of_the_blocks_that_stand,
    statistics_that_refits_fold_are_those_of_the_blocks_that_stand_however_a_population_grows_and_shrinks,
    a_population_has_cells_from_its_65th_experiment_on,
    what_is_withdrawn_leaves_no_trace,
    a_sum_that_waits_for_its_parts_can_be_retracted,
}

const PARTITIONS: [i32; 3] = [0, 1, 2];

async fn cells_after_any_interleaving_are_those_of_the_blocks_that_stand<D: Database>(database: &D) {
    let store = database.store().await;
    let mut history = Vec::new();
    let mut next = BTreeMap::from(PARTITIONS.map(|partition| (partition, 0)));
    let mut withdrawn = 0;
    for seed in 0..12 {
        let mut draws = Draws::new(seed, 0);
        // Every seed goes on with what the seeds before it have left, as a worker that was started again.
        let mut worker = Worker::claim(&store, &PARTITIONS).await;
        let mut messages: Vec<String> = (0..40).map(|_| any_message(&mut draws)).collect();
        history.extend(messages.iter().cloned());
        while !messages.is_empty() {
            let size = (draws.between(1.0, 14.0) as usize).min(messages.len());
            let own = draws.pick(&PARTITIONS).unwrap();
            let batch: Vec<Record> = messages
                .drain(..size)
                .map(|message| {
                    // Most batches hold one partition; a message may come in any, as after a change of their number.
                    let partition = if draws.chance(0.8) { own } else { draws.pick(&PARTITIONS).unwrap() };
                    let offset = next.get_mut(&partition).unwrap();
                    *offset += 1;
                    record(partition, *offset - 1, &message)
                })
                .collect();
            worker.ingest(batch).await;
        }
        withdrawn += assert_store_equals(database, &store, &history).await;
    }
    assert!(withdrawn > 0, "some population was emptied again");
}

async fn statistics_that_refits_fold_are_those_of_the_blocks_that_stand_however_a_population_grows_and_shrinks<
    D: Database,
>(
    database: &D,
) {
    let store = database.store().await;
    let mut draws = Draws::new(7, 0);
    let mut worker = Worker::claim(&store, &[0]).await;
    let metrics = ["grows", "jumps", "small"];
    let (mut history, mut revision, mut has_shrunk) = (Vec::new(), 0, false);
    // One grows past what is summed from its blocks a few at a time, another at once and by its first refit, and one never. Then
    // they shrink to nothing, and grow again.
    for (step, withdrawn) in [0.0, 0.0, 0.2, 0.2, 1.0, 0.1, 0.1].into_iter().enumerate() {
        let mut messages = Vec::new();
        for (metric, experiments) in [("grows", 40 * step.min(3) + 10), ("jumps", 120), ("small", 9)] {
            for experiment in 0..experiments {
                if withdrawn < 1.0 && draws.chance(0.3) || metric == "jumps" && step == 1 {
                    continue;
                }
                revision += 1;
                let id = format!("exp-{experiment}-{metric}");
                messages.push(match draws.chance(withdrawn) {
                    true => retraction(&id, revision, metric),
                    false => event(&id, revision, metric, &[draws.normal(0.0, 3.0), draws.normal(0.0, 0.01)]),
                });
            }
        }
        for part in messages.chunks(messages.len().div_ceil(3)) {
            let offset = worker.claims[&0].next_offset.map_or(0, |next| next.0);
            worker.ingest((offset..).zip(part).map(|(offset, message)| record(0, offset, message)).collect()).await;
        }
        history.extend(messages);
        assert_store_equals(database, &store, &history).await;
        let refitted = refit_at_once(&store, &metrics).await;
        assert_store_equals(database, &store, &history).await;
        assert_eq!(database.count("select cast(count(*) as text) from block_changes").await, 0);
        has_shrunk |= refitted.values().any(|state| state.has_cells && state.statistics.counters.experiments == 0);
    }
    assert!(has_shrunk, "one that has cells was empty");
    let with_cells = "select population_id from populations where has_cells and experiments > 64 order by 1";
    let with_cells: Vec<String> = database.texts(with_cells).await.into_iter().flatten().collect();
    assert_eq!(with_cells, ["grows/all/absolute", "jumps/all/absolute"]);
    let small = "select cast(count(*) as text) from population_cells where population_id like 'small/%'";
    assert_eq!(database.count(small).await, 0);
}

async fn a_population_has_cells_from_its_65th_experiment_on<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 64).await;
    let has_cells = "select cast(count(*) as text) from populations where has_cells";
    for (offset, expected) in [(64, 0), (65, 1)] {
        refit_at_once(&store, &["m"]).await;
        assert_eq!(database.count(has_cells).await, expected, "with {offset} experiments");
        worker.ingest(vec![record(0, offset, &event(&format!("exp-{offset}"), 1, "m", &[1.0]))]).await;
    }
}

async fn what_is_withdrawn_leaves_no_trace<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &PARTITIONS).await;
    for (revision, partition) in PARTITIONS.into_iter().enumerate() {
        worker.ingest(vec![record(partition, 0, &event("exp-1", revision as u64, "m", &[1.0, 0.3]))]).await;
    }
    worker.ingest(vec![record(1, 1, &retraction("exp-1", 9, "m"))]).await;
    let state = store.population_state(&super::population("m")).await.unwrap();
    assert_eq!(state.statistics.sketches, Sketches::default());
    assert_eq!(state.statistics.counters, Counters { changes: 4, experiments: 0, effects: 0 });
    for query in ["select cast(count(*) as text) from blocks", "select cast(count(*) as text) from effect_estimates"] {
        assert_eq!(database.count(query).await, 0);
    }
}

async fn a_sum_that_waits_for_its_parts_can_be_retracted<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let waiting = r#"{"metric":"m","accumulate":true,"treatments":[{"variant":"v","n":9,"mean":1.0,"variance":1.0}]}"#;
    let waiting = message("exp-1", 1, waiting).replacen("\"revision\"", "\"event_id\":\"e1\",\"revision\"", 1);
    assert_eq!(worker.ingest(vec![record(0, 0, &waiting)]).await.pending, 1);
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 1);
    worker.ingest(vec![record(0, 1, &retraction("exp-1", 2, "m"))]).await;
    assert_eq!(database.count("select cast(count(*) as text) from blocks").await, 0);
}

/// Compares with all messages folded in memory; returns how many populations are empty.
async fn assert_store_equals<D: Database>(database: &D, store: &Store, messages: &[String]) -> usize {
    let mut history = History::default();
    for message in messages {
        history.take(shrinkd_core::decode(message.as_bytes()));
    }
    let pending = history.pending().count() as i64;
    let populations = history.into_populations(1).unwrap();
    let stored = database.texts("select population_id from populations").await;
    let stored: BTreeSet<PopulationName> = stored.iter().flatten().map(|name| name.parse().unwrap()).collect();
    assert!(populations.keys().all(|name| stored.contains(name)));
    let mut expected = BTreeSet::new();
    for name in &stored {
        let state = store.population_state(name).await.unwrap();
        let population = populations.get(name);
        let sketches = population.map(|population| population.sketches.clone()).unwrap_or_default();
        assert_eq!(state.statistics.sketches, sketches, "{name}: bit for bit");
        let experiments = population.map_or(0, |population| population.members.len() as i64);
        let effects = population.map_or(0, |population| population.members.iter().map(|m| m.block().len()).sum());
        assert_eq!(
            (state.statistics.counters.experiments, state.statistics.counters.effects),
            (experiments, effects as i64),
            "{name}"
        );
        for experiment in population.iter().flat_map(|population| &population.experiments) {
            let (id, revision) = (&experiment.experiment_id, experiment.revision);
            expected.extend(experiment.variants.iter().map(|variant| format!("{name} {id} {variant} {revision}")));
        }
    }
    let rows =
        "select population_id || ' ' || experiment_id || ' ' || variant || ' ' || block_revision from effect_estimates";
    assert_eq!(database.texts(rows).await.into_iter().flatten().collect::<BTreeSet<_>>(), expected);
    let waiting = "select cast(count(*) as text) from blocks where block is null and pending_reason is not null";
    assert_eq!(database.count(waiting).await, pending);
    stored.len() - populations.len()
}

/// Few experiments, metrics and revisions, so that messages meet each other.
fn any_message(draws: &mut Draws) -> String {
    let experiment = draws.pick(&["exp-1", "exp-2", "exp-3", "exp-4"]).unwrap();
    let metric = draws.pick(&["m", "m/2", "rare"]).unwrap();
    let revision = draws.between(0.0, 8.0) as u64;
    let estimate = draws.normal(0.0, 1.0);
    match draws.between(0.0, 10.0) as u32 {
        0 => tombstone(experiment),
        1 => retraction(experiment, revision, metric),
        2 => "not JSON".to_owned(),
        3 => dense(experiment, revision, metric, estimate),
        4 | 5 => part(draws, experiment, revision, metric),
        6 => two_results(experiment, revision, estimate),
        variants => {
            let estimates: Vec<f64> = (5..variants).map(|_| draws.normal(0.0, 30.0)).collect();
            event(experiment, revision, metric, &estimates)
        }
    }
}

fn dense(experiment: &str, revision: u64, metric: &str, estimate: f64) -> String {
    let effects = format!(r#"[{{"variant":"v1","estimate":{estimate}}},{{"variant":"other","estimate":0.1}}]"#);
    let result = format!(r#"{{"metric":"{metric}","effects":{effects},"covariance":[[2.0,0.5],[0.5,0.3]]}}"#);
    message(experiment, revision, &result)
}

/// A part that can be estimated alone, or one that waits for a control.
fn part(draws: &mut Draws, experiment: &str, revision: u64, metric: &str) -> String {
    let event_id = draws.pick(&["e1", "e2", "e3"]).unwrap();
    let arm = |draws: &mut Draws, variant: &str| {
        let mean = draws.normal(5.0, 1.0);
        format!(r#"{{"variant":"{variant}","n":20,"mean":{mean},"variance":1.5}}"#)
    };
    let control = match draws.chance(0.5) {
        true => format!(r#""control":{},"#, arm(draws, "control")),
        false => String::new(),
    };
    let treatment = arm(draws, "v1");
    let result = format!(r#"{{"metric":"{metric}","accumulate":true,{control}"treatments":[{treatment}]}}"#);
    message(experiment, revision, &result).replacen(
        "\"revision\"",
        &format!("\"event_id\":\"{event_id}\",\"revision\""),
        1,
    )
}

/// One result that is taken and one that is refused.
fn two_results(experiment: &str, revision: u64, estimate: f64) -> String {
    let taken = format!(r#"{{"metric":"m","effects":[{{"variant":"v0","estimate":{estimate},"variance":0.5}}]}}"#);
    let refused = r#"{"metric":"rare","effects":[{"variant":"v0","estimate":1,"variance":-1}]}"#;
    message(experiment, revision, &format!("{taken},{refused}"))
}

#[tokio::test]
async fn postgres_gives_a_population_no_cells_of_what_has_been_refitted_or_rebuilt_meanwhile() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    let cells = "select cast(count(*) as text) from population_cells";
    for (i, theirs) in [
        "update populations set changes = changes + 1; commit",
        "create table log as select * from block_changes; delete from block_changes;
         insert into block_changes (population_id, before, after) select population_id, before, after from log; commit",
        "commit",
    ]
    .into_iter()
    .enumerate()
    {
        worker.ingest(vec![record(0, 2 + i as i64, &event(&format!("exp-{}", 2 + i), 1, "m", &[1.0]))]).await;
        let mut other = PgConnection::connect_with(&database.options()).await.unwrap();
        sqlx::raw_sql("begin; lock table populations in exclusive mode").execute(&mut other).await.unwrap();
        let giving = tokio::spawn({
            let store = store.clone();
            async move { store.give_cells(&super::population("m")).await }
        });
        // It has read everything, and is about to write.
        until_it_waits(&database, &giving).await;
        sqlx::raw_sql(theirs).execute(&mut other).await.unwrap();
        giving.await.unwrap().expect("it is no error");
        assert_eq!(database.count(cells).await > 0, theirs == "commit", "{theirs}");
    }
    database.remove().await;
}
