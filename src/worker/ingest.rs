//! The ingest loop: one batch after the other, each in one transaction with the offsets that cover it.
//!
//! What is kept in memory of a partition is its claim, changed only after a commit; a batch that fails for a passing reason
//! is tried again from the records in hand. A failure that will not pass ends the loop: no later batch can be committed past
//! one that was not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrinkd_core::{Counts, Grouping, Reason};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::WorkerError;
use super::batch::{Steps, read_and_fold, write};
use super::dead_letters::DeadLetters;
use super::fold::Folded;
use super::lag::Lag;
use super::retry::Retry;
use super::source::kafka::Commands;
use super::source::{Batch, Record, SourceEvent};
use crate::row::{Halt, HaltReason};
use crate::store::{Advance, Store, StoreError, Written};
use crate::stream::{Claim, NextOffset};
use crate::telemetry::Telemetry;
use crate::telemetry::health::{Dependency, Loop};

/// How often the loop comes round where nothing happens.
const BEAT: Duration = Duration::from_secs(5);

/// The loop's state.
pub struct IngestLoop {
    store: Store,
    grouping: Arc<Grouping>,
    claims: BTreeMap<i32, Claim>,
    dead_letters: DeadLetters,
    /// Commands to the source, if it takes any: Kafka does.
    commands: Option<Commands>,
    telemetry: Telemetry,
    lag: Lag,
    retry: Retry,
}

/// What a commit did.
struct Committed {
    counts: Counts,
    rejected: Vec<Reason>,
    written: Written,
    steps: Steps,
    elapsed: Duration,
}

impl IngestLoop {
    /// A loop that owns nothing yet.
    pub fn new(
        store: Store,
        grouping: Grouping,
        dead_letters: DeadLetters,
        commands: Option<Commands>,
        telemetry: Telemetry,
        retry: Retry,
    ) -> IngestLoop {
        let (lag, claims) = (Lag::new(telemetry.metrics.clone()), BTreeMap::new());
        let (grouping, retry) = (Arc::new(grouping), retry.for_loop(Loop::Ingest));
        IngestLoop { store, grouping, claims, dead_letters, commands, telemetry, lag, retry }
    }

    /// Takes what the source says until it ends.
    ///
    /// # Errors
    /// Where the source cannot go on, or the store refuses a batch for good.
    pub async fn run(mut self, mut events: mpsc::Receiver<SourceEvent>) -> Result<(), WorkerError> {
        loop {
            self.telemetry.health.beat(Loop::Ingest);
            let event = match tokio::time::timeout(BEAT, events.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => continue,
            };
            match event {
                SourceEvent::Assigned(claims) => self.own(claims),
                SourceEvent::Batch(batch) => self.take(batch).await?,
                SourceEvent::Revoked { partitions, drained } => {
                    info!(?partitions, "given away");
                    self.release(&partitions);
                    // The source may have stopped waiting: the epoch shuts a late commit out.
                    let _ = drained.send(());
                }
                SourceEvent::OutOfRange { partition, detail } => {
                    self.halt(partition, HaltReason::OffsetOutOfRange, detail).await?;
                }
                SourceEvent::HighWatermarks(watermarks) => self.lag.reaches(&watermarks),
                SourceEvent::Ended => break,
                SourceEvent::Failed(error) => return Err(error.into()),
            }
        }
        self.telemetry.health.finish(Loop::Ingest);
        Ok(())
    }

    fn own(&mut self, claims: Vec<Claim>) {
        let partitions: Vec<i32> = claims.iter().map(|claim| claim.partition).collect();
        if !partitions.is_empty() {
            info!(?partitions, "assigned");
        }
        self.lag.assigned(&claims);
        self.dead_letters.forget(&partitions);
        self.telemetry.health.ready(Dependency::Source);
        for claim in claims {
            self.telemetry.metrics.set_halted(claim.partition, claim.is_halted);
            if claim.is_halted {
                warn!(partition = claim.partition, "halted: `shrinkd partitions` says why, and how it goes on");
            } else {
                self.claims.insert(claim.partition, claim);
            }
        }
    }

    /// Commits a batch as far as its dead letters are within their budget, and halts the partitions where they are not.
    async fn take(&mut self, mut batch: Batch) -> Result<(), WorkerError> {
        let claims = &self.claims;
        let is_new = |record: &Record| {
            let claim = claims.get(&record.partition);
            claim.is_some_and(|claim| claim.next_offset.is_none_or(|next| record.offset >= next.0))
        };
        let judgement = self.dead_letters.judge(&mut batch, is_new);
        let exceeded = judgement.exceeded.clone();
        self.take_whole(batch).await?;
        self.dead_letters.keep(judgement);
        for (partition, excess) in exceeded {
            let detail = format!("{excess}: rejected_events has them, with their reasons");
            self.halt(partition, HaltReason::DeadLetters, detail).await?;
        }
        Ok(())
    }

