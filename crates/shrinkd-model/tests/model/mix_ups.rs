//! Likely mix-ups: what is sent in another unit is named, with its likely cause, and nothing else is.

use shrinkd_model::{Analysis, Block, Member, MixUp, Priors, Quantity, Request, Sketches, available_threads};

/// 30 effects in fractions: standard errors of 0.004 to 0.008, true effects of the same order.
fn fractions() -> Vec<(f64, f64)> {
    let effect = |k: u32| (0.01 * (2.3 * f64::from(k)).sin() + 0.002, 0.004 + 0.001 * f64::from(k % 5));
    (0..30).map(effect).collect()
}

fn analysis(effects: &[(f64, f64)]) -> Analysis {
    analysis_under(effects, Priors::default())
}

fn analysis_under(effects: &[(f64, f64)], priors: Priors<Quantity>) -> Analysis {
    let member = |&(effect, se): &(f64, f64)| {
        Member::new(Block::shared_control(vec![effect], vec![se * se], 0.0).expect("a block"), 0).expect("a member")
    };
    let members: Vec<Member> = effects.iter().map(member).collect();
    let sketches = Sketches::of_members(&members, 1).expect("in range");
    let request = Request { priors, threads: available_threads(), ..Request::default() };
    Analysis::new(&members, &sketches, &request).expect("fitted")
}

/// The effects that are flagged, by index.
fn flagged(effects: &[(f64, f64)]) -> Vec<(usize, MixUp)> {
    let blocks = analysis(effects).blocks;
    blocks.iter().enumerate().filter_map(|(i, block)| Some((i, block.effects[0].mix_up?))).collect()
}

/// The population with the effects of some indices changed.
fn with(changed: &[usize], change: impl Fn((f64, f64)) -> (f64, f64)) -> Vec<(f64, f64)> {
    let mut effects = fractions();
    changed.iter().for_each(|&i| effects[i] = change(effects[i]));
    effects
}

#[test]
fn a_population_in_one_unit_has_no_mix_ups() {
    assert_eq!(flagged(&fractions()), []);
    assert_eq!(analysis(&fractions()).mix_up, None);
}

#[test]
fn percent_among_fractions_is_named_however_many_there_are_up_to_a_third() {
    for changed in [vec![7], vec![0, 4, 9], (0..30).step_by(3).collect()] {
        let found = flagged(&with(&changed, |(effect, se)| (100.0 * effect, 100.0 * se)));
        let indices: Vec<usize> = found.iter().map(|(i, _)| *i).collect();
        assert_eq!(indices, changed);
        for (_, mix_up) in found {
            assert!(matches!(mix_up, MixUp::Percent { ratio } if (50.0..200.0).contains(&ratio)), "{mix_up:?}");
            assert!(mix_up.to_string().contains("percent sent for a fraction"), "{mix_up}");
        }
    }
}

#[test]
fn a_fraction_among_percent_is_named() {
    let percent: Vec<(f64, f64)> = with(&[7], |(effect, se)| (effect / 100.0, se / 100.0))
        .into_iter()
        .map(|(effect, se)| (100.0 * effect, 100.0 * se))
        .collect();
    let found = flagged(&percent);
    assert!(matches!(found[..], [(7, MixUp::Percent { .. })]), "{found:?}");
}

#[test]
fn a_standard_error_that_was_divided_by_the_root_of_n_twice_is_named() {
    let found = flagged(&with(&[5], |(effect, se)| (effect, se / 40.0)));
    let [(5, mix_up)] = found[..] else { panic!("{found:?}") };
    assert!(matches!(mix_up, MixUp::StandardError { .. }));
    assert!(mix_up.to_string().contains("the variance of the mean sent as the variance per unit"), "{mix_up}");
}

#[test]
fn an_effect_more_than_six_sds_from_what_the_others_predict_is_named() {
    let found = flagged(&with(&[3], |(_, se)| (0.3, se)));
    assert!(matches!(found[..], [(3, MixUp::FarEffect { z })] if z > 6.0), "{found:?}");
}

#[test]
fn a_population_whose_variances_are_all_divided_by_n_twice_is_named() {
    let effects: Vec<(f64, f64)> = fractions().into_iter().map(|(effect, se)| (effect, se / 100.0)).collect();
    let mix_up = analysis(&effects).mix_up.expect("named");
    assert!(matches!(mix_up, MixUp::NoShrinkage { spread } if spread > 15.0), "{mix_up:?}");
}

#[test]
fn a_prior_that_makes_tau_large_is_no_mix_up_of_the_effects() {
    for (mu, tau) in [("flat", "fixed:1"), ("fixed:2", "flat"), ("normal:2,0.0001", "half-normal:1")] {
        let priors =
            Priors { mu: mu.parse().expect("a prior"), tau: tau.parse().expect("a prior"), ..Priors::default() };
        assert_eq!(analysis_under(&fractions(), priors).mix_up, None, "{mu} {tau}");
    }
    let one = Priors {
        mu: "normal:0,0.05".parse().expect("a prior"),
        tau: "half-normal:0.05".parse().expect("a prior"),
        ..Priors::default()
    };
    assert_eq!(analysis_under(&[(0.00005, 0.0003)], one).mix_up, None);
}
