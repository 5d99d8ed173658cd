//! Events of the contract, made of gathered rows.

use std::collections::VecDeque;

use shrinkd_core::{MAX_MESSAGE_BYTES, MAX_RESULTS, Reason, Refusal, SCHEMA_VERSION};
use time::OffsetDateTime;

use super::columns::{Columns, Form};
use super::rows::{Experiment, ResultRows, Row, Rows, is_named_control};
use super::timestamp;

/// Results go into another event of the same revision beyond this size.
const FULL: usize = MAX_MESSAGE_BYTES / 2;

/// Room for an event of one result.
const USUAL: usize = 512;

/// The experiments of a table.
#[derive(Debug)]
pub struct Experiments {
    columns: Columns,
    rows: u64,
    /// Of experiments that do not say so, as the event contract has it.
    completed_at: String,
    experiments: std::vec::IntoIter<Experiment>,
    /// What the last experiment became, beyond what was handed out.
    rest: VecDeque<(u64, Result<Vec<u8>, Refusal>)>,
}

impl Experiments {
    pub(crate) fn new(columns: Columns, rows: Rows, completed_at: OffsetDateTime) -> Experiments {
        let Rows { experiments, count, .. } = rows;
        let completed_at = timestamp::rfc3339(completed_at).unwrap_or_default();
        Experiments { columns, rows: count, completed_at, experiments: experiments.into_iter(), rest: VecDeque::new() }
    }

    /// How the header was understood.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The number of rows that are not empty, those that were refused included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The experiments that are left, at one revision each.
    pub fn len(&self) -> usize {
        self.experiments.len()
    }

    pub fn is_empty(&self) -> bool {
        self.experiments.len() == 0
    }

    /// The first event that is left.
    pub fn first(&self) -> Option<Vec<u8>> {
        let events = self.experiments.as_slice().iter().map(|experiment| self.events(experiment));
        events.flatten().find_map(|(_, event)| event.ok())
    }

    /// An event for each experiment and revision, several where one message cannot hold its results, and the refusals of results that
    /// do not tell which row is the control.
    fn events(&self, experiment: &Experiment) -> VecDeque<(u64, Result<Vec<u8>, Refusal>)> {
        let (mut made, mut event, mut results) = (VecDeque::new(), Vec::new(), 0);
        // Where no row is left, each was refused.
        for result in experiment.results.iter().filter(|result| !result.rows.is_empty()) {
            let (control, others) = match control_of(experiment, result, self.columns.form) {
                Ok(split) => split,
                Err(refusal) => {
                    made.push_back((experiment.row, Err(refusal)));
                    continue;
                }
            };
            if results == MAX_RESULTS || event.len() > FULL {
                event.extend_from_slice(b"]}");
                made.push_back((experiment.row, Ok(std::mem::take(&mut event))));
                results = 0;
            }
            if results == 0 {
                event.reserve(USUAL);
                self.write_head(experiment, &mut event);
            } else {
                event.push(b',');
            }
            results += 1;
            write_result(result, control, &others, self.columns.form, &mut event);
        }
        if results > 0 {
            event.extend_from_slice(b"]}");
            made.push_back((experiment.row, Ok(event)));
        }
        made
    }

    /// Writes an event up to its results.
    fn write_head(&self, experiment: &Experiment, out: &mut Vec<u8>) {
        let Experiment { experiment_id, revision, completed_at, started_at, decision, shipped_variant, .. } =
            experiment;
        out.extend_from_slice(b"{\"schema_version\":");
        out.extend_from_slice(SCHEMA_VERSION.to_string().as_bytes());
        write_text("experiment_id", experiment_id, out);
        write_number("revision", Some(revision), out);
        let time = |moment: Option<OffsetDateTime>| moment.and_then(timestamp::rfc3339).unwrap_or_default();
        match completed_at {
            Some(_) => write_text("completed_at", &time(*completed_at), out),
            None => write_text("completed_at", &self.completed_at, out),
        }
        write_text("started_at", &time(*started_at), out);
        write_text("decision", decision, out);
        write_text("shipped_variant", shipped_variant, out);
        out.extend_from_slice(b",\"results\":[");
    }
}

