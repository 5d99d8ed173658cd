//! A pass over all blocks of a population: what its diagnostics need of each of them, added up.

use super::diagnostics::{
    CalibrationCounts, Consequences, Measure, Misfit, Prediction, SelectionCounts, Thresholds, Verdict,
};
use super::fit::{Correlation, Fit};
use super::population::Member;
use super::shrinkage::Estimate;

/// The diagnostics of a population that need its blocks, accumulated block by block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockPass {
    pub consequences: Consequences,
    pub misfit: Misfit,
    pub selection: SelectionCounts,
    /// Of the predictions of one model of correlation.
    pub calibration: CalibrationCounts,
}

impl BlockPass {
    /// Of a population with this exact fit, in which the correlation is modelled; `None` where tau has no median.
    pub fn new(modelled: &Fit) -> Option<BlockPass> {
        Some(BlockPass {
            consequences: Consequences::new(&modelled.nodes, (modelled.posterior.tau.median?, modelled.icc_median())),
            misfit: Misfit::default(),
            selection: SelectionCounts::default(),
            calibration: CalibrationCounts::default(),
        })
    }

    /// Adds a block with its estimates under every model of correlation, in the order of [`Correlation::ALL`](super::Correlation::ALL) (empty where there is no
    /// posterior), their [scores](super::LeaveOneOuts::scores), and the predictions that are calibrated.
    pub fn add(
        &mut self,
        member: &Member,
        estimates: [&[Estimate]; Correlation::COUNT],
        scores: [Option<f64>; Correlation::COUNT],
        predictions: &[Prediction],
    ) {
        let [modelled, _, ignored, _] = estimates;
        self.consequences.add(member.block(), member.direction(), modelled, ignored);
        self.misfit.add(member.block(), member.chosen(), estimates, scores);
        self.selection.add_block(member.block(), member.direction());
        self.calibration.add(predictions);
    }

    /// Adds a pass over other blocks of the same population.
    pub fn merge(&mut self, other: &BlockPass) {
        self.consequences.merge(&other.consequences);
        self.misfit.merge(&other.misfit);
        self.selection.merge(&other.selection);
        self.calibration.merge(&other.calibration);
    }

    /// See [`Thresholds::verdict`].
    pub fn verdict(&self, thresholds: &Thresholds) -> (Verdict, Measure, f64) {
        thresholds.verdict(&self.consequences, &self.misfit)
    }
}
