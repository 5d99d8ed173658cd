//! The ingest loop: commits one batch after another, each in one transaction together with its offsets.
//!
//! Of a partition only its claim is kept in memory, and it changes only after a commit. A batch that fails with a transient
//! error is retried with the records in memory. Any other error ends the loop, because no later batch may be committed
//! before the failed one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::{Counts, Grouping, Reason, Refusal, UnknownField, Warning, WarningCode};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::WorkerError;
use super::batch::{StepTimes, free, read_and_fold, write};
use super::catch_up::{Backlog, CatchUp};
use super::dead_letters::DeadLetters;
use super::fold::Folded;
use super::occasional::Occasional;
use super::retry::Retry;
use super::source::kafka::Commands;
use super::source::{Batch, Record, SourceEvent};
use crate::config::{CatchUpConfig, DeadLettersConfig};
use crate::row::{Halt, HaltReason};
use crate::store::{Store, StoreError, Written};
use crate::stream::{Advance, Claim, NextOffset};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Loop, Operation};
use crate::telemetry::metrics::Counted;

/// How often the loop reports itself alive while no events arrive.
const BEAT: Duration = Duration::from_secs(5);

/// What the loop takes, and how it takes it.
#[derive(Debug, Clone)]
pub struct IngestLimits {
    /// How many populations there may be.
    pub max_populations: u64,
    pub dead_letters: DeadLettersConfig,
    pub catch_up: CatchUpConfig,
}

/// The loop's state.
pub struct IngestLoop {
    store: Store,
    grouping: Arc<Grouping>,
    max_populations: u64,
    claims: BTreeMap<i32, Claim>,
    catch_up: CatchUp,
    dead_letters: DeadLetters,
    /// Commands to the source, which only Kafka takes.
    commands: Option<Commands>,
    telemetry: Telemetry,
    retry: Retry,
    refusals_logged: Occasional<Reason>,
    warnings_logged: Occasional<WarningCode>,
}

/// The result of a commit.
struct Committed {
    counts: Counts,
    /// Each with the offset of its message.
    rejected: Vec<(i64, Refusal)>,
    warnings: Vec<Warning>,
    unknown_fields: Vec<UnknownField>,
    written: Written,
    steps: StepTimes,
    elapsed: Duration,
}

impl IngestLoop {
    /// A loop that owns no partition yet.
    pub fn new(
        store: Store,
        grouping: Grouping,
        limits: IngestLimits,
        commands: Option<Commands>,
        telemetry: Telemetry,
        retry: Retry,
    ) -> IngestLoop {
        let (grouping, retry) = (Arc::new(grouping), retry.for_loops(&[Loop::Ingest]));
        let claims = BTreeMap::new();
        let IngestLimits { max_populations, dead_letters, catch_up } = limits;
        IngestLoop {
            store,
            grouping,
            max_populations,
            claims,
            catch_up: CatchUp::new(catch_up),
            dead_letters: DeadLetters::new(dead_letters),
            commands,
            telemetry,
            retry,
            refusals_logged: Occasional::new(),
            warnings_logged: Occasional::new(),
        }
    }

    /// Processes the events of the source until it ends.
    ///
    /// # Errors
    /// If the source cannot continue, or the store fails with an error that is not transient.
    pub async fn run(mut self, mut events: mpsc::Receiver<SourceEvent>) -> Result<(), WorkerError> {
        loop {
            self.telemetry.health.beat(Loop::Ingest);
            let event = match tokio::time::timeout(BEAT, events.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => continue,
            };
            match event {
                SourceEvent::Assigned(claims) => self.assign(claims),
                SourceEvent::Batch(batch) => {
                    self.telemetry.metrics.begin_batch();
                    self.ingest(batch).await?;
                    self.telemetry.metrics.end_batch();
                }
                SourceEvent::Revoked { partitions, drained } => {
                    info!(?partitions, "revoked");
                    self.release(&partitions);
                    // The source may have stopped waiting. That is safe: a late commit is fenced by the epoch.
                    let _ = drained.send(());
                }
                SourceEvent::OutOfRange { partition, detail } => {
                    self.halt(partition, HaltReason::OffsetOutOfRange, detail).await?;
                }
                SourceEvent::Ended => break,
                SourceEvent::Failed(error) => return Err(error.into()),
            }
        }
        for (reason, left_out) in self.refusals_logged.left_out() {
            info!(reason = reason.as_str(), left_out, "further refusals for this reason since its last line");
        }
        for (warning, left_out) in self.warnings_logged.left_out() {
            info!(warning = warning.as_str(), left_out, "further results with this warning since its last line");
        }
        self.telemetry.health.finish(Loop::Ingest);
        Ok(())
    }

