//! The plug-in estimates, which the database computes when they are read.

use std::collections::BTreeMap;

use shrinkd::refit::Publication;
use shrinkd_model::{Block, BlockPosterior, Correlation, Node};

use shrinkd::simulate::Draws;

use super::refit::{alike_row, begin_refit, fit_row, refit, refitted};
use super::{Worker, event, message, promises, record};
use crate::common::database::Database;

promises! {
    plug_in_estimates_are_those_of_the_model_at_the_latest_mu_tau_and_icc,
    there_is_no_plug_in_estimate_of_a_full_covariance_or_before_a_fit,
}

async fn plug_in_estimates_are_those_of_the_model_at_the_latest_mu_tau_and_icc<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let mut draws = Draws::new(1, 0);
    let (mut blocks, mut records) = (BTreeMap::new(), Vec::new());
    for i in 0..20 {
        let estimates: Vec<f64> = (0..=i % 5).map(|_| draws.normal(0.5, 2.0)).collect();
        let n = estimates.len();
        let id = format!("exp-{i:02}");
        records.push(record(0, i as i64, &event(&id, 1, "m", &estimates)));
        let block = Block::shared_control(estimates, vec![0.5 - 0.2; n], 0.2).unwrap();
        blocks.insert(id, block);
    }
    worker.ingest(records).await;
    for (mu, tau, icc) in [
        (0.0, 1e-6, 0.0),
        (0.3, 0.7, 0.0),
        (-2.0, 40.0, 0.0),
        (1e-9, 0.0, 0.0),
        (0.3, 0.7, 0.5),
        (-2.0, 40.0, 0.98),
        (1.0, 0.0, 0.3),
    ] {
        let (mut refit, state) = begin_refit(&store, "m").await.expect("the population is free");
        let row = if icc == 0.0 { fit_row(Correlation::Modelled, mu, tau) } else { alike_row(mu, tau, icc) };
        refit.write(vec![refitted("m", &state, &[row], Publication::NotDue)]).await.unwrap();
        refit.commit().await.unwrap();
        let found = database.numbers(
            "select plug_in_estimate, mu, tau, icc, raw_estimate from plug_in_estimates order by experiment_id, variant",
        );
        let node = Node { weight: 1.0, tau, icc, mu_mean: mu, mu_variance: 0.0 };
        let expected = blocks.values().flat_map(|block| {
            let posterior = BlockPosterior::new(block, &[node]);
            (0..block.len()).map(|i| (posterior.estimate(i).mean, block.effects()[i])).collect::<Vec<_>>()
        });
        let (found, expected) = (found.await, expected.collect::<Vec<_>>());
        assert_eq!(found.len(), expected.len());
        for (row, (mean, raw)) in found.into_iter().zip(expected) {
            let [Some(estimate), found_mu, found_tau, found_icc, found_raw] = row[..] else { panic!("{row:?}") };
            assert_eq!((found_mu, found_tau, found_icc, found_raw), (Some(mu), Some(tau), Some(icc), Some(raw)));
            let scale = mean.abs().max(mu.abs()).max((raw - mu).abs());
            assert!((estimate - mean).abs() <= 1e-12 * scale, "{estimate} for {mean} at mu {mu}, tau {tau}, icc {icc}");
        }
    }
}

async fn there_is_no_plug_in_estimate_of_a_full_covariance_or_before_a_fit<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let dense = r#"{"metric":"m","effects":[{"variant":"a","estimate":0.1},{"variant":"b","estimate":0.2}],
        "covariance":[[0.02,0.01],[0.01,0.03]]}"#;
    worker.ingest(vec![record(0, 0, &message("dense", 1, dense)), record(0, 1, &event("own", 1, "m", &[1.0]))]).await;
    let read = || database.numbers("select plug_in_estimate from plug_in_estimates order by experiment_id, variant");
    assert!(read().await.is_empty());
    refit(&store, "m", 0.0, 1.0, false).await;
    let [dense_a, dense_b, own] = &read().await[..] else { panic!("three rows") };
    assert_eq!((dense_a[0], dense_b[0], own[0].is_some()), (None, None, true));
}
