//! Replays of refused messages, after the worker, its limits or the configuration have been fixed.
//!
//! Replayed messages are processed like all others: decoded, folded into the stored state, and committed with their
//! estimates. A replay owns a partition of its own, whose offset counts the replayed messages. Cells are written under that
//! partition, and a replay that starts later fences this one. Applying a message twice is a no-op, because of revisions and
//! event ids. A replay can therefore be killed and started again, and results of a message that were accepted in the first
//! place do not count twice.
//!
//! Tombstones need special care, because an experiment that was retracted as a whole is forgotten along with its revisions.
//! Messages that were refused before the tombstone of their experiment are not applied, and a refused tombstone is not
//! replayed, because it would also withdraw what was accepted after it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use shrinkd_core::{Grouping, KeyRule, Message, Outcome, Reason, Refusal, ReportedResult, decode, decode_keyed};
use tracing::debug;

use super::WorkerError;
use super::batch::{StepTimes, read_and_fold, write};
use super::fold::Folded;
use super::source::Record;
use super::supervise::owner;
use crate::row::replay::{RejectedMessage, RejectedRef, RejectedResult, RejectedSelection, ReplayOutcome, ReplayedRow};
use crate::store::{Store, StoreError};
use crate::stream::{Advance, Claim, FILE_CLUSTER, NextOffset, REPLAY_CLUSTER, Topic};

/// The limits of a batch. All other batches wait while it is committed.
const BATCH_MESSAGES: usize = 500;
const BATCH_BYTES: i64 = 4 << 20;

/// The only partition of the topic of refused messages.
const PARTITION: i32 = 0;

/// Why a replay ended early. What it has committed is kept.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("rejected_events has no row {0}: nothing was replayed")]
    NoSuchRow(i64),
    #[error("another replay was started, which replays the remaining messages")]
    Overtaken,
    #[error(transparent)]
    Worker(WorkerError),
}

impl<E: Into<WorkerError>> From<E> for ReplayError {
    fn from(error: E) -> ReplayError {
        match error.into() {
            WorkerError::Store(StoreError::Fenced { .. }) => ReplayError::Overtaken,
            error => ReplayError::Worker(error),
        }
    }
}

/// The outcome for one row of `rejected_events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The reason code that the row had.
    pub reason: String,
    pub outcome: ReplayOutcome,
}

/// A replay in progress.
pub struct Replay {
    store: Store,
    grouping: Arc<Grouping>,
    max_populations: u64,
    key: KeyRule,
    /// `None` for a dry run.
    claim: Option<Claim>,
    /// One row for each message that is left, in reverse order.
    left: Vec<RejectedRef>,
}

impl Replay {
    /// Selects the messages to replay; messages that are refused later are not included. Fences any replay in progress, unless
    /// this is a dry run.
    ///
    /// # Errors
    /// If the store fails, or the selection names a row that does not exist.
    pub async fn begin(
        store: Store,
        grouping: Grouping,
        max_populations: u64,
        key: KeyRule,
        selection: &RejectedSelection,
        is_dry_run: bool,
    ) -> Result<Replay, ReplayError> {
        let claim = match is_dry_run {
            true => None,
            // There is one claim for each partition.
            false => store.claim(&topic(), &[PARTITION], &owner()).await?.pop(),
        };
        let mut left = store.rejected_rows(selection).await?;
        if let RejectedSelection::Ids(ids) = selection {
            let found: BTreeSet<i64> = left.iter().map(|row| row.rejected_event_id).collect();
            if let Some(missing) = ids.iter().find(|id| !found.contains(id)) {
                return Err(ReplayError::NoSuchRow(*missing));
            }
        }
        let mut seen = HashSet::new();
        left.retain(|row| seen.insert((row.partition_id, row.offset)));
        left.reverse();
        Ok(Replay { store, grouping: Arc::new(grouping), max_populations, key, claim, left })
    }

