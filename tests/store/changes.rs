//! The log of what batches have changed in the blocks: every change is found, and folded into the statistics of its population once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shrinkd::refit::{Publication, apply};
use shrinkd::row::{FitRow, FitStatus};
use shrinkd::store::Store;
use shrinkd::worker::refit::RefitLoop;
use shrinkd_core::{History, PopulationName};
use shrinkd_model::Correlation;
use tokio_util::sync::CancellationToken;

use super::loops::{loops, priors, settle, take};
use super::refit::{begin_refit, filled, fit_row, refit, refit_at_once, refit_found, refitted};
use super::{Worker, event, population, promises, record};
use crate::common::database::{Database, PostgresDatabase, refuse_fits};
use shrinkd::worker::refit::Occasion;

promises! {
    those_that_have_waited_longest_come_first_after_those_that_are_due,
    a_population_that_waits_keeps_no_other_waiting_however_many_changes_it_has,
    a_population_with_more_changes_than_one_refit_takes_is_fitted_with_the_last_and_keeps_no_other_waiting,
    a_panic_over_one_population_is_noted_and_stops_no_other,
    changes_that_cannot_be_read_stay_in_the_log_and_fail_one_population_alone,
    a_population_whose_failure_cannot_be_noted_is_an_error_once_the_others_are_refitted,
    changes_count_as_folded_once_they_are,
    a_population_that_has_lost_its_row_is_not_looked_at_over_and_over,
}

const LOGGED: &str = "select population_id || ' ' || count(*) from block_changes group by population_id order by 1";

/// The populations that have changes in the log, and how many.
async fn logged(database: &impl Database) -> Vec<String> {
    database.texts(LOGGED).await.into_iter().flatten().collect()
}

async fn a_population_that_has_lost_its_row_is_not_looked_at_over_and_over<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    take(&mut worker, 0, 0.0).await;
    database.execute("delete from populations where population_id like 'a/%'").await;
    assert_eq!(store.populations_with_news().await.unwrap(), [population("b")]);
    settle(&loops(&store, priors("flat", "half-normal:1"))).await;
    assert_eq!(logged(database).await, ["a/all/absolute 1"], "its change is kept");
}

/// Puts 20,001 changes of population `m` into the log that change nothing, one more than a statement takes.
async fn flood(database: &impl Database) {
    let rows = "insert into block_changes (population_id, before, after)
                with recursive n(i) as (select 1 union all select i + 1 from n where i < 20001)
                select c.population_id, c.after, c.after from n, block_changes as c
                where c.change_id = (select min(change_id) from block_changes where population_id like 'm/%')";
    database.execute(rows).await;
}

async fn those_that_have_waited_longest_come_first_after_those_that_are_due<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 1).await;
    for (offset, metric) in (1..).zip(["z", "y", "b", "c", "z", "a"]) {
        worker.ingest(vec![record(0, offset, &event(&format!("exp-{offset}"), 1, metric, &[1.0]))]).await;
        if metric == "y" {
            refit_at_once(&store, &["z", "y"]).await;
        }
    }
    let due = "update populations set refit_due_at = '2001-01-01T00:00:00.000000Z' where population_id like 'a/%';
               update populations set refit_due_at = '2000-01-01T00:00:00.000000Z' where population_id like 'y/%'";
    database.execute(due).await;
    let news = ["y", "a", "m", "b", "c", "z"].map(population);
    assert_eq!(store.populations_with_news().await.unwrap(), news);
    assert_eq!(store.populations_with_news().await.unwrap(), news, "to look at it changes nothing");
}

