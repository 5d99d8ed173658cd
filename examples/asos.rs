//! Converts the ASOS Digital Experiments Dataset to events, one per line: `make asos CSV=file`, see `docs/history.md`.
//!
//! Each row of the table is a snapshot of one variant and its control, cumulative since the start of the experiment. All rows
//! of one experiment and one time become one event, whose revision is the number of hours since the start. Empty cells become
//! null, so that shrinkd refuses their results. Events are in the order of time.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};

use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// The table has no dates: every experiment is assumed to start on 2020-01-01.
const START: i64 = 1_577_836_800;

#[derive(Serialize)]
struct Event<'a> {
    schema_version: u32,
    experiment_id: &'a str,
    revision: i64,
    completed_at: String,
    results: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    metric: String,
    control: Arm,
    treatments: Vec<Arm>,
}

#[derive(Serialize)]
struct Arm {
    variant: String,
    n: u64,
    mean: Option<f64>,
    variance: Option<f64>,
}

/// One row of the table: a variant of an experiment, and its control.
struct Snapshot {
    experiment: String,
    metric: u32,
    variant: u32,
    hours: i64,
    control: Arm,
    treatment: Arm,
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: asos FILE, the dataset's CSV file")?;
    let mut events: BTreeMap<(i64, String), BTreeMap<u32, Vec<Snapshot>>> = BTreeMap::new();
    for snapshot in read(BufReader::new(File::open(path)?))? {
        let event = events.entry((snapshot.hours, snapshot.experiment.clone())).or_default();
        event.entry(snapshot.metric).or_default().push(snapshot);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    for ((hours, experiment_id), metrics) in events {
        let completed_at = OffsetDateTime::from_unix_timestamp(START)? + Duration::hours(hours);
        let event = Event {
            schema_version: 1,
            experiment_id: &experiment_id,
            revision: hours,
            completed_at: completed_at.format(&Rfc3339)?,
            results: metrics.into_iter().filter_map(|(metric, snapshots)| outcome(metric, snapshots)).collect(),
        };
        serde_json::to_writer(&mut out, &event)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// The result of one metric. The row of every variant repeats the control.
fn outcome(metric: u32, mut snapshots: Vec<Snapshot>) -> Option<Outcome> {
    snapshots.sort_by_key(|snapshot| snapshot.variant);
    let mut control = None;
    let treatments = snapshots.into_iter().map(|snapshot| {
        control.get_or_insert(snapshot.control);
        snapshot.treatment
    });
    let treatments = treatments.collect();
    Some(Outcome { metric: format!("metric-{metric}"), control: control?, treatments })
}

/// Reads the table, whose cells contain no commas. Columns are identified by name.
fn read(table: impl BufRead) -> Result<Vec<Snapshot>, Box<dyn Error>> {
    let mut lines = table.lines();
    let header = lines.next().ok_or("the file is empty")??;
    let names: Vec<&str> = header.split(',').collect();
    let mut snapshots = Vec::new();
    for (index, line) in lines.enumerate() {
        let line = line?;
        let row = Row { names: &names, cells: line.split(',').collect() };
        snapshots.push(row.snapshot().map_err(|error| format!("line {}: {error}", index + 2))?);
    }
    Ok(snapshots)
}

struct Row<'a> {
    names: &'a [&'a str],
    cells: Vec<&'a str>,
}

impl Row<'_> {
    fn snapshot(&self) -> Result<Snapshot, Box<dyn Error>> {
        let variant = self.cell("variant_id")?.parse()?;
        Ok(Snapshot {
            experiment: self.cell("experiment_id")?.to_owned(),
            metric: self.cell("metric_id")?.parse()?,
            variant,
            hours: (self.number("time_since_start")?.ok_or("no time_since_start")? * 24.0).round() as i64,
            control: self.arm("control".to_owned(), 'c')?,
            treatment: self.arm(format!("variant-{variant}"), 't')?,
        })
    }

    fn arm(&self, variant: String, side: char) -> Result<Arm, Box<dyn Error>> {
        Ok(Arm {
            variant,
            n: self.number(&format!("count_{side}"))?.ok_or("no count")? as u64,
            mean: self.number(&format!("mean_{side}"))?,
            variance: self.number(&format!("variance_{side}"))?,
        })
    }

    /// `None` where the cell is empty.
    fn number(&self, name: &str) -> Result<Option<f64>, Box<dyn Error>> {
        let cell = self.cell(name)?;
        Ok(if cell.is_empty() { None } else { Some(cell.parse()?) })
    }

    fn cell(&self, name: &str) -> Result<&str, String> {
        let index = self.names.iter().position(|own| *own == name).ok_or_else(|| format!("no column {name}"))?;
        self.cells.get(index).copied().ok_or_else(|| format!("no cell of {name}"))
    }
}
