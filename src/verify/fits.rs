//! Checks of the cells, counters and fits of a population.

use std::collections::{BTreeMap, BTreeSet};

use shrinkd_core::{pack, unpack};
use shrinkd_model::{Part, Sketches};

use super::report::{Check, Report, excerpts, figure, is_same};
use crate::refit::Fits;
use crate::row::audit::{AuditedChange, AuditedFit, AuditedPopulation, Registered};
use crate::row::{CountedBlock, FitRow, FitStatus, Statistics};
use crate::store::audit::{fit_figures, pack_iccs, unpack_nodes};

use super::blocks::Blocks;

/// Adds changes that no refit has seen yet.
pub(super) fn add_changes(population_id: &str, changes: &[AuditedChange], sum: &mut Statistics, report: &mut Report) {
    for change in changes {
        let at = || format!("{population_id}, change {}", change.change_id);
        let block = |bytes: &Option<Vec<u8>>| {
            bytes.as_deref().map(|bytes| unpack::<CountedBlock>("block_changes", bytes)).transpose()
        };
        let applied = match (block(&change.before), block(&change.after)) {
            (Ok(before), Ok(after)) => sum.apply(before.as_ref(), after.as_ref()).map_err(|error| error.to_string()),
            (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
        };
        if let Err(error) = applied {
            report.differs(Check::Cells, at(), "before, after", error, "blocks that can be added");
        }
    }
    sum.counters.changes += changes.len() as i64;
}

/// Compares the cells of a population, with the changes that are still to be added to them, with the sums of its blocks. A
/// population without cells has none.
pub(super) fn check_cells(
    population_id: &str,
    population: &AuditedPopulation,
    changes: &Statistics,
    blocks: &Blocks,
    report: &mut Report,
) {
    const SERIES: [&str; 4] = ["count", "a^2", "a b", "b^2"];
    let mut stored = Sketches::default();
    for (part, moments) in &population.cells {
        let known = Part::ALL.into_iter().find(|known| known.as_str() == part);
        if known.and_then(|part| stored.add_cells(part, moments)).is_none() {
            let at = format!("{population_id} {part}");
            report.differs(Check::Cells, at, "moments", format!("{} bytes", moments.len()), "cells");
        }
    }
    // Before its first refit a population has neither cells nor anything else.
    let has_cells = population.registered.as_ref().is_some_and(|registered| registered.has_cells);
    let expected = if has_cells { &blocks.sketches } else { &Sketches::default() };
    if has_cells {
        stored.merge(&changes.sketches);
    }
    for part in Part::ALL {
        for (node, (stored, expected)) in stored.part(part).iter().zip(expected.part(part)).enumerate() {
            let octaves = [stored, expected].into_iter().flat_map(|sketch| sketch.cells().map(|(octave, _)| octave));
            for octave in octaves.collect::<BTreeSet<_>>() {
                report.compared(Check::Cells, 1);
                let [x, y] = [stored, expected].map(|sketch| sketch.cell(octave).copied().unwrap_or_default());
                let apart = x.as_flattened().iter().zip(y.as_flattened()).enumerate().filter(|(_, (x, y))| x != y);
                let apart: Vec<(usize, (&i128, &i128))> = apart.collect();
                if let [(index, (x, y)), ..] = apart[..] {
                    let at = format!("{population_id} {}, node {node}, octave {octave}", part.as_str());
                    let others = match apart.len() - 1 {
                        0 => String::new(),
                        others => format!(", and {others} others of the cell"),
                    };
                    let what = format!("moment {} of {}{others}", index / 4, SERIES[index % 4]);
                    report.differs(Check::Cells, at, what, x, y);
                }
            }
        }
    }
}

/// Compares the counts of a population, with the changes that no refit has seen yet, with those of its blocks.
pub(super) fn check_counters(
    population_id: &str,
    registered: &Registered,
    changes: &Statistics,
    blocks: &Blocks,
    report: &mut Report,
) {
    report.compared(Check::Counters, 3);
    let mut counters = registered.counters;
    counters.add(&changes.counters);
    for (what, stored, expected) in
        [("experiments", counters.experiments, blocks.experiments), ("effects", counters.effects, blocks.effects)]
    {
        if stored != expected {
            report.differs(Check::Counters, population_id, what, stored, expected);
        }
    }
    let mut sketches = changes.sketches.clone();
    // A population that has no row has none.
    let stored = Some(registered.block_sizes.as_str()).filter(|sizes| !sizes.is_empty()).unwrap_or("{}");
    let sizes: BTreeMap<u32, i64> = match serde_json::from_str(stored) {
        Ok(sizes) => sizes,
        Err(error) => {
            return report.differs(Check::Counters, population_id, "block_sizes", error, "counts by variants");
        }
    };
    sizes.into_iter().for_each(|(variants, experiments)| sketches.count(variants, experiments));
    let (stored, expected) = (sketches.sizes(), blocks.sketches.sizes());
    if stored != expected {
        report.differs(Check::Counters, population_id, "block_sizes", format!("{stored:?}"), format!("{expected:?}"));
    }
}

/// Compares the latest fits of a population with those of its cells. No refit may be due.
pub(super) fn check_fits(
    population_id: &str,
    population: &AuditedPopulation,
    fresh: &Fits,
    published_fit_id: Option<i64>,
    experiments: i64,
    report: &mut Report,
) {
    for row in &population.fits {
        if !fresh.fits.iter().any(|fit| fit.correlation.as_str() == row.correlation) {
            report.differs(Check::Fits, population_id, "correlation", &row.correlation, "no such fit");
        }
    }
    for fit in &fresh.fits {
        report.compared(Check::Fits, 1);
        let at = format!("{population_id} {}", fit.correlation.as_str());
        match population.fits.iter().find(|row| row.correlation == fit.correlation.as_str()) {
            Some(row) => check_fit(&at, row, fit, experiments, report),
            None => report.differs(Check::Fits, at, "fit", "no row", "the fit of the cells"),
        }
    }
    if published_fit_id.is_none() && fresh.judged.status != FitStatus::ColdStart {
        report.differs(Check::Fits, population_id, "published_fit_id", "none", "a published fit");
    }
}

fn check_fit(at: &str, row: &AuditedFit, fresh: &FitRow, experiments: i64, report: &mut Report) {
    let mut differs =
        |what: &str, stored: String, expected: String| report.differs(Check::Fits, at, what, stored, expected);
    if row.status != fresh.status.as_str() {
        differs("status", row.status.clone(), fresh.status.as_str().to_owned());
    }
    for (what, stored, expected) in
        [("experiments", row.experiments, experiments), ("effects", row.effects, fresh.effects as i64)]
    {
        if stored != expected {
            differs(what, stored.to_string(), expected.to_string());
        }
    }
    for (stored, (name, expected)) in row.figures.iter().zip(fit_figures(fresh)) {
        if !is_same(*stored, expected) {
            differs(name, figure(*stored), figure(expected));
        }
    }
    if (&row.nodes, &row.node_iccs) != (&pack(&fresh.nodes), &pack_iccs(&fresh.nodes)) {
        let stored = unpack_nodes(&row.nodes, row.node_iccs.as_deref());
        let stored = stored.map_or_else(|error| error, |nodes| format!("{nodes:?}"));
        let (stored, expected) = excerpts(&stored, &format!("{:?}", fresh.nodes));
        differs("nodes", stored, expected);
    }
}
