//! Diagnostics: each figure is what its definition says, computed the long way.

use shrinkd_model::{
    Block, BlockDiagnostics, BlockPass, BlockPosterior, Diagnostics, Estimate, Likelihood, Priors, SketchLikelihood,
    Thresholds, Verdict, quadrature, set_q_values,
};

use crate::reference::sketch_of;

/// A small population with shared controls, one block of them dense.
fn population() -> Vec<Block> {
    let mut blocks: Vec<Block> = (0..12)
        .map(|k| {
            let x = f64::from(k);
            let n = 1 + (k as usize) % 4;
            let effects = (0..n).map(|i| (1.7 * x + 0.9 * i as f64).sin() + 0.3).collect();
            let d = (0..n).map(|i| 0.2 + 0.1 * ((x + i as f64) % 3.0)).collect();
            Block::shared_control(effects, d, 0.15 + 0.02 * x).expect("a block")
        })
        .collect();
    let matrix = vec![0.5, 0.1, -0.05, 0.1, 0.4, 0.2, -0.05, 0.2, 0.6];
    blocks.push(Block::dense(vec![0.2, 0.9, -0.4], matrix).expect("a block"));
    blocks
}

fn independent(blocks: &[Block]) -> Vec<Block> {
    blocks.iter().map(Block::independent).collect()
}

fn estimates(block: &Block, nodes: &[shrinkd_model::Node]) -> Vec<Estimate> {
    let posterior = BlockPosterior::new(block, nodes);
    (0..block.len()).map(|i| posterior.estimate(i)).collect()
}

#[test]
fn the_design_effect_is_the_ratio_of_true_to_naive_variance_of_the_weighted_mean() {
    let blocks = population();
    let t = 0.3;
    let mut pass = BlockPass::default();
    let (mut numerator, mut denominator, mut largest) = (0.0, 0.0, 0.0_f64);
    for block in &blocks {
        pass.add(block, t, &[], &[]);
        let n = block.len();
        let v = |i: usize, j: usize| block.sampling_covariance(i, j) + if i == j { t } else { 0.0 };
        for i in 0..n {
            denominator += 1.0 / v(i, i);
            for j in 0..n {
                numerator += v(i, j) / (v(i, i) * v(j, j));
                if i != j {
                    largest = largest.max(v(i, j).abs() / (v(i, i) * v(j, j)).sqrt());
                }
            }
        }
    }
    assert!((pass.design_effect() - numerator / denominator).abs() < 1e-12);
    assert!((pass.largest_correlation() - largest).abs() < 1e-12);
}

#[test]
fn effects_whose_errors_cancel_make_the_naive_error_too_large() {
    let matrix = vec![1.0, -0.4, -0.4, 1.0];
    let block = Block::dense(vec![0.3, -0.1], matrix).expect("a block");
    let mut pass = BlockPass::default();
    pass.add(&block, 0.25, &[], &[]);
    // 1 + 2 (-0.4 / 1.25^2) / (2 / 1.25)
    assert!((pass.design_effect() - 0.68).abs() < 1e-12, "{}", pass.design_effect());
}

#[test]
fn the_moment_bias_counts_every_off_diagonal_covariance() {
    let blocks = population();
    let (cells, naive) = (sketch_of(&blocks), sketch_of(&independent(&blocks)));
    let (likelihood, naive_likelihood) = (SketchLikelihood::new(&cells), SketchLikelihood::new(&naive));
    let priors = Priors::default();
    let posterior = quadrature(&likelihood, &priors).expect("proper");
    let naive_posterior = quadrature(&naive_likelihood, &priors).expect("proper");
    let diagnostics = Diagnostics::new((&cells, &likelihood, &posterior), (&naive_likelihood, &naive_posterior));
    let mut off_diagonal = 0.0;
    for block in &blocks {
        for i in 0..block.len() {
            off_diagonal += (0..block.len()).filter(|&j| j != i).map(|j| block.sampling_covariance(i, j)).sum::<f64>();
        }
    }
    let n = likelihood.effects() as f64;
    let bias = diagnostics.tau_squared_moment_bias.expect("many effects");
    assert!((bias + off_diagonal / (n * (n - 1.0))).abs() < 1e-12, "{bias}");
    assert!(diagnostics.information < diagnostics.information_independent);
    assert!(diagnostics.effective_effects < n);
}

#[test]
fn without_shared_controls_nothing_shifts_and_the_verdict_is_negligible() {
    let blocks = independent(&population());
    let cells = sketch_of(&blocks);
    let likelihood = SketchLikelihood::new(&cells);
    let posterior = quadrature(&likelihood, &Priors::default()).expect("proper");
    let diagnostics = Diagnostics::new((&cells, &likelihood, &posterior), (&likelihood, &posterior));
    let mut pass = BlockPass::default();
    for block in &blocks {
        let estimates = estimates(block, &posterior.nodes);
        pass.add(block, 0.1, &estimates, &estimates);
    }
    assert!((pass.design_effect() - 1.0).abs() < 1e-12);
    assert_eq!(pass.hausman_z(&likelihood, &likelihood, 0.1), None);
    assert_eq!(diagnostics.mu_shift, Some(0.0));
    let (verdict, ..) = Thresholds::default().verdict(&diagnostics, &pass);
    assert_eq!(verdict, Verdict::Negligible);
}

