//! Rows, gathered by experiment, revision and result, in the order in which these first appear.

use std::collections::HashMap;

use csv::ByteRecord;
use shrinkd_core::{Reason, Refusal};
use time::OffsetDateTime;

use super::columns::{Columns, Form};
use super::field::Field;
use super::number::{DecimalMark, Read, could_be_thousands, is_absent};
use super::timestamp::{self, DateOrder};

/// The rows of a table so far.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) experiments: Vec<Experiment>,
    /// The number of rows that are not empty, those that were refused included.
    pub(crate) count: u64,
    /// The position of each experiment and revision.
    by_experiment: HashMap<Box<[u8]>, usize>,
    /// The position of each result in its experiment.
    by_result: HashMap<Box<[u8]>, (usize, usize)>,
    /// Where the last row went: the next one often goes there, too.
    last: (Vec<u8>, (usize, usize)),
    key: Vec<u8>,
}

/// One experiment at one revision.
#[derive(Debug, Default)]
pub(crate) struct Experiment {
    /// Its first row.
    pub(crate) row: u64,
    pub(crate) experiment_id: String,
    /// A JSON number.
    pub(crate) revision: String,
    /// The latest of its rows.
    pub(crate) completed_at: Option<OffsetDateTime>,
    pub(crate) started_at: Option<OffsetDateTime>,
    pub(crate) decision: String,
    pub(crate) shipped_variant: String,
    pub(crate) results: Vec<ResultRows>,
}

/// The rows of one metric, segment and scale.
#[derive(Debug, Default)]
pub(crate) struct ResultRows {
    pub(crate) metric: String,
    pub(crate) segment: String,
    pub(crate) scale: String,
    pub(crate) direction: String,
    /// What its rows say of the result as a whole, as JSON numbers.
    pub(crate) coverage: Option<String>,
    pub(crate) control_variance: Option<String>,
    pub(crate) control_n: Option<String>,
    pub(crate) rows: Vec<Row>,
    /// Whether a row of a control was refused.
    pub(crate) is_control_lost: bool,
}

/// One arm or effect.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) variant: String,
    pub(crate) is_control: Option<bool>,
    /// Whether it has an effect, which of a control it need not have.
    pub(crate) has_effect: bool,
    /// Of effects, its n: a JSON number.
    pub(crate) n: Option<String>,
    /// Its numbers as members of a JSON object, each after a comma.
    pub(crate) numbers: Box<[u8]>,
}

/// The cells of a row by field.
pub(crate) struct Cells<'a> {
    pub(crate) record: &'a ByteRecord,
    pub(crate) columns: &'a Columns,
    pub(crate) mark: DecimalMark,
    pub(crate) date_order: Option<DateOrder>,
    pub(crate) row: u64,
}

impl Rows {
    /// Adds a row.
    ///
    /// # Errors
    /// Where a cell cannot be read: the row is left out.
    pub(crate) fn take(&mut self, cells: &Cells<'_>) -> Result<(), Refusal> {
        let form = cells.columns.form;
        let experiment_id = cells.identifier(Field::ExperimentId)?;
        if experiment_id.is_empty() {
            return Err(refused("has no experiment_id: the row is left out"));
        }
        let revision = cells.number_or_none(Field::Revision)?;
        let (experiment, result) = self.place(cells, experiment_id, revision.as_deref())?;
        let experiment = &mut self.experiments[experiment];
        // A row that is left out says nothing: all cells are read before any is kept.
        let read = cells.row_of(form).and_then(|row| {
            let (of_experiment, of_result) = (cells.of_experiment()?, cells.of_result()?);
            experiment.results[result].check(&of_result)?;
            Ok((row, of_experiment, of_result))
        });
        match read {
            Ok((row, of_experiment, of_result)) => {
                experiment.keep(&of_experiment);
                let result = &mut experiment.results[result];
                result.keep(of_result);
                if result.rows.is_empty() {
                    result.rows.reserve_exact(2);
                }
                result.rows.push(row);
                Ok(())
            }
            Err(refusal) => {
                let result = &mut experiment.results[result];
                let is_control = cells.is_control().ok().flatten();
                let variant = cells.text(Field::Variant).unwrap_or_default();
                result.is_control_lost |= is_control.unwrap_or_else(|| is_named_control(variant));
                let variant = Some(variant.to_owned()).filter(|variant| !variant.is_empty());
                let detail = format!("{} (experiment {experiment_id:?}, metric {:?})", refusal.detail, result.metric);
                Err(Refusal { detail, variant, ..refusal })
            }
        }
    }

