//! Leaving blocks out: every prediction is that of a real fit without the block, whatever the block does to the population.

use proptest::prelude::*;
use shrinkd_model::{
    Block, Calibration, CalibrationCounts, Fit, LeaveOneOut, Method, Node, Prediction, Priors, SketchLikelihood,
    quadrature,
};

use crate::reference::sketch_of;

fn priors(mu: &str, tau: &str) -> Priors {
    Priors { mu: mu.parse().expect("a prior of mu"), tau: tau.parse().expect("a prior of tau"), ..Priors::default() }
}

/// Priors near to unit effects, far from them, and with every weight of tails.
fn every_prior() -> Vec<Priors> {
    [
        ("flat", "flat"),
        ("flat", "half-normal:0.5"),
        ("flat", "half-normal:0.001"),
        ("flat", "half-cauchy:0.5"),
        ("flat", "half-cauchy:20"),
        ("flat", "half-t:4,1"),
        ("normal:0,10", "half-t:1.5,0.3"),
        ("normal:0,0.01", "half-cauchy:0.05"),
        ("normal:0,0.5", "half-normal:0.3"),
        ("normal:3,0.1", "flat"),
    ]
    .map(|(mu, tau)| priors(mu, tau))
    .to_vec()
}

fn single(effect: f64, variance: f64) -> Block {
    Block::shared_control(vec![effect], vec![variance], 0.0).expect("a block")
}

/// A fixed sequence without a pattern, standard normal.
fn noise(i: usize) -> f64 {
    let uniform = |k: usize| ((k as f64 + 0.5) * 0.618_033_988_749_894_9).fract();
    (-2.0 * uniform(2 * i).ln()).sqrt()
        * (std::f64::consts::TAU * ((i as f64 + 0.5) * 0.754_877_666_246_692_8).fract()).cos()
}

/// z and PIT of a block's effects under these nodes.
fn predictions(block: &Block, nodes: &[Node]) -> Vec<Prediction> {
    let erfc_half = |z: f64| 0.5 * libm::erfc(z / std::f64::consts::SQRT_2);
    (0..block.len())
        .map(|i| {
            let effect = block.effects()[i];
            let spread = |n: &Node| n.mu_variance + n.tau * n.tau + block.sampling_variance(i);
            let mean: f64 = nodes.iter().map(|n| n.weight * n.mu_mean).sum();
            let variance: f64 = nodes.iter().map(|n| n.weight * (spread(n) + (n.mu_mean - mean).powi(2))).sum();
            let above: f64 = nodes.iter().map(|n| n.weight * erfc_half((effect - n.mu_mean) / spread(n).sqrt())).sum();
            Prediction { z: (effect - mean) / variance.sqrt(), pit: 1.0 - above }
        })
        .collect()
}

/// The block's mean marginal log density under these nodes, and how many standard errors its generalised least squares mean is away,
/// by the probability below it.
fn score_and_shift(block: &Block, nodes: &[Node]) -> (f64, f64) {
    let density = |effect: f64, variance: f64| {
        let at = |n: &Node| {
            let v = n.mu_variance + n.tau * n.tau + variance;
            n.weight * (-0.5 * (effect - n.mu_mean).powi(2) / v).exp() / (std::f64::consts::TAU * v).sqrt()
        };
        nodes.iter().map(at).sum::<f64>().ln()
    };
    let n = block.len();
    let score = (0..n).map(|i| density(block.effects()[i], block.sampling_variance(i))).sum::<f64>() / n as f64;
    let below: f64 = nodes
        .iter()
        .map(|node| {
            let t = node.tau * node.tau;
            let v = faer::Mat::from_fn(n, n, |i, j| block.sampling_covariance(i, j) + if i == j { t } else { 0.0 });
            let right = faer::Mat::from_fn(n, 2, |i, j| if j == 0 { 1.0 } else { block.effects()[i] });
            let solved = faer::linalg::solvers::Solve::solve(&v.partial_piv_lu(), &right);
            let [a, b] = [0, 1].map(|j| (0..n).map(|i| solved[(i, j)]).sum::<f64>());
            let z = (b / a - node.mu_mean) / (1.0 / a + node.mu_variance).sqrt();
            node.weight * 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
        })
        .sum();
    (score, below)
}

