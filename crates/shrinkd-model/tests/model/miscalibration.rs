//! Bounds of calibration: an honest population is seldom out of one, and what is out names its likely cause.

use shrinkd_model::{
    Block, Calibration, CalibrationCounts, Fit, LeaveOneOut, Method, Miscalibration, Prediction, Priors,
    SketchLikelihood,
};

use crate::random::Random;
use crate::reference::sketch_of;

/// A population of experiments with this many variants, half of whose variance is that of the control.
#[derive(Clone, Copy)]
struct Portfolio {
    tau: f64,
    experiments: usize,
    variants: usize,
    true_effect: fn(&mut Random) -> f64,
    /// By how much the variances that are sent are larger than they should be.
    inflation: f64,
    tau_prior: &'static str,
}

const HONEST: Portfolio = Portfolio {
    tau: 0.5,
    experiments: 60,
    variants: 1,
    true_effect: Random::normal,
    inflation: 1.0,
    tau_prior: "flat",
};

impl Portfolio {
    fn calibration(&self, random: &mut Random) -> Calibration {
        let variance = |random: &mut Random| 0.5 + random.uniform();
        let blocks: Vec<Block> = (0..self.experiments)
            .map(|_| {
                let c = if self.variants > 1 { 0.5 * variance(random) } else { 0.0 };
                let control = c.sqrt() * random.normal();
                let arms = (0..self.variants).map(|_| {
                    let d = variance(random) - c.min(0.25);
                    (0.1 + self.tau * (self.true_effect)(random) + control + d.sqrt() * random.normal(), d)
                });
                let (effects, d): (Vec<f64>, Vec<f64>) = arms.map(|(x, d)| (x, d * self.inflation)).unzip();
                Block::shared_control(effects, d, c * self.inflation).expect("a block")
            })
            .collect();
        let sketch = sketch_of(&blocks);
        let priors = Priors { tau: self.tau_prior.parse().expect("a prior"), ..Priors::default() };
        let fit = Fit::new(&SketchLikelihood::new(&sketch), &priors, Method::Quadrature).expect("a posterior");
        let leave_one_out = LeaveOneOut::new(&sketch, &priors, &fit);
        let left_out = |block: &Block| leave_one_out.predict(block, &block.components().expect("components"));
        summarised(blocks.iter().filter_map(left_out).map(|left_out| left_out.predictions)).expect("predictions")
    }

    /// What is named in so many populations.
    fn causes(&self, populations: u64) -> Vec<Option<Miscalibration>> {
        let mut random = Random(5);
        (0..populations).map(|_| self.calibration(&mut random).cause(None)).collect()
    }
}

/// The calibration of these predictions, experiment by experiment.
fn summarised(experiments: impl IntoIterator<Item = Vec<Prediction>>) -> Option<Calibration> {
    let mut counts = CalibrationCounts::default();
    experiments.into_iter().for_each(|predictions| counts.add(&predictions));
    Calibration::new(&counts)
}

fn share(causes: &[Option<Miscalibration>], cause: Option<Miscalibration>) -> f64 {
    causes.iter().filter(|&&other| other == cause).count() as f64 / causes.len() as f64
}

#[test]
fn counts_of_parts_merge_into_those_of_the_whole() {
    let predictions: Vec<Prediction> =
        (0..40).map(|i| f64::from(i) / 40.0).map(|pit| Prediction { z: 4.0 * pit - 2.0, pit }).collect();
    let counts = |predictions: &[Prediction]| {
        let mut counts = CalibrationCounts::default();
        predictions.chunks(3).for_each(|experiment| counts.add(experiment));
        counts
    };
    let (first, rest) = predictions.split_at(15);
    let mut merged = counts(first);
    merged.merge(&counts(rest));
    assert_eq!(Calibration::new(&merged), Calibration::new(&counts(&predictions)));
}

#[test]
fn an_honest_population_is_out_of_a_bound_in_one_of_a_hundred_at_most() {
    let mut causes = Vec::new();
    for tau in [0.0, 0.5, 1.5] {
        for (experiments, variants) in [(20, 1), (60, 1), (300, 1), (60, 3)] {
            causes.extend(Portfolio { tau, experiments, variants, ..HONEST }.causes(40));
        }
    }
    let out = 1.0 - share(&causes, None);
    // At 1% more than ten of 480 are out in one of a hundred such samples.
    assert!(out <= 10.0 / 480.0, "{out}");
}

#[test]
fn what_is_out_of_bounds_names_its_likely_cause() {
    let skewed = |random: &mut Random| -random.uniform().ln() - 1.0;
    let many = Portfolio { experiments: 500, ..HONEST };
    for (portfolio, cause) in [
        (Portfolio { tau: 2.0, true_effect: Random::t3, ..many }, Miscalibration::HeavyTails),
        (Portfolio { tau: 3.0, true_effect: skewed, ..many }, Miscalibration::Skewed),
        (Portfolio { tau: 0.2, inflation: 3.0, ..HONEST }, Miscalibration::VariancesTooLarge),
        (Portfolio { tau: 0.2, tau_prior: "fixed:2", ..HONEST }, Miscalibration::VariancesTooLarge),
        (
            Portfolio { tau: 0.2, inflation: 0.33, tau_prior: "half-normal:0.05", ..HONEST },
            Miscalibration::VariancesTooSmall,
        ),
        (Portfolio { tau: 3.0, tau_prior: "fixed:1", ..HONEST }, Miscalibration::VariancesTooSmall),
    ] {
        let causes = portfolio.causes(20);
        assert!(share(&causes, Some(cause)) >= 0.8, "{cause}: {causes:?}");
        assert!(share(&causes, Some(cause)) + share(&causes, None) >= 0.95, "{cause}: {causes:?}");
    }
}

