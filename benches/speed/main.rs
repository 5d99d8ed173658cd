//! What the operations cost against what is aimed at, with ratios taken within the one run.
//!
//! Criterion takes the samples; the table at the end shows the fastest of each, because on a shared machine whatever is
//! slower is other people's work. Nothing here fails for being slow.

mod data;
mod estimates;
mod fit;
mod program;
mod sketch;
mod stopwatch;

use stopwatch::Stopwatch;

fn main() {
    let mut stopwatch = Stopwatch::new();
    fit::measure(&mut stopwatch);
    sketch::measure(&mut stopwatch);
    estimates::measure(&mut stopwatch);
    program::measure(&mut stopwatch);
    stopwatch.print();
}
