//! The map of designs: variants across, control shares down, one panel for each tau.

use std::ops::RangeInclusive;

use shrinkd_model::{Design, rho_of_control_share};

use super::figures::{Allocation, Figures};
use crate::cli::design::{EQUAL_RHO, equal_share};

/// Across.
pub(super) const VARIANTS: RangeInclusive<usize> = 1..=10;

/// Down, in percent, below the row of equal shares.
const CONTROL_PERCENT: [u8; 9] = [10, 20, 30, 40, 50, 60, 70, 80, 90];

const TAUS: [f64; 4] = [0.0, 0.5, 1.0, 2.0];

/// The designs with one tau.
pub(super) struct Panel {
    /// In standard errors of a raw effect.
    pub(super) tau: f64,
    pub(super) rows: Vec<Row>,
}

/// The designs with one control share and tau, a cell for each number of variants.
pub(super) struct Row {
    /// `equal`, or a percentage.
    pub(super) label: String,
    pub(super) cells: Vec<Figures>,
}

/// All panels; their first rows are those of equal shares.
pub(super) fn panels() -> Vec<Panel> {
    let panel = |tau| {
        let equal = row("equal".to_owned(), tau, Allocation::Equal, equal_share);
        let given = CONTROL_PERCENT.map(|percent| {
            let share = f64::from(percent) / 100.0;
            row(format!("{percent}%"), tau, Allocation::ControlShare, |_| share)
        });
        Panel { tau, rows: [equal].into_iter().chain(given).collect() }
    };
    TAUS.into_iter().map(panel).collect()
}

fn row(label: String, tau: f64, allocation: Allocation, control_share: impl Fn(usize) -> f64) -> Row {
    let cell = |n: usize| {
        let share = control_share(n);
        let rho = match allocation {
            Allocation::Equal => EQUAL_RHO,
            _ => rho_of_control_share(n, share),
        };
        Figures::new(&Design { variants: vec![n], rho, tau }, allocation, Some(share))
    };
    Row { label, cells: VARIANTS.map(cell).collect() }
}
