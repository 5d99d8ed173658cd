//! The posterior of (mu, tau, icc) against quadrature over the likelihood of the blocks themselves, which are decomposed at every
//! icc that it visits: neither sketches nor interpolation have a part in it.

use std::path::Path;

use shrinkd_model::{
    Analysis, Block, BlockPosterior, Correlation, DirectLikelihood, Fit, IccLikelihood, IccStatus, LARGEST_ICC,
    LeaveOneOuts, Likelihood, Member, Method, Posterior, PosteriorError, PriorIcc, Priors, Request, SketchLikelihood,
    Sketches, Summary, quadrature, quadrature_with_icc,
};

use crate::random::Random;
use crate::reference::block;

fn population(name: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/alike").join(name).with_extension("ndjson");
    let events = std::fs::read_to_string(path).expect("readable");
    events.lines().map(|line| block(&serde_json::from_str(line).expect("JSON"))).collect()
}

/// Blocks of one to four variants whose true effects have this icc.
fn simulated(blocks: usize, tau: f64, icc: f64, seed: u64) -> Vec<Block> {
    let mut random = Random(seed);
    let block = |_| {
        let n = 1 + (4.0 * random.uniform()) as usize;
        let se = 0.5 + random.uniform();
        let (control, idea) = (se * random.normal(), tau * icc.sqrt() * random.normal());
        let d: Vec<f64> = (0..n).map(|_| se * se * (0.5 + random.uniform())).collect();
        let effect =
            |d: &f64| 0.3 + idea + control + tau * (1.0 - icc).sqrt() * random.normal() + d.sqrt() * random.normal();
        let effects = d.iter().map(effect).collect();
        Block::shared_control(effects, d, se * se).expect("a block")
    };
    (0..blocks).map(block).collect()
}

fn sketches(blocks: &[Block]) -> Sketches {
    let members: Vec<Member> = blocks.iter().map(|block| Member::new(block.clone(), 0).expect("a member")).collect();
    Sketches::of_members(&members, 1).expect("in range")
}

fn with_icc(mu: &str, tau: &str, icc: PriorIcc) -> Priors {
    Priors { mu: mu.parse().expect("a prior"), tau: tau.parse().expect("a prior"), icc }
}

fn posterior(blocks: &[Block], priors: &Priors) -> Posterior {
    let likelihood = IccLikelihood::new(&sketches(blocks)).expect("several variants");
    quadrature_with_icc(&likelihood, priors).expect("proper").0
}

/// Nodes and weights of Legendre panels.
fn legendre(low: f64, high: f64, panels: usize) -> Vec<(f64, f64)> {
    const X: [f64; 5] =
        [0.1488743389816312, 0.4333953941292472, 0.6794095682990244, 0.8650633666889845, 0.9739065285171717];
    const W: [f64; 5] =
        [0.2955242247147529, 0.2692667193099963, 0.219086362515982, 0.1494513491505806, 0.0666713443086881];
    let half = 0.5 * (high - low) / panels as f64;
    let centre = |i: usize| low + half * (2 * i + 1) as f64;
    let at = |i: usize| {
        X.iter().zip(W).flat_map(move |(x, w)| [(centre(i) - half * x, half * w), (centre(i) + half * x, half * w)])
    };
    (0..panels).flat_map(at).collect()
}

/// Weight, mu's mean and variance, tau and icc on a grid.
struct Direct {
    points: Vec<[f64; 5]>,
}

