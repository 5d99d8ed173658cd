//! P(best) under dense covariances, against closed forms and the joint posterior.

use std::f64::consts::TAU;

use shrinkd_model::{BestProbabilities, Block, Direction, Node, prob_best};

use crate::alike::dense_block;
use crate::random::Random;

fn best(block: &Block, nodes: &[Node]) -> BestProbabilities {
    prob_best(block, nodes, Direction::Increase).expect("positive definite")
}

fn distance(x: &BestProbabilities, y: &BestProbabilities) -> f64 {
    let pairs = x.variants.iter().zip(&y.variants);
    pairs.fold((x.control - y.control).abs(), |worst, (x, y)| worst.max((x - y).abs()))
}

/// A posterior of tau about a median, with so many nodes.
fn nodes(count: usize, median: f64) -> Vec<Node> {
    let z = |k: usize| 4.0 * ((k as f64 + 0.5) / count as f64 - 0.5);
    let total: f64 = (0..count).map(|k| (-0.5 * z(k) * z(k)).exp()).sum();
    let node = |k: usize| Node {
        weight: (-0.5 * z(k) * z(k)).exp() / total,
        tau: median * (0.4 * z(k)).exp(),
        icc: 0.0,
        mu_mean: 0.1 + 0.02 * z(k),
        mu_variance: 0.02 * median * median,
    };
    (0..count).map(node).collect()
}

fn with_shared_control(n: usize, spread: f64, c: f64, random: &mut Random) -> [Block; 2] {
    let d: Vec<f64> = (0..n).map(|_| (0.5 * random.normal()).exp()).collect();
    let effects: Vec<f64> = d.iter().map(|d| 0.2 + spread * d.sqrt() * random.normal()).collect();
    let entry = |at: usize| if at / n == at % n { d[at / n] + c } else { c };
    let dense = Block::dense(effects.clone(), (0..n * n).map(entry).collect()).expect("valid");
    [dense, Block::shared_control(effects, d, c).expect("valid")]
}

#[test]
fn probabilities_of_many_variants_are_within_1e_3_of_those_that_a_shared_control_has_exactly() {
    let mut random = Random(31);
    for n in [4, 8, 20, 40] {
        for (spread, c, tau) in [(0.0, 0.0, 1.0), (0.3, 1.0, 0.3), (1.0, 30.0, 2.0)] {
            let [dense, shared] = with_shared_control(n, spread, c, &mut random);
            let nodes = nodes(12, tau);
            let error = distance(&best(&dense, &nodes), &best(&shared, &nodes));
            assert!(error < 1e-3, "{n} variants, spread {spread}, c {c}, tau {tau}: off by {error:.1e}");
        }
    }
}

/// Effects that are those of a plane's directions: each is the largest in the sector that is nearest to it.
#[test]
fn probabilities_under_a_nearly_singular_covariance_are_those_of_the_sectors_of_its_plane() {
    let mut random = Random(37);
    for n in [4, 6, 8, 12] {
        let angles: Vec<f64> = (0..n).map(|i| TAU * (i as f64 + 0.6 * random.uniform()) / n as f64).collect();
        for own in [1e-4, 1e-7] {
            let entry = |at: usize| {
                let (i, j) = (at / n, at % n);
                (angles[i] - angles[j]).abs().cos() + if i == j { own } else { 0.0 }
            };
            let block = Block::dense(vec![0.0; n], (0..n * n).map(entry).collect()).expect("valid");
            let node = Node { weight: 1.0, tau: 1e3, icc: 0.0, mu_mean: 0.0, mu_variance: 0.0 };
            let found = best(&block, &[node]);
            for (i, found) in found.variants.iter().enumerate() {
                let (before, after) = (angles[(i + n - 1) % n], angles[(i + 1) % n]);
                let expected = (after - before).rem_euclid(TAU) / (2.0 * TAU);
                // The noise that keeps the matrix regular smooths the edges of the sectors.
                let promised = 1e-3 + 0.1 * own.sqrt();
                assert!((found - expected).abs() < promised, "{n}, {own:e}, variant {i}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn equal_variants_are_equally_probable() {
    for n in [4, 7, 12, 20] {
        for correlation in [0.0, 0.5, 0.999] {
            let matrix = (0..n * n).map(|at| if at / n == at % n { 1.0 } else { correlation }).collect();
            let block = Block::dense(vec![0.3; n], matrix).expect("valid");
            let found = best(&block, &nodes(5, 0.7));
            let each = (1.0 - found.control) / n as f64;
            assert!(found.variants.iter().all(|p| (p - each).abs() < 1e-9), "{n}, {correlation}: {found:?}");
        }
    }
}

#[test]
fn the_order_of_the_variants_does_not_matter_and_probabilities_add_up_to_one() {
    let mut random = Random(41);
    for n in [2, 3, 4, 8, 15, 40] {
        let block = dense_block(n, 0.5, 0.3, &mut random);
        let shrinkd_model::Covariance::Dense { matrix } = block.covariance() else { panic!("dense") };
        let effects = block.effects().iter().rev().copied().collect();
        let reversed = Block::dense(effects, matrix.iter().rev().copied().collect()).expect("valid");
        let nodes = nodes(20, 0.5);
        let (found, mut turned) = (best(&block, &nodes), best(&reversed, &nodes));
        turned.variants.reverse();
        assert!(distance(&found, &turned) < 1e-6, "{n}: {found:?}, reversed {turned:?}");
        assert!((found.control + found.variants.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(found.variants.iter().chain([&found.control]).all(|p| (0.0..=1.0).contains(p)));
    }
}

#[test]
fn extreme_dense_covariances_never_give_nan() {
    let mut random = Random(43);
    for n in [2, 4, 9] {
        for unit in [1e-45, 1.0, 1e45] {
            for tau in [0.0, 1e-9, 1.0, 1e6] {
                let block = dense_block(n, 6.0, 0.0, &mut random);
                let shrinkd_model::Covariance::Dense { matrix } = block.covariance() else { panic!("dense") };
                let effects = block.effects().iter().map(|x| x * unit).collect();
                let matrix = matrix.iter().map(|x| x * unit * unit).collect();
                let block = Block::dense(effects, matrix).expect("valid");
                for icc in [0.0, 0.9] {
                    let (mu_mean, mu_variance) = (0.1 * unit, 0.1 * unit * unit);
                    let node = Node { weight: 1.0, tau: tau * unit, icc, mu_mean, mu_variance };
                    let found = best(&block, &[node]);
                    let all = found.variants.iter().chain([&found.control]);
                    assert!(all.clone().all(|p| (0.0..=1.0).contains(p)), "{n}, {unit:e}, {tau:e}, {icc}: {found:?}");
                    assert!((all.sum::<f64>() - 1.0).abs() < 1e-12);
                }
            }
        }
    }
}
