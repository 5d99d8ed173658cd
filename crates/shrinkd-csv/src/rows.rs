//! Rows, gathered by experiment, revision and result, in the order in which these first appear.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use shrinkd_core::Refusal;
use time::OffsetDateTime;

use super::cells::{Cells, refused};
use super::field::Field;
use super::texts::{Span, Texts};

/// The rows of a table so far.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// What all spans are of.
    pub(crate) texts: Texts,
    pub(crate) experiments: Vec<Experiment>,
    pub(crate) results: Vec<ResultRows>,
    /// In the order of the table.
    pub(crate) rows: Vec<Row>,
    /// The number of rows that are not empty, those that were refused included.
    pub(crate) count: u64,
    /// The positions of experiments and results, by their keys.
    by_experiment: HashTable<(u64, usize)>,
    by_result: HashTable<(u64, usize)>,
    hasher: RandomState,
    /// Where the last row went: the next one often goes there, too.
    last: usize,
    revision: Vec<u8>,
}

/// One experiment at one revision.
#[derive(Debug)]
pub(crate) struct Experiment {
    /// Its first row.
    pub(crate) row: u64,
    pub(crate) experiment_id: Span,
    /// A JSON number.
    pub(crate) revision: Span,
    pub(crate) said: OfExperiment,
}

/// One metric, segment and scale of an experiment, spelt as in its first row.
#[derive(Debug)]
pub(crate) struct ResultRows {
    /// The position of its experiment.
    pub(crate) experiment: usize,
    pub(crate) metric: Span,
    pub(crate) segment: Span,
    pub(crate) scale: Span,
    pub(crate) said: OfResult,
    /// Whether a row of a control was refused.
    pub(crate) is_control_lost: bool,
}

/// One arm or effect.
#[derive(Debug)]
pub(crate) struct Row {
    /// The position of its result.
    pub(crate) result: usize,
    pub(crate) variant: Span,
    pub(crate) is_control: Option<bool>,
    /// Whether it is named as controls are, and has no effect.
    pub(crate) is_named_control: bool,
    /// Its n: a JSON number, or nothing.
    pub(crate) n: Span,
    /// Its numbers as members of a JSON object, each after a comma.
    pub(crate) numbers: Span,
}

/// What rows say of their experiment. Texts may be empty.
#[derive(Debug, Default)]
pub(crate) struct OfExperiment {
    pub(crate) completed_at: Option<OffsetDateTime>,
    pub(crate) started_at: Option<OffsetDateTime>,
    pub(crate) decision: Span,
    pub(crate) shipped_variant: Span,
}

/// What rows say of their result as a whole: a text and JSON numbers, each of which may be empty.
#[derive(Debug, Default)]
pub(crate) struct OfResult {
    pub(crate) direction: Span,
    pub(crate) coverage: Span,
    pub(crate) control_variance: Span,
    pub(crate) control_n: Span,
}

impl Rows {
    /// Adds a row.
    ///
    /// # Errors
    /// Where a cell cannot be read: the row is left out.
    pub(crate) fn take(&mut self, cells: &Cells<'_>) -> Result<(), Refusal> {
        let position = self.place(cells)?;
        let start = self.texts.0.len();
        // A row that is left out says nothing: all cells are read before any is kept.
        let read = cells.row_of(position, &mut self.texts).and_then(|row| {
            let of_experiment = cells.of_experiment(&mut self.texts)?;
            let of_result = cells.of_result(&mut self.texts)?;
            self.results[position].said.check(&of_result, &self.texts)?;
            Ok((row, of_experiment, of_result))
        });
        let result = &mut self.results[position];
        let experiment = &mut self.experiments[result.experiment];
        match read {
            Ok((row, of_experiment, of_result)) => {
                experiment.said.add(&of_experiment);
                result.said.add(&of_result);
                self.rows.push(row);
                Ok(())
            }
            Err(refusal) => {
                self.texts.0.truncate(start);
                let is_control = cells.is_control().ok().flatten();
                let variant = cells.text(Field::Variant).unwrap_or_default();
                result.is_control_lost |= is_control.unwrap_or_else(|| is_named_control(variant));
                let variant = Some(variant.to_owned()).filter(|variant| !variant.is_empty());
                let experiment_id = self.texts.str(experiment.experiment_id);
                let metric = cells.columns.metric(self.texts.str(result.metric));
                let detail = format!("{} (experiment {experiment_id:?}, metric {metric:?})", refusal.detail);
                Err(Refusal { detail, variant, ..refusal })
            }
        }
    }

