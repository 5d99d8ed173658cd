//! The partitions that the group has assigned to this member, and the records on their way from them to the worker:
//! claimed in the store, read, handed over, and released.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::claimer::Claimer;
use super::commands::Commands;
use super::outbox::Outbox;
use super::partitions::Partitions;
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

/// The partitions that are owned, and the records read of them that the worker does not have yet.
pub(super) struct Assignment {
    partitions: Partitions,
    claimer: Claimer,
    drain_budget: Duration,
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
            partitions: Partitions::new(topic),
            claimer,
            drain_budget,
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
        let is_over = self.is_stopping || self.failure.is_some();
        let claims = if partitions.is_empty() || is_over { Vec::new() } else { self.claim(partitions) };
        // Even if there is nothing to read: the group waits for the answer.
        let partitions = if is_over || self.failure.is_some() { &[] } else { partitions };
        if let Err(error) = self.partitions.assign(consumer, partitions, &claims, self.is_paused) {
            let topic = self.partitions.topic();
            let message = format!("cannot start to read partitions {partitions:?} of {topic}: {error}");
            self.failure.get_or_insert(SourceError::Kafka(message));
            return;
        }
        self.is_member = true;
        self.report_assigned(&claims);
        // Even if it is empty: then this member knows that others own everything.
        self.outbox.send(SourceEvent::Assigned(claims));
    }

    /// Claims partitions. If the store does not answer, or the brokers do not say which topic has the name now, nothing is
    /// claimed, and it is tried again later.
    fn claim(&mut self, partitions: &[i32]) -> Vec<Claim> {
        match self.claimer.claim(partitions) {
            Ok(claims) => return claims,
            Err(SourceError::Unavailable(reason)) => {
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
        self.report_fetched();
        if !self.is_stopping && self.partitions.advance(record.partition, next) {
            self.telemetry.lag.read(record.partition, next.0, record.produced_at);
            self.assembly.push(record, next);
        }
    }

    /// Hands over the batch if it is due, and returns how long the next poll may take; `None` to wait for the worker instead
    /// of polling.
    pub(super) fn poll_timeout(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) -> Option<Duration> {
        if !self.outbox.flush() {
            self.assembly.postpone();
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
        // What is not fetched does not count as read. The end is reported again after the pause.
        self.partitions.read().for_each(|partition| self.telemetry.lag.at_end(partition, false));
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

    /// Reports an error of a consumer that the group has not assigned anything to yet: it is why.
    pub(super) fn report_joining(&self, reason: &str) {
        if !self.is_member {
            self.telemetry.health.failed(Operation::Group, reason);
        }
    }

    /// Parks every partition, because the brokers refuse to let this worker read: librdkafka reports that only once, and not at
    /// all when it is over. So each is claimed and read again from time to time.
    pub(super) fn park_refused(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, reason: &str) {
        self.report_joining(reason);
        let partitions: Vec<i32> = self.partitions.read().collect();
        if partitions.is_empty() {
            return;
        }
        self.is_refused = true;
        self.telemetry.health.failed(Operation::Fetch, reason);
        if !self.hand_over() {
            self.assembly.discard(&partitions);
        }
        self.partitions.park(consumer, &partitions);
    }

    /// Claims the partitions again that have been parked for long enough.
    pub(super) fn claim_parked(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let due = self.partitions.due(Instant::now());
        // A worker without room would not learn of it, and a member that has lost its assignment has nothing to claim.
        if due.is_empty() || self.is_paused || self.is_stopping || consumer.assignment_lost() {
            return;
        }
        let claims = self.claim(&due);
        for partition in due.into_iter().filter(|due| !claims.iter().any(|claim| claim.partition == *due)) {
            self.partitions.keep_parked(partition);
        }
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
            self.report_assigned(&read);
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

    /// Notes that everything was read that can be read of a partition.
    pub(super) fn reach_end(&mut self, partition: i32) {
        self.report_fetched();
        if self.partitions.is_read(partition) {
            self.telemetry.lag.at_end(partition, true);
        }
    }

    /// Reports that the brokers let this worker read, if they have refused it before.
    fn report_fetched(&mut self) {
        if std::mem::take(&mut self.is_refused) {
            self.telemetry.health.succeeded(Operation::Fetch);
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

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use shrinkd_core::decode;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{KafkaConfig, Properties};
    use crate::worker::source::BatchLimits;

    const TOPIC: &str = "experiments";

    /// A topic that is deleted and created again has another id than the one under which its partitions were claimed. The brokers
    /// of tests cannot do that: here, it has another id than none.
    #[test]
    fn a_batch_is_handed_over_only_under_the_topic_id_of_the_claims() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        let kafka = KafkaConfig {
            brokers: cluster.bootstrap_servers(),
            topic: TOPIC.to_owned(),
            group: "shrinkd".to_owned(),
            key: shrinkd_core::KeyRule::default(),
            properties: Properties::default(),
        };
        for is_same in [true, false] {
            let grant = move |_: &_, _: &[i32]| match is_same {
                true => Ok(Vec::new()),
                false => Err(SourceError::Claim("the topic was created again".to_owned())),
            };
            let mut claimer = Claimer::new(&kafka, grant).expect("a client");
            if is_same {
                claimer.claim(&[]).expect("the claim is granted");
            }
            let limits = BatchLimits { records: 1, bytes: 1, age: Duration::ZERO };
            let (sender, mut events) = mpsc::channel(1);
            let mut assignment = Assignment::new(
                TOPIC.to_owned(),
                claimer,
                Assembly::new(limits),
                Outbox::new(sender),
                Commands::default(),
                Telemetry::default(),
                Duration::ZERO,
            );
            let record = Record {
                partition: 0,
                offset: 0,
                produced_at: None,
                key: None,
                payload: None,
                payload_bytes: 0,
                message: decode(b""),
            };
            assignment.assembly.push(record, NextOffset(1));
            assert_eq!(assignment.hand_over(), is_same);
            assert_eq!(matches!(events.try_recv(), Ok(SourceEvent::Batch(_))), is_same);
            let failure = assignment.take_failure().map(|failure| failure.to_string());
            assert_eq!(failure.as_deref(), (!is_same).then_some("the topic was created again"));
        }
    }
}
