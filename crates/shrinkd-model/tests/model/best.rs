//! P(best in experiment): its promises about accuracy, symmetry and extreme numbers.

use proptest::prelude::*;
use shrinkd_model::{BestProbabilities, Block, Direction, Node, prob_best};

fn best(block: &Block, nodes: &[Node]) -> BestProbabilities {
    prob_best(block, nodes, Direction::Increase).expect("positive definite")
}

fn absolute(effects: &[f64], d: &[f64], c: f64) -> Block {
    Block::shared_control(effects.to_vec(), d.to_vec(), c).expect("valid")
}

fn node(tau: f64, mu_mean: f64, mu_variance: f64) -> Node {
    Node { weight: 1.0, tau, icc: 0.0, mu_mean, mu_variance }
}

fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / 2.0_f64.sqrt())
}

fn distance(x: &BestProbabilities, y: &BestProbabilities) -> f64 {
    let pairs = x.variants.iter().zip(&y.variants);
    pairs.fold((x.control - y.control).abs(), |worst, (x, y)| worst.max((x - y).abs()))
}

#[test]
fn where_less_is_better_the_smallest_effect_is_best_as_if_every_sign_were_turned() {
    let (shared, dense) = ([-10.0, -3.0, 8.0], [3.0, 0.5, 0.2, 0.5, 3.0, 0.1, 0.2, 0.1, 2.0]);
    let turned = shared.map(|effect| -effect);
    let (nodes, turned_nodes) = ([node(5.0, -1.5, 0.3)], [node(5.0, 1.5, 0.3)]);
    for (block, mirrored) in [
        (absolute(&shared, &[2.0, 1.0, 3.0], 1.0), absolute(&turned, &[2.0, 1.0, 3.0], 1.0)),
        (
            Block::dense(shared.to_vec(), dense.to_vec()).expect("valid"),
            Block::dense(turned.to_vec(), dense.to_vec()).expect("valid"),
        ),
        (absolute(&[-2.0], &[1.0], 0.0), absolute(&[2.0], &[1.0], 0.0)),
    ] {
        let least = prob_best(&block, &nodes, Direction::Decrease).expect("positive definite");
        assert_eq!(least, best(&mirrored, &turned_nodes));
        assert!(least.variants[0] > 0.9, "{least:?}");
    }
}

/// The reference: 1e8 draws from each posterior (5e6 for the hundred variants), by numpy from the model's definition in
/// plain dense algebra (`V^-1` by inversion, an eigendecomposition of the covariance), so that neither factors nor
/// quadrature are shared with what is tested. Standard errors are at most 5e-5, of the hundred's at most 1.5e-4.
#[test]
fn probabilities_agree_with_brute_force_to_the_promised_accuracy() {
    let reference: serde_json::Value = serde_json::from_str(include_str!("../data/best.json")).expect("json");
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().expect("array").iter().map(|number| number.as_f64().expect("number")).collect()
    };
    for case in reference.as_array().expect("array") {
        let block = &case["block"];
        let (effects, is_dense) = (numbers(&block["effects"]), block["matrix"].is_array());
        let block = if is_dense {
            Block::dense(effects, numbers(&block["matrix"]))
        } else {
            let c = block["control_variance"].as_f64().expect("number");
            Block::shared_control(effects, numbers(&block["treatment_variances"]), c)
        };
        let nodes: Vec<Node> = case["nodes"]
            .as_array()
            .expect("array")
            .iter()
            .map(|node| {
                let [weight, tau, mu_mean, mu_variance] = numbers(node)[..] else { panic!("four numbers") };
                Node { weight, tau, icc: 0.0, mu_mean, mu_variance }
            })
            .collect();
        let mut variants = numbers(&case["best"]);
        let control = variants.pop().expect("the control's");
        let expected = BestProbabilities { variants, control };
        let error = distance(&best(&block.expect("valid"), &nodes), &expected);
        let promised = if is_dense { 1e-3 } else { 5e-4 };
        assert!(error < promised, "{}: off by {error:.1e}", case["name"]);
    }
}

#[test]
fn a_narrow_posterior_of_tau_gives_what_its_nodes_give_one_by_one_at_every_icc() {
    let block = absolute(&[1.4, 1.1, 0.3, 0.9], &[0.5, 0.2, 0.4, 0.3], 0.25);
    for (log_sd, tau) in [(0.01, 0.6), (0.07, 0.6), (0.07, 0.05), (0.07, 5.0)] {
        let z = [-2.85, -1.54, -0.52, 0.52, 1.54, 2.85];
        let weights: Vec<f64> = z.iter().map(|z: &f64| (-0.5 * z * z).exp()).collect();
        let total: f64 = weights.iter().sum();
        let node = |icc: f64, share: f64, z: f64, weight: f64| Node {
            weight: share * weight / total,
            tau: tau * (log_sd * z).exp(),
            icc,
            mu_mean: 0.5 + 0.02 * z,
            mu_variance: 0.01 * (0.1 * z).exp(),
        };
        let at = |(icc, share)| z.iter().zip(&weights).map(move |(&z, &weight)| node(icc, share, z, weight));
        let nodes: Vec<Node> = [(0.8, 0.3), (0.0, 0.7)].into_iter().flat_map(at).collect();
        let together = best(&block, &nodes);
        for (i, together) in together.variants.iter().enumerate() {
            let alone = |node: &Node| best(&block, &[Node { weight: 1.0, ..*node }]).variants[i];
            let one_by_one: f64 = nodes.iter().map(|node| node.weight * alone(node)).sum();
            assert!((together - one_by_one).abs() < 5e-5, "{together}, one by one {one_by_one}");
        }
    }
}