    /// The positions of a row's experiment and result, which are new where the row is the first.
    fn place(
        &mut self,
        cells: &Cells<'_>,
        experiment_id: &str,
        revision: Option<&str>,
    ) -> Result<(usize, usize), Refusal> {
        let metric = cells.identifier(Field::Metric)?;
        let segment = match cells.identifier(Field::Segment)? {
            // Statsig's name for all users, and everybody else's.
            segment if segment == "!statsig_topline" || segment.eq_ignore_ascii_case("all") => "",
            segment => segment,
        };
        let scale = cells.identifier(Field::Scale)?;
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(experiment_id.as_bytes());
        key.push(0);
        key.extend_from_slice(revision.unwrap_or("1").as_bytes());
        let of_experiment = key.len();
        for part in [metric, segment, scale] {
            key.push(0);
            key.extend_from_slice(part.as_bytes());
        }
        if key == self.last.0 && !self.experiments.is_empty() {
            self.key = key;
            return Ok(self.last.1);
        }
        let position = match self.by_result.get(key.as_slice()) {
            Some(position) => *position,
            None => {
                let new = self.experiments.len();
                let experiment = *self.by_experiment.entry(key[..of_experiment].into()).or_insert(new);
                if experiment == new {
                    self.experiments.push(Experiment {
                        row: cells.row,
                        experiment_id: experiment_id.to_owned(),
                        revision: revision.unwrap_or("1").to_owned(),
                        ..Experiment::default()
                    });
                }
                let results = &mut self.experiments[experiment].results;
                let metric = if metric.is_empty() { cells.columns.default_metric() } else { metric };
                let scale = scale.to_lowercase().replace(['-', ' '], "_");
                if results.is_empty() {
                    // Most experiments have one: the room for four that a list begins with is half of the memory of a table.
                    results.reserve_exact(1);
                }
                results.push(ResultRows {
                    metric: metric.to_owned(),
                    segment: segment.to_owned(),
                    scale,
                    ..ResultRows::default()
                });
                let position = (experiment, results.len() - 1);
                self.by_result.insert(key.as_slice().into(), position);
                position
            }
        };
        std::mem::swap(&mut self.last.0, &mut key);
        self.last.1 = position;
        self.key = key;
        Ok(position)
    }
}

/// What a row says of its experiment.
struct OfExperiment<'a> {
    completed_at: Option<OffsetDateTime>,
    started_at: Option<OffsetDateTime>,
    decision: &'a str,
    shipped_variant: &'a str,
}

/// What a row says of its result as a whole.
struct OfResult<'a> {
    direction: &'a str,
    coverage: Option<String>,
    control_variance: Option<String>,
    control_n: Option<String>,
}

impl Experiment {
    /// Of times the latest, else what the first row says.
    fn keep(&mut self, row: &OfExperiment<'_>) {
        self.completed_at = self.completed_at.max(row.completed_at);
        self.started_at = self.started_at.max(row.started_at);
        keep(&mut self.decision, row.decision);
        keep(&mut self.shipped_variant, row.shipped_variant);
    }
}

impl ResultRows {
    /// # Errors
    /// Where another row of the result has another number.
    fn check(&self, row: &OfResult<'_>) -> Result<(), Refusal> {
        for (field, kept, number) in [
            (Field::Coverage, &self.coverage, &row.coverage),
            (Field::ControlVariance, &self.control_variance, &row.control_variance),
            (Field::ControlN, &self.control_n, &row.control_n),
        ] {
            if let (Some(first), Some(number)) = (kept, number)
                && first != number
            {
                return Err(refused(&format!(
                    "{} is {number}, in another row of the same result it is {first}: the row is left out",
                    field.as_str()
                )));
            }
        }
        Ok(())
    }

    fn keep(&mut self, row: OfResult<'_>) {
        keep(&mut self.direction, row.direction);
        self.direction.make_ascii_lowercase();
        self.coverage = self.coverage.take().or(row.coverage);
        self.control_variance = self.control_variance.take().or(row.control_variance);
        self.control_n = self.control_n.take().or(row.control_n);
    }
}

