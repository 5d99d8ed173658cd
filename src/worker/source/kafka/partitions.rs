//! The partitions of a topic that are assigned to this member, as librdkafka knows them: those that are read, and those that
//! are parked.
//!
//! A parked partition is assigned and not read: because another owner has taken it over, because it is halted, or because
//! the broker does not have the record at which it continues. Parked partitions are claimed again every few seconds. So one
//! that an operator has resumed is read again, and one whose claims crossed (a stalled member may claim after the group has
//! moved on) ends up with the member to which the group assigns it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::watermarks;
use crate::stream::{Claim, NextOffset};

/// How long a partition stays parked before it is claimed again. A member that the group has dropped learns of it with its
/// next heartbeat; this is longer, so that it does not take the partition from its new owner.
const PARK_DURATION: Duration = Duration::from_secs(5);
/// How long after partitions were found to be out of range more errors about them may arrive.
const STALE_ERROR_DURATION: Duration = Duration::from_secs(30);

/// A partition and its next offset; `None` at its beginning.
type Start = (i32, Option<NextOffset>);

/// Every partition is either read or parked.
pub(super) struct Partitions {
    topic: String,
    /// The next offset of each partition that is read; `None` at its beginning.
    positions: BTreeMap<i32, Option<NextOffset>>,
    /// Parked partitions, and when each is claimed again.
    parked: BTreeMap<i32, Instant>,
    /// How many errors may still come from partitions that are parked as out of range already, and until when.
    stale_errors: usize,
    stale_until: Instant,
}

impl Partitions {
    pub(super) fn new(topic: String) -> Partitions {
        Partitions {
            topic,
            positions: BTreeMap::new(),
            parked: BTreeMap::new(),
            stale_errors: 0,
            stale_until: Instant::now(),
        }
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// The partitions that are read.
    pub(super) fn read(&self) -> impl Iterator<Item = i32> {
        self.positions.keys().copied()
    }

    pub(super) fn is_read(&self, partition: i32) -> bool {
        self.positions.contains_key(&partition)
    }

    /// All of them, read or parked.
    pub(super) fn all(&self) -> impl Iterator<Item = i32> {
        self.positions.keys().chain(self.parked.keys()).copied()
    }

    /// The parked partitions that are to be claimed again by now.
    pub(super) fn due(&self, now: Instant) -> Vec<i32> {
        self.parked.iter().filter(|(_, due)| **due <= now).map(|(partition, _)| *partition).collect()
    }

    /// Moves a partition behind a record; false if it is not read, or the record was read before.
    pub(super) fn advance(&mut self, partition: i32, next: NextOffset) -> bool {
        match self.positions.get_mut(&partition) {
            Some(position) if position.is_none_or(|position| position < next) => {
                *position = Some(next);
                true
            }
            _ => false,
        }
    }

    /// Assigns partitions at the offsets of their claims, in addition to those that are assigned already, and reads them, or
    /// parks those that are halted or were not claimed. `is_paused`: nothing is fetched for now.
    pub(super) fn assign(
        &mut self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        partitions: &[i32],
        claims: &[Claim],
        is_paused: bool,
    ) -> KafkaResult<()> {
        let claim = |partition: i32| claims.iter().find(|claim| claim.partition == partition);
        let start = |&partition: &i32| (partition, claim(partition).and_then(|claim| claim.next_offset));
        let starts: Vec<Start> = partitions.iter().map(start).collect();
        self.assign_at(consumer, &starts, is_paused)?;
        let is_read = |(partition, _): &Start| claim(*partition).is_some_and(|claim| !claim.is_halted);
        let (read, others): (Vec<Start>, Vec<Start>) = starts.into_iter().partition(is_read);
        self.positions.extend(read);
        self.park(consumer, &others.into_iter().map(|(partition, _)| partition).collect::<Vec<_>>());
        Ok(())
    }

    /// Reads a parked partition at the offset of its new claim. A seek would not do: librdkafka does not fetch a partition
    /// again that has run out of range.
    pub(super) fn unpark(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, claim: Claim) -> KafkaResult<()> {
        if let RebalanceProtocol::Cooperative = consumer.rebalance_protocol() {
            consumer.incremental_unassign(&self.list([claim.partition]))?;
        }
        self.assign_at(consumer, &[(claim.partition, claim.next_offset)], false)?;
        self.parked.remove(&claim.partition);
        self.positions.insert(claim.partition, claim.next_offset);
        Ok(())
    }

    fn assign_at(
        &self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        starts: &[Start],
        is_paused: bool,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in starts {
            list.add_partition_offset(&self.topic, *partition, offset(*next))?;
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
                list.add_partition_offset(&self.topic, *partition, offset(*position))?;
            }
            let parked: Vec<i32> = self.parked.keys().filter(is_other).copied().collect();
            for partition in &parked {
                list.add_partition_offset(&self.topic, *partition, Offset::Beginning)?;
            }
            consumer.assign(&list)?;
            consumer.pause(&self.list(parked))?;
        }
        if is_paused { consumer.pause(&list) } else { Ok(()) }
    }

