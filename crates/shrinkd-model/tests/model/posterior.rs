//! The exact posterior's promise: it agrees with reference posteriors computed in ball arithmetic.

use std::ops::Range;

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
                ..Priors::default()
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
                ..Priors::default()
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
        for priors in [("flat", "flat"), ("normal:0,1", "half-cauchy:0.1")] {
            let [all, few] = condensed(count, 0.04..0.04, priors);
            assert!(4 * few <= all, "{count} {priors:?}: {few} of {all}");
        }
    }
}

#[test]
fn effects_of_a_few_experiments_are_averaged_over_few_nodes_however_heavy_the_tail_of_tau() {
    let heavy = [("flat", "flat"), ("normal:0,1", "half-cauchy:0.1"), ("flat", "half-cauchy:0.1")];
    for (count, variances, most) in
        [(4, 0.02..0.2, 40), (5, 0.02..0.2, 40), (8, 0.02..0.2, 40), (8, 1e-6..0.2, 64), (30, 0.02..0.2, 30)]
    {
        for priors in heavy {
            let [all, few] = condensed(count, variances.clone(), priors);
            assert!(few <= most, "{count} {variances:?} {priors:?}: {few} of {all}");
        }
    }
}

/// The number of all nodes and of condensed ones in a population of independent effects, the standard errors of which are spread
/// evenly in logs; its effects have the same estimates under both.
fn condensed(count: u32, variances: Range<f64>, (mu, tau): (&str, &str)) -> [usize; 2] {
    let mut random = Random(1);
    let blocks: Vec<Block> = (0..count)
        .map(|i| {
            let share = f64::from(i) / f64::from(count);
            let variance = variances.start * (variances.end / variances.start).powf(share);
            let effect = 0.1 + (0.05 + variance).sqrt() * random.normal();
            Block::shared_control(vec![effect], vec![variance], 0.0).expect("a block")
        })
        .collect();
    let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
    let priors = Priors { mu: mu.parse().expect("a prior"), tau: tau.parse().expect("a prior"), ..Priors::default() };
    let all = quadrature(&likelihood, &priors).expect("a posterior").nodes;
    let few = condense(&likelihood, &priors, &all);
    for block in blocks.iter().take(10) {
        let [(want, want95), (got, got95)] = [&all, &few].map(|nodes| {
            let posterior = BlockPosterior::new(block, nodes);
            let estimate = posterior.estimate(0);
            (estimate, posterior.intervals(0, &estimate).ci95)
        });
        let errors = [
            (got.mean - want.mean) / want.sd,
            (got.sd - want.sd) / want.sd,
            got.prob_positive - want.prob_positive,
            (got95.0 - want95.0) / want.sd,
            (got95.1 - want95.1) / want.sd,
        ];
        // What is probed, and what follows from it.
        let promised = [1e-8, 1e-7, 1e-8, 1e-6, 1e-6];
        let is_near = errors.iter().zip(promised).all(|(error, promised)| error.abs() <= promised);
        assert!(is_near, "{count} {variances:?} {mu} {tau}: {errors:?} with {} of {}", few.len(), all.len());
    }
    [all.len(), few.len()]
}
