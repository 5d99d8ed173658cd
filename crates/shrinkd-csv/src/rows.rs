//! Rows, gathered by experiment, revision and result, in the order in which these first appear.

use std::collections::HashMap;

use shrinkd_core::Refusal;
use time::OffsetDateTime;

use super::cells::{Cells, refused};
use super::field::Field;

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

/// What a row says of its experiment.
pub(crate) struct OfExperiment<'a> {
    pub(crate) completed_at: Option<OffsetDateTime>,
    pub(crate) started_at: Option<OffsetDateTime>,
    pub(crate) decision: &'a str,
    pub(crate) shipped_variant: &'a str,
}

/// What a row says of its result as a whole.
pub(crate) struct OfResult<'a> {
    pub(crate) direction: &'a str,
    pub(crate) coverage: Option<String>,
    pub(crate) control_variance: Option<String>,
    pub(crate) control_n: Option<String>,
}

impl Rows {
    /// Adds a row.
    ///
    /// # Errors
    /// Where a cell cannot be read: the row is left out.
    pub(crate) fn take(&mut self, cells: &Cells<'_>) -> Result<(), Refusal> {
        let experiment_id = cells.identifier(Field::ExperimentId)?;
        if experiment_id.is_empty() {
            return Err(refused("has no experiment_id: the row is left out"));
        }
        let revision = cells.number_or_none(Field::Revision)?;
        let (experiment, result) = self.place(cells, experiment_id, revision.as_deref())?;
        let experiment = &mut self.experiments[experiment];
        // A row that is left out says nothing: all cells are read before any is kept.
        let read = cells.row_of().and_then(|row| {
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
