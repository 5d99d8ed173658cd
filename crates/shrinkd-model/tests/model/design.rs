//! The closed forms of a design, held against the blocks of such experiments: their covariances, their spectra, and the
//! estimates that the crate makes of them.

use shrinkd_model::{Block, BlockPosterior, Design, Node, rho_of_control_share};

/// Designs of every kind: one variant, many, mixtures, small and large controls, effects that are alike and effects that
/// differ a lot.
fn designs() -> Vec<Design> {
    let variants: [&[usize]; 6] = [&[1], &[2], &[3], &[10], &[1, 1, 2], &[1, 5, 12]];
    let rhos = [0.0, 0.05, 0.5, 0.97];
    let taus = [1e-3, 0.5, 1.0, 2.0, 30.0];
    let of = |variants: &[usize]| {
        let variants = variants.to_vec();
        rhos.iter().flat_map(move |&rho| taus.map(|tau| Design { variants: variants.clone(), rho, tau }))
    };
    variants.into_iter().flat_map(of).collect()
}

/// An experiment of the design, in units of a raw effect's standard error.
fn block(design: &Design, effects: Vec<f64>) -> Block {
    let own = vec![1.0 - design.rho; effects.len()];
    Block::shared_control(effects, own, design.rho).expect("a block")
}

/// The sum over experiments, one of each kind.
fn sum(design: &Design, of: impl Fn(&Block) -> f64) -> f64 {
    design.variants.iter().map(|&n| of(&block(design, vec![0.0; n]))).sum()
}

fn assert_near(got: f64, want: f64, what: &str, design: &Design) {
    assert!((got / want - 1.0).abs() < 1e-9, "{what} of {design:?}: {got}, not {want}");
}

/// `sum_ij V_ij`, the variance of an experiment's sum.
fn variance_of_sum(block: &Block, t: f64) -> f64 {
    let n = block.len();
    let covariances = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
    covariances.map(|(i, j)| block.sampling_covariance(i, j)).sum::<f64>() + n as f64 * t
}

#[test]
fn the_design_effect_is_the_variance_of_the_mean_over_the_variance_without_covariances() {
    for design in designs() {
        let t = design.tau * design.tau;
        let of = |form: fn(&Block) -> Block| sum(&design, |block| variance_of_sum(&form(block), t));
        assert_near(design.design_effect(), of(Block::clone) / of(Block::independent), "DEFF", &design);
    }
}

#[test]
fn the_naive_interval_covers_as_often_as_a_normal_mean_falls_within_it() {
    // By the trapezoidal rule on the density of the mean, in naive standard errors; the interval's ends are nodes.
    for design in designs() {
        let variance = design.design_effect();
        let steps = 20_000;
        let h = 2.0 * 1.959_963_984_540_054 / f64::from(steps);
        let density = |i: i32| {
            let z = h * f64::from(i - steps / 2);
            (-0.5 * z * z / variance).exp() / (2.0 * std::f64::consts::PI * variance).sqrt()
        };
        let inner: f64 = (1..steps).map(density).sum();
        let covered = h * (inner + 0.5 * (density(0) + density(steps)));
        assert!((design.naive_coverage() - covered).abs() < 1e-8, "{design:?}: {covered}");
    }
}

/// The mean squared errors of an experiment's shrunken effects, added up, where they are estimated as if they had come from
/// one block and truly come from another. Estimates are linear in the effects: each column of the gain is what a change of one
/// effect does to them all.
fn squared_errors(design: &Design, truth: &Block, form: fn(&Block) -> Block) -> f64 {
    let (n, tau) = (truth.len(), design.tau);
    let nodes = [Node { weight: 1.0, tau, icc: 0.0, mu_mean: 0.0, mu_variance: 0.0 }];
    let columns: Vec<Vec<f64>> = (0..n)
        .map(|j| {
            let mut effects = vec![0.0; n];
            effects[j] = 1.0;
            let block = form(&block(design, effects));
            let shrunk = BlockPosterior::new(&block, &nodes);
            (0..n).map(|i| shrunk.estimate(i).mean).collect()
        })
        .collect();
    let mut total = 0.0;
    for (j, column) in columns.iter().enumerate() {
        let own = |i: usize| f64::from(u8::from(i == j));
        total += tau * tau * column.iter().enumerate().map(|(i, gain)| (gain - own(i)).powi(2)).sum::<f64>();
        for (k, other) in columns.iter().enumerate() {
            total += truth.sampling_covariance(j, k) * column.iter().zip(other).map(|(x, y)| x * y).sum::<f64>();
        }
    }
    total
}

