//! What librdkafka calls back on: rebalances above all. Everything here runs on the source's own thread, from within
//! `poll`: the lock is there for the type system and is never waited for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::aside::start;
use super::identity::Identity;
use super::outbox::Outbox;
use super::{Orders, native};
use crate::stream::{Claim, NextOffset, Topic};
use crate::worker::source::assembly::Assembly;
use crate::worker::source::{Record, SourceError, SourceEvent};

/// How often a worker that is drained is asked whether it is done.
const DRAIN_PACE: Duration = Duration::from_millis(1);

/// Claims partitions of a topic in the store.
pub(super) type ClaimPartitions = Box<dyn Fn(&Topic, &[i32]) -> Result<Vec<Claim>, String> + Send>;

pub(super) struct Context {
    assignment: Mutex<Assignment>,
    /// The sentence that came with the last error, which its code does not tell.
    reason: Mutex<String>,
}

/// The partitions that are owned, and what was read of them and is not yet with the worker.
pub(super) struct Assignment {
    pub(super) topic: String,
    pub(super) identity: Identity,
    pub(super) claim: ClaimPartitions,
    pub(super) drain_budget: Duration,
    /// Where each owned partition goes on; `None` at its beginning.
    pub(super) positions: BTreeMap<i32, Option<NextOffset>>,
    /// Partitions that are assigned and not read, and when each is claimed again.
    pub(super) aside: BTreeMap<i32, Instant>,
    pub(super) assembly: Assembly,
    pub(super) outbox: Outbox,
    pub(super) orders: Orders,
    pub(super) is_paused: bool,
    /// Nothing is claimed and nothing is taken any more.
    pub(super) is_ending: bool,
    /// Why the source cannot go on.
    pub(super) failure: Option<SourceError>,
}

impl Context {
    pub(super) fn new(assignment: Assignment) -> Context {
        Context { assignment: Mutex::new(assignment), reason: Mutex::default() }
    }

    pub(super) fn assignment(&self) -> MutexGuard<'_, Assignment> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sentence that came with the last error.
    pub(super) fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, _: KafkaError, reason: &str) {
        // The same error is what `poll` returns next, where it is judged.
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Users may set `statistics.interval.ms`, but nothing here wants the statistics.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Context>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let mut assignment = self.assignment();
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => assignment.assign(consumer, &partitions),
            _ => assignment.revoke(consumer, &partitions, list),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!("Kafka's committed offsets, which only dashboards read, were not moved: {error}");
        }
    }
}

impl Assignment {
    /// Claims partitions and begins to read them where the store says. Without a claim nothing is read.
    fn assign(&mut self, consumer: &BaseConsumer<Context>, partitions: &[i32]) {
        let claims = if partitions.is_empty() || self.is_ending || self.failure.is_some() {
            Vec::new()
        } else {
            self.claim(partitions).unwrap_or_else(|error| {
                self.failure = Some(error);
                Vec::new()
            })
        };
        // Also where there is nothing to read: the group waits for the answer.
        if let Err(error) = self.begin(consumer, &claims) {
            let sentence = format!("cannot begin to read partitions {partitions:?} of {}: {error}", self.topic);
            self.failure.get_or_insert(SourceError::Kafka(sentence));
            return;
        }
        let (halted, read): (Vec<Claim>, Vec<Claim>) = claims.iter().partition(|claim| claim.is_halted);
        self.positions.extend(read.iter().map(|claim| (claim.partition, claim.next_offset)));
        self.keep_aside(consumer, &halted.iter().map(|claim| claim.partition).collect::<Vec<_>>());
        // Also where there is nothing for this member: that is an answer too.
        self.outbox.push(SourceEvent::Assigned(claims));
    }

    pub(super) fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claim>, SourceError> {
        let topic = self.identity.learn()?;
        let claims = (self.claim)(&topic, partitions).map_err(SourceError::Claim)?;
        self.identity.claimed(topic);
        match partitions.iter().find(|partition| !claims.iter().any(|claim| claim.partition == **partition)) {
            None => Ok(claims),
            Some(partition) => Err(SourceError::Claim(format!("partition {partition} was asked for and not claimed"))),
        }
    }