#[test]
fn one_variant_is_best_with_exactly_the_probability_that_it_is_positive() {
    let nodes = [
        Node { weight: 0.3, tau: 0.0, icc: 0.0, mu_mean: 0.1, mu_variance: 0.04 },
        Node { weight: 0.7, tau: 0.8, icc: 0.0, mu_mean: 0.2, mu_variance: 0.05 },
    ];
    let variance: f64 = 0.5 + 0.25;
    let at_zero = normal_cdf(0.1 / 0.2);
    let total = variance + 0.64;
    let (mean, h) = (0.2 + 0.64 / total * (0.9 - 0.2), variance / total);
    let at_spread = normal_cdf(mean / (0.64 * h + 0.05 * h * h).sqrt());
    let found = best(&absolute(&[0.9], &[0.5], 0.25), &nodes);
    assert!((found.variants[0] - (0.3 * at_zero + 0.7 * at_spread)).abs() < 1e-14);
    assert!((found.control - (1.0 - found.variants[0])).abs() < 1e-14);
}

#[test]
fn two_independent_variants_have_closed_forms() {
    for (d, tau) in [([1.0, 1.0], 1.0), ([1.0, 1e-6], 0.5), ([4.0, 0.3], 20.0)] {
        let posterior = |effects: [f64; 2], mu: f64, i: usize| {
            let kept = tau * tau / (d[i] + tau * tau);
            (mu + kept * (effects[i] - mu), kept * d[i])
        };
        let near = [0.3, 0.2];
        let below = |i: usize| normal_cdf(-posterior(near, 0.0, i).0 / posterior(near, 0.0, i).1.sqrt());
        let found = best(&absolute(&near, &d, 0.0), &[node(tau, 0.0, 0.0)]);
        assert!((found.control - below(0) * below(1)).abs() < 2e-4, "{d:?}, {tau}: {found:?}");

        let far = [50.3, 50.2];
        let ((m1, v1), (m2, v2)) = (posterior(far, 50.0, 0), posterior(far, 50.0, 1));
        let found = best(&absolute(&far, &d, 0.0), &[node(tau, 50.0, 0.0)]);
        assert!((found.variants[0] - normal_cdf((m1 - m2) / (v1 + v2).sqrt())).abs() < 2e-4, "{d:?}, {tau}: {found:?}");
        assert!(found.control < 2e-4);
    }
}

#[test]
fn exchangeable_variants_share_what_the_control_leaves() {
    for (n, effect) in [(2, 0.4), (3, -0.5), (30, -2.5), (1000, -5.0)] {
        let found = best(&absolute(&vec![effect; n], &vec![1.0; n], 0.0), &[node(1.0, 0.0, 0.0)]);
        let control = normal_cdf(-0.5 * effect / 0.5_f64.sqrt()).powi(n as i32);
        assert!((found.control - control).abs() < 2e-4, "{n}: {} for {control}", found.control);
        assert!(found.variants.iter().all(|p| (p - (1.0 - control) / n as f64).abs() < 2e-4));
    }
}

#[test]
fn a_common_effect_is_split_evenly() {
    let block = absolute(&[3.0, -1.0, 0.2], &[1.0, 0.1, 7.0], 2.0);
    for (mu_mean, mu_variance, each) in
        [(0.1, 0.0, 1.0 / 3.0), (-0.1, 0.0, 0.0), (0.0, 0.0, 0.25), (0.2, 0.04, normal_cdf(1.0) / 3.0)]
    {
        let found = best(&block, &[node(0.0, mu_mean, mu_variance)]);
        assert!(found.variants.iter().all(|p| (p - each).abs() < 1e-12));
        assert!((found.control - (1.0 - 3.0 * each)).abs() < 1e-12);
        if mu_mean != 0.0 {
            let nearly = best(&block, &[node(1e-9, mu_mean, mu_variance)]);
            assert!(distance(&found, &nearly) < 2e-4, "{found:?} {nearly:?}");
        }
    }
}

#[test]
fn a_shared_control_sent_as_a_dense_matrix_gives_the_same() {
    let (effects, d, c) = ([0.9, 0.4, 1.1, 0.2], [1.0, 0.5, 2.0, 0.3], 0.8);
    let matrix = (0..16).map(|k| if k / 4 == k % 4 { d[k / 4] + c } else { c }).collect();
    let dense = Block::dense(effects.to_vec(), matrix).expect("valid");
    for nodes in [[node(0.7, 0.1, 0.05)], [node(4.0, 0.1, 0.0)]] {
        let error = distance(&best(&dense, &nodes), &best(&absolute(&effects, &d, c), &nodes));
        assert!(error < 1e-3, "{error:.1e}");
    }
}

