//! Calibration: whether the predictions of leaving one out are borne out, and if not, what is likely the cause.
//!
//! Where the model is right, the PIT of an effect is uniform (Dawid, JRSS A 147, 1984; histograms: Gneiting, Balabdaoui & Raftery, JRSS
//! B 69, 2007), so that the share of effects in an interval or a bin is binomial. The effects of one experiment are correlated; they
//! count as if they moved together, as so many effects as have the same variance, `(sum n_k)^2 / sum n_k^2` (Kish, Survey Sampling,
//! 1965).

use std::fmt;

use super::leave_one_out::Prediction;
use crate::distributions;

/// Bins of a PIT histogram, all of the same width.
pub const PIT_BINS: usize = 10;

/// The probability with which an honest share is outside its bounds: there are 13 of them, so that one is in at most 1% of honest
/// populations.
const OUTSIDE: f64 = 0.01 / 13.0;

/// The predictions of a population, summarised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    pub effects: u64,
    /// How many independent effects they count as.
    pub effective_effects: f64,
    /// Root mean square of z: 1 where the predictive spread is right.
    pub rms_z: f64,
    /// Share of effects within their central 50%, 80% and 95% predictive intervals.
    pub coverage50: f64,
    pub coverage80: f64,
    pub coverage95: f64,
    /// Effects by PIT, in tenths.
    pub pit_histogram: [u64; PIT_BINS],
}

/// The predictions of a population, counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CalibrationCounts {
    effects: u64,
    /// Of the numbers of effects of each experiment.
    squares: u64,
    /// Of z.
    sum_of_squares: f64,
    within: [u64; 3],
    pit_histogram: [u64; PIT_BINS],
}

impl CalibrationCounts {
    /// Adds the predictions of one experiment.
    pub fn add(&mut self, predictions: &[Prediction]) {
        let n = predictions.len() as u64;
        self.effects += n;
        self.squares += n * n;
        for &Prediction { z, pit } in predictions {
            self.sum_of_squares += z * z;
            for (count, level) in self.within.iter_mut().zip([0.5, 0.8, 0.95]) {
                *count += u64::from((pit - 0.5).abs() <= 0.5 * level);
            }
            self.pit_histogram[((pit * PIT_BINS as f64) as usize).min(PIT_BINS - 1)] += 1;
        }
    }

    /// Adds the counts of other experiments.
    pub fn merge(&mut self, other: &CalibrationCounts) {
        self.effects += other.effects;
        self.squares += other.squares;
        self.sum_of_squares += other.sum_of_squares;
        self.within.iter_mut().zip(other.within).for_each(|(mine, theirs)| *mine += theirs);
        self.pit_histogram.iter_mut().zip(other.pit_histogram).for_each(|(mine, theirs)| *mine += theirs);
    }
}

impl Calibration {
    /// Summarises predictions; `None` without any.
    pub fn new(counts: &CalibrationCounts) -> Option<Calibration> {
        let CalibrationCounts { effects, squares, sum_of_squares, within, pit_histogram } = *counts;
        let count = effects as f64;
        let [coverage50, coverage80, coverage95] = within.map(|within| within as f64 / count);
        (effects > 0).then(|| Calibration {
            effects,
            effective_effects: count * count / squares as f64,
            rms_z: (sum_of_squares / count).sqrt(),
            coverage50,
            coverage80,
            coverage95,
            pit_histogram,
        })
    }

    /// The bounds of the share of effects in an interval or a bin that is to hold a share `level`.
    pub fn bounds(&self, level: f64) -> (f64, f64) {
        bounds(self.effective_effects, level)
    }

    /// The likely cause of shares that are out of their bounds; `None` where all are within. What is `known` of the population comes
    /// before what the shares say.
    pub fn cause(&self, known: Option<Miscalibration>) -> Option<Miscalibration> {
        let coverages = [(self.coverage50, 0.5), (self.coverage80, 0.8), (self.coverage95, 0.95)];
        let coverages = coverages.map(|(share, level)| side(share, self.bounds(level)));
        let bins = self.pit_histogram.map(|count| count as f64 / self.effects as f64);
        let bins = bins.map(|share| side(share, self.bounds(1.0 / PIT_BINS as f64)));
        if !coverages.iter().chain(&bins).any(Option::is_some) {
            return None;
        }
        let [too_few, too_many] = [Side::Below, Side::Above].map(|side| coverages.contains(&Some(side)));
        let [_, _, at95] = coverages;
        let [lowest, .., highest] = bins;
        let is_tail_full = at95 == Some(Side::Below) || [lowest, highest].contains(&Some(Side::Above));
        Some(if let Some(known) = known {
            known
        } else if too_many && self.rms_z < NARROW {
            Miscalibration::VariancesTooLarge
        } else if self.is_skewed() {
            Miscalibration::Skewed
        } else if too_few && self.coverage50 < 0.5 {
            Miscalibration::VariancesTooSmall
        } else if too_many || is_tail_full {
            // Heavy tails make tau so large that the squares of z are right, and the centre too full.
            Miscalibration::HeavyTails
        } else {
            Miscalibration::Uneven
        })
    }