/// Leaves every block out and fits the others; the largest difference, and how many predictions were compared.
fn worst(blocks: &[Block], priors: &Priors) -> (f64, usize) {
    let sketch = sketch_of(blocks);
    let Ok(fit) = Fit::new(&SketchLikelihood::new(&sketch), priors, Method::Quadrature) else { return (0.0, 0) };
    let leave_one_out = LeaveOneOut::new(&sketch, priors, &fit);
    let (mut largest, mut compared) = (0.0_f64, 0);
    for (k, block) in blocks.iter().enumerate() {
        let Some(got) = leave_one_out.predict(block, &block.components().expect("components")) else { continue };
        let rest: Vec<Block> = blocks.iter().enumerate().filter(|&(i, _)| i != k).map(|(_, b)| b.clone()).collect();
        let refit = quadrature(&SketchLikelihood::new(&sketch_of(&rest)), priors).expect("a posterior of the rest");
        let (score, below) = score_and_shift(block, &refit.nodes);
        if score.is_finite() {
            largest = largest.max((got.score - score).abs() / (1.0 + score.abs()));
        }
        let z_below = got.control_shift_z.map(|z| 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2));
        assert_eq!(z_below.is_some(), block.len() > 1);
        largest = largest.max(z_below.map_or(0.0, |z_below| (z_below - below).abs()));
        for (got, want) in got.predictions.iter().zip(predictions(block, &refit.nodes)) {
            assert!(got.z.is_finite() && (0.0..=1.0).contains(&got.pit), "{got:?}");
            largest = largest.max((got.z - want.z).abs()).max((got.pit - want.pit).abs());
            compared += 1;
        }
    }
    (largest, compared)
}

#[track_caller]
fn assert_like_refits(name: &str, blocks: &[Block]) {
    let mut all = 0;
    for priors in every_prior() {
        let (largest, compared) = worst(blocks, &priors);
        assert!(largest < 1e-6, "{name} under mu {} and tau {}: {largest:e}", priors.mu, priors.tau);
        all += compared;
    }
    assert!(all > 0, "{name} has predictions");
}

fn with_outlier(effect: f64) -> Vec<Block> {
    let mut blocks: Vec<Block> = (0..20).map(|i| single(noise(i), 1.0)).collect();
    blocks.push(single(effect, 1.0));
    blocks
}

#[test]
fn an_outlier_is_as_far_away_as_the_others_alone_say() {
    for effect in [6.0, 60.0, 2_000.0, 1e6] {
        let blocks = with_outlier(effect);
        let sketch = sketch_of(&blocks);
        let flat = Priors::default();
        let fit = Fit::new(&SketchLikelihood::new(&sketch), &flat, Method::Quadrature).expect("a posterior");
        let block = &blocks[20];
        let components = block.components().expect("components");
        let got = LeaveOneOut::new(&sketch, &flat, &fit).predict(block, &components).expect("predictions").predictions;
        // The others have a spread of their standard errors: the outlier is about as many of these away.
        assert!((0.7..1.1).contains(&(got[0].z / effect)), "{effect}: {got:?}");
        let refit = quadrature(&SketchLikelihood::new(&sketch_of(&blocks[..20])), &flat).expect("a posterior");
        let want = predictions(block, &refit.nodes)[0].z;
        assert!((got[0].z - want).abs() < 1e-6, "{effect}: {} instead of {want}", got[0].z);
        assert_like_refits("an outlier", &blocks);
    }
}

