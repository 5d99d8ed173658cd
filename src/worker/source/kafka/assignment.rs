//! The partitions that the group has assigned to this member: claimed in the store, read, parked, and revoked.
//!
//! A parked partition is assigned and not read: because another owner has taken it over, because it is halted, or because
//! the broker does not have the record at which it continues. Parked partitions are claimed again every few seconds. So one
//! that an operator has resumed is read again, and one whose claims crossed (a stalled member may claim after the group has
//! moved on) ends up with the member to which the group assigns it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::claimer::Claimer;
use super::commands::Commands;
use super::outbox::Outbox;
use super::{native, watermarks};
use crate::stream::{Claim, NextOffset};
use crate::telemetry::Telemetry;
use crate::telemetry::health::Operation;
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
/// How long a partition stays parked before it is claimed again. A member that the group has dropped learns of it with its
/// next heartbeat; this is longer, so that it does not take the partition from its new owner.
const PARK_DURATION: Duration = Duration::from_secs(5);
/// How long after partitions were found to be out of range more errors about them may arrive.
const OUT_OF_RANGE_ECHO: Duration = Duration::from_secs(30);

/// The partitions that are owned, and the records read of them that the worker does not have yet.
pub(super) struct Assignment {
    topic: String,
    claimer: Claimer,
    drain_budget: Duration,
    /// The next offset of each partition that is read; `None` at its beginning.
    positions: BTreeMap<i32, Option<NextOffset>>,
    /// Parked partitions, and when each is claimed again.
    parked: BTreeMap<i32, Instant>,
    /// When partitions were last found to be out of range.
    out_of_range_at: Option<Instant>,
    assembly: Assembly,
    outbox: Outbox,
    commands: Commands,
    telemetry: Telemetry,
    /// Whether all partitions are paused, because the worker's channel has been full for too long.
    is_paused: bool,
    /// Whether the group has assigned partitions to this worker, even if it is none, and has not dropped it since.
    is_member: bool,
    /// Whether the brokers have refused to let this worker read, and nothing was read since.
    is_refused: bool,
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
        telemetry: Telemetry,
        drain_budget: Duration,
    ) -> Assignment {
        Assignment {
            topic,
            claimer,
            drain_budget,
            positions: BTreeMap::new(),
            parked: BTreeMap::new(),
            out_of_range_at: None,
            assembly,
            outbox,
            commands,
            telemetry,
            is_paused: false,
            is_member: false,
            is_refused: false,
            is_stopping: false,
            failure: None,
        }
    }

    /// Claims partitions, and starts to read them at the offsets of their claims. Nothing is read without a claim.
    pub(super) fn assign(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, partitions: &[i32]) {
        let claims = if partitions.is_empty() || self.is_stopping || self.failure.is_some() {
            Vec::new()
        } else {
            self.claim(partitions)
        };
        let claim = |partition: i32| claims.iter().find(|claim| claim.partition == partition);
        let starts: Vec<(i32, Option<NextOffset>)> = match self.is_stopping || self.failure.is_some() {
            // Even if there is nothing to read: the group waits for the answer.
            true => Vec::new(),
            false => partitions.iter().map(|&it| (it, claim(it).and_then(|claim| claim.next_offset))).collect(),
        };
        if let Err(error) = self.assign_at(consumer, &starts) {
            let message = format!("cannot start to read partitions {partitions:?} of {}: {error}", self.topic);
            self.failure.get_or_insert(SourceError::Kafka(message));
            return;
        }
        let is_read = |partition: &i32| claim(*partition).is_some_and(|claim| !claim.is_halted);
        let (read, others): (Vec<i32>, Vec<i32>) = starts.iter().map(|(it, _)| *it).partition(is_read);
        self.positions.extend(starts.into_iter().filter(|(partition, _)| read.contains(partition)));
        self.mark_parked(consumer, &others);
        self.is_member = true;
        self.report_assigned(&claims);
        // Even if it is empty: then this member knows that others own everything.
        self.outbox.send(SourceEvent::Assigned(claims));
    }

    /// Claims partitions. If the brokers do not say which topic has the name now, nothing is claimed, and it is tried again
    /// later: they cannot be reached, or do not let this worker ask.
    fn claim(&mut self, partitions: &[i32]) -> Vec<Claim> {
        match self.claimer.claim(partitions) {
            Ok(claims) => return claims,
            Err(SourceError::Kafka(reason)) => {
                tracing::warn!(?partitions, "not claimed, will try again: {reason}");
                self.telemetry.health.failed(Operation::Claim, reason);
            }
            Err(error) => drop(self.failure.get_or_insert(error)),
        }
        Vec::new()
    }

    /// Measures the lag of claimed partitions from now on. The group has answered, even if nothing was left to claim.
    fn report_assigned(&self, claims: &[Claim]) {
        let offset = |claim: &Claim| (claim.partition, claim.next_offset.map(|NextOffset(next)| next));
        self.telemetry.lag.assigned(&claims.iter().map(offset).collect::<Vec<_>>());
        self.telemetry.health.succeeded(Operation::Group);
    }

    /// Assigns partitions at these offsets, in addition to those that are assigned already.
    fn assign_at(
        &self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        starts: &[(i32, Option<NextOffset>)],
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in starts {
            list.add_partition_offset(&self.topic, *partition, start(*next))?;
        }
        // Before they are assigned: a partition that was paused when it was revoked comes back paused, because librdkafka
        // keeps the flag.
        consumer.resume(&list)?;
        if let RebalanceProtocol::Cooperative = consumer.rebalance_protocol() {
            consumer.incremental_assign(&list)?;
        } else {
            // The eager protocol replaces the whole assignment: the others are assigned again, and stay where they are.
            let is_other = |partition: &&i32| !starts.iter().any(|(start, _)| start == *partition);
            for (partition, position) in self.positions.iter().filter(|(partition, _)| is_other(partition)) {
                list.add_partition_offset(&self.topic, *partition, start(*position))?;
            }
            let parked: Vec<i32> = self.parked.keys().filter(is_other).copied().collect();
            for partition in &parked {
                list.add_partition_offset(&self.topic, *partition, Offset::Beginning)?;
            }
            consumer.assign(&list)?;
            consumer.pause(&partition_list(&self.topic, &parked))?;
        }
        if self.is_paused { consumer.pause(&list) } else { Ok(()) }
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
        let owned: Vec<i32> = self.positions.keys().chain(self.parked.keys()).copied().collect();
        self.release(consumer, &owned);
        self.is_stopping = true;
        self.outbox.take()
    }

    /// Hands what was read of some partitions to the worker, waits until it has committed them, and gives them up.
    ///
    /// The worker has as long as the drain budget allows. If the group has reassigned the partitions already, what was read
    /// of them is discarded: the next owner reads it again.
    fn release(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, partitions: &[i32]) {
        let is_owned = |partition: &&i32| self.positions.contains_key(partition) || self.parked.contains_key(partition);
        let partitions: Vec<i32> = partitions.iter().filter(is_owned).copied().collect();
        if partitions.is_empty() {
            return;
        }
        let is_lost = consumer.assignment_lost();
        tracing::info!(?partitions, is_lost, "revoked");
        if is_lost {
            self.is_member = false;
            let reason = "the group has dropped this worker: it has not heard from it in time, or no broker answers";
            self.telemetry.health.failed(Operation::Group, reason);
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
        self.telemetry.lag.released(&partitions);
        self.positions.retain(|partition, _| !partitions.contains(partition));
        self.parked.retain(|partition, _| !partitions.contains(partition));
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
        let Some(position) = self.positions.get_mut(&record.partition).filter(|_| !self.is_stopping) else { return };
        let next = NextOffset(record.offset.saturating_add(1));
        if std::mem::take(&mut self.is_refused) {
            self.telemetry.health.succeeded(Operation::Fetch);
        }
        if position.is_some_and(|position| next <= position) {
            return;
        }
        *position = Some(next);
        self.telemetry.lag.read(record.partition, next.0, record.produced_at);
        self.assembly.push(record, next);
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
        // Parked partitions stay paused.
        let partitions = partition_list(&self.topic, self.positions.keys());
        let changed = if is_paused { consumer.pause(&partitions) } else { consumer.resume(&partitions) };
        match (changed, is_paused) {
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
                let owned: Vec<i32> = self.positions.keys().copied().collect();
                self.failure = self.claimer.claim(&owned).err();
                return false;
            }
            Err(reason) => {
                tracing::warn!("a batch waits until the id of the topic {} is confirmed: {reason}", self.topic);
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
        let partitions: Vec<i32> = partitions.into_iter().filter(|it| self.positions.contains_key(it)).collect();
        if partitions.is_empty() {
            return;
        }
        // What was read of them and is not with the worker yet is read again once they are claimed again.
        self.assembly.discard(&partitions);
        self.outbox.discard(&partitions);
        self.mark_parked(consumer, &partitions);
    }

    /// Finds the partitions whose next offset the broker does not have (any more, or yet), reports them, and parks them.
    ///
    /// Each partition reports an error of its own, which does not name it: the first one parks all of them, and those that follow
    /// find nothing.
    ///
    /// # Errors
    /// If there is none: then it is unknown what cannot be read. `reason` is the sentence that came with the error.
    pub(super) fn park_out_of_range(
        &mut self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        reason: &str,
    ) -> Result<(), SourceError> {
        let (found, has_all) = watermarks::out_of_range(consumer, &self.topic, &self.positions);
        let is_known = has_all && self.out_of_range_at.is_some_and(|at| at.elapsed() < OUT_OF_RANGE_ECHO);
        if found.is_empty() && !is_known {
            return Err(SourceError::Kafka(format!("an offset of {} cannot be read: {reason}", self.topic)));
        }
        if !found.is_empty() {
            self.out_of_range_at = Some(Instant::now());
        }
        for (partition, detail) in found {
            if !self.hand_over() {
                // Read again once the partition is claimed again.
                self.assembly.discard(&[partition]);
            }
            self.outbox.send(SourceEvent::OutOfRange { partition, detail });
            self.mark_parked(consumer, &[partition]);
        }
        Ok(())
    }

    /// Reports an error of a consumer that the group has not assigned anything to yet: it is why.
    pub(super) fn keep_joining(&self, reason: &str) {
        if !self.is_member {
            self.telemetry.health.failed(Operation::Group, reason);
        }
    }

    /// Parks every partition, because the brokers refuse to let this worker read: librdkafka reports that only once, and not at
    /// all when it is over. So each is claimed and read again from time to time.
    pub(super) fn park_refused(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, reason: &str) {
        self.keep_joining(reason);
        let partitions: Vec<i32> = self.positions.keys().copied().collect();
        if partitions.is_empty() {
            return;
        }
        self.is_refused = true;
        self.telemetry.health.failed(Operation::Fetch, reason);
        if !self.hand_over() {
            self.assembly.discard(&partitions);
        }
        self.mark_parked(consumer, &partitions);
    }

    /// Stops reading partitions that stay assigned, and schedules their next claim.
    fn mark_parked(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, partitions: &[i32]) {
        if partitions.is_empty() {
            return;
        }
        self.positions.retain(|partition, _| !partitions.contains(partition));
        self.parked.extend(partitions.iter().map(|partition| (*partition, Instant::now() + PARK_DURATION)));
        if let Err(error) = consumer.pause(&partition_list(&self.topic, partitions)) {
            // They are fetched for nothing: their records are not accepted.
            tracing::warn!(?partitions, "cannot pause parked partitions: {error}");
        }
    }

    /// Claims the partitions again that have been parked for long enough.
    pub(super) fn claim_parked(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let now = Instant::now();
        let due: Vec<i32> = self.parked.iter().filter(|(_, due)| **due <= now).map(|(it, _)| *it).collect();
        // A worker without room would not learn of it, and a member that has lost its assignment has nothing to claim.
        if due.is_empty() || self.is_paused || self.is_stopping || consumer.assignment_lost() {
            return;
        }
        let claims = self.claim(&due);
        for partition in due.into_iter().filter(|due| !claims.iter().any(|claim| claim.partition == *due)) {
            self.parked.insert(partition, now + PARK_DURATION);
        }
        let mut read = Vec::new();
        for claim in claims {
            let partition = claim.partition;
            if claim.is_halted {
                self.parked.insert(partition, now + PARK_DURATION);
                continue;
            }
            match self.reassign(consumer, claim) {
                Ok(()) => {
                    self.parked.remove(&partition);
                    self.positions.insert(partition, claim.next_offset);
                    read.push(claim);
                }
                Err(error) => {
                    tracing::warn!(partition, "cannot continue at the offset of the claim, will try again: {error}");
                    self.mark_parked(consumer, &[partition]);
                }
            }
        }
        if !read.is_empty() {
            let partitions: Vec<i32> = read.iter().map(|claim| claim.partition).collect();
            tracing::info!(?partitions, "claimed again");
            self.report_assigned(&read);
            self.outbox.send(SourceEvent::Assigned(read));
        }
    }

    /// Reads a parked partition at the offset of its claim. A seek would not do: librdkafka does not fetch a partition again
    /// that has run out of range.
    fn reassign(&self, consumer: &BaseConsumer<impl ConsumerContext>, claim: Claim) -> KafkaResult<()> {
        if let RebalanceProtocol::Cooperative = consumer.rebalance_protocol() {
            consumer.incremental_unassign(&partition_list(&self.topic, &[claim.partition]))?;
        }
        self.assign_at(consumer, &[(claim.partition, claim.next_offset)])
    }

    /// Commits to Kafka what the worker has committed to the store.
    pub(super) fn commit_offsets(&self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let mut list = TopicPartitionList::new();
        for (partition, NextOffset(next)) in self.commands.take_commits() {
            if self.positions.contains_key(&partition) {
                // An offset of 0 or more is always valid.
                let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(next));
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!("Kafka's committed offsets, which only dashboards read, were not updated: {error}");
        }
    }

    /// Notes that a partition was read to its end, which is the high watermark of its last fetch.
    pub(super) fn reach_end(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, partition: i32) {
        let end = native::high_watermark(consumer.client().native_client(), &self.topic, partition);
        if let Some(end) = end.filter(|_| self.positions.contains_key(&partition)) {
            self.telemetry.lag.read_to_end(partition, end);
            if std::mem::take(&mut self.is_refused) {
                self.telemetry.health.succeeded(Operation::Fetch);
            }
        }
    }

    /// Whether any partition is read.
    pub(super) fn is_reading(&self) -> bool {
        !self.positions.is_empty()
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

/// Where reading starts.
fn start(next: Option<NextOffset>) -> Offset {
    next.map_or(Offset::Beginning, |NextOffset(next)| Offset::Offset(next))
}

/// Partitions of a topic, for librdkafka.
fn partition_list<'a>(topic: &str, partitions: impl IntoIterator<Item = &'a i32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
