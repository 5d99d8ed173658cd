//! The passes that rewrite the estimates of a whole population.

use shrinkd::estimate::BlockEstimates;
use shrinkd::refit::Publication;
use shrinkd::row::{
    BlockToPublish, CellDiagnostics, DuePass, EndedPass, EstimateRow, Pass, PassDiagnostics, PublishedFit,
};
use shrinkd::store::Store;
use shrinkd_core::PopulationName;
use shrinkd_model::{Calibration, Correlation, Direction, Measure, Miscalibration, Selection, Verdict};
use time::{Duration, OffsetDateTime};

use super::refit::{
    alike_row, begin, begin_refit, diagnostics, filled, fit_row, largest, node, refit, refitted, written,
};
use super::{Worker, event, message, population, promises, record, retraction};
use crate::common::database::Database;

promises! {
    a_publish_rewrites_the_rows_of_older_fits,
    the_nodes_of_a_published_fit_come_back_with_their_intraclass_correlations,
    a_published_row_has_the_probability_that_its_variant_is_the_best,
    a_block_that_changed_since_it_was_read_is_left_alone,
    a_retracted_block_is_never_revived,
    a_row_of_the_same_or_a_newer_fit_is_left_alone,
    a_pass_is_refused_to_others_until_it_is_abandoned,
    a_pass_goes_on_after_the_last_page,
    pages_hold_every_block_once_in_order,
    a_newer_fit_ends_the_pass_of_the_older,
    a_pass_is_due_for_a_publish_or_for_old_diagnostics,
    diagnostics_are_carried_over_until_the_next_pass,
    the_latest_diagnostics_are_shown_and_carried_over,
    a_sum_that_is_still_pending_is_not_read_to_publish,
    populations_whose_latest_diagnostics_suspect_a_selection_are_counted,
}

/// The rows of blocks under a fit.
fn page(blocks: &[BlockToPublish], fit: &PublishedFit) -> Vec<EstimateRow> {
    let estimates = |it: &BlockToPublish| BlockEstimates::new(&it.block, it.commit_id, fit).rows;
    blocks.iter().flat_map(estimates).collect()
}

/// A population's blocks after an experiment.
pub async fn blocks_after(store: &Store, name: &PopulationName, after: &str, limit: usize) -> Vec<BlockToPublish> {
    let read = store.blocks_after(std::slice::from_ref(name), (&name.to_string(), after), limit).await;
    read.expect("the blocks").into_iter().map(|block| block.expect("it can be read")).collect()
}

/// Writes a page of one pass. `None` if another worker has taken it over.
pub async fn write_page(store: &Store, pass: &Pass, rows: Vec<EstimateRow>, cursor: &str) -> Option<u64> {
    let (kept, written) = store.write_estimates(&[(pass, cursor)], rows).await.expect("the page is written");
    kept.contains(&pass.population).then_some(written)
}

/// Ends one pass.
pub async fn end_pass(
    store: &Store,
    pass: &Pass,
    is_diagnosis: bool,
    diagnostics: Option<(CellDiagnostics, PassDiagnostics)>,
) {
    let ended = EndedPass { pass: pass.clone(), is_diagnosis, diagnostics };
    store.end_passes(&[ended]).await.expect("the pass ends");
}

/// Reads all blocks, lets `meanwhile` happen, and writes them.
pub async fn publish(store: &Store, pass: &Pass, meanwhile: impl AsyncFnOnce()) -> Option<u64> {
    let blocks = blocks_after(store, &pass.population, "", 100).await;
    meanwhile().await;
    let rows = page(&blocks, &pass.fit);
    write_page(store, pass, rows, &blocks.last().expect("a block").block.experiment_id).await
}

