//! Shrunken estimates: the two forms of a block agree with each other and with linear algebra done the long way.

use proptest::prelude::*;
use shrinkd_model::{Block, BlockPosterior, Node};

/// A block against a shared control, and the same block as a dense matrix.
fn twins() -> impl Strategy<Value = (Block, Block)> {
    let row = (-3.0..3.0_f64, 0.05..2.0_f64);
    (prop::collection::vec(row, 1..7), 0.01..3.0_f64).prop_map(|(rows, c)| {
        let effects: Vec<f64> = rows.iter().map(|r| r.0).collect();
        let d: Vec<f64> = rows.iter().map(|r| r.1).collect();
        let shared = Block::shared_control(effects.clone(), d, c).expect("a block");
        let n = effects.len();
        let matrix = (0..n * n).map(|k| shared.sampling_covariance(k / n, k % n)).collect();
        let dense = Block::dense(effects, matrix).expect("a block");
        (shared, dense)
    })
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node = (0.1..1.0_f64, 0.0..2.0_f64, prop::option::of(0.0..0.98_f64), -1.0..1.0_f64, 0.0..0.5_f64);
    prop::collection::vec(node, 1..6).prop_map(|rows| {
        let total: f64 = rows.iter().map(|row| row.0).sum();
        let node = |(weight, tau, icc, mu_mean, mu_variance): (f64, f64, Option<f64>, f64, f64)| Node {
            weight: weight / total,
            tau,
            icc: icc.unwrap_or(0.0),
            mu_mean,
            mu_variance,
        };
        rows.into_iter().map(node).collect()
    })
}

/// Solves `m x = y` by Gaussian elimination with partial pivoting.
pub fn solve(mut m: Vec<Vec<f64>>, mut y: Vec<f64>) -> Vec<f64> {
    let n = y.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| m[i][k].abs().total_cmp(&m[j][k].abs())).expect("rows");
        m.swap(k, pivot);
        y.swap(k, pivot);
        for i in k + 1..n {
            let factor = m[i][k] / m[k][k];
            let pivot_row = m[k].clone();
            m[i].iter_mut().zip(&pivot_row).skip(k).for_each(|(x, y)| *x -= factor * y);
            y[i] -= factor * y[k];
        }
    }
    for k in (0..n).rev() {
        y[k] = (y[k] - (k + 1..n).map(|j| m[k][j] * y[j]).sum::<f64>()) / m[k][k];
    }
    y
}

/// What one node says of an effect.
struct Given {
    mean: f64,
    variance: f64,
    /// `(Sigma V^-1)_ii` and `(Sigma V^-1 1)_i`.
    weights: [f64; 2],
}

/// Each effect given one node, with P the prior covariance `tau^2 R`: `mu + P V^-1 r`, `P - P V^-1 P + h h' Var(mu)`,
/// `Sigma V^-1 = I - P V^-1`.
fn long_way(block: &Block, node: &Node) -> Vec<Given> {
    let (n, t) = (block.len(), node.tau * node.tau);
    let prior = |i: usize, j: usize| if i == j { t } else { node.icc * t };
    let v: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| block.sampling_covariance(i, j) + prior(i, j)).collect()).collect();
    let r = solve(v.clone(), block.effects().iter().map(|x| x - node.mu_mean).collect());
    let ones = solve(v.clone(), vec![1.0; n]);
    (0..n)
        .map(|i| {
            let row: Vec<f64> = (0..n).map(|j| prior(i, j)).collect();
            let times_row = |x: &[f64]| row.iter().zip(x).map(|(p, x)| p * x).sum::<f64>();
            let solved = solve(v.clone(), row.clone());
            let h = 1.0 - times_row(&ones);
            let variance = t - times_row(&solved) + h * h * node.mu_variance;
            Given { mean: node.mu_mean + times_row(&r), variance, weights: [1.0 - solved[i], h] }
        })
        .collect()
}

