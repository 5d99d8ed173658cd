//! What `laplace` and `variational` promise: the stationary points that they claim, bounds, limits and symmetries.

use std::f64::consts::PI;

use proptest::prelude::*;
use shrinkd_model::{
    Component, DirectLikelihood, Likelihood, Posterior, PosteriorError, PriorIcc, PriorMu, PriorTau, Priors, Sketch,
    SketchLikelihood, laplace, variational,
};

use crate::reference::{Oracle, sketch_of};

const FLAT: Priors = Priors { mu: PriorMu::Flat, tau: PriorTau::Flat, icc: PriorIcc::None };

/// `log p(effects, mu, log tau)` by its definition, mu in the effects' unit.
fn log_joint(likelihood: &impl Likelihood, priors: &Priors, mu: f64, log_tau: f64) -> f64 {
    let tau = log_tau.exp();
    let terms = likelihood.at(tau * tau);
    let m = mu - likelihood.centre();
    let log_mu = match priors.mu {
        PriorMu::Flat => 0.0,
        PriorMu::Fixed { .. } => unreachable!("not among these priors"),
        PriorMu::Normal { mean, sd } => -0.5 * ((mu - mean) / sd).powi(2) - 0.5 * (2.0 * PI).ln() - sd.ln(),
    };
    let sums = terms.log_det + terms.c - 2.0 * m * terms.b + m * m * terms.a;
    -0.5 * (likelihood.effects() as f64 * (2.0 * PI).ln() + sums) + log_mu + priors.tau.log_density(tau) + log_tau
}

/// Precision of mu given tau.
fn precision(likelihood: &impl Likelihood, priors: &Priors, log_tau: f64) -> f64 {
    let from_prior = match priors.mu {
        PriorMu::Flat => 0.0,
        PriorMu::Fixed { .. } => f64::INFINITY,
        PriorMu::Normal { sd, .. } => sd.powi(-2),
    };
    likelihood.at((2.0 * log_tau).exp()).a + from_prior
}

/// `log tau ~ N(x, s^2)`, `mu | tau ~ N(mu + slope z, variance)`, as far as the nodes of a posterior show it.
#[derive(Debug, Clone, Copy)]
struct Gaussian {
    mu: f64,
    slope: f64,
    variance: f64,
    x: f64,
    s: f64,
}

impl Gaussian {
    fn of(posterior: &Posterior) -> Gaussian {
        let (middle, last) = (posterior.nodes[10], posterior.nodes[20]);
        Gaussian {
            mu: middle.mu_mean,
            slope: (last.mu_mean - middle.mu_mean) / 6.0,
            variance: middle.mu_variance,
            x: middle.tau.ln(),
            s: (last.tau / middle.tau).ln() / 6.0,
        }
    }

    /// The evidence lower bound by a sum far finer than the method's own.
    fn elbo(&self, likelihood: &impl Likelihood, priors: &Priors) -> f64 {
        let step = 0.05;
        let expectation: f64 = (-200..=280)
            .map(|k| {
                let z = step * f64::from(k);
                let x = self.x + self.s * z;
                let at_mean = log_joint(likelihood, priors, self.mu + self.slope * z, x);
                let density = step * (-0.5 * z * z).exp() / (2.0 * PI).sqrt();
                density * (at_mean - 0.5 * self.variance * precision(likelihood, priors, x))
            })
            .sum();
        expectation + self.s.ln() + 0.5 * self.variance.ln() + 1.0 + (2.0 * PI).ln()
    }
}