async fn a_population_that_waits_keeps_no_other_waiting_however_many_changes_it_has<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 1).await;
    flood(database).await;
    // It could not be fitted, and is tried again later.
    let mut failed = store.begin_refit(&[population("m")]).await.unwrap();
    let state = failed.populations().await.unwrap().remove(&population("m")).unwrap();
    let fit = FitRow { status: FitStatus::Failed, ..fit_row(Correlation::Modelled, 0.0, 0.0) };
    failed.write(vec![refitted("m", &state, &[fit], Publication::Failed { is_pass_due: false })]).await.unwrap();
    failed.commit().await.unwrap();
    database.execute("update populations set refit_due_at = '2999-01-01T00:00:00.000000Z'").await;
    worker.ingest(vec![record(0, 1, &event("exp-1", 1, "n", &[1.0]))]).await;
    assert_eq!(store.populations_with_news().await.unwrap(), [population("n")]);
    refit(&store, "n", 1.0, 0.5, false).await;
    assert!(store.populations_with_news().await.unwrap().is_empty());
    // All of its changes are found once its time has come, though they are older than what others have.
    database
        .execute("update populations set refit_due_at = '2001-01-01T00:00:00.000000Z' where refit_due_at is not null")
        .await;
    assert_eq!(store.populations_with_news().await.unwrap(), [population("m")]);
    database.execute("delete from block_changes where change_id > 1000").await;
    assert_eq!(begin_refit(&store, "m").await.unwrap().1.statistics.counters.experiments, 1);
}

/// The populations that have fits, with the experiments and offsets that these have seen.
async fn fitted(database: &impl Database) -> Vec<String> {
    let fits = "select distinct population_id || ' ' || experiments || ' ' || cast(input_offsets as text)
                from current_population_fits order by 1";
    database.texts(fits).await.into_iter().flatten().map(|fit| fit.replace("\": ", "\":")).collect()
}

async fn a_population_with_more_changes_than_one_refit_takes_is_fitted_with_the_last_and_keeps_no_other_waiting<
    D: Database,
>(
    database: &D,
) {
    let store = database.store().await;
    let loops = loops(&store, priors("flat", "half-normal:1"));
    let refit = &loops.0;
    let mut worker = filled(&store, 2).await;
    // Once from its log alone, then from its blocks, then from its cells.
    for (i, offset) in [2, 5, 8].into_iter().enumerate() {
        let records =
            [(0, "m", &[0.0][..]), (1, "n", &[1.0, 2.0]), (2, "m", &[2.0, 2.0])].map(|(i, metric, effects)| {
                record(0, offset + i, &event(&format!("exp-{}", offset + i), 1, metric, effects))
            });
        worker.ingest(records.into()).await;
        let mut expected = store.population_state(&population("m")).await.unwrap().statistics;
        flood(database).await;
        expected.counters.changes += 20_001;
        let before = fitted(database).await;
        if i == 1 {
            // It gets cells first.
            refit.refit_all(Occasion::News).await.unwrap();
            assert_eq!(store.population_state(&population("m")).await.unwrap().statistics, expected);
        }
        refit.refit_all(Occasion::News).await.unwrap();
        let left = logged(database).await;
        assert_eq!(left, [if i == 0 { "m/all/absolute 5" } else { "m/all/absolute 3" }], "{i}");
        let now = fitted(database).await;
        let of_m = |fits: &[String]| fits.iter().find(|fit| fit.starts_with('m')).cloned();
        assert_eq!(of_m(&now), of_m(&before), "its fit is that of before until all has been seen");
        assert_eq!(now.last(), Some(&format!("n/all/absolute {} {{\"experiments/0\":{}}}", i + 1, offset + 3)));
        assert_eq!(store.population_state(&population("m")).await.unwrap().statistics, expected, "nothing is lost");
        assert_eq!(store.populations_with_news().await.unwrap(), [population("m")], "the rest is due at once");
        refit.refit_all(Occasion::News).await.unwrap();
        assert_eq!(logged(database).await, [""; 0]);
        let fit = format!("m/all/absolute {} {{\"experiments/0\":{}}}", 2 * (i + 2), offset + 3);
        assert_eq!(of_m(&fitted(database).await), Some(fit));
        let state = store.population_state(&population("m")).await.unwrap();
        assert_eq!((state.statistics, state.has_cells), (expected, true));
        settle(&loops).await;
        if i == 0 {
            // As small populations are.
            let small = match database.url().starts_with("sqlite") {
                true => "update populations set has_cells = 0; delete from population_cells",
                false => "update populations set has_cells = false; delete from population_cells",
            };
            database.execute(small).await;
        }
    }
}