async fn a_publish_rewrites_the_rows_of_older_fits<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    assert_eq!((pass.is_publish, pass.cursor.as_str()), (true, ""));
    assert_eq!(pass.fit.nodes, [node(1.0, 0.5)]);
    assert_eq!(pass.fit.naive_nodes, [node(2.0, 0.5)]);
    assert_eq!(publish(&store, &pass, async || ()).await, Some(6));
    assert!(written(database).await.iter().all(|(fit, mean)| *fit == pass.fit.fit_id && mean.is_some()));
    end_pass(&store, &pass, false, None).await;
    let pass = begin(&store, "a").await.unwrap();
    assert!(!pass.is_publish, "what is published is not published again");
}

async fn the_nodes_of_a_published_fit_come_back_with_their_intraclass_correlations<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 1).await;
    worker.ingest(vec![record(0, 1, &event("exp-0", 2, "m", &[0.7, 0.2]))]).await;
    let rows = [alike_row(0.1, 0.5, 0.75), fit_row(Correlation::Ignored, 0.3, 0.5)];
    let (mut refit, state) = begin_refit(&store, "m").await.unwrap();
    refit.write(vec![refitted("m", &state, &rows, Publication::Due(None))]).await.unwrap();
    refit.commit().await.unwrap();
    let pass = begin(&store, "a").await.unwrap();
    assert_eq!((&pass.fit.nodes, &pass.fit.naive_nodes), (&rows[0].nodes, &rows[1].nodes));
    let published = store.population_state(&population("m")).await.unwrap().published.expect("it is published");
    assert_eq!((published.icc, published.icc_sd), (Some(0.75), Some(0.0)));
    // As many as there are nodes, or none.
    database.execute("update population_fits set node_iccs = null").await;
    assert_eq!(begin(&store, "a").await.unwrap().fit.nodes, [node(0.1, 0.5)]);
    database.execute("update population_fits set node_iccs = nodes").await;
    let error = store.begin_passes(&[population("m")], "a").await.expect_err("they cannot be read");
    assert!(error.to_string().contains("population_fits.nodes"), "{error}");
}

async fn a_published_row_has_the_probability_that_its_variant_is_the_best<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 1).await;
    worker.ingest(vec![record(0, 1, &event("exp-0", 2, "m", &[0.7, 0.2]))]).await;
    refit(&store, "m", 0.1, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    publish(&store, &pass, async || ()).await;
    let rows = database.numbers("select prob_best from effect_estimates order by raw_estimate").await;
    let [[Some(worse)], [Some(better)]] = [&rows[0][..], &rows[1][..]] else { panic!("two probabilities: {rows:?}") };
    // The control is the best of them with what is left.
    assert!(0.0 < *worse && worse < better && worse + better < 1.0, "{rows:?}");
}

async fn a_block_that_changed_since_it_was_read_is_left_alone<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    let written = publish(&store, &pass, async || {
        worker.ingest(vec![record(0, 3, &event("exp-1", 2, "m", &[7.0, 8.0]))]).await;
        // Its fit alone would let it be rewritten.
        database.execute("update effect_estimates set fit_id = 0 where experiment_id = 'exp-1'").await;
    });
    assert_eq!(written.await, Some(4));
    let raw =
        database.numbers("select raw_estimate from effect_estimates where experiment_id = 'exp-1' order by variant");
    assert_eq!(raw.await, [[Some(7.0)], [Some(8.0)]]);
}

async fn a_retracted_block_is_never_revived<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    let retracted = publish(&store, &pass, async || {
        worker.ingest(vec![record(0, 2, &retraction("exp-1", 2, "m"))]).await;
    });
    assert_eq!(retracted.await, Some(2));
    assert_eq!(written(database).await.len(), 2);
}

async fn a_row_of_the_same_or_a_newer_fit_is_left_alone<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    assert_eq!(publish(&store, &pass, async || ()).await, Some(4));
    assert_eq!(publish(&store, &pass, async || ()).await, Some(0));
    database.execute("update effect_estimates set fit_id = fit_id + 1 where experiment_id = 'exp-0'").await;
    database.execute("update effect_estimates set fit_id = fit_id - 1 where experiment_id = 'exp-1'").await;
    assert_eq!(publish(&store, &pass, async || ()).await, Some(2));
}