    /// How many messages are left.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// Replays the next messages in one transaction, and returns the outcome for each of their rows. `None` if no message is
    /// left. The outcomes of a dry run follow from the current state of the store, without the changes that earlier batches of
    /// the dry run would have made.
    ///
    /// # Errors
    /// If the store fails, or another replay was started.
    pub async fn next(&mut self) -> Result<Option<Vec<Replayed>>, ReplayError> {
        let batch = self.batch();
        if batch.is_empty() {
            return Ok(None);
        }
        let messages = self.store.rejected_messages(&batch).await?;
        let records: Arc<Vec<Record>> =
            Arc::new(messages.iter().zip(0..).map(|(message, place)| record(message, place, self.key)).collect());
        let mut steps = StepTimes::new(Instant::now());
        let mut transaction = match self.advance(batch.len()) {
            Some(advance) => self.store.begin_replay(&advance).await?,
            None => self.store.begin_ingest(&[]).await?,
        };
        steps.record("begin");
        let named = messages.iter().zip(records.iter()).filter_map(|(message, record)| match &record.message {
            Ok(Message::Event(event)) => Some((message.rejected_event_id, event.experiment_id.clone())),
            _ => None,
        });
        let retracted = transaction.retracted(&named.collect::<Vec<_>>()).await?;
        let is_taken: Vec<bool> = messages
            .iter()
            .zip(records.iter())
            .map(|(message, record)| {
                matches!(record.message, Ok(Message::Event(_))) && !retracted.contains(&message.rejected_event_id)
            })
            .collect();
        let partition_id = self.claim.map_or(0, |claim| claim.partition_id);
        let is_ours = move |record: &Record| {
            let is_taken = is_taken.get(usize::try_from(record.offset).ok()?)?;
            is_taken.then_some(partition_id)
        };
        let folded =
            read_and_fold(&mut transaction, &records, &self.grouping, self.max_populations, is_ours, &mut steps)
                .await?;
        let Folded { mut changes, outcomes, .. } = folded;
        // What is refused again already has its row.
        let mut refused: BTreeMap<i64, Vec<(Option<i32>, Refusal)>> = BTreeMap::new();
        for row in changes.rejected.drain(..) {
            refused.entry(row.offset).or_default().push((row.result_index, row.refusal));
        }
        let mut replayed = Vec::new();
        let mut rows = Vec::new();
        for ((message, record), outcomes) in messages.into_iter().zip(records.iter()).zip(&outcomes) {
            let is_retracted = retracted.contains(&message.rejected_event_id);
            let mut refusals = refused.remove(&record.offset).unwrap_or_default();
            // Those of whole results are the outcomes of these.
            refusals.retain(|(index, _)| !matches!(of_result(*index, outcomes), Some(Outcome::Refused(_))));
            refusals.extend(refused_of_duplicates(&record.message, outcomes));
            for row in &message.rows {
                let outcome = match refusal_of(row, &message.rows, &refusals) {
                    Some(refusal) => ReplayOutcome::Refused(refusal.clone()),
                    None => outcome(&record.message, is_retracted, row.result_index, outcomes),
                };
                rows.push(ReplayedRow { rejected_event_id: row.rejected_event_id, outcome: outcome.clone() });
                replayed.push(Replayed { reason: row.reason.clone(), outcome });
            }
        }
        if let Some(claim) = &mut self.claim {
            let to = next_offset(claim, batch.len());
            write(&mut transaction, changes, true, &mut steps).await?;
            transaction.write_replayed(&rows).await?;
            transaction.commit().await?;
            steps.record("commit");
            claim.next_offset = Some(to);
        }
        debug!(messages = batch.len(), rows = rows.len(), %steps, "replayed");
        self.left.truncate(self.left.len() - batch.len());
        Ok(Some(replayed))
    }

    /// The messages of the next batch.
    fn batch(&self) -> Vec<RejectedRef> {
        let mut bytes = 0;
        let next = self.left.iter().rev().take(BATCH_MESSAGES).take_while(|row| {
            let is_room = bytes == 0 || bytes + row.kept_bytes <= BATCH_BYTES;
            bytes += row.kept_bytes;
            is_room
        });
        next.cloned().collect()
    }

    fn advance(&self, messages: usize) -> Option<Advance> {
        let claim = self.claim.as_ref()?;
        let Claim { partition, partition_id, epoch, next_offset: from, .. } = *claim;
        Some(Advance { partition, partition_id, epoch, from, to: next_offset(claim, messages) })
    }
}

/// The topic under which replays own a partition.
fn topic() -> Topic {
    Topic {
        cluster_id: REPLAY_CLUSTER.to_owned(),
        name: "rejected_events".to_owned(),
        id: String::new(),
        partitions: 1,
    }
}

/// The next offset of the partition after that many more messages.
fn next_offset(claim: &Claim, messages: usize) -> NextOffset {
    NextOffset(claim.next_offset.map_or(0, |offset| offset.0) + messages as i64)
}

