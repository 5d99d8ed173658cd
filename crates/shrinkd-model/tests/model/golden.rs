//! What is stored of fixed inputs, byte for byte: databases hold such sums, and a build with another arithmetic would add to
//! them what does not belong there. Another arithmetic is another version, with a file of its own in `tests/data/golden`.

use std::fmt::Write;
use std::path::Path;

use shrinkd_model::{ARITHMETIC_VERSION, Block, Component, Member, Sketch, Sketches};

/// What is read beside the cells themselves: the bits of components.
fn component_lines(name: &str, components: &[Component], lines: &mut String) {
    for Component { lambda, a, b } in components {
        let [lambda, a, b] = [lambda, a, b].map(|x| x.to_bits());
        writeln!(lines, "component {name} {lambda:016x} {a:016x} {b:016x}").expect("a string");
    }
}

/// One line for each cell: its octave, then the bytes of its integers, with runs of one byte as `(count byte)`.
fn cell_lines(name: &str, sketch: &Sketch, lines: &mut String) {
    for (octave, cell) in sketch.cells() {
        write!(lines, "cell {name} {octave} ").expect("a string");
        let bytes: Vec<u8> = cell.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
        for run in bytes.chunk_by(|x, y| x == y) {
            match run.len() {
                1..4 => run.iter().for_each(|byte| write!(lines, "{byte:02x}").expect("a string")),
                count => write!(lines, "({count} {:02x})", run[0]).expect("a string"),
            }
        }
        lines.push('\n');
    }
}

fn sketch_of(components: &[Component]) -> Sketch {
    let mut sketch = Sketch::new();
    sketch.add(components).expect("in range");
    sketch
}

/// Everything whose bytes are promised, as text.
fn golden() -> String {
    let component = |lambda, a, b| Component { lambda, a, b };
    let power = |exponent: i32| 2_f64.powi(exponent);
    let third = 1.0 / 3.0;
    let cases: [(&str, &[Component]); 11] = [
        ("unit", &[component(1.0, 1.0, 0.0)]),
        // Every product has bits below the unit of its sum, in which truncation and rounding differ.
        ("rounded", &[component(1.37, 0.1, third), component(1.9, -1.0 / 7.0, 0.7)]),
        // a and b half-way between two units of their own; a b of either sign and b^2 between two of the sums'.
        ("halves", &[component(1.5, power(-7) + power(-59), power(21)), component(1.5, 16.0, power(11) + power(-41))]),
        ("half products", &[component(1.0, power(-40), power(-23)), component(1.5, -power(-40), power(-23))]),
        ("half squares", &[component(1.0, 0.0, power(-21))]),
        // Octaves -1 and -3: half of them is -1 and -2.
        ("negative odd octaves", &[component(0.6, 0.3, -1.7), component(0.2, 0.9, third)]),
        ("negative even octaves", &[component(0.3, 0.3, -1.7), component(0.07, 0.9, third)]),
        ("negative", &[component(2.7, -2.9, 1e3 * third), component(2.1, 0.3, -1e3 / 7.0), component(2.3, -0.7, -0.1)]),
        ("ends of octaves", &[component(2.0, 1.0, 1.0), component(4.0 - power(-51), 1.0, 1.0)]),
        // The largest loading and distance that fit.
        ("limits", &[component(1.25, -31.999, 4_194_303.9), component(1.75, 31.999, 4_194_303.9)]),
        ("smallest and largest", &[component(1e-100, 0.7, 1e-50), component(1e100, 0.7, -1e50)]),
    ];
    let mut lines = String::new();
    for (name, components) in cases {
        cell_lines(name, &sketch_of(components), &mut lines);
    }
    // 2^39 effects: sums that fill their integers.
    let mut many = sketch_of(&[component(1.9, 1.7, -3e5 * third), component(0.7, 0.1, 1e5 * third)]);
    for _ in 0..38 {
        many.merge(&many.clone());
    }
    cell_lines("2^39 effects", &many, &mut lines);
    let blocks = [
        ("one effect", vec![0.1], vec![0.3], 0.7),
        ("no control", vec![0.1, -0.2], vec![0.3, 0.4], 0.0),
        ("equal variances", vec![0.1, -0.2, 1.3, 0.4], vec![0.3; 4], 0.7),
        ("unequal variances", vec![0.1, -0.2, 1.3, 0.4, -2.6], vec![0.3, 0.01, 7.0, 0.3, 0.11], 0.07),
        ("a noisy control", vec![0.1, -0.2, 1.3], vec![1e-6, 2e-6, 1e-6], 1e6),
    ];
    for (name, effects, d, c) in blocks {
        let components = Block::shared_control(effects, d, c).expect("a block").components().expect("components");
        component_lines(name, &components, &mut lines);
        cell_lines(name, &sketch_of(&components), &mut lines);
    }
    // Correlations like those of arms that share users.
    let dense = |n: usize| {
        let of = |i: usize, j: usize| 0.6_f64.powi(i.abs_diff(j) as i32) * ((i + 1) * (j + 1)) as f64 / 7.0;
        let effects = (0..n).map(|i| (i as f64 - 1.3) / 3.0).collect();
        Block::dense(effects, (0..n * n).map(|at| of(at / n, at % n)).collect()).expect("a block")
    };
    for (name, n) in [("dense, one effect", 1), ("dense, two effects", 2), ("dense, eleven effects", 11)] {
        let components = dense(n).components().expect("components");
        component_lines(name, &components, &mut lines);
        cell_lines(name, &sketch_of(&components), &mut lines);
    }
    lines
}

