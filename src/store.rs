//! The store: where a worker's state and its output are kept. One trait, PostgreSQL and SQLite behind it, one set of
//! promises tested against both.
//!
//! | transaction | what it makes one |
//! | --- | --- |
//! | [`Store::claim`] | the epochs of partitions go up, and where to go on is read |
//! | [`Ingest`] | offsets, experiments, blocks, cells, refusals, and the estimates of changed blocks |
//! | [`Refit`] | a population's cells read at one moment, its fits and diagnostics |
//! | [`Store::write_estimates`] | one page of a whole publish, and its cursor |
//! | [`Audit`] | everything as of one moment, read only |
//! | [`Rebuild`] | everything that is computed from what was sent, computed anew, and the settings that it is computed with |
//!
//! A store knows the settings of whoever opened it. [`Ingest`], [`Refit`] and passes check in their own transactions that the
//! store still has the same: after a rebuild under other settings nothing of the old ones is written any more.

mod any;
pub mod audit;
mod decode;
mod error;
pub mod postgres;
mod schema;
mod settings;
pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use shrinkd_core::PopulationName;
use shrinkd_model::Sketches;
use time::OffsetDateTime;

pub use crate::row::StoreSettings;
pub use any::AnyStore;
pub use audit::Audit;
pub use error::StoreError;

use crate::row::replay::{RejectedMessage, RejectedRef, RejectedSelection, ReplayedRow};
use crate::row::{
    BlockToPublish, CellDiagnostics, Changes, Counters, CurrentFit, CurrentPopulation, EstimateRow, FitRow, Halt,
    Judged, PartitionStatus, PassDiagnostics, PublishedEffect, PublishedFit, RawEstimate, Skip, StoredExperiment,
};
use crate::stream::{Claim, Epoch, NextOffset, Topic};

/// A pass that nobody has touched for so long has lost its worker, and another may take it.
const ABANDONED: Duration = Duration::from_secs(30);

/// How far a batch moves one partition, and by what right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    pub partition: i32,
    pub partition_id: i64,
    pub epoch: Epoch,
    pub from: Option<NextOffset>,
    pub to: NextOffset,
}

/// Refuses a topic that is not the one whose offsets are stored. An id that is not known on one side says nothing.
fn check_topic(topic: &Topic, stored_id: &str) -> Result<(), StoreError> {
    match stored_id == topic.id || stored_id.is_empty() || topic.id.is_empty() {
        true => Ok(()),
        false => Err(StoreError::TopicChanged {
            topic: topic.name.clone(),
            stored: stored_id.to_owned(),
            found: topic.id.clone(),
        }),
    }
}

/// Judges a commit in doubt by the rows (partition id, epoch, next offset) that are there now.
fn judge_commit(advances: &[Advance], rows: &[(i64, i64, Option<i64>)]) -> Result<bool, StoreError> {
    let row = |advance: &Advance| rows.iter().find(|(partition_id, ..)| *partition_id == advance.partition_id);
    let fenced: Vec<i32> = advances
        .iter()
        .filter(|advance| row(advance).is_none_or(|(_, epoch, _)| *epoch != advance.epoch.0))
        .map(|advance| advance.partition)
        .collect();
    if !fenced.is_empty() {
        return Err(StoreError::Fenced { partitions: fenced });
    }
    // All partitions of a batch move in one transaction: one tells for all.
    Ok(advances.iter().all(|advance| row(advance).is_some_and(|(.., next)| *next == Some(advance.to.0))))
}

