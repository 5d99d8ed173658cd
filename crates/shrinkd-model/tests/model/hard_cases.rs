//! Hard populations get right answers: no spread at all, hardly any data, far from 0, odd units, several modes.

use shrinkd_model::{
    Analysis, Block, BlockError, DirectLikelihood, Fit, Member, Method, Posterior, PosteriorError, Priors, Request,
    SketchLikelihood, Sketches, quadrature,
};

use crate::reference::sketch_of;

fn single(effect: f64, variance: f64) -> Block {
    Block::shared_control(vec![effect], vec![variance], 0.0).expect("a block")
}

fn exact(blocks: &[Block], priors: &Priors) -> Result<Posterior, PosteriorError> {
    quadrature(&SketchLikelihood::new(&sketch_of(blocks)), priors)
}

fn proper_priors() -> Priors {
    Priors {
        mu: "normal:0,10".parse().expect("a prior"),
        tau: "half-cauchy:1".parse().expect("a prior"),
        ..Priors::default()
    }
}

/// Population of 40 effects with some spread, moved by `shift` and measured in units of `1 / unit`.
fn spread(shift: f64, unit: f64) -> Vec<Block> {
    (0..20)
        .map(|k| {
            let x = f64::from(k);
            let effects = [(2.1 * x).sin(), (1.3 * x + 1.0).cos()].map(|e| (e + shift) * unit).to_vec();
            let d = [0.5 + 0.3 * x.sin(), 0.6].map(|d| d * unit * unit).to_vec();
            Block::shared_control(effects, d, 0.4 * unit * unit).expect("a block")
        })
        .collect()
}

fn assert_near(got: Option<f64>, want: f64, unit: f64, what: &str) {
    let got = got.expect(what);
    assert!((got - want).abs() <= 1e-6 * unit, "{what}: {got} instead of {want} (unit {unit})");
}

#[test]
fn equal_effects_leave_mu_there_and_tau_piled_up_at_zero() {
    let posterior = exact(&vec![single(0.7, 1.0); 10], &Priors::default()).expect("proper");
    assert_near(posterior.mu.mean, 0.7, 1.0, "mu");
    assert_eq!(posterior.modes.len(), 1);
    assert_eq!(posterior.modes[0].tau, 0.0);
    // p(tau) is (1 + tau^2)^(-9/2): its distribution function at x is a regularised integral, checked by its median.
    let density = |tau: f64| (1.0 + tau * tau).powf(-4.5);
    let integral =
        |high: f64| (0..200_000).map(|i| density((f64::from(i) + 0.5) * high / 200_000.0)).sum::<f64>() * high;
    let median = posterior.tau.median.expect("a median");
    let share = integral(median) / integral(60.0);
    assert!((share - 0.5).abs() < 1e-7, "{share}");
}

#[test]
fn two_experiments_are_improper_under_flat_priors_and_fitted_under_proper_ones() {
    let blocks = [single(0.1, 1.0), single(0.4, 1.0)];
    assert_eq!(exact(&blocks, &Priors::default()), Err(PosteriorError::Improper { effects: 2 }));
    let message = PosteriorError::Improper { effects: 2 }.to_string();
    assert!(message.contains("half-normal"), "{message}");
    let posterior = exact(&blocks, &proper_priors()).expect("proper");
    assert!(posterior.log_evidence.is_some() && posterior.tau.sd.is_some());
}

#[test]
fn moments_exist_from_the_effects_on_that_theory_says() {
    for (effects, has_mean, has_sd) in [(3, false, false), (4, true, false), (5, true, true), (6, true, true)] {
        let blocks: Vec<Block> = (0..effects).map(|k| single(f64::from(k) * 0.3, 1.0)).collect();
        let posterior = exact(&blocks, &Priors::default()).expect("proper");
        for summary in [posterior.mu, posterior.tau] {
            assert_eq!((summary.mean.is_some(), summary.sd.is_some()), (has_mean, has_sd), "{effects} effects");
            assert!(summary.median.is_some() && summary.q975.is_some());
        }
    }
}

