//! Diagnostics: each figure is what its definition says, computed the long way.

use shrinkd_model::{
    Block, BlockDiagnostics, BlockPosterior, Consequences, Correlation, Covariance, Diagnostics, DirectLikelihood,
    Direction, Estimate, Fit, Likelihood, Measure, Member, Method, Misfit, Node, PriorIcc, PriorTau, Priors,
    SketchLikelihood, Sketches, Thresholds, Verdict, quadrature, set_q_values,
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

fn estimates(block: &Block, nodes: &[Node]) -> Vec<Estimate> {
    BlockPosterior::new(block, nodes).estimates()
}

/// A posterior that knows tau.
fn at(t: f64) -> Consequences {
    with_icc(t, 0.0)
}

/// A posterior that knows tau and icc.
fn with_icc(t: f64, icc: f64) -> Consequences {
    let tau = t.sqrt();
    Consequences::new(&[Node { weight: 1.0, tau, icc, mu_mean: 0.0, mu_variance: 0.0 }], (tau, icc))
}

fn sketches_of(blocks: &[Block]) -> Sketches {
    let members: Vec<Member> = blocks.iter().map(|b| Member::new(b.clone(), 0).expect("a member")).collect();
    Sketches::of_members(&members, 1).expect("in range")
}

#[test]
fn what_true_effects_share_counts_in_the_design_effect_the_information_and_the_largest_correlation() {
    let (blocks, t) = (population(), 0.2);
    let sketches = sketches_of(&blocks);
    for icc in [0.0, 0.3, 0.8] {
        let mut pass = with_icc(t, icc);
        let (mut variance, mut from_control, mut weight, mut largest, mut information) = (0.0, 0.0, 0.0, 0.0_f64, 0.0);
        for block in &blocks {
            pass.add(block, Direction::Increase, &[], &[]);
            let g: Vec<f64> = (0..block.len()).map(|i| 1.0 / (block.sampling_variance(i) + t)).collect();
            for i in 0..block.len() {
                weight += g[i];
                for j in 0..block.len() {
                    let sampling = block.sampling_covariance(i, j) + if i == j { t } else { 0.0 };
                    let v = sampling + if i == j { 0.0 } else { icc * t };
                    from_control += g[i] * sampling * g[j];
                    variance += g[i] * v * g[j];
                    largest = largest.max(if i == j { 0.0 } else { v.abs() * (g[i] * g[j]).sqrt() });
                }
            }
            let components = block.components_at(icc).expect("components");
            information += components.iter().map(|c| c.a * c.a / (c.lambda + t)).sum::<f64>();
        }
        let near = |x: f64, y: f64| assert!((x - y).abs() < 1e-7 * y.abs().max(1e-3), "{x} for {y} at icc {icc}");
        near(pass.deff(), variance / weight);
        near(pass.deff_control(), from_control / weight);
        near(pass.largest_correlation(), largest);
        let priors =
            Priors { tau: PriorTau::Fixed { tau: t.sqrt() }, icc: PriorIcc::Fixed { icc }, ..Priors::default() };
        let likelihood_of = |correlation| SketchLikelihood::new(&sketches.of(correlation));
        let likelihoods = [Correlation::Modelled, Correlation::Ignored].map(likelihood_of);
        let fit = |correlation: Correlation| {
            let likelihood = &likelihood_of(correlation);
            Fit::of(&sketches, correlation, likelihood, &priors, Method::Quadrature).expect("a posterior")
        };
        let (modelled, ignored) = (fit(Correlation::Modelled), fit(Correlation::Ignored));
        let diagnostics =
            Diagnostics::new(&sketches, (&likelihoods[0], &modelled.posterior), (&likelihoods[1], &ignored.posterior));
        near(diagnostics.information, information);
        near(diagnostics.information_ignored, weight);
        // Of the same estimate in the two models, whose variances are as told.
        let z = pass.hausman_z(&sketches, &likelihoods[0], &likelihoods[1]).expect("controls are shared");
        let difference = pass.deff() / weight - 1.0 / information;
        near(
            z * difference.sqrt(),
            ignored.posterior.mu.mean.expect("a mean") - modelled.posterior.mu.mean.expect("a mean"),
        );
    }
}

#[test]
fn the_design_effect_is_the_ratio_of_true_to_naive_variance_of_the_weighted_mean() {
    let blocks = population();
    let t = 0.3;
    let mut pass = at(t);
    let (mut numerator, mut denominator, mut largest) = (0.0, 0.0, 0.0_f64);
    for block in &blocks {
        pass.add(block, Direction::Increase, &[], &[]);
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
    assert!((pass.deff() - numerator / denominator).abs() < 1e-12);
    assert!((pass.largest_correlation() - largest).abs() < 1e-12);
}

#[test]
fn effects_whose_errors_cancel_make_the_naive_error_too_large() {
    let matrix = vec![1.0, -0.4, -0.4, 1.0];
    let block = Block::dense(vec![0.3, -0.1], matrix).expect("a block");
    let mut pass = at(0.25);
    pass.add(&block, Direction::Increase, &[], &[]);
    // 1 + 2 (-0.4 / 1.25^2) / (2 / 1.25)
    assert!((pass.deff() - 0.68).abs() < 1e-12, "{}", pass.deff());
}

#[test]
fn the_moment_bias_counts_every_off_diagonal_covariance() {
    let blocks = population();
    let (cells, naive) = (sketch_of(&blocks), sketch_of(&independent(&blocks)));
    let (likelihood, naive_likelihood) = (SketchLikelihood::new(&cells), SketchLikelihood::new(&naive));
    let priors = Priors::default();
    let posterior = quadrature(&likelihood, &priors).expect("proper");
    let naive_posterior = quadrature(&naive_likelihood, &priors).expect("proper");
    let diagnostics =
        Diagnostics::new(&sketches_of(&blocks), (&likelihood, &posterior), (&naive_likelihood, &naive_posterior));
    let mut off_diagonal = 0.0;
    for block in &blocks {
        for i in 0..block.len() {
            off_diagonal += (0..block.len()).filter(|&j| j != i).map(|j| block.sampling_covariance(i, j)).sum::<f64>();
        }
    }
    let n = likelihood.effects() as f64;
    let bias = diagnostics.tau_squared_moment_bias.expect("many effects");
    assert!((bias + off_diagonal / (n * (n - 1.0))).abs() < 1e-12, "{bias}");
    assert!(diagnostics.information < diagnostics.information_ignored);
    assert!(diagnostics.effective_effects < n);
}

#[test]
fn without_shared_controls_nothing_shifts_and_the_verdict_is_negligible() {
    let blocks = independent(&population());
    let cells = sketch_of(&blocks);
    let likelihood = SketchLikelihood::new(&cells);
    let posterior = quadrature(&likelihood, &Priors::default()).expect("proper");
    let diagnostics = Diagnostics::new(&sketches_of(&blocks), (&likelihood, &posterior), (&likelihood, &posterior));
    let mut pass = Consequences::new(&posterior.nodes, (0.1, 0.0));
    for block in &blocks {
        let estimates = estimates(block, &posterior.nodes);
        pass.add(block, Direction::Increase, &estimates, &estimates);
    }
    assert!((pass.deff() - 1.0).abs() < 1e-12);
    assert!((pass.naive_coverage() - 0.95).abs() < 1e-12);
    assert_eq!((pass.rmse_excess(), pass.changed_decisions(), pass.sign_flips()), (Some(0.0), 0, 0));
    assert_eq!(pass.hausman_z(&sketches_of(&blocks), &likelihood, &likelihood), None);
    assert_eq!(diagnostics.mu_shift, Some(0.0));
    let (verdict, ..) = Thresholds::default().verdict(&pass, &Misfit::default());
    assert_eq!(verdict, Verdict::Negligible);
}

#[test]
fn two_models_whose_variances_differ_by_rounding_alone_have_no_hausman_z() {
    let blocks = independent(&population());
    let components = blocks.iter().flat_map(|block| block.components().expect("components")).collect();
    let (summed, sketch) = (DirectLikelihood::new(components), SketchLikelihood::new(&sketch_of(&blocks)));
    let sketches = sketches_of(&blocks);
    for k in 1..400 {
        let t = 0.01 * f64::from(k);
        let mut pass = at(t);
        blocks.iter().for_each(|block| pass.add(block, Direction::Increase, &[], &[]));
        assert_eq!(
            (pass.hausman_z(&sketches, &summed, &sketch), pass.hausman_z(&sketches, &sketch, &summed)),
            (None, None),
            "t = {t}"
        );
    }
}

#[test]
fn the_hausman_z_is_standard_normal_when_the_block_model_is_true() {
    // mu naive - mu is a linear function of the effects: its variance under the block model, the long way.
    let blocks = population();
    let t = 0.2;
    let (likelihood, naive) =
        (SketchLikelihood::new(&sketch_of(&blocks)), SketchLikelihood::new(&sketch_of(&independent(&blocks))));
    let mut pass = at(t);
    blocks.iter().for_each(|block| pass.add(block, Direction::Increase, &[], &[]));
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
    let z = pass.hausman_z(&sketches_of(&blocks), &likelihood, &naive).expect("the treatments differ");
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
        let got = BlockDiagnostics::new(block, &components, (t, 0.0), &population, likelihood.centre(), None);
        let rest: Vec<Block> = blocks.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, b)| b.clone()).collect();
        let rest = SketchLikelihood::new(&sketch_of(&rest));
        let without = rest.at(t);
        let influence = (mu - rest.centre() - without.b / without.a) * population.a.sqrt();
        assert!((got.information - (population.a - without.a)).abs() < 1e-10);
        assert!((got.mu_influence.expect("others") - influence).abs() < 1e-9);
        let bound = match block.covariance() {
            Covariance::SharedControl { control_variance, .. } => Some(1.0 / control_variance),
            Covariance::Dense { .. } => None,
        };
        assert_eq!(got.information_bound, bound);
        assert!(bound.is_none_or(|bound| got.information < bound));
        assert_eq!(got.within_q.is_some(), block.len() > 1);
    }
}

