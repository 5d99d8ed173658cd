//! The cells of one row, read by field, or refused.

use csv::ByteRecord;
use shrinkd_core::{Reason, Refusal};
use time::OffsetDateTime;

use super::columns::{Columns, Form, PAIRED_SUMS};
use super::field::Field;
use super::number::{DecimalMark, Read, could_be_thousands, is_absent};
use super::rows::{Key, OfExperiment, OfResult, Row, is_named_control};
use super::texts::{Span, Texts};
use super::timestamp::{self, DateOrder};

/// The cells of a row by field.
pub(crate) struct Cells<'a> {
    pub(crate) record: &'a ByteRecord,
    pub(crate) columns: &'a Columns,
    pub(crate) mark: DecimalMark,
    pub(crate) date_order: Option<DateOrder>,
    pub(crate) row: u64,
}

impl<'a> Cells<'a> {
    /// A cell without blanks around it; empty where there is no such column, as of most fields.
    #[inline]
    fn cell(&self, field: Field) -> &'a [u8] {
        match self.columns.of(field) {
            Some(column) => self.record.get(column).unwrap_or_default().trim_ascii(),
            None => &[],
        }
    }

    pub(crate) fn text(&self, field: Field) -> Option<&'a str> {
        std::str::from_utf8(self.cell(field)).ok()
    }

    fn has(&self, field: Field) -> bool {
        !is_absent(self.cell(field))
    }

    pub(crate) fn identifier(&self, field: Field) -> Result<&'a str, Refusal> {
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

    /// The experiment and the result of the row.
    pub(crate) fn key(&self, texts: &mut Texts) -> Result<Key, Refusal> {
        let experiment_id = self.identifier(Field::ExperimentId)?;
        if experiment_id.is_empty() {
            return Err(refused("has no experiment_id: the row is left out"));
        }
        let experiment_id = texts.keep(experiment_id.as_bytes());
        texts.0.push(0);
        let revision = self.number(Field::Revision, texts)?;
        let revision = if revision.is_empty() { texts.keep(b"1") } else { revision };
        texts.0.push(0);
        let metric = texts.keep(self.identifier(Field::Metric)?.as_bytes());
        texts.0.push(0);
        let segment = match self.identifier(Field::Segment)? {
            // Statsig's name for all users, and everybody else's.
            segment if segment == "!statsig_topline" || segment.eq_ignore_ascii_case("all") => "",
            segment => segment,
        };
        let segment = texts.keep(segment.as_bytes());
        texts.0.push(0);
        let scale = texts.keep(self.identifier(Field::Scale)?.as_bytes());
        Ok(Key { experiment_id, revision, metric, segment, scale })
    }

    pub(crate) fn of_experiment(&self, texts: &mut Texts) -> Result<OfExperiment, Refusal> {
        Ok(OfExperiment {
            completed_at: self.timestamp(Field::CompletedAt)?,
            started_at: self.timestamp(Field::StartedAt)?,
            decision: texts.keep(self.identifier(Field::Decision)?.as_bytes()),
            shipped_variant: texts.keep(self.identifier(Field::ShippedVariant)?.as_bytes()),
        })
    }

    pub(crate) fn of_result(&self, texts: &mut Texts) -> Result<OfResult, Refusal> {
        Ok(OfResult {
            direction: texts.keep(self.identifier(Field::Direction)?.as_bytes()),
            coverage: self.number(Field::Coverage, texts)?,
            control_variance: self.number(Field::ControlVariance, texts)?,
            control_n: self.number(Field::ControlN, texts)?,
        })
    }

    pub(crate) fn is_control(&self) -> Result<Option<bool>, Refusal> {
        let cell = self.cell(Field::IsControl);
        let is_one_of = |words: &[&str]| words.iter().any(|word| cell.eq_ignore_ascii_case(word.as_bytes()));
        match cell {
            _ if is_absent(cell) => Ok(None),
            _ if is_one_of(&["true", "1", "1.0", "yes", "t", "y", "control"]) => Ok(Some(true)),
            _ if is_one_of(&["false", "0", "0.0", "no", "f", "n", "treatment", "variant", "test"]) => Ok(Some(false)),
            _ => Err(self.unreadable(Field::IsControl, "which is neither true nor false (write yes or no)")),
        }
    }

    /// Where its number was written to; empty where it is absent.
    fn number(&self, field: Field, texts: &mut Texts) -> Result<Span, Refusal> {
        let start = texts.0.len();
        self.write_number(field, &mut texts.0)?;
        Ok(texts.since(start))
    }

    /// Writes a number as JSON has it, or nothing where it is absent.
    fn write_number(&self, field: Field, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let cell = self.cell(field);
        if is_absent(cell) {
            return Ok(());
        }
        let is_in_percent = self.columns.is_in_percent(field);
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
                Ok(())
            }
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
    fn fields(&self) -> impl Iterator<Item = Field> + Clone {
        use Field::{
            CiHigh, CiLevel, CiLow, Estimate, Mean, N, StandardDeviation, StandardError, Successes, Sum, SumSquares,
            Variance,
        };
        let (fields, paired): (&[Field], &[Field]) = match self.columns.form {
            Form::Arms if self.has(Successes) => (&[N, Successes], &[]),
            Form::Arms if self.has(Sum) && self.has(SumSquares) => (&[N, Sum, SumSquares], &PAIRED_SUMS),
            Form::Arms if self.has(Variance) && self.has(N) => (&[N, Mean, Variance], &[]),
            Form::Arms if self.has(StandardDeviation) && self.has(N) => (&[N, Mean, StandardDeviation], &[]),
            Form::Arms => (&[N, Mean, StandardError], &[]),
            Form::Effects if self.has(Variance) => (&[N, Estimate, Variance], &[]),
            Form::Effects if self.has(StandardError) => (&[N, Estimate, StandardError], &[]),
            Form::Effects => (&[N, Estimate, CiLow, CiHigh, CiLevel], &[]),
        };
        fields.iter().chain(paired).copied()
    }

    /// Two columns of numbers in one unit of which the first says percent in its header, and the second neither there nor in its cell.
    pub(crate) fn mixed_units(&self) -> Option<(&'a str, &'a str)> {
        let is_in_percent = |field: &Field| self.columns.is_in_percent(*field);
        let mut fields = self.fields().chain([Field::ControlVariance]).filter(|field| field.is_in_units());
        let percent = fields.clone().find(|field| is_in_percent(field) && self.has(*field))?;
        let has_bare = |field: &Field| self.has(*field) && !self.cell(*field).ends_with(b"%");
        let other = fields.find(|field| !is_in_percent(field) && has_bare(field))?;
        let name = |field| self.columns.of(field).map(|column| self.columns.name(column));
        Some((name(percent)?, name(other)?))
    }

    /// The row as an arm or an effect of a result.
    pub(crate) fn row_of(&self, result: usize, texts: &mut Texts) -> Result<Row, Refusal> {
        let form = self.columns.form;
        let (start, mut n) = (texts.0.len(), Span::default());
        for field in self.fields() {
            let before = texts.0.len();
            texts.keep(field.member());
            let number = self.number(field, texts)?;
            if number.is_empty() {
                texts.0.truncate(before);
            } else if field == Field::N {
                n = number;
            }
        }
        let numbers = texts.since(start);
        let variant = self.identifier(Field::Variant)?;
        let variant = if variant.is_empty() && form == Form::Effects { "treatment" } else { variant };
        Ok(Row {
            result,
            variant: texts.keep(variant.as_bytes()),
            is_control: self.is_control()?,
            is_named_control: is_named_control(variant) && (form == Form::Arms || !self.has_effect()),
            n,
            numbers,
        })
    }

    /// Whether a row of the control has an effect all the same: many platforms write it as 0, without a precision or with one of 0.
    fn has_effect(&self) -> bool {
        [Field::Estimate, Field::Variance, Field::StandardError, Field::CiLow, Field::CiHigh].iter().any(|field| {
            let mut number = Vec::new();
            let is_read = self.write_number(*field, &mut number).is_ok();
            let number = String::from_utf8(number).unwrap_or_default();
            is_read && !number.is_empty() && number.parse() != Ok(0.0)
        })
    }

    fn unreadable(&self, field: Field, why: &str) -> Refusal {
        let column = self.columns.of(field).map_or("", |column| self.columns.name(column));
        let cell: String = String::from_utf8_lossy(self.cell(field)).chars().take(60).collect();
        refused(&format!("column {column:?} holds {cell:?}, {why}: the row is left out"))
    }
}

pub(crate) fn refused(detail: &str) -> Refusal {
    Refusal::new(Reason::SchemaViolation, detail)
}