#[test]
fn the_excess_of_the_naive_error_is_that_of_the_estimates_themselves() {
    for design in designs() {
        let of = |form: fn(&Block) -> Block| sum(&design, |truth| squared_errors(&design, truth, form));
        let excess = (of(Block::independent) / of(Block::clone)).sqrt() - 1.0;
        let got = design.rmse_excess().expect("an excess");
        assert!((got - excess).abs() < 1e-9, "{design:?}: {got}, not {excess}");
    }
}

#[test]
fn where_true_effects_are_all_the_same_a_shared_error_leaves_no_excess_to_state() {
    for mut design in designs() {
        design.tau = 0.0;
        let is_shared = design.rho > 0.0 && design.variants.iter().any(|&n| n > 1);
        assert_eq!(design.rmse_excess(), (!is_shared).then_some(0.0), "{design:?}");
    }
}

#[test]
fn the_price_of_one_variant_is_the_information_that_the_spectrum_loses() {
    for design in designs() {
        let t = design.tau * design.tau;
        // 1'V^-1 1 and tr V^-2 over the components, of the whole block and of one variant.
        let of = |form: fn(&Block) -> Block, figure: fn(f64, f64) -> f64| {
            sum(&design, |block| {
                let components = form(block).components().expect("components");
                components.iter().map(|component| figure(component.a, component.lambda + t)).sum()
            })
        };
        let lost = |figure| (of(Block::clone, figure) / of(|block| block.single(0), figure)).sqrt();
        assert_near(design.mu_interval_ratio(), lost(|a, variance| a * a / variance), "price for mu", &design);
        assert_near(design.tau_error_ratio(), lost(|_, variance| variance.powi(-2)), "price for tau", &design);
    }
}

#[test]
fn with_single_variants_nothing_is_wrong_and_nothing_is_paid() {
    for tau in [0.0, 0.5, 3.0] {
        let design = Design { variants: vec![1], rho: 0.3, tau };
        assert_eq!(design.design_effect(), 1.0);
        assert!((design.naive_coverage() - 0.95).abs() < 1e-12);
        let excess = design.rmse_excess().expect("an excess");
        for none in [excess, design.mu_interval_ratio() - 1.0, design.tau_error_ratio() - 1.0] {
            assert!(none.abs() < 1e-12, "{design:?}: {none}");
        }
    }
}

#[test]
fn a_share_of_the_traffic_is_the_correlation_that_its_arms_make() {
    for (variants, share) in [(1, 0.5), (3, 0.25), (3, 0.5), (4, 0.9), (10, 0.01)] {
        let control = 1.0 / share;
        let treatment = variants as f64 / (1.0 - share);
        let got = rho_of_control_share(variants, share);
        assert!((got - control / (control + treatment)).abs() < 1e-15);
    }
    assert!((rho_of_control_share(4, 0.2) - 0.5).abs() < 1e-15);
}

#[test]
fn three_variants_with_equal_shares_and_tau_of_one_standard_error_have_the_figures_worked_by_hand() {
    let design = Design { variants: vec![3], rho: 0.5, tau: 1.0 };
    // DEFF = 1 + 2 * 1/4; v = 3/2, v + 3c = 3; errors 1/2 and 1/3 + 1/9.
    assert!((design.design_effect() - 1.5).abs() < 1e-15);
    assert!((design.rmse_excess().expect("an excess") - (1.125_f64.sqrt() - 1.0)).abs() < 1e-12);
    assert!((design.mu_interval_ratio() - 2.0_f64.sqrt()).abs() < 1e-12);
    assert!((design.tau_error_ratio() - 2.0).abs() < 1e-12);
    // v = 1/2, v + 3c = 2: 2 / (1/4) + 1/4 times the information about tau^2, and the root of that ratio of errors for tau.
    let design = Design { tau: 0.0, ..design };
    assert!((design.tau_error_ratio() - 8.25_f64.sqrt().sqrt()).abs() < 1e-12);
}
