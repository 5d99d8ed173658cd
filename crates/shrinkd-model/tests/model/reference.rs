//! The reference posteriors of `tests/data/posteriors`, computed apart from this code. The tests of other crates include this file by its path.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use shrinkd_model::{Block, Sketch};

/// One reference file: its blocks and what is true of them.
pub struct Oracle {
    pub name: String,
    pub blocks: Vec<Block>,
    pub fits: Vec<Value>,
    /// The events as they are sent.
    pub events: String,
}

impl Oracle {
    /// Every reference file.
    pub fn all() -> Vec<Oracle> {
        let mut names: Vec<PathBuf> = std::fs::read_dir(folder())
            .expect("the folder is readable")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        names.sort();
        assert_eq!(names.len(), 12, "no reference is missing");
        names.iter().map(|path| Oracle::read(path)).collect()
    }

    fn read(path: &Path) -> Oracle {
        let truth: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
        let events = std::fs::read_to_string(path.with_extension("ndjson")).expect("readable");
        let blocks = events.lines().map(|line| block(&serde_json::from_str(line).expect("JSON"))).collect();
        Oracle {
            name: truth["name"].as_str().expect("a name").to_owned(),
            blocks,
            fits: truth["fits"].as_array().expect("fits").clone(),
            events,
        }
    }

    /// The effects in the order of the events: a label, experiment, variant, and their index.
    pub fn effect_order(&self) -> Vec<(String, String, String, usize)> {
        let mut order = Vec::new();
        for line in self.events.lines() {
            let event: Value = serde_json::from_str(line).expect("JSON");
            let experiment = event["experiment_id"].as_str().expect("text").to_owned();
            for effect in event["results"][0]["effects"].as_array().expect("effects") {
                let variant = effect["variant"].as_str().expect("text").to_owned();
                order.push((format!("{experiment} {variant}"), experiment.clone(), variant, order.len()));
            }
        }
        order
    }

    /// The blocks under a model of correlation.
    pub fn under(&self, correlation: &str) -> Vec<Block> {
        match correlation {
            "modelled" => self.blocks.clone(),
            "ignored" => self.blocks.iter().map(Block::independent).collect(),
            other => panic!("the references have no model {other}"),
        }
    }
}

/// Other crates have another manifest.
fn folder() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = "crates/shrinkd-model/tests/data/posteriors";
    manifest.ancestors().map(|folder| folder.join(data)).find(|path| path.is_dir()).expect("the reference posteriors")
}

/// The sketch of some blocks.
pub fn sketch_of(blocks: &[Block]) -> Sketch {
    let mut sketch = Sketch::new();
    for block in blocks {
        sketch.add(&block.components().expect("components")).expect("in range");
    }
    sketch
}

pub fn block(event: &Value) -> Block {
    let result = &event["results"][0];
    let effects = result["effects"].as_array().expect("effects");
    let number = |value: &Value| value.as_f64().expect("a number");
    let estimates: Vec<f64> = effects.iter().map(|e| number(&e["estimate"])).collect();
    if let Some(rows) = result["covariance"].as_array() {
        let matrix = rows.iter().flat_map(|row| row.as_array().expect("a row")).map(number).collect();
        return Block::dense(estimates, matrix).expect("a block");
    }
    let control = result["control_variance"].as_f64().unwrap_or(0.0);
    let own = effects.iter().map(|e| number(&e["variance"]) - control).collect();
    Block::shared_control(estimates, own, control).expect("a block")
}
