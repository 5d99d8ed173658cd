//! The cost of operations compared with their targets. Ratios are taken within one run.
//!
//! Criterion takes the samples. The table at the end shows the fastest of each, because on a shared machine slower samples are
//! due to other work. A slow result is not a failure.

mod data;
mod estimates;
mod fit;
mod program;
mod sketch;
mod stopwatch;
mod table;

use stopwatch::Stopwatch;

fn main() {
    let mut stopwatch = Stopwatch::new();
    fit::measure(&mut stopwatch);
    sketch::measure(&mut stopwatch);
    estimates::measure(&mut stopwatch);
    table::measure(&mut stopwatch);
    program::measure(&mut stopwatch);
    stopwatch.print();
}
