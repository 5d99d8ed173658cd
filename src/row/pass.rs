//! Passes through the blocks of populations.

use shrinkd_core::PopulationName;

use super::{BlockToEstimate, CellDiagnostics, PassDiagnostics, PublishedFit};

/// A population that waits for a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePass {
    pub population: PopulationName,
    /// As its latest refit has seen them.
    pub experiments: u64,
    /// Whether its blocks are to be diagnosed too.
    pub is_diagnosis_due: bool,
}

/// A pass through all blocks of a population. One that nobody has touched for 30 seconds has lost its worker, and another
/// may take it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    pub population: PopulationName,
    pub owner: String,
    /// The published fit.
    pub fit: PublishedFit,
    /// Whether rows are to be written; otherwise the pass only diagnoses.
    pub is_publish: bool,
    /// Whether batches have left estimates to it: rows are missing, or are of an earlier commit.
    pub has_unpublished: bool,
    /// How many changes of its blocks had been folded when the pass began: what it diagnoses has seen them, and none later for sure.
    pub changes: i64,
    /// The last experiment that was published; empty at the beginning.
    pub cursor: String,
}

/// A pass that has seen every block.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedPass {
    pub pass: Pass,
    /// Whether it was to diagnose them.
    pub is_diagnosis: bool,
    /// What it found, if that can be said.
    pub diagnostics: Option<(CellDiagnostics, PassDiagnostics)>,
}

/// A block as read by a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockToPublish {
    pub block: BlockToEstimate,
    /// The commit that last changed the block. Its estimates are written only if that is still so.
    pub commit_id: i64,
    pub decision: Option<String>,
}

/// A block that a pass has read, or one that is damaged.
pub type ReadBlock = Result<BlockToPublish, UnreadableBlock>;

/// A block whose estimates stay as they are, because it cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct UnreadableBlock {
    pub population: PopulationName,
    pub experiment_id: String,
    pub why: String,
}
