//! A forest plot in text: raw and shrunk effects on a common axis, with a line at mu.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::text::{Columns, Digits, Page, number, text};

/// Width that the names of an effect may take together.
const NAMES: usize = 28;

/// How far the axis may extend beyond the intervals on either side to include raw effects, as a share of its length.
const BEYOND: f64 = 0.75;

/// The approximate number of ticks on the axis.
const STEPS: f64 = 5.0;

/// One effect, raw and shrunk, with its 95% credible interval.
pub(super) struct Effect<'a> {
    pub(super) experiment_id: &'a str,
    pub(super) variant: &'a str,
    pub(super) raw: f64,
    pub(super) shrunk: f64,
    pub(super) ci95: (f64, f64),
}

/// Plots at most `count` effects, evenly spaced in rank from the lowest raw effect to the highest.
pub(super) fn write<W: Write>(
    page: &mut Page<W>,
    effects: &[Effect<'_>],
    mu: Option<f64>,
    count: usize,
) -> io::Result<()> {
    let rows = selection(effects, count);
    let widest = |name: fn(&Effect<'_>) -> usize| rows.iter().map(|row| name(row)).max().unwrap_or(0);
    let names = widest(|row| row.experiment_id.width()) + widest(|row| row.variant.width());
    let axis = Axis::new(&rows, mu, page.width() - names.min(NAMES) - 6);

    let mut plot = Columns::new([text("  "), text("  "), number("  ")]);
    let is_beyond = rows.iter().any(|row| !(axis.low..=axis.high).contains(&row.raw));
    let beyond = if is_beyond { " (< > beyond)" } else { "" };
    plot.row(["", "", &axis.line(&format!("o raw{beyond}    ● shrunk, ├─┤ its 95% interval    │ mu"))]);
    for row in rows {
        plot.row([row.experiment_id, row.variant, &axis.row(row, mu)]);
    }
    let [ticks, labels] = axis.scale();
    plot.row(["", "", &ticks]);
    plot.row(["", "", &labels]);
    page.columns(&plot)
}

fn selection<'a, 'b>(effects: &'b [Effect<'a>], count: usize) -> Vec<&'b Effect<'a>> {
    let mut rows: Vec<&Effect<'_>> = effects.iter().collect();
    rows.sort_by(|left, right| left.raw.total_cmp(&right.raw));
    if rows.len() <= count {
        return rows;
    }
    let last = (rows.len() - 1) as f64;
    let ranks = (0..count).map(|i| (last * i as f64 / (count - 1) as f64).round() as usize);
    ranks.filter_map(|rank| rows.get(rank).copied()).collect()
}

/// Maps numbers to positions on a line of characters.
struct Axis {
    low: f64,
    high: f64,
    cells: usize,
}

impl Axis {
    /// An axis that covers every interval, mu, and the raw effects that are not too far from them.
    fn new(rows: &[&Effect<'_>], mu: Option<f64>, cells: usize) -> Axis {
        let ends = rows.iter().flat_map(|row| [row.ci95.0, row.ci95.1]).chain(mu);
        let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let beyond = BEYOND * (high - low);
        let (lowest, highest) = (low - beyond, high + beyond);
        let raw = || rows.iter().map(|row| row.raw.clamp(lowest, highest));
        let (low, high) = (raw().fold(low, f64::min), raw().fold(high, f64::max));
        // If all effects are equal and certain, any length will do.
        let margin = if high > low { 0.0 } else { 0.5 * if low == 0.0 { 1.0 } else { low.abs() } };
        Axis { low: low - margin, high: high + margin, cells }
    }

    fn at(&self, x: f64) -> usize {
        let last = (self.cells - 1) as f64;
        (last * (x - self.low) / (self.high - self.low)).round().clamp(0.0, last) as usize
    }

    /// The text, padded to the length of the axis.
    fn line(&self, text: &str) -> String {
        format!("{text:<cells$}", cells = self.cells)
    }

    fn row(&self, row: &Effect<'_>, mu: Option<f64>) -> String {
        let (from, to) = (self.at(row.ci95.0), self.at(row.ci95.1));
        let (shrunk, raw, mu) = (self.at(row.shrunk), self.at(row.raw), mu.map(|mu| self.at(mu)));
        let mark = |cell: usize| match cell {
            cell if cell == shrunk => '●',
            cell if cell == raw => match row.raw {
                raw if raw < self.low => '<',
                raw if raw > self.high => '>',
                _ => 'o',
            },
            cell if cell == from => '├',
            cell if cell == to => '┤',
            cell if Some(cell) == mu => {
                if (from..to).contains(&cell) {
                    '┼'
                } else {
                    '│'
                }
            }
            cell if (from..to).contains(&cell) => '─',
            _ => ' ',
        };
        (0..self.cells).map(mark).collect()
    }

    /// The axis with its ticks, and the labels below them.
    fn scale(&self) -> [String; 2] {
        let step = round_step((self.high - self.low) / STEPS);
        let ticks = (self.low / step).ceil() as i64..=(self.high / step).floor() as i64;
        let numbers: Vec<f64> = ticks.map(|tick| tick as f64 * step).collect();
        let largest = numbers.iter().fold(0.0, |largest: f64, number| largest.max(number.abs()));
        let digits = Digits::new(step, largest, 1);

        let mut line = vec!['─'; self.cells];
        let mut labels = String::new();
        for number in numbers {
            let (at, label) = (self.at(number), digits.value(number));
            if let Some(cell) = line.get_mut(at) {
                *cell = '┬';
            }
            let start = at.saturating_sub(label.len() / 2).min(self.cells.saturating_sub(label.len()));
            // A label that would touch the one before it is left out.
            if labels.is_empty() || labels.len() < start {
                labels = format!("{labels:<start$}{label}");
            }
        }
        [line.into_iter().collect(), self.line(&labels)]
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `length`.
fn round_step(length: f64) -> f64 {
    let base = 10.0_f64.powf(length.log10().floor());
    [1.0, 2.0, 5.0].map(|factor| factor * base).into_iter().find(|&step| step >= length).unwrap_or(10.0 * base)
}
