//! Events on their way to the worker, queued in order while its channel is full.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::worker::source::SourceEvent;

#[derive(Debug)]
pub(super) struct Outbox {
    events: mpsc::Sender<SourceEvent>,
    queue: VecDeque<SourceEvent>,
    full_since: Option<Instant>,
}

impl Outbox {
    pub(super) fn new(events: mpsc::Sender<SourceEvent>) -> Outbox {
        Outbox { events, queue: VecDeque::new(), full_since: None }
    }

    /// Sends an event after those in the queue.
    pub(super) fn send(&mut self, event: SourceEvent) {
        self.queue.push_back(event);
        self.flush();
    }

    /// Sends as much of the queue as the channel takes. Whether the queue is empty now.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(event) = self.queue.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.queue.push_front(event);
                    self.full_since.get_or_insert_with(Instant::now);
                    return false;
                }
                // The worker is gone.
                Err(TrySendError::Closed(_)) => self.queue.clear(),
            }
        }
        self.full_since = None;
        true
    }

    /// Takes the queue, leaving an empty one.
    pub(super) fn take(&mut self) -> Outbox {
        std::mem::replace(self, Outbox::new(self.events.clone()))
    }

    /// Sends the queue and a last event, and blocks until the worker has room for them.
    pub(super) fn finish(mut self, last: SourceEvent) {
        self.queue.push_back(last);
        for event in self.queue {
            if self.events.blocking_send(event).is_err() {
                return;
            }
        }
    }

    /// Discards the queued records of some partitions.
    pub(super) fn discard(&mut self, partitions: &[i32]) {
        for event in &mut self.queue {
            if let SourceEvent::Batch(batch) = event {
                batch.discard(partitions);
            }
        }
        self.queue.retain(|event| !matches!(event, SourceEvent::Batch(batch) if batch.records.is_empty()));
    }

    /// How long the channel has been full.
    pub(super) fn full_for(&self) -> Option<Duration> {
        self.full_since.map(|since| since.elapsed())
    }

    /// Whether the channel has so much room that fetching is worthwhile again.
    pub(super) fn is_half_empty(&self) -> bool {
        self.events.capacity() * 2 >= self.events.max_capacity()
    }

    /// Whether the worker is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }
}
