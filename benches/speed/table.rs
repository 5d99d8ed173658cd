//! A table, read into decoded events, beside the same events as NDJSON: on one thread, from memory.

use std::hint::black_box;

use shrinkd_core::decode;
use shrinkd_csv::Table;
use time::OffsetDateTime;

use crate::stopwatch::{Aim, Baseline, Item, Stopwatch};

const EXPERIMENTS: usize = 10_000;

/// NDJSON is decoded at most twice as fast as a table of the same experiments is read.
const AIM_TIMES: f64 = 2.0;

pub fn measure(stopwatch: &mut Stopwatch) {
    stopwatch.heading("reading experiments of two arms");
    let row = |i: usize, variant: &str| {
        format!("exp-{i:06},revenue,{variant},{},{}.25,{}.5\n", 1_000 + i, i % 97, 10 + i % 89)
    };
    let mut table = "experiment,metric,variant,users,mean,variance\n".to_owned();
    table.extend((0..EXPERIMENTS).flat_map(|i| [row(i, "control"), row(i, "treatment")]));
    let events = || {
        let table = Table::new(table.as_bytes(), &[], OffsetDateTime::UNIX_EPOCH).expect("a table");
        table
            .read(|row, refusal| panic!("row {row}: {refusal}"))
            .expect("rows")
            .map(|(_, event)| event.expect("an event"))
    };
    let lines: Vec<Vec<u8>> = events().collect();
    let item = |what, aim| Item { what, count: EXPERIMENTS, aim };
    let seconds = stopwatch.time(
        &item("an experiment as NDJSON, decoded", Aim::None),
        || (),
        |()| lines.iter().for_each(|line| drop(black_box(decode(line)))),
    );
    let baseline = Baseline { name: "NDJSON", seconds };
    stopwatch.time(
        &item("an experiment as two rows, decoded", Aim::Times(AIM_TIMES, &baseline)),
        || (),
        |()| events().for_each(|event| drop(black_box(decode(&event)))),
    );
}
