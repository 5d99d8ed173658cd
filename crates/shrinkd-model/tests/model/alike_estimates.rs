//! Estimates of blocks whose true effects are alike, against dense algebra in double-double arithmetic.

use proptest::prelude::*;
use shrinkd_model::{Block, BlockPosterior, Covariance, Estimate, Node};

use crate::alike::{dense_block, total};
use crate::double_double::{Cholesky, Double, dot};
use crate::random::Random;

/// What a node says of one effect, or of what shifts all.
#[derive(Clone, Copy)]
struct Given {
    mean: Double,
    variance: Double,
}

/// What a node says of a block.
struct BlockGiven {
    effects: Vec<Given>,
    /// `(Sigma V^-1)_ii`, `(Sigma V^-1 1)_i` and the variance that is left where mu is known.
    factors: Vec<[f64; 3]>,
    control_shift: Option<Given>,
    shared_effect: Given,
}

/// From the joint normal distribution of observed effects and what is sought: `E = mu + P V^-1 r`, `Cov = P0 - P V^-1 P' + h h' Var(mu)`
/// with P their prior covariance.
fn long_way(block: &Block, node: &Node) -> BlockGiven {
    let n = block.len();
    let of = Double::from;
    let t = of(node.tau) * of(node.tau);
    let v = Cholesky::new(n, |i, j| total(block, node.icc, t, i, j));
    let residuals: Vec<Double> = block.effects().iter().map(|x| of(*x) - of(node.mu_mean)).collect();
    let whitened = v.whiten(&residuals);
    let ones = v.whiten(&vec![of(1.0); n]);
    let mu_variance = of(node.mu_variance);
    // Of a quantity with prior covariances `p` with the effects, its own variance and its slope on mu.
    let given = |p: &[Double], own: Double, slope: Double| {
        let p = v.whiten(p);
        let h = slope - dot(&p, &ones);
        let left = own - dot(&p, &p);
        (Given { mean: dot(&p, &whitened), variance: left + h * h * mu_variance }, h, left)
    };
    let alike = |i: usize, j: usize| if i == j { t } else { t * of(node.icc) };
    let (mut effects, mut factors) = (Vec::new(), Vec::new());
    for i in 0..n {
        let p: Vec<Double> = (0..n).map(|j| alike(i, j)).collect();
        let (about_mu, h, left) = given(&p, t, of(1.0));
        effects.push(Given { mean: about_mu.mean + of(node.mu_mean), ..about_mu });
        let pulled = of(1.0) - v.solve(&p)[i];
        factors.push([pulled.0, h.0, left.0]);
    }
    let shift = |variance: Double| given(&vec![variance; n], variance, of(0.0)).0;
    let control_shift = match block.covariance() {
        Covariance::SharedControl { control_variance, .. } => Some(shift(of(*control_variance))),
        Covariance::Dense { .. } => None,
    };
    BlockGiven { effects, factors, control_shift, shared_effect: shift(t * of(node.icc)) }
}

/// Mean and variance of the mixture.
fn averaged(nodes: &[Node], given: impl Fn(usize) -> Given) -> (f64, f64) {
    let of = Double::from;
    let zero = of(0.0);
    let mean = nodes.iter().enumerate().fold(zero, |sum, (k, node)| sum + of(node.weight) * given(k).mean);
    let variance = nodes.iter().enumerate().fold(zero, |sum, (k, node)| {
        let Given { mean: at, variance } = given(k);
        sum + of(node.weight) * (variance + (at - mean) * (at - mean))
    });
    (mean.0, variance.0)
}