impl Iterator for Experiments {
    /// The first row of its experiment, and an event or why there is none.
    type Item = (u64, Result<Vec<u8>, Refusal>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.rest.is_empty() {
            let experiment = self.experiments.next()?;
            self.rest = self.events(&experiment);
        }
        self.rest.pop_front()
    }
}

/// The control's row and the others: the row that says so, else the only one with a control's name. Effects may have none.
fn control_of<'a>(
    experiment: &Experiment,
    result: &'a ResultRows,
    form: Form,
) -> Result<(Option<&'a Row>, Vec<&'a Row>), Refusal> {
    let ResultRows { rows, metric, is_control_lost, .. } = result;
    let is_told = rows.iter().any(|row| row.is_control.is_some());
    let is_control = |row: &Row| match form {
        _ if is_told => row.is_control == Some(true),
        Form::Arms => is_named_control(&row.variant),
        // An effect under this name is one.
        Form::Effects => is_named_control(&row.variant) && !row.has_effect,
    };
    let (controls, others): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| is_control(row));
    let names = || rows.iter().map(|row| format!("{:?}", row.variant)).take(5).collect::<Vec<_>>().join(", ");
    let detail = match (controls.as_slice(), form) {
        _ if *is_control_lost => "the row of the control could not be read".to_owned(),
        ([control], _) => return Ok((Some(control), others)),
        ([], Form::Effects) => return Ok((None, others)),
        ([], Form::Arms) if is_told => format!("is_control is true of none of its variants ({})", names()),
        ([], Form::Arms) => format!(
            "none of its variants ({}) is named control, baseline or 0: add a column is_control, or name one with \
             --map is_control=COLUMN",
            names()
        ),
        ([first, others @ ..], _) if others.iter().all(|row| row.variant == first.variant) => format!(
            "variant {:?} has {} rows, of which one is expected: add them up, or name the column that tells them apart with --map \
             segment=COLUMN",
            first.variant,
            controls.len()
        ),
        _ if is_told => format!("is_control is true of more than one of its variants ({})", names()),
        _ => format!("more than one of its variants ({}) is named like a control: add a column is_control", names()),
    };
    let names = format!("experiment {:?}, metric {metric:?}", experiment.experiment_id);
    Err(Refusal::new(Reason::SchemaViolation, format!("no control: {detail} ({names})")))
}

fn write_result(result: &ResultRows, control: Option<&Row>, others: &[&Row], form: Form, out: &mut Vec<u8>) {
    let ResultRows { metric, segment, scale, direction, coverage, control_variance, control_n, .. } = result;
    out.extend_from_slice(b"{\"metric\":");
    write_string(metric, out);
    for (name, text) in [("segment", segment), ("scale", scale), ("direction", direction)] {
        write_text(name, text, out);
    }
    write_number("coverage", coverage.as_deref(), out);
    let name = control.map_or("control", |control| control.variant.as_str());
    // Beside effects a control has its n alone, which either its row says or a column of all rows.
    let n = control.map_or(control_n.as_deref(), |control| control.n.as_deref());
    match (form, control, n) {
        (Form::Arms, Some(control), _) => {
            out.extend_from_slice(b",\"control\":");
            write_variant(control, out);
        }
        (Form::Effects, _, Some(n)) => {
            out.extend_from_slice(b",\"control\":{\"variant\":");
            write_string(name, out);
            write_number("n", Some(n), out);
            out.push(b'}');
        }
        _ => {}
    }
    out.extend_from_slice(if form == Form::Arms { b",\"treatments\":[" } else { b",\"effects\":[" });
    for (i, row) in others.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_variant(row, out);
    }
    out.push(b']');
    write_number("control_variance", control_variance.as_deref(), out);
    out.push(b'}');
}

fn write_variant(row: &Row, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"variant\":");
    write_string(&row.variant, out);
    out.extend_from_slice(&row.numbers);
    out.push(b'}');
}

/// Writes a member that is not the first of its object, unless it is empty.
fn write_text(name: &str, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        write_name(name, out);
        write_string(text, out);
    }
}

fn write_number(name: &str, number: Option<&str>, out: &mut Vec<u8>) {
    if let Some(number) = number {
        write_name(name, out);
        out.extend_from_slice(number.as_bytes());
    }
}

fn write_name(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    // Neither writing to memory nor a string can fail.
    let _ = serde_json::to_writer(&mut *out, text);
}