impl Direct {
    fn new(blocks: &[Block], priors: &Priors, icc_panels: usize, x: (f64, f64, usize)) -> Direct {
        let mut points = Vec::new();
        let at_zero = blocks.iter().flat_map(|b| b.components().expect("components"));
        let scale = at_zero.map(|c| c.lambda).fold(f64::INFINITY, f64::min).sqrt();
        let tau_nodes = legendre(x.0, x.1, x.2);
        // In the log of the ratio of the eigenvalues of the largest block's correlations.
        let n = blocks.iter().map(Block::len).max().expect("blocks") as f64;
        for (s, weight) in legendre(0.0, ((1.0 + (n - 1.0) * LARGEST_ICC) / (1.0 - LARGEST_ICC)).ln(), icc_panels) {
            let icc = s.exp_m1() / (s.exp() + n - 1.0);
            let slope = (1.0 - icc) * (1.0 + (n - 1.0) * icc) / n;
            let components: Vec<_> = blocks.iter().flat_map(|b| b.components_at(icc).expect("components")).collect();
            let log_det: f64 = blocks
                .iter()
                .map(|b| (b.len() as f64 - 1.0) * (1.0 - icc).ln() + (1.0 + (b.len() as f64 - 1.0) * icc).ln())
                .sum();
            let log_prior_icc = match priors.icc {
                PriorIcc::Beta { a, b } => (a - 1.0) * icc.ln() + (b - 1.0) * (1.0 - icc).ln(),
                _ => 0.0,
            };
            for (x, x_weight) in &tau_nodes {
                let tau = scale * x.sinh();
                let (mut l, mut a, mut b, mut c) = (log_det, 0.0, 0.0, 0.0);
                for component in &components {
                    let v = component.lambda + tau * tau;
                    l += v.ln();
                    a += component.a * component.a / v;
                    b += component.a * component.b / v;
                    c += component.b * component.b / v;
                }
                let (m0, p0) = match priors.mu {
                    shrinkd_model::PriorMu::Normal { mean, sd } => (mean, 1.0 / (sd * sd)),
                    _ => (0.0, 0.0),
                };
                let (a, b, c) = (a + p0, b + p0 * m0, c + p0 * m0 * m0);
                let log = -0.5 * (l + a.ln() + c - b * b / a) + priors.tau.log_density(tau) + log_prior_icc;
                points.push([log + (weight * slope * x_weight * x.cosh()).ln(), b / a, 1.0 / a, tau, icc]);
            }
        }
        let peak = points.iter().map(|p| p[0]).fold(f64::NEG_INFINITY, f64::max);
        points.iter_mut().for_each(|p| p[0] = (p[0] - peak).exp());
        let total: f64 = points.iter().map(|p| p[0]).sum();
        points.iter_mut().for_each(|p| p[0] /= total);
        Direct { points }
    }

    fn mean(&self, f: impl Fn(&[f64; 5]) -> f64) -> f64 {
        self.points.iter().map(|p| p[0] * f(p)).sum()
    }

    /// Mean and sd of mu, tau and icc.
    fn moments(&self) -> [(f64, f64); 3] {
        let mu = self.mean(|p| p[1]);
        let mu_sd = self.mean(|p| p[2] + (p[1] - mu).powi(2)).sqrt();
        let of = |i: usize| {
            let mean = self.mean(|p| p[i]);
            (mean, self.mean(|p| (p[i] - mean).powi(2)).sqrt())
        };
        [(mu, mu_sd), of(3), of(4)]
    }
}

/// Asserts that means and sds are those of the grid, in posterior sds.
fn assert_near(name: &str, posterior: &Posterior, direct: &Direct, tolerance: f64) {
    let icc = posterior.icc.expect("it is not known");
    let summaries: [(&str, &Summary); 3] = [("mu", &posterior.mu), ("tau", &posterior.tau), ("icc", &icc.icc)];
    for ((what, summary), (mean, sd)) in summaries.into_iter().zip(direct.moments()) {
        let apart = ((summary.mean.expect("a mean") - mean) / sd).abs();
        let sds_apart = (summary.sd.expect("an sd") / sd - 1.0).abs();
        assert!(apart < tolerance && sds_apart < tolerance, "{name}, {what}: {summary:?} for {mean} +- {sd}");
    }
}

#[test]
fn means_and_sds_are_those_of_quadrature_over_the_blocks() {
    let flat = with_icc("flat", "flat", PriorIcc::Uniform);
    for name in ["konstantopoulos2011", "experiment_level_small"] {
        let blocks = population(name);
        let direct = Direct::new(&blocks, &flat, 12, (0.0, 12.0, 36));
        assert_near(name, &posterior(&blocks, &flat), &direct, 5e-6);
    }
}