/// Where mu and tau are known the others say nothing: an effect is N(mu, tau^2 + its variance), and so is the mean of two that share no
/// control, with half of that.
#[test]
fn under_known_mu_and_tau_predictions_are_those_of_the_normal_distribution() {
    let known = priors("fixed:0.5", "fixed:1");
    let levels = [(-1.959963984540054, 0.025), (0.0, 0.5), (0.6744897501960817, 0.75), (1.6448536269514722, 0.95)];
    let two = |z: f64| Block::shared_control(vec![0.5 + 2.0 * z, 0.5], vec![1.0; 2], 0.0).expect("a block");
    let mut blocks: Vec<Block> = levels.iter().map(|&(z, _)| single(0.5 + z * 2_f64.sqrt(), 1.0)).collect();
    blocks.extend(levels.iter().map(|&(z, _)| two(z)));
    let sketch = sketch_of(&blocks);
    let fit = Fit::new(&SketchLikelihood::new(&sketch), &known, Method::Quadrature).expect("a posterior");
    let leave_one_out = LeaveOneOut::new(&sketch, &known, &fit);
    for (block, (z, pit)) in blocks.iter().zip(levels.iter().cycle()) {
        let got = leave_one_out.predict(block, &block.components().expect("components")).expect("predictions");
        if block.len() == 1 {
            let [only] = got.predictions[..] else { panic!("one prediction") };
            assert!((only.z - z).abs() < 1e-12 && (only.pit - pit).abs() < 1e-12, "{only:?} instead of {z} {pit}");
            let score = -0.5 * (2.0 * std::f64::consts::TAU).ln() - 0.5 * z * z;
            assert!((got.score - score).abs() < 1e-12, "{} instead of {score}", got.score);
        } else {
            let shift = got.control_shift_z.expect("two effects");
            assert!((shift - z).abs() < 1e-9, "{shift} instead of {z}");
        }
    }
}

#[test]
fn a_block_with_most_of_the_effects_is_left_out_as_if_it_had_never_come() {
    let mut blocks: Vec<Block> = (0..30).map(|i| single(0.2 * noise(i), 0.04)).collect();
    let effects = (0..960).map(|i| 1.5 + 0.3 * noise(100 + i)).collect();
    blocks.push(Block::shared_control(effects, vec![0.05; 960], 0.02).expect("a block"));
    for priors in [priors("flat", "flat"), priors("normal:0,1", "half-cauchy:0.1")] {
        let (largest, compared) = worst(&blocks, &priors);
        assert!(largest < 1e-6 && compared == 990, "{largest:e} {compared}");
    }
}

#[test]
fn blocks_that_alone_know_mu_or_tau_are_left_out_like_any_other() {
    let vague = |count: usize| (0..count).map(|i| single(10.0 * noise(i), 100.0)).collect::<Vec<_>>();
    // One precise effect knows mu, and two that differ know tau.
    let mut knows_mu = vague(12);
    knows_mu.push(single(0.4, 1e-8));
    assert_like_refits("one precise effect", &knows_mu);
    let mut knows_tau = vague(12);
    knows_tau.extend([single(-1.0, 1e-6), single(1.0, 1e-6)]);
    assert_like_refits("two precise effects", &knows_tau);
    let mut block_knows_tau = vague(12);
    let effects = (0..8).map(noise).collect();
    block_knows_tau.push(Block::shared_control(effects, vec![1e-4; 8], 1e-3).expect("a block"));
    assert_like_refits("a precise block", &block_knows_tau);
    // Without either of two opposite effects a second mode of tau is gone.
    let mut two_modes: Vec<Block> = (0..10).map(|i| single(0.1 * noise(i), 1.0)).collect();
    two_modes.extend([single(25.0, 25.0), single(-25.0, 25.0)]);
    assert_like_refits("two modes", &two_modes);
    // The others are all equal: tau may well be 0 without the last.
    let mut equal = vec![single(0.5, 0.1); 15];
    equal.push(single(3.0, 0.1));
    assert_like_refits("equal effects", &equal);
}

#[test]
fn populations_of_a_few_effects_are_predicted_where_the_others_have_a_posterior() {
    let flat = priors("flat", "flat");
    for count in 3..=6 {
        let blocks: Vec<Block> = (0..count).map(|i| single(noise(i), 0.3 + 0.2 * i as f64)).collect();
        assert_like_refits("a few effects", &blocks);
        let (_, compared) = worst(&blocks, &flat);
        // Under flat priors five effects have sds, so that six are needed to leave one out.
        assert_eq!(compared, if count == 6 { 6 } else { 0 });
        assert_eq!(worst(&blocks, &priors("flat", "half-normal:1")).1, count);
    }
}

