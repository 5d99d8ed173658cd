//! Events of the contract, made of gathered rows.

use std::collections::VecDeque;
use std::io::Write;

use shrinkd_core::{MAX_MESSAGE_BYTES, MAX_RESULTS, Reason, Refusal, SCHEMA_VERSION};
use time::OffsetDateTime;

use super::columns::{Columns, Form};
use super::field::Field;
use super::rows::{Experiment, ResultRows, Row, Rows};
use super::timestamp;

/// Results go into another event of the same revision beyond this size.
const FULL: usize = MAX_MESSAGE_BYTES / 2;

/// Room for an event of one result.
const USUAL: usize = 512;

/// The experiments of a table.
#[derive(Debug)]
pub struct Experiments {
    columns: Columns,
    /// Of experiments that do not say so, as the event contract has it.
    completed_at: String,
    /// In these, rows of one experiment and of one result are together.
    rows: Rows,
    /// The first row that is left.
    next: usize,
    /// What the last experiment became, beyond what was handed out.
    rest: VecDeque<(u64, Result<Vec<u8>, Refusal>)>,
}

impl Experiments {
    pub(crate) fn new(columns: Columns, mut rows: Rows, completed_at: OffsetDateTime) -> Experiments {
        let Rows { rows: gathered, results, .. } = &mut rows;
        // Those of one result stay in their order.
        gathered.sort_by_key(|row| (results[row.result].experiment, row.result));
        let completed_at = timestamp::rfc3339(completed_at).unwrap_or_default();
        Experiments { columns, completed_at, rows, next: 0, rest: VecDeque::new() }
    }

    /// How the header was understood.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The number of rows that are not empty, those that were refused included.
    pub fn rows(&self) -> u64 {
        self.rows.count
    }

    /// The number of experiments, at one revision each.
    pub fn experiments(&self) -> usize {
        self.rows.experiments.len()
    }

    /// The first event that is left.
    pub fn first(&self) -> Option<Vec<u8>> {
        let mut events = VecDeque::new();
        self.left().find_map(|rows| {
            self.make(rows, &mut events);
            events.drain(..).find_map(|(_, event)| event.ok())
        })
    }

    /// The rows that are left, by experiment.
    fn left(&self) -> impl Iterator<Item = &[Row]> {
        let experiment = |row: &Row| self.rows.results[row.result].experiment;
        self.rows.rows[self.next..].chunk_by(move |a, b| experiment(a) == experiment(b))
    }

    /// Makes an event of an experiment's rows, or several where one message cannot hold its results, and the refusals of results that do
    /// not tell which row is the control.
    fn make(&self, rows: &[Row], made: &mut VecDeque<(u64, Result<Vec<u8>, Refusal>)>) {
        let Some(first) = rows.first() else { return };
        let experiment = &self.rows.experiments[self.rows.results[first.result].experiment];
        let (mut event, mut results) = (Vec::new(), 0);
        for rows in rows.chunk_by(|a, b| a.result == b.result) {
            let result = &self.rows.results[rows[0].result];
            let control = match self.control_of(experiment, result, rows) {
                Ok(control) => control,
                Err(refusal) => {
                    made.push_back((experiment.row, Err(refusal)));
                    continue;
                }
            };
            if results == MAX_RESULTS || event.len() > FULL {
                made.push_back((experiment.row, whole(std::mem::take(&mut event))));
                results = 0;
            }
            if results == 0 {
                event.reserve(USUAL);
                self.write_head(experiment, &mut event);
            } else {
                event.push(b',');
            }
            results += 1;
            self.write_result(result, rows, control, &mut event);
        }
        if results > 0 {
            made.push_back((experiment.row, whole(event)));
        }
    }

    /// Where the control stands among the rows of a result: it is the row that says so, else the only one with a control's name. Effects may have
    /// none.
    fn control_of(&self, experiment: &Experiment, result: &ResultRows, rows: &[Row]) -> Result<Option<usize>, Refusal> {
        let Experiments { columns, rows: Rows { texts, .. }, .. } = self;
        let is_told = rows.iter().any(|row| row.is_control.is_some());
        let is_control = |row: &Row| if is_told { row.is_control == Some(true) } else { row.is_named_control };
        let variant = |row: &Row| texts.str(row.variant);
        let names = || rows.iter().map(|row| format!("{:?}", variant(row))).take(5).collect::<Vec<_>>().join(", ");
        let controls = || rows.iter().filter(|row| is_control(row)).map(variant);
        let detail = match (controls().next(), controls().count(), columns.form) {
            _ if result.is_control_lost => "the row of the control could not be read".to_owned(),
            (_, 1, _) => return Ok(rows.iter().position(is_control)),
            (None, _, Form::Effects) => return Ok(None),
            (None, _, Form::Arms) if is_told => format!("is_control is true of none of its variants ({})", names()),
            (None, _, Form::Arms) => format!(
                "none of its variants ({}) is named control, baseline or 0: add a column is_control, or name one with \
                 --map is_control=COLUMN",
                names()
            ),
            (Some(first), count, _) if controls().all(|other| other == first) => format!(
                "variant {first:?} has {count} rows, of which one is expected: add them up, or name the column that tells them apart with \
                 --map segment=COLUMN",
            ),
            _ if is_told => format!("is_control is true of more than one of its variants ({})", names()),
            _ => {
                format!("more than one of its variants ({}) is named like a control: add a column is_control", names())
            }
        };
        let (experiment_id, metric) = (texts.str(experiment.experiment_id), columns.metric(texts.str(result.metric)));
        let names = format!("experiment {experiment_id:?}, metric {metric:?}");
        Err(Refusal::new(Reason::SchemaViolation, format!("no control: {detail} ({names})")))
    }