/// Keeps the first text that is not empty.
fn keep(kept: &mut String, text: &str) {
    if kept.is_empty() && !text.is_empty() {
        kept.push_str(text);
    }
}

/// Whether a variant is named as controls are.
pub(crate) fn is_named_control(variant: &str) -> bool {
    let letters = || variant.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    ["control", "controlgroup", "baseline", "0"].iter().any(|name| letters().eq(name.chars()))
}

impl<'a> Cells<'a> {
    /// A cell without blanks around it; empty where there is no such column.
    fn cell(&self, field: Field) -> &'a [u8] {
        self.columns.of(field).and_then(|column| self.record.get(column)).unwrap_or_default().trim_ascii()
    }

    fn text(&self, field: Field) -> Option<&'a str> {
        std::str::from_utf8(self.cell(field)).ok()
    }

    fn has(&self, field: Field) -> bool {
        !is_absent(self.cell(field))
    }

    fn identifier(&self, field: Field) -> Result<&'a str, Refusal> {
        self.text(field).ok_or_else(|| self.unreadable(field, "which is not UTF-8: save the file as CSV UTF-8"))
    }

    fn timestamp(&self, field: Field) -> Result<Option<OffsetDateTime>, Refusal> {
        if !self.has(field) {
            return Ok(None);
        }
        let read = self.text(field).and_then(|text| timestamp::read(text, self.date_order));
        let why =
            "which is not a date or time that can be read in one way only: write 2026-01-31 or 2026-01-31T12:00:00Z";
        read.map(Some).ok_or_else(|| self.unreadable(field, why))
    }

    fn of_experiment(&self) -> Result<OfExperiment<'a>, Refusal> {
        Ok(OfExperiment {
            completed_at: self.timestamp(Field::CompletedAt)?,
            started_at: self.timestamp(Field::StartedAt)?,
            decision: self.identifier(Field::Decision)?,
            shipped_variant: self.identifier(Field::ShippedVariant)?,
        })
    }

    fn of_result(&self) -> Result<OfResult<'a>, Refusal> {
        Ok(OfResult {
            direction: self.identifier(Field::Direction)?,
            coverage: self.number_or_none(Field::Coverage)?,
            control_variance: self.number_or_none(Field::ControlVariance)?,
            control_n: self.number_or_none(Field::ControlN)?,
        })
    }

    fn is_control(&self) -> Result<Option<bool>, Refusal> {
        let cell = self.cell(Field::IsControl);
        let is_one_of = |words: &[&str]| words.iter().any(|word| cell.eq_ignore_ascii_case(word.as_bytes()));
        match cell {
            _ if is_absent(cell) => Ok(None),
            _ if is_one_of(&["true", "1", "1.0", "yes", "t", "y", "control"]) => Ok(Some(true)),
            _ if is_one_of(&["false", "0", "0.0", "no", "f", "n", "treatment", "variant", "test"]) => Ok(Some(false)),
            _ => Err(self.unreadable(Field::IsControl, "which is neither true nor false (write yes or no)")),
        }
    }

    /// A number as JSON has it.
    fn number_or_none(&self, field: Field) -> Result<Option<String>, Refusal> {
        let mut written = Vec::new();
        let is_there = self.write_number(field, &mut written)?;
        Ok(String::from_utf8(written).ok().filter(|_| is_there))
    }

    fn write_number(&self, field: Field, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        let cell = self.cell(field);
        let is_in_percent = self.columns.is_in_percent(field);
        if is_absent(cell) {
            return Ok(false);
        }
        if cell.ends_with(b"%") || is_in_percent {
            if field.is_square() {
                return Err(self.unreadable(field, "but a square cannot be in percent"));
            }
            if field.is_count() {
                return Err(self.unreadable(field, "but a count cannot be in percent"));
            }
        }
        let start = out.len();
        match self.mark.write(cell, is_in_percent, out) {
            Read::Number if field.is_count() && could_be_thousands(&out[start..]) => {
                Err(self
                    .unreadable(field, "which may be thousands or a number with decimals: write it without separator"))
            }
            Read::Number => {
                let is_in_percent = field == Field::CiLevel && out[start..].first() != Some(&b'0');
                out.extend_from_slice(if is_in_percent && !out[start..].contains(&b'e') { b"e-2" } else { b"" });
                Ok(true)
            }
            Read::Absent => Ok(false),
            Read::Ambiguous => Err(self.unreadable(
                field,
                "which may be thousands or a number with three decimals, and the other numbers in the beginning of the file do not \
                 tell which: write thousands without a separator (1234), or one more decimal (1.2340)",
            )),
            Read::Unreadable => {
                let mark = if self.mark == DecimalMark::Comma { "comma" } else { "point" };
                Err(self.unreadable(
                    field,
                    &format!("which is not a number with a decimal {mark}, as in the rest of the file"),
                ))
            }
        }
    }

    /// The numbers of which the row is made.
    fn fields(&self) -> &'static [Field] {
        use Field::{
            CiHigh, CiLevel, CiLow, Estimate, Mean, N, StandardDeviation, StandardError, Successes, Sum, SumSquares,
            Variance,
        };
        match self.columns.form {
            Form::Arms if self.has(Successes) => &[N, Successes],
            Form::Arms if self.has(Sum) && self.has(SumSquares) => &[
                N,
                Sum,
                SumSquares,
                Field::DenominatorSum,
                Field::DenominatorSumSquares,
                Field::NumeratorDenominatorSumProduct,
                Field::CovariateSum,
                Field::CovariateSumSquares,
                Field::MainCovariateSumProduct,
            ],
            Form::Arms if self.has(Variance) && self.has(N) => &[N, Mean, Variance],
            Form::Arms if self.has(StandardDeviation) && self.has(N) => &[N, Mean, StandardDeviation],
            Form::Arms => &[N, Mean, StandardError],
            Form::Effects if self.has(Variance) => &[N, Estimate, Variance],
            Form::Effects if self.has(StandardError) => &[N, Estimate, StandardError],
            Form::Effects => &[N, Estimate, CiLow, CiHigh, CiLevel],
        }
    }

    /// Two columns of numbers in one unit of which the first says percent in its header, and the second neither there nor in its cell.
    pub(crate) fn mixed_units(&self) -> Option<(&'a str, &'a str)> {
        let fields = || self.fields().iter().copied().chain([Field::ControlVariance]);
        let fields = || fields().filter(|field| field.is_in_units() && self.has(*field));
        let percent = fields().find(|field| self.columns.is_in_percent(*field))?;
        let other = fields().find(|field| !self.columns.is_in_percent(*field) && !self.cell(*field).ends_with(b"%"))?;
        let name = |field| self.columns.of(field).map(|column| self.columns.name(column));
        Some((name(percent)?, name(other)?))
    }

    /// The row as an arm or an effect.
    fn row_of(&self, form: Form) -> Result<Row, Refusal> {
        let mut numbers = Vec::with_capacity(64);
        for field in self.fields() {
            let start = numbers.len();
            numbers.extend_from_slice(b",\"");
            numbers.extend_from_slice(field.as_str().as_bytes());
            numbers.extend_from_slice(b"\":");
            if !self.write_number(*field, &mut numbers)? {
                numbers.truncate(start);
            }
        }
        let variant = self.identifier(Field::Variant)?;
        let variant = if variant.is_empty() && form == Form::Effects { "treatment" } else { variant };
        Ok(Row {
            variant: variant.to_owned(),
            is_control: self.is_control()?,
            has_effect: !is_named_control(variant) || self.has_effect(),
            n: if form == Form::Effects { self.number_or_none(Field::N)? } else { None },
            numbers: numbers.into(),
        })
    }

    /// Whether a row of the control has an effect all the same: many platforms write it as 0, without a precision or with one of 0.
    fn has_effect(&self) -> bool {
        [Field::Estimate, Field::Variance, Field::StandardError, Field::CiLow, Field::CiHigh].iter().any(|field| {
            let number = self.number_or_none(*field).ok().flatten();
            number.is_some_and(|number| number.parse() != Ok(0.0))
        })
    }

    fn unreadable(&self, field: Field, why: &str) -> Refusal {
        let column = self.columns.of(field).map_or("", |column| self.columns.name(column));
        let cell: String = String::from_utf8_lossy(self.cell(field)).chars().take(60).collect();
        refused(&format!("column {column:?} holds {cell:?}, {why}: the row is left out"))
    }
}

fn refused(detail: &str) -> Refusal {
    Refusal::new(Reason::SchemaViolation, detail)
}
