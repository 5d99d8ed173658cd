//! What is reported with a point estimate: metafor's figures, and linear algebra done the long way for whole blocks.

use proptest::prelude::*;
use shrinkd_model::{Block, BlockPosterior, Fit, Heterogeneity, Method, PosteriorError, Priors, SketchLikelihood};

use crate::reference::sketch_of;
use crate::shrinkage::solve;

const POINT: [Method; 4] = [Method::Reml, Method::Ml, Method::Dl, Method::Pm];

fn fit(blocks: &[Block], method: Method) -> Fit {
    Fit::new(&SketchLikelihood::new(&sketch_of(blocks)), &Priors::default(), method).expect("an estimate")
}

fn heterogeneity(fit: &Fit) -> Heterogeneity {
    fit.heterogeneity.expect("two effects or more")
}

/// Independent effects and their variances.
fn singles(effects: &[(f64, f64)]) -> Vec<Block> {
    let single =
        |&(effect, variance): &(f64, f64)| Block::shared_control(vec![effect], vec![variance], 0.0).expect("a block");
    effects.iter().map(single).collect()
}

#[track_caller]
fn assert_published(name: &str, got: f64, want: f64, digits: i32) {
    let half = 0.5 * 10_f64.powi(-digits);
    assert!((got - want).abs() <= 1.02 * half, "{name}: {got} instead of {want}");
}

/// Log risk ratios of the 13 BCG vaccine trials, `dat.bcg` in R's metadat (Colditz et al., JAMA 271, 1994): vaccinated with and
/// without tuberculosis, and not vaccinated likewise.
fn bcg() -> Vec<Block> {
    let trials = [
        [4, 119, 11, 128],
        [6, 300, 29, 274],
        [3, 228, 11, 209],
        [62, 13536, 248, 12619],
        [33, 5036, 47, 5761],
        [180, 1361, 372, 1079],
        [8, 2537, 10, 619],
        [505, 87886, 499, 87892],
        [29, 7470, 45, 7232],
        [17, 1699, 65, 1600],
        [186, 50448, 141, 27197],
        [5, 2493, 3, 2338],
        [27, 16886, 29, 17825],
    ];
    let effects = trials.map(|[cases, others, control_cases, control_others]| {
        let arm = |cases: i32, others: i32| {
            let (cases, n) = (f64::from(cases), f64::from(cases + others));
            ((cases / n).ln(), 1.0 / cases - 1.0 / n)
        };
        let ((log_risk, variance), control) = (arm(cases, others), arm(control_cases, control_others));
        (log_risk - control.0, variance + control.1)
    });
    singles(&effects)
}

#[test]
fn the_bcg_trials_have_the_figures_that_metafor_publishes() {
    // metafor's README (REML, with test = "knha" for the second interval), its tests of confint() (DL) and rma() (PM).
    let reml = fit(&bcg(), Method::Reml);
    let more = heterogeneity(&reml);
    let figure = |x: Option<f64>| x.expect("exists");
    for (name, got, want, digits) in [
        ("tau^2", figure(reml.posterior.tau.mean).powi(2), 0.3132, 4),
        ("mu", figure(reml.posterior.mu.mean), -0.7145, 4),
        ("se", figure(reml.posterior.mu.sd), 0.1798, 4),
        ("ci.lb", figure(reml.posterior.mu.q025), -1.0669, 4),
        ("ci.ub", figure(reml.posterior.mu.q975), -0.3622, 4),
        ("se, knha", more.knapp_hartung.se, 0.1808, 4),
        ("ci.lb, knha", more.knapp_hartung.ci95.0, -1.1084, 4),
        ("ci.ub, knha", more.knapp_hartung.ci95.1, -0.3206, 4),
        ("I^2", 100.0 * more.i_squared, 92.22, 2),
        ("H^2", more.h_squared, 12.86, 2),
        ("Q", more.q, 152.2330, 4),
        ("tau^2 ci.lb", more.tau_ci95.0.powi(2), 0.1197, 4),
        ("tau^2 ci.ub", more.tau_ci95.1.powi(2), 1.1115, 4),
    ] {
        assert_published(name, got, want, digits);
    }
    assert_eq!(more.q_df, 12);
    assert!(more.q_p < 1e-4 && more.q_p > 0.0);

    let dl = fit(&bcg(), Method::Dl);
    let more = heterogeneity(&dl);
    for (name, got, want, digits) in [
        ("DL tau^2", figure(dl.posterior.tau.mean).powi(2), 0.3088, 4),
        ("DL risk ratio", figure(dl.posterior.mu.mean).exp(), 0.4896, 4),
        ("DL ci.lb", figure(dl.posterior.mu.q025).exp(), 0.3449, 4),
        ("DL ci.ub", figure(dl.posterior.mu.q975).exp(), 0.6950, 4),
        ("DL I^2", 100.0 * more.i_squared, 92.1173, 4),
        ("DL H^2", more.h_squared, 12.6861, 4),
        ("PM tau^2", figure(fit(&bcg(), Method::Pm).posterior.tau.mean).powi(2), 0.3181, 4),
    ] {
        assert_published(name, got, want, digits);
    }
}

