//! Blocks whose true effects are alike: their components against dense algebra in double-double arithmetic.

use proptest::prelude::*;
use shrinkd_model::{Block, Component, Sketch, Terms};

use crate::double_double::{Cholesky, Double, dot};
use crate::random::Random;

/// Intraclass correlations from the least that is no 0 to the largest node.
const ICCS: [f64; 11] = [0.0, 1e-25, 1e-12, 1e-4, 0.006, 0.1, 0.3, 0.5, 0.8, 0.95, 0.98];

/// `log|R|`.
fn log_det_r(n: usize, icc: f64) -> f64 {
    let others = n as f64 - 1.0;
    others * (-icc).ln_1p() + (others * icc).ln_1p()
}

/// L, A, B and C of a block at t = tau^2, with `log|R|`.
fn sums(components: &[Component], icc: f64, t: f64) -> Terms {
    let start = Terms { log_det: log_det_r(components.len(), icc), ..Terms::default() };
    components.iter().fold(start, |s, x| Terms {
        log_det: s.log_det + (x.lambda + t).ln(),
        a: s.a + x.a * x.a / (x.lambda + t),
        b: s.b + x.a * x.b / (x.lambda + t),
        c: s.c + x.b * x.b / (x.lambda + t),
    })
}

/// The same of the covariance itself, by its Cholesky factor.
pub fn dense_sums(block: &Block, icc: f64, t: f64) -> Terms {
    let n = block.len();
    let factor = Cholesky::new(n, |i, j| total(block, icc, Double::from(t), i, j));
    let ones = factor.whiten(&vec![Double::from(1.0); n]);
    let effects: Vec<Double> = block.effects().iter().map(|x| Double::from(*x)).collect();
    let effects = factor.whiten(&effects);
    Terms { log_det: factor.log_det(), a: dot(&ones, &ones).0, b: dot(&ones, &effects).0, c: dot(&effects, &effects).0 }
}

/// Entry of `V = Sigma + t R`.
pub fn total(block: &Block, icc: f64, t: Double, i: usize, j: usize) -> Double {
    let shared = t * Double::from(icc);
    let sampling = match block.covariance() {
        shrinkd_model::Covariance::SharedControl { treatment_variances, control_variance } => {
            let own = if i == j { treatment_variances[i] } else { 0.0 };
            Double::from(own) + Double::from(*control_variance)
        }
        shrinkd_model::Covariance::Dense { matrix } => Double::from(matrix[i * block.len() + j]),
    };
    if i == j { sampling + t } else { sampling + shared }
}

/// The same by Sherman and Morrison, which takes O(n).
fn shared_control_sums(effects: &[f64], d: &[f64], c: f64, icc: f64, t: f64) -> Terms {
    let zero = Double::from(0.0);
    let own = Double::from(t) * (Double::from(1.0) - Double::from(icc));
    let common = Double::from(c) + Double::from(t) * Double::from(icc);
    let (mut s, mut b, mut square, mut log_det) = (zero, zero, zero, 0.0);
    for (effect, d) in effects.iter().zip(d) {
        let (effect, v) = (Double::from(*effect), Double::from(*d) + own);
        s = s + Double::from(1.0) / v;
        b = b + effect / v;
        square = square + effect * effect / v;
        log_det += v.ln();
    }
    let spread = Double::from(1.0) + common * s;
    Terms {
        log_det: log_det + spread.ln(),
        a: (s / spread).0,
        b: (b / spread).0,
        c: (square - common * b * b / spread).0,
    }
}

/// The largest difference, of L by what is added up in it, of A and C by themselves, of B by the root of their product.
fn distance(got: Terms, want: Terms, components: &[Component], t: f64) -> f64 {
    let logs: f64 = components.iter().map(|x| (x.lambda + t).ln().abs()).sum();
    [
        (got.log_det - want.log_det) / (logs + components.len() as f64),
        (got.a - want.a) / want.a,
        (got.b - want.b) / (want.a * want.c).sqrt(),
        (got.c - want.c) / want.c,
    ]
    .into_iter()
    // What is not a number is not near.
    .fold(0.0, |worst, d| if worst.is_nan() || d.abs() <= worst { worst } else { d.abs() })
}

struct Case {
    name: String,
    effects: Vec<f64>,
    d: Vec<f64>,
    c: f64,
}

