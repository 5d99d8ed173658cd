//! One population of effects with known mu and tau, drawn from the model.
//!
//! `theta_i ~ N(mu, tau^2)`; every arm's mean is off by its own sampling error; an effect is the treatment's mean
//! less the control's, so the control's error is in every effect of its experiment.

use shrinkd_core::Scale;
use shrinkd_model::{Block, BlockError};

use super::Draws;
use super::message::{self, Effect, Event, Message, Report};

/// Scenarios in which a shared control matters, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Experiments of one variant and unequal sizes: no effect shares a control with another.
    Baseline,
    /// Experiments of one variant, and a last one with a great many.
    ManyVariants,
    /// Experiments of one variant, and a last one with several whose control's mean is far off.
    BadControl,
    /// Every experiment has several variants and a small control, which dominates the error of every effect.
    TreatmentHeavy,
}

/// A population to draw: sizes and truths, in the metric's own unit on the absolute scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Population {
    pub scenario: Scenario,
    pub experiments: usize,
    /// Variants of every experiment that the scenario does not fix at one.
    pub variants: usize,
    /// The mean of the true effects.
    pub mu: f64,
    /// Their standard deviation.
    pub tau: f64,
    /// Sampling variance of a treatment's mean; `baseline` varies it sixfold around this mean.
    pub treatment_variance: f64,
    /// Sampling variance of the control's mean; experiments that are fixed at one variant have an even allocation instead.
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
        let (experiments, variants, treatment_variance, control_variance, control_error) = match self {
            Scenario::Baseline => (50, 1, 0.875, 0.875, None),
            Scenario::ManyVariants => (50, 100, 1.0, 1.0, None),
            Scenario::BadControl => (16, 15, 0.5, 5.0, Some(-5.0)),
            Scenario::TreatmentHeavy => (20, 5, 0.1, 2.0, None),
        };
        Population {
            scenario: self,
            experiments,
            variants,
            mu: 1.0,
            tau: 1.0,
            treatment_variance,
            control_variance,
            control_error,
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
        (0..self.experiments).map(|index| if self.is_single(index) { 1 } else { self.variants }).sum()
    }

    /// Whether the scenario fixes an experiment at one variant.
    fn is_single(&self, index: usize) -> bool {
        index + 1 < self.experiments && matches!(self.scenario, Scenario::ManyVariants | Scenario::BadControl)
    }

    fn experiment(&self, index: usize, draws: &mut Draws) -> Experiment {
        let is_last = index + 1 == self.experiments;
        let (variants, control_variance) =
            if self.is_single(index) { (1, self.treatment_variance) } else { (self.variants, self.control_variance) };
        let size = match self.scenario {
            Scenario::Baseline => draws.between(2.0 / 7.0, 12.0 / 7.0),
            _ => 1.0,
        };
        let (treatment_variance, control_variance) = (size * self.treatment_variance, size * control_variance);

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
        Report::SharedControl {
            metric: "effect",
            scale: Scale::Absolute.as_str(),
            effects: self
                .effects
                .iter()
                .zip(&self.variants)
                .map(|(&estimate, variant)| Effect { variant: variant.clone(), estimate, variance: Some(variance) })
                .collect(),
            control_variance: self.control_variance,
        }
    }
}
