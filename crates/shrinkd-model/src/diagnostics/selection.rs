//! Whether the losers arrive: a selection of results by the sign and size of their own z.
//!
//! Shrinkage undoes the winner's curse only if the losers arrive too. Where a result with `z = effect / standard error` above 1.96
//! arrives for certain and another with probability eta, what arrives has the likelihood of a step selection model (Hedges,
//! Statistical Science 7, 1992; Vevea & Hedges, Psychometrika 60, 1995; Andrews & Kasy, AER 109, 2019),
//!
//! `log L(mu, tau, eta) = log L(mu, tau) + n_below log eta - sum_i log(eta Q_i + P_i)`,
//! `P_i = Phi((mu - 1.96 sigma_i) / sqrt(sigma_i^2 + tau^2))`, `Q_i = 1 - P_i`.
//!
//! Everything arrives at eta = 1. Where less is better, effects take part with their sign turned: those of winners are below 0.
//!
//! Effects are taken as independent. Those of one experiment are not, through their control, which makes this a composite likelihood
//! (Varin, Reid & Firth, Statistica Sinica 21, 2011): its ratio is somewhat larger by chance than that of independent effects. With
//! one variant of each experiment it would not be, but an experiment arrives for its best variant, which is seldom the one that is
//! kept, so that half of what there is to see would be lost with three variants.

mod step_model;

use std::fmt;

use crate::block::Block;
use crate::direction::Direction;
use crate::distributions;
use crate::sketch::Sketch;
use step_model::{Step, StepModel};

/// The z above which a result is taken for a winner.
const CUT: f64 = 1.96;

/// Half the width of the caliper about the cut, as a share of it: the widest that Gerber & Malhotra take, because the narrow ones
/// hold next to no results of a population of some dozens.
const CALIPER: f64 = 0.2;

/// The log likelihood ratio above which a selection is suspected: the strictest at which 60 experiments of up to three variants that
/// arrived for a winner are found out in 98% of simulated populations. Independent effects of which all arrive reach it in 0.2%.
const SUSPECTED: f64 = 4.0;

/// The share of missing results that is many. Heavy tails make a step likely without a selection where it lies below nearly all
/// effects (t_3 effects about 3 standard errors from 0, say); but a step there hides few results.
const MANY: f64 = 0.4;

/// Effects by where their `z = effect / standard error` lies, whose sign is turned where less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SelectionCounts {
    /// z above 1.96.
    pub above: u64,
    /// All others.
    pub below: u64,
    /// Of those above, z within 20% of 1.96.
    pub just_above: u64,
    /// Of those below, z within 20% of 1.96.
    pub just_below: u64,
    /// Effects that are better the smaller they are.
    pub decreasing: u64,
}

impl SelectionCounts {
    /// Adds an effect by its z.
    pub fn add(&mut self, z: f64) {
        let is_near = u64::from((z - CUT).abs() <= CALIPER * CUT);
        if z > CUT {
            self.above += 1;
            self.just_above += is_near;
        } else {
            self.below += 1;
            self.just_below += is_near;
        }
    }

    /// Adds the effects of a block, of which this direction is the better one.
    pub fn add_block(&mut self, block: &Block, direction: Direction) {
        for (i, &effect) in block.effects().iter().enumerate() {
            self.add(direction.gain(effect) / block.sampling_variance(i).sqrt());
        }
        if direction == Direction::Decrease {
            self.decreasing += block.len() as u64;
        }
    }

    /// Adds the counts of other effects.
    pub fn merge(&mut self, other: &SelectionCounts) {
        self.above += other.above;
        self.below += other.below;
        self.just_above += other.just_above;
        self.just_below += other.just_below;
        self.decreasing += other.decreasing;
    }

    /// The caliper test (Gerber & Malhotra, Sociological Methods & Research 37, 2008): the probability that of the results within 20% of
    /// the cut at least as many lie above it, were either side equally likely; `None` without any. Where the density falls through
    /// the cut, as it does unless most effects are significant, the test is conservative.
    fn caliper_p(&self) -> Option<f64> {
        let near = self.just_above + self.just_below;
        (near > 0).then(|| distributions::binomial_at_least(self.just_above as f64, near as f64, 0.5))
    }
}

/// What a population says about a selection by z.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection {
    /// The log of the largest likelihood with a selection over that without one: at least 0.
    pub log_lr: f64,
    /// How likely a result with z below 1.96 is to arrive, relative to one above: the maximum likelihood estimate, in [0, 1]. It
    /// says little where `log_lr` is small, and is 0 wherever nothing below 1.96 arrived.
    pub eta: f64,
    /// The share of all results that did not arrive, by the same estimates: 1 less the geometric mean of `eta Q_i + P_i`.
    pub missing_share: f64,
    /// The one-sided p of the caliper test; `None` with no result within 20% of 1.96.
    pub caliper_p: Option<f64>,
    /// Which way of the effects is better.
    pub direction: Direction,
}

impl Selection {
    /// From the sketch of the effects as independent ones ([`Correlation::Ignored`]), and counts of the same effects; where a few have
    /// come or gone in between, what counts is the share of those below. `None` without effects, and where more is better in some results
    /// and less in others, because the sketch does not tell them apart.
    ///
    /// [`Correlation::Ignored`]: crate::Correlation::Ignored
    pub fn new(ignored: &Sketch, counts: &SelectionCounts) -> Option<Selection> {
        let counted = counts.above + counts.below;
        let share_below = (counted > 0).then(|| counts.below as f64 / counted as f64)?;
        let (direction, model) = match counts.decreasing {
            0 => (Direction::Increase, StepModel::new(ignored, share_below)?),
            all if all == counted => (Direction::Decrease, StepModel::new(&ignored.mirrored(), share_below)?),
            _ => return None,
        };
        let Step { log_lr, eta, arriving } = model.maximum();
        let (missing_share, caliper_p) = (1.0 - arriving, counts.caliper_p());
        Some(Selection { log_lr: log_lr.max(0.0), eta, missing_share, caliper_p, direction })
    }

    /// The z of a winner, in words, and that of all other results.
    pub fn sides(&self) -> (&'static str, &'static str) {
        match self.direction {
            Direction::Increase => ("z above 1.96", "z below 1.96"),
            Direction::Decrease => ("z below -1.96", "z above -1.96"),
        }
    }

    /// Whether many results seem to be missing because of their z.
    pub fn is_suspected(&self) -> bool {
        self.log_lr > SUSPECTED && self.missing_share > MANY
    }
}

impl fmt::Display for Selection {
    /// What a suspected selection means.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (winners, others) = self.sides();
        f.write_str("only winners seem to arrive: ")?;
        match 1.0 / self.eta {
            times @ ..1e6 => write!(f, "results with {winners} are {times:.1} times as likely to be here as others")?,
            _ => write!(f, "hardly any result with {others} is here")?,
        }
        f.write_str("; shrinkage undoes the winner's curse only if the losers arrive too")
    }
}