impl Case {
    fn block(&self) -> Block {
        Block::shared_control(self.effects.clone(), self.d.clone(), self.c).expect("a block")
    }

    /// Effects a few of their own standard errors apart, and from 0: what lies farther out is known to as many digits less.
    fn new(name: impl Into<String>, d: Vec<f64>, c: f64, random: &mut Random) -> Case {
        let control = c.sqrt().min(1.0) * random.normal();
        let effects = d.iter().map(|d| 0.3 + control + (d.sqrt() + 0.1) * random.normal()).collect();
        Case { name: name.into(), effects, d, c }
    }
}

/// Variances, alike and unlike, beside controls from none to a million times as noisy.
fn cases() -> Vec<Case> {
    let mut random = Random(7);
    let mut cases = Vec::new();
    for n in [2, 3, 7, 40] {
        for c in [0.0, 1e-6, 0.3, 1.0, 1e3, 1e6] {
            let decades = |i: usize| 6.0 * (i as f64 / (n - 1) as f64 - 0.5);
            let variances: [(&str, Vec<f64>); 5] = [
                ("equal", vec![1.0; n]),
                ("over six decades", (0..n).map(|i| 10_f64.powf(decades(i))).collect()),
                ("nearly equal", (0..n).map(|i| 1.0 + i as f64 * f64::EPSILON).collect()),
                ("in pairs", (0..n).map(|i| 1.0 + (i / 2) as f64).collect()),
                ("at random", (0..n).map(|_| (3.0 * random.normal()).exp()).collect()),
            ];
            for (name, d) in variances {
                cases.push(Case::new(format!("{n} {name}, c = {c}"), d, c, &mut random));
            }
        }
    }
    cases
}

/// t of a block: from 0 to far beyond its variances.
const TS: [f64; 6] = [0.0, 1e-7, 1e-2, 1.0, 1e3, 1e9];

#[test]
fn the_sums_of_a_shared_control_are_those_of_the_matrix_at_every_icc() {
    for case in cases() {
        let block = case.block();
        for icc in ICCS {
            let components = block.components_at(icc).expect("components");
            assert_eq!(components.len(), block.len());
            for t in TS {
                let want = shared_control_sums(&case.effects, &case.d, case.c, icc, t);
                let error = distance(sums(&components, icc, t), want, &components, t);
                assert!(error < 1e-13, "{} at icc {icc}, t {t}: {error:e}", case.name);
            }
        }
    }
}

#[test]
fn the_oracle_of_shared_controls_is_that_of_dense_matrices() {
    for case in cases().iter().filter(|case| case.d.len() <= 7) {
        for (icc, t) in [(0.0, 0.0), (0.3, 1.0), (0.98, 1e3), (0.98, 1e-2)] {
            let dense = dense_sums(&case.block(), icc, t);
            let components = case.block().components_at(icc).expect("components");
            let error = distance(shared_control_sums(&case.effects, &case.d, case.c, icc, t), dense, &components, t);
            assert!(error < 1e-15, "{} at icc {icc}, t {t}: {error:e}", case.name);
        }
    }
}

#[test]
fn a_block_of_500_keeps_its_sums() {
    let mut random = Random(11);
    let n = 500;
    for c in [0.0, 1e-3, 1.0, 1e6] {
        let d = (0..n).map(|i| 10_f64.powf(6.0 * (i as f64 / 499.0) - 3.0)).collect();
        let case = Case::new("500", d, c, &mut random);
        for icc in [0.006, 0.3, 0.9, 0.98] {
            let components = case.block().components_at(icc).expect("components");
            for t in TS {
                let want = shared_control_sums(&case.effects, &case.d, c, icc, t);
                let error = distance(sums(&components, icc, t), want, &components, t);
                assert!(error < 1e-13, "c = {c}, icc {icc}, t {t}: {error:e}");
            }
        }
    }
}

/// Where the pole `c (1 - icc) / icc` is at a variance: exactly, and one or a few roundings off.
#[test]
fn a_pole_of_the_equation_at_a_variance_loses_nothing() {
    let mut random = Random(3);
    for (icc, c) in [(0.5, 0.7), (0.25, 1.0), (0.1, 0.3), (0.8, 40.0)] {
        let pole: f64 = c * ((1.0 - icc) / icc);
        for steps in [0, 1, 3, 1 << 20] {
            let near = f64::from_bits(pole.to_bits() + steps);
            for d in [vec![near; 3], vec![near, near, 2.0 * pole, 0.3 * pole], vec![near, 1e-3 * pole], vec![near, 1e6]]
            {
                let case = Case::new("at the pole", d, c, &mut random);
                let components = case.block().components_at(icc).expect("components");
                for t in TS {
                    let want = shared_control_sums(&case.effects, &case.d, c, icc, t);
                    let error = distance(sums(&components, icc, t), want, &components, t);
                    assert!(error < 1e-14, "{steps} from {pole}, icc {icc}, t {t}: {error:e}");
                }
            }
        }
    }
}