#[test]
fn quantiles_are_those_of_quadrature_over_the_blocks() {
    let flat = with_icc("flat", "flat", PriorIcc::Uniform);
    let blocks = population("konstantopoulos2011");
    let (posterior, direct) = (posterior(&blocks, &flat), Direct::new(&blocks, &flat, 12, (0.0, 12.0, 36)));
    let icc = posterior.icc.expect("it is not known");
    let [_, (_, tau_sd), (_, icc_sd)] = direct.moments();
    // The mass of the grid below a quantile is the level to what a grid can tell.
    let levels = |summary: &Summary| {
        [(summary.q025, 0.025), (summary.q25, 0.25), (summary.median, 0.5), (summary.q75, 0.75), (summary.q975, 0.975)]
    };
    for (summary, i, sd) in [(&posterior.tau, 3, tau_sd), (&icc.icc, 4, icc_sd)] {
        for (quantile, level) in levels(summary) {
            let quantile = quantile.expect("a quantile");
            let [low, high] =
                [-0.25 * sd, 0.25 * sd].map(|by| direct.mean(|p| f64::from(u8::from(p[i] < quantile + by))));
            assert!(low < level && level < high, "{quantile} at {level}: {low} to {high}");
        }
    }
    let within = direct.mean(|p| f64::from(u8::from(p[3] * (1.0 - p[4]).sqrt() < icc.tau_within_median)));
    let shared = direct.mean(|p| f64::from(u8::from(p[3] * p[4].sqrt() < icc.tau_shared_median)));
    assert!((within - 0.5).abs() < 2e-2 && (shared - 0.5).abs() < 2e-2, "{within} {shared}");
}

/// Published figures of this data set: Konstantopoulos (2011) by metafor's three-level REML has mu .185 and se .085, and 8.1 is the log
/// Bayes factor of an independent implementation.
#[test]
fn a_three_level_data_set_has_three_levels() {
    let posterior = posterior(&population("konstantopoulos2011"), &with_icc("flat", "flat", PriorIcc::Uniform));
    let icc = posterior.icc.expect("it is not known");
    let near = |x: Option<f64>, y: f64, by: f64| x.is_some_and(|x| (x - y).abs() < by);
    assert!(near(posterior.mu.mean, 0.18347, 1e-5) && near(posterior.mu.sd, 0.09200, 1e-5), "{:?}", posterior.mu);
    assert!(near(icc.icc.mean, 0.6465, 1e-4), "{icc:?}");
    assert!(
        (icc.log_bayes_factor - 8.1).abs() < 0.05
            && icc.status() == Some(IccStatus::Identified)
            && !icc.is_at_upper_end(),
        "{icc:?}"
    );
}

#[test]
fn what_is_said_of_a_known_icc_is_what_a_prior_says_of_that_one() {
    let set = population("konstantopoulos2011");
    let uniform = posterior(&set, &with_icc("flat", "flat", PriorIcc::Uniform)).icc.expect("it is not known");
    for known in [0.5, 0.95] {
        let priors = with_icc("flat", "flat", PriorIcc::Fixed { icc: known });
        let sums = sketches(&set);
        let likelihood = SketchLikelihood::new(&sums.of(Correlation::Modelled));
        let fit = Fit::of(&sums, Correlation::Modelled, &likelihood, &priors, Method::Quadrature);
        let posterior = fit.expect("a posterior").posterior;
        let icc = posterior.icc.expect("blocks of several variants");
        assert_eq!((icc.icc.mean, icc.icc.q975, icc.icc.sd, icc.status()), (Some(known), Some(known), Some(0.0), None));
        assert!((icc.log_bayes_factor_half - uniform.log_bayes_factor_half).abs() < 1e-6, "{icc:?}");
        assert!(known == 0.95 || (icc.log_bayes_factor - icc.log_bayes_factor_half).abs() < 1e-9, "{icc:?}");
        let tau = posterior.tau.median.expect("a median");
        assert!((icc.tau_within_median.powi(2) + icc.tau_shared_median.powi(2) - tau * tau).abs() < 1e-12, "{icc:?}");
        assert!(!icc.is_at_upper_end(), "it is not the data that say so");
    }
}

