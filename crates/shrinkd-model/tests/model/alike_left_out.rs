//! Blocks of alike effects in their population: leaving one out, and what it says of mu, against dense algebra.

use shrinkd_model::{
    Block, BlockDiagnostics, Fit, LeaveOneOut, LeftOut, Method, Node, Priors, Sketch, SketchLikelihood, Terms,
};

use crate::alike::dense_sums;
use crate::random::Random;

fn population() -> Vec<Block> {
    let mut random = Random(31);
    (0..40)
        .map(|k| {
            let (n, c) = (1 + k % 4, if k % 5 == 0 { 0.0 } else { 0.4 });
            let idea = 0.4 * random.normal();
            let effects = (0..n).map(|_| 0.2 + idea + 0.9 * random.normal()).collect();
            Block::shared_control(effects, (0..n).map(|i| 0.3 + 0.2 * i as f64).collect(), c).expect("a block")
        })
        .collect()
}

/// The posterior of blocks on a grid of tau and icc, under flat priors.
fn grid(blocks: &[Block]) -> Vec<Node> {
    let points = (1..=12).flat_map(|i| (0..8).map(move |j| (0.12 * f64::from(i), 0.12 * f64::from(j))));
    let mut nodes: Vec<Node> = points
        .map(|(tau, icc)| {
            let sums = blocks.iter().fold(Terms::default(), |s, block| {
                let own = dense_sums(block, icc, tau * tau);
                Terms { log_det: s.log_det + own.log_det, a: s.a + own.a, b: s.b + own.b, c: s.c + own.c }
            });
            let log_mass = -0.5 * (sums.log_det + sums.a.ln() + sums.c - sums.b * sums.b / sums.a);
            Node { weight: log_mass, tau, icc, mu_mean: sums.b / sums.a, mu_variance: 1.0 / sums.a }
        })
        .collect();
    let highest = nodes.iter().map(|node| node.weight).fold(f64::NEG_INFINITY, f64::max);
    nodes.iter_mut().for_each(|node| node.weight = (node.weight - highest).exp());
    let total: f64 = nodes.iter().map(|node| node.weight).sum();
    nodes.iter_mut().for_each(|node| node.weight /= total);
    nodes
}

fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / 2.0_f64.sqrt())
}

#[test]
fn a_block_is_predicted_from_the_posterior_of_the_rest_at_every_icc() {
    let (blocks, priors) = (population(), Priors::default());
    let mut sketch = Sketch::new();
    blocks.iter().for_each(|block| sketch.add(&block.components().expect("components")).expect("in range"));
    let mut fit = Fit::new(&SketchLikelihood::new(&sketch), &priors, Method::Quadrature).expect("a posterior");
    fit.posterior.nodes = grid(&blocks);
    let leave_one_out = LeaveOneOut::new(&sketch, &priors, &fit);
    let mut decisive = 0;
    for (k, block) in blocks.iter().enumerate() {
        let components = block.components().expect("components");
        let Some(got) = leave_one_out.predict(block, &components) else {
            // The nodes of the whole do not resolve the posterior of the rest.
            decisive += 1;
            continue;
        };
        let LeftOut { predictions, score, control_shift_z } = got;
        let rest: Vec<Block> =
            blocks.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, block)| block.clone()).collect();
        let nodes = grid(&rest);
        let average = |x: &dyn Fn(&Node) -> f64| nodes.iter().map(|node| node.weight * x(node)).sum::<f64>();
        let mut log_densities = 0.0;
        for (i, prediction) in predictions.iter().enumerate() {
            let variance = |node: &Node| node.mu_variance + block.sampling_variance(i) + node.tau * node.tau;
            let z = |node: &Node| (block.effects()[i] - node.mu_mean) / variance(node).sqrt();
            assert!((prediction.pit - average(&|node| normal_cdf(z(node)))).abs() < 1e-11, "block {k}: {prediction:?}");
            let density =
                |node: &Node| (-0.5 * z(node).powi(2)).exp() / (std::f64::consts::TAU * variance(node)).sqrt();
            log_densities += average(&density).ln();
        }
        assert!((score - log_densities / block.len() as f64).abs() < 1e-11, "block {k}: {score}");
        assert_eq!(control_shift_z.is_some(), block.len() > 1);
        if let Some(z) = control_shift_z {
            let below = average(&|node| {
                let own = dense_sums(block, node.icc, node.tau * node.tau);
                normal_cdf((own.b / own.a - node.mu_mean) / (1.0 / own.a + node.mu_variance).sqrt())
            });
            assert!((normal_cdf(z) - below).abs() < 1e-11, "block {k}: {z}");
        }
    }
    assert!(decisive <= 4, "{decisive}");
}

#[test]
fn a_block_says_of_mu_no_more_than_its_control_and_its_idea_let_it() {
    let (t, icc) = (0.5, 0.6);
    let sums = |block: &Block| dense_sums(block, icc, t);
    let population = Terms { log_det: 0.0, a: 100.0, b: 20.0, c: 50.0 };
    let diagnose = |n: usize, d: f64, c: f64| {
        let block = Block::shared_control((0..n).map(|i| (i as f64).sin()).collect(), vec![d; n], c).expect("a block");
        let components = block.components_at(icc).expect("components");
        (BlockDiagnostics::new(&block, &components, (t, icc), &population, 0.0, None), sums(&block))
    };
    for c in [0.0, 0.2] {
        let (got, want) = diagnose(300, 1e-4, c);
        let bound = got.information_bound.expect("they share something");
        assert!((bound * (c + icc * t) - 1.0).abs() < 1e-14);
        assert!(got.information < bound && got.information > 0.99 * bound, "{} of {bound}", got.information);
        assert!((got.information / want.a - 1.0).abs() < 1e-12);
        assert!((got.within_q.expect("several") - (want.c - want.b * want.b / want.a)).abs() < 1e-9 * want.c);
    }
}