/// The exact log evidence, mu integrated out in closed form, by a fine sum over log tau.
fn log_evidence(likelihood: &impl Likelihood, priors: &Priors, from: f64, to: f64) -> f64 {
    let step = (to - from) / 5_000.0;
    let log_densities: Vec<f64> = (0..5_000)
        .map(|k| {
            let x = from + step * f64::from(k);
            let precision = precision(likelihood, priors, x);
            let h = precision.powf(-0.5);
            // A parabola from three of its points.
            let centre = likelihood.centre();
            let [low, middle, high] = [-h, 0.0, h].map(|d| log_joint(likelihood, priors, centre + d, x));
            middle + 0.125 * (high - low).powi(2) + 0.5 * (2.0 * PI / precision).ln()
        })
        .collect();
    let highest = log_densities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    highest + (log_densities.iter().map(|d| (d - highest).exp()).sum::<f64>() * step).ln()
}

fn components() -> impl Strategy<Value = Vec<Component>> {
    let component = (-4.0..4.0_f64, 0.3..1.5_f64, -4.0..4.0_f64).prop_map(|(log_lambda, a, z)| {
        let lambda = log_lambda.exp();
        Component { lambda, a, b: z * (1.0 + lambda.sqrt()) }
    });
    prop::collection::vec(component, 4..30)
}

fn all_priors() -> impl Strategy<Value = Priors> {
    let mu = prop_oneof![Just(PriorMu::Flat), (0.5..20.0_f64).prop_map(|sd| PriorMu::Normal { mean: 0.3, sd })];
    let tau = prop_oneof![
        Just(PriorTau::Flat),
        (0.3..10.0_f64).prop_map(|scale| PriorTau::HalfNormal { scale }),
        (0.3..10.0_f64).prop_map(|scale| PriorTau::HalfCauchy { scale }),
        (0.3..10.0_f64).prop_map(|scale| PriorTau::HalfT { df: 4.0, scale }),
        (0.3..10.0_f64).prop_map(|scale| PriorTau::DuMouchel { scale }),
        (0.3..10.0_f64).prop_map(|scale| PriorTau::UniformShrinkage { scale }),
        (0.1..3.0_f64, 0.01..10.0_f64).prop_map(|(shape, scale)| PriorTau::InverseGamma { shape, scale }),
        (-1.0..1.0_f64, 0.2..2.0_f64).prop_map(|(mean, sd)| PriorTau::LogNormal { mean, sd }),
    ];
    (mu, tau).prop_map(|(mu, tau)| Priors { mu, tau, ..Priors::default() })
}

/// The gradient of the log joint density by central differences, per sd of each parameter.
fn gradient_at_centre(likelihood: &impl Likelihood, priors: &Priors, gaussian: &Gaussian) -> [f64; 2] {
    let h = 1e-3;
    let (dm, dx) = (h * gaussian.variance.sqrt(), h * gaussian.s);
    let at = |m: f64, x: f64| log_joint(likelihood, priors, gaussian.mu + m, gaussian.x + x);
    [(at(dm, 0.0) - at(-dm, 0.0)) / (2.0 * h), (at(0.0, dx) - at(0.0, -dx)) / (2.0 * h)]
}