/// Where state and output are kept. Calls are not cancel-safe: they are never put into `select!` or a timeout.
pub trait Store: Clone + Send + Sync + 'static {
    type Ingest: Ingest;
    type Refit: Refit;
    type Audit: Audit;
    type Rebuild: Rebuild;

    /// Takes partitions over: raises their epochs, which shuts every earlier owner out, and says where to go on. Waits for
    /// the open transaction of the owner before.
    fn claim(
        &self,
        topic: &Topic,
        partitions: &[i32],
        owner: &str,
    ) -> impl Future<Output = Result<Vec<Claim>, StoreError>> + Send;

    /// Begins the transaction of a batch with the fence: every partition is advanced if the epoch and the offset are still
    /// those of the claim.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where they are not, [`StoreError::Settings`] where the store was rebuilt with other settings;
    /// nothing is changed then.
    fn begin_ingest(&self, advances: &[Advance]) -> impl Future<Output = Result<Self::Ingest, StoreError>> + Send;

    /// Begins the transaction of a batch that is replayed, as [`begin_ingest`](Store::begin_ingest) does, but alone: no other
    /// batch is under way while it lasts, so that none retracts an experiment unseen that the replay puts in.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] as there.
    fn begin_replay(&self, advance: &Advance) -> impl Future<Output = Result<Self::Ingest, StoreError>> + Send;

    /// The rows of `rejected_events` that a selection takes, in their order.
    fn rejected_rows(
        &self,
        selection: &RejectedSelection,
    ) -> impl Future<Output = Result<Vec<RejectedRef>, StoreError>> + Send;

    /// The messages of these rows, each with all of its rows, in their order. Every message is named by one row only.
    fn rejected_messages(
        &self,
        rows: &[RejectedRef],
    ) -> impl Future<Output = Result<Vec<RejectedMessage>, StoreError>> + Send;

    /// Whether a commit whose answer was lost has been made.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another owner has been there since.
    fn is_committed(&self, advances: &[Advance]) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Has a partition not be read any more, by its owner's word.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where it has another owner.
    fn halt(&self, halt: &Halt) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Every partition that was ever claimed, by topic and number.
    fn partitions(&self) -> impl Future<Output = Result<Vec<PartitionStatus>, StoreError>> + Send;

    /// Has a halted partition be read again, where it stopped. Whether it was halted.
    fn resume(&self, partition_id: i64) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Has a partition go on further ahead, and leaves a row that says so. Its owner is fenced, and claims it again; if it
    /// was halted it is not any more. Returns where it would have gone on, or `None` where that is not before `to`: then
    /// nothing is changed.
    fn skip(&self, skip: &Skip) -> impl Future<Output = Result<Option<Skipped>, StoreError>> + Send;

    /// Populations whose counters moved since their last refit, or for which one was asked.
    fn populations_with_news(&self) -> impl Future<Output = Result<Vec<PopulationName>, StoreError>> + Send;

    /// Makes it news of these populations that they are to be refitted.
    fn ask_for_refits(&self, populations: &[PopulationName]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Begins a refit; `None` where another worker has the population.
    ///
    /// # Errors
    /// [`StoreError::Settings`] where the store was rebuilt with other settings.
    fn begin_refit(
        &self,
        population: &PopulationName,
    ) -> impl Future<Output = Result<Option<Self::Refit>, StoreError>> + Send;

    /// Populations that wait for a whole publish, or for diagnostics of all of their blocks because these are older than
    /// `diagnosed_before` and blocks have changed since. A pass that another worker is at does not wait; one that the owner
    /// itself has left does.
    fn due_passes(
        &self,
        diagnosed_before: OffsetDateTime,
        owner: &str,
    ) -> impl Future<Output = Result<Vec<DuePass>, StoreError>> + Send;

    /// Takes a population for a pass through its blocks, with the fit that is to be published and where to go on; `None`
    /// where another worker is at it. Returns once no ingest is under way that has read an earlier fit.
    ///
    /// # Errors
    /// [`StoreError::Settings`] where the store was rebuilt with other settings.
    fn begin_pass(
        &self,
        population: &PopulationName,
        owner: &str,
    ) -> impl Future<Output = Result<Option<Pass>, StoreError>> + Send;

    /// The population's blocks after an experiment, in key order, at most `limit`.
    fn blocks_after(
        &self,
        population: &PopulationName,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<BlockToPublish>, StoreError>> + Send;

    /// Writes one page of a whole publish and moves its cursor: rows whose block is still the one that was read and whose
    /// fit is older. Returns how many rows changed, or `None` where the pass was taken by another worker.
    fn write_estimates(
        &self,
        pass: &Pass,
        rows: &[EstimateRow],
        commits: &[i64],
        cursor: &str,
    ) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// A population's cells, outside of any refit.
    fn population_state(
        &self,
        population: &PopulationName,
    ) -> impl Future<Output = Result<RefitState, StoreError>> + Send;

    /// Ends a pass, with what it found where it saw every block.
    fn end_pass(
        &self,
        pass: &Pass,
        diagnostics: Option<&(CellDiagnostics, PassDiagnostics)>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Every population as it stands: for metrics, the status page and the demo.
    fn current_populations(&self) -> impl Future<Output = Result<Vec<CurrentPopulation>, StoreError>> + Send;

    /// The latest fits of a population, in the order of [`Correlation::ALL`](shrinkd_model::Correlation::ALL).
    fn current_fits(
        &self,
        population: &PopulationName,
    ) -> impl Future<Output = Result<Vec<CurrentFit>, StoreError>> + Send;

    /// The effects of a population that have shrunken estimates, by experiment and variant. All at once: for the demo.
    fn published_effects(
        &self,
        population: &PopulationName,
    ) -> impl Future<Output = Result<Vec<PublishedEffect>, StoreError>> + Send;

    /// Begins to read everything as of one moment, beside the workers and without a lock that they would wait for.
    fn begin_audit(&self) -> impl Future<Output = Result<Self::Audit, StoreError>> + Send;

    /// Begins the transaction of a rebuild: waits for all batches, refits and pages under way, and keeps those that come
    /// until it has ended. The settings of the store become those that it was opened with, and its cells and counters go.
    /// Also returns the settings that it had; a store that nobody has filled has none.
    fn begin_rebuild(&self) -> impl Future<Output = Result<(Self::Rebuild, Option<StoreSettings>), StoreError>> + Send;

    /// Whether the store answers.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The transaction of one batch.
pub trait Ingest: Send {
    /// What is stored of these experiments, locked in the order of their ids.
    fn experiments(
        &mut self,
        experiment_ids: &BTreeSet<String>,
    ) -> impl Future<Output = Result<BTreeMap<String, StoredExperiment>, StoreError>> + Send;

    /// The published fits of these populations; those that are new to the store are put in.
    fn published_fits(
        &mut self,
        populations: &BTreeSet<PopulationName>,
    ) -> impl Future<Output = Result<BTreeMap<PopulationName, PublishedFit>, StoreError>> + Send;

    /// Writes everything but the estimates.
    fn write_changes(&mut self, changes: &Changes) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// Writes the estimates of changed blocks, and removes those that no longer stand for anything.
    fn write_estimates(
        &mut self,
        changes: &Changes,
        rows: &[EstimateRow],
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// Which of these refused messages (a row of theirs, and the experiment that they speak of) stand before the tombstone of
    /// their experiment: in its partition where they share one, else in time.
    fn retracted(
        &mut self,
        messages: &[(i64, String)],
    ) -> impl Future<Output = Result<BTreeSet<i64>, StoreError>> + Send;

    /// Notes what came of a replay. A row that was taken before stays as it is.
    fn write_replayed(&mut self, rows: &[ReplayedRow]) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The transaction of one refit. Everything is read as of one moment.
pub trait Refit: Send {
    fn state(&mut self) -> impl Future<Output = Result<RefitState, StoreError>> + Send;

    /// Writes the fits under every model of correlation, the settings that they were made with, and what follows for the published rows.
    fn write(
        &mut self,
        state: &RefitState,
        fits: &[FitRow],
        fit_settings: &str,
        publication: &Publication,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Where a partition would have gone on before records were passed over; `None` for its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    pub from: Option<NextOffset>,
}

/// The transaction of a rebuild: a batch of all that is stored, page by page, under one partition.
pub trait Rebuild: Ingest {
    fn count_experiments(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// What is stored of the experiments after this one, in key order, of at most `limit` of them.
    fn experiments_after(
        &mut self,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<BTreeMap<String, StoredExperiment>, StoreError>> + Send;

    /// What the estimates of each block say of it, by population and experiment, of the experiments after one up to another.
    fn raw_estimates(
        &mut self,
        after: &str,
        last: &str,
    ) -> impl Future<Output = Result<RawEstimates, StoreError>> + Send;

    /// Once all is written: removes estimates without a block and populations without one, whose number it returns, and
    /// makes it news of the others that they are to be refitted and diagnosed.
    fn sweep(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

/// By population and experiment, in the order of the variants.
pub type RawEstimates = BTreeMap<(String, String), Vec<RawEstimate>>;

/// Rows written, by table.
pub type Written = Vec<(&'static str, u64)>;

/// Whether a fit is to be published.
#[derive(Debug, Clone, PartialEq)]
pub enum Publication {
    /// The published rows are near enough to it.
    NotDue,
    /// It is appended to the history, with what the cells say of the population where it has a posterior, and every row is
    /// to be written anew.
    Due(Option<CellDiagnostics>),
    /// It should be, but the publish before it is still under way: the population keeps its news until that has ended.
    Postponed,
}

/// A population's cells and what hangs on them, as of one moment.
#[derive(Debug, Clone)]
pub struct RefitState {
    pub sketches: Sketches,
    pub counters: Counters,
    /// What the last publish was judged by; `None` where there was none.
    pub published: Option<Judged>,
    /// Whether a whole publish is under way: the next waits for its end.
    pub is_publishing: bool,
    /// How far each partition had been taken in: topic, partition, next offset.
    pub input_offsets: Vec<(String, i32, i64)>,
}

/// A population that waits for a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePass {
    pub population: PopulationName,
    /// Whether its blocks are to be diagnosed too.
    pub is_diagnosis_due: bool,
}

/// A pass through all blocks of a population.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    pub population: PopulationName,
    pub owner: String,
    /// The published fit.
    pub fit: PublishedFit,
    /// Whether rows are to be written; otherwise the pass only diagnoses.
    pub is_publish: bool,
    /// The last experiment that was published; empty at the beginning.
    pub cursor: String,
}