async fn a_panic_over_one_population_is_noted_and_stops_no_other<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    take(&mut Worker::claim(&store, &[0]).await, 0, 0.0).await;
    let (usual, panics) = (Arc::clone(&refit.settings), AtomicUsize::new(0));
    // With the group, and alone.
    let planted = move |name: &PopulationName| match *name == population("a") && panics.fetch_add(1, Relaxed) < 2 {
        true => panic!("planted"),
        false => usual(name),
    };
    let refit = RefitLoop { settings: Arc::new(planted), ..refit };
    assert_eq!(refit.refit_all(Occasion::News).await.expect("the other population is fitted"), 2);
    let fits = "select distinct population_id || ' ' || status || ' ' || coalesce(message, '')
                from current_population_fits order by 1";
    let fits: Vec<String> = database.texts(fits).await.into_iter().flatten().collect();
    let [of_a, of_b] = &fits[..] else { panic!("{fits:?}") };
    assert!(of_a.starts_with("a/all/absolute failed a computation panicked"), "{of_a}");
    assert!(of_b.starts_with("b/all/absolute fitted"), "{of_b}");
    assert_eq!(logged(database).await, ["a/all/absolute 1"]);
}

async fn changes_that_cannot_be_read_stay_in_the_log_and_fail_one_population_alone<D: Database>(database: &D) {
    let store = database.store().await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    let mut worker = Worker::claim(&store, &[0]).await;
    for i in 0..2 {
        take(&mut worker, i, 0.0).await;
    }
    database.execute("create table sound as select * from block_changes").await;
    database.execute("update block_changes set after = substr(after, 1, 3) where population_id like 'a/%'").await;
    refit.refit_all(Occasion::News).await.expect("the other population is fitted");
    let fitted =
        database.texts("select distinct population_id || ' ' || status from current_population_fits order by 1");
    let fitted: Vec<String> = fitted.await.into_iter().flatten().collect();
    assert_eq!(fitted, ["a/all/absolute failed", "b/all/absolute fitted"]);
    assert_eq!(logged(database).await, ["a/all/absolute 2"]);
    let message = database.texts("select distinct message from current_population_fits where status = 'failed'").await;
    let message = message[0].as_deref().expect("a message");
    assert!(message.contains("block_changes.after in the database is damaged"), "{message}");
    assert!(store.populations_with_news().await.unwrap().is_empty(), "it is tried again later");

    let mended = "update block_changes
                  set after = (select s.after from sound as s where s.change_id = block_changes.change_id);
                  update populations set refit_due_at = created_at where refit_due_at is not null";
    database.execute(mended).await;
    refit.refit_all(Occasion::News).await.unwrap();
    assert_eq!(logged(database).await, [""; 0]);
    let (a, b) = (population("a"), population("b"));
    let (a, b) =
        (store.population_state(&a).await.unwrap().statistics, store.population_state(&b).await.unwrap().statistics);
    assert_eq!(a.counters, b.counters, "the same data");
    assert_eq!(a.sketches.of(Correlation::Modelled), b.sketches.of(Correlation::Modelled), "the same data");
}

async fn a_population_whose_failure_cannot_be_noted_is_an_error_once_the_others_are_refitted<D: Database>(
    database: &D,
) {
    let store = database.store().await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    take(&mut Worker::claim(&store, &[0]).await, 0, 0.0).await;
    let refuse_all = match database.url().starts_with("sqlite") {
        true => {
            "create trigger planted before insert on current_population_fits
             when new.population_id like 'a/%' begin select raise(abort, 'planted'); end"
        }
        false => {
            "alter table current_population_fits add constraint planted check (population_id not like 'a/%') not valid"
        }
    };
    database.execute(refuse_all).await;
    let error =
        refit.refit_all(Occasion::News).await.expect_err("nothing says of the population that it is not fitted");
    assert!(error.to_string().contains("refit: fits"), "{error}");
    assert_eq!(logged(database).await, ["a/all/absolute 1"]);
    assert_eq!(store.populations_with_news().await.unwrap(), [population("a")], "it is tried again at once");
}

async fn changes_count_as_folded_once_they_are<D: Database>(database: &D) {
    let store = database.store().await;
    let loops = loops(&store, priors("flat", "half-normal:1"));
    let mut worker = Worker::claim(&store, &[0]).await;
    let folded = || {
        let shown = loops.0.telemetry.metrics.render(&loops.0.telemetry.health);
        let series = shown.lines().find_map(|line| line.strip_prefix("shrinkd_folded_changes_total "));
        series.expect("the series").to_owned()
    };
    for (i, expected) in [(0, "2"), (1, "4")] {
        take(&mut worker, i, 0.0).await;
        settle(&loops).await;
        assert_eq!(folded(), expected);
    }
    refuse_fits(database).await;
    take(&mut worker, 2, 0.0).await;
    settle(&loops).await;
    assert_eq!((folded().as_str(), logged(database).await), ("5", vec!["a/all/absolute 1".to_owned()]));
}