/// The bits of components where true effects have an intraclass correlation.
fn golden_of_alike_effects() -> String {
    let effects = [0.1, -0.2, 1.3, 0.4, -2.6];
    let shared =
        |d: &[f64], c: f64| Block::shared_control(effects[..d.len()].to_vec(), d.to_vec(), c).expect("a block");
    let of = |i: usize, j: usize| 0.6_f64.powi(i.abs_diff(j) as i32) * ((i + 1) * (j + 1)) as f64 / 7.0;
    let dense = (0..25).map(|at| of(at / 5, at % 5)).collect();
    let blocks = [
        ("no control", shared(&[0.3, 0.4], 0.0)),
        ("two effects", shared(&[0.3, 0.4], 0.7)),
        ("equal variances", shared(&[0.3; 4], 0.7)),
        ("unequal variances", shared(&[0.3, 0.01, 7.0, 0.3, 0.11], 0.07)),
        ("a noisy control", shared(&[1e-6, 2e-6, 1e-6], 1e6)),
        ("a pole at a variance", shared(&[0.75, 0.75, 0.01], 0.75)),
        ("dense", Block::dense(effects.to_vec(), dense).expect("a block")),
    ];
    let mut lines = String::new();
    for icc in [0.01, 0.5, 0.98] {
        for (name, block) in &blocks {
            component_lines(&format!("{icc} {name}"), &block.components_at(icc).expect("components"), &mut lines);
        }
    }
    lines
}

/// The cells of blocks of one and of several variants, as they are stored.
fn golden_of_stored_cells() -> String {
    let effects = [0.1, -0.2, 1.3];
    let blocks = [
        Block::shared_control(effects.to_vec(), vec![0.3, 0.01, 0.3], 0.07).expect("a block"),
        Block::dense(effects[..2].to_vec(), vec![0.3, 0.1, 0.1, 0.2]).expect("a block"),
        Block::shared_control(vec![2e-15], vec![1e-30], 0.0).expect("a block"),
    ];
    let members: Vec<Member> = blocks.into_iter().map(|block| Member::new(block, 1).expect("a member")).collect();
    let sketches = Sketches::of_members(&members, 1).expect("in range");
    let mut lines = String::new();
    for part in sketches.parts() {
        write!(lines, "{} ", part.as_str()).expect("a string");
        let bytes = sketches.cells_to_bytes(part);
        bytes.iter().for_each(|byte| write!(lines, "{byte:02x}").expect("a string"));
        lines.push('\n');
    }
    lines
}

fn assert_golden(file: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(file);
    let want = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        std::fs::write(&new, got).expect("a file");
        panic!("{}: {error}. A new version's bytes are now in {}", path.display(), new.display());
    });
    for (got, want) in got.lines().zip(want.lines()) {
        assert_eq!(got, want, "other bytes need another ARITHMETIC_VERSION, and operators to rebuild");
    }
    assert_eq!(got.lines().count(), want.lines().count());
}

#[test]
fn the_bytes_of_cells_and_components_are_those_of_their_arithmetic_version() {
    assert_golden(&format!("v{ARITHMETIC_VERSION}.txt"), &golden());
}

#[test]
fn the_bits_of_components_of_alike_effects_are_those_of_their_arithmetic_version() {
    assert_golden(&format!("v{ARITHMETIC_VERSION}_alike.txt"), &golden_of_alike_effects());
}

#[test]
fn the_bytes_of_stored_cells_are_those_of_their_arithmetic_version() {
    assert_golden(&format!("v{ARITHMETIC_VERSION}_stored.txt"), &golden_of_stored_cells());
}
