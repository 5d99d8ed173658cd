//! What is to be said to the worker, in order, while the worker has no room for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::worker::source::SourceEvent;

#[derive(Debug)]
pub(super) struct Outbox {
    events: mpsc::Sender<SourceEvent>,
    waiting: VecDeque<SourceEvent>,
    stalled_since: Option<Instant>,
}

impl Outbox {
    pub(super) fn new(events: mpsc::Sender<SourceEvent>) -> Outbox {
        Outbox { events, waiting: VecDeque::new(), stalled_since: None }
    }

    /// Says an event after those that wait.
    pub(super) fn push(&mut self, event: SourceEvent) {
        self.waiting.push_back(event);
        self.flush();
    }

    /// Says as much of what waits as the worker has room for. Whether nothing is left.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return false;
                }
                // Nobody listens any more.
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
        self.stalled_since = None;
        true
    }

    /// Says it now or not at all.
    pub(super) fn mention(&mut self, event: SourceEvent) {
        if self.flush() {
            // Lost where there is no room: it is said again soon.
            let _ = self.events.try_send(event);
        }
    }

    /// Says the last event, however long the worker takes to listen.
    pub(super) fn finish(mut self, last: SourceEvent) {
        self.waiting.push_back(last);
        for event in self.waiting {
            if self.events.blocking_send(event).is_err() {
                return;
            }
        }
    }

    /// Drops the records of some partitions that wait.
    pub(super) fn forget(&mut self, partitions: &[i32]) {
        for event in &mut self.waiting {
            if let SourceEvent::Batch(batch) = event {
                batch.forget(partitions);
            }
        }
        self.waiting.retain(|event| !matches!(event, SourceEvent::Batch(batch) if batch.records.is_empty()));
    }

    /// How long the worker has had no room for what waits.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        self.stalled_since.map(|since| since.elapsed())
    }

    /// Whether the worker could take so much that it is worth fetching again.
    pub(super) fn is_half_empty(&self) -> bool {
        self.events.capacity() * 2 >= self.events.max_capacity()
    }

    /// Whether nobody listens any more.
    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }
}
