//! Rows as an audit reads them. Nothing in them is assumed to be valid, so names and packed columns are not decoded.

use shrinkd_core::Properties;

use super::Counters;

/// Records that an operator skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedOffsets {
    pub topic: String,
    pub partition: i32,
    pub from: Option<i64>,
    pub to: i64,
    pub because: String,
    pub by: String,
    pub at: String,
}

/// A population with its counters, cells and latest fits.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedPopulation {
    /// `None` if it has no row in `populations`.
    pub registered: Option<Registered>,
    /// Part and moments of each row of cells.
    pub cells: Vec<(String, Vec<u8>)>,
    pub fits: Vec<AuditedFit>,
}

/// A row of `populations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registered {
    pub counters: Counters,
    /// How many blocks there are of each number of variants from two on, as JSON.
    pub block_sizes: String,
    pub has_cells: bool,
    /// Whether a refit is due, now or later, even if nothing has changed.
    pub is_refit_due: bool,
    pub published_fit_id: Option<i64>,
    /// Whether a whole publish is due or under way.
    pub is_publish_due: bool,
    /// Changes of blocks whose estimates are left to a pass, as the latest refit has seen them.
    pub unpublished: i64,
    /// How many of them the pass under way will have written.
    pub pass_unpublished: i64,
    /// Whether the log has more of them.
    pub is_log_unpublished: bool,
    /// The settings of the latest fit.
    pub fit_settings: Option<String>,
}

/// A row of `block_changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedChange {
    pub transaction_id: i64,
    pub change_id: i64,
    pub before: Option<Vec<u8>>,
    pub after: Option<Vec<u8>>,
}

/// A row of `current_population_fits`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedFit {
    pub correlation: String,
    pub status: String,
    pub message: Option<String>,
    pub experiments: i64,
    pub effects: i64,
    /// In the order of [`fit_figures`](crate::store::audit::fit_figures).
    pub figures: Vec<Option<f64>>,
    pub nodes: Vec<u8>,
    pub node_iccs: Option<Vec<u8>>,
}

/// A row of `blocks`, with columns of its experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedBlock {
    pub experiment_id: String,
    pub metric: String,
    pub segment: String,
    pub scale: String,
    pub revision: i64,
    pub commit_id: i64,
    pub statistics: Vec<u8>,
    pub block: Option<Vec<u8>>,
    pub pending_reason: Option<String>,
    pub properties: Properties,
    /// `None` if there is no such experiment. Its kind and its `labels` (JSON) are `None` then, too.
    pub experiment_revision: Option<i64>,
    pub labels: Option<String>,
    pub kind: Option<String>,
    pub shipped_variant: Option<String>,
}

/// A row of `effect_estimates`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedEstimate {
    pub experiment_id: String,
    pub variant: String,
    pub block_revision: i64,
    pub commit_id: i64,
    pub fit_id: i64,
    pub status: String,
    /// In the order of [`estimate_words`](crate::store::audit::estimate_words).
    pub words: Vec<Option<String>>,
    /// In the order of [`estimate_figures`](crate::store::audit::estimate_figures).
    pub figures: Vec<Option<f64>>,
}