#[test]
fn what_is_known_of_a_population_is_its_likely_cause() {
    let calibration = Portfolio { tau: 3.0, tau_prior: "fixed:1", ..HONEST }.calibration(&mut Random(1));
    assert_eq!(calibration.cause(Miscalibration::known(true, true, true)), Some(Miscalibration::Selection));
    assert_eq!(calibration.cause(Miscalibration::known(false, true, true)), Some(Miscalibration::MixUps));
    assert_eq!(calibration.cause(Miscalibration::known(false, false, true)), Some(Miscalibration::Misfit));
    assert_eq!(Portfolio::calibration(&HONEST, &mut Random(1)).cause(Miscalibration::known(true, true, true)), None);
}

fn pits(pits: &[f64]) -> Vec<Prediction> {
    pits.iter().map(|&pit| Prediction { z: 0.0, pit }).collect()
}

/// So many effects in each tenth, spread over it, each an experiment of its own; the squares of z are right.
fn histogram(counts: [u64; 10]) -> Calibration {
    let tenth = |(bin, count): (usize, u64)| {
        (0..count).map(move |i| {
            let pit = (bin as f64 + (i as f64 + 0.5) / count as f64) / 10.0;
            vec![Prediction { z: 1.0, pit }]
        })
    };
    summarised(counts.into_iter().enumerate().flat_map(tenth)).expect("effects")
}

#[test]
fn only_full_tails_or_a_full_centre_are_called_heavy_tails() {
    for (counts, cause) in [
        ([100; 10], None),
        ([100, 100, 100, 150, 50, 50, 150, 100, 100, 100], Some(Miscalibration::Uneven)),
        ([120, 60, 110, 105, 105, 105, 105, 110, 60, 120], Some(Miscalibration::Uneven)),
        ([150, 40, 100, 105, 105, 105, 105, 100, 40, 150], Some(Miscalibration::HeavyTails)),
        // The middle half holds just what it is to hold.
        ([150, 50, 100, 100, 100, 100, 100, 100, 50, 150], Some(Miscalibration::HeavyTails)),
        ([80, 80, 100, 120, 120, 120, 120, 100, 80, 80], Some(Miscalibration::HeavyTails)),
        ([100, 100, 180, 100, 100, 100, 100, 100, 100, 100], Some(Miscalibration::Skewed)),
    ] {
        assert_eq!(histogram(counts).cause(None), cause, "{counts:?}");
    }
}

#[test]
fn effects_that_are_all_the_same_are_nearer_than_their_variances_say() {
    let block = |_| Block::shared_control(vec![0.5], vec![1.0], 0.0).expect("a block");
    let blocks: Vec<Block> = (0..30).map(block).collect();
    let sketch = sketch_of(&blocks);
    let priors = Priors::default();
    let fit = Fit::new(&SketchLikelihood::new(&sketch), &priors, Method::Quadrature).expect("a posterior");
    let leave_one_out = LeaveOneOut::new(&sketch, &priors, &fit);
    let left_out = |block: &Block| leave_one_out.predict(block, &block.components().expect("components"));
    let predictions = blocks.iter().filter_map(left_out).map(|left_out| left_out.predictions);
    let calibration = summarised(predictions).expect("predictions");
    assert_eq!(calibration.cause(None), Some(Miscalibration::VariancesTooLarge));
}

#[test]
fn effects_are_counted_by_tenths_of_their_pit_and_those_of_one_experiment_as_one() {
    let calibration = summarised([pits(&[0.0, 0.05]), pits(&[0.1]), pits(&[0.55, 0.99, 1.0])]).expect("effects");
    assert_eq!(calibration.pit_histogram, [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(calibration.effects, 6);
    assert!((calibration.effective_effects - 36.0 / 14.0).abs() < 1e-12);
    assert_eq!(summarised([pits(&[])]), None);
    let (alone, together) = (vec![pits(&[0.5]); 60], vec![pits(&[0.5; 3]); 20]);
    let bounds = |experiments| summarised(experiments).expect("effects").bounds(0.8);
    let ((low, high), (lower, higher)) = (bounds(alone), bounds(together));
    assert!(lower < low && low < 0.8 && 0.8 < high && high < higher && higher <= 1.0);
    // Of 60, at most 36 have a probability of 0.00030 and at most 37 one of 0.00081; at least 58 one of 0.00019 and at least 57 one
    // of 0.00101. One of 2,600 populations is to be out on either side.
    assert!((36.0..37.0).contains(&(60.0 * low)) && (57.0..58.0).contains(&(60.0 * high)), "{low} {high}");
}
