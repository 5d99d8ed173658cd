//! The output of the parts: headings, and tables whose ratios name their baseline.

use std::time::Duration;

/// Rows of text under a heading, printed with aligned columns.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns. The first holds text, the others figures.
    pub fn new(columns: &[&'static str]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }

    pub fn print(&self) {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let header: Vec<String> = self.columns.iter().map(|&column| column.to_owned()).collect();
        for row in [&header].into_iter().chain(&self.rows) {
            let cell = |(column, cell): (usize, &String)| match (column, widths[column]) {
                (0, width) => format!("{cell:<width$}"),
                (_, width) => format!("{cell:>width$}"),
            };
            println!("  {}", row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

pub fn heading(text: &str) {
    println!("\n{text}");
}

/// Prints progress to stderr, because parts take minutes.
pub fn progress(text: &str) {
    eprintln!("... {text}");
}

/// A unique name.
pub fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("bench_{what}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

pub fn milliseconds(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

/// A rate per second.
pub fn rate(count: usize, duration: Duration) -> String {
    format!("{:.0}", count as f64 / duration.as_secs_f64())
}

/// A ratio of two durations with two decimals.
pub fn ratio(x: Duration, y: Duration) -> String {
    format!("{:.2}", x.as_secs_f64() / y.as_secs_f64())
}

pub fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// The median.
pub fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The quantile of sorted values.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}
