//! ML and REML against reference values in many digits and against metafor.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;
use shrinkd_model::{Block, Component, DirectLikelihood, Likelihood, PointEstimate, SketchLikelihood, ml, reml};

use crate::reference::{Oracle, sketch_of};

fn estimate(method: &str, likelihood: &impl Likelihood) -> PointEstimate {
    match method {
        "ml" | "ML" => ml(likelihood).expect("an estimate"),
        _ => reml(likelihood).expect("an estimate"),
    }
}

fn likelihood(blocks: &[Block]) -> SketchLikelihood {
    SketchLikelihood::new(&sketch_of(blocks))
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn ml_and_reml_are_the_reference_values() {
    let mut worst: f64 = 0.0;
    for case in Oracle::all() {
        for fit in case.fits.iter().filter(|fit| fit["method"].is_string()) {
            let text = |name: &str| fit[name].as_str().expect("text");
            let got = estimate(text("method"), &likelihood(&case.under(text("correlation"))));
            // On the scale of the posterior's sds, of the first fit that has them.
            let scale = |parameter: &str| {
                let same_model = case.fits.iter().filter(|other| other["correlation"] == fit["correlation"]);
                same_model.filter_map(|other| other[parameter]["sd"].as_f64()).next().expect("an sd")
            };
            for (parameter, value) in [("mu", got.mu), ("tau", got.tau)] {
                let distance = (value - number(&fit[parameter])).abs() / scale(parameter);
                assert!(distance < 1e-6, "{}: {parameter} of {fit} is {value}, {distance:e} sds off", case.name);
                worst = worst.max(distance);
            }
        }
    }
    println!("worst distance from the reference: {worst:e} sds");
}

/// Log risk ratios against each study's first arm, without the studies that have an arm without events.
fn smoking_blocks(table: &str) -> Vec<Block> {
    let mut studies: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [study, .., events, n] = fields.as_slice() else { panic!("a short line: {line}") };
        let parse = |text: &str| text.parse::<f64>().expect("a number");
        studies.entry(study.parse().expect("a study")).or_default().push((parse(events), parse(n)));
    }
    let complete = studies.into_values().filter(|arms| arms.iter().all(|&(events, _)| events > 0.0));
    complete
        .map(|arms| {
            let log_risk = |&(events, n): &(f64, f64)| (events / n).ln();
            let variance = |&(events, n): &(f64, f64)| 1.0 / events - 1.0 / n;
            let (control, treatments) = arms.split_first().expect("arms");
            let effects = treatments.iter().map(|arm| log_risk(arm) - log_risk(control)).collect();
            let own = treatments.iter().map(variance).collect();
            Block::shared_control(effects, own, variance(control)).expect("a block")
        })
        .collect()
}

#[test]
fn ml_and_reml_of_the_smoking_cessation_trials_are_metafors() {
    let blocks = smoking_blocks(include_str!("../../../../tests/data/smoking_cessation.csv"));
    let reference: Value =
        serde_json::from_str(include_str!("../../../../tests/data/smoking_metafor.json")).expect("JSON");
    assert_eq!(blocks.len(), 22);
    let independent: Vec<Block> = blocks.iter().map(Block::independent).collect();
    for method in ["REML", "ML"] {
        for (model, blocks) in [("correlated", &blocks), ("independent", &independent)] {
            let want = &reference["metafor"][method][model];
            let got = estimate(method, &likelihood(blocks));
            for (name, value) in [("mu", got.mu), ("tau", got.tau), ("se_mu", got.mu_variance.sqrt())] {
                assert!((value - number(&want[name])).abs() < 1e-6, "{method} {model} {name}: {value} {want}");
            }
        }
    }
}

/// Independent effects with one variance.
fn effects(values: &[f64], variance: f64) -> DirectLikelihood {
    DirectLikelihood::new(values.iter().map(|&b| Component { lambda: variance, a: 1.0, b }).collect())
}

#[test]
fn effects_of_one_variance_have_the_textbook_estimates() {
    let values = [3.0, -1.0, 4.0, -1.5, 9.0];
    let mean = values.iter().sum::<f64>() / 5.0;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    for (got, n) in [(ml(&effects(&values, 2.0)), 5.0), (reml(&effects(&values, 2.0)), 4.0)] {
        let got = got.expect("an estimate");
        assert!((got.mu - mean).abs() < 1e-14 * mean);
        assert!((got.tau - (squares / n - 2.0).sqrt()).abs() < 1e-13);
        assert!((got.mu_variance - squares / n / 5.0).abs() < 1e-13);
    }
}