#[test]
fn a_block_that_is_not_in_the_population_has_no_prediction_or_a_finite_one() {
    let blocks: Vec<Block> = (0..8).map(|i| single(noise(i), 1.0)).collect();
    let sketch = sketch_of(&blocks);
    for priors in every_prior() {
        let Ok(fit) = Fit::new(&SketchLikelihood::new(&sketch), &priors, Method::Quadrature) else { continue };
        let leave_one_out = LeaveOneOut::new(&sketch, &priors, &fit);
        // As after a revision that the cells do not have yet.
        for stranger in [single(0.5, 1e-6), single(1e4, 1.5), single(3.0, 1e6), single(0.0, 1.01)] {
            let got = leave_one_out.predict(&stranger, &stranger.components().expect("components"));
            let is_finite = |p: &Prediction| p.z.is_finite() && (0.0..=1.0).contains(&p.pit);
            assert!(got.iter().flat_map(|got| &got.predictions).all(is_finite), "{got:?}");
        }
        let precise = single(0.5, 1e-6);
        assert_eq!(leave_one_out.predict(&precise, &precise.components().expect("components")), None);
    }
}

fn population() -> impl Strategy<Value = Vec<Block>> {
    let effect = (-2.0..2.0_f64, 0.3..1.5_f64);
    let block = (prop::collection::vec(effect, 1..5), -3.0..3.0_f64, 0.0..2.0_f64, any::<bool>());
    let outlier = prop_oneof![Just(0.0), Just(0.0), -8.0..8.0_f64];
    (prop::collection::vec(block, 3..25), outlier).prop_map(|(rows, outlier)| {
        let blocks = rows.into_iter().enumerate().map(|(k, (rows, log_scale, c, is_dense))| {
            let scale: f64 = log_scale.exp();
            let shift = if k == 0 { outlier.exp_m1() } else { 0.0 };
            let (effects, d): (Vec<f64>, Vec<f64>) =
                rows.into_iter().map(|(x, d)| (x * scale.max(0.5) + shift, d * scale * scale)).unzip();
            let n = effects.len();
            let block = Block::shared_control(effects.clone(), d, c * scale * scale).expect("a block");
            let matrix = (0..n * n).map(|i| block.sampling_covariance(i / n, i % n)).collect();
            if is_dense { Block::dense(effects, matrix).expect("a block") } else { block }
        });
        blocks.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_prediction_is_that_of_a_fit_without_the_block(blocks in population(), choice in 0..10_usize) {
        let priors = every_prior()[choice];
        let (largest, _) = worst(&blocks, &priors);
        prop_assert!(largest < 1e-6, "{:e} under mu {} and tau {}", largest, priors.mu, priors.tau);
    }
}

#[test]
fn a_population_of_thousands_is_predicted_from_its_condensed_nodes_and_an_outlier_by_a_fit() {
    let mut blocks: Vec<Block> = (0..1_500).map(|i| single(0.3 * noise(i), 0.2 + 0.1 * (i % 7) as f64)).collect();
    blocks.push(single(80.0, 0.5));
    blocks.push(single(-1e4, 1.0));
    let sketch = sketch_of(&blocks);
    for priors in [priors("flat", "flat"), priors("normal:0,1", "half-cauchy:0.1")] {
        let fit = Fit::new(&SketchLikelihood::new(&sketch), &priors, Method::Quadrature).expect("a posterior");
        let leave_one_out = LeaveOneOut::new(&sketch, &priors, &fit);
        let mut counts = CalibrationCounts::default();
        for (k, block) in blocks.iter().enumerate().rev().take(40) {
            let components = block.components().expect("components");
            let got = leave_one_out.predict(block, &components).expect("predictions").predictions;
            let mut rest = sketch.clone();
            rest.subtract(&components).expect("it was added");
            let refit = quadrature(&SketchLikelihood::new(&rest), &priors).expect("a posterior");
            let want = predictions(block, &refit.nodes);
            let off = (got[0].z - want[0].z).abs().max((got[0].pit - want[0].pit).abs());
            assert!(off < 1e-6, "block {k}: {got:?} instead of {want:?}");
            counts.add(&got);
        }
        assert_eq!(Calibration::new(&counts).expect("predictions").effects, 40);
    }
}
