//! The exact posterior's promise: it agrees with reference posteriors computed in ball arithmetic.

use serde_json::Value;
use shrinkd_model::{Block, BlockPosterior, Priors, SketchLikelihood, Summary, condense, quadrature};

use crate::random::Random;
use crate::reference::{Oracle, sketch_of};

/// Largest error of a summary against the reference, in its own posterior sd (where that does not exist, a quarter of
/// the 95% interval), the sd itself relative; infinite where one exists and the other does not.
fn error(got: &Summary, want: &Value) -> f64 {
    let reference = |name: &str| want[name].as_f64();
    let width = reference("q975").expect("a quantile") - reference("q025").expect("a quantile");
    let sd = reference("sd").unwrap_or(width / 4.0);
    let mut worst = 0.0_f64;
    for (got, name) in
        [(got.mean, "mean"), (got.median, "median"), (got.q025, "q025"), (got.q975, "q975"), (got.sd, "sd")]
    {
        worst = worst.max(match (got, reference(name)) {
            (Some(got), Some(want)) => (got - want).abs() / sd,
            (None, None) => 0.0,
            _ => f64::INFINITY,
        });
    }
    worst
}

#[test]
fn every_reference_posterior_of_mu_and_tau_is_met_to_1e_6() {
    for oracle in Oracle::all() {
        for fit in oracle.fits.iter().filter(|fit| fit["method"].is_null()) {
            let text = |name: &str| fit[name].as_str().expect("text");
            let priors = Priors {
                mu: text("prior_mu").parse().expect("a prior"),
                tau: text("prior_tau").parse().expect("a prior"),
            };
            let likelihood = SketchLikelihood::new(&sketch_of(&oracle.under(text("correlation"))));
            let label = format!("{} {} {} {}", oracle.name, text("correlation"), priors.mu, priors.tau);
            let posterior = quadrature(&likelihood, &priors);
            assert_eq!(posterior.is_ok(), fit["proper"].as_bool().expect("a bool"), "{label}: proper");
            let Ok(posterior) = posterior else { continue };
            let (mu, tau) = (error(&posterior.mu, &fit["mu"]), error(&posterior.tau, &fit["tau"]));
            let evidence = match (posterior.log_evidence, fit["log_evidence"].as_f64()) {
                (Some(got), Some(want)) => (got - want).abs(),
                (None, None) => 0.0,
                _ => f64::INFINITY,
            };
            println!("{label}: mu {mu:.1e} tau {tau:.1e} log evidence {evidence:.1e} nodes {}", posterior.nodes.len());
            assert!(mu < 1e-8 && tau < 1e-8 && evidence < 1e-8, "{label}: mu {mu:e} tau {tau:e} evidence {evidence:e}");
        }
    }
}

#[test]
fn every_reference_posterior_of_the_effects_is_met_to_1e_6() {
    for oracle in Oracle::all() {
        for fit in oracle.fits.iter().filter(|fit| fit["theta"].is_object()) {
            let text = |name: &str| fit[name].as_str().expect("text");
            let priors = Priors {
                mu: text("prior_mu").parse().expect("a prior"),
                tau: text("prior_tau").parse().expect("a prior"),
            };
            let blocks = oracle.under(text("correlation"));
            let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
            let posterior = quadrature(&likelihood, &priors).expect("proper");
            let nodes = condense(&likelihood, &priors, &posterior.nodes);
            let label = format!("{} {} {} {}", oracle.name, text("correlation"), priors.mu, priors.tau);
            let want = |name: &str, i: usize| fit["theta"][name][i].as_f64().expect("a number");
            let mut worst = [0.0_f64; 3];
            let mut index = 0;
            for block in &blocks {
                let joint = BlockPosterior::new(block, &nodes);
                for i in 0..block.len() {
                    let got = joint.estimate(i);
                    let sd = want("posterior_sd", index);
                    let errors = [
                        (got.mean - want("posterior_mean", index)).abs() / sd,
                        (got.sd - sd).abs() / sd,
                        (got.prob_positive - want("prob_positive", index)).abs(),
                    ];
                    worst = std::array::from_fn(|k| worst[k].max(errors[k]));
                    index += 1;
                }
            }
            println!(
                "{label}: {:.1e} {:.1e} {:.1e}, {} nodes of {}",
                worst[0],
                worst[1],
                worst[2],
                nodes.len(),
                posterior.nodes.len()
            );
            assert!(worst.iter().all(|&error| error < 1e-6), "{label}: mean, sd, P(theta > 0) off by {worst:?}");
        }
    }
}

#[test]
fn effects_of_70_and_of_1_000_experiments_are_averaged_over_a_quarter_of_the_nodes_at_most() {
    for count in [70, 1_000] {
        let mut random = Random(1);
        let effect = |_| vec![0.1 + 0.3 * random.normal()];
        let blocks: Vec<Block> =
            (0..count).map(effect).map(|y| Block::shared_control(y, vec![0.04], 0.0).expect("a block")).collect();
        let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
        for (mu, tau) in [("flat", "flat"), ("normal:0,1", "half-cauchy:0.1")] {
            let priors = Priors { mu: mu.parse().expect("a prior"), tau: tau.parse().expect("a prior") };
            let all = quadrature(&likelihood, &priors).expect("a posterior").nodes;
            let few = condense(&likelihood, &priors, &all);
            assert!(4 * few.len() <= all.len(), "{count} {mu} {tau}: {} of {}", few.len(), all.len());
            for block in &blocks[..10] {
                let (want, got) =
                    (BlockPosterior::new(block, &all).estimate(0), BlockPosterior::new(block, &few).estimate(0));
                assert!((got.mean - want.mean).abs() <= 1e-8 * want.sd, "{mu} {tau}: {got:?} instead of {want:?}");
                let error = (got.prob_positive - want.prob_positive).abs();
                assert!(error <= 1e-8, "{mu} {tau}: {got:?} instead of {want:?}");
            }
        }
    }
}