/// Given tau, mu has variance (1 + tau^2) / 5, and p(tau) is proportional to (1 + tau^2)^-2: the second moment lies far out, where
/// next to nothing of the posterior is.
#[test]
fn five_equal_effects_have_the_moments_of_their_closed_form_to_1e_7() {
    let posterior = exact(&vec![single(0.7, 1.0); 5], &Priors::default()).expect("proper");
    let tau_mean = std::f64::consts::FRAC_2_PI;
    let tau_sd = (1.0 - tau_mean * tau_mean).sqrt();
    for (got, want) in [
        (posterior.tau.mean, tau_mean),
        (posterior.tau.sd, tau_sd),
        (posterior.mu.mean, 0.7),
        (posterior.mu.sd, 0.4_f64.sqrt()),
    ] {
        assert!((got.expect("exists") - want).abs() < 1e-7 * tau_sd, "{got:?} instead of {want}");
    }
}

/// Three effects under a proper prior of mu and a flat one of tau: p(tau) falls like tau^-3.
#[test]
fn a_new_effect_has_no_sd_where_tau_has_none() {
    let blocks = [0.1, 0.4, -1.0].map(|effect| single(effect, 1.0));
    let priors = Priors { mu: "normal:0,10".parse().expect("a prior"), ..Priors::default() };
    let fit = Fit::new(&SketchLikelihood::new(&sketch_of(&blocks)), &priors, Method::Quadrature).expect("proper");
    let Fit { posterior, predictive, .. } = fit;
    assert!(posterior.mu.sd.is_some() && posterior.tau.mean.is_some());
    assert_eq!((posterior.tau.sd, predictive.sd), (None, None));
    assert!(predictive.mean.is_some() && predictive.q975.is_some());
}

#[test]
fn one_experiment_with_500_variants_agrees_with_the_direct_sum() {
    let effects: Vec<f64> = (0..500).map(|i| (f64::from(i) * 0.77).sin()).collect();
    let d: Vec<f64> = (0..500).map(|i| 0.1 + f64::from(i % 7) * 0.05 + f64::from(i) * 1e-6).collect();
    let block = Block::shared_control(effects, d, 25.0).expect("a block");
    let components = block.components().expect("components");
    let sketch = exact(&[block], &Priors::default()).expect("proper");
    let direct = quadrature(&DirectLikelihood::new(components), &Priors::default()).expect("proper");
    let (mu_sd, tau_sd) = (direct.mu.sd.expect("sd"), direct.tau.sd.expect("sd"));
    assert_near(sketch.mu.mean, direct.mu.mean.expect("mean"), mu_sd, "mu");
    assert_near(sketch.tau.mean, direct.tau.mean.expect("mean"), tau_sd, "tau");
    // The control's error is all that is known of mu: more variants cannot take it away.
    assert!(mu_sd > 5.0 * 0.99);
}

#[test]
fn effects_far_from_zero_are_only_moved() {
    let near = exact(&spread(0.0, 1.0), &Priors::default()).expect("proper");
    let (mu_sd, tau_sd) = (near.mu.sd.expect("sd"), near.tau.sd.expect("sd"));
    // 1e4 standard errors, and as far as effects are taken at all.
    for shift in [-1e4, 1e4, 5e5] {
        let far = exact(&spread(shift, 1.0), &Priors::default()).expect("proper");
        // An f64 at this distance resolves no more of the effects themselves.
        let unit = 1.0_f64.max(shift.abs() * 1e-9);
        assert_near(far.mu.mean.map(|mu| mu - shift), near.mu.mean.expect("mean"), mu_sd * unit, "mu");
        for (got, want) in [(far.tau.mean, near.tau.mean), (far.tau.q025, near.tau.q025), (far.tau.q975, near.tau.q975)]
        {
            assert_near(got, want.expect("exists"), tau_sd * unit, "tau");
        }
    }
}