    /// Writes an event up to its results.
    fn write_head(&self, experiment: &Experiment, out: &mut Vec<u8>) {
        let texts = &self.rows.texts;
        let Experiment { experiment_id, revision, said, .. } = experiment;
        // Neither writing to memory nor a string can fail, here and below.
        let _ = write!(out, "{{\"schema_version\":{SCHEMA_VERSION}");
        write_text(Field::ExperimentId, texts.str(*experiment_id), out);
        write_number(Field::Revision, texts.bytes(*revision), out);
        let time = |moment: Option<OffsetDateTime>| moment.and_then(timestamp::rfc3339).unwrap_or_default();
        match said.completed_at {
            Some(_) => write_text(Field::CompletedAt, &time(said.completed_at), out),
            None => write_text(Field::CompletedAt, &self.completed_at, out),
        }
        write_text(Field::StartedAt, &time(said.started_at), out);
        write_text(Field::Decision, texts.str(said.decision), out);
        write_text(Field::ShippedVariant, texts.str(said.shipped_variant), out);
        out.extend_from_slice(b",\"results\":[");
    }

    fn write_result(&self, result: &ResultRows, rows: &[Row], control: Option<usize>, out: &mut Vec<u8>) {
        let Experiments { columns, rows: Rows { texts, .. }, .. } = self;
        let said = &result.said;
        out.extend_from_slice(b"{\"metric\":");
        write_string(columns.metric(texts.str(result.metric)), out);
        write_text(Field::Segment, texts.str(result.segment), out);
        write_text(Field::Scale, &texts.str(result.scale).to_lowercase().replace(['-', ' '], "_"), out);
        write_text(Field::Direction, &texts.str(said.direction).to_ascii_lowercase(), out);
        write_number(Field::Coverage, texts.bytes(said.coverage), out);
        let others = rows.iter().enumerate().filter(|(at, _)| Some(*at) != control).map(|(_, row)| row);
        match (columns.form, control.map(|at| &rows[at])) {
            (Form::Arms, Some(control)) => {
                out.extend_from_slice(b",\"control\":");
                self.write_variant(control, out);
            }
            // Beside effects a control has its n alone, which either its row says or a column of all rows.
            (_, control) => {
                let n = texts.bytes(control.map_or(said.control_n, |control| control.n));
                if !n.is_empty() {
                    out.extend_from_slice(b",\"control\":{\"variant\":");
                    write_string(control.map_or("control", |control| texts.str(control.variant)), out);
                    write_number(Field::N, n, out);
                    out.push(b'}');
                }
            }
        }
        out.extend_from_slice(if columns.form == Form::Arms { b",\"treatments\":[" } else { b",\"effects\":[" });
        for (i, row) in others.enumerate() {
            // Too large already, as all rows of a table are where nothing tells its results apart: the rest would only take memory.
            if out.len() > MAX_MESSAGE_BYTES {
                break;
            }
            if i > 0 {
                out.push(b',');
            }
            self.write_variant(row, out);
        }
        out.push(b']');
        write_number(Field::ControlVariance, texts.bytes(said.control_variance), out);
        out.push(b'}');
    }

    fn write_variant(&self, row: &Row, out: &mut Vec<u8>) {
        let texts = &self.rows.texts;
        out.extend_from_slice(b"{\"variant\":");
        write_string(texts.str(row.variant), out);
        out.extend_from_slice(texts.bytes(row.numbers));
        out.push(b'}');
    }
}

impl Iterator for Experiments {
    /// The first row of its experiment, and an event or why there is none.
    type Item = (u64, Result<Vec<u8>, Refusal>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = std::mem::take(&mut self.rest);
        while rest.is_empty() {
            let rows = self.left().next()?;
            self.make(rows, &mut rest);
            self.next += rows.len();
        }
        self.rest = rest;
        self.rest.pop_front()
    }
}

/// An event with the end of its results.
///
/// # Errors
/// `too_large` where no message may have as many bytes.
fn whole(mut event: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    event.extend_from_slice(b"]}");
    if event.len() > MAX_MESSAGE_BYTES {
        let detail = format!("the message has more than {MAX_MESSAGE_BYTES} bytes, the most that are accepted");
        return Err(Refusal::new(Reason::TooLarge, detail));
    }
    Ok(event)
}

/// Writes a member that is not the first of its object, unless it is empty.
fn write_text(field: Field, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        out.extend_from_slice(field.member());
        write_string(text, out);
    }
}

fn write_number(field: Field, number: &[u8], out: &mut Vec<u8>) {
    if !number.is_empty() {
        out.extend_from_slice(field.member());
        out.extend_from_slice(number);
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(&mut *out, text);
}

#[cfg(test)]
mod tests {
    use super::super::Table;
    use super::*;

    #[test]
    fn no_event_is_written_far_beyond_what_a_message_may_have() {
        let rows = "e,m,v,10,1,2\n".repeat(100_000);
        let text = format!("experiment,metric,variant,n,mean,variance\ne,m,control,10,1,2\n{rows}");
        let table = Table::new(text.as_bytes(), &[], OffsetDateTime::UNIX_EPOCH).expect("a table");
        let experiments = table.read(|row, refusal| panic!("row {row}: {refusal}")).expect("rows");
        let mut event = Vec::new();
        experiments.write_result(&experiments.rows.results[0], &experiments.rows.rows, Some(0), &mut event);
        assert!((MAX_MESSAGE_BYTES..MAX_MESSAGE_BYTES + 100).contains(&event.len()), "{}", event.len());
    }
}
