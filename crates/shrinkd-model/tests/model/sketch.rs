//! The sketch's promises: it equals the sum over components, and no order can change a bit of it.

use proptest::prelude::*;
use shrinkd_model::{
    Block, Cell, Component, Correlation, DirectLikelihood, IccNodes, Likelihood, Member, Part, PriorIcc, Sketch,
    SketchLikelihood, Sketches, Terms, cell_from_bytes, cell_to_bytes,
};

fn component() -> impl Strategy<Value = Component> {
    (-30.0..30.0_f64, -3.0..3.0_f64, -20.0..20.0_f64).prop_map(|(log_lambda, a, z)| {
        let lambda = log_lambda.exp();
        Component { lambda, a, b: z * lambda.sqrt() }
    })
}

fn blocks() -> impl Strategy<Value = Vec<Vec<Component>>> {
    prop::collection::vec(prop::collection::vec(component(), 1..6), 1..20)
}

fn sketch_of<'a>(blocks: impl IntoIterator<Item = &'a Vec<Component>>) -> Sketch {
    let mut sketch = Sketch::new();
    for block in blocks {
        sketch.add(block).expect("in range");
    }
    sketch
}

/// Largest difference of two sets of sums, each against the size of what was summed.
fn distance(x: Terms, y: Terms, size: Terms) -> f64 {
    [(x.log_det - y.log_det) / size.log_det, (x.a - y.a) / size.a, (x.b - y.b) / size.b, (x.c - y.c) / size.c]
        .into_iter()
        .fold(0.0, |worst, d| worst.max(d.abs()))
}