    /// Stops reading partitions that stay assigned, and schedules their next claim.
    pub(super) fn park(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, partitions: &[i32]) {
        if partitions.is_empty() {
            return;
        }
        self.positions.retain(|partition, _| !partitions.contains(partition));
        self.parked.extend(partitions.iter().map(|partition| (*partition, Instant::now() + PARK_DURATION)));
        if let Err(error) = consumer.pause(&self.list(partitions.iter().copied())) {
            // They are fetched for nothing: their records are not accepted.
            tracing::warn!(?partitions, "cannot pause parked partitions: {error}");
        }
    }

    /// Parks a partition for longer: its claim says that it is halted still, or there is none.
    pub(super) fn keep_parked(&mut self, partition: i32) {
        self.parked.insert(partition, Instant::now() + PARK_DURATION);
    }

    /// Pauses or resumes the partitions that are read. Parked ones stay paused.
    pub(super) fn set_paused(&self, consumer: &BaseConsumer<impl ConsumerContext>, is_paused: bool) -> KafkaResult<()> {
        let read = self.list(self.read());
        if is_paused { consumer.pause(&read) } else { consumer.resume(&read) }
    }

    /// The partitions whose next offset the broker does not have (any more, or yet), each with a sentence for the operator:
    /// after an error that says that there is one. They are to be parked. `None` if there is none: then it is unknown what
    /// cannot be read.
    ///
    /// Each partition reports an error of its own, which does not name it. The first one finds all of them. Up to one for each
    /// of the others may follow it and finds nothing; a partition that is parked before the broker has refused its fetch
    /// reports none.
    pub(super) fn out_of_range(&mut self, consumer: &BaseConsumer<impl ConsumerContext>) -> Option<Vec<(i32, String)>> {
        let (found, has_all) = watermarks::out_of_range(consumer, &self.topic, &self.positions);
        let now = Instant::now();
        if self.stale_until < now {
            self.stale_errors = 0;
        }
        match found.len() {
            0 if has_all && self.stale_errors > 0 => self.stale_errors -= 1,
            0 => return None,
            found => {
                self.stale_errors += found - 1;
                self.stale_until = now + STALE_ERROR_DURATION;
            }
        }
        Some(found)
    }

    /// Gives partitions up.
    pub(super) fn remove(&mut self, partitions: &[i32]) {
        self.positions.retain(|partition, _| !partitions.contains(partition));
        self.parked.retain(|partition, _| !partitions.contains(partition));
    }

    /// Partitions of the topic, for librdkafka.
    fn list(&self, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }
}

/// Where reading starts, for librdkafka.
fn offset(next: Option<NextOffset>) -> Offset {
    next.map_or(Offset::Beginning, |NextOffset(next)| Offset::Offset(next))
}
