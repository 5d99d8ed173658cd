//! Refusals and warnings of a run, counted by code, with the first of each.

use std::collections::BTreeMap;
use std::io::{self, Write};

use shrinkd_core::{Reason, Refusal, Warning, WarningCode};

use super::input::Place;
use super::text::grouped;

/// Warnings of one code that are written line by line.
const WARNINGS: u64 = 5;

/// The refusals of a run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many, and the first with its place.
    refused: BTreeMap<Reason, (u64, String)>,
    warned: BTreeMap<WarningCode, u64>,
}

impl Tally {
    pub(super) fn refuse(&mut self, place: &Place<'_>, refusal: &Refusal) {
        self.refused.entry(refusal.reason).or_insert_with(|| (0, format!("{place}: {refusal}"))).0 += 1;
    }

    /// Counts a warning, and writes it if it is one of the first of its code.
    pub(super) fn warn(&mut self, place: &Place<'_>, warning: &Warning, out: &mut impl Write) -> io::Result<()> {
        let count = self.warned.entry(warning.code).or_default();
        *count += 1;
        if *count <= WARNINGS {
            writeln!(out, "{place}: warning: {warning}")?;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_empty()
    }

    /// Writes how many more warnings there were, and a line for each reason of refusals: how many, and the first.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (code, count) in self.warned.iter().filter(|(_, count)| **count > WARNINGS) {
            writeln!(out, "and {} more warnings {}", count - WARNINGS, code.as_str())?;
        }
        write_firsts(out, "refused; the first of each reason", self.refused.values())
    }
}

/// Writes how many there are in all, and a line for each kind: how many, and the first.
pub(super) fn write_firsts<'a>(
    out: &mut impl Write,
    what: &str,
    kinds: impl Iterator<Item = &'a (u64, String)> + Clone,
) -> io::Result<()> {
    let all: u64 = kinds.clone().map(|(count, _)| count).sum();
    if all > 0 {
        writeln!(out, "{} {what}:", grouped(all))?;
    }
    let width = kinds.clone().map(|(count, _)| grouped(*count).len()).max().unwrap_or_default();
    for (count, first) in kinds {
        writeln!(out, "  {:>width$}  {first}", grouped(*count))?;
    }
    Ok(())
}