/// Random dense covariances: correlations between some effects, standard errors over some decades.
pub fn dense_block(n: usize, decades: f64, common: f64, random: &mut Random) -> Block {
    let se: Vec<f64> = (0..n).map(|_| 10_f64.powf(decades * (random.uniform() - 0.5))).collect();
    let factors: Vec<f64> = (0..n * n).map(|_| random.normal()).collect();
    let row = |i: usize| &factors[i * n..(i + 1) * n];
    let of = |i: usize, j: usize| {
        let product: f64 = row(i).iter().zip(row(j)).map(|(x, y)| x * y).sum();
        se[i] * se[j] * (product / n as f64 + if i == j { 0.2 } else { 0.0 }) + common
    };
    let matrix: Vec<f64> = (0..n * n).map(|at| of((at / n).max(at % n), (at / n).min(at % n))).collect();
    let effects = (0..n).map(|i| 0.3 + matrix[i * n + i].sqrt() * random.normal()).collect();
    Block::dense(effects, matrix).expect("a block")
}

#[test]
fn the_sums_of_a_dense_covariance_are_those_of_the_matrix_at_every_icc() {
    let mut random = Random(5);
    for (n, decades, common) in [
        (2, 0.0, 0.0),
        (2, 3.0, 1.0),
        (3, 1.0, 5.0),
        (7, 0.0, 0.0),
        (7, 3.0, 0.0),
        (7, 0.0, 100.0),
        (20, 2.0, 1.0),
        (40, 3.0, 0.0),
        (100, 3.0, 0.0),
    ] {
        let block = dense_block(n, decades, common, &mut random);
        for icc in ICCS {
            let components = block.components_at(icc).expect("components");
            for t in TS {
                let error = distance(sums(&components, icc, t), dense_sums(&block, icc, t), &components, t);
                assert!(error < 5e-13, "{n} over {decades} decades, icc {icc}, t {t}: {error:e}");
            }
        }
    }
}

#[test]
fn a_dense_covariance_of_alike_effects_keeps_small_variances_beside_large_ones() {
    let mut random = Random(13);
    for icc in [0.006, 0.5, 0.98] {
        let block = dense_block(9, 9.0, 0.0, &mut random);
        let components = block.components_at(icc).expect("components");
        for t in TS {
            let error = distance(sums(&components, icc, t), dense_sums(&block, icc, t), &components, t);
            assert!(error < 5e-14, "icc {icc}, t {t}: {error:e}");
        }
    }
}

#[test]
fn one_effect_has_the_same_component_at_every_icc() {
    for block in [
        Block::shared_control(vec![0.7], vec![0.3], 0.1).expect("a block"),
        Block::dense(vec![0.7], vec![0.4]).expect("a block"),
    ] {
        for icc in ICCS {
            assert_eq!(block.components_at(icc), block.components(), "{icc}");
        }
    }
}

#[test]
fn an_icc_of_0_is_the_model_without_one_to_the_last_bit() {
    let blocks = cases().iter().map(Case::block).chain([dense_block(5, 1.0, 0.1, &mut Random(2))]).collect::<Vec<_>>();
    for block in blocks {
        assert_eq!(block.components_at(0.0), block.components());
    }
}

/// Of effects with variances and a control, about as far out as their standard errors allow.
fn blocks() -> impl Strategy<Value = (Vec<f64>, Vec<f64>, f64)> {
    let row = (-30.0..30.0_f64, -4.0..4.0_f64);
    (prop::collection::vec(row, 2..9), prop::option::of(-30.0..30.0_f64)).prop_map(|(rows, log_c)| {
        let effects = rows.iter().map(|(log_d, z)| z * (0.5 * log_d).exp()).collect();
        (effects, rows.iter().map(|row| row.0.exp()).collect(), log_c.map_or(0.0, f64::exp))
    })
}

