//! Results of one event that speak of the same block.

use std::collections::{BTreeMap, BTreeSet};

use super::path::Path;
use super::{Reason, Refusal, ReportedResult, Scale};

/// Of two results that speak of the same block the first stands; a refused one claims nothing.
pub(super) fn refuse_overlaps(results: &mut [Result<ReportedResult, Refusal>], at: Path<'_>) {
    if results.len() < 2 {
        return;
    }
    let mut claims = Claims::default();
    let overlaps: Vec<bool> =
        results.iter().map(|result| result.as_ref().is_ok_and(|result| !claims.take(result))).collect();
    for (index, result) in results.iter_mut().enumerate().filter(|(index, _)| overlaps.get(*index) == Some(&true)) {
        let detail = "an earlier result of this event speaks of the same metric, segment and scale, keep one";
        *result = Err(Refusal::new(Reason::RevisionConflict, detail).at(at.item(index)));
    }
}

/// What the results of one event speak of, by metric and scale.
#[derive(Default)]
struct Claims<'a>(BTreeMap<(&'a str, Scale), Segments<'a>>);

#[derive(Default)]
struct Segments<'a> {
    every: bool,
    named: BTreeSet<&'a str>,
}

impl<'a> Claims<'a> {
    /// Claims the blocks that a result speaks of; false, and nothing claimed, where one of them is taken.
    fn take(&mut self, result: &'a ReportedResult) -> bool {
        let (metric, segment, scale) = match result {
            ReportedResult::Whole { key, .. } | ReportedResult::Part { key, .. } => {
                (&key.metric, Some(&key.segment), Some(key.scale))
            }
            ReportedResult::Retraction { metric, segment, scale } => (metric, segment.as_ref(), *scale),
        };
        let scales = match &scale {
            Some(scale) => std::slice::from_ref(scale),
            None => &Scale::ALL,
        };
        let is_taken = |scale: &Scale| {
            self.0.get(&(metric.as_str(), *scale)).is_some_and(|taken| match segment {
                Some(segment) => taken.every || taken.named.contains(segment.as_str()),
                None => true,
            })
        };
        if scales.iter().any(is_taken) {
            return false;
        }
        for scale in scales {
            let claimed = self.0.entry((metric, *scale)).or_default();
            match segment {
                Some(segment) => _ = claimed.named.insert(segment),
                None => claimed.every = true,
            }
        }
        true
    }
}
