//! How models of correlation, and what was found under them, are written.

use shrinkd_model::{Correlation, Summary};

use super::text::Digits;

/// The name for people.
pub(super) fn label(correlation: Correlation) -> &'static str {
    match correlation {
        Correlation::Modelled => "modelled",
        Correlation::Ignored => "ignored",
        Correlation::OnePerExperiment => "one per experiment",
    }
}

/// Where a distribution is: its median, or all that a point estimate has.
pub(super) fn centre(summary: &Summary) -> Option<f64> {
    summary.median.or(summary.mean)
}

/// Digits for summaries that are read together.
pub(super) fn digits<'a>(summaries: impl Iterator<Item = &'a Summary> + Clone) -> Digits {
    let spreads = summaries.clone().filter_map(|summary| summary.sd.or_else(|| Some(summary.q75? - summary.q25?)));
    let shown = |summary: &Summary| [centre(summary), summary.sd, summary.q025, summary.q975];
    Digits::for_all(spreads, summaries.flat_map(shown).flatten(), 3)
}