#[test]
fn what_the_others_predict_is_what_a_fit_without_the_experiment_predicts() {
    for blocks in [population("konstantopoulos2011"), simulated(14, 0.7, 0.5, 3)] {
        let priors = with_icc("flat", "flat", PriorIcc::Uniform);
        let all = sketches(&blocks);
        let fits = Correlation::ALL.map(|it| {
            Fit::of(&all, it, &SketchLikelihood::new(&all.of(it)), &priors, Method::Quadrature).expect("a posterior")
        });
        let leave_one_outs = LeaveOneOuts::new(&all, &priors, fits.each_ref().map(Some));
        for (k, block) in blocks.iter().enumerate() {
            let member = Member::new(block.clone(), 0).expect("a member");
            let got = leave_one_outs.predict(&member, Correlation::Modelled).expect("a prediction").predictions;
            let rest: Vec<Block> = blocks.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, b)| b.clone()).collect();
            let nodes = posterior(&rest, &priors).nodes;
            for (i, got) in got.iter().enumerate() {
                let mean: f64 = nodes.iter().map(|n| n.weight * n.mu_mean).sum();
                let own = block.sampling_variance(i);
                let variance: f64 = nodes
                    .iter()
                    .map(|n| n.weight * (n.mu_variance + own + n.tau * n.tau + (n.mu_mean - mean).powi(2)))
                    .sum();
                let z = (block.effects()[i] - mean) / variance.sqrt();
                assert!((got.z - z).abs() < 5e-4, "block {k}, effect {i}: {} for {z}", got.z);
            }
        }
    }
}

#[test]
fn effects_are_as_near_under_a_prior_with_its_probability_at_0_as_under_a_flat_one() {
    let blocks = simulated(12, 0.7, 0.3, 7);
    for prior in [PriorIcc::Uniform, PriorIcc::Beta { a: 0.1, b: 0.1 }, PriorIcc::Beta { a: 0.3, b: 1.0 }] {
        let all = IccLikelihood::new(&sketches(&blocks)).expect("several variants");
        let (posterior, condensed) = quadrature_with_icc(&all, &with_icc("flat", "flat", prior)).expect("proper");
        for block in &blocks {
            let whole = BlockPosterior::new(block, &posterior.nodes).estimates();
            let few = BlockPosterior::new(block, &condensed).estimates();
            for (x, y) in few.iter().zip(&whole) {
                let is_near = (x.mean - y.mean).abs() < 5e-4 * y.sd && (x.sd / y.sd - 1.0).abs() < 1e-3;
                assert!(is_near, "{prior:?}: {x:?} {y:?}");
            }
        }
    }
}

#[test]
fn the_exponent_of_the_tail_need_not_be_an_integer() {
    // Two blocks of three: p = min(5, 1 + 2 B).
    let blocks: Vec<Block> = simulated(40, 0.7, 0.3, 5).into_iter().filter(|block| block.len() == 3).take(2).collect();
    let all = IccLikelihood::new(&sketches(&blocks)).expect("several variants");
    let fit =
        |b: f64| quadrature_with_icc(&all, &with_icc("flat", "flat", PriorIcc::Beta { a: 1.0, b })).map(|it| it.0);
    assert!(fit(0.15).is_ok_and(|posterior| posterior.tau.mean.is_none() && posterior.tau.median.is_some()));
    assert!(fit(1.1).is_ok_and(|posterior| posterior.tau.sd.is_some() && posterior.mu.sd.is_some()));
    assert!(fit(0.9).is_ok_and(|posterior| posterior.tau.sd.is_none() && posterior.tau.mean.is_some()));
    let one = IccLikelihood::new(&sketches(&blocks[..1])).expect("several variants");
    let improper = quadrature_with_icc(&one, &with_icc("flat", "flat", PriorIcc::Beta { a: 1.0, b: 0.3 }));
    assert_eq!(improper.map(drop), Err(PosteriorError::ImproperAlike { experiments: 1 }));
}