/// Standardised mean differences of 19 studies of teacher expectancy, `dat.raudenbush1985` in R's metadat (Raudenbush & Bryk, J.
/// Educational Statistics 10, 1985).
const EXPECTANCY: [(f64, f64); 19] = [
    (0.03, 0.0156),
    (0.12, 0.0216),
    (-0.14, 0.0279),
    (1.18, 0.1391),
    (0.26, 0.1362),
    (-0.06, 0.0106),
    (-0.02, 0.0106),
    (-0.32, 0.0484),
    (0.27, 0.0269),
    (0.80, 0.0630),
    (0.54, 0.0912),
    (0.18, 0.0497),
    (-0.02, 0.0835),
    (0.23, 0.0841),
    (-0.18, 0.0253),
    (-0.06, 0.0279),
    (0.30, 0.0193),
    (0.07, 0.0088),
    (-0.07, 0.0303),
];

/// What metafor's tests have for its `blup`: prediction and 95% interval.
const EXPECTANCY_BLUPS: [(f64, f64, f64); 19] = [
    (0.0543, -0.1324, 0.2411),
    (0.1006, -0.1033, 0.3045),
    (-0.0064, -0.2228, 0.2100),
    (0.2144, -0.0533, 0.4821),
    (0.1051, -0.1622, 0.3724),
    (-0.0082, -0.1737, 0.1572),
    (0.0174, -0.1481, 0.1828),
    (-0.0293, -0.2689, 0.2102),
    (0.1604, -0.0543, 0.3751),
    (0.2485, 0.0000, 0.4970),
    (0.1618, -0.0970, 0.4206),
    (0.1102, -0.1303, 0.3507),
    (0.0646, -0.1920, 0.3212),
    (0.1105, -0.1463, 0.3672),
    (-0.0288, -0.2405, 0.1829),
    (0.0258, -0.1906, 0.2422),
    (0.1905, -0.0076, 0.3886),
    (0.0744, -0.0808, 0.2295),
    (0.0248, -0.1954, 0.2450),
];

#[test]
fn the_interval_of_tau_scales_with_the_unit_of_the_effects() {
    let interval = |unit: f64| {
        let block = |block: Block| {
            let (effect, variance) = (block.effects()[0] * unit, block.sampling_variance(0) * unit * unit);
            Block::shared_control(vec![effect], vec![variance], 0.0).expect("a block")
        };
        let blocks: Vec<Block> = bcg().into_iter().map(block).collect();
        heterogeneity(&fit(&blocks, Method::Reml)).tau_ci95
    };
    let (low, high) = interval(1.0);
    for unit in [1e-9, 1e-3, 1e3, 1e9] {
        let scaled = interval(unit);
        for (got, want) in [(scaled.0, low * unit), (scaled.1, high * unit)] {
            assert!((got / want - 1.0).abs() < 1e-9, "{unit}: {got} instead of {want}");
        }
    }
}

#[test]
fn effects_under_reml_have_the_predictions_and_intervals_of_metafors_blup() {
    let blocks = singles(&EXPECTANCY);
    let fit = fit(&blocks, Method::Reml);
    assert_published("Q", heterogeneity(&fit).q, 35.8295, 4);
    assert_published("tau^2", fit.posterior.tau.mean.expect("an estimate").powi(2), 0.0188, 4);
    assert_published("mu", fit.posterior.mu.mean.expect("an estimate"), 0.0837, 4);
    for (block, (mean, low, high)) in blocks.iter().zip(EXPECTANCY_BLUPS) {
        let posterior = BlockPosterior::new(block, &fit.nodes);
        let estimate = posterior.estimate(0);
        let ci95 = posterior.intervals(0, &estimate).ci95;
        // metafor stops where tau^2 moves by less than 1e-5, which is some 1e-4 of an effect.
        for (got, want) in [(estimate.mean, mean), (ci95.0, low), (ci95.1, high)] {
            assert!((got - want).abs() < 2e-4, "{got} instead of {want}");
        }
    }
}

