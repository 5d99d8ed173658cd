//! One population of effects with known mu and tau, drawn from the model.
//!
//! `theta_i ~ N(mu, tau^2)`; every arm's mean is off by its own sampling error; an effect is the treatment's mean
//! less the control's, so the control's error is in every effect of its experiment.

use shrinkd_core::Scale;
use shrinkd_model::{Block, BlockError};

use super::Draws;
use super::message::{self, Effect, Event, Measurement, Message, Report, Reported, SamplingError};

/// Scenarios in which a shared control matters, or does not, with the sizes of the post on shrinkage with a shared control of
/// 2026-03-22 on dpananos.github.io.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Experiments of one variant: no effect shares a control with another.
    Baseline,
    /// Experiments of one variant, and a last one with as many as all others together.
    ManyVariants,
    /// As `ManyVariants`, and the mean of the last experiment's control is far off.
    BadControl,
    /// As `ManyVariants`, with small controls that dominate the error of every effect.
    TreatmentHeavy,
}

/// A population to draw: sizes and truths, in the metric's own unit on the absolute scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Population {
    pub experiments: usize,
    /// Variants of each experiment.
    pub variants: usize,
    /// Whether only the last experiment has that many, and the others have one.
    pub has_one_large: bool,
    /// The mean of the true effects.
    pub mu: f64,
    /// Their standard deviation.
    pub tau: f64,
    /// Sampling variance of a treatment's mean.
    pub treatment_variance: f64,
    /// Sampling variance of the control's mean.
    pub control_variance: f64,
    /// The error of the last experiment's control mean; drawn from its variance if `None`.
    pub control_error: Option<f64>,
}

/// One experiment as drawn: the raw effects beside the true ones, both of length n.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    pub experiment_id: String,
    /// Names, one for each effect.
    pub variants: Vec<String>,
    pub true_effects: Vec<f64>,
    pub effects: Vec<f64>,
    /// Of each treatment's mean.
    pub treatment_variance: f64,
    /// Of the control's mean.
    pub control_variance: f64,
}

impl Scenario {
    /// Every scenario, in the order in which they are reported.
    pub const ALL: [Scenario; 4] =
        [Scenario::Baseline, Scenario::ManyVariants, Scenario::BadControl, Scenario::TreatmentHeavy];

    /// The scenario's name on the command line and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Scenario::Baseline => "baseline",
            Scenario::ManyVariants => "many-variants",
            Scenario::BadControl => "bad-control",
            Scenario::TreatmentHeavy => "treatment-heavy",
        }
    }

    /// The scenario at its own sizes, with mu = tau = 1.
    pub fn population(self) -> Population {
        let single = Population {
            experiments: 50,
            variants: 1,
            has_one_large: false,
            mu: 1.0,
            tau: 1.0,
            treatment_variance: 1.0,
            control_variance: 1.0,
            control_error: None,
        };
        let many = Population { experiments: 25, variants: 26, has_one_large: true, ..single };
        match self {
            Scenario::Baseline => single,
            Scenario::ManyVariants => many,
            Scenario::BadControl => Population { control_error: Some(-4.0), ..many },
            // Standard errors of 0.1.
            Scenario::TreatmentHeavy => Population { treatment_variance: 0.01, ..many },
        }
    }
}

impl Population {
    /// The experiments of `seed`, in order; each `stream` of a seed is an independent draw of the whole population.
    pub fn draw(&self, seed: u64, stream: u64) -> impl Iterator<Item = Experiment> + '_ {
        let mut draws = Draws::new(seed, stream);
        (0..self.experiments).map(move |index| self.experiment(index, &mut draws))
    }

    /// The same experiments as events, one a minute, metric `effect`.
    pub fn messages(&self, seed: u64) -> impl Iterator<Item = Message> + '_ {
        self.draw(seed, 0).enumerate().map(|(index, experiment)| {
            let completed_at = message::minutes_in(i64::try_from(index).unwrap_or(i64::MAX));
            let report = experiment.report();
            Message::Event(Event::new(experiment.experiment_id, 1, completed_at, vec![report]))
        })
    }

    /// The total number of effects.
    pub fn effects(&self) -> usize {
        (0..self.experiments).map(|index| self.variants_of(index)).sum()
    }

    /// Share of an effect's sampling variance that is the control's: the correlation of the errors of two effects.
    pub fn rho(&self) -> f64 {
        self.control_variance / (self.treatment_variance + self.control_variance)
    }

    /// The number of variants of an experiment.
    fn variants_of(&self, index: usize) -> usize {
        if self.has_one_large && !self.is_last(index) { 1 } else { self.variants }
    }

    fn is_last(&self, index: usize) -> bool {
        index + 1 == self.experiments
    }

    fn experiment(&self, index: usize, draws: &mut Draws) -> Experiment {
        let Population { treatment_variance, control_variance, .. } = *self;
        let (variants, is_last) = (self.variants_of(index), self.is_last(index));
        let drawn_error = draws.normal(0.0, control_variance.sqrt());
        let control_error = self.control_error.filter(|_| is_last).unwrap_or(drawn_error);
        let true_effects: Vec<f64> = (0..variants).map(|_| draws.normal(self.mu, self.tau)).collect();
        let effects = true_effects
            .iter()
            .map(|effect| draws.normal(*effect, treatment_variance.sqrt()) - control_error)
            .collect();
        Experiment {
            experiment_id: message::experiment_id(index),
            variants: (0..variants).map(message::variant).collect(),
            true_effects,
            effects,
            treatment_variance,
            control_variance,
        }
    }
}

impl Experiment {
    /// The experiment as the model's input.
    ///
    /// # Errors
    /// Where the population's variances are not positive, or its mu or tau is not finite.
    pub fn block(&self) -> Result<Block, BlockError> {
        let n = self.effects.len();
        Block::shared_control(self.effects.clone(), vec![self.treatment_variance; n], self.control_variance)
    }

    fn report(&self) -> Report {
        let variance = self.treatment_variance + self.control_variance;
        let effects = self.effects.iter().zip(&self.variants).map(|(&estimate, variant)| Effect {
            variant: variant.clone(),
            n: None,
            estimate,
            error: Some(SamplingError::Variance { variance }),
        });
        Report::Reported(Reported {
            metric: "effect",
            segment: None,
            scale: Scale::Absolute.as_str(),
            direction: None,
            coverage: None,
            measurement: Measurement::Effects {
                control: None,
                effects: effects.collect(),
                control_variance: Some(self.control_variance),
                variance_form: None,
                covariance: None,
            },
        })
    }
}