proptest! {
    #[test]
    fn both_forms_of_a_block_agree_with_linear_algebra((shared, dense) in twins(), nodes in nodes()) {
        for block in [&shared, &dense] {
            let posterior = BlockPosterior::new(block, &nodes);
            let by_node: Vec<Vec<Given>> = nodes.iter().map(|node| long_way(block, node)).collect();
            for i in 0..block.len() {
                let average = |figure: &dyn Fn(&Given) -> f64| -> f64 {
                    nodes.iter().zip(&by_node).map(|(node, effects)| node.weight * figure(&effects[i])).sum()
                };
                let mean = average(&|x| x.mean);
                let variance = average(&|x| x.variance + (x.mean - mean).powi(2));
                let estimate = posterior.estimate(i);
                prop_assert!((estimate.mean - mean).abs() < 1e-10, "{} {mean}", estimate.mean);
                prop_assert!((estimate.sd.powi(2) - variance).abs() < 1e-10, "{} {variance}", estimate.sd.powi(2));
                prop_assert!((estimate.shrinkage_factor - average(&|x| x.weights[0])).abs() < 1e-10);
                prop_assert!((estimate.weight_of_mu - average(&|x| x.weights[1])).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn intervals_hold_their_probability((block, _) in twins(), nodes in nodes()) {
        let posterior = BlockPosterior::new(&block, &nodes);
        for i in 0..block.len() {
            let estimate = posterior.estimate(i);
            if estimate.sd < 1e-6 {
                continue;
            }
            let intervals = posterior.intervals(i, &estimate);
            // The probability below a bound is read off a block moved so that the bound is at 0.
            for (bound, level) in [
                (intervals.ci95.0, 0.975), (intervals.ci80.0, 0.9), (intervals.ci80.1, 0.1), (intervals.ci95.1, 0.025),
            ] {
                let moved: Vec<Node> =
                    nodes.iter().map(|node| Node { mu_mean: node.mu_mean - bound, ..*node }).collect();
                let above = BlockPosterior::new(&shifted(&block, -bound), &moved).estimate(i).prob_positive;
                // A point mass at the bound has no side.
                let has_mass = nodes.iter().any(|node| node.tau < 1e-9 && node.mu_variance < 1e-12);
                prop_assert!(has_mass || (above - level).abs() < 1e-9, "{above} at {level}");
            }
        }
    }

    #[test]
    fn shrinkage_lies_between_nothing_and_everything((shared, dense) in twins(), nodes in nodes()) {
        for block in [&shared, &dense] {
            let posterior = BlockPosterior::new(block, &nodes);
            for i in 0..block.len() {
                let estimate = posterior.estimate(i);
                prop_assert!((0.0..=1.0).contains(&estimate.shrinkage_factor));
                prop_assert!((0.0..=0.5).contains(&estimate.lfsr()));
            }
        }
    }
}

/// The block with every effect moved.
fn shifted(block: &Block, by: f64) -> Block {
    let n = block.len();
    let matrix = (0..n * n).map(|k| block.sampling_covariance(k / n, k % n)).collect();
    Block::dense(block.effects().iter().map(|x| x + by).collect(), matrix).expect("a block")
}

#[test]
fn an_effect_that_is_known_to_be_0_is_positive_with_probability_one_half() {
    let block = Block::shared_control(vec![2.0], vec![0.5], 0.5).expect("a block");
    let node = Node { weight: 0.5, tau: 0.0, icc: 0.0, mu_mean: 0.0, mu_variance: 0.0 };
    let known = BlockPosterior::new(&block, &[Node { weight: 1.0, ..node }]).estimate(0);
    assert_eq!((known.mean, known.sd, known.prob_positive, known.lfsr()), (0.0, 0.0, 0.5, 0.5));
    let mixed = BlockPosterior::new(&block, &[node, Node { mu_mean: 1.0, ..node }]).estimate(0);
    assert_eq!(mixed.prob_positive, 0.75);
}

/// By hand: V = [[3, 1], [1, 3]] with tau^2 = 1, so that V^-1 = [[3, -1], [-1, 3]] / 8 and Sigma V^-1 = I - V^-1.
#[test]
fn a_block_of_two_has_the_shrinkage_factors_of_its_matrices() {
    let node = Node { weight: 1.0, tau: 1.0, icc: 0.0, mu_mean: 0.5, mu_variance: 0.25 };
    let shared = Block::shared_control(vec![2.0, -1.0], vec![1.0, 1.0], 1.0).expect("a block");
    let dense = Block::dense(vec![2.0, -1.0], vec![2.0, 1.0, 1.0, 2.0]).expect("a block");
    for block in [shared, dense] {
        let posterior = BlockPosterior::new(&block, &[node]);
        // mu + V^-1 r with r = (1.5, -1.5); h = 1 - V^-1 1 = 3/4; variance 1 - 3/8 + h^2 / 4.
        for (i, mean) in [0.5 + 0.75, 0.5 - 0.75].into_iter().enumerate() {
            let got = posterior.estimate(i);
            let figures = [got.shrinkage_factor, got.weight_of_mu, got.mean, got.sd.powi(2), got.conditional_variance];
            let want = [5.0 / 8.0, 0.75, mean, 5.0 / 8.0 + 9.0 / 64.0, 5.0 / 8.0];
            assert!(figures.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-14), "{figures:?} {want:?}");
        }
    }
}

#[test]
fn the_control_shift_is_taken_out_of_every_variant_before_shrinking() {
    // Three variants that all look 2 too good against a noisy control, with precise treatments.
    let block = Block::shared_control(vec![2.0, 2.1, 1.9], vec![0.01; 3], 1.0).expect("a block");
    let node = Node { weight: 1.0, tau: 0.2, icc: 0.0, mu_mean: 0.0, mu_variance: 0.0 };
    let posterior = BlockPosterior::new(&block, &[node]);
    let shift = posterior.control_shift.expect("a shared control");
    let v = 0.01 + 0.04;
    assert!((shift.mean - (6.0 / v) / (1.0 + 3.0 / v)).abs() < 1e-12);
    assert!((shift.sd.powi(2) - 1.0 / (1.0 + 3.0 / v)).abs() < 1e-12);
    for (i, effect) in block.effects().iter().enumerate() {
        let want = 0.04 / v * (effect - shift.mean);
        assert!((posterior.estimate(i).mean - want).abs() < 1e-12);
    }
}
