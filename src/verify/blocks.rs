//! Checks of blocks: each equals what its statistics give, its experiment exists, and its population is that of the grouping.
//! The statistics of the population must be the sum of the blocks.

use shrinkd_core::{ExperimentKind, Grouping, Measured, ResultKey, Scale, pack, remeasure, unpack};
use shrinkd_model::{Member, Sketches};

use super::report::{Check, Report, excerpts};
use crate::row::audit::AuditedBlock;

/// The differences found in some blocks of a population, and the sums of the blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub report: Report,
    pub sketches: Sketches,
    pub experiments: i64,
    pub effects: i64,
}

impl Blocks {
    pub fn of(population_id: &str, blocks: &[AuditedBlock], grouping: &Grouping) -> Blocks {
        let mut all = Blocks::default();
        for block in blocks {
            all.add(population_id, block, grouping);
        }
        all
    }

    pub fn merge(&mut self, other: Blocks) {
        self.report.merge(other.report);
        self.sketches.merge(&other.sketches);
        self.experiments += other.experiments;
        self.effects += other.effects;
    }

    fn add(&mut self, population_id: &str, row: &AuditedBlock, grouping: &Grouping) {
        let at = format!("{population_id} {}", row.experiment_id);
        self.report.compared(Check::Blocks, 1);
        let Some(scale) = Scale::ALL.into_iter().find(|scale| scale.as_str() == row.scale) else {
            return self.report.differs(Check::Blocks, at, "scale", &row.scale, "a scale");
        };
        self.check_place(population_id, row, scale, grouping, &at);
        let recomputed = recompute(row, scale, grouping);
        self.check_contents(row, &recomputed, &at);
        // The statistics must hold the stored block, or the recomputed one if the stored one cannot be read.
        let member = match stored_member(row, grouping) {
            Some(member) => member,
            None => match recomputed {
                Ok(Ok((_, member))) => member,
                _ => return,
            },
        };
        if let Err(error) = self.sketches.add(&member) {
            return self.report.differs(Check::Blocks, at, "block", error, "a block that has a place in a sketch");
        }
        self.experiments += 1;
        self.effects += member.block().len() as i64;
    }

    /// Checks the experiment and the population of a block.
    fn check_place(&mut self, population_id: &str, row: &AuditedBlock, scale: Scale, grouping: &Grouping, at: &str) {
        let mut differs = |what: &str, stored: String, expected: String| {
            self.report.differs(Check::Blocks, at, what, stored, expected)
        };
        let (Some(revision), Some(labels)) = (&row.experiment_revision, &row.labels) else {
            return differs("experiment", "no row".to_owned(), "the row of its experiment".to_owned());
        };
        if *revision < row.revision {
            differs("revision", row.revision.to_string(), format!("at most {revision}, that of its experiment"));
        }
        if row.kind.as_deref() == Some(ExperimentKind::Holdout.as_str()) {
            return differs("population_id", population_id.to_owned(), "none: the experiment is a holdout".to_owned());
        }
        let Ok(labels) = serde_json::from_str(labels) else {
            return differs("labels of its experiment", labels.clone(), "an object of text".to_owned());
        };
        let key = ResultKey { metric: row.metric.clone(), segment: row.segment.clone(), scale };
        let expected = grouping.population(key, Some(&labels)).to_string();
        if expected != population_id {
            differs("population_id", population_id.to_owned(), expected);
        }
    }

    fn check_contents(&mut self, row: &AuditedBlock, recomputed: &Recomputed, at: &str) {
        let (block, pending) = match recomputed {
            Err(error) => {
                return self.report.differs(Check::Blocks, at, "statistics", error, "statistics that can be read");
            }
            Ok(Ok((measured, _))) => (Some(measured), None),
            Ok(Err(reason)) => (None, Some(*reason)),
        };
        if row.pending_reason.as_deref() != pending {
            let [stored, expected] = [row.pending_reason.as_deref(), pending].map(|reason| reason.unwrap_or("none"));
            self.report.differs(Check::Blocks, at, "pending_reason", stored, expected);
        }
        if row.block != block.map(pack) {
            let stored: Option<Measured> = row.block.as_deref().and_then(|bytes| unpack("block", bytes).ok());
            self.report_parts(&row.block, stored.as_ref(), block, at);
        }
    }

    /// Reports the first part in which two blocks differ.
    fn report_parts(
        &mut self,
        bytes: &Option<Vec<u8>>,
        stored: Option<&Measured>,
        expected: Option<&Measured>,
        at: &str,
    ) {
        let stored = match (stored, bytes) {
            (Some(stored), _) => format!("{stored:?}"),
            (None, Some(bytes)) => format!("{} bytes that cannot be read", bytes.len()),
            (None, None) => "none".to_owned(),
        };
        let expected = expected.map_or_else(|| "none".to_owned(), |expected| format!("{expected:?}"));
        let (stored, expected) = excerpts(&stored, &expected);
        self.report.differs(Check::Blocks, at, "block", stored, expected);
    }
}

/// The block that the statistics give, or the reason code if they cannot be estimated; an error if they cannot be read.
type Recomputed = Result<Result<(Measured, Member), &'static str>, String>;

fn recompute(row: &AuditedBlock, scale: Scale, grouping: &Grouping) -> Recomputed {
    match remeasure(scale, &row.statistics).map_err(|error| error.to_string())? {
        Err(refusal) => Ok(Err(refusal.reason.as_str())),
        Ok(measured) => {
            let chosen = grouping.chosen_variant(&row.experiment_id, &measured.variants);
            let member = Member::new(measured.block.clone(), chosen).map_err(|error| error.to_string())?;
            Ok(Ok((measured, member)))
        }
    }
}

/// The block as stored; `None` if there is none that can be read.
fn stored_member(row: &AuditedBlock, grouping: &Grouping) -> Option<Member> {
    let measured = stored_block(row)?;
    let chosen = grouping.chosen_variant(&row.experiment_id, &measured.variants);
    Member::new(measured.block, chosen).ok()
}

/// The block of a row; `None` if it has none that can be read.
pub(super) fn stored_block(row: &AuditedBlock) -> Option<Measured> {
    let measured: Measured = unpack("block", row.block.as_deref()?).ok()?;
    (measured.variants.len() == measured.block.len()).then_some(measured)
}