    fn assign(&mut self, claims: Vec<Claim>) {
        let partitions: Vec<i32> = claims.iter().map(|claim| claim.partition).collect();
        if !partitions.is_empty() {
            info!(?partitions, "assigned");
        }
        self.dead_letters.forget(&partitions);
        for claim in claims {
            self.telemetry.metrics.set_halted(claim.partition, claim.is_halted);
            if claim.is_halted {
                warn!(partition = claim.partition, "halted: `shrinkd partitions` shows why, and how to resume it");
            } else {
                self.claims.insert(claim.partition, claim);
            }
        }
    }

    /// Commits a batch up to the dead-letter budget of each partition, and halts the partitions that exceed it.
    async fn ingest(&mut self, mut batch: Batch) -> Result<(), WorkerError> {
        let claims = &self.claims;
        let is_new = |record: &Record| {
            let claim = claims.get(&record.partition);
            claim.is_some_and(|claim| claim.next_offset.is_none_or(|next| record.offset >= next.0))
        };
        let judgement = self.dead_letters.judge(&mut batch, is_new);
        let exceeded = judgement.exceeded.clone();
        let is_catching_up = self.catch_up(&batch);
        self.commit_with_retries(batch, is_catching_up).await?;
        self.dead_letters.keep(judgement);
        for (partition, excess) in exceeded {
            let detail = format!("{excess}: see rejected_events for the reasons");
            self.halt(partition, HaltReason::DeadLetters, detail).await?;
        }
        Ok(())
    }

    /// Whether the estimates of a batch are left to a pass.
    fn catch_up(&mut self, batch: &Batch) -> bool {
        let partitions: Vec<i32> = self.claims.keys().copied().collect();
        let backlog = Backlog::after(batch, &partitions, &self.telemetry.lag);
        let was_catching_up = self.catch_up.is_on();
        let is_catching_up = self.catch_up.judge(backlog);
        if is_catching_up != was_catching_up {
            let (records, age) = backlog.map_or((0, 0), |backlog| (backlog.records, backlog.age.as_secs()));
            let what = if is_catching_up { "estimates follow later" } else { "estimates are written at once again" };
            info!(records, age_s = age, "catching up: {what}");
            self.telemetry.metrics.set_catching_up(is_catching_up);
        }
        is_catching_up
    }