    fn begin(&self, consumer: &BaseConsumer<Context>, claims: &[Claim]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for claim in claims {
            list.add_partition_offset(&self.topic, claim.partition, start(claim.next_offset))?;
        }
        // One that was paused when it was taken away would come back paused: librdkafka does not forget that.
        consumer.resume(&list)?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list)?,
            _ => consumer.assign(&list)?,
        }
        if self.is_paused { consumer.pause(&list) } else { Ok(()) }
    }

    fn revoke(&mut self, consumer: &BaseConsumer<Context>, partitions: &[i32], list: &TopicPartitionList) {
        self.give_away(consumer, partitions);
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        };
        if let Err(error) = unassigned {
            tracing::warn!("cannot let go of partitions {partitions:?}: {error}");
        }
    }

    /// Has the worker commit what was read of some partitions, and forgets them.
    ///
    /// The worker may take as long as the budget allows. Where the group has given the partitions to somebody else
    /// already, what was read of them is dropped: the next owner reads it again.
    pub(super) fn give_away(&mut self, consumer: &BaseConsumer<Context>, partitions: &[i32]) {
        let owned = |partition: &&i32| self.positions.contains_key(partition) || self.aside.contains_key(partition);
        let partitions: Vec<i32> = partitions.iter().filter(owned).copied().collect();
        if partitions.is_empty() {
            return;
        }
        let is_lost = consumer.assignment_lost();
        tracing::info!(?partitions, is_lost, "revoked");
        if is_lost {
            self.assembly.forget(&partitions);
            self.outbox.forget(&partitions);
        }
        if !self.hand_on() {
            tracing::warn!(?partitions, "what was read last is dropped, and read again by the next owner");
            self.assembly.close();
        }
        let (drained, answer) = oneshot::channel();
        self.outbox.push(SourceEvent::Revoked { partitions: partitions.clone(), drained });
        if !is_lost && !self.is_answered(answer) {
            tracing::warn!(?partitions, "not drained within the budget: what is left is read again by the next owner");
            self.outbox.forget(&partitions);
        }
        self.commit(consumer);
        self.positions.retain(|partition, _| !partitions.contains(partition));
        self.aside.retain(|partition, _| !partitions.contains(partition));
    }

    /// Hands on what was gathered; false where it has to wait, because no broker confirms of which topic it is.
    ///
    /// A topic can be deleted and made again under a consumer, and librdkafka reads on in the new one at the old offsets. So
    /// a batch is handed on only once a broker has said, after its last record was read, that the topic has the id under
    /// which it was claimed.
    pub(super) fn hand_on(&mut self) -> bool {
        if self.assembly.patience().is_none() {
            return true;
        }
        if self.failure.is_some() {
            return false;
        }
        match self.identity.is_still() {
            Ok(true) => {}
            Ok(false) => {
                // The store says what is wrong with the topic that there is now.
                let owned: Vec<i32> = self.positions.keys().copied().collect();
                self.failure = self.claim(&owned).err();
                return false;
            }
            Err(reason) => {
                tracing::warn!("a batch waits until the id of the topic {} is confirmed: {reason}", self.topic);
                return false;
            }
        }
        if let Some(batch) = self.assembly.close() {
            self.outbox.push(SourceEvent::Batch(batch));
        }
        true
    }

    /// Waits for the worker's answer within the budget. A worker that is gone will not commit anything any more: that
    /// is an answer too.
    fn is_answered(&mut self, mut answer: oneshot::Receiver<()>) -> bool {
        let deadline = Instant::now() + self.drain_budget;
        loop {
            self.outbox.flush();
            match answer.try_recv() {
                Ok(()) | Err(TryRecvError::Closed) => return true,
                Err(TryRecvError::Empty) if Instant::now() >= deadline => return false,
                Err(TryRecvError::Empty) => std::thread::sleep(DRAIN_PACE),
            }
        }
    }

    /// Takes a record, unless its partition is not owned or it was taken before.
    pub(super) fn take(&mut self, record: Record) {
        let Some(position) = self.positions.get_mut(&record.partition).filter(|_| !self.is_ending) else { return };
        let next = NextOffset(record.offset.saturating_add(1));
        if position.is_some_and(|position| next <= position) {
            return;
        }
        *position = Some(next);
        self.assembly.push(record, next);
    }

    /// Moves Kafka's committed offsets to what the worker has committed.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Context>) {
        let mut list = TopicPartitionList::new();
        for (partition, NextOffset(next)) in self.orders.take_commits() {
            if self.positions.contains_key(&partition) {
                // An offset from 0 on can always be represented.
                let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(next));
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!("Kafka's committed offsets, which only dashboards read, were not moved: {error}");
        }
    }

    /// Says how far the owned partitions reach, as the last fetches told.
    pub(super) fn tell_high_watermarks(&mut self, consumer: &BaseConsumer<Context>) {
        let client = consumer.client().native_client();
        let watermark = |&partition: &i32| Some((partition, native::high_watermark(client, &self.topic, partition)?));
        let watermarks: Vec<(i32, i64)> = self.positions.keys().filter_map(watermark).collect();
        if !watermarks.is_empty() {
            self.outbox.mention(SourceEvent::HighWatermarks(watermarks));
        }
    }
}