    /// Whether a bin holds more effects than the one opposite to it, or fewer.
    fn is_skewed(&self) -> bool {
        let (low, high) = self.pit_histogram.split_at(PIT_BINS / 2);
        low.iter().zip(high.iter().rev()).any(|(&low, &high)| {
            let both = (low + high) as f64;
            let share = low as f64 / both;
            both > 0.0 && side(share, bounds(both / self.effects as f64 * self.effective_effects, 0.5)).is_some()
        })
    }
}

/// An rms of z below which effects lie nearer to their predictions than these say.
const NARROW: f64 = 0.9;

/// The bounds of a share of `n` effects that is `level` on average.
fn bounds(n: f64, level: f64) -> (f64, f64) {
    let above = |level: f64| distributions::binomial_bound(n, level, 0.5 * OUTSIDE) / n;
    // As few in it as there would be many outside.
    (1.0 - above(1.0 - level), above(level))
}

fn side(share: f64, (low, high): (f64, f64)) -> Option<Side> {
    match share {
        share if share < low => Some(Side::Below),
        share if share > high => Some(Side::Above),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Below,
    Above,
}

/// Why predictions are likely not borne out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miscalibration {
    /// Only winners seem to arrive.
    Selection,
    /// Effects were sent in another unit.
    MixUps,
    /// The model is not borne out by other signs either.
    Misfit,
    /// True effects have heavier tails than a normal distribution.
    HeavyTails,
    /// Predictive intervals hold too much.
    VariancesTooLarge,
    /// Predictive intervals hold too little.
    VariancesTooSmall,
    /// Intervals hold what they should, and more effects lie on one side.
    Skewed,
    /// The PIT histogram is uneven in another way.
    Uneven,
}

impl Miscalibration {
    /// What is known of a population without its predictions: whether only winners seem to arrive, whether effects seem to have been
    /// sent in another unit, and whether the model fits.
    pub fn known(is_selected: bool, has_mix_ups: bool, is_misfit: bool) -> Option<Miscalibration> {
        match (is_selected, has_mix_ups, is_misfit) {
            (true, _, _) => Some(Miscalibration::Selection),
            (_, true, _) => Some(Miscalibration::MixUps),
            (_, _, true) => Some(Miscalibration::Misfit),
            _ => None,
        }
    }

    /// The name in tables, JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Miscalibration::Selection => "selection",
            Miscalibration::MixUps => "mix_ups",
            Miscalibration::Misfit => "misfit",
            Miscalibration::HeavyTails => "heavy_tails",
            Miscalibration::VariancesTooLarge => "variances_too_large",
            Miscalibration::VariancesTooSmall => "variances_too_small",
            Miscalibration::Skewed => "skewed",
            Miscalibration::Uneven => "uneven",
        }
    }
}

impl fmt::Display for Miscalibration {
    /// What is seen, and what to look at.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Miscalibration::Selection => {
                "only winners seem to arrive, which makes effects look more alike than they are: look at what selects them"
            }
            Miscalibration::MixUps => "some effects were likely sent in another unit: look at the mix-ups",
            Miscalibration::Misfit => "the model does not fit: look at what the verdict says",
            Miscalibration::HeavyTails => {
                "the tails of the true effects are heavier than normal: most predictive intervals are too wide, and too few hold the \
                 largest effects, which are shrunk too much"
            }
            Miscalibration::VariancesTooLarge => {
                "predictive intervals hold too many effects: were sampling variances sent too large, or the prior of tau set too wide?"
            }
            Miscalibration::VariancesTooSmall => {
                "predictive intervals hold too few effects: were sampling variances sent too small, or the prior of tau set too narrow?"
            }
            Miscalibration::Skewed => {
                "effects are skewed about what the others predict: a selection of results, controls that are off, or true effects that \
                 are skewed?"
            }
            Miscalibration::Uneven => {
                "the histogram of where effects lie in their predictive distributions (PIT) is uneven: look at it"
            }
        })
    }
}