proptest! {
    #[test]
    fn the_order_of_effects_does_not_matter_at_any_icc((effects, d, c) in blocks(), icc in 0.0..0.98_f64, by in 1..8_usize) {
        let block = Block::shared_control(effects.clone(), d.clone(), c).expect("a block");
        let rotated = |x: &[f64]| -> Vec<f64> { (0..x.len()).map(|i| x[(i + by) % x.len()]).collect() };
        let moved = Block::shared_control(rotated(&effects), rotated(&d), c).expect("a block");
        let [ours, theirs] = [&block, &moved].map(|block| block.components_at(icc).expect("components"));
        // Effects that their control's error parts from 0 are known to fewer digits.
        let least = d.iter().copied().fold(f64::INFINITY, f64::min);
        let farthest = effects.iter().fold(1.0_f64, |far, x| far.max(x.abs() / least.sqrt()));
        for t in [0.0, 1e-6, 1.0, 1e6] {
            let error = distance(sums(&ours, icc, t), sums(&theirs, icc, t), &ours, t);
            prop_assert!(error < 1e-13 * farthest, "{error:e}");
        }
    }

    #[test]
    fn what_is_added_and_subtracted_leaves_no_trace_at_any_icc((effects, d, c) in blocks(), icc in 0.0..0.98_f64) {
        let n = effects.len();
        let shared = Block::shared_control(effects.clone(), d.clone(), c).expect("a block");
        let own = |i: usize, j: usize| if i == j { d[i] } else { 0.1 * (d[i] * d[j]).sqrt() };
        let dense = Block::dense(effects, (0..n * n).map(|at| own(at / n, at % n)).collect()).expect("a block");
        let kept = Block::shared_control(vec![0.1, 0.2], vec![1.0, 2.0], 0.5).expect("a block");
        for block in [shared, dense] {
            let mut sketch = Sketch::new();
            sketch.add(&kept.components_at(icc).expect("components")).expect("in range");
            let before = sketch.clone();
            sketch.add(&block.components_at(icc).expect("components")).expect("in range");
            prop_assert_ne!(&sketch, &before);
            sketch.subtract(&block.components_at(icc).expect("components")).expect("in range");
            prop_assert_eq!(sketch, before);
        }
    }

    /// Within a factor of 10,000 of the ends of a sketch's range nothing is lost by another icc.
    #[test]
    fn what_fits_a_sketch_fits_it_at_every_icc(
        rows in prop::collection::vec((-96.0..96.0_f64, -1e3..1e3_f64), 2..9),
        log_c in prop::option::of(-96.0..96.0_f64), log_icc in -30.0..-0.01_f64,
    ) {
        let d: Vec<f64> = rows.iter().map(|row| 10_f64.powf(row.0)).collect();
        let c = log_c.map_or(0.0, |log_c| 10_f64.powf(log_c));
        let effects = rows.iter().zip(&d).map(|(row, d)| row.1 * d.sqrt()).collect();
        let block = Block::shared_control(effects, d, c).expect("a block");
        let icc = 10_f64.powf(log_icc).min(0.98);
        let mut sketch = Sketch::new();
        prop_assume!(sketch.add(&block.components().expect("components")).is_ok());
        let components = block.components_at(icc).expect("components");
        prop_assert_eq!(Sketch::new().add(&components), Ok(()));
        let loadings: f64 = components.iter().map(|x| x.a * x.a).sum();
        let known = block.len() as f64 / (1.0 + (block.len() as f64 - 1.0) * icc);
        prop_assert!((loadings / known - 1.0).abs() < 1e-12, "{loadings} {known}");
    }

    #[test]
    fn extreme_numbers_have_as_many_components_as_effects_at_every_icc(
        rows in prop::collection::vec((-300.0..300.0_f64, -1.0..1.0_f64), 1..7),
        log_c in prop::option::of(-320.0..300.0_f64), log_icc in -40.0..-0.01_f64,
    ) {
        let d: Vec<f64> = rows.iter().map(|row| 10_f64.powf(row.0)).collect();
        let c = log_c.map_or(0.0, |log_c| 10_f64.powf(log_c));
        let block = Block::shared_control(rows.iter().map(|row| row.1).collect(), d, c).expect("a block");
        let components = block.components_at(10_f64.powf(log_icc).min(0.98)).expect("components");
        prop_assert_eq!(components.len(), block.len());
    }
}