/// The covariance of all effects at t, block by block, and the effects.
fn whole(blocks: &[Block], t: f64) -> (Vec<Vec<f64>>, Vec<f64>) {
    let n = blocks.iter().map(Block::len).sum();
    let (mut matrix, mut effects) = (vec![vec![0.0; n]; n], Vec::new());
    for block in blocks {
        let start = effects.len();
        for i in 0..block.len() {
            for j in 0..block.len() {
                matrix[start + i][start + j] = block.sampling_covariance(i, j) + if i == j { t } else { 0.0 };
            }
        }
        effects.extend(block.effects());
    }
    (matrix, effects)
}

/// Generalised least squares at t by linear algebra: A, mu, Q and the trace of P.
fn least_squares(blocks: &[Block], t: f64) -> (f64, f64, f64, f64) {
    let (v, effects) = whole(blocks, t);
    let n = effects.len();
    let ones = solve(v.clone(), vec![1.0; n]);
    let a: f64 = ones.iter().sum();
    let mu = ones.iter().zip(&effects).map(|(w, x)| w * x).sum::<f64>() / a;
    let residuals: Vec<f64> = effects.iter().map(|x| x - mu).collect();
    let weighted = solve(v.clone(), residuals.clone());
    let q = residuals.iter().zip(&weighted).map(|(x, y)| x * y).sum();
    let inverse = |i: usize| solve(v.clone(), (0..n).map(|j| f64::from(u8::from(i == j))).collect())[i];
    let trace = (0..n).map(|i| inverse(i) - ones[i] * ones[i] / a).sum();
    (a, mu, q, trace)
}

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let row = (-3.0..3.0_f64, 0.05..2.0_f64);
    let block = (prop::collection::vec(row, 1..5), 0.01..3.0_f64, any::<bool>()).prop_map(|(rows, c, is_dense)| {
        let (effects, d): (Vec<f64>, Vec<f64>) = rows.into_iter().unzip();
        let n = effects.len();
        let shared = Block::shared_control(effects.clone(), d, c).expect("a block");
        let matrix = (0..n * n).map(|k| shared.sampling_covariance(k / n, k % n)).collect();
        if is_dense { Block::dense(effects, matrix).expect("a block") } else { shared }
    });
    prop::collection::vec(block, 2..7)
}

