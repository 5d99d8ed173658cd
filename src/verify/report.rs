//! The report of an audit: counts and differences for each check.

/// How many differences of a check are kept. Further ones are only counted.
pub const SHOWN: usize = 20;

/// A check of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    Blocks,
    Cells,
    Counters,
    Fits,
    Estimates,
    Distances,
    Offsets,
}

impl Check {
    pub const ALL: [Check; 7] =
        [Check::Blocks, Check::Cells, Check::Counters, Check::Fits, Check::Estimates, Check::Distances, Check::Offsets];

    pub fn as_str(self) -> &'static str {
        match self {
            Check::Blocks => "blocks",
            Check::Cells => "cells",
            Check::Counters => "counters",
            Check::Fits => "fits",
            Check::Estimates => "estimates",
            Check::Distances => "distances",
            Check::Offsets => "offsets",
        }
    }
}

/// A stored value that differs from the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The population, experiment and variant, or the topic and partition.
    pub at: String,
    /// The column, row or other item that differs.
    pub what: String,
    pub stored: String,
    pub expected: String,
}

/// The result of one check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub compared: u64,
    /// Items that could not be judged, because a refit or publish was due.
    pub postponed: u64,
    pub differing: u64,
    /// The first differences, at most [`SHOWN`].
    pub first: Vec<Difference>,
}

/// The results of all checks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    tallies: [Tally; Check::ALL.len()],
    /// The largest distance of an estimate from the exact one, as a share of its bound.
    pub largest_share: f64,
    /// Findings that are no differences.
    pub remarks: Vec<String>,
}

impl Report {
    pub fn of(&self, check: Check) -> &Tally {
        &self.tallies[check as usize]
    }

    pub fn differences(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.differing).sum()
    }

    pub fn is_clean(&self) -> bool {
        self.differences() == 0
    }

    /// Counts items that were compared.
    pub(super) fn compared(&mut self, check: Check, count: usize) {
        self.tallies[check as usize].compared += count as u64;
    }

    /// Counts items that cannot be judged now.
    pub(super) fn postponed(&mut self, check: Check, count: usize) {
        self.tallies[check as usize].postponed += count as u64;
    }

    /// Records a difference.
    pub(super) fn differs(
        &mut self,
        check: Check,
        at: impl Into<String>,
        what: impl Into<String>,
        stored: impl ToString,
        expected: impl ToString,
    ) {
        let tally = &mut self.tallies[check as usize];
        tally.differing += 1;
        if tally.first.len() < SHOWN {
            let (stored, expected) = (stored.to_string(), expected.to_string());
            tally.first.push(Difference { at: at.into(), what: what.into(), stored, expected });
        }
    }

    /// Adds the results of another part.
    pub(super) fn merge(&mut self, other: Report) {
        for (mine, theirs) in self.tallies.iter_mut().zip(other.tallies) {
            mine.compared += theirs.compared;
            mine.postponed += theirs.postponed;
            mine.differing += theirs.differing;
            let room = SHOWN.saturating_sub(mine.first.len());
            mine.first.extend(theirs.first.into_iter().take(room));
        }
        self.largest_share = self.largest_share.max(other.largest_share);
        self.remarks.extend(other.remarks);
    }
}

/// Whether two figures are equal bit for bit, except for the sign of zero, which SQLite does not store.
pub(super) fn is_same(x: Option<f64>, y: Option<f64>) -> bool {
    x.map(|x| (x + 0.0).to_bits()) == y.map(|y| (y + 0.0).to_bits())
}

/// A figure with all its digits.
pub(super) fn figure(x: Option<f64>) -> String {
    x.map_or_else(|| "none".to_owned(), |x| format!("{x:?}"))
}

/// Excerpts of two texts, starting shortly before the first difference.
pub(super) fn excerpts(stored: &str, expected: &str) -> (String, String) {
    const BEFORE: usize = 30;
    const LENGTH: usize = 100;
    let common = stored.chars().zip(expected.chars()).take_while(|(x, y)| x == y).count();
    let excerpt = |text: &str| {
        let start = common.saturating_sub(BEFORE);
        let piece: String = text.chars().skip(start).take(LENGTH).collect();
        let is_cut = text.chars().count() > start + LENGTH;
        format!("{}{piece}{}", if start > 0 { ".." } else { "" }, if is_cut { ".." } else { "" })
    };
    (excerpt(stored), excerpt(expected))
}