/// Where tau is far above the standard errors, which is where the likelihood of large blocks is hardest to interpolate.
#[test]
fn experiments_may_have_any_number_of_variants() {
    let flat = with_icc("flat", "flat", PriorIcc::Uniform);
    let of_sizes = |sizes: &[usize], icc: f64, noise: f64| -> Vec<Block> {
        let mut random = Random(11);
        let mut block = |&n: &usize| {
            let (control, idea) = (noise * random.normal(), icc.sqrt() * random.normal());
            let effects = (0..n).map(|_| {
                let own = (1.0 - icc).sqrt() * random.normal();
                0.2 + idea + control + own + noise * random.normal()
            });
            Block::shared_control(effects.collect(), vec![noise * noise; n], noise * noise).expect("a block")
        };
        sizes.iter().map(&mut block).collect()
    };
    let repeated = |sizes: &[usize], times: usize| sizes.repeat(times);
    for (sizes, icc, noise) in [
        (repeated(&[6, 7], 25), 0.0, 0.1),
        (repeated(&[1, 2, 3, 6, 7, 12, 20], 4), 0.1, 0.3),
        (repeated(&[7, 10], 10), 0.6, 1.0),
        (vec![1, 1, 3, 3, 2, 300], 0.05, 0.2),
        (vec![50, 100, 80], 0.02, 0.1),
    ] {
        let blocks = of_sizes(&sizes, icc, noise);
        let direct = Direct::new(&blocks, &flat, 16, (0.0, 12.0, 60));
        assert_near(&format!("{sizes:?} {icc}"), &posterior(&blocks, &flat), &direct, 5e-6);
    }
}

/// By a factorisation in another order it is none.
#[test]
fn a_nearly_singular_covariance_that_joins_a_population_is_added_at_every_node() {
    const MATRIX: [f64; 9] = [
        0.3015581200166252,
        0.51821376436234,
        0.0,
        0.51821376436234,
        0.8905265492937792,
        0.00020164053651858057,
        0.0,
        0.00020164053651858057,
        1.8993620357097327,
    ];
    let block = Block::dense(vec![0.0; 3], MATRIX.to_vec()).expect("positive definite in its own order");
    let member = Member::new(block, 0).expect("a member");
    let mut sums = Sketches::default();
    sums.add(&member).expect("it can be added");
    sums.subtract(&member).expect("and subtracted");
    assert_eq!(sums, Sketches::default());
}

#[test]
fn a_posterior_over_icc_has_no_modes_of_its_nodes() {
    let blocks: Vec<Block> = (0..20)
        .map(|k| {
            let shared = (1.3 * f64::from(k)).sin();
            let effects = (0..12).map(|i| shared + (0.7 * f64::from(i * i + 5 * k)).sin()).collect();
            Block::shared_control(effects, vec![0.05; 12], 0.03).expect("a block")
        })
        .collect();
    let posterior = posterior(&blocks, &with_icc("normal:0,5", "half-normal:3", PriorIcc::Uniform));
    assert_eq!(posterior.modes.len(), 1, "{:?}", posterior.modes);
}

