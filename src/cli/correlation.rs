//! How models of correlation, and the summaries of their fits, are shown in tables.

use shrinkd_model::{Correlation, Summary};

use super::text::Digits;

/// The name in tables, under or after the word "correlation".
pub(super) fn label(correlation: Correlation) -> &'static str {
    match correlation {
        Correlation::Modelled => "modelled",
        Correlation::ControlOnly => "control only",
        Correlation::Ignored => "ignored",
        Correlation::OnePerExperiment => "one per experiment",
    }
}

/// The centre of a distribution: its median, or the value of a point estimate.
pub(super) fn centre(summary: &Summary) -> Option<f64> {
    summary.median.or(summary.mean)
}

/// Digits for summaries that are shown in one column.
pub(super) fn digits<'a>(summaries: impl Iterator<Item = &'a Summary> + Clone) -> Digits {
    let spreads = summaries.clone().filter_map(|summary| summary.sd.or_else(|| Some(summary.q75? - summary.q25?)));
    let shown = |summary: &Summary| [centre(summary), summary.sd, summary.q025, summary.q975];
    Digits::for_all(spreads, summaries.flat_map(shown).flatten(), 3)
}