#[test]
fn one_effect_has_no_reml_and_no_effects_have_no_ml() {
    assert_eq!(reml(&effects(&[1.0], 1.0)), None);
    assert_eq!(ml(&effects(&[], 1.0)), None);
    let one = ml(&effects(&[1.0], 0.25)).expect("an estimate");
    assert_eq!((one.mu, one.tau, one.mu_variance), (1.0, 0.0, 0.25));
}

#[test]
fn equal_effects_have_tau_of_zero_also_far_from_zero() {
    for value in [0.0, 1.0, 1e4] {
        for got in [ml(&effects(&[value; 30], 1.0)), reml(&effects(&[value; 30], 1.0))] {
            let got = got.expect("an estimate");
            assert_eq!(got.tau, 0.0);
            assert!((got.mu - value).abs() <= 1e-15 * value);
        }
    }
}

/// The criterion by its definition, component by component.
fn criterion(components: &[Component], t: f64, is_restricted: bool) -> f64 {
    let sum = |f: &dyn Fn(&Component) -> f64| components.iter().map(f).sum::<f64>();
    let a = sum(&|c| c.a * c.a / (c.lambda + t));
    let mu = sum(&|c| c.a * c.b / (c.lambda + t)) / a;
    let log_det = sum(&|c| (c.lambda + t).ln());
    let misfit = sum(&|c| (c.b - mu * c.a).powi(2) / (c.lambda + t));
    -0.5 * (log_det + misfit + if is_restricted { a.ln() } else { 0.0 })
}

fn components() -> impl Strategy<Value = Vec<Component>> {
    let component = (-8.0..8.0_f64, 0.2..2.0_f64, -8.0..8.0_f64).prop_map(|(log_lambda, a, b)| {
        let lambda = log_lambda.exp();
        Component { lambda, a, b: b * (1.0 + lambda.sqrt()) }
    });
    prop::collection::vec(component, 2..25)
}

/// Found by the property below: REML has maxima at tau = 11.02 and 17.12, the first of them higher by 0.002.
#[test]
fn the_higher_of_two_near_maxima_is_the_estimate() {
    let rows = [
        (0.027822811710851825, 0.2, -5.933449953517596),
        (0.0007368104949444995, 0.2, 0.0),
        (1.3392022536913462, 0.8690815697414435, 13.449816808547451),
        (2610.1469775161404, 1.6785103906428476, 73.64325091934184),
        (5.371693788825973, 1.5190436817742894, 0.0),
        (1403.035700699848, 0.2, 0.0),
        (0.3024415923803139, 0.2, -1.3486755470826213),
        (6.518639983496484, 1.1156829661067411, -1.092653447446241),
        (0.2589529035028172, 1.7630717055199852, -7.933425037953139),
        (589.5890395549545, 1.4836844065798105, 113.08523448910255),
    ];
    let components = rows.map(|(lambda, a, b)| Component { lambda, a, b });
    let tau = reml(&DirectLikelihood::new(components.to_vec())).expect("an estimate").tau;
    assert!((tau - 11.02).abs() < 0.02, "{tau}");
}

proptest! {
    #[test]
    fn no_tau_is_more_likely_than_the_estimate(components in components()) {
        let likelihood = DirectLikelihood::new(components.clone());
        for (got, is_restricted) in [(ml(&likelihood), false), (reml(&likelihood), true)] {
            let tau = got.expect("an estimate").tau;
            let best = criterion(&components, tau * tau, is_restricted);
            for k in -600..600 {
                let t = (f64::from(k) / 30.0).exp();
                let other = criterion(&components, t, is_restricted);
                prop_assert!(other <= best + 1e-10, "tau {tau} at {best}, but {} at {other}", t.sqrt());
            }
            prop_assert!(criterion(&components, 0.0, is_restricted) <= best + 1e-10);
        }
    }

    #[test]
    fn estimates_move_and_scale_with_the_effects(
        components in components(), log_scale in -100.0..100.0_f64, shift in -10.0..10.0_f64,
    ) {
        let scale = log_scale.exp();
        let moved = components.iter().map(|c| Component {
            lambda: c.lambda * scale * scale, a: c.a, b: (c.b + shift * c.a) * scale,
        }).collect();
        let (likelihood, moved) = (DirectLikelihood::new(components), DirectLikelihood::new(moved));
        for method in ["ml", "reml"] {
            let (from, to) = (estimate(method, &likelihood), estimate(method, &moved));
            let sd = from.mu_variance.sqrt();
            prop_assert!(((from.mu + shift) * scale - to.mu).abs() < 1e-9 * sd * scale, "{from:?} {to:?}");
            // Near 0 it is tau^2 that is smooth in the effects.
            let size = from.tau.powi(2) + likelihood.smallest_lambda();
            prop_assert!((from.tau.powi(2) - (to.tau / scale).powi(2)).abs() < 1e-9 * size, "{from:?} {to:?}");
        }
    }
}