pub fn due(metric: &str, experiments: u64, is_diagnosis_due: bool) -> DuePass {
    DuePass { population: population(metric), experiments, is_diagnosis_due }
}

async fn a_pass_is_refused_to_others_until_it_is_abandoned<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let first = begin(&store, "a").await.unwrap();
    assert!(begin(&store, "b").await.is_none());
    assert!(store.due_passes(Some(OffsetDateTime::now_utc()), "another").await.unwrap().is_empty());
    let own = store.due_passes(Some(OffsetDateTime::now_utc()), "a").await.unwrap();
    assert_eq!(own, [due("m", 2, true)], "what its owner has left waits for nobody else");
    assert!(begin(&store, "a").await.is_some(), "its owner may begin again");

    database.execute("update populations set pass_touched_at = '2020-01-01T00:00:00.000000Z'").await;
    assert_eq!(store.due_passes(Some(OffsetDateTime::now_utc()), "another").await.unwrap(), [due("m", 2, true)]);
    let second = begin(&store, "b").await.expect("an abandoned pass can be taken");
    assert_eq!(publish(&store, &first, async || ()).await, None);
    end_pass(&store, &first, false, None).await;
    assert_eq!(publish(&store, &second, async || ()).await, Some(4));
}

async fn a_pass_goes_on_after_the_last_page<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 3).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    let first = blocks_after(&store, &pass.population, &pass.cursor, 1).await;
    let rows = page(&first, &pass.fit);
    assert_eq!(write_page(&store, &pass, rows, "exp-0").await, Some(2));
    let again = begin(&database.store().await, "a").await.unwrap();
    assert_eq!((again.cursor.as_str(), again.is_publish), ("exp-0", true));
    let rest = blocks_after(&store, &again.population, &again.cursor, 9).await;
    assert_eq!(rest.iter().map(|row| row.block.experiment_id.as_str()).collect::<Vec<_>>(), ["exp-1", "exp-2"]);
}

async fn pages_hold_every_block_once_in_order<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let ids = ["a", "A", "Z", "é", "_", "a b", "10", "9", "z-1"];
    let records = ids.iter().enumerate().map(|(i, id)| record(0, i as i64, &event(id, 1, "m", &[1.0])));
    worker.ingest(records.collect()).await;
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = blocks_after(&store, &population("m"), &cursor, 2).await;
        let Some(last) = page.last() else { break };
        cursor = last.block.experiment_id.clone();
        assert!(page.iter().all(|row| row.decision.as_deref() == Some("shipped") && row.block.revision == 1));
        seen.extend(page.into_iter().map(|row| row.block.experiment_id));
    }
    seen.sort();
    let mut expected = ids.to_vec();
    expected.sort();
    assert_eq!(seen, expected);
}

async fn a_newer_fit_ends_the_pass_of_the_older<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let older = begin(&store, "a").await.unwrap();
    refit(&store, "m", 2.0, 0.5, true).await;
    assert_eq!(publish(&store, &older, async || ()).await, None);
    end_pass(&store, &older, false, None).await;
    let newer = begin(&store, "b").await.expect("the newer fit is free");
    assert!(newer.is_publish && newer.fit.fit_id > older.fit.fit_id);
    assert_eq!(publish(&store, &newer, async || ()).await, Some(4));
}