    /// Commits a batch, with retries after transient errors, and without the partitions that turn out to be fenced.
    async fn commit_with_retries(
        &mut self,
        Batch { records, ends }: Batch,
        is_catching_up: bool,
    ) -> Result<(), WorkerError> {
        let records = Arc::new(records);
        loop {
            let advances = self.advances(&ends);
            if advances.is_empty() {
                return Ok(());
            }
            let mut is_retry = false;
            let committed = self.retry.run(Operation::Ingest, || {
                let is_retry = std::mem::replace(&mut is_retry, true);
                let (own, advances, records) = (&*self, &advances, &records);
                async move {
                    match is_retry && own.is_committed(advances).await {
                        true => Ok(None),
                        false => own.commit(advances, records, is_catching_up).await.map(Some),
                    }
                }
            });
            match committed.await {
                Ok(committed) => {
                    if let Some(committed) = committed {
                        self.report(&committed, &records);
                    }
                    self.advance(&advances);
                    free(records);
                    return Ok(());
                }
                // Fenced by itself: the response to the previous attempt was lost, and its commit took effect only now.
                Err(WorkerError::Store(StoreError::Fenced { .. })) if self.is_committed(&advances).await => {
                    self.advance(&advances);
                    return Ok(());
                }
                Err(WorkerError::Store(StoreError::Fenced { partitions })) => {
                    warn!(
                        ?partitions,
                        "fenced: another worker has claimed these partitions, their records in memory are dropped"
                    );
                    self.telemetry.metrics.count_fenced();
                    self.park(&partitions).ok_or(StoreError::Fenced { partitions })?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops reading a partition until an operator resumes it. The others continue.
    async fn halt(&mut self, partition: i32, reason: HaltReason, detail: String) -> Result<(), WorkerError> {
        let Some(&claim) = self.claims.get(&partition) else { return Ok(()) };
        let halt = Halt { claim, reason, detail };
        match self.retry.run(Operation::Halt, || self.store.halt(&halt)).await {
            // Another worker owns the partition now, and will halt it for the same reason.
            Ok(()) | Err(StoreError::Fenced { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Halt { reason, detail, .. } = halt;
        error!(
            partition,
            reason = reason.as_str(),
            %detail,
            "halted: `shrinkd partitions` shows it, `shrinkd partitions resume {partition}` resumes it"
        );
        self.telemetry.metrics.set_halted(partition, true);
        self.park(&[partition]).ok_or(WorkerError::Halted(detail))
    }

    /// Stops reading partitions until the source has claimed them again. `None` if the source cannot do that.
    fn park(&mut self, partitions: &[i32]) -> Option<()> {
        self.claims.retain(|partition, _| !partitions.contains(partition));
        self.commands.as_ref()?.park(partitions);
        Some(())
    }

    /// The advances of the partitions of a batch that are still owned.
    fn advances(&self, ends: &[(i32, NextOffset)]) -> Vec<Advance> {
        let advance = |&(partition, to): &(i32, NextOffset)| {
            let Claim { partition_id, epoch, next_offset: from, .. } = *self.claims.get(&partition)?;
            (from < Some(to)).then_some(Advance { partition, partition_id, epoch, from, to })
        };
        ends.iter().filter_map(advance).collect()
    }

    fn advance(&mut self, advances: &[Advance]) {
        for advance in advances {
            if let Some(claim) = self.claims.get_mut(&advance.partition) {
                claim.next_offset = Some(advance.to);
            }
        }
        let ends: Vec<(i32, NextOffset)> = advances.iter().map(|advance| (advance.partition, advance.to)).collect();
        self.telemetry.lag.committed(&ends.iter().map(|&(partition, next)| (partition, next.0)).collect::<Vec<_>>());
        if let Some(commands) = &self.commands {
            commands.commit(&ends);
        }
    }

    fn release(&mut self, partitions: &[i32]) {
        self.claims.retain(|partition, _| !partitions.contains(partition));
        if self.claims.is_empty() {
            self.catch_up.end();
            self.telemetry.metrics.set_catching_up(false);
        }
        self.dead_letters.forget(partitions);
    }

    fn report(&mut self, committed: &Committed, records: &[Record]) {
        let Committed { counts, rejected, warnings, unknown_fields, written, steps, elapsed } = committed;
        let now = Instant::now();
        for (offset, refusal @ Refusal { reason, detail, .. }) in rejected {
            self.telemetry.refusals.count(*offset, refusal);
            if let Some(left_out) = self.refusals_logged.take(*reason, now) {
                info!(reason = reason.as_str(), left_out, "refused: {detail}");
            }
        }
        for Warning { code, detail } in warnings {
            if let Some(left_out) = self.warnings_logged.take(*code, now) {
                info!(warning = code.as_str(), left_out, "taken with a warning: {detail}");
            }
        }
        let metrics = &self.telemetry.metrics;
        metrics.count_batch(counts, &rejected.iter().map(|(_, refusal)| refusal.reason).collect::<Vec<_>>());
        metrics.count_warnings(&warnings.iter().map(|warning| warning.code).collect::<Vec<_>>());
        for field in unknown_fields {
            match metrics.count_unknown_field(&field.name) {
                Counted::First => info!("unknown field: {field}"),
                Counted::FirstOfOthers => {
                    info!("unknown field: {field}; further names are not logged, and counted under (other)");
                }
                Counted::Again => {}
            }
        }
        metrics.observe_commit(*elapsed);
        for (table, rows) in written {
            metrics.count_rows_written(table, *rows);
        }
        for record in records {
            if let Some(produced_at) = record.produced_at {
                metrics.observe_event_age(produced_at);
            }
        }
        debug!(?counts, ?written, %steps, elapsed_ms = elapsed.as_millis() as u64, "committed");
    }

    /// Whether a commit took effect although its response was lost. If that is unknown, the fence decides at the next
    /// attempt.
    async fn is_committed(&self, advances: &[Advance]) -> bool {
        let is_committed = self.store.is_committed(advances).await.unwrap_or(false);
        if is_committed {
            info!("the previous attempt was committed, only its response was lost");
        }
        is_committed
    }

    async fn commit(
        &self,
        advances: &[Advance],
        records: &Arc<Vec<Record>>,
        is_catching_up: bool,
    ) -> Result<Committed, WorkerError> {
        let started = Instant::now();
        let partitions: BTreeMap<i32, Advance> = advances.iter().map(|advance| (advance.partition, *advance)).collect();
        let mut transaction = self.store.begin_ingest(advances).await?;
        // Skip the records of partitions that another worker owns, and records that were committed before.
        let is_ours = move |record: &Record| {
            let advance = partitions.get(&record.partition)?;
            let is_new = advance.from.is_none_or(|from| record.offset >= from.0);
            is_new.then_some(advance.partition_id)
        };
        let mut steps = StepTimes::new(started);
        steps.record("begin");
        let Folded { changes, counts, warnings, unknown_fields, .. } =
            read_and_fold(&mut transaction, records, &self.grouping, self.max_populations, is_ours, &mut steps).await?;
        let rejected = changes.rejected.iter().map(|row| (row.offset, row.refusal.clone())).collect();
        let written = write(&mut transaction, changes, !is_catching_up, &mut steps).await?;
        transaction.commit().await?;
        steps.record("commit");
        Ok(Committed { counts, rejected, warnings, unknown_fields, written, steps, elapsed: started.elapsed() })
    }
}