#[derive(Debug, Clone)]
struct Case {
    effects: Vec<f64>,
    d: Vec<f64>,
    c: f64,
    nodes: Vec<Node>,
}

impl Case {
    fn best(&self) -> BestProbabilities {
        best(&absolute(&self.effects, &self.d, self.c), &self.nodes)
    }
}

fn case() -> impl Strategy<Value = Case> {
    let variants = prop::collection::vec((-3.0..3.0_f64, -4.0..4.0_f64), 2..6);
    let nodes = prop::collection::vec((0.01..1.0_f64, -3.0..1.5_f64, -0.5..0.5_f64, 0.0..0.3_f64), 1..20);
    (variants, -4.0..4.0_f64, nodes).prop_map(|(variants, log_c, nodes)| {
        let total: f64 = nodes.iter().map(|node| node.0).sum();
        let (effects, log_d): (Vec<f64>, Vec<f64>) = variants.into_iter().unzip();
        let nodes = nodes.into_iter().map(|(weight, log_tau, mu_mean, mu_sd)| Node {
            weight: weight / total,
            tau: log_tau.exp(),
            icc: 0.0,
            mu_mean,
            mu_variance: (mu_sd * log_tau.exp()).powi(2),
        });
        Case { effects, d: log_d.into_iter().map(f64::exp).collect(), c: log_c.exp(), nodes: nodes.collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn probabilities_add_up_to_one(case in case()) {
        let found = case.best();
        prop_assert!((found.control + found.variants.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(found.variants.iter().chain([&found.control]).all(|p| (0.0..=1.0).contains(p)));
    }

    #[test]
    fn a_larger_effect_is_more_probably_the_best(case in case(), which in 0..6_usize, by in 0.0..2.0_f64) {
        let which = which % case.effects.len();
        let mut raised = case.clone();
        raised.effects[which] += by;
        prop_assert!(raised.best().variants[which] >= case.best().variants[which] - 3e-4);
    }

    #[test]
    fn the_order_of_the_variants_does_not_matter(case in case()) {
        let mut reversed = case.clone();
        reversed.effects.reverse();
        reversed.d.reverse();
        let mut found = reversed.best();
        found.variants.reverse();
        prop_assert!(distance(&found, &case.best()) < 1e-9);
    }

    #[test]
    fn the_unit_does_not_matter(case in case(), log_unit in -20.0..20.0_f64) {
        let unit = log_unit.exp();
        let square = unit * unit;
        let scaled = Case {
            effects: case.effects.iter().map(|x| x * unit).collect(),
            d: case.d.iter().map(|x| x * square).collect(),
            c: case.c * square,
            nodes: case.nodes.iter().map(|node| Node {
                weight: node.weight,
                tau: node.tau * unit,
                icc: 0.0,
                mu_mean: node.mu_mean * unit,
                mu_variance: node.mu_variance * square,
            }).collect(),
        };
        prop_assert!(distance(&scaled.best(), &case.best()) < 1e-9);
    }

    #[test]
    fn identical_twins_are_equally_probable(case in case()) {
        let mut twins = case;
        twins.effects[1] = twins.effects[0];
        twins.d[1] = twins.d[0];
        let found = twins.best();
        prop_assert!((found.variants[0] - found.variants[1]).abs() < 1e-9);
    }

    #[test]
    fn extreme_numbers_never_give_nan(
        variants in prop::collection::vec((-1.0..1.0_f64, -50.0..50.0_f64, -50.0..50.0_f64), 1..5),
        log_c in prop::option::of(-50.0..50.0_f64),
        nodes in prop::collection::vec((prop::option::of(-50.0..50.0_f64), -1.0..1.0_f64, prop::option::of(-50.0..50.0_f64)), 1..3),
        icc in prop::option::of(0.0..0.98_f64),
    ) {
        let exponential = |log: Option<f64>| log.map_or(0.0, |log| 10.0_f64.powf(log));
        let block = Block::shared_control(
            variants.iter().map(|v| v.0 * 10.0_f64.powf(v.1)).collect(),
            variants.iter().map(|v| 10.0_f64.powf(v.2)).collect(),
            exponential(log_c),
        ).expect("valid");
        let weight = 1.0 / nodes.len() as f64;
        let nodes: Vec<Node> = nodes.into_iter().map(|(log_tau, mu_mean, log_variance)| {
            Node { weight, tau: exponential(log_tau), icc: icc.unwrap_or(0.0), mu_mean, mu_variance: exponential(log_variance) }
        }).collect();
        let found = best(&block, &nodes);
        prop_assert!(found.variants.iter().chain([&found.control]).all(|p| (0.0..=1.0).contains(p)), "{:?}", found);
    }
}
