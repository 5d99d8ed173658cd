//! The partitions that the group has assigned to this member, and the records on their way from them to the worker:
//! claimed in the store, read, handed over, and released.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::claimer::Claimer;
use super::commands::Commands;
use super::native;
use super::outbox::Outbox;
use super::partitions::Partitions;
use crate::stream::NextOffset;
use crate::worker::source::assembly::Assembly;
use crate::worker::source::{Record, SourceError, SourceEvent};

/// How long a poll waits if nothing else is due.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How often a full channel is tried again.
pub(super) const FULL_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long the channel may be full before the partitions are paused.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How often the worker's answer is looked for while it drains.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The partitions that are owned, and the records read of them that the worker does not have yet.
pub(super) struct Assignment {
    partitions: Partitions,
    claimer: Claimer,
    drain_budget: Duration,
    assembly: Assembly,
    outbox: Outbox,
    commands: Commands,
    /// Whether all partitions are paused, because the worker's channel has been full for too long.
    is_paused: bool,
    /// Whether the source is stopping: nothing is claimed and no record is accepted any more.
    is_stopping: bool,
    /// Why the source cannot continue.
    failure: Option<SourceError>,
}

impl Assignment {
    pub(super) fn new(
        topic: String,
        claimer: Claimer,
        assembly: Assembly,
        outbox: Outbox,
        commands: Commands,
        drain_budget: Duration,
    ) -> Assignment {
        Assignment {
            partitions: Partitions::new(topic),
            claimer,
            drain_budget,
            assembly,
            outbox,
            commands,
            is_paused: false,
            is_stopping: false,
            failure: None,
        }
    }

    /// Claims partitions, and starts to read them at the offsets of their claims. Nothing is read without a claim.
    pub(super) fn assign(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, partitions: &[i32]) {
        let claims = if partitions.is_empty() || self.is_stopping || self.failure.is_some() {
            Vec::new()
        } else {
            self.claimer.claim(partitions).unwrap_or_else(|error| {
                self.failure = Some(error);
                Vec::new()
            })
        };
        // Even if there is nothing to read: the group waits for the answer.
        if let Err(error) = self.partitions.assign(consumer, &claims, self.is_paused) {
            let topic = self.partitions.topic();
            let message = format!("cannot start to read partitions {partitions:?} of {topic}: {error}");
            self.failure.get_or_insert(SourceError::Kafka(message));
            return;
        }
        // Even if it is empty: then this member knows that others own everything.
        self.outbox.send(SourceEvent::Assigned(claims));
    }

