//! The names of unknown fields, which producers choose: a limited number of them have series of their own.

use std::collections::BTreeSet;

use super::populations::OTHER;

/// The most names with a series of their own; the others are counted together, under `(other)`.
const MOST: usize = 50;

/// How an unknown field was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// As the first of its name.
    First,
    /// As the first that has no series of its own.
    FirstOfOthers,
    Again,
}

/// The names that have a series.
#[derive(Default)]
pub(super) struct FieldNames(BTreeSet<String>);

impl FieldNames {
    /// The label under which a name is counted.
    pub fn label<'n>(&mut self, name: &'n str) -> (&'n str, Counted) {
        let is_known = self.0.contains(name);
        let label = if is_known || self.0.len() < MOST { name } else { OTHER };
        let counted = match self.0.insert(label.to_owned()) {
            false => Counted::Again,
            true if label == name => Counted::First,
            true => Counted::FirstOfOthers,
        };
        (label, counted)
    }
}