pub fn pass_diagnostics() -> PassDiagnostics {
    PassDiagnostics {
        experiments: 2,
        deff: 1.5,
        deff_control: 1.4,
        naive_coverage: 0.89,
        rmse_excess: Some(0.04),
        changed_decisions: 1,
        changed_decision_share: 0.25,
        value_given_up: None,
        risk: [Some(0.5), Some(0.7), Some(0.6), None],
        score: [Some(-3.0), Some(-3.2), Some(-4.0), Some(-3.5)],
        largest_correlation: 0.4,
        largest_estimate_shift: 0.3,
        sign_calls: 4,
        sign_flips: 1,
        sign_flip_share: 0.25,
        hausman_z: None,
        calibration: Some(Calibration {
            effects: 4,
            effective_effects: 2.0,
            rms_z: 1.1,
            coverage50: 0.5,
            coverage80: 0.75,
            coverage95: 1.0,
            pit_histogram: [0, 1, 0, 0, 2, 0, 0, 0, 1, 0],
        }),
        calibration_cause: Some(Miscalibration::HeavyTails),
        selection: Some(Selection {
            log_lr: 9.0,
            eta: 0.1,
            missing_share: 0.6,
            caliper_p: None,
            direction: Direction::Increase,
        }),
        mix_ups: 3,
        shipped_share: Some(1.0),
        verdict: Verdict::Material,
        verdict_rests_on: Measure::NaiveCoverage,
        verdict_value: 0.89,
    }
}

async fn a_pass_is_due_for_a_publish_or_for_old_diagnostics<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    let (past, future) = (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::now_utc() + Duration::HOUR);
    refit(&store, "m", 1.0, 0.5, false).await;
    assert!(store.due_passes(Some(future), "another").await.unwrap().is_empty(), "nothing was published");
    refit(&store, "m", 1.0, 0.5, true).await;
    assert_eq!(store.due_passes(Some(past), "another").await.unwrap(), [due("m", 2, true)]);

    let pass = begin(&store, "a").await.unwrap();
    end_pass(&store, &pass, true, Some((diagnostics(), pass_diagnostics()))).await;
    assert!(store.due_passes(Some(future), "another").await.unwrap().is_empty(), "nothing changed since");

    worker.ingest(vec![record(0, 2, &event("exp-7", 1, "m", &[1.0]))]).await;
    refit(&store, "m", 1.0, 0.5, false).await;
    assert_eq!(store.due_passes(Some(future), "another").await.unwrap(), [due("m", 3, true)]);
    assert!(store.due_passes(Some(past), "another").await.unwrap().is_empty(), "the diagnostics are young");
    assert!(!begin(&store, "a").await.unwrap().is_publish);
}

async fn diagnostics_are_carried_over_until_the_next_pass<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    assert_eq!(store.current_populations().await.unwrap()[0].verdict, None);
    let pass = begin(&store, "a").await.unwrap();
    end_pass(&store, &pass, true, Some((diagnostics(), pass_diagnostics()))).await;
    let before = OffsetDateTime::now_utc();
    refit(&store, "m", 3.0, 0.5, true).await;
    let current = store.current_populations().await.unwrap().remove(0);
    assert_eq!((current.deff, current.verdict_value), (Some(1.5), Some(0.89)));
    assert_eq!(current.verdict, Some(Verdict::Material));
    assert_eq!(current.verdict_rests_on, Some(Measure::NaiveCoverage));
    let (diagnosed_at, fitted_at) = (current.diagnosed_at.unwrap(), current.fitted_at.unwrap());
    assert!(diagnosed_at <= before && (fitted_at - OffsetDateTime::now_utc()).abs() < Duration::MINUTE);
    let rows = database.numbers(
        "select information, effective_effects, log_tau_shift, coverage80, calibration_rms_z, sign_flip_share, shipped_share,
                deff, deff_control, naive_coverage, rmse_excess, changed_decision_share, value_given_up, risk_modelled,
                risk_control_only, risk_ignored, risk_one_per_experiment, score_modelled, score_control_only, score_ignored,
                score_one_per_experiment,
                selection_log_lr, selection_eta, selection_missing_share, caliper_p, coverage50_low, coverage95_high
         from population_diagnostics order by fit_id",
    );
    let mut expected = vec![Some(3.0), Some(5.0), Some(0.2), Some(0.75), Some(1.1), Some(0.25), Some(1.0)];
    expected.extend([Some(1.5), Some(1.4), Some(0.89), Some(0.04), Some(0.25), None]);
    expected.extend([Some(0.5), Some(0.7), Some(0.6), None, Some(-3.0), Some(-3.2), Some(-4.0), Some(-3.5)]);
    expected.extend([Some(9.0), Some(0.1), Some(0.6), None, Some(0.0), Some(1.0)]);
    assert_eq!(rows.await, [expected.clone(), expected]);
    let texts = database.texts(
        "select concat_ws(' ', replace(cast(pit_histogram as text), ' ', ''), calibration_cause) from population_diagnostics",
    );
    assert_eq!(texts.await, vec![Some("[0,1,0,0,2,0,0,0,1,0] heavy_tails".to_owned()); 2]);
}

