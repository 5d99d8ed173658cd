//! Populations to time the model on.

use std::path::PathBuf;

use shrinkd_core::{Message, ReportedResult, decode};
use shrinkd_model::{Block, Component, Sketch};

use shrinkd::simulate::{Draws, Scenario};

/// Octaves of sampling variance in a population with experiments of all sizes.
pub const OCTAVES: f64 = 15.0;

/// A population of single effects, its sampling variances spread evenly over [`OCTAVES`], mu = tau = 1.
pub fn spread(effects: usize) -> Vec<Component> {
    let mut draws = Draws::new(1, 0);
    (0..effects)
        .map(|_| {
            let lambda = draws.between(0.5 - 0.5 * OCTAVES, 0.5 * OCTAVES - 0.5).exp2();
            Component { lambda, a: 1.0, b: draws.normal(1.0, (1.0 + lambda).sqrt()) }
        })
        .collect()
}

/// Blocks of `variants` effects of unequal variance against a shared control, mu = tau = 1.
pub fn blocks(count: usize, variants: usize) -> Vec<Block> {
    let mut draws = Draws::new(2, variants as u64);
    let block = |_| {
        let control_variance = draws.between(0.2, 2.0);
        let control_error = draws.normal(0.0, control_variance.sqrt());
        let variances: Vec<f64> = (0..variants).map(|_| draws.between(0.2, 2.0)).collect();
        let effects = variances.iter().map(|d| draws.normal(1.0, (1.0 + d).sqrt()) - control_error).collect();
        Block::shared_control(effects, variances, control_variance).expect("a block")
    };
    (0..count).map(block).collect()
}

/// The blocks of a scenario at its default size.
pub fn scenario(scenario: Scenario) -> Vec<Block> {
    scenario.population().draw(1, 0).map(|experiment| experiment.block().expect("a block")).collect()
}

pub fn components(blocks: &[Block]) -> Vec<Component> {
    blocks.iter().flat_map(|block| block.components().expect("components")).collect()
}

pub fn sketch(components: &[Component]) -> Sketch {
    let mut sketch = Sketch::new();
    sketch.add(components).expect("in range");
    sketch
}

/// The reference data sets by name; none, with a message, if they are missing.
pub fn references() -> Vec<(String, Vec<Block>)> {
    let root = std::env::var_os("SHRINKD_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = root.join("oracle");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("SKIPPED: {} is not there (set SHRINKD_SHARED to the folder of reference data)", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        (name, read_blocks(&std::fs::read_to_string(path).expect("readable")))
    };
    paths.into_iter().map(read).collect()
}

fn read_blocks(events: &str) -> Vec<Block> {
    let results = events.lines().flat_map(|line| match decode(line.as_bytes()).expect("an event") {
        Message::Event(event) => event.results,
        Message::Tombstone { .. } => Vec::new(),
    });
    results
        .map(|result| match result.expect("a result") {
            ReportedResult::Whole { measured, .. } => measured.block,
            _ => panic!("the reference data have whole results only"),
        })
        .collect()
}