/// Found by a property: rounding makes steps of 1e-5 in a log likelihood of -1e11, in which panels were halved for ever.
#[test]
fn effects_that_are_a_billion_standard_errors_apart_are_integrated_on_a_few_panels() {
    let effects = vec![4596.375, 97.6171875, -0.41400146484375, 0.163421630859375, 2454.375, 1.0731353759765625];
    let variances = vec![256.0, 1431.3, 1835.8, 1431.3, 2.522, 1.588];
    let far = vec![6.577331014322895e17, -1299400882858330.8, 162425110357291.34, -118127352987120.97];
    let blocks = [
        single(84.90625, 1.15),
        Block::shared_control(far, vec![1.27e31, 1.27e31, 8.13e17, 3.06e17], 0.0).expect("a block"),
        Block::shared_control(effects, variances, 0.0).expect("a block"),
    ];
    let (mu, tau) =
        ("normal:0,1.13671875".parse().expect("a prior"), "half-normal:1.13671875".parse().expect("a prior"));
    let posterior = exact(&blocks, &Priors { mu, tau, ..Priors::default() }).expect("proper");
    assert!(posterior.nodes.len() < 2_000, "{} nodes", posterior.nodes.len());
}

#[test]
fn the_unit_of_the_effects_does_not_matter() {
    let one = exact(&spread(0.2, 1.0), &Priors::default()).expect("proper");
    for unit in [1e-6, 1e6, 1e-45, 1e45] {
        let other = exact(&spread(0.2, unit), &Priors::default()).expect("proper");
        for (got, want) in [
            (other.mu.mean, one.mu.mean),
            (other.mu.sd, one.mu.sd),
            (other.mu.q975, one.mu.q975),
            (other.tau.median, one.tau.median),
            (other.tau.sd, one.tau.sd),
        ] {
            let want = want.expect("exists");
            assert_near(got, want * unit, want.abs() * unit, "scaled");
        }
        assert!((other.correlation.expect("exists") - one.correlation.expect("exists")).abs() < 1e-9);
    }
}

#[test]
fn two_modes_of_tau_are_reported_and_the_posterior_covers_both() {
    // Ten effects near 0, measured well, and two far off.
    let mut blocks: Vec<Block> = (0..10).map(|k| single((f64::from(k) - 4.5) * 0.01, 1.0)).collect();
    blocks.push(single(5.2, 1.0));
    blocks.push(single(-5.2, 1.0));
    let priors = Priors { tau: "half-cauchy:0.02".parse().expect("a prior"), ..Priors::default() };
    let posterior = exact(&blocks, &priors).expect("proper");
    assert_eq!(posterior.modes.len(), 2, "{:?}", posterior.modes);
    // The second along tau is the higher one.
    let [highest, other] = [posterior.modes[0], posterior.modes[1]];
    assert!((highest.tau, other.tau) > (1.5, 0.0) && other.tau == 0.0, "{:?}", posterior.modes);
    // The long way: the density of tau on a fine grid.
    let density = |tau: f64| {
        let v = 1.0 + tau * tau;
        let squares: f64 = blocks.iter().map(|b| b.effects()[0].powi(2)).sum();
        v.powf(-5.5) * (-0.5 * squares / v).exp() / (1.0 + (tau / 0.02).powi(2))
    };
    assert_eq!(highest.relative_log_density, 0.0);
    let relative = (density(0.0) / density(highest.tau)).ln();
    assert!((other.relative_log_density - relative).abs() < 1e-6 && relative < -1.0, "{other:?} {relative}");
    let steps = 2_000_000;
    let total: f64 = (0..steps).map(|i| density((f64::from(i) + 0.5) * 400.0 / f64::from(steps))).sum();
    for (quantile, level) in [(posterior.tau.q025, 0.025), (posterior.tau.median, 0.5), (posterior.tau.q975, 0.975)] {
        let quantile = quantile.expect("exists");
        let below: f64 = (0..steps).map(|i| density((f64::from(i) + 0.5) * quantile / f64::from(steps))).sum::<f64>()
            * quantile
            / 400.0;
        assert!((below / total - level).abs() < 1e-5, "{quantile} holds {} instead of {level}", below / total);
    }
}