    /// The position of a row's result, which like its experiment is new where the row is the first.
    fn place(&mut self, cells: &Cells<'_>) -> Result<usize, Refusal> {
        let experiment_id = cells.identifier(Field::ExperimentId)?;
        if experiment_id.is_empty() {
            return Err(refused("has no experiment_id: the row is left out"));
        }
        self.revision.clear();
        cells.write_number(Field::Revision, &mut self.revision)?;
        if self.revision.is_empty() {
            self.revision.push(b'1');
        }
        let metric = cells.identifier(Field::Metric)?;
        let segment = match cells.identifier(Field::Segment)? {
            // Statsig's name for all users, and everybody else's.
            segment if segment == "!statsig_topline" || segment.eq_ignore_ascii_case("all") => "",
            segment => segment,
        };
        let scale = cells.identifier(Field::Scale)?;

        let of_experiment = [experiment_id.as_bytes(), &self.revision];
        let of_result = [metric, segment, scale].map(str::as_bytes);
        let Rows { texts, experiments, results, hasher, .. } = self;
        if let Some(result) = results.get(self.last)
            && result.key(texts) == (result.experiment, of_result)
            && experiments[result.experiment].key(texts) == of_experiment
        {
            return Ok(self.last);
        }
        let hash = hasher.hash_one(of_experiment);
        let found = self.by_experiment.find(hash, |(_, at)| experiments[*at].key(texts) == of_experiment);
        let experiment = found.map(|(_, at)| *at).unwrap_or_else(|| {
            let [experiment_id, revision] = of_experiment.map(|text| texts.keep(text));
            experiments.push(Experiment { row: cells.row, experiment_id, revision, said: OfExperiment::default() });
            self.by_experiment.insert_unique(hash, (hash, experiments.len() - 1), |(hash, _)| *hash).get().1
        });
        let key = (experiment, of_result);
        let hash = hasher.hash_one(key);
        let found = self.by_result.find(hash, |(_, at)| results[*at].key(texts) == key);
        self.last = found.map(|(_, at)| *at).unwrap_or_else(|| {
            let [metric, segment, scale] = of_result.map(|text| texts.keep(text));
            let said = OfResult::default();
            results.push(ResultRows { experiment, metric, segment, scale, said, is_control_lost: false });
            self.by_result.insert_unique(hash, (hash, results.len() - 1), |(hash, _)| *hash).get().1
        });
        Ok(self.last)
    }
}

impl Experiment {
    /// What tells it from others.
    fn key<'a>(&self, texts: &'a Texts) -> [&'a [u8]; 2] {
        [self.experiment_id, self.revision].map(|span| texts.bytes(span))
    }
}

impl ResultRows {
    /// What tells it from others.
    fn key<'a>(&self, texts: &'a Texts) -> (usize, [&'a [u8]; 3]) {
        (self.experiment, [self.metric, self.segment, self.scale].map(|span| texts.bytes(span)))
    }
}

impl OfExperiment {
    /// Of times the latest, else what the first row says.
    fn add(&mut self, row: &OfExperiment) {
        self.completed_at = self.completed_at.max(row.completed_at);
        self.started_at = self.started_at.max(row.started_at);
        self.decision = self.decision.or(row.decision);
        self.shipped_variant = self.shipped_variant.or(row.shipped_variant);
    }
}

impl OfResult {
    /// # Errors
    /// Where another row of the result has another number.
    fn check(&self, row: &OfResult, texts: &Texts) -> Result<(), Refusal> {
        for (field, first, number) in [
            (Field::Coverage, self.coverage, row.coverage),
            (Field::ControlVariance, self.control_variance, row.control_variance),
            (Field::ControlN, self.control_n, row.control_n),
        ] {
            let (first, number) = (texts.str(first), texts.str(number));
            if !first.is_empty() && !number.is_empty() && first != number {
                return Err(refused(&format!(
                    "{} is {number}, in another row of the same result it is {first}: the row is left out",
                    field.as_str()
                )));
            }
        }
        Ok(())
    }

    /// What the first row says.
    fn add(&mut self, row: &OfResult) {
        self.direction = self.direction.or(row.direction);
        self.coverage = self.coverage.or(row.coverage);
        self.control_variance = self.control_variance.or(row.control_variance);
        self.control_n = self.control_n.or(row.control_n);
    }
}

/// Whether a variant is named as controls are.
pub(crate) fn is_named_control(variant: &str) -> bool {
    let letters = || variant.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    ["control", "controlgroup", "baseline", "0"].iter().any(|name| letters().eq(name.chars()))
}