    pub(super) fn revoke(
        &mut self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        partitions: &[i32],
        list: &TopicPartitionList,
    ) {
        self.release(consumer, partitions);
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        };
        if let Err(error) = unassigned {
            tracing::warn!("cannot unassign partitions {partitions:?}: {error}");
        }
    }

    /// Releases every partition, and returns the events that the worker does not have yet. Nothing is claimed or read
    /// afterwards.
    pub(super) fn stop(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) -> Outbox {
        let owned: Vec<i32> = self.partitions.all().collect();
        self.release(consumer, &owned);
        self.is_stopping = true;
        self.outbox.take()
    }

    /// Hands what was read of some partitions to the worker, waits until it has committed them, and gives them up.
    ///
    /// The worker has as long as the drain budget allows. If the group has reassigned the partitions already, what was read
    /// of them is discarded: the next owner reads it again.
    fn release(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, partitions: &[i32]) {
        let partitions: Vec<i32> = self.partitions.all().filter(|owned| partitions.contains(owned)).collect();
        if partitions.is_empty() {
            return;
        }
        let is_lost = consumer.assignment_lost();
        tracing::info!(?partitions, is_lost, "revoked");
        if is_lost {
            self.assembly.discard(&partitions);
            self.outbox.discard(&partitions);
        }
        if !self.hand_over() {
            tracing::warn!(?partitions, "the last records are discarded; the next owner reads them again");
            self.assembly.close();
        }
        let (drained, answer) = oneshot::channel();
        self.outbox.send(SourceEvent::Revoked { partitions: partitions.clone(), drained });
        if !is_lost && !self.wait_until_drained(answer) {
            tracing::warn!(?partitions, "not drained within the budget; the next owner reads the rest again");
            self.outbox.discard(&partitions);
        }
        self.commit_offsets(consumer);
        self.partitions.remove(&partitions);
    }

    /// Waits for the worker's answer within the drain budget. A worker that is gone will not commit anything any more, so
    /// there is nothing left to wait for.
    fn wait_until_drained(&mut self, mut answer: oneshot::Receiver<()>) -> bool {
        let deadline = Instant::now() + self.drain_budget;
        loop {
            self.outbox.flush();
            match answer.try_recv() {
                Ok(()) | Err(TryRecvError::Closed) => return true,
                Err(TryRecvError::Empty) if Instant::now() >= deadline => return false,
                Err(TryRecvError::Empty) => std::thread::sleep(DRAIN_POLL_INTERVAL),
            }
        }
    }

    /// Accepts a record, unless its partition is not read or it was read before.
    pub(super) fn accept(&mut self, record: Record) {
        let next = NextOffset(record.offset.saturating_add(1));
        if !self.is_stopping && self.partitions.advance(record.partition, next) {
            self.assembly.push(record, next);
        }
    }

    /// Hands over the batch if it is due, and returns how long the next poll may take; `None` to wait for the worker instead
    /// of polling.
    pub(super) fn poll_timeout(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) -> Option<Duration> {
        if !self.outbox.flush() {
            if !self.is_paused && self.outbox.full_for().is_none_or(|duration| duration < PAUSE_AFTER) {
                return None;
            }
            self.set_paused(consumer, true);
            return Some(FULL_POLL_INTERVAL);
        }
        if self.is_paused {
            if !self.outbox.is_half_empty() {
                return Some(FULL_POLL_INTERVAL);
            }
            self.set_paused(consumer, false);
        }
        let time_left = self.assembly.time_left();
        if time_left == Some(Duration::ZERO) {
            self.hand_over();
            return Some(Duration::ZERO);
        }
        Some(time_left.map_or(POLL_TIMEOUT, |time_left| time_left.min(POLL_TIMEOUT)))
    }

    fn set_paused(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, is_paused: bool) {
        if self.is_paused == is_paused {
            return;
        }
        match (self.partitions.set_paused(consumer, is_paused), is_paused) {
            (Ok(()), true) => tracing::info!("back pressure: partitions paused until the worker catches up"),
            (Ok(()), false) => tracing::info!("back pressure is over: partitions resumed"),
            // Tried again in the next turn.
            (Err(error), _) => {
                tracing::warn!(is_paused, "cannot pause or resume the partitions: {error}");
                return;
            }
        }
        self.is_paused = is_paused;
    }

    /// Hands the batch to the worker; false if it has to wait, because no broker confirms the identity of its topic.
    ///
    /// A topic can be deleted and created again under a consumer, and librdkafka then reads the new one at the old offsets.
    /// So a batch is handed over only once a broker has confirmed, after its last record was read, that the topic has the
    /// id under which it was claimed.
    fn hand_over(&mut self) -> bool {
        if self.assembly.is_empty() {
            return true;
        }
        if self.failure.is_some() {
            return false;
        }
        match self.claimer.is_same_topic() {
            Ok(true) => {}
            Ok(false) => {
                // The store rejects the new topic, and explains why.
                let owned: Vec<i32> = self.partitions.read().collect();
                self.failure = self.claimer.claim(&owned).err();
                return false;
            }
            Err(reason) => {
                tracing::warn!(
                    "a batch waits until the id of the topic {} is confirmed: {reason}",
                    self.partitions.topic()
                );
                return false;
            }
        }
        if let Some(batch) = self.assembly.close() {
            self.outbox.send(SourceEvent::Batch(batch));
        }
        true
    }

    /// Parks the partitions for which the worker has asked.
    pub(super) fn park_as_commanded(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let partitions = self.commands.take_parked();
        let partitions: Vec<i32> = partitions.into_iter().filter(|it| self.partitions.is_read(*it)).collect();
        if partitions.is_empty() {
            return;
        }
        // What was read of them and is not with the worker yet is read again once they are claimed again.
        self.assembly.discard(&partitions);
        self.outbox.discard(&partitions);
        self.partitions.park(consumer, &partitions);
    }

    /// Reports the partitions whose next offset the broker does not have, and parks them, after an error that says that there
    /// is one.
    ///
    /// # Errors
    /// If there is none: see [`Partitions::out_of_range`]. `reason` is the sentence that came with the error.
    pub(super) fn park_out_of_range(
        &mut self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        reason: &str,
    ) -> Result<(), SourceError> {
        let Some(found) = self.partitions.out_of_range(consumer) else {
            let topic = self.partitions.topic();
            return Err(SourceError::Kafka(format!("an offset of {topic} cannot be read: {reason}")));
        };
        for (partition, detail) in found {
            if !self.hand_over() {
                // Read again once the partition is claimed again.
                self.assembly.discard(&[partition]);
            }
            self.outbox.send(SourceEvent::OutOfRange { partition, detail });
            self.partitions.park(consumer, &[partition]);
        }
        Ok(())
    }

    /// Claims the partitions again that have been parked for long enough.
    pub(super) fn claim_parked(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let due = self.partitions.due(Instant::now());
        // A worker without room would not learn of it, and a member that has lost its assignment has nothing to claim.
        if due.is_empty() || self.is_paused || self.is_stopping || consumer.assignment_lost() {
            return;
        }
        let claims = match self.claimer.claim(&due) {
            Ok(claims) => claims,
            Err(error) => {
                self.failure.get_or_insert(error);
                return;
            }
        };
        let mut read = Vec::new();
        for claim in claims {
            let partition = claim.partition;
            if claim.is_halted {
                self.partitions.keep_parked(partition);
                continue;
            }
            match self.partitions.unpark(consumer, claim) {
                Ok(()) => read.push(claim),
                Err(error) => {
                    tracing::warn!(partition, "cannot continue at the offset of the claim, will try again: {error}");
                    self.partitions.park(consumer, &[partition]);
                }
            }
        }
        if !read.is_empty() {
            let partitions: Vec<i32> = read.iter().map(|claim| claim.partition).collect();
            tracing::info!(?partitions, "claimed again");
            self.outbox.send(SourceEvent::Assigned(read));
        }
    }

    /// Commits to Kafka what the worker has committed to the store.
    pub(super) fn commit_offsets(&self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let mut list = TopicPartitionList::new();
        for (partition, NextOffset(next)) in self.commands.take_commits() {
            if self.partitions.is_read(partition) {
                // An offset of 0 or more is always valid.
                let _ = list.add_partition_offset(self.partitions.topic(), partition, Offset::Offset(next));
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!("Kafka's committed offsets, which only dashboards read, were not updated: {error}");
        }
    }

    /// Reports the high watermarks of the partitions that are read, as of their last fetches.
    pub(super) fn report_high_watermarks(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let client = consumer.client().native_client();
        let topic = self.partitions.topic();
        let watermark = |partition| Some((partition, native::high_watermark(client, topic, partition)?));
        let watermarks: Vec<(i32, i64)> = self.partitions.read().filter_map(watermark).collect();
        if !watermarks.is_empty() {
            self.outbox.send_or_drop(SourceEvent::HighWatermarks(watermarks));
        }
    }

    /// Whether any partition is read.
    pub(super) fn is_reading(&self) -> bool {
        self.partitions.read().next().is_some()
    }

    /// Whether the source cannot continue, or the worker is gone.
    pub(super) fn is_over(&self) -> bool {
        self.failure.is_some() || self.outbox.is_closed()
    }

    /// Why the source cannot continue.
    pub(super) fn take_failure(&mut self) -> Option<SourceError> {
        self.failure.take()
    }
}
