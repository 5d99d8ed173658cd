//! What an audit found: for each check what was compared and what differs.

/// How many differences of a check are kept with both of their values. The others are counted.
pub const SHOWN: usize = 20;

/// What is checked.
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

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: population, experiment and variant, or topic and partition.
    pub at: String,
    /// What differs there.
    pub what: String,
    pub stored: String,
    pub expected: String,
}

/// What one check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub compared: u64,
    /// Not judged, because what it is compared with is about to be written anew.
    pub postponed: u64,
    pub differing: u64,
    /// The first of the differences.
    pub first: Vec<Difference>,
}

/// What all checks found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    tallies: [Tally; Check::ALL.len()],
    /// The largest distance of an estimate from exact, as a share of what is promised.
    pub largest_share: f64,
    /// What is no difference, but worth knowing.
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

    /// Counts what was compared.
    pub(super) fn compared(&mut self, check: Check, count: usize) {
        self.tallies[check as usize].compared += count as u64;
    }

    /// Counts what cannot be judged now.
    pub(super) fn postponed(&mut self, check: Check, count: usize) {
        self.tallies[check as usize].postponed += count as u64;
    }

    /// Notes a difference.
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

    /// Adds what was found of another part.
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

/// The same figure, bit for bit; a zero has no sign, because SQLite keeps none.
pub(super) fn is_same(x: Option<f64>, y: Option<f64>) -> bool {
    x.map(|x| (x + 0.0).to_bits()) == y.map(|y| (y + 0.0).to_bits())
}

/// A figure with all of its digits.
pub(super) fn figure(x: Option<f64>) -> String {
    x.map_or_else(|| "none".to_owned(), |x| format!("{x:?}"))
}

/// Two long texts from a little before where they part.
pub(super) fn where_they_part(stored: &str, expected: &str) -> (String, String) {
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
