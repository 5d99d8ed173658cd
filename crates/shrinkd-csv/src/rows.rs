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
    /// The positions of experiments and results by their keys, each with its hash.
    by_experiment: HashTable<(u64, usize)>,
    by_result: HashTable<(u64, usize)>,
    hasher: RandomState,
    /// Where the last row went: the next one often goes there, too.
    last: usize,
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
    /// What tells it from others, its experiment included.
    key: Span,
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
    /// Whether it is named as controls are and, of effects, has none.
    pub(crate) is_named_control: bool,
    /// Its n: a JSON number, or nothing.
    pub(crate) n: Span,
    /// Its numbers as members of a JSON object, each after a comma.
    pub(crate) numbers: Span,
}

/// What tells results from one another: one after the other in the buffer, with a zero byte in between.
pub(crate) struct Key {
    pub(crate) experiment_id: Span,
    /// A JSON number.
    pub(crate) revision: Span,
    pub(crate) metric: Span,
    pub(crate) segment: Span,
    pub(crate) scale: Span,
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
        let (start, known) = (self.texts.0.len(), self.results.len());
        let key = cells.key(&mut self.texts).inspect_err(|_| self.texts.0.truncate(start))?;
        let position = self.place(cells.row, key);
        self.last = position;
        if position < known {
            // The key of the first row is there.
            self.texts.0.truncate(start);
        }
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
    fn place(&mut self, row: u64, key: Key) -> usize {
        let Rows { texts, experiments, results, hasher, .. } = self;
        let Key { experiment_id, revision, metric, segment, scale } = key;
        let (whole, of_experiment) = (experiment_id.to(scale), experiment_id.to(revision));
        let is_same = |a: Span, b: Span| texts.bytes(a) == texts.bytes(b);
        if results.get(self.last).is_some_and(|last| is_same(last.key, whole)) {
            return self.last;
        }
        let hash = hasher.hash_one(texts.bytes(whole));
        if let Some((_, position)) = self.by_result.find(hash, |(_, at)| is_same(results[*at].key, whole)) {
            return *position;
        }
        self.by_result.insert_unique(hash, (hash, results.len()), |(hash, _)| *hash);
        let hash = hasher.hash_one(texts.bytes(of_experiment));
        let found = self.by_experiment.find(hash, |(_, at)| is_same(experiments[*at].key(), of_experiment));
        let experiment = found.map_or(experiments.len(), |(_, at)| *at);
        if experiment == experiments.len() {
            self.by_experiment.insert_unique(hash, (hash, experiment), |(hash, _)| *hash);
            experiments.push(Experiment { row, experiment_id, revision, said: OfExperiment::default() });
        }
        let said = OfResult::default();
        results.push(ResultRows { key: whole, experiment, metric, segment, scale, said, is_control_lost: false });
        results.len() - 1
    }
}

impl Experiment {
    /// What tells it from others.
    fn key(&self) -> Span {
        self.experiment_id.to(self.revision)
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
            if !first.is_empty() && !number.is_empty() && texts.bytes(first) != texts.bytes(number) {
                return Err(refused(&format!(
                    "{} is {}, in another row of the same result it is {}: the row is left out",
                    field.as_str(),
                    texts.str(number),
                    texts.str(first)
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
    let letters = || variant.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase());
    ["control", "controlgroup", "baseline", "0"].iter().any(|name| letters().eq(name.chars()))
}