/// The next record of a worker that has partition 0.
fn next(worker: &Worker) -> i64 {
    worker.claims[&0].next_offset.map_or(0, |next| next.0)
}

#[tokio::test]
async fn postgres_finds_the_changes_of_a_batch_that_commits_after_later_ones_were_found() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let (mut slow, mut worker) = (Worker::claim(&store, &[1]).await, Worker::claim(&store, &[0]).await);
    // It commits as soon as those of later batches were found, or once they were folded and looked for in vain.
    for (looks, experiments) in [(0, 1), (3, 2)] {
        let offset = next(&worker);
        let records = vec![record(1, offset, &event(&format!("exp-{offset}-m"), 1, "m", &[1.0]))];
        let advance = slow.advances(&records)[0];
        let (open, ..) = slow.write(records).await.unwrap();
        worker.ingest(vec![record(0, offset, &event(&format!("exp-{offset}-n"), 1, "n", &[1.0]))]).await;
        assert_eq!(store.populations_with_news().await.unwrap(), [population("n")]);
        refit(&store, "n", 1.0, 0.5, false).await;
        for _ in 0..looks {
            assert!(store.populations_with_news().await.unwrap().is_empty());
        }
        open.commit().await.unwrap();
        slow.claims.get_mut(&1).unwrap().next_offset = Some(advance.to);
        assert_eq!(store.populations_with_news().await.unwrap(), [population("m")]);
        let state = refit(&store, "m", 1.0, 0.5, false).await;
        assert_eq!(state.statistics.counters.experiments, experiments);
    }
    database.remove().await;
}

#[tokio::test]
async fn postgres_finds_changes_of_transactions_that_had_ended_before_if_not_at_once() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let mut worker = filled(&store, 1).await;
    store.populations_with_news().await.unwrap();
    refit(&store, "m", 1.0, 0.5, false).await;
    store.populations_with_news().await.unwrap();
    // As after a crash, when the server gives the number of a transaction to another.
    worker.ingest(vec![record(0, 1, &event("exp-1", 1, "m", &[1.0]))]).await;
    database.execute("update block_changes set transaction_id = 3").await;
    assert!(store.populations_with_news().await.unwrap().is_empty(), "it looks where there may be something");
    let mut looks = 0;
    while store.populations_with_news().await.unwrap().is_empty() {
        looks += 1;
        assert!(looks < 60, "it is not found");
    }
    let state = refit(&store, "m", 1.0, 0.5, false).await;
    assert_eq!((state.statistics.counters.experiments, logged(&database).await), (2, vec![]));
    database.remove().await;
}

#[tokio::test]
async fn postgres_refits_the_others_where_one_meets_an_error_that_could_be_of_the_store() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    let mut worker = Worker::claim(&store, &[0]).await;
    let plant = "create function planted() returns trigger language plpgsql as
                 $$ begin raise exception 'planted' using errcode = '53100'; end $$;
                 create trigger planted before insert on current_population_fits for each row
                 when (new.population_id < 'b') execute function planted()";
    database.execute(plant).await;
    take(&mut worker, 0, 0.0).await;
    let error = refit.refit_all(Occasion::News).await.expect_err("one could not be refitted");
    assert!(error.to_string().contains("planted"), "{error}");
    assert_eq!(logged(&database).await, ["a/all/absolute 1"], "the other was");
    database.remove().await;
}

#[tokio::test]
async fn postgres_refits_the_others_where_another_worker_has_one() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let (refit, _) = loops(&store, priors("flat", "half-normal:1"));
    take(&mut Worker::claim(&store, &[0]).await, 0, 0.0).await;
    let (held, _) = begin_refit(&store, "a").await.expect("the population is free");
    refit.refit_all(Occasion::News).await.unwrap();
    assert_eq!(logged(&database).await, ["a/all/absolute 1"]);
    held.rollback().await.unwrap();
    refit.refit_all(Occasion::News).await.unwrap();
    assert_eq!(logged(&database).await, [""; 0]);
    database.remove().await;
}