/// Between the two modes the density falls to e^-180 of what it is at the first.
#[test]
fn a_mode_of_tau_beyond_a_deep_valley_is_found_in_any_unit() {
    for unit in [1e-6, 1.0, 1e6] {
        // Forty effects near 0, measured so well that they agree, and four far off that are hardly measured.
        let mut blocks: Vec<Block> =
            (0..40).map(|k| single((f64::from(k) - 19.5) * 1e-5 * unit, 1e-6 * unit * unit)).collect();
        blocks.extend([-24.0, -16.0, 16.0, 24.0].map(|effect| single(effect * unit, unit * unit)));
        let tau = exact(&blocks, &Priors::default()).expect("proper").tau;
        let (median, mean) = (tau.median.expect("exists") / unit, tau.mean.expect("exists") / unit);
        // The effects' root mean square is 6.15.
        assert!((5.0..8.0).contains(&median) && (5.0..8.0).contains(&mean), "{unit}: {median} {mean}");
    }
}

#[test]
fn every_method_answers_in_every_hard_case() {
    let mut cases: Vec<(&str, Vec<Block>)> = vec![
        ("equal", vec![single(0.7, 1.0); 10]),
        ("three", vec![single(0.1, 1.0), single(0.4, 2.0), single(-1.0, 0.5)]),
        ("far", spread(1e4, 1.0)),
        ("micro", spread(0.2, 1e-6)),
        ("mega", spread(0.2, 1e6)),
    ];
    let variants = Block::shared_control((0..500).map(|i| f64::from(i % 9)).collect(), vec![1.0; 500], 4.0);
    cases.push(("500 variants", vec![variants.expect("a block")]));
    for (name, blocks) in cases {
        let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
        for method in
            [Method::Quadrature, Method::Laplace, Method::Variational, Method::Reml, Method::Ml, Method::Dl, Method::Pm]
        {
            let fit = Fit::new(&likelihood, &Priors::default(), method);
            let fit = fit.unwrap_or_else(|error| panic!("{name} {}: {error}", method.as_str()));
            let total: f64 = fit.nodes.iter().map(|node| node.weight).sum();
            assert!((total - 1.0).abs() < 1e-9, "{name} {}: weights add up to {total}", method.as_str());
            assert!(fit.nodes.iter().all(|n| n.tau >= 0.0 && n.mu_mean.is_finite() && n.mu_variance >= 0.0));
        }
    }
}

#[test]
fn results_are_the_same_whatever_the_number_of_threads() {
    let mut sketches = Sketches::default();
    let members: Vec<Member> = (0..1500)
        .map(|k| {
            let x = f64::from(k);
            let block = Block::shared_control(vec![x.sin(), x.cos()], vec![0.3, 0.5], 0.2).expect("a block");
            let member = Member::new(block, k as usize % 2).expect("a member");
            sketches.add(&member).expect("in range");
            member
        })
        .collect();
    let analyse = |threads| {
        let request = Request { is_best_wanted: true, threads, ..Request::default() };
        Analysis::new(&members, &sketches, &request).expect("proper")
    };
    let one = analyse(1);
    assert!(one == analyse(2) && one == analyse(5));
}

/// All pairwise contrasts of an experiment: the last are differences of the first, so that rounding alone decides whether their
/// covariance is positive definite, and what is left of it would count for more than all other experiments together.
#[test]
fn effects_that_determine_each_other_are_no_block() {
    for k in 0..500 {
        let x = f64::from(k);
        let means = [0.0, (1.3 * x).sin(), (0.7 * x).cos(), (2.1 * x).sin()];
        let variances = [1.0, 2.0, 3.0, 4.0].map(|i| 0.01 + 0.004 * (i * x).sin().abs() / 3.0);
        let pairs: Vec<(usize, usize)> = (0..4).flat_map(|i| (i + 1..4).map(move |j| (i, j))).collect();
        let sign = |arm: usize, (i, j): (usize, usize)| f64::from(u8::from(arm == j)) - f64::from(u8::from(arm == i));
        let covariance = |p, q| (0..4).map(|arm| sign(arm, p) * sign(arm, q) * variances[arm]).sum::<f64>();
        for contrasts in [&pairs[..], &[pairs[0], pairs[1], pairs[3]]] {
            let effects = contrasts.iter().map(|&(i, j)| means[j] - means[i]).collect();
            let matrix = contrasts.iter().flat_map(|&p| contrasts.iter().map(move |&q| covariance(p, q))).collect();
            assert_eq!(Block::dense(effects, matrix), Err(BlockError::NotPositiveDefinite), "{k}");
        }
    }
}