async fn populations_whose_latest_diagnostics_suspect_a_selection_are_counted<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    let suspected = async || largest(&store, 10).await.1.selection_suspected;
    for (log_lr, count) in [(9.0, 1), (0.5, 0), (9.0, 1)] {
        refit(&store, "m", log_lr, 0.5, true).await;
        let pass = begin(&store, "a").await.unwrap();
        let selection =
            Some(Selection { log_lr, eta: 0.1, missing_share: 0.6, caliper_p: None, direction: Direction::Increase });
        let diagnostics = (diagnostics(), PassDiagnostics { selection, ..pass_diagnostics() });
        end_pass(&store, &pass, true, Some(diagnostics)).await;
        assert_eq!(suspected().await, count, "log likelihood ratio {log_lr}");
    }
    refit(&store, "m", 2.0, 0.5, true).await;
    assert_eq!(suspected().await, 1, "what a pass found is carried over");
    let pass = begin(&store, "a").await.unwrap();
    let unknown = PassDiagnostics { selection: None, ..pass_diagnostics() };
    end_pass(&store, &pass, true, Some((diagnostics(), unknown))).await;
    assert_eq!(suspected().await, 0, "a pass that cannot tell");
    let of_last =
        "select cast(is_selection_suspected as text) from population_diagnostics order by fit_id desc limit 1";
    assert_eq!(database.texts(of_last).await, [None]);
}

/// Passes through a population, and finds this design effect.
async fn diagnose(store: &Store, deff: f64) {
    let pass = begin(store, "a").await.expect("the population is free");
    let found = PassDiagnostics { deff, ..pass_diagnostics() };
    end_pass(store, &pass, true, Some((diagnostics(), found))).await;
}

async fn the_latest_diagnostics_are_shown_and_carried_over<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    for deff in [1.5, 1.25, 1.75] {
        refit(&store, "m", deff, 0.5, true).await;
        diagnose(&store, deff).await;
        assert_eq!(store.current_populations().await.unwrap()[0].deff, Some(deff));
    }
    refit(&store, "m", 2.0, 0.5, true).await;
    assert_eq!(store.current_populations().await.unwrap()[0].deff, Some(1.75));
    let found = database.numbers("select deff from population_diagnostics order by fit_id").await;
    assert_eq!(found, [[Some(1.5)], [Some(1.25)], [Some(1.75)], [Some(1.75)]]);
}

async fn a_sum_that_is_still_pending_is_not_read_to_publish<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = filled(&store, 2).await;
    // A part without a control, which may come in another event.
    let part = r#"{"metric":"m","scale":"absolute","accumulate":true,"treatments":[{"variant":"v0","n":9,"mean":1.0,"variance":1.0}]}"#;
    let part = message("exp-1-pending", 1, part).replace(r#""revision""#, r#""event_id":"part","revision""#);
    worker.ingest(vec![record(0, 2, &part)]).await;
    let pending = "select experiment_id || ' ' || population_id from blocks where block is null";
    assert_eq!(database.texts(pending).await, [Some("exp-1-pending m/all/absolute".to_owned())]);
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    let blocks = blocks_after(&store, &pass.population, "", 9).await;
    assert_eq!(blocks.iter().map(|row| row.block.experiment_id.as_str()).collect::<Vec<_>>(), ["exp-0", "exp-1"]);
    assert_eq!(publish(&store, &pass, async || ()).await, Some(4));
}