#[tokio::test]
async fn postgres_says_of_each_population_of_a_group_what_was_read_when_its_own_changes_were_taken() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    worker
        .ingest(vec![record(0, 2, &event("exp-2", 1, "m", &[1.0])), record(0, 3, &event("exp-3", 1, "n", &[1.0]))])
        .await;
    // The one is summed from its blocks, of the other the log says all, which is another statement: a batch comes between.
    let both = ["m", "n"].map(population);
    let mut refit = store.begin_refit(&both).await.unwrap();
    let mut states = refit.populations().await.unwrap();
    refit.read_statistics(&mut states).await.unwrap();
    apply(&mut states, refit.take().await.unwrap().expect("those of blocks")).unwrap();
    let more = [(4, "m"), (5, "n")].map(|(i, metric)| record(0, i, &event(&format!("exp-{i}"), 1, metric, &[1.0])));
    worker.ingest(more.into()).await;
    while let Some(taken) = refit.take().await.unwrap() {
        apply(&mut states, taken).unwrap();
    }
    let seen = both.map(|population| {
        let state = &states[&population];
        (
            state.statistics.counters.experiments,
            state.input_offsets.iter().map(|(.., offset)| *offset).collect::<Vec<_>>(),
        )
    });
    assert_eq!(seen, [(3, vec![4]), (2, vec![6])]);
    refit.rollback().await.unwrap();
    database.remove().await;
}

/// Refits whatever a look finds, again and again, and once more when no batch comes any more.
async fn refit_until(store: &Store, stop: &CancellationToken) -> i64 {
    let mut folded = 0;
    loop {
        let is_last = stop.is_cancelled();
        let found = store.populations_with_news().await.unwrap();
        folded += refit_found(store, &found).await.values().map(|state| state.logged).sum::<i64>();
        if is_last {
            return folded;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_folds_every_change_once_whichever_of_two_workers_refits_and_whatever_comes_in() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let metrics = ["a", "b", "c", "d"];
    let stop = CancellationToken::new();
    let refitting: Vec<_> = [database.store().await, database.store().await]
        .into_iter()
        .map(|store| {
            let stop = stop.clone();
            tokio::spawn(async move { refit_until(&store, &stop).await })
        })
        .collect();
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let (mut history, mut messages) = (History::default(), 0);
    // Two of them outgrow their blocks, and everything is revised once.
    for round in 0..40_u64 {
        let batch = metrics.iter().zip([6, 4, 1, 1]).flat_map(|(metric, experiments)| {
            (0..experiments)
                .map(move |i| event(&format!("exp-{metric}-{}-{i}", round % 20), round, metric, &[round as f64, 0.1]))
        });
        let batch: Vec<String> = batch.collect();
        messages += batch.len() as i64;
        batch.iter().for_each(|message| drop(history.take(shrinkd_core::decode(message.as_bytes()))));
        let from = next(&worker);
        worker.ingest((from..).zip(&batch).map(|(offset, message)| record(0, offset, message)).collect()).await;
    }
    stop.cancel();
    let mut folded = Vec::new();
    for refitting in refitting {
        folded.push(refitting.await.unwrap());
    }
    assert_eq!(logged(&database).await, [""; 0], "the last look of either has found what was left");
    assert!(folded.iter().all(|changes| *changes > 0), "both have folded: {folded:?}");
    let populations = history.into_populations(1).unwrap();
    let mut changes = 0;
    for metric in metrics {
        let (name, state) = (population(metric), store.population_state(&population(metric)).await.unwrap());
        assert_eq!(state.statistics.sketches, populations[&name].sketches, "{metric}: bit for bit");
        assert_eq!(state.statistics.counters.experiments, populations[&name].members.len() as i64);
        changes += state.statistics.counters.changes;
    }
    assert_eq!(changes, messages, "every change once");
    let with_cells: BTreeMap<_, _> = metrics.into_iter().zip([true, true, false, false]).collect();
    for (metric, has_cells) in with_cells {
        assert_eq!(store.population_state(&population(metric)).await.unwrap().has_cells, has_cells, "{metric}");
    }
    database.remove().await;
}