#[test]
fn a_known_icc_is_the_likelihood_of_blocks_decomposed_at_it() {
    let blocks = simulated(40, 0.7, 0.5, 7);
    let likelihood = IccLikelihood::new(&sketches(&blocks)).expect("several variants");
    let priors = with_icc("normal:0,2", "half-normal:1", PriorIcc::None);
    for icc in [0.0, 0.2, 0.5, 0.83, 0.98] {
        let components = blocks.iter().flat_map(|block| block.components_at(icc).expect("components"));
        let direct = DirectLikelihood::new(components.collect());
        let at = likelihood.at(icc);
        for t in [0.0, 0.01, 0.4, 3.0, 900.0] {
            let (x, y) = (at.derivatives(t), direct.derivatives(t));
            let (value, sums) = (at.at(t), direct.at(t));
            for (got, want) in [
                (value.a, sums.a),
                (x.value.a, sums.a),
                (x.first.a, y.first.a),
                (x.second.a, y.second.a),
                (x.first.log_det, y.first.log_det),
                (x.second.log_det, y.second.log_det),
            ] {
                assert!((got / want - 1.0).abs() < 1e-7, "{got} for {want} at icc = {icc}, t = {t}");
            }
        }
        let (got, want) = (quadrature(&at, &priors).expect("proper"), quadrature(&direct, &priors).expect("proper"));
        for (got, want) in [(got.mu, want.mu), (got.tau, want.tau)] {
            let sd = want.sd.expect("an sd");
            assert!((got.mean.expect("a mean") - want.mean.expect("a mean")).abs() < 1e-6 * sd);
            assert!((got.sd.expect("an sd") / sd - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn derivatives_are_those_of_the_values() {
    let likelihood = IccLikelihood::new(&sketches(&simulated(20, 0.7, 0.5, 9))).expect("several variants");
    let at = likelihood.at(0.37);
    for t in [0.3, 2.0] {
        let h = 1e-4 * t;
        let (below, above, derivatives) = (at.at(t - h), at.at(t + h), at.derivatives(t));
        let slope = |x: f64, y: f64| (y - x) / (2.0 * h);
        for (got, want) in [
            (derivatives.first.log_det, slope(below.log_det, above.log_det)),
            (derivatives.first.a, slope(below.a, above.a)),
            (derivatives.first.b, slope(below.b, above.b)),
            (derivatives.first.c, slope(below.c, above.c)),
        ] {
            assert!((got - want).abs() < 1e-6 * want.abs().max(1e-2), "{got} for {want}");
        }
        let (below, above) = (at.derivatives(t - h).first, at.derivatives(t + h).first);
        for (got, want) in [
            (derivatives.second.log_det, slope(below.log_det, above.log_det)),
            (derivatives.second.a, slope(below.a, above.a)),
            (derivatives.second.b, slope(below.b, above.b)),
            (derivatives.second.c, slope(below.c, above.c)),
        ] {
            assert!((got - want).abs() < 1e-6 * want.abs().max(1e-2), "{got} for {want}");
        }
    }
}

/// Where all effects of a block are nearly one, it counts as little more than one: p = min(N - 1, K - 1 + 2 B).
#[test]
fn no_moment_exists_only_because_icc_ends_below_1() {
    let flat = with_icc("flat", "flat", PriorIcc::Uniform);
    let of = |sizes: &[usize]| {
        let block = |(i, &n): (usize, &usize)| {
            let effects = (0..n).map(|j| (1.7 * i as f64 + 0.9 * j as f64).sin()).collect();
            Block::shared_control(effects, vec![0.3; n], 0.2).expect("a block")
        };
        posterior(&sizes.iter().enumerate().map(block).collect::<Vec<_>>(), &flat)
    };
    for (sizes, has_mean, has_sd) in [
        (&[3, 3][..], true, false),
        (&[10, 1], true, false),
        (&[4, 4, 4], true, true),
        (&[2, 1], false, false),
        (&[3, 3, 3, 3, 3, 3], true, true),
    ] {
        let Posterior { mu, tau, .. } = of(sizes);
        assert_eq!((mu.mean.is_some(), mu.sd.is_some()), (has_mean, has_sd), "{sizes:?}");
        assert_eq!((tau.mean.is_some(), tau.sd.is_some()), (has_mean, has_sd), "{sizes:?}");
        assert!(tau.median.is_some(), "{sizes:?}");
    }
}

#[test]
fn what_effects_are_averaged_over_gives_them_what_the_whole_posterior_gives() {
    let blocks = simulated(60, 0.7, 0.5, 3);
    let likelihood = IccLikelihood::new(&sketches(&blocks)).expect("several variants");
    let (posterior, nodes) =
        quadrature_with_icc(&likelihood, &with_icc("flat", "flat", PriorIcc::Uniform)).expect("proper");
    assert!(nodes.len() <= 50, "{}", nodes.len());
    for block in &blocks[..10] {
        let (few, all) = (BlockPosterior::new(block, &nodes), BlockPosterior::new(block, &posterior.nodes));
        for i in 0..block.len() {
            let (few, all) = (few.estimate(i), all.estimate(i));
            assert!((few.mean - all.mean).abs() < 1e-3 * all.sd, "{few:?} {all:?}");
            assert!((few.sd / all.sd - 1.0).abs() < 1e-3 && (few.prob_positive - all.prob_positive).abs() < 1e-3);
        }
    }
}

#[test]
fn priors_of_icc_are_read_as_they_are_written() {
    for text in ["none", "uniform", "fixed:0.5", "beta:1,2", "beta:0.5,0.5"] {
        assert_eq!(text.parse::<PriorIcc>().expect("a prior").to_string(), text);
    }
    for text in [
        "",
        "flat",
        "fixed",
        "fixed:0.99",
        "fixed:-0.1",
        "beta:1",
        "beta:0,1",
        "uniform:0,1",
        "beta:1,1e9",
        "fixed:1se",
    ] {
        let error = text.parse::<PriorIcc>().expect_err(text).to_string();
        assert!(error.contains("beta:A,B"), "{error}");
    }
}

#[test]
fn other_priors_of_icc_move_its_posterior_as_they_should() {
    let blocks = simulated(50, 1.0, 0.5, 11);
    for (a, b) in [(1.0, 3.0), (2.5, 1.5), (0.5, 0.5)] {
        let priors = with_icc("normal:0,2", "half-normal:1", PriorIcc::Beta { a, b });
        let direct = Direct::new(&blocks, &priors, 40, (0.0, 5.0, 24));
        // The grid is none too near where the density is infinite.
        let tolerance = if a < 1.0 { 2e-2 } else { 5e-6 };
        assert_near(&format!("beta:{a},{b}"), &posterior(&blocks, &priors), &direct, tolerance);
    }
}

#[test]
fn so_they_are_of_simulated_populations() {
    for (k, tau, icc) in [(10, 1.0, 0.5), (50, 0.5, 0.0), (50, 1.0, 0.8), (400, 0.7, 0.5)] {
        let blocks = simulated(k, tau, icc, k as u64);
        let priors = with_icc("normal:0,2", "half-normal:1", PriorIcc::Uniform);
        let direct = Direct::new(&blocks, &priors, 16, (0.0, 5.0, 24));
        assert_near(&format!("{k} {tau} {icc}"), &posterior(&blocks, &priors), &direct, 5e-6);
    }
}

/// Of a few blocks each decides much of the posterior, so that the rest is fitted anew.
#[test]
fn a_prediction_is_that_of_a_fit_without_the_block() {
    let blocks = simulated(9, 1.0, 0.5, 5);
    let priors = with_icc("normal:0,2", "half-normal:1", PriorIcc::Uniform);
    let members = |blocks: &[Block]| -> Vec<Member> {
        blocks.iter().map(|block| Member::new(block.clone(), 0).expect("a member")).collect()
    };
    let request = Request { priors: priors.into(), ..Request::default() };
    let analysis = Analysis::new(&members(&blocks), &sketches(&blocks), &request).expect("a posterior");
    for (k, block) in blocks.iter().enumerate() {
        let mut rest = blocks.clone();
        rest.remove(k);
        let rest = sketches(&rest);
        let likelihood = SketchLikelihood::new(&rest.of(Correlation::Modelled));
        let fit = Fit::of(&rest, Correlation::Modelled, &likelihood, &priors, Method::Quadrature).expect("a posterior");
        for (i, effect) in analysis.blocks[k].effects.iter().enumerate() {
            let parts: Vec<(f64, f64, f64)> = fit
                .posterior
                .nodes
                .iter()
                .map(|n| (n.weight, n.mu_mean, n.mu_variance + block.sampling_variance(i) + n.tau * n.tau))
                .collect();
            let mean: f64 = parts.iter().map(|(w, m, _)| w * m).sum();
            let variance: f64 = parts.iter().map(|(w, m, v)| w * (v + (m - mean).powi(2))).sum();
            let z = (block.effects()[i] - mean) / variance.sqrt();
            let got = effect.prediction.expect("a prediction").z;
            assert!((got - z).abs() < 3e-3, "block {k}, effect {i}: {got} for {z}");
        }
        let diagnostics = analysis.blocks[k].diagnostics.as_ref().expect("a diagnosis");
        assert_eq!(diagnostics.control_shift_z.is_some(), block.len() > 1);
    }
}