#[test]
fn only_a_control_with_an_error_of_its_own_bounds_what_a_block_can_say() {
    let bound = |control_variance: f64| {
        let block = Block::shared_control(vec![0.1, 0.4], vec![1.0, 1.0], control_variance).expect("a block");
        let likelihood = SketchLikelihood::new(&sketch_of(std::slice::from_ref(&block)));
        let components = block.components().expect("components");
        BlockDiagnostics::new(&block, &components, (0.25, 0.0), &likelihood.at(0.25), likelihood.centre(), None)
            .information_bound
    };
    assert_eq!(bound(0.5), Some(2.0));
    assert_eq!(bound(0.0), None);
}

#[test]
fn the_only_block_has_no_influence_whatever_rounding_leaves_of_the_others() {
    for block in population() {
        let components = block.components().expect("components");
        let likelihood = SketchLikelihood::new(&sketch_of(std::slice::from_ref(&block)));
        for k in 0..100 {
            let t = 0.01 * f64::from(k);
            let got =
                BlockDiagnostics::new(&block, &components, (t, 0.0), &likelihood.at(t), likelihood.centre(), None);
            assert_eq!((got.mu_influence, got.control_shift_z), (None, None), "t = {t}");
            assert!((got.information_share - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn q_values_are_those_of_benjamini_and_hochberg() {
    let blocks = population();
    let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
    let population = likelihood.at(0.1);
    let diagnose = |block: &Block| {
        let components = block.components().expect("components");
        BlockDiagnostics::new(block, &components, (0.1, 0.0), &population, likelihood.centre(), None)
    };
    let mut diagnosed: Vec<BlockDiagnostics> = blocks[..5].iter().map(diagnose).collect();
    // p = 0.01, 0.04, 0.03, 0.5 in this order, and one that is not tested.
    for (block, z) in diagnosed.iter_mut().zip([2.5758293035489, -2.0537489106318, 2.1700903775846, 0.6744897501961]) {
        block.control_shift_z = Some(z);
    }
    set_q_values(diagnosed.iter_mut());
    let q: Vec<f64> = diagnosed.iter().map(|block| block.control_shift_q.unwrap_or(9.0)).collect();
    assert_eq!(diagnosed[4].control_shift_q, None);
    for (got, want) in q.iter().zip([0.04, 0.04 * 4.0 / 3.0, 0.04 * 4.0 / 3.0, 0.5]) {
        assert!((got - want).abs() < 1e-9, "{q:?}");
    }
}

/// The figures of a population by definition: each node, effect and experiment one by one.
#[test]
fn the_consequences_are_what_their_definitions_say() {
    let blocks = population();
    let naive_blocks = independent(&blocks);
    let priors = Priors::default();
    let [fit, naive] = [&blocks, &naive_blocks].map(|blocks| {
        Fit::new(&SketchLikelihood::new(&sketch_of(blocks)), &priors, Method::Quadrature).expect("a posterior")
    });
    let tau = fit.posterior.tau.median.expect("a median");
    let mut consequences = Consequences::new(&fit.nodes, (tau, 0.0));
    let mut halves = [consequences.clone(), consequences.clone()];
    let (mut shift, mut variance, mut changed, mut value, mut given_up) = (0.0, 0.0, 0, 0.0, 0.0);
    let mut largest_shift = 0.0_f64;
    for (k, (block, naive_block)) in blocks.iter().zip(&naive_blocks).enumerate() {
        let (own, other) = (estimates(block, &fit.nodes), estimates(naive_block, &naive.nodes));
        consequences.add(block, Direction::Increase, &own, &other);
        halves[k % 2].add(block, Direction::Increase, &own, &other);
        for (own, other) in own.iter().zip(&other) {
            shift += (other.mean - own.mean).powi(2);
            largest_shift = largest_shift.max((other.mean - own.mean).abs() / own.sd);
            variance += own.sd.powi(2);
            let call = |p: f64| (p > 0.975, p < 0.025);
            let is_far = (own.prob_positive - other.prob_positive).abs() > 0.02;
            changed += u64::from(is_far && call(own.prob_positive) != call(other.prob_positive));
        }
        // The control, whose effect is 0, is the last.
        let with_control = |estimates: &[Estimate]| -> Vec<f64> {
            estimates.iter().map(|estimate| estimate.mean).chain([0.0]).collect()
        };
        let (own, other) = (with_control(&own), with_control(&other));
        let largest = |x: &[f64]| (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best });
        value += own[largest(&own)];
        given_up += own[largest(&own)] - own[largest(&other)];
    }
    let deff: f64 = fit
        .nodes
        .iter()
        .map(|node| {
            let mut one = at(node.tau * node.tau);
            blocks.iter().for_each(|block| one.add(block, Direction::Increase, &[], &[]));
            node.weight * one.deff()
        })
        .sum();
    let excess = (1.0 + shift / variance).sqrt() - 1.0;
    let [mut merged, half] = halves;
    merged.merge(&half);
    for got in [consequences, merged] {
        assert!((got.deff() - deff).abs() < 1e-12 && deff > 1.1);
        assert!((got.naive_coverage() - libm::erf(1.959963984540054 / (2.0 * deff).sqrt())).abs() < 1e-12);
        assert!((got.rmse_excess().expect("an excess") - excess).abs() < 1e-12 && excess > 1e-3);
        assert!((got.largest_estimate_shift() - largest_shift).abs() < 1e-12 && largest_shift > 1e-3);
        assert_eq!(got.changed_decisions(), changed);
        assert!((got.value_given_up().expect("a value") - given_up / value).abs() < 1e-12);
    }
}

#[test]
fn where_less_is_better_the_value_is_what_the_smallest_estimates_take_away() {
    let estimate = |mean: f64| Estimate {
        mean,
        sd: 0.5,
        prob_positive: 0.5,
        shrinkage_factor: 0.5,
        weight_of_mu: 0.5,
        conditional_variance: 0.2,
    };
    let block = Block::shared_control(vec![1.0, 1.0], vec![1.0, 1.0], 0.5).expect("a block");
    let given_up = |direction, sign: f64| {
        let mut consequences = at(1.0);
        let [own, naive] = [[3.0, 2.0], [1.0, 2.0]].map(|means| means.map(|mean| estimate(sign * mean)));
        consequences.add(&block, direction, &own, &naive);
        consequences.value_given_up()
    };
    assert_eq!(given_up(Direction::Increase, 1.0), Some(1.0 / 3.0));
    assert_eq!(given_up(Direction::Decrease, -1.0), Some(1.0 / 3.0));
    assert_eq!(given_up(Direction::Decrease, 1.0), None);
}

#[test]
fn a_value_within_one_posterior_sd_of_0_cannot_be_given_up() {
    let given_up = |mean: f64, sd: f64| {
        let estimate = |mean: f64| Estimate {
            mean,
            sd,
            prob_positive: 0.5,
            shrinkage_factor: 0.5,
            weight_of_mu: 0.5,
            conditional_variance: 0.2,
        };
        let block = Block::shared_control(vec![1.0], vec![1.0], 0.5).expect("a block");
        let mut consequences = at(1.0);
        // Two experiments, so that the sd of the value is sqrt(2) times that of each.
        for _ in 0..2 {
            consequences.add(&block, Direction::Increase, &[estimate(mean)], &[estimate(-mean)]);
        }
        consequences.value_given_up()
    };
    for sd in [0.2, 3.0] {
        assert_eq!(given_up(0.72 * sd, sd), Some(1.0), "{sd}");
        assert_eq!(given_up(0.70 * sd, sd), None, "{sd}");
    }
}

#[test]
fn a_borderline_call_is_no_changed_decision_and_three_changed_ones_are_needed() {
    let estimate = |prob_positive: f64| Estimate {
        mean: 1.0,
        sd: 0.5,
        prob_positive,
        shrinkage_factor: 0.5,
        weight_of_mu: 0.5,
        conditional_variance: 0.2,
    };
    let block = Block::shared_control(vec![1.0], vec![1.0], 0.0).expect("a block");
    // Changed calls, and how many of them count.
    for (own, naive, counts) in [(0.961, 0.98, 0), (0.95, 0.98, 1), (0.98, 0.95, 1), (0.01, 0.06, 1), (0.5, 0.9, 0)] {
        let mut consequences = at(1.0);
        consequences.add(&block, Direction::Increase, &[estimate(own)], &[estimate(naive)]);
        assert_eq!(consequences.changed_decisions(), counts, "{own} {naive}");
    }
    let verdict = |changed: usize, others: usize| {
        let mut consequences = at(1.0);
        for i in 0..changed + others {
            let naive = if i < changed { 0.98 } else { 0.9 };
            consequences.add(&block, Direction::Increase, &[estimate(0.9)], &[estimate(naive)]);
        }
        Thresholds::default().verdict(&consequences, &Misfit::default()).0
    };
    assert_eq!(verdict(2, 0), Verdict::Negligible);
    assert_eq!(verdict(3, 0), Verdict::Material);
    assert_eq!(verdict(3, 57), Verdict::Noticeable);
    assert_eq!(verdict(3, 56), Verdict::Material);
    assert_eq!(verdict(3, 400), Verdict::Negligible);
}

/// Where mu and tau are known, estimates are linear in the effects: Stein's formula needs the derivative of each one.
#[test]
fn the_risk_is_steins_with_the_derivatives_of_the_estimates() {
    let node = [Node { weight: 1.0, tau: 0.6, icc: 0.0, mu_mean: 0.2, mu_variance: 0.0 }];
    let mut misfit = Misfit::default();
    let mut parts = [misfit, misfit];
    let (mut sums, mut counts) = ([0.0; Correlation::COUNT], [0.0; Correlation::COUNT]);
    for (k, block) in population().iter().enumerate() {
        let n = block.len();
        let matrix: Vec<f64> = (0..n * n).map(|m| block.sampling_covariance(m / n, m % n)).collect();
        let moved = |j: usize, by: f64| {
            let mut effects = block.effects().to_vec();
            effects[j] += by;
            Block::dense(effects, matrix.clone()).expect("a block")
        };
        let chosen = k % n;
        let models: [fn(&Block, usize) -> Block; Correlation::COUNT] = [
            |block, _| block.clone(),
            |block, _| block.clone(),
            |block, _| block.independent(),
            |block, chosen| block.single(chosen),
        ];
        let by_model = models.map(|model| estimates(&model(block, chosen), &node));
        for (model, correlation) in models.iter().zip(Correlation::ALL) {
            for (i, estimate) in by_model[correlation as usize].iter().enumerate() {
                let effect = if correlation == Correlation::OnePerExperiment { chosen } else { i };
                let derivative = |j: usize| estimates(&model(&moved(j, 1.0), chosen), &node)[i].mean - estimate.mean;
                let covariance: f64 = (0..n).map(|j| derivative(j) * matrix[j * n + effect]).sum();
                let sigma = matrix[effect * n + effect];
                let square = (estimate.mean - block.effects()[effect]).powi(2);
                // Off-diagonal derivatives of an estimate from one effect alone are 0.
                sums[correlation as usize] += (square - sigma + 2.0 * covariance) / sigma;
                counts[correlation as usize] += 1.0;
            }
        }
        let by_model = by_model.each_ref().map(Vec::as_slice);
        misfit.add(block, chosen, by_model, [None; Correlation::COUNT]);
        parts[k % 2].add(block, chosen, by_model, [None; Correlation::COUNT]);
    }
    let [mut merged, other] = parts;
    merged.merge(&other);
    for correlation in Correlation::ALL {
        let want = sums[correlation as usize] / counts[correlation as usize];
        for got in [misfit, merged] {
            assert!((got.risk(correlation).expect("a risk") - want).abs() < 1e-9, "{correlation:?}");
            assert_eq!(got.score(correlation), None);
        }
    }
}

#[test]
fn the_model_misfits_where_another_predicts_better_by_more_than_noise() {
    let block = Block::shared_control(vec![0.5, 0.7], vec![1.0, 1.0], 1.0).expect("a block");
    let mut consequences = at(1.0);
    consequences.add(&block, Direction::Increase, &[], &[]);
    // (experiments, mean difference in nats, its noise) and whether it counts.
    for (experiments, mean, noise, is_misfit) in [
        (100, 0.1, 0.0, true),
        (100, 0.1, 0.39, true),
        (100, 0.1, 0.45, false),
        (100, 0.1, 0.6, false),
        (100, 0.02, 0.0, false),
        (100, -0.1, 0.0, false),
        (9, 1.0, 0.0, false),
        (10, 1.0, 0.0, true),
    ] {
        for better in [Correlation::ControlOnly, Correlation::Ignored, Correlation::OnePerExperiment] {
            let mut misfit = Misfit::default();
            for k in 0..experiments {
                let difference = mean + if k % 2 == 0 { noise } else { -noise };
                let mut scores = [-1.0; Correlation::COUNT];
                scores[better as usize] += difference;
                misfit.add(&block, 0, [&[]; Correlation::COUNT], scores.map(Some));
            }
            let (verdict, _, value) = Thresholds::default().verdict(&consequences, &misfit);
            // Against one variant per experiment it takes 2.5 standard errors instead of 2.
            let is_misfit = is_misfit || (better != Correlation::OnePerExperiment && noise == 0.45);
            assert_eq!(verdict == Verdict::Misfit, is_misfit, "{experiments} {mean} {noise}");
            assert!(!is_misfit || (value - f64::from(experiments) * mean).abs() < 1e-9 + noise);
            assert!((misfit.score(Correlation::Modelled).expect("a score") + f64::from(experiments)).abs() < 1e-9);
        }
    }
}

#[test]
fn the_model_misfits_where_its_risk_is_larger_by_more_than_noise() {
    let block = Block::shared_control(vec![0.0], vec![1.0], 0.0).expect("a block");
    let mut consequences = at(1.0);
    consequences.add(&block, Direction::Increase, &[], &[]);
    // An estimate of an effect of 0 with variance 1 whose risk is this.
    let estimate = |risk: f64| Estimate {
        mean: 0.0,
        sd: 1.0,
        prob_positive: 0.5,
        shrinkage_factor: 0.5,
        weight_of_mu: 0.5,
        conditional_variance: 0.5 * (1.0 + risk),
    };
    // (experiments, risk of the naive model, by how much the block model's is larger, its noise), and by how much it counts.
    for (experiments, naive, mean, noise, excess) in [
        (100, 0.5, 0.1, 0.0, Some(0.1)),
        (100, 0.5, 0.1, 0.45, Some(0.1)),
        (100, 0.5, 0.1, 0.55, None),
        (100, 0.5, 0.009, 0.0, None),
        (100, 0.5, -0.1, 0.0, None),
        (9, 0.5, 0.1, 0.0, None),
        // By chance the risk of a small tau is about 0.
        (100, 0.0, 0.1, 0.0, Some(0.1)),
        (100, -0.2, 0.1, 0.0, Some(0.1)),
        // Against the raw estimates, whose risk is 1.
        (100, 1.3, -0.1, 0.0, Some(0.2)),
    ] {
        let mut misfit = Misfit::default();
        for k in 0..experiments {
            let noise = if k % 2 == 0 { noise } else { -noise };
            let (modelled, ignored) = ([estimate(naive + mean + noise)], [estimate(naive)]);
            misfit.add(&block, 0, [&modelled, &ignored, &ignored, &ignored], [None; Correlation::COUNT]);
        }
        let (verdict, measure, value) = Thresholds::default().verdict(&consequences, &misfit);
        let got = (verdict == Verdict::Misfit).then_some(value);
        assert_eq!(got.is_some(), excess.is_some(), "{naive} {mean} {noise}");
        let Some((got, excess)) = got.zip(excess) else { continue };
        assert!((got - excess).abs() < 1e-9 && measure == Measure::RiskExcess, "{got} {excess}");
    }
}
