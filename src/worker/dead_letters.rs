//! The budget of dead letters: how many messages of a partition may be refused before somebody has to look.
//!
//! Every refusal is a row, and the partition goes on. But where nearly everything is refused something is wrong that rows
//! do not mend, such as a producer of another format: then the partition is halted rather than drained into rejects.

use std::collections::{BTreeMap, VecDeque};

use shrinkd_core::Message;

use super::source::{Batch, Record};
use crate::config::DeadLettersConfig;
use crate::stream::NextOffset;

/// The budgets of the owned partitions. What is counted is what was committed, since the partition was claimed.
#[derive(Debug)]
pub struct DeadLetters {
    limits: DeadLettersConfig,
    budgets: BTreeMap<i32, Budget>,
}

/// What a batch makes of the budgets, once it is committed.
#[derive(Debug, Default)]
pub struct Judgement {
    budgets: BTreeMap<i32, Budget>,
    /// Partitions whose budget is exceeded, and by what.
    pub exceeded: BTreeMap<i32, String>,
}

#[derive(Debug, Clone, Default)]
struct Budget {
    in_a_row: usize,
    /// Of the last messages, whether each was a dead letter.
    recent: VecDeque<bool>,
    dead: usize,
}

impl DeadLetters {
    /// Nothing is counted yet.
    pub fn new(limits: DeadLettersConfig) -> DeadLetters {
        DeadLetters { limits, budgets: BTreeMap::new() }
    }

    /// Judges a batch, and cuts off what comes in a partition after the message that exceeds its budget: that message is
    /// the last to be committed. `is_new` says of which records: what is passed over counts for nothing.
    pub fn judge(&self, batch: &mut Batch, is_new: impl Fn(&Record) -> bool) -> Judgement {
        let mut judgement = Judgement::default();
        let mut cuts: BTreeMap<i32, i64> = BTreeMap::new();
        for record in &batch.records {
            if judgement.exceeded.contains_key(&record.partition) {
                // Offsets have holes: where the next record begins is where reading would go on.
                cuts.entry(record.partition).or_insert(record.offset);
            } else if is_new(record) {
                let known = || self.budgets.get(&record.partition).cloned().unwrap_or_default();
                let budget = judgement.budgets.entry(record.partition).or_insert_with(known);
                if let Some(excess) = budget.take(is_dead_letter(record), &self.limits) {
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

    /// The batch is committed.
    pub fn keep(&mut self, judgement: Judgement) {
        self.budgets.extend(judgement.budgets);
    }

    /// These partitions are given away, or begin anew.
    pub fn forget(&mut self, partitions: &[i32]) {
        self.budgets.retain(|partition, _| !partitions.contains(partition));
    }
}

impl Budget {
    /// Counts a message, and says what it exceeds.
    fn take(&mut self, is_dead: bool, limits: &DeadLettersConfig) -> Option<String> {
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

/// Whether nothing of a message can be taken in: it is refused as a whole, or each of its results is.
fn is_dead_letter(record: &Record) -> bool {
    match &record.message {
        Err(_) => true,
        Ok(Message::Event(event)) => !event.results.is_empty() && event.results.iter().all(Result::is_err),
        Ok(Message::Tombstone { .. }) => false,
    }
}
