//! Priors one by one: derivatives, fixed values, closed forms, what exists, units taken from the data, and what follows from the
//! distribution of tau.

use std::f64::consts::PI;

use shrinkd_model::{
    Block, BlockPosterior, Component, DataScale, Fit, Method, Posterior, PosteriorError, PriorMu, PriorTau, Priors,
    Quantity, ScaleError, Sketch, SketchLikelihood, laplace, normal_upper_quantile, quadrature, variational,
};

fn effects(values: &[f64], lambda: f64) -> Sketch {
    let components: Vec<Component> = values.iter().map(|&b| Component { lambda, a: 1.0, b }).collect();
    let mut sketch = Sketch::new();
    sketch.add(&components).expect("in range");
    sketch
}

fn priors(mu: &str, tau: &str) -> Priors {
    Priors { mu: mu.parse().expect("a prior"), tau: tau.parse().expect("a prior"), ..Priors::default() }
}

fn fit(values: &[f64], lambda: f64, mu: &str, tau: &str) -> Posterior {
    quadrature(&SketchLikelihood::new(&effects(values, lambda)), &priors(mu, tau)).expect("a posterior")
}

fn assert_near(got: Option<f64>, want: f64, what: &str) {
    let got = got.unwrap_or_else(|| panic!("{what} is null"));
    assert!((got - want).abs() <= 1e-9 * want.abs().max(1.0), "{what}: {got}, not {want}");
}

const PROPER: [&str; 7] = [
    "half-normal:0.7",
    "half-cauchy:0.7",
    "half-t:3,0.7",
    "dumouchel:0.7",
    "uniform-shrinkage:0.7",
    "inverse-gamma:1.5,0.7",
    "log-normal:-0.5,0.8",
];

#[test]
fn densities_integrate_to_one_and_have_the_derivatives_that_they_state() {
    for text in PROPER {
        let prior: PriorTau = text.parse().expect("a prior");
        // The trapezoidal rule in log tau.
        let mass: f64 =
            (-8_000..8_000).map(|k| 0.01 * f64::from(k)).map(|x| 0.01 * (prior.log_density(x.exp()) + x).exp()).sum();
        assert!((mass - 1.0).abs() < 1e-10, "{text}: {mass}");
        for t in [0.01, 0.3, 5.0_f64] {
            let at = |t: f64| prior.log_density(t.sqrt());
            let h = 1e-4 * t;
            let (slope, curvature) = prior.derivatives(t);
            let (difference, second) = ((at(t + h) - at(t - h)) / (2.0 * h), prior.derivatives(t + h).0);
            let second = (second - prior.derivatives(t - h).0) / (2.0 * h);
            assert!((slope - difference).abs() < 1e-5 * slope.abs(), "{text} at {t}: {slope} {difference}");
            assert!((curvature - second).abs() <= 1e-5 * curvature.abs() + 1e-9, "{text} at {t}: {curvature} {second}");
        }
    }
}

