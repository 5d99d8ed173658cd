//! A platform's mixed traffic: several metrics on different scales, with revisions, retractions, repetitions and invalid results.
//!
//! The metrics, and how they are drawn, are in [`metric`] for those reported by arm, in [`effect_metric`] for others; together they have
//! every form of the contract. What happens to an experiment depends on its index, so
//! that every portfolio of at least sixty experiments contains each case: see `Fate` and `Defect`.

mod effect_metric;
mod experiment;
pub mod metric;

use std::collections::BTreeMap;

use super::Draws;
use super::message::{self, Measurement, Message, Report, Reported, Statistics, Tombstone};
use experiment::{Experiment, Streams};

/// Minutes from one experiment's start to the next one's: some seven experiments a day.
const INTERVAL: i64 = 200;
const DAY: i64 = 24 * 60;

/// A mixed portfolio to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portfolio {
    pub experiments: usize,
    /// Experiments have 1 to this many variants; larger numbers are rarer.
    pub max_variants: usize,
}

impl Default for Portfolio {
    fn default() -> Portfolio {
        Portfolio { experiments: 300, max_variants: 6 }
    }
}

/// What happens to an experiment's results before or after they are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Sent once.
    Plain,
    /// A first revision after half the time, replaced by the complete one.
    Interim,
    /// The same, and the first revision arrives again after the second.
    InterimRepeated,
    /// The complete message is delivered twice.
    Redelivered,
    /// Conversion is restated in a higher revision once bots are filtered out; the other results remain.
    Restated,
    /// Revenue is retracted: its currency was wrong.
    Retracted,
    /// Conversion arrives in two parts that add up, one from each device's pipeline.
    InParts,
}

/// What makes one result of an experiment invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    /// The pipeline could not compute a variance and wrote null.
    NullVariance,
    /// Conversions were counted per event, not per user, so there are more of them than users.
    CountedTwice,
    /// Tracking was off: every unit reports 0.
    NothingTracked,
    /// A treatment was given the control's name.
    NamedLikeControl,
}

/// The messages of a portfolio in the order of their arrival.
#[derive(Debug)]
pub struct Messages {
    portfolio: Portfolio,
    streams: Streams,
    next_index: usize,
    /// By minute of arrival, then experiment, then order within it.
    queue: BTreeMap<(i64, usize, usize), Message>,
}

impl Portfolio {
    /// The portfolio's messages under `seed`.
    pub fn messages(self, seed: u64) -> Messages {
        let streams = Streams { first: Draws::new(seed, 0), further: Draws::new(seed, 2) };
        Messages { portfolio: self, streams, next_index: 0, queue: BTreeMap::new() }
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        // No message of an experiment arrives before its start, so everything due before the next start can be emitted.
        while self.next_index < self.portfolio.experiments && !self.is_due_before(start(self.next_index)) {
            self.enqueue(self.next_index);
            self.next_index += 1;
        }
        self.queue.pop_first().map(|(_, message)| message)
    }
}

impl Messages {
    fn is_due_before(&self, minute: i64) -> bool {
        self.queue.first_key_value().is_some_and(|((arrival, _, _), _)| *arrival < minute)
    }

    fn enqueue(&mut self, index: usize) {
        let experiment =
            Experiment::draw(index, start(index), self.portfolio.max_variants, is_holdout(index), &mut self.streams);
        let mut arrivals = arrivals(&experiment, index);
        if index == self.portfolio.experiments / 2 {
            let tombstone = Message::Tombstone(Tombstone::new(message::experiment_id(index)));
            arrivals.push((30 * DAY, tombstone));
        }
        for (order, (delay, message)) in arrivals.into_iter().enumerate() {
            self.queue.insert((start(index) + delay, index, order), message);
        }
    }
}

impl Fate {
    fn of(index: usize) -> Fate {
        match index % 20 {
            5 => Fate::InterimRepeated,
            1 | 9 | 13 | 17 => Fate::Interim,
            3 | 14 => Fate::Redelivered,
            7 => Fate::Restated,
            12 => Fate::Retracted,
            18 => Fate::InParts,
            _ => Fate::Plain,
        }
    }
}

impl Defect {
    fn of(index: usize) -> Option<Defect> {
        match index % 60 {
            4 => Some(Defect::NullVariance),
            16 => Some(Defect::CountedTwice),
            29 => Some(Defect::NothingTracked),
            41 => Some(Defect::NamedLikeControl),
            _ => None,
        }
    }

    /// Applies it to the result that it affects.
    fn apply(self, reports: &mut [Report]) {
        let affected = match self {
            Defect::NullVariance | Defect::NothingTracked => metric::REVENUE.name,
            Defect::CountedTwice | Defect::NamedLikeControl => metric::CONVERSION.name,
        };
        for report in reports {
            let Report::Reported(Reported { metric, measurement, .. }) = report else { continue };
            let Measurement::Arms { control, treatments, .. } = measurement else { continue };
            if *metric != affected {
                continue;
            }
            for arm in treatments {
                match (self, &mut arm.statistics) {
                    (Defect::NullVariance, Statistics::MeanAndVariance { variance, .. }) => *variance = None,
                    (Defect::NothingTracked, Statistics::MeanAndVariance { mean, variance, .. }) => {
                        (*mean, *variance) = (0.0, Some(0.0));
                    }
                    (Defect::CountedTwice, Statistics::Successes { n, successes }) => *successes += *n,
                    (Defect::NamedLikeControl, _) => arm.variant.clone_from(&control.variant),
                    _ => {}
                }
            }
        }
    }
}

/// Whether the experiment at `index` keeps its control from all changes of a quarter, rather than from one.
fn is_holdout(index: usize) -> bool {
    index % 60 == 22
}

/// When the experiment at `index` starts, in minutes of the simulated clock.
fn start(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX).saturating_mul(INTERVAL)
}

/// The messages of an experiment, each with its delay after the start, in minutes.
fn arrivals(experiment: &Experiment, index: usize) -> Vec<(i64, Message)> {
    let (half, full, late) = (7 * DAY, 14 * DAY, 18 * DAY);
    let complete = |revision| {
        let mut reports = experiment.reports(index.is_multiple_of(3));
        if let Some(defect) = Defect::of(index) {
            defect.apply(&mut reports);
        }
        Message::Event(experiment.event(revision, full, reports))
    };
    let interim = || Message::Event(experiment.interim(1, half));
    match Fate::of(index) {
        Fate::Plain => vec![(full, complete(1))],
        Fate::Interim => vec![(half, interim()), (full, complete(2))],
        Fate::InterimRepeated => vec![(half, interim()), (full, complete(2)), (late, interim())],
        Fate::Redelivered => vec![(full, complete(1)), (full + 5, complete(1))],
        Fate::Restated => vec![(full, complete(1)), (late, Message::Event(experiment.restatement(2, late)))],
        Fate::Retracted => {
            let retraction = vec![Report::retraction(metric::REVENUE.name)];
            vec![(full, complete(1)), (late, Message::Event(experiment.event(2, late, retraction)))]
        }
        Fate::InParts => {
            let [mobile, desktop] = experiment.parts(1, full);
            vec![(full, Message::Event(desktop)), (full + 15, Message::Event(mobile))]
        }
    }
}