fn assert_agrees(name: &str, block: &Block, nodes: &[Node], tolerance: f64) {
    let posterior = BlockPosterior::new(block, nodes);
    let by_node: Vec<BlockGiven> = nodes.iter().map(|node| long_way(block, node)).collect();
    // Relative to the size of what is compared and of the standard errors of what it is made of.
    let check = |what: &str, got: f64, want: f64, unit: f64| {
        let error = (got - want).abs() / (want.abs() + unit).max(f64::MIN_POSITIVE);
        assert!(error < tolerance, "{name}: {what} is {got:e}, by dense algebra {want:e}");
    };
    for i in 0..block.len() {
        let (mean, variance) = averaged(nodes, |k| by_node[k].effects[i]);
        let factor = |which: usize| -> f64 {
            nodes.iter().zip(&by_node).map(|(node, given)| node.weight * given.factors[i][which]).sum()
        };
        let Estimate { mean: got, sd, shrinkage_factor, weight_of_mu, conditional_variance, .. } =
            posterior.estimate(i);
        check("a mean", got, mean, block.effects()[i].abs());
        check("a variance", sd * sd, variance, 0.0);
        check("a shrinkage factor", shrinkage_factor, factor(0), 0.0);
        check("a weight of mu", weight_of_mu, factor(1), 0.0);
        check("a conditional variance", conditional_variance, factor(2), 0.0);
    }
    let is_shared = block.len() > 1 && nodes.iter().any(|node| node.icc > 0.0);
    assert_eq!(posterior.shared_effect.is_some(), is_shared, "{name}");
    if let Some(shared) = posterior.shared_effect {
        let (mean, variance) = averaged(nodes, |k| by_node[k].shared_effect);
        check("a shared effect", shared.mean, mean, variance.sqrt());
        check("a shared effect's variance", shared.sd.powi(2), variance, mean * mean);
    }
    if let Some(shift) = posterior.control_shift {
        let (mean, variance) = averaged(nodes, |k| by_node[k].control_shift.expect("a shared control"));
        check("a control's shift", shift.mean, mean, variance.sqrt());
        check("a control's shift's variance", shift.sd.powi(2), variance, mean * mean);
    }
}

fn node(tau_squared: f64, icc: f64) -> Node {
    Node { weight: 1.0, tau: tau_squared.sqrt(), icc, mu_mean: 0.1, mu_variance: 0.02 }
}

const ICCS: [f64; 5] = [0.0, 0.3, 0.5, 0.9, 0.98];
const TAU_SQUARED: [f64; 6] = [0.0, 1e-6, 0.1, 1.0, 1e3, 1e8];

#[test]
fn estimates_of_a_shared_control_are_those_of_dense_algebra_at_every_icc() {
    let mut random = Random(17);
    for n in [1, 2, 3, 10, 50] {
        for c in [0.0, 1e-3, 0.5, 1e3] {
            let d: Vec<f64> = (0..n).map(|_| random.normal().exp()).collect();
            let effects = d.iter().map(|d| 0.2 + d.sqrt() * random.normal()).collect();
            let block = Block::shared_control(effects, d, c).expect("a block");
            for icc in ICCS {
                for tau_squared in TAU_SQUARED {
                    let name = format!("{n}, c = {c}, icc {icc}, tau^2 {tau_squared}");
                    assert_agrees(&name, &block, &[node(tau_squared, icc)], 1e-14);
                }
            }
            let nodes: Vec<Node> = ICCS
                .iter()
                .zip([0.01, 0.3, 1.0, 2.0, 7.0])
                .map(|(&icc, tau_squared)| Node { weight: 0.2, mu_mean: icc, ..node(tau_squared, icc) })
                .collect();
            assert_agrees(&format!("{n}, c = {c}, a mixture"), &block, &nodes, 1e-14);
        }
    }
}

#[test]
fn estimates_of_a_dense_covariance_are_those_of_dense_algebra_at_every_icc() {
    let mut random = Random(19);
    for n in [1, 2, 3, 10, 30] {
        let block = dense_block(n, 1.0, 0.1, &mut random);
        for icc in ICCS {
            for tau_squared in TAU_SQUARED {
                let name = format!("{n}, icc {icc}, tau^2 {tau_squared}");
                assert_agrees(&name, &block, &[node(tau_squared, icc)], 1e-12);
            }
        }
    }
}

