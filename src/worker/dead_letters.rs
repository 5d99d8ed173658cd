//! The dead-letter budget: how many messages of a partition may be refused before an operator has to intervene.
//!
//! Every refusal is recorded in a row, and reading continues. But if nearly everything is refused, something is wrong with
//! all messages, such as a producer that sends another format: then the partition is halted instead of being drained into
//! `rejected_events`.

use std::collections::{BTreeMap, VecDeque};

use shrinkd_core::Message;

use super::source::{Batch, Record};
use crate::config::DeadLettersConfig;
use crate::stream::NextOffset;

/// The budgets of the owned partitions. They count the messages that were committed since the partition was claimed.
#[derive(Debug)]
pub struct DeadLetters {
    limits: DeadLettersConfig,
    budgets: BTreeMap<i32, Budget>,
}

/// The budgets as they are once a batch is committed.
#[derive(Debug, Default)]
pub struct Judgement {
    budgets: BTreeMap<i32, Budget>,
    /// The partitions whose budget is exceeded, each with a sentence that describes how.
    pub exceeded: BTreeMap<i32, String>,
}

#[derive(Debug, Clone, Default)]
struct Budget {
    in_a_row: usize,
    /// Whether each of the last messages was a dead letter.
    recent: VecDeque<bool>,
    dead: usize,
}

impl DeadLetters {
    /// Budgets of which nothing is used yet.
    pub fn new(limits: DeadLettersConfig) -> DeadLetters {
        DeadLetters { limits, budgets: BTreeMap::new() }
    }

    /// Counts the dead letters of a batch, and cuts off the records that follow, in their partition, the message that
    /// exceeds its budget: that message is the last to be committed. Records that are not `is_new`, which are skipped, do
    /// not count.
    pub fn judge(&self, batch: &mut Batch, is_new: impl Fn(&Record) -> bool) -> Judgement {
        let mut judgement = Judgement::default();
        let mut cuts: BTreeMap<i32, i64> = BTreeMap::new();
        for record in &batch.records {
            if judgement.exceeded.contains_key(&record.partition) {
                // Offsets have holes: reading would continue at the next record.
                cuts.entry(record.partition).or_insert(record.offset);
            } else if is_new(record) {
                let known = || self.budgets.get(&record.partition).cloned().unwrap_or_default();
                let budget = judgement.budgets.entry(record.partition).or_insert_with(known);
                if let Some(excess) = budget.count(is_dead_letter(record), &self.limits) {
                    judgement.exceeded.insert(record.partition, excess);
                }
            }
        }
        if !cuts.is_empty() {
            batch.records.retain(|record| cuts.get(&record.partition).is_none_or(|cut| record.offset < *cut));
            for (partition, end) in &mut batch.ends {
                *end = cuts.get(partition).map_or(*end, |cut| NextOffset(*cut));
            }
        }
        judgement
    }

    /// Keeps the budgets of a batch that was committed.
    pub fn keep(&mut self, judgement: Judgement) {
        self.budgets.extend(judgement.budgets);
    }

    /// Resets the budgets of partitions that are released or claimed again.
    pub fn forget(&mut self, partitions: &[i32]) {
        self.budgets.retain(|partition, _| !partitions.contains(partition));
    }
}

impl Budget {
    /// Counts a message, and describes the limit that it exceeds.
    fn count(&mut self, is_dead: bool, limits: &DeadLettersConfig) -> Option<String> {
        let (most, window) = (limits.in_a_row.get(), limits.window.get());
        self.in_a_row = if is_dead { self.in_a_row + 1 } else { 0 };
        self.recent.push_back(is_dead);
        self.dead += usize::from(is_dead);
        if self.recent.len() > window && self.recent.pop_front() == Some(true) {
            self.dead -= 1;
        }
        if self.in_a_row >= most {
            return Some(format!("the last {most} messages were refused"));
        }
        let is_too_many = self.dead as f64 > limits.share * window as f64;
        (is_too_many && self.recent.len() == window)
            .then(|| format!("{} of the last {window} messages were refused", self.dead))
    }
}

/// Whether a message is refused as a whole, or each of its results is.
fn is_dead_letter(record: &Record) -> bool {
    match &record.message {
        Err(_) => true,
        Ok(Message::Event(event)) => !event.results.is_empty() && event.results.iter().all(Result::is_err),
        Ok(Message::Tombstone { .. }) => false,
    }
}
