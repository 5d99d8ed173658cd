//! P(best in experiment): stand-in until the contest is merged.
use super::block::Block;
use super::posterior::Node;
#[derive(Debug, Clone, PartialEq)]
pub struct BestProbabilities {
    pub variants: Vec<f64>,
    pub control: f64,
}
pub fn prob_best(block: &Block, _nodes: &[Node]) -> BestProbabilities {
    BestProbabilities { variants: vec![0.0; block.len()], control: 0.0 }
}