proptest! {
    #[test]
    fn every_figure_is_that_of_least_squares_with_the_whole_covariance(blocks in blocks()) {
        let (_, _, q, trace) = least_squares(&blocks, 0.0);
        let n = blocks.iter().map(Block::len).sum::<usize>() as f64;
        let near = |x: f64, y: f64| (x - y).abs() <= 1e-9 * (1.0 + y.abs());
        for method in POINT {
            let fit = fit(&blocks, method);
            let tau = fit.posterior.tau.mean.expect("an estimate");
            let t = tau * tau;
            let (a, mu, residual_q, _) = least_squares(&blocks, t);
            let more = heterogeneity(&fit);
            prop_assert!(near(fit.posterior.mu.mean.expect("an estimate"), mu));
            prop_assert!(near(fit.posterior.mu.sd.expect("a standard error"), 1.0 / a.sqrt()));
            prop_assert!(near(more.q, q) && more.q_df as f64 == n - 1.0);
            prop_assert!(near(more.knapp_hartung.se, (residual_q / (n - 1.0) / a).sqrt()));
            prop_assert!(near(more.i_squared, t / (t + (n - 1.0) / trace)));
            prop_assert!(near(more.h_squared, 1.0 + t * trace / (n - 1.0)));
            match method {
                Method::Dl => prop_assert!(near(t, ((q - (n - 1.0)) / trace).max(0.0)), "{} {}", t, trace),
                Method::Pm if tau > 0.0 => prop_assert!(near(residual_q, n - 1.0), "{}", residual_q),
                Method::Pm => prop_assert!(q <= n - 1.0 + 1e-9),
                _ => {}
            }
            // At its ends Q is at the quantiles of the chi-squared distribution, or the end is 0 and Q is below it.
            let (low, high) = more.tau_ci95;
            prop_assert!(low <= high);
            for (end, level) in [(low, 0.975), (high, 0.025)] {
                let below = chi_squared_below(least_squares(&blocks, end * end).2, n - 1.0);
                prop_assert!((below - level).abs() < 1e-8 || (end == 0.0 && below < level), "{} {}", end, below);
            }
        }
    }

    #[test]
    fn no_scale_and_no_spread_of_variances_gives_a_figure_that_is_not_finite(
        rows in prop::collection::vec((-3.0..3.0_f64, -60.0..60.0_f64, -40.0..40.0_f64), 2..12),
        log_control in -60.0..60.0_f64,
    ) {
        let effects: Vec<(f64, f64)> =
            rows.iter().map(|&(x, log_variance, log_size)| (x * (0.5 * log_variance + 0.25 * log_size).exp(), log_variance.exp())).collect();
        let mut blocks = singles(&effects);
        blocks.push(
            Block::shared_control(vec![0.0, (0.5 * log_control).exp()], vec![1.0, log_control.exp()], log_control.exp()).expect("a block"),
        );
        for method in POINT {
            let fit = fit(&blocks, method);
            let more = heterogeneity(&fit);
            let figures = [
                more.q, more.q_p, more.tau_ci95.0, more.tau_ci95.1, more.i_squared, more.h_squared, more.knapp_hartung.se,
                more.knapp_hartung.ci95.0, more.knapp_hartung.ci95.1, fit.posterior.mu.mean.unwrap_or(f64::NAN),
                fit.posterior.mu.sd.unwrap_or(f64::NAN), fit.posterior.tau.mean.unwrap_or(f64::NAN),
            ];
            prop_assert!(figures.iter().all(|x| x.is_finite()), "{} {fit:?}", method.as_str());
            prop_assert!((0.0..=1.0).contains(&more.i_squared) && (0.0..=1.0).contains(&more.q_p));
            prop_assert!(more.tau_ci95.0 <= more.tau_ci95.1, "{} {:?}", method.as_str(), more);
        }
    }
}

/// The probability that a chi-squared variable is below `x`: the integral of the density of its root, by Simpson's rule.
fn chi_squared_below(x: f64, df: f64) -> f64 {
    let density = |s: f64| s.powf(df - 1.0) * (-0.5 * s * s).exp();
    let integral = |to: f64| {
        let steps = 1_000;
        let h = to / f64::from(steps);
        let panel = |i: i32| {
            let s = h * f64::from(i);
            h / 6.0 * (density(s) + 4.0 * density(s + 0.5 * h) + density(s + h))
        };
        (0..steps).map(panel).sum::<f64>()
    };
    let all = df.sqrt() + 12.0;
    integral(x.sqrt().min(all)) / integral(all)
}

#[test]
fn equal_effects_have_no_heterogeneity_and_an_interval_of_tau_at_zero() {
    for method in POINT {
        let more = heterogeneity(&fit(&singles(&[(0.7, 1.0); 10]), method));
        assert!(more.q < 1e-12 && more.q_p == 1.0, "{more:?}");
        assert_eq!((more.tau_ci95, more.i_squared, more.h_squared), ((0.0, 0.0), 0.0, 1.0));
    }
}

#[test]
fn one_effect_has_an_estimate_by_maximum_likelihood_alone() {
    let likelihood = SketchLikelihood::new(&sketch_of(&singles(&[(0.5, 0.25)])));
    for method in [Method::Reml, Method::Dl, Method::Pm] {
        assert_eq!(Fit::new(&likelihood, &Priors::default(), method), Err(PosteriorError::OneEffect));
    }
    let ml = Fit::new(&likelihood, &Priors::default(), Method::Ml).expect("an estimate");
    assert_eq!((ml.posterior.mu.mean, ml.posterior.tau.mean, ml.heterogeneity), (Some(0.5), Some(0.0), None));
    for method in POINT {
        let empty = SketchLikelihood::new(&sketch_of(&[]));
        assert_eq!(Fit::new(&empty, &Priors::default(), method), Err(PosteriorError::Empty));
    }
}