proptest! {
    #[test]
    fn any_permutation_gives_the_same_bits(blocks in blocks(), seed in any::<u64>()) {
        let mut shuffled: Vec<_> = blocks.iter().collect();
        let mut state = seed | 1;
        for i in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            shuffled.swap(i, (state >> 33) as usize % (i + 1));
        }
        prop_assert_eq!(sketch_of(&blocks), sketch_of(shuffled));
    }

    #[test]
    fn any_split_into_merged_sketches_gives_the_same_bits(blocks in blocks(), parts in 1..5_usize) {
        let mut merged = Sketch::new();
        for part in 0..parts {
            merged.merge(&sketch_of(blocks.iter().skip(part).step_by(parts)));
        }
        prop_assert_eq!(sketch_of(&blocks), merged);
    }

    #[test]
    fn what_is_added_and_subtracted_leaves_no_trace(kept in blocks(), passing in blocks()) {
        let mut sketch = sketch_of(&passing);
        for block in &kept {
            sketch.add(block).expect("in range");
        }
        for block in &passing {
            sketch.subtract(block).expect("in range");
        }
        prop_assert_eq!(sketch_of(&kept), sketch);
    }

    #[test]
    fn the_bytes_of_a_cell_read_back_to_the_same_cell(blocks in blocks()) {
        for (_, cell) in sketch_of(&blocks).cells() {
            let mut bytes = Vec::new();
            cell_to_bytes(cell, &mut bytes);
            let mut rest = &[&bytes[..], &[7]].concat()[..];
            prop_assert_eq!((cell_from_bytes(&mut rest), rest), (Some(*cell), &[7][..]));
            prop_assert_eq!(cell_from_bytes(&mut &bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn integers_of_every_length_come_back(bits in prop::collection::vec((any::<i128>(), 0..128_u32), 80)) {
        let mut cell = Cell::default();
        cell.as_flattened_mut().iter_mut().zip(bits).for_each(|(x, (value, shift))| *x = value >> shift);
        let mut bytes = Vec::new();
        cell_to_bytes(&cell, &mut bytes);
        prop_assert_eq!(cell_from_bytes(&mut &bytes[..]), Some(cell));
    }

    #[test]
    fn no_cell_is_written_in_two_ways(bytes in prop::collection::vec(0..=255_u8, 0..300), moments in 0..22_u8) {
        let bytes = [&[moments][..], &bytes].concat();
        let mut rest = &bytes[..];
        if let Some(cell) = cell_from_bytes(&mut rest) {
            let mut again = Vec::new();
            cell_to_bytes(&cell, &mut again);
            prop_assert_eq!(again, &bytes[..bytes.len() - rest.len()]);
        }
    }

    #[test]
    fn the_sketch_evaluates_to_the_sum_over_components(blocks in blocks(), log_t in -40.0..60.0_f64) {
        let sketch = SketchLikelihood::new(&sketch_of(&blocks));
        let components: Vec<Component> = blocks.concat();
        let centred: Vec<Component> =
            components.iter().map(|c| Component { b: c.b - sketch.centre() * c.a, ..*c }).collect();
        for t in [0.0, log_t.exp()] {
            let size = centred.iter().fold(Terms::default(), |s, c| Terms {
                log_det: s.log_det + 1.0 + (c.lambda + t).ln().abs(),
                a: s.a + c.a * c.a / (c.lambda + t),
                // b is rounded to 2^-40 of its standard error.
                b: s.b + c.a.abs() * (c.b.abs() + c.lambda.sqrt()) / (c.lambda + t),
                c: s.c + (c.b * c.b + c.lambda) / (c.lambda + t),
            });
            let direct = centred.iter().fold(Terms::default(), |s, c| Terms {
                log_det: s.log_det + (c.lambda + t).ln(),
                a: s.a + c.a * c.a / (c.lambda + t),
                b: s.b + c.a * c.b / (c.lambda + t),
                c: s.c + c.b * c.b / (c.lambda + t),
            });
            let d = distance(sketch.at(t), direct, size);
            prop_assert!(d < 1e-11, "distance {d:e} at t = {t:e}");
        }
    }

    #[test]
    fn derivatives_are_those_of_the_direct_sums(blocks in blocks(), log_t in -40.0..40.0_f64) {
        let sketch = SketchLikelihood::new(&sketch_of(&blocks));
        let centred: Vec<Component> =
            blocks.concat().iter().map(|c| Component { b: c.b - sketch.centre() * c.a, ..*c }).collect();
        let t = log_t.exp();
        let direct = DirectLikelihood::new(centred);
        // About a centre of its own: only L and A do not depend on it.
        let (x, y) = (sketch.derivatives(t), direct.derivatives(t));
        for (x, y) in [
            (x.first.log_det, y.first.log_det), (x.second.log_det, y.second.log_det),
            (x.first.a, y.first.a), (x.second.a, y.second.a),
        ] {
            prop_assert!((x - y).abs() <= 1e-10 * y.abs(), "{x:e} {y:e}");
        }
    }
}

#[test]
fn the_sketches_of_a_population_are_the_sum_of_their_cells() {
    let member = |k: i32| {
        let effects = (0..3).map(|i| f64::from(k + i).sin()).collect();
        let block = Block::shared_control(effects, vec![2.0_f64.powi(k), 0.3, 0.7], 0.4).expect("a block");
        Member::new(block, k.unsigned_abs() as usize % 3).expect("a member")
    };
    let members: Vec<Member> = (-5..5).map(member).collect();
    let population = Sketches::of_members(&members, 1).expect("in range");
    let mut restored = Sketches::default();
    for part in Part::ALL {
        let bytes = population.cells_to_bytes(part);
        assert_eq!(bytes.is_empty(), !population.parts().any(|with_cells| with_cells == part));
        for damaged in [&bytes[1.min(bytes.len())..], &bytes[..bytes.len().saturating_sub(1)], &bytes.repeat(2)] {
            assert!(damaged.is_empty() || restored.add_cells(part, damaged).is_none(), "damaged");
        }
        restored.add_cells(part, &bytes).expect("cells");
    }
    population.sizes().iter().for_each(|(&variants, &blocks)| restored.count(variants, blocks));
    assert_eq!(restored, population);
}

/// As many powers of the series are kept as can be seen, wherever in its octave a component lies.
#[test]
fn a_component_is_evaluated_to_1e_14_at_every_t() {
    for lambda in [1.0, 1.3, 1.5, 2.0 - f64::EPSILON] {
        let sketch = SketchLikelihood::new(&sketch_of(&[vec![Component { lambda, a: 1.0, b: 0.0 }]]));
        for k in 0..2_000 {
            let t = (0.02 * f64::from(k) - 10.0).exp();
            let Terms { a, log_det, .. } = sketch.at(t);
            assert!((a * (lambda + t) - 1.0).abs() < 1e-14, "{lambda} {t}: A is {a:e}");
            assert!((log_det - (lambda + t).ln()).abs() < 1e-14 * log_det.abs().max(1.0), "{lambda} {t}: {log_det}");
        }
    }
}

#[test]
fn a_t_whose_square_is_beyond_f64_is_that_of_every_component() {
    let blocks = vec![vec![Component { lambda: 0.3, a: 1.0, b: 0.0 }, Component { lambda: 2e10, a: -2.0, b: 0.0 }]];
    let sketch = SketchLikelihood::new(&sketch_of(&blocks));
    for t in [1e140, 1e170, 1e250] {
        let (at, slopes) = (sketch.at(t), sketch.derivatives(t));
        assert!((at.a * t - 5.0).abs() < 1e-13 && (at.log_det - 2.0 * t.ln()).abs() < 1e-12, "{at:?}");
        assert!((slopes.first.log_det * t - 2.0).abs() < 1e-13, "{slopes:?}");
    }
}

#[test]
fn derivatives_agree_with_finite_differences() {
    let blocks: Vec<Vec<Component>> = (0..50)
        .map(|i| {
            let x = f64::from(i);
            vec![Component { lambda: (0.3 * x - 6.0).exp(), a: 1.0 + (x * 0.7).sin(), b: (x * 1.3).cos() * 3.0 }]
        })
        .collect();
    let likelihood = SketchLikelihood::new(&sketch_of(&blocks));
    for t in [1e-3, 0.1, 1.0, 30.0] {
        let h = 1e-4 * t;
        let (low, mid, high) = (likelihood.at(t - h), likelihood.derivatives(t), likelihood.at(t + h));
        for (f0, f1, f2, d1, d2) in [
            (low.log_det, mid.value.log_det, high.log_det, mid.first.log_det, mid.second.log_det),
            (low.a, mid.value.a, high.a, mid.first.a, mid.second.a),
            (low.b, mid.value.b, high.b, mid.first.b, mid.second.b),
            (low.c, mid.value.c, high.c, mid.first.c, mid.second.c),
        ] {
            assert!(((f2 - f0) / (2.0 * h) - d1).abs() < 1e-6 * (d1.abs() + 1e-6 * f1.abs() / t), "{d1}");
            assert!(((f2 - 2.0 * f1 + f0) / (h * h) - d2).abs() < 1e-4 * (d2.abs() + f1.abs() / (t * t)), "{d2}");
        }
    }
}

/// Sherman-Morrison: what the components must add up to.
fn sherman_morrison(effects: &[f64], d: &[f64], c: f64, t: f64) -> Terms {
    let (mut s, mut sd, mut sdd, mut log_det) = (0.0, 0.0, 0.0, 0.0);
    for (&effect, &d) in effects.iter().zip(d) {
        let weight = 1.0 / (d + t);
        s += weight;
        sd += weight * effect;
        log_det += (d + t).ln();
    }
    let mean = sd / s;
    for (&effect, &d) in effects.iter().zip(d) {
        sdd += (effect - mean).powi(2) / (d + t);
    }
    let shrink = 1.0 / (1.0 + c * s);
    Terms { log_det: log_det + (c * s).ln_1p(), a: s * shrink, b: sd * shrink, c: sdd + mean * mean * s * shrink }
}

proptest! {
    #[test]
    fn components_keep_small_eigenvalues_however_large_the_control(
        rows in prop::collection::vec((-3.0..3.0_f64, -10.0..10.0_f64), 1..40),
        log_c in -10.0..46.0_f64, equal in any::<bool>(), near in any::<bool>(),
    ) {
        let c = log_c.exp();
        let effects: Vec<f64> = rows.iter().map(|r| r.1).collect();
        let d: Vec<f64> = rows.iter().enumerate().map(|(i, r)| match (equal, near) {
            (true, true) => 1.0 + i as f64 * f64::EPSILON,
            (true, false) => 1.0,
            (false, true) => 1.0 + (i % 3) as f64 * 1e-9 + r.0.abs() * 1e-5,
            (false, false) => (8.0 * r.0).exp(),
        }).collect();
        let block = Block::shared_control(effects.clone(), d.clone(), c).expect("a block");
        let components = block.components().expect("components");
        prop_assert_eq!(components.len(), d.len());
        let norm: f64 = components.iter().map(|x| x.a * x.a).sum();
        prop_assert!((norm - d.len() as f64).abs() < 1e-10 * d.len() as f64, "sum a^2 = {norm}");
        for t in [0.0, 0.01, 1.0, 100.0] {
            let want = sherman_morrison(&effects, &d, c, t);
            let got = components.iter().fold(Terms::default(), |s, x| Terms {
                log_det: s.log_det + (x.lambda + t).ln(),
                a: s.a + x.a * x.a / (x.lambda + t),
                b: s.b + x.a * x.b / (x.lambda + t),
                c: s.c + x.b * x.b / (x.lambda + t),
            });
            // b^2 of the small components is a difference of large numbers where the control's error dominates.
            prop_assert!((got.log_det - want.log_det).abs() < 1e-12 * (1.0 + d.len() as f64 * 30.0), "{got:?} {want:?}");
            prop_assert!((got.a - want.a).abs() < 1e-12 * want.a, "{got:?} {want:?}");
            let (mean, want_mean) = (got.b / got.a, want.b / want.a);
            prop_assert!((mean - want_mean).abs() < 1e-10 / want.a.sqrt(), "{mean} {want_mean}, {want:?}");
            prop_assert!((got.c - want.c).abs() < 1e-10 * (1.0 + want.c), "{got:?} {want:?}");
        }
    }
}

#[test]
fn models_of_correlation_with_the_same_sketch_are_computed_once_and_others_for_themselves() {
    use std::cell::RefCell;

    let of_variants = |counts: &[usize]| {
        let members: Vec<Member> = counts
            .iter()
            .zip(0..)
            .map(|(&n, i)| {
                let effects = (0..n).map(|j| f64::from(i) + j as f64).collect();
                Member::new(Block::shared_control(effects, vec![1.0; n], 0.5).expect("a block"), n - 1)
                    .expect("a member")
            })
            .collect();
        Sketches::of_members(&members, 1).expect("a place in the sketch")
    };
    // One variant each; two; and a pair whose chosen effects are not all effects.
    let [none, uniform] = [PriorIcc::None, PriorIcc::Uniform];
    for (counts, icc, expected) in [
        (&[1, 1, 1][..], uniform, 1),
        (&[2, 2][..], none, 3),
        (&[2, 2][..], uniform, 4),
        (&[1, 8][..], none, 3),
        (&[1, 8][..], uniform, 4),
        (&[][..], uniform, 1),
    ] {
        let sketches = of_variants(counts);
        let computed = RefCell::new(Vec::new());
        let found = sketches.map_distinct(&icc, |correlation| {
            computed.borrow_mut().push(correlation);
            sketches.of(correlation).into_owned()
        });
        assert_eq!(computed.borrow().len(), expected, "{counts:?}");
        for (correlation, sketch) in Correlation::ALL.into_iter().zip(&found) {
            assert_eq!(*sketch, *sketches.of(correlation), "{counts:?}");
        }
    }
    // Without a control's error only the chosen variants differ.
    let block = Block::shared_control(vec![1.0, 2.0], vec![1.0, 4.0], 0.0).expect("a block");
    let sketches = Sketches::of_members(&[Member::new(block, 0).expect("a member")], 1).expect("a place");
    let computed = RefCell::new(Vec::new());
    let found = sketches.map_distinct(&PriorIcc::None, |correlation| {
        computed.borrow_mut().push(correlation);
        sketches.of(correlation).effects()
    });
    assert_eq!(
        (found, computed.into_inner()),
        ([2, 2, 2, 1], vec![Correlation::Modelled, Correlation::OnePerExperiment])
    );
}

/// Sixteen moments are kept there.
#[test]
fn the_sketch_of_alike_effects_evaluates_to_the_sum_over_components_to_1e_11() {
    for (n, part) in [(3, Part::SeveralVariants), (7, Part::ManyVariants)] {
        let member = |k: i32| {
            let effects = (0..n).map(|i| f64::from(k + i).sin()).collect();
            let d = (0..n).map(|i| 2.0_f64.powf(0.37 * f64::from(k + 5 * (i % 3)))).collect();
            Member::new(Block::shared_control(effects, d, 0.4).expect("a block"), 0).expect("a member")
        };
        assert_evaluates_to_the_sum(&(-10..10).map(member).collect::<Vec<_>>(), part);
    }
}

fn assert_evaluates_to_the_sum(members: &[Member], part: Part) {
    let sketches = Sketches::of_members(members, 1).expect("in range");
    let nodes = IccNodes::of(members[0].block().len()).iccs();
    assert_eq!(sketches.part(part).len(), nodes.len());
    for (sketch, &icc) in sketches.part(part).iter().zip(nodes) {
        let components = members.iter().flat_map(|member| member.block().components_at(icc).expect("components"));
        let (sketch, direct) = (SketchLikelihood::new(sketch), DirectLikelihood::new(components.collect()));
        for t in [0.0, 1e-3, 0.1, 1.0, 10.0, 1e4] {
            let (got, want) = (sketch.at(t), direct.at(t));
            // A and L do not depend on the centre.
            let apart = (got.a / want.a - 1.0).abs().max((got.log_det - want.log_det).abs() / 60.0);
            assert!(apart < 1e-11, "{apart:e} at icc = {icc}, t = {t}");
            let centre = |likelihood: &dyn Likelihood, terms: Terms| {
                let mu = likelihood.centre() + terms.b / terms.a;
                (mu, terms.c - terms.b * terms.b / terms.a)
            };
            let ((mu, misfit), (mu_direct, misfit_direct)) = (centre(&sketch, got), centre(&direct, want));
            assert!((mu - mu_direct).abs() < 1e-11, "{mu} at icc = {icc}, t = {t}");
            assert!((misfit / misfit_direct - 1.0).abs() < 1e-11, "{misfit} at icc = {icc}, t = {t}");
        }
    }
}