#[test]
fn one_effect_under_a_flat_mu_leaves_tau_its_prior() {
    // Medians, where they have a closed form.
    assert_near(fit(&[0.3], 1.0, "flat", "dumouchel:0.7").tau.median, 0.7, "dumouchel");
    assert_near(fit(&[0.3], 1.0, "flat", "half-cauchy:0.7").tau.median, 0.7, "half-cauchy");
    assert_near(fit(&[0.3], 1.0, "flat", "uniform-shrinkage:0.7").tau.median, 0.7, "uniform-shrinkage");
    assert_near(fit(&[0.3], 1.0, "flat", "log-normal:-0.5,0.8").tau.median, (-0.5_f64).exp(), "log-normal");
    // Means.
    assert_near(fit(&[0.3], 1.0, "flat", "half-normal:0.7").tau.mean, 0.7 * (2.0 / PI).sqrt(), "half-normal");
    assert_near(fit(&[0.3], 1.0, "flat", "uniform-shrinkage:0.7").tau.mean, 0.5 * PI * 0.7, "uniform-shrinkage");
    assert_near(fit(&[0.3], 1.0, "flat", "log-normal:-0.5,0.8").tau.mean, (-0.5 + 0.32_f64).exp(), "log-normal");
    // E tau^2 = b / (a - 1), also where the tail falls so slowly that f64 ends before it.
    for shape in [1.5, 1.01, 1.001] {
        let tau = fit(&[0.3], 1.0, "flat", &format!("inverse-gamma:{shape},0.7")).tau;
        let (mean, sd) = (tau.mean.expect("a mean"), tau.sd.expect("an sd"));
        let second = 0.7 / (shape - 1.0);
        assert!(((sd * sd + mean * mean) / second - 1.0).abs() < 1e-7, "{shape}: {mean} {sd}");
        // Mu is as far from the effect as its error and tau together leave it.
        let mu = fit(&[0.3], 1e-4, "flat", &format!("inverse-gamma:{shape},0.7")).mu.sd.expect("an sd");
        assert!((mu * mu / (1e-4 + second) - 1.0).abs() < 1e-7, "{shape}: {mu}");
    }
}

