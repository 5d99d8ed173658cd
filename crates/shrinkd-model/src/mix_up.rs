//! Likely mix-ups: effects that differ from the others of their population as they would in another unit. They are named, not left
//! out: what is wrong with them, if anything, only whoever sent them can tell.

use std::fmt;

use super::block::Block;
use super::diagnostics::Prediction;
use super::posterior::Posterior;
use super::prior::DataScale;
use super::sketch::Sketch;

/// How many predictive sds an effect may be from what the other experiments predict.
const FAR: f64 = 6.0;

/// How many times larger or smaller than the median one a standard error may be.
const OFF: f64 = 30.0;

/// How many median standard errors effects may be spread over: nothing is shrunk there, by less than 1/200.
const NO_SHRINKAGE: f64 = 15.0;

/// What is taken as a factor of 100.
const HUNDREDFOLD: std::ops::RangeInclusive<f64> = 50.0..=200.0;

/// A sign that a population's effects, or one of them, were sent in another unit than they should have been.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MixUp {
    /// The effect and its standard error are this many times those of the others, some 100 or 1/100.
    Percent { ratio: f64 },
    /// The standard error is this many times the median one, the effect is not.
    StandardError { ratio: f64 },
    /// The effect is this many predictive sds from what the other experiments predict.
    FarEffect { z: f64 },
    /// The effects of the whole population are spread over this many median standard errors.
    NoShrinkage { spread: f64 },
}

/// The median standard error of a population, beside which those of its effects are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MedianError(f64);

impl MedianError {
    /// To a fifth of itself, from the counts of the population's effects as independent ones
    /// ([`Correlation::Ignored`]) by octave. So it does not depend on the effects that are mixed up, if these are fewer than half.
    /// `None` without effects.
    ///
    /// [`Correlation::Ignored`]: crate::Correlation::Ignored
    pub fn new(ignored: &Sketch) -> Option<MedianError> {
        ignored.median_octave().map(|octave| MedianError((0.5 * (f64::from(octave) + 0.5)).exp2()))
    }

    /// Judges effect `i` of a block, with what the other experiments predict for it.
    pub fn judge(self, block: &Block, i: usize, prediction: Option<Prediction>) -> Option<MixUp> {
        let (effect, standard_error) = (block.effects()[i], block.sampling_variance(i).sqrt());
        let ratio = standard_error / self.0;
        let is_hundredfold = HUNDREDFOLD.contains(&ratio) && effect.abs() > 10.0 * self.0;
        let is_hundredth = HUNDREDFOLD.contains(&(1.0 / ratio)) && effect.abs() < OFF * standard_error;
        if is_hundredfold || is_hundredth {
            return Some(MixUp::Percent { ratio });
        }
        if !(1.0 / OFF..=OFF).contains(&ratio) {
            return Some(MixUp::StandardError { ratio });
        }
        prediction.map(|prediction| prediction.z).filter(|z| z.abs() > FAR).map(|z| MixUp::FarEffect { z })
    }

    /// Judges a population of whose effects none is mixed up for itself: whether next to nothing is shrunk, because its standard
    /// errors are far too small for its effects. The raw effects must be that far apart, too: a prior alone can make tau large.
    pub fn judge_population(self, posterior: &Posterior, data: &DataScale) -> Option<MixUp> {
        let spread = posterior.tau.median.or(posterior.tau.mean)?.min(data.sd?) / self.0;
        (spread > NO_SHRINKAGE).then_some(MixUp::NoShrinkage { spread })
    }
}

impl MixUp {
    /// Whether it is a matter of units, beyond an effect that is only far from the others.
    pub fn is_of_units(&self) -> bool {
        !matches!(self, MixUp::FarEffect { .. })
    }

    /// The name in JSON and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            MixUp::Percent { .. } => "percent",
            MixUp::StandardError { .. } => "standard_error",
            MixUp::FarEffect { .. } => "far_effect",
            MixUp::NoShrinkage { .. } => "no_shrinkage",
        }
    }
}

impl fmt::Display for MixUp {
    /// What is odd, and the likely cause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            MixUp::Percent { ratio } if ratio > 1.0 => write!(
                f,
                "effect and standard error are both some {ratio:.0} times those of the other effects: percent sent for a \
                 fraction?"
            ),
            MixUp::Percent { ratio } => write!(
                f,
                "effect and standard error are both some {:.0} times smaller than those of the other effects: a fraction sent \
                 for percent?",
                1.0 / ratio
            ),
            MixUp::StandardError { ratio } if ratio > 1.0 => write!(
                f,
                "the standard error is {} times the median one: another unit, the variance per unit sent as that of \
                 the mean, or a very small experiment?",
                times(ratio)
            ),
            MixUp::StandardError { ratio } => write!(
                f,
                "the standard error is {} times smaller than the median one: another unit, or the variance of the mean \
                 sent as the variance per unit?",
                times(1.0 / ratio)
            ),
            MixUp::FarEffect { z } => write!(
                f,
                "the effect is {} predictive sds {} what the other experiments predict: another unit, a broken \
                 experiment, or a true outlier?",
                times(z.abs()),
                if z > 0.0 { "above" } else { "below" }
            ),
            MixUp::NoShrinkage { spread } => write!(
                f,
                "effects are spread over {} standard errors, so that nothing is shrunk: was the variance of the mean \
                 sent as the variance per unit?",
                times(spread)
            ),
        }
    }
}

/// A number above 1 for a sentence.
fn times(number: f64) -> String {
    match number {
        ..20.0 => format!("{number:.1}"),
        20.0..1e6 => format!("{number:.0}"),
        _ => format!("{number:.0e}"),
    }
}