/// A message as its source would read it now. Its offset is its position in the batch.
fn record(message: &RejectedMessage, place: i64, rule: KeyRule) -> Record {
    let RejectedMessage { key, payload, payload_bytes, .. } = message;
    let kept = payload.as_ref().map_or(0, Vec::len);
    let decoded = match payload {
        _ if (kept as i64) < *payload_bytes => Err(Refusal::new(
            Reason::TooLarge,
            format!("only the first {kept} of the message's {payload_bytes} bytes were kept: send it again in parts"),
        )),
        Some(payload) if message.cluster_id == FILE_CLUSTER => decode(payload),
        payload => decode_keyed(rule, key.as_deref(), payload.as_deref()),
    };
    Record {
        partition: PARTITION,
        offset: place,
        produced_at: None,
        // These are only needed for new rows of rejected_events.
        key: None,
        payload: None,
        payload_bytes: kept,
        message: decoded,
    }
}

/// The treatments that a duplicate is without: the rows about them are those of the result that was accepted.
fn refused_of_duplicates(message: &Result<Message, Refusal>, outcomes: &[Outcome]) -> Vec<(Option<i32>, Refusal)> {
    let Ok(Message::Event(event)) = message else { return Vec::new() };
    let duplicates =
        event.results.iter().zip(outcomes).zip(0..).filter_map(|((result, outcome), index)| match result {
            Ok(ReportedResult::Whole { findings, .. }) if *outcome == Outcome::Duplicate => {
                Some((index, &findings.refused))
            }
            _ => None,
        });
    duplicates.flat_map(|(index, refused)| refused.iter().map(move |refusal| (Some(index), refusal.clone()))).collect()
}

/// Why a row stays refused although its result may be taken: the refusal of the whole message, of the treatment that the row is
/// about, or of one that has no row of its own.
fn refusal_of<'a>(
    row: &RejectedResult,
    rows: &[RejectedResult],
    refusals: &'a [(Option<i32>, Refusal)],
) -> Option<&'a Refusal> {
    let is_about = |row: &RejectedResult, index: Option<i32>, refusal: &Refusal| {
        row.result_index == index && row.variant.is_some() && row.variant == refusal.variant
    };
    let found = refusals.iter().find(|(index, refusal)| index.is_none() || is_about(row, *index, refusal));
    let without_row = || {
        refusals.iter().find(|(index, refusal)| {
            (row.result_index.is_none() || row.result_index == *index)
                && !rows.iter().any(|row| is_about(row, *index, refusal))
        })
    };
    found.or_else(without_row).map(|(_, refusal)| refusal)
}

/// The outcome of a result, or of the whole message if that was refused as a whole.
fn outcome(
    message: &Result<Message, Refusal>,
    is_retracted: bool,
    result_index: Option<i32>,
    outcomes: &[Outcome],
) -> ReplayOutcome {
    match message {
        Err(refusal) => ReplayOutcome::Refused(refusal.clone()),
        Ok(Message::Tombstone { .. }) => ReplayOutcome::Tombstone,
        Ok(Message::Event(_)) if is_retracted => ReplayOutcome::Retracted,
        Ok(Message::Event(_)) => {
            of_result(result_index, outcomes).map_or_else(|| message_outcome(outcomes), result_outcome)
        }
    }
}

fn of_result(index: Option<i32>, outcomes: &[Outcome]) -> Option<&Outcome> {
    outcomes.get(usize::try_from(index?).ok()?)
}

fn result_outcome(outcome: &Outcome) -> ReplayOutcome {
    match outcome {
        Outcome::Accepted => ReplayOutcome::Accepted,
        Outcome::Pending(_) => ReplayOutcome::Pending,
        Outcome::Duplicate => ReplayOutcome::Duplicate,
        Outcome::Stale => ReplayOutcome::Stale,
        Outcome::Refused(refusal) => ReplayOutcome::Refused(refusal.clone()),
    }
}

/// The outcome for the one row of a message that was refused as a whole. It stays refused while any of its results is, so
/// that no refusal is lost.
fn message_outcome(outcomes: &[Outcome]) -> ReplayOutcome {
    let mut refusals = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Refused(refusal) => Some(refusal),
        _ => None,
    });
    if let Some(refusal) = refusals.next() {
        let detail = match refusals.count() {
            0 => refusal.detail.clone(),
            more => format!("{} ({more} more of its results are refused)", refusal.detail),
        };
        return ReplayOutcome::Refused(Refusal { detail, ..refusal.clone() });
    }
    let is_any = |wanted: fn(&Outcome) -> bool| outcomes.iter().any(wanted);
    match outcomes {
        _ if is_any(|outcome| matches!(outcome, Outcome::Accepted)) => ReplayOutcome::Accepted,
        _ if is_any(|outcome| matches!(outcome, Outcome::Pending(_))) => ReplayOutcome::Pending,
        _ if is_any(|outcome| matches!(outcome, Outcome::Duplicate)) => ReplayOutcome::Duplicate,
        [] => ReplayOutcome::Accepted,
        _ => ReplayOutcome::Stale,
    }
}