#[test]
fn a_prior_with_a_parameter_that_is_not_above_0_is_refused() {
    for text in [
        "half-normal:0",
        "half-cauchy:-1",
        "half-t:0,1",
        "half-t:-1,1",
        "half-t:3,0",
        "dumouchel:0",
        "uniform-shrinkage:-1",
        "inverse-gamma:0,1",
        "inverse-gamma:1,0",
        "inverse-gamma:-1,1",
        "inverse-gamma:1,-1",
        "log-normal:0,0",
        "fixed:-1",
    ] {
        let error = text.parse::<PriorTau>().expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    }
    for text in ["normal:0,0", "normal:0,-1"] {
        let error = text.parse::<PriorMu>().expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn moments_exist_where_the_tails_let_them() {
    for (prior, effects, has_mean, has_sd) in [
        ("half-cauchy:1", 1, false, false),
        ("half-cauchy:1", 2, true, false),
        ("half-cauchy:1", 3, true, true),
        ("dumouchel:1", 1, false, false),
        ("dumouchel:1", 2, true, false),
        ("dumouchel:1", 3, true, true),
        ("uniform-shrinkage:1", 1, true, false),
        ("uniform-shrinkage:1", 2, true, true),
        ("half-t:1.5,1", 1, true, false),
        ("half-t:2.5,1", 1, true, true),
        ("inverse-gamma:0.25,1", 1, false, false),
        ("inverse-gamma:0.75,1", 1, true, false),
        ("inverse-gamma:1.25,1", 1, true, true),
        ("half-normal:1", 1, true, true),
        ("log-normal:0,1", 1, true, true),
        ("fixed:1", 1, true, true),
    ] {
        let values: Vec<f64> = (0..effects).map(|i| 0.4 * f64::from(i)).collect();
        let posterior = fit(&values, 1.0, "flat", prior);
        for summary in [posterior.mu, posterior.tau] {
            let exists = (summary.mean.is_some(), summary.sd.is_some());
            assert_eq!(exists, (has_mean, has_sd), "{prior}, {effects} effect(s)");
        }
        assert!(fit(&values, 1.0, "normal:0,1", prior).mu.sd.is_some(), "{prior} under a normal mu");
    }
}

#[test]
fn a_fixed_tau_is_a_known_one() {
    let values = [0.5, 1.5, 0.1];
    for tau in [0.0, 0.3, 2.0_f64] {
        let posterior = fit(&values, 0.25, "normal:1,2", &format!("fixed:{tau}"));
        let v = 0.25 + tau * tau;
        let precision = 3.0 / v + 0.25;
        let mean = (2.1 / v + 0.25) / precision;
        assert_near(posterior.mu.mean, mean, "mean of mu");
        assert_near(posterior.mu.sd, precision.powf(-0.5), "sd of mu");
        for figure in [posterior.tau.mean, posterior.tau.median, posterior.tau.q025, posterior.tau.q975] {
            assert_eq!(figure, Some(tau));
        }
        assert_eq!(posterior.tau.sd, Some(0.0));
        assert_eq!(posterior.tau_distribution.log_sd(), 0.0);
        assert_eq!(posterior.tau_distribution.shortest95(), (tau, tau));
        // N(1, v I + 4) at the effects.
        let residuals: f64 = values.iter().map(|x| x - 1.0).sum();
        let squares: f64 = values.iter().map(|x| (x - 1.0_f64).powi(2)).sum();
        let log_det = 2.0 * v.ln() + (v + 12.0).ln();
        let quadratic = squares / v - 4.0 * residuals * residuals / (v * (v + 12.0));
        assert_near(posterior.log_evidence, -0.5 * (3.0 * (2.0 * PI).ln() + log_det + quadratic), "evidence");
    }
}

#[test]
fn a_fixed_mu_is_a_known_one() {
    let likelihood = SketchLikelihood::new(&effects(&[0.5, 1.5, 0.1, -0.7], 0.25));
    let fixed = priors("fixed:0.2", "half-normal:1");
    let posterior = quadrature(&likelihood, &fixed).expect("a posterior");
    for figure in [posterior.mu.mean, posterior.mu.median, posterior.mu.q025, posterior.mu.q975] {
        assert_eq!(figure, Some(0.2));
    }
    assert_eq!((posterior.mu.sd, posterior.correlation), (Some(0.0), None));
    // A normal prior this narrow is as good as known.
    let narrow = quadrature(&likelihood, &priors("normal:0.2,1e-7", "half-normal:1")).expect("a posterior");
    for (got, want) in [
        (posterior.tau.mean, narrow.tau.mean),
        (posterior.tau.sd, narrow.tau.sd),
        (posterior.log_evidence, narrow.log_evidence),
    ] {
        assert!((got.expect("exists") - want.expect("exists")).abs() < 1e-8, "{got:?} {want:?}");
    }
    // The approximations too.
    for method in [laplace, variational] {
        let (fixed, narrow) =
            (method(&likelihood, &fixed), method(&likelihood, &priors("normal:0.2,1e-7", "half-normal:1")));
        let (fixed, narrow) = (fixed.expect("a fit"), narrow.expect("a fit"));
        assert_eq!(fixed.mu.sd, Some(0.0));
        assert!((fixed.tau.median.expect("exists") - narrow.tau.median.expect("exists")).abs() < 1e-7);
        assert!((fixed.log_evidence.expect("exists") - narrow.log_evidence.expect("exists")).abs() < 1e-6);
    }
}

#[test]
fn with_both_fixed_every_figure_is_there() {
    for tau in ["fixed:0", "fixed:0.4"] {
        let likelihood = SketchLikelihood::new(&effects(&[0.5, 1.5], 0.25));
        for method in [Method::Quadrature, Method::Laplace, Method::Variational] {
            let fit = Fit::new(&likelihood, &priors("fixed:0.2", tau), method).expect("finite figures");
            assert_eq!((fit.posterior.mu.sd, fit.posterior.tau.sd), (Some(0.0), Some(0.0)));
            assert!(fit.posterior.log_evidence.is_some());
        }
    }
}

#[test]
fn what_led_here_is_right() {
    let near = |got: Option<f64>, want: f64| assert!((got.expect("exists") - want).abs() < 1e-9, "{got:?} {want}");
    // One effect of 1 with variance 1 under mu ~ N(0, 1) and a tau of next to nothing.
    let posterior = fit(&[1.0], 1.0, "normal:0,1", "half-normal:0.00001");
    near(posterior.mu.mean, 0.5);
    near(posterior.mu.sd, 0.5_f64.sqrt());
    // A known prior N(0, 0.05^2) of an effect of 0.04 with standard error 0.03.
    let posterior = fit(&[0.04], 9e-4, "fixed:0", "fixed:0.05");
    let block = Block::shared_control(vec![0.04], vec![9e-4], 0.0).expect("a block");
    let estimate = BlockPosterior::new(&block, &posterior.nodes).estimate(0);
    near(Some(estimate.mean), 0.029_411_764_7);
    near(Some(estimate.sd), 0.025_724_787_8);
    // A latency in nanoseconds under a prior in seconds.
    let values: Vec<f64> = (0..12).map(|k| 1e5 * f64::from(k % 5)).collect();
    let posterior = fit(&values, 3.2e11, "flat", "half-normal:1");
    near(posterior.tau.mean.map(|tau| tau - (2.0 / PI).sqrt()), 0.0);
}

#[test]
fn a_posterior_beyond_f64_is_an_error() {
    let one = SketchLikelihood::new(&effects(&[0.3], 1.0));
    // Half of its mass is above e^346.
    assert_eq!(quadrature(&one, &priors("flat", "inverse-gamma:0.001,0.001")), Err(PosteriorError::OutOfRange));
    assert_eq!(quadrature(&one, &priors("flat", "log-normal:700,1")), Err(PosteriorError::OutOfRange));
}

#[test]
fn priors_read_as_they_are_written() {
    for text in ["flat", "fixed:-0.5", "normal:0,0.1", "normal:mean,1sd", "normal:0,2se", "fixed:mean"] {
        assert_eq!(text.parse::<PriorMu<Quantity>>().expect(text).to_string(), text);
    }
    let data = ["flat", "fixed:0", "half-normal:0.5se", "half-cauchy:1sd", "half-t:4,1se", "dumouchel:1se"];
    for text in data.into_iter().chain(["uniform-shrinkage:1se", "fixed:0.5se"]).chain(PROPER) {
        assert_eq!(text.parse::<PriorTau<Quantity>>().expect(text).to_string(), text);
    }
    for text in ["normal:0,0", "normal:0,mean", "fixed:", "fixed:NaN", "fixed:1km", "half-normal:1", "normal:0,-1se"] {
        let error = text.parse::<PriorMu<Quantity>>().expect_err(text).to_string();
        assert!(error.contains("normal:0,2se"), "{error}");
    }
    for text in
        ["fixed:-1", "half-normal:0se", "half-normal:mean", "half-t:1se,1", "inverse-gamma:1,1se", "log-normal:0,11"]
    {
        let error = text.parse::<PriorTau<Quantity>>().expect_err(text).to_string();
        assert!(error.contains("half-normal:0.5se"), "{error}");
    }
    assert!("half-normal:0.5se".parse::<PriorTau>().is_err());
}

#[test]
fn units_that_the_data_set_are_those_of_the_raw_effects() {
    let mut sketch = Sketch::new();
    let (lambdas, values) = ([0.04, 0.3, 7.0, 0.02], [100.5, 99.0, 104.0, 100.0]);
    for (lambda, b) in lambdas.into_iter().zip(values) {
        sketch.add(&[Component { lambda, a: 1.0, b }]).expect("in range");
    }
    let scale = DataScale::new(&sketch).expect("effects");
    let mean = values.iter().sum::<f64>() / 4.0;
    let sd = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
    let se = (lambdas.iter().map(|lambda: &f64| 0.5 * lambda.ln()).sum::<f64>() / 4.0).exp();
    assert_near(Some(scale.mean), mean, "mean");
    assert_near(scale.sd, sd, "sd");
    assert_near(Some(scale.se), se, "se");

    let stated: Priors<Quantity> = Priors {
        mu: "normal:mean,2sd".parse().expect("a prior"),
        tau: "half-t:4,0.5se".parse().expect("a prior"),
        ..Priors::default()
    };
    let resolved = stated.resolve(DataScale::new(&sketch).as_ref()).expect("units");
    assert_eq!(resolved.mu, PriorMu::Normal { mean: scale.mean, sd: 2.0 * scale.sd.expect("an sd") });
    assert_eq!(resolved.tau, PriorTau::HalfT { df: 4.0, scale: 0.5 * scale.se });
}

#[test]
fn a_unit_that_the_data_do_not_set_is_an_error_that_says_what_to_do() {
    let stated: Priors<Quantity> = Priors { tau: "half-normal:1sd".parse().expect("a prior"), ..Priors::default() };
    let message = |sketch: &Sketch| {
        let error = stated.resolve(DataScale::new(sketch).as_ref()).expect_err("no unit");
        (error, error.to_string())
    };
    assert_eq!(message(&effects(&[], 1.0)).0, ScaleError::Empty);
    let (error, text) = message(&effects(&[0.3], 1.0));
    assert!(error == ScaleError::OneEffect && text.contains("in se or in the effects' unit"), "{text}");
    for far in [0.0, 0.3, 1e6 + 0.1] {
        let (error, text) = message(&effects(&[far; 20], 1.0));
        assert!(error == ScaleError::NoSpread && text.contains("in se or in the effects' unit"), "{far}: {text}");
    }
    let se: Priors<Quantity> = Priors { tau: "half-normal:1se".parse().expect("a prior"), ..Priors::default() };
    assert_eq!(
        se.resolve(DataScale::new(&effects(&[0.3], 4.0)).as_ref()).expect("a unit").tau,
        PriorTau::HalfNormal { scale: 2.0 }
    );
}

/// Posterior expectations the long way: the trapezoidal rule in log tau, of one effect under a flat mu, whose posterior of tau
/// is its prior, or of several.
fn expectation(values: &[f64], prior: &PriorTau, f: impl Fn(f64) -> f64) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    let density = |x: f64| {
        let v = 1.0 + (2.0 * x).exp();
        (prior.log_density(x.exp()) + x - 0.5 * (n - 1.0) * v.ln() - 0.5 * squares / v).exp()
    };
    let grid = || (-80_000..40_000).map(|k| 0.001 * f64::from(k));
    let total: f64 = grid().map(density).sum();
    grid().map(|x| density(x) * f(x)).sum::<f64>() / total
}

#[test]
fn the_sd_of_log_tau_is_right_also_where_tau_piles_up_at_0() {
    for values in [&[0.3][..], &[0.1, 0.2, 0.0, 0.1, -0.1], &[-3.0, 4.0, 0.0, 1.0, 7.0, 2.0]] {
        for text in PROPER.into_iter().chain(["half-normal:1e-9", "half-t:3,1e6"]) {
            let posterior = fit(values, 1.0, "flat", text);
            let prior: PriorTau = text.parse().expect("a prior");
            let mean = expectation(values, &prior, |x| x);
            let sd = expectation(values, &prior, |x| (x - mean).powi(2)).sqrt();
            let got = posterior.tau_distribution.log_sd();
            assert!((got / sd - 1.0).abs() < 1e-7, "{text}, {} effects: {got} {sd}", values.len());
        }
    }
}

/// 97.5% of tau lie below 0.0063, and half of its second moment in a tail that the effects cut off at some 0.8.
#[test]
fn the_sd_of_tau_is_right_where_it_lies_in_a_tail_of_little_probability() {
    let values: Vec<f64> = (0..80).map(|i| 1.2 * normal_upper_quantile((f64::from(i) + 0.5) / 80.0)).collect();
    let prior: PriorTau = "uniform-shrinkage:0.001".parse().expect("a prior");
    let mean = expectation(&values, &prior, f64::exp);
    let sd = expectation(&values, &prior, |x| (x.exp() - mean).powi(2)).sqrt();
    let got = fit(&values, 1.0, "flat", "uniform-shrinkage:0.001").tau.sd.expect("it exists");
    assert!((got / sd - 1.0).abs() < 1e-8, "{got} {sd}");
}

#[test]
fn the_shortest_interval_holds_95_percent_and_no_other_is_shorter() {
    for values in [&[0.3][..], &[0.1, 0.2, 0.0, 0.1, -0.1], &[-3.0, 4.0, 0.0, 1.0, 7.0, 2.0]] {
        let likelihood = SketchLikelihood::new(&effects(values, 1.0));
        for text in PROPER {
            let exact = quadrature(&likelihood, &priors("flat", text)).expect("a posterior");
            let normal = laplace(&likelihood, &priors("flat", text)).expect("a posterior");
            for posterior in [exact, normal] {
                let tau = &posterior.tau_distribution;
                let (low, high) = tau.shortest95();
                let below = |x: f64| if x > 0.0 { tau.below(x) } else { 0.0 };
                assert!((below(high) - below(low) - 0.95).abs() < 1e-9, "{text}: {low} to {high}");
                let length = high - low;
                for shift in [-0.1, -0.01, 0.01, 0.1].map(|share| share * length) {
                    let held = below((high + shift).max(0.0)) - below((low + shift).max(0.0));
                    assert!(held <= 0.95 + 1e-9, "{text}: {low} to {high} moved by {shift} holds {held}");
                }
                let equal_tails = posterior.tau.q975.expect("exists") - posterior.tau.q025.expect("exists");
                assert!(length <= equal_tails * (1.0 + 1e-9), "{text}");
            }
        }
    }
}

/// Tau has a mode at 0, where some 1%, 50% or 90% of it lie, and one beyond 1.5.
#[test]
fn the_shortest_interval_of_two_modes_is_shorter_than_that_from_any_other_end() {
    let values: Vec<f64> = (0..10).map(|k| (f64::from(k) - 4.5) * 0.01).chain([-5.2, 5.2]).collect();
    for prior in ["half-cauchy:0.001", "half-cauchy:1e-5", "half-cauchy:1e-6"] {
        let posterior = fit(&values, 1.0, "flat", prior);
        assert_eq!(posterior.modes.len(), 2, "{prior}");
        let tau = &posterior.tau_distribution;
        let (low, high) = tau.shortest95();
        let below = |x: f64| if x > 0.0 { tau.below(x) } else { 0.0 };
        for end in (0..300).map(|k| 0.01 * f64::from(k)) {
            let held = below(end + high - low) - below(end);
            assert!(held <= 0.95 + 1e-9, "{prior}: {low} to {high} is no shorter than from {end}, with {held}");
        }
    }
}

#[test]
fn the_shortest_interval_reaches_0_where_the_density_of_tau_is_highest_there() {
    let reaches = |values: &[f64]| {
        let posterior = fit(values, 1.0, "flat", "half-cauchy:1");
        assert!(posterior.tau.q025.expect("exists") > 0.0);
        posterior.tau_distribution.shortest95().0 == 0.0
    };
    assert!(reaches(&[0.1, 0.2, 0.0, 0.1, -0.1]));
    assert!(!reaches(&[-30.0, 40.0, 0.0, 10.0, 70.0, 20.0]));
}

#[test]
fn the_probability_of_a_negligible_tau_is_that_below_a_tenth_of_the_typical_standard_error() {
    let values = [0.1, 0.2, 0.0, 0.1, -0.1];
    let prior: PriorTau = "half-normal:0.7".parse().expect("a prior");
    let posterior = fit(&values, 1.0, "flat", "half-normal:0.7");
    // A step function needs a finer rule than the trapezoidal one: twice its steps leave 1e-4.
    let want = expectation(&values, &prior, |x| f64::from(u8::from(x.exp() < 0.1)));
    let got = posterior.tau_distribution.negligible(1.0);
    assert!((got - want).abs() < 2e-4, "{got} {want}");
}
