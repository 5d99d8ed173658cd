//! A prior in another unit than the data is found.

use shrinkd_model::{Block, DataScale, FarPrior, PriorMu, PriorTau, Priors, Sketch};

/// The units of independent effects.
fn population(effects: &[(f64, f64)]) -> Option<DataScale> {
    let mut sketch = Sketch::new();
    for &(effect, variance) in effects {
        let block = Block::shared_control(vec![effect], vec![variance], 0.0).expect("a block");
        sketch.add(&block.components().expect("components")).expect("components that fit");
    }
    DataScale::new(&sketch)
}

fn far(mu: PriorMu, tau: PriorTau, effects: &[(f64, f64)]) -> Vec<(&'static str, f64)> {
    let far: Vec<FarPrior> = population(effects)
        .iter()
        .flat_map(|data| FarPrior::all(&Priors { mu, tau, ..Priors::default() }, data))
        .collect();
    far.iter().map(|far| (far.parameter, far.of_data)).collect()
}

fn tau(scale: f64) -> PriorTau {
    PriorTau::HalfNormal { scale }
}

#[test]
fn a_prior_is_far_beyond_a_thousand_times_the_largest_or_below_a_thousandth_of_the_smallest_scale_of_the_data() {
    // Root mean square 5, typical standard error 0.1.
    let effects = [(3.0, 0.01), (4.0, 0.01), (-5.0, 0.01), (5.0, 0.01), (5.0, 0.01)];
    let root_mean_square = 20.0_f64.sqrt();
    for scale in [1.01e-4, 0.1, 1.0, 999.0 * root_mean_square] {
        assert_eq!(far(PriorMu::Normal { mean: 0.0, sd: scale }, tau(scale), &effects), [], "{scale}");
    }
    for (scale, of_data) in [(0.99e-4, 0.1), (1e-12, 0.1), (1_001.0 * root_mean_square, root_mean_square)] {
        let found = far(PriorMu::Normal { mean: 0.0, sd: scale }, tau(scale), &effects);
        assert_eq!(found.iter().map(|(parameter, _)| *parameter).collect::<Vec<_>>(), ["mu", "tau"], "{scale}");
        assert!(found.iter().all(|(_, data)| (data / of_data - 1.0).abs() < 1e-9), "{scale}: {found:?}");
    }
    for prior in [PriorTau::HalfCauchy { scale: 1e-5 }, PriorTau::HalfT { df: 3.0, scale: 1e-5 }] {
        assert_eq!(far(PriorMu::Flat, prior, &effects).len(), 1, "{prior}");
    }
    assert_eq!(far(PriorMu::Flat, PriorTau::Flat, &effects), []);
}

#[test]
fn effects_far_from_zero_and_in_any_unit_have_the_scale_that_they_have() {
    for unit in [1e-6, 1.0, 1e6] {
        let effects = [(1e5 * unit, unit * unit), (1.0001e5 * unit, unit * unit)];
        assert_eq!(far(PriorMu::Flat, tau(unit), &effects), [], "a tau of the order of the errors, in {unit}");
        let found = far(PriorMu::Flat, tau(1.1e8 * unit), &effects);
        assert!(matches!(found[..], [("tau", data)] if (data / (1.00005e5 * unit) - 1.0).abs() < 1e-6), "{found:?}");
    }
    assert_eq!(far(PriorMu::Flat, tau(1.0), &[(0.0, 1.0)]), [], "an effect of 0 has its standard error");
    assert_eq!(far(PriorMu::Flat, tau(1.0), &[]), [], "no effects have no scale");
}

#[test]
fn the_sentence_names_the_prior_and_both_scales() {
    let priors = Priors { mu: PriorMu::Flat, tau: tau(1.0), ..Priors::default() };
    let far = FarPrior::all(&priors, &population(&[(189_053.0, 3.2e11)]).expect("effects"));
    assert_eq!(
        far.iter().map(FarPrior::to_string).collect::<Vec<_>>(),
        [
            "the prior of tau has scale 1e0, but effects and standard errors are of the order of 2e5: priors are in the unit of \
          the effects"
        ]
    );
}

#[test]
fn a_prior_of_mu_that_is_centred_far_from_the_effects_is_far_however_wide_it_is() {
    let percent_for_fractions = [(0.01, 1e-4), (0.03, 1e-4), (0.02, 1e-4)];
    let far_mu = |mu| {
        far(mu, PriorTau::Flat, &percent_for_fractions).iter().map(|(parameter, _)| *parameter).collect::<Vec<_>>()
    };
    for (mean, sd) in [(2.0, 1e-4), (2.0, 0.1), (-1_000.0, 1.0)] {
        assert_eq!(far_mu(PriorMu::Normal { mean, sd }), ["mu"], "{mean} {sd}");
    }
    assert_eq!(far_mu(PriorMu::Fixed { mu: 2.0 }), ["mu"]);
    for (mean, sd) in [(0.0, 0.01), (0.1, 0.01), (2.0, 1.0)] {
        assert_eq!(far_mu(PriorMu::Normal { mean, sd }), [""; 0], "{mean} {sd}");
    }
    assert_eq!(far_mu(PriorMu::Fixed { mu: 0.0 }), [""; 0]);
}