#[test]
fn on_every_reference_population_laplace_sits_at_a_mode_and_the_elbo_stays_below_the_evidence() {
    for case in Oracle::all() {
        for fit in case.fits.iter().filter(|fit| fit["method"].is_null()) {
            let text = |name: &str| fit[name].as_str().expect("text");
            let priors = Priors {
                mu: text("prior_mu").parse().expect("a prior"),
                tau: text("prior_tau").parse().expect("a prior"),
                ..Priors::default()
            };
            let likelihood = SketchLikelihood::new(&sketch_of(&case.under(text("correlation"))));
            let at_mode = laplace(&likelihood, &priors).expect("a posterior");
            let [along_mu, along_tau] = gradient_at_centre(&likelihood, &priors, &Gaussian::of(&at_mode));
            assert!(along_mu.abs() < 1e-8 && along_tau.abs() < 2e-5, "{}: {along_mu:e} {along_tau:e}", case.name);

            let nearest = variational(&likelihood, &priors).expect("a posterior");
            let elbo = Gaussian::of(&nearest).elbo(&likelihood, &priors);
            assert!(elbo >= Gaussian::of(&at_mode).elbo(&likelihood, &priors), "{}", case.name);
            assert_eq!(nearest.log_evidence.is_some(), priors.are_proper());
            if let (Some(bound), Some(evidence)) = (nearest.log_evidence, fit["log_evidence"].as_f64()) {
                assert!((bound - elbo).abs() < 1e-9, "{}: reported {bound}, is {elbo}", case.name);
                assert!(bound <= evidence && bound > evidence - 0.5, "{}: {bound} {evidence}", case.name);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_laplace_gaussian_has_the_densitys_slope_and_curvature(
        components in components(), priors in all_priors(),
    ) {
        let likelihood = DirectLikelihood::new(components);
        let gaussian = Gaussian::of(&laplace(&likelihood, &priors).expect("a posterior"));
        let [along_mu, along_tau] = gradient_at_centre(&likelihood, &priors, &gaussian);
        prop_assert!(along_mu.abs() < 1e-7 && along_tau.abs() < 1e-5, "{along_mu:e} {along_tau:e}");
        // Along and across its regression line the log density falls by half at one sd.
        let h = 1e-3;
        let at = |dm: f64, z: f64| {
            let m = gaussian.mu + gaussian.slope * z + dm * gaussian.variance.sqrt();
            log_joint(&likelihood, &priors, m, gaussian.x + gaussian.s * z)
        };
        let across = (at(h, 0.0) - 2.0 * at(0.0, 0.0) + at(-h, 0.0)) / (h * h);
        let along = (at(0.0, h) - 2.0 * at(0.0, 0.0) + at(0.0, -h)) / (h * h);
        let mixed = (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4.0 * h * h);
        prop_assert!((across + 1.0).abs() < 1e-5 && (along + 1.0).abs() < 1e-4 && mixed.abs() < 1e-4,
            "{across} {along} {mixed}");
    }

    #[test]
    fn no_perturbation_of_the_variational_gaussian_raises_its_elbo(
        components in components(), priors in all_priors(), directions in prop::array::uniform5(-1.0..1.0_f64),
        log_size in -5.0..-1.0_f64,
    ) {
        let likelihood = DirectLikelihood::new(components);
        let posterior = variational(&likelihood, &priors).expect("a posterior");
        let best = Gaussian::of(&posterior);
        let elbo = best.elbo(&likelihood, &priors);
        if let Some(reported) = posterior.log_evidence {
            prop_assert!((reported - elbo).abs() < 1e-9, "reported {reported}, is {elbo}");
        }
        let moved = |size: f64| {
            let [mu, slope, variance, x, s] = directions.map(|d| d * size);
            let sd = best.variance.sqrt();
            Gaussian {
                mu: best.mu + mu * sd,
                slope: best.slope + slope * sd,
                variance: best.variance * variance.exp(),
                x: best.x + x * best.s,
                s: best.s * s.exp(),
            }
        };
        let at = |size: f64| moved(size).elbo(&likelihood, &priors);
        for size in [log_size.exp(), -log_size.exp()] {
            prop_assert!(at(size) <= elbo + 1e-10, "{elbo} rises by {:e} to {:?}", at(size) - elbo, moved(size));
        }
        let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
        prop_assert!(slope.abs() < 1e-6, "the ELBO's slope is {slope:e} at {best:?}");
    }

    #[test]
    fn both_move_and_scale_with_the_effects(
        components in components(), priors in all_priors(), log_scale in -90.0..90.0_f64, shift in -10.0..10.0_f64,
    ) {
        let scale = log_scale.exp();
        let moved = components.iter().map(|c| Component {
            lambda: c.lambda * scale * scale, a: c.a, b: (c.b + shift * c.a) * scale,
        }).collect();
        let moved_priors = Priors {
            mu: match priors.mu {
                PriorMu::Flat => PriorMu::Flat,
                PriorMu::Fixed { mu } => PriorMu::Fixed { mu: (mu + shift) * scale },
                PriorMu::Normal { mean, sd } => PriorMu::Normal { mean: (mean + shift) * scale, sd: sd * scale },
            },
            tau: match priors.tau {
                PriorTau::Flat => PriorTau::Flat,
                PriorTau::Fixed { tau } => PriorTau::Fixed { tau: tau * scale },
                PriorTau::HalfNormal { scale: s } => PriorTau::HalfNormal { scale: s * scale },
                PriorTau::HalfCauchy { scale: s } => PriorTau::HalfCauchy { scale: s * scale },
                PriorTau::HalfT { df, scale: s } => PriorTau::HalfT { df, scale: s * scale },
                PriorTau::DuMouchel { scale: s } => PriorTau::DuMouchel { scale: s * scale },
                PriorTau::UniformShrinkage { scale: s } => PriorTau::UniformShrinkage { scale: s * scale },
                PriorTau::InverseGamma { shape, scale: s } => {
                    PriorTau::InverseGamma { shape, scale: s * scale * scale }
                }
                PriorTau::LogNormal { mean, sd } => PriorTau::LogNormal { mean: mean + log_scale, sd },
            }, ..Priors::default() };
        let (here, there) = (DirectLikelihood::new(components), DirectLikelihood::new(moved));
        let methods = [
            (laplace(&here, &priors), laplace(&there, &moved_priors)),
            (variational(&here, &priors), variational(&there, &moved_priors)),
        ];
        for (here, there) in methods {
            let (here, there) = (Gaussian::of(&here.expect("a fit")), Gaussian::of(&there.expect("a fit")));
            let unit = here.variance.sqrt() * scale;
            prop_assert!(((here.mu + shift) * scale - there.mu).abs() < 1e-9 * unit, "{here:?} {there:?}");
            prop_assert!((here.slope * scale - there.slope).abs() < 1e-9 * unit, "{here:?} {there:?}");
            prop_assert!((here.variance * scale * scale / there.variance - 1.0).abs() < 1e-9, "{here:?} {there:?}");
            prop_assert!((here.x + log_scale - there.x).abs() < 1e-9, "{here:?} {there:?}");
            prop_assert!((here.s - there.s).abs() < 1e-9, "{here:?} {there:?}");
        }
    }
}

/// `n` effects spread like quantiles of a logistic distribution with the given variances in turn.
fn population(n: usize, variances: &[f64]) -> SketchLikelihood {
    let components: Vec<Component> = (0..n)
        .map(|i| {
            let p = (i as f64 + 0.5) / n as f64;
            Component { lambda: variances[i % variances.len()], a: 1.0, b: 0.4 + 0.8 * (p / (1.0 - p)).ln() }
        })
        .collect();
    let mut sketch = Sketch::new();
    sketch.add(&components).expect("in range");
    SketchLikelihood::new(&sketch)
}

#[test]
fn the_evidence_of_both_becomes_exact_as_effects_increase() {
    let priors = Priors {
        mu: PriorMu::Normal { mean: 0.0, sd: 10.0 },
        tau: PriorTau::HalfCauchy { scale: 1.0 },
        ..Priors::default()
    };
    for n in [100, 1_000, 10_000] {
        let likelihood = population(n, &[0.5, 1.0, 2.0]);
        let exact = log_evidence(&likelihood, &priors, -3.0, 2.0);
        let at_mode = laplace(&likelihood, &priors).expect("a fit").log_evidence.expect("proper priors");
        let bound = variational(&likelihood, &priors).expect("a fit").log_evidence.expect("proper priors");
        assert!((at_mode - exact).abs() < 1.0 / n as f64, "{n} effects: laplace is off by {:e}", at_mode - exact);
        assert!(bound <= exact + 1e-9 && bound > exact - 1.0 / n as f64, "{n}: gap {:e}", exact - bound);
    }
}

#[test]
fn the_elbo_is_at_its_maximum_also_where_tau_is_hardly_above_0() {
    let prior = |text: &str| Priors { mu: PriorMu::Flat, tau: text.parse().expect("a prior"), ..Priors::default() };
    for (n, priors) in [(9, prior("half-cauchy:0.3")), (30, prior("half-cauchy:0.1")), (30, prior("half-normal:0.2"))] {
        let likelihood = population(n, &[2.0, 9.0]);
        let best = Gaussian::of(&variational(&likelihood, &priors).expect("a fit"));
        let elbo = |x: f64, s: f64| {
            Gaussian { x: best.x + x * best.s, s: best.s * s.exp(), ..best }.elbo(&likelihood, &priors)
        };
        let along = (elbo(1e-4, 0.0) - elbo(-1e-4, 0.0)) / 2e-4;
        let widening = (elbo(0.0, 1e-4) - elbo(0.0, -1e-4)) / 2e-4;
        assert!(along.abs() < 1e-6 && widening.abs() < 1e-6, "{n}: {along:e} {widening:e} {best:?}");
    }
}

#[test]
fn the_nodes_have_the_moments_of_the_summary() {
    // Larger effects have larger errors, so that mu and tau are correlated.
    let component = |i: i32| Component { lambda: 0.2 * 1.5_f64.powi(i), a: 1.0, b: 0.3 * f64::from(i * i) };
    let likelihood = DirectLikelihood::new((0..9).map(component).collect());
    for posterior in [laplace(&likelihood, &FLAT), variational(&likelihood, &FLAT)] {
        let posterior = posterior.expect("a fit");
        let sum = |f: &dyn Fn(f64, f64, f64) -> f64| -> f64 {
            posterior.nodes.iter().map(|node| node.weight * f(node.tau, node.mu_mean, node.mu_variance)).sum()
        };
        let (tau, mu) = (posterior.tau.mean.expect("a mean"), posterior.mu.mean.expect("a mean"));
        let (tau_sd, mu_sd) = (posterior.tau.sd.expect("an sd"), posterior.mu.sd.expect("an sd"));
        assert!((sum(&|_, _, _| 1.0) - 1.0).abs() < 1e-15);
        assert!((sum(&|t, _, _| t) / tau - 1.0).abs() < 1e-7);
        assert!((sum(&|t, _, _| (t - tau).powi(2)).sqrt() / tau_sd - 1.0).abs() < 1e-5);
        assert!((sum(&|_, m, _| m) - mu).abs() < 1e-12);
        assert!((sum(&|_, m, v| (m - mu).powi(2) + v).sqrt() / mu_sd - 1.0).abs() < 1e-8);
        let covariance = sum(&|t, m, _| (t - tau) * (m - mu));
        let correlation = posterior.correlation.expect("it exists");
        assert!((covariance / (tau_sd * mu_sd) - correlation).abs() < 1e-6 && correlation > 0.03, "{correlation}");
    }
}

/// A finite answer with ordered quantiles.
fn assert_sound(posterior: &Posterior) {
    for summary in [&posterior.mu, &posterior.tau] {
        let quantiles = [summary.q025, summary.q25, summary.median, summary.q75, summary.q975];
        let quantiles = quantiles.map(|q| q.expect("a quantile"));
        assert!(quantiles.is_sorted() && summary.sd.expect("an sd") > 0.0, "{posterior:?}");
    }
    assert!(posterior.nodes.iter().all(|n| n.tau.is_finite() && n.mu_mean.is_finite() && n.mu_variance > 0.0));
    assert!(posterior.correlation.expect("it exists").abs() <= 1.0);
}

#[test]
fn hard_populations_are_fitted() {
    let of = |values: &[f64], lambda: f64| {
        DirectLikelihood::new(values.iter().map(|&b| Component { lambda, a: 1.0, b }).collect())
    };
    let two_groups: Vec<f64> = (0..10).map(|i| 0.1 * f64::from(i)).chain([40.0, -40.0]).collect();
    let cauchy = |scale| Priors {
        mu: PriorMu::Normal { mean: 0.0, sd: scale },
        tau: PriorTau::HalfCauchy { scale },
        ..Priors::default()
    };
    let flat_cauchy = Priors { mu: PriorMu::Flat, tau: PriorTau::HalfCauchy { scale: 1.0 }, ..Priors::default() };
    for (likelihood, priors) in [
        (of(&[2.0; 20], 1.0), FLAT),
        (of(&[2.0; 3], 1.0), FLAT),
        (of(&[1e4 - 1.0, 1e4 + 2.0, 1e4, 1e4 + 3.0], 1.0), FLAT),
        (of(&[1e4 - 1.0, 1e4 + 2.0, 1e4, 1e4 + 3.0], 1.0), cauchy(1.0)),
        (of(&[-1e40, 3e40, 2e40], 1e80), FLAT),
        (of(&[-1e-40, 3e-40, 2e-40], 1e-80), cauchy(1e-40)),
        (of(&[1e6, 3e6], 1e12), cauchy(1.0)),
        (of(&[0.7], 1.0), cauchy(1.0)),
        (of(&[0.7], 1.0), flat_cauchy),
        (of(&two_groups, 0.01), FLAT),
    ] {
        assert_sound(&laplace(&likelihood, &priors).expect("a fit"));
        assert_sound(&variational(&likelihood, &priors).expect("a fit"));
    }
    let large = population(1_000_000, &[0.5, 1.0]);
    assert_sound(&laplace(&large, &FLAT).expect("a fit"));
    assert_sound(&variational(&large, &FLAT).expect("a fit"));
}

#[test]
fn two_modes_are_both_reported_and_the_higher_is_taken() {
    // Ten precise effects that agree and two vague ones far off: a small tau with two surprises, or a large one.
    for (far, is_small_higher) in [(6.0, true), (12.0, false)] {
        let near = (0..10).map(|_| Component { lambda: 1e-4, a: 1.0, b: 0.0 });
        let far = [-far, far].map(|b| Component { lambda: 1.0, a: 1.0, b });
        let likelihood = DirectLikelihood::new(near.chain(far).collect());
        for posterior in [laplace(&likelihood, &FLAT), variational(&likelihood, &FLAT)] {
            let posterior = posterior.expect("a fit");
            let [first, second] = posterior.modes.as_slice() else { panic!("modes: {:?}", posterior.modes) };
            assert_eq!(first.tau < second.tau, is_small_higher);
            assert!(first.relative_log_density == 0.0 && second.relative_log_density < 0.0);
            for mode in [first, second] {
                let [low, at, high] = [-1e-3, 0.0, 1e-3].map(|d| log_joint(&likelihood, &FLAT, 0.0, mode.tau.ln() + d));
                assert!(low < at && high < at);
            }
            let median = posterior.tau.median.expect("a median");
            assert!((median / first.tau).ln().abs() < 1.0, "{median} {first:?}");
        }
    }
}

#[test]
fn no_effects_and_improper_posteriors_are_refused() {
    let one = DirectLikelihood::new(vec![Component { lambda: 1.0, a: 1.0, b: 1.0 }]);
    let none = DirectLikelihood::new(vec![]);
    assert_eq!(laplace(&none, &FLAT), Err(PosteriorError::Empty));
    assert_eq!(variational(&none, &FLAT), Err(PosteriorError::Empty));
    assert_eq!(laplace(&one, &FLAT), Err(PosteriorError::Improper { effects: 1 }));
    assert_eq!(variational(&one, &FLAT), Err(PosteriorError::Improper { effects: 1 }));
}

#[test]
fn a_prior_whose_squared_scale_underflows_ends_in_an_error() {
    let priors = Priors { mu: PriorMu::Flat, tau: PriorTau::HalfNormal { scale: 1e-200 }, ..Priors::default() };
    let likelihood = population(5, &[1.0]);
    assert_eq!(laplace(&likelihood, &priors), Err(PosteriorError::Degenerate));
    assert_eq!(variational(&likelihood, &priors), Err(PosteriorError::Degenerate));
}
