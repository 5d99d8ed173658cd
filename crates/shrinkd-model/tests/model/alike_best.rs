//! P(best) where true effects are alike, against the joint posterior in dense algebra and a general method for the probability of an
//! orthant (Genz, J. Comput. Graph. Stat. 1, 1992), which knows of no factors.

use shrinkd_model::{Block, Direction, Node, normal_upper_quantile, prob_best};

use crate::alike::{dense_block, total};
use crate::double_double::{Cholesky, Double, dot};
use crate::random::Random;

/// Mean and covariance of a block's true effects given a node, mu integrated out.
fn joint(block: &Block, node: &Node) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = block.len();
    let of = Double::from;
    let t = of(node.tau) * of(node.tau);
    let v = Cholesky::new(n, |i, j| total(block, node.icc, t, i, j));
    let residuals: Vec<Double> = block.effects().iter().map(|x| of(*x) - of(node.mu_mean)).collect();
    let (residuals, ones) = (v.whiten(&residuals), v.whiten(&vec![of(1.0); n]));
    let alike = |i: usize, j: usize| if i == j { t } else { t * of(node.icc) };
    let priors: Vec<Vec<Double>> = (0..n).map(|i| v.whiten(&(0..n).map(|j| alike(i, j)).collect::<Vec<_>>())).collect();
    let mean = priors.iter().map(|p| (of(node.mu_mean) + dot(p, &residuals)).0).collect();
    let h: Vec<Double> = priors.iter().map(|p| of(1.0) - dot(p, &ones)).collect();
    let covariance =
        |i: usize, j: usize| (alike(i, j) - dot(&priors[i], &priors[j]) + of(node.mu_variance) * h[i] * h[j]).0;
    (mean, (0..n).map(|i| (0..n).map(|j| covariance(i, j)).collect()).collect())
}

fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / 2.0_f64.sqrt())
}

/// The probability that all of some jointly normal numbers are above 0.
fn orthant(mean: &[f64], covariance: impl Fn(usize, usize) -> f64) -> f64 {
    const POINTS: usize = 8_000;
    const GENERATORS: [f64; 8] = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0];
    let n = mean.len();
    let mut factor = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = covariance(i, j) - (0..j).map(|k| factor[i][k] * factor[j][k]).sum::<f64>();
            factor[i][j] = if i == j { rest.max(0.0).sqrt() } else { rest / factor[j][j] };
        }
    }
    let mut total = 0.0;
    for point in 0..POINTS {
        let (mut product, mut z) = (1.0, Vec::with_capacity(n));
        for i in 0..n {
            let known: f64 = mean[i] + z.iter().zip(&factor[i]).map(|(z, entry)| z * entry).sum::<f64>();
            let above = normal_cdf(known / factor[i][i]);
            product *= above;
            if i + 1 < n {
                let place = (2.0 * ((point as f64 + 0.5) * GENERATORS[i].sqrt()).fract() - 1.0).abs();
                z.push(normal_upper_quantile((above * place).clamp(1e-300, 1.0 - 1e-16)));
            }
        }
        total += product;
    }
    total / POINTS as f64
}

/// The control's probability of being the best, then each variant's.
fn oracle(block: &Block, nodes: &[Node]) -> Vec<f64> {
    let n = block.len();
    let mut best = vec![0.0; n + 1];
    for node in nodes {
        // The control is effect 0, and known.
        let (mean, covariance) = joint(block, node);
        let mean = |i: usize| if i == 0 { 0.0 } else { mean[i - 1] };
        let covariance = |i: usize, j: usize| if i == 0 || j == 0 { 0.0 } else { covariance[i - 1][j - 1] };
        for (i, best) in best.iter_mut().enumerate() {
            let others: Vec<usize> = (0..=n).filter(|&j| j != i).collect();
            let ahead: Vec<f64> = others.iter().map(|&j| mean(i) - mean(j)).collect();
            *best += node.weight
                * orthant(&ahead, |j, k| {
                    let (j, k) = (others[j], others[k]);
                    covariance(i, i) - covariance(i, k) - covariance(j, i) + covariance(j, k)
                });
        }
    }
    best
}

fn assert_agrees(name: &str, block: &Block, nodes: &[Node], promised: f64) {
    let found = prob_best(block, nodes, Direction::Increase).expect("positive definite");
    let expected = oracle(block, nodes);
    assert!((expected.iter().sum::<f64>() - 1.0).abs() < 2e-4, "the oracle itself: {expected:?}");
    let found: Vec<f64> = [found.control].into_iter().chain(found.variants).collect();
    let error = found.iter().zip(&expected).fold(0.0_f64, |worst, (x, y)| worst.max((x - y).abs()));
    assert!(
        found.iter().all(|p| p.is_finite()) && error < promised,
        "{name}: off by {error:e}: {found:?}, not {expected:?}"
    );
}

const ICCS: [f64; 4] = [0.05, 0.5, 0.9, 0.98];

#[test]
fn probabilities_of_a_shared_control_agree_with_the_joint_posterior_at_every_icc() {
    let mut random = Random(23);
    for (n, log_spread, c) in [(2, 0.5, 0.5), (3, 0.0, 1.0), (3, 2.0, 0.0), (4, 1.0, 20.0), (5, 3.0, 1e-2)] {
        let d: Vec<f64> = (0..n).map(|_| (log_spread * random.normal()).exp()).collect();
        let effects = d.iter().map(|d| 0.3 + d.sqrt() * random.normal()).collect();
        let block = Block::shared_control(effects, d, c).expect("a block");
        for icc in ICCS {
            for tau in [0.05, 0.7, 10.0] {
                let node = Node { weight: 1.0, tau, icc, mu_mean: 0.1, mu_variance: 0.04 };
                assert_agrees(&format!("{n}, c = {c}, icc {icc}, tau {tau}"), &block, &[node], 5e-4);
            }
        }
        let node = |k: usize| Node {
            weight: 0.05,
            tau: 0.2 + 0.2 * (k % 5) as f64,
            icc: ICCS[k / 5],
            mu_mean: 0.1 - 0.01 * k as f64,
            mu_variance: 0.01,
        };
        assert_agrees(&format!("{n}, c = {c}, a mixture"), &block, &(0..20).map(node).collect::<Vec<_>>(), 5e-4);
    }
}

#[test]
fn probabilities_of_a_dense_covariance_agree_with_the_joint_posterior_at_every_icc() {
    let mut random = Random(29);
    for (n, decades, common) in [(2, 0.5, 0.0), (3, 0.5, 0.2), (4, 0.3, 1.0), (8, 0.5, 0.5)] {
        let block = dense_block(n, decades, common, &mut random);
        for icc in ICCS {
            for tau in [0.05, 0.7, 10.0] {
                let node = Node { weight: 1.0, tau, icc, mu_mean: 0.1, mu_variance: 0.04 };
                assert_agrees(&format!("{n}, icc {icc}, tau {tau}"), &block, &[node], 1e-3);
            }
        }
    }
}
