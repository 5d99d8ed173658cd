//! Partitions that the group gives this member and that it does not read: because another owner has taken them over,
//! because they are halted, or because the broker has not the records where they go on.
//!
//! They are claimed again every few seconds. So a partition goes on by itself once an operator has resumed it, and one
//! whose claims crossed (a stalled member may claim after the group has moved on) goes to whom the group gives it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::{Assignment, Context};
use crate::stream::{Claim, NextOffset};
use crate::worker::source::{SourceError, SourceEvent};

/// How long a partition stays aside before it is claimed again: longer than a member that the group has dropped takes to
/// hear of it with its next heartbeat, so that it does not take the partition from its new owner.
const ASIDE: Duration = Duration::from_secs(5);
/// How long the broker may take to say how far a partition reaches.
const WATERMARKS: Duration = Duration::from_secs(5);

impl Assignment {
    /// Reads some partitions no more, until they are claimed again. What was read of them and is not with the worker yet
    /// is dropped.
    pub(super) fn set_aside(&mut self, consumer: &BaseConsumer<Context>, partitions: &[i32]) {
        let owned = |partition: &&i32| self.positions.contains_key(partition);
        let partitions: Vec<i32> = partitions.iter().filter(owned).copied().collect();
        self.assembly.forget(&partitions);
        self.outbox.forget(&partitions);
        self.positions.retain(|partition, _| !partitions.contains(partition));
        self.keep_aside(consumer, &partitions);
    }

    /// Says that the broker has not the records where a partition goes on, after what was read of it before.
    pub(super) fn out_of_range(&mut self, consumer: &BaseConsumer<Context>, partition: i32, detail: String) {
        if !self.hand_on() {
            // Read again once the partition is claimed again.
            self.assembly.forget(&[partition]);
        }
        self.outbox.push(SourceEvent::OutOfRange { partition, detail });
        self.positions.remove(&partition);
        self.keep_aside(consumer, &[partition]);
    }

    /// Does not read partitions that are assigned, and notes when to claim them again.
    pub(super) fn keep_aside(&mut self, consumer: &BaseConsumer<Context>, partitions: &[i32]) {
        if partitions.is_empty() {
            return;
        }
        self.aside.extend(partitions.iter().map(|partition| (*partition, Instant::now() + ASIDE)));
        if let Err(error) = consumer.pause(&list(&self.topic, partitions)) {
            // They are fetched for nothing: what comes of them is not taken.
            tracing::warn!(?partitions, "cannot pause partitions that are set aside: {error}");
        }
    }

    /// Claims partitions again that have been aside for long enough.
    pub(super) fn claim_again(&mut self, consumer: &BaseConsumer<Context>) {
        let now = Instant::now();
        let due: Vec<i32> =
            self.aside.iter().filter(|(_, due)| **due <= now).map(|(partition, _)| *partition).collect();
        // Without room the worker would not hear of it anyway, and who lost its assignment has nothing to claim.
        if due.is_empty() || self.is_paused || self.is_ending || consumer.assignment_lost() {
            return;
        }
        let claims = match self.claim(&due) {
            Ok(claims) => claims,
            Err(error) => {
                self.failure.get_or_insert(error);
                return;
            }
        };
        let mut taken = Vec::new();
        for claim in claims {
            let partition = claim.partition;
            if claim.is_halted {
                self.aside.insert(partition, now + ASIDE);
                continue;
            }
            match self.go_on(consumer, claim) {
                Ok(()) => {
                    self.aside.remove(&partition);
                    self.positions.insert(partition, claim.next_offset);
                    taken.push(claim);
                }
                Err(error) => {
                    tracing::warn!(partition, "cannot go on where the store says, and will try again: {error}");
                    self.keep_aside(consumer, &[partition]);
                }
            }
        }
        if !taken.is_empty() {
            let partitions: Vec<i32> = taken.iter().map(|claim| claim.partition).collect();
            tracing::info!(?partitions, "claimed again");
            self.outbox.push(SourceEvent::Assigned(taken));
        }
    }

    /// Reads a partition that was set aside from where its claim says. It is assigned anew: moving one that ended out of
    /// range would not have it fetched again.
    fn go_on(&self, consumer: &BaseConsumer<Context>, claim: Claim) -> KafkaResult<()> {
        let own = list(&self.topic, &[claim.partition]);
        consumer.resume(&own)?;
        let mut target = TopicPartitionList::new();
        target.add_partition_offset(&self.topic, claim.partition, start(claim.next_offset))?;
        if let RebalanceProtocol::Cooperative = consumer.rebalance_protocol() {
            consumer.incremental_unassign(&own)?;
            return consumer.incremental_assign(&target);
        }
        // Here only the whole assignment can be changed: the others go on where they are.
        for (partition, position) in &self.positions {
            target.add_partition_offset(&self.topic, *partition, start(*position))?;
        }
        for partition in self.aside.keys().filter(|partition| **partition != claim.partition) {
            target.add_partition_offset(&self.topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&target)?;
        consumer.pause(&list(&self.topic, self.aside.keys().filter(|partition| **partition != claim.partition)))
    }
}

/// Where reading begins.
pub(super) fn start(next: Option<NextOffset>) -> Offset {
    next.map_or(Offset::Beginning, |NextOffset(next)| Offset::Offset(next))
}

/// Whether the broker has not the records where a partition goes on.
pub(super) fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error, KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange))
}

/// Finds the partitions that go on where the broker has no records any more, or not yet, and sets them aside.
///
/// # Errors
/// Where none is found: then it is not known what cannot be read.
pub(super) fn stop_where_out_of_range(consumer: &BaseConsumer<Context>) -> Result<(), SourceError> {
    let reason = consumer.context().reason();
    let mut assignment = consumer.context().assignment();
    let topic = assignment.topic.clone();
    let mut is_found = false;
    for (partition, position) in assignment.positions.clone() {
        let Some(NextOffset(next)) = position else { continue };
        match consumer.fetch_watermarks(&topic, partition, WATERMARKS) {
            Ok((low, high)) if !(low..=high).contains(&next) => {
                is_found = true;
                let detail = format!(
                    "partition {partition} of {topic} goes on at offset {next}, but the broker has {low} to {high}: what \
                     is between is lost, or the topic was made again. Nothing is passed over by itself: find out what is \
                     missing, then `shrinkd partitions skip` has it go on and leaves a row about the gap"
                );
                assignment.out_of_range(consumer, partition, detail);
            }
            _ => {}
        }
    }
    if is_found { Ok(()) } else { Err(SourceError::Kafka(format!("an offset of {topic} cannot be read: {reason}"))) }
}

/// Partitions of a topic, for librdkafka.
pub(super) fn list<'a>(topic: &str, partitions: impl IntoIterator<Item = &'a i32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