/// By hand: two variants whose own errors have variance 1, as has the control's, and true effects of variance 2, half of it shared.
/// V = [[4, 2], [2, 4]], so that 1'V^-1 r is r_1 + r_2 over 6, and `Sigma V^-1` has 2/4 - 1/12 = 1/2 on its diagonal.
#[test]
fn a_shift_of_all_effects_is_split_between_the_control_and_what_the_variants_share() {
    let block = Block::shared_control(vec![2.0, 1.0], vec![1.0, 1.0], 1.0).expect("a block");
    let node = Node { weight: 1.0, tau: 2.0_f64.sqrt(), icc: 0.5, mu_mean: 0.0, mu_variance: 0.0 };
    let posterior = BlockPosterior::new(&block, &[node]);
    let (shift, shared) = (posterior.control_shift.expect("a control"), posterior.shared_effect.expect("alike"));
    for (got, want) in [
        (shift.mean, 0.5),
        (shift.sd.powi(2), 2.0 / 3.0),
        (shared.mean, 0.5),
        (shared.sd.powi(2), 2.0 / 3.0),
        (posterior.estimate(0).mean, 1.0),
        (posterior.estimate(1).mean, 0.5),
        (posterior.estimate(0).shrinkage_factor, 0.5),
        (posterior.estimate(0).weight_of_mu, 0.5),
    ] {
        assert!((got - want).abs() < 1e-14, "{got} {want}");
    }
}

/// By hand: Sigma = [[1, 9], [9, 100]] and P = [[1, .9], [.9, 1]], so that V = [[2, 9.9], [9.9, 101]] has determinant 103.99, and
/// `(Sigma V^-1)_22` is (200 - 89.1) / 103.99: with the noisy estimate up by 1, what it has in common with the errors of the precise
/// one says that the effect itself is lower.
#[test]
fn a_noisy_estimate_may_count_against_itself_beside_a_precise_one_with_a_dense_covariance() {
    let block = Block::dense(vec![0.5, 3.0], vec![1.0, 9.0, 9.0, 100.0]).expect("a block");
    let node = Node { weight: 1.0, tau: 1.0, icc: 0.9, mu_mean: 0.0, mu_variance: 0.0 };
    let factor = BlockPosterior::new(&block, &[node]).estimate(1).shrinkage_factor;
    assert!((factor - 110.9 / 103.99).abs() < 1e-13, "{factor}");
}

proptest! {
    #[test]
    fn estimates_are_finite_wherever_a_sketch_has_room_for_the_block(
        rows in prop::collection::vec((-96.0..96.0_f64, -1e3..1e3_f64), 1..7),
        log_c in prop::option::of(-96.0..96.0_f64), log_tau in prop::option::of(-60.0..60.0_f64),
        icc in 0.0..0.98_f64, mu_mean in -10.0..10.0_f64, log_mu_variance in prop::option::of(-96.0..96.0_f64),
    ) {
        let power = |log: Option<f64>| log.map_or(0.0, |log| 10_f64.powf(log));
        let d: Vec<f64> = rows.iter().map(|row| 10_f64.powf(row.0)).collect();
        let effects = rows.iter().zip(&d).map(|(row, d)| row.1 * d.sqrt()).collect();
        let block = Block::shared_control(effects, d, power(log_c)).expect("a block");
        let node = Node { weight: 1.0, tau: power(log_tau), icc, mu_mean, mu_variance: power(log_mu_variance) };
        let posterior = BlockPosterior::new(&block, &[node]);
        for estimate in posterior.estimates() {
            let Estimate { mean, sd, prob_positive, shrinkage_factor, weight_of_mu, conditional_variance, .. } = estimate;
            prop_assert!([mean, sd, conditional_variance].into_iter().all(f64::is_finite), "{:?}", estimate);
            prop_assert!((0.0..=1.0).contains(&prob_positive) && (0.0..=1.0).contains(&shrinkage_factor), "{:?}", estimate);
            prop_assert!(weight_of_mu >= 0.0 && conditional_variance >= 0.0, "{:?}", estimate);
        }
        if let Some(shared) = posterior.shared_effect {
            prop_assert!(shared.mean.is_finite() && shared.sd.is_finite());
        }
    }
}