    /// Commits a batch, however often it has to be tried.
    async fn take_whole(&mut self, Batch { records, ends }: Batch) -> Result<(), WorkerError> {
        let records = Arc::new(records);
        loop {
            let advances = self.advances(&ends);
            if advances.is_empty() {
                return Ok(());
            }
            let mut is_retry = false;
            let committed = self.retry.run("ingest", || {
                let is_retry = std::mem::replace(&mut is_retry, true);
                let (own, advances, records) = (&*self, &advances, &records);
                async move {
                    match is_retry && own.is_committed(advances).await {
                        true => Ok(None),
                        false => own.commit(advances, records).await.map(Some),
                    }
                }
            });
            match committed.await {
                Ok(committed) => {
                    if let Some(committed) = committed {
                        self.report(&committed, &records);
                    }
                    self.advance(&advances);
                    return Ok(());
                }
                // Ours, where the answer to the attempt before was lost and its commit came through only now.
                Err(WorkerError::Store(StoreError::Fenced { .. })) if self.is_committed(&advances).await => {
                    self.advance(&advances);
                    return Ok(());
                }
                Err(WorkerError::Store(StoreError::Fenced { partitions })) => {
                    warn!(
                        ?partitions,
                        "fenced: another worker has claimed these partitions, and what was read of them is dropped"
                    );
                    self.telemetry.metrics.count_fenced();
                    self.park(&partitions).ok_or(StoreError::Fenced { partitions })?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops reading a partition until an operator has it go on; the others go on.
    async fn halt(&mut self, partition: i32, reason: HaltReason, detail: String) -> Result<(), WorkerError> {
        let Some(&claim) = self.claims.get(&partition) else { return Ok(()) };
        let halt = Halt { claim, reason, detail };
        match self.retry.run("halt", || self.store.halt(&halt)).await {
            // Its new owner will find what was found here.
            Ok(()) | Err(StoreError::Fenced { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Halt { reason, detail, .. } = halt;
        error!(partition, reason = reason.as_str(), %detail, "halted: `shrinkd partitions` has it go on");
        self.telemetry.metrics.set_halted(partition, true);
        self.park(&[partition]).ok_or(WorkerError::Halted(detail))
    }

    /// Stops reading partitions until the source has claimed them again; `None` if it cannot.
    fn park(&mut self, partitions: &[i32]) -> Option<()> {
        self.claims.retain(|partition, _| !partitions.contains(partition));
        self.commands.as_ref()?.park(partitions);
        Some(())
    }

    /// How far the batch moves the partitions that are still owned.
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
        self.lag.committed(&ends);
        if let Some(commands) = &self.commands {
            commands.commit(&ends);
        }
    }

    fn release(&mut self, partitions: &[i32]) {
        self.claims.retain(|partition, _| !partitions.contains(partition));
        self.dead_letters.forget(partitions);
        self.lag.released(partitions);
    }

    fn report(&mut self, committed: &Committed, records: &[Record]) {
        let Committed { counts, rejected, written, steps, elapsed } = committed;
        let Telemetry { metrics, health } = &self.telemetry;
        health.ready(Dependency::Store);
        metrics.count_batch(counts, rejected);
        metrics.observe_commit(*elapsed);
        for (table, rows) in written {
            metrics.count_rows_written(table, *rows);
        }
        for record in records {
            if let Some(produced_at) = record.produced_at {
                metrics.observe_event_age(produced_at);
                self.lag.produced(record.partition, produced_at);
            }
        }
        debug!(?counts, ?written, %steps, elapsed_ms = elapsed.as_millis() as u64, "committed");
    }

    /// Whether the commit whose answer was lost has arrived. Where that cannot be told, the fence will tell at the next try.
    async fn is_committed(&self, advances: &[Advance]) -> bool {
        let is_committed = self.store.is_committed(advances).await.unwrap_or(false);
        if is_committed {
            info!("the commit whose answer was lost had arrived");
        }
        is_committed
    }

    async fn commit(&self, advances: &[Advance], records: &Arc<Vec<Record>>) -> Result<Committed, WorkerError> {
        let started = Instant::now();
        let partitions: BTreeMap<i32, Advance> = advances.iter().map(|advance| (advance.partition, *advance)).collect();
        let mut transaction = self.store.begin_ingest(advances).await?;
        // What another worker has, or what was read again after a resumption, is not ours to fold.
        let is_ours = move |record: &Record| {
            let advance = partitions.get(&record.partition)?;
            let is_new = advance.from.is_none_or(|from| record.offset >= from.0);
            is_new.then_some(advance.partition_id)
        };
        let mut steps = Steps::new(started);
        steps.end("begin");
        let Folded { changes, counts, .. } =
            read_and_fold(&mut transaction, records, &self.grouping, is_ours, &mut steps).await?;
        let rejected = changes.rejected.iter().map(|row| row.refusal.reason).collect();
        let written = write(&mut transaction, changes, &mut steps).await?;
        transaction.commit().await?;
        steps.end("commit");
        Ok(Committed { counts, rejected, written, steps, elapsed: started.elapsed() })
    }
}