#[test]
fn the_hausman_z_is_standard_normal_when_the_block_model_is_true() {
    // mu naive - mu is a linear function of the effects: its variance under the block model, the long way.
    let blocks = population();
    let t = 0.2;
    let (likelihood, naive) =
        (SketchLikelihood::new(&sketch_of(&blocks)), SketchLikelihood::new(&sketch_of(&independent(&blocks))));
    let mut pass = BlockPass::default();
    blocks.iter().for_each(|block| pass.add(block, t, &[], &[]));
    // Moving one effect by one moves the difference of the two estimates by its weight in it.
    let difference = |blocks: &[Block]| {
        let (x, y) =
            (SketchLikelihood::new(&sketch_of(blocks)), SketchLikelihood::new(&sketch_of(&independent(blocks))));
        y.centre() + y.at(t).b / y.at(t).a - x.centre() - x.at(t).b / x.at(t).a
    };
    let base = difference(&blocks);
    let mut variance = 0.0;
    for k in 0..blocks.len() {
        let n = blocks[k].len();
        let weight = |i: usize| {
            let mut moved = blocks.clone();
            let mut effects = blocks[k].effects().to_vec();
            effects[i] += 1.0;
            let matrix = (0..n * n).map(|m| blocks[k].sampling_covariance(m / n, m % n)).collect();
            moved[k] = Block::dense(effects, matrix).expect("a block");
            difference(&moved) - base
        };
        let weights: Vec<f64> = (0..n).map(weight).collect();
        for i in 0..n {
            for j in 0..n {
                let v = blocks[k].sampling_covariance(i, j) + if i == j { t } else { 0.0 };
                variance += weights[i] * v * weights[j];
            }
        }
    }
    let z = pass.hausman_z(&likelihood, &naive, t).expect("the treatments differ");
    assert!((z - base / variance.sqrt()).abs() < 1e-6, "{z} {}", base / variance.sqrt());
}

#[test]
fn a_block_is_diagnosed_against_the_rest_of_its_population() {
    let blocks = population();
    let t = 0.25;
    let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
    let population = likelihood.at(t);
    let mu = likelihood.centre() + population.b / population.a;
    for (k, block) in blocks.iter().enumerate() {
        let components = block.components().expect("components");
        let got = BlockDiagnostics::new(block, &components, t, &population, likelihood.centre());
        let rest: Vec<Block> = blocks.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, b)| b.clone()).collect();
        let rest = SketchLikelihood::new(&sketch_of(&rest));
        let without = rest.at(t);
        let influence = (mu - rest.centre() - without.b / without.a) * population.a.sqrt();
        assert!((got.information - (population.a - without.a)).abs() < 1e-10);
        assert!((got.mu_influence.expect("others") - influence).abs() < 1e-9);
        // The block's own mean against that of the rest is the same z.
        let own = SketchLikelihood::new(&sketch_of(std::slice::from_ref(block)));
        let own_terms = own.at(t);
        let gap = own.centre() + own_terms.b / own_terms.a - rest.centre() - without.b / without.a;
        let z = gap / (1.0 / own_terms.a + 1.0 / without.a).sqrt();
        assert!((got.control_shift_z.expect("others") - z).abs() < 1e-9);
        if let Some(bound) = got.information_bound {
            assert!(got.information < bound);
        }
        assert_eq!(got.within_q.is_some(), block.len() > 1);
    }
}

#[test]
fn q_values_are_those_of_benjamini_and_hochberg() {
    let blocks = population();
    let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
    let population = likelihood.at(0.1);
    let diagnose = |block: &Block| {
        let components = block.components().expect("components");
        BlockDiagnostics::new(block, &components, 0.1, &population, likelihood.centre())
    };
    let mut diagnosed: Vec<BlockDiagnostics> = blocks[..4].iter().map(diagnose).collect();
    // p = 0.01, 0.04, 0.03, 0.5 in this order.
    for (block, z) in diagnosed.iter_mut().zip([2.5758293035489, -2.0537489106318, 2.1700903775846, 0.6744897501961]) {
        block.control_shift_z = Some(z);
    }
    set_q_values(diagnosed.iter_mut());
    let q: Vec<f64> = diagnosed.iter().map(|block| block.control_shift_q.expect("a q")).collect();
    for (got, want) in q.iter().zip([0.04, 0.04 * 4.0 / 3.0, 0.04 * 4.0 / 3.0, 0.5]) {
        assert!((got - want).abs() < 1e-9, "{q:?}");
    }
}
