//! The closed forms behind `shrinkd when`, held against simulation: what the naive model's exact posterior covers, how far off
//! its estimates are, and what one variant per experiment costs.
//!
//! Effects are drawn as those of an experiment are, `mu + theta_i + e_i - e_control`, in units of a raw effect's standard error,
//! with mu = 0. Priors are flat.

use shrinkd::simulate::Draws;
use shrinkd_model::{
    Block, BlockPosterior, Design, Fit, Method, Posterior, Priors, Sketch, SketchLikelihood, quadrature,
};

/// One experiment as drawn.
struct Drawn {
    block: Block,
    true_effects: Vec<f64>,
}

fn design(variants: &[usize], rho: f64, tau: f64) -> Design {
    Design { variants: variants.to_vec(), rho, tau }
}

/// So many experiments of a design, its kinds in turn.
fn draw(design: &Design, experiments: usize, stream: u64) -> Vec<Drawn> {
    let mut draws = Draws::new(1, stream);
    let rho = design.rho;
    let drawn = design.variants.iter().cycle().take(experiments).map(|&n| {
        let control = draws.normal(0.0, rho.sqrt());
        let true_effects: Vec<f64> = (0..n).map(|_| draws.normal(0.0, design.tau)).collect();
        let effects = true_effects.iter().map(|&effect| draws.normal(effect - control, (1.0 - rho).sqrt())).collect();
        Drawn { block: Block::shared_control(effects, vec![1.0 - rho; n], rho).expect("a block"), true_effects }
    });
    drawn.collect()
}

/// The likelihood of the experiments, each in the form that a model of correlation gives it.
fn likelihood(experiments: &[Drawn], form: fn(&Block) -> Block) -> SketchLikelihood {
    let mut sketch = Sketch::new();
    for experiment in experiments {
        sketch.add(&form(&experiment.block).components().expect("components")).expect("in range");
    }
    SketchLikelihood::new(&sketch)
}

fn posterior(experiments: &[Drawn], form: fn(&Block) -> Block) -> Posterior {
    quadrature(&likelihood(experiments, form), &Priors::default()).expect("a posterior")
}

const REPLICATES: u64 = 400;

/// P(at most `covered`) and P(at least `covered`) of `REPLICATES` intervals that each cover with the probability.
fn tails(covered: u64, probability: f64) -> (f64, f64) {
    let log_factorial = |k: u64| libm::lgamma(k as f64 + 1.0);
    let mass = |k: u64| {
        let ways = log_factorial(REPLICATES) - log_factorial(k) - log_factorial(REPLICATES - k);
        (ways + k as f64 * probability.ln() + (REPLICATES - k) as f64 * (-probability).ln_1p()).exp()
    };
    ((0..=covered).map(mass).sum(), (covered..=REPLICATES).map(mass).sum())
}

/// 20 cells, each within exact binomial bounds, and their sum within normal ones: Bonferroni's, two-sided, so that of all 21
/// tests one fails in 1% of such simulations if the closed form is exact.
///
/// What the closed form leaves out is that the naive model has to estimate tau, which makes its interval a little wider. That
/// is of the order of 1/K, for K experiments, where tau is above 0, and of 1/sqrt(K) at 0, where the posterior of tau can only
/// err upwards: in 6,000 replicates the interval covered 1.0 points too often at tau = 0 with 300 experiments of 3 variants,
/// and -0.1 to 0.4 with 20 to 60 experiments at tau = 0.5 and more. So K is larger at 0.
#[test]
fn the_naive_interval_of_mu_covers_as_often_as_the_closed_form_says() {
    let cells = [
        (design(&[1], 0.5, 0.5), 60),
        (design(&[2], 0.5, 0.0), 300),
        (design(&[2], 0.5, 0.5), 60),
        (design(&[2], 0.5, 1.0), 40),
        (design(&[2], 0.9, 2.0), 40),
        (design(&[3], 0.1, 0.5), 60),
        (design(&[3], 0.25, 1.0), 40),
        (design(&[3], 0.5, 0.0), 300),
        (design(&[3], 0.5, 0.5), 60),
        (design(&[3], 0.5, 1.0), 80),
        (design(&[3], 0.5, 2.0), 30),
        (design(&[3], 0.9, 0.5), 60),
        (design(&[5], 0.25, 0.5), 40),
        (design(&[5], 0.5, 1.0), 30),
        (design(&[5], 0.8, 2.0), 60),
        (design(&[10], 0.1, 0.0), 100),
        (design(&[10], 0.5, 0.5), 30),
        (design(&[10], 0.8, 1.0), 30),
        (design(&[1, 1, 2], 0.5, 0.5), 90),
        (design(&[1, 5], 0.9, 1.0), 60),
    ];
    let level = 0.01 / 21.0 / 2.0;
    let (mut covered_of_all, mut expected, mut variance) = (0.0, 0.0, 0.0);
    for (design, experiments) in cells {
        let probability = design.naive_coverage();
        let is_covered = |&stream: &u64| {
            let mu = posterior(&draw(&design, experiments, stream), Block::independent).mu;
            mu.q025.expect("a quantile") <= 0.0 && mu.q975.expect("a quantile") >= 0.0
        };
        let covered = (0..REPLICATES).filter(is_covered).count() as u64;
        let (at_most, at_least) = tails(covered, probability);
        assert!(
            at_most.min(at_least) > level,
            "{design:?}, {experiments} experiments: {covered} of {REPLICATES}, not {probability}"
        );
        covered_of_all += covered as f64;
        expected += REPLICATES as f64 * probability;
        variance += REPLICATES as f64 * probability * (1.0 - probability);
    }
    // The normal quantile of 1 - 0.01 / 21 / 2.
    let z = (covered_of_all - expected) / f64::sqrt(variance);
    assert!(z.abs() < 3.495, "{covered_of_all} covered, not {expected}: z = {z}");
}

/// The ratio of two sums over replicates, and its standard error by the delta method.
fn ratio(pairs: &[(f64, f64)]) -> (f64, f64) {
    let sum = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
    let ratio = sum(|pair| pair.0) / sum(|pair| pair.1);
    let residuals: f64 = pairs.iter().map(|pair| (pair.0 - ratio * pair.1).powi(2)).sum();
    (ratio, residuals.sqrt() / sum(|pair| pair.1))
}

/// Student's t of 19 degrees of freedom, for 20 replicates, with 0.05% of the probability outside; more have less outside.
const T: f64 = 4.187;

/// The squared errors of the shrunken effects under a model of correlation, added up.
fn squared_errors(experiments: &[Drawn], form: fn(&Block) -> Block) -> f64 {
    let fit = Fit::new(&likelihood(experiments, form), &Priors::default(), Method::Quadrature).expect("a fit");
    let errors = experiments.iter().map(|Drawn { block, true_effects }| {
        let block = form(block);
        let shrunk = BlockPosterior::new(&block, &fit.nodes);
        let of_effects = true_effects.iter().enumerate().map(|(i, truth)| (shrunk.estimate(i).mean - truth).powi(2));
        of_effects.sum::<f64>()
    });
    errors.sum()
}

/// Four cells at 99.95% each: by Bonferroni one fails in 0.2% of such simulations if the closed form is exact. It takes mu and
/// tau as known, so that there are many experiments.
#[test]
fn the_naive_estimates_are_farther_off_by_as_much_as_the_closed_form_says() {
    for design in [design(&[2], 0.5, 2.0), design(&[3], 0.5, 1.0), design(&[3], 0.9, 0.5), design(&[1, 10], 0.25, 1.0)]
    {
        let of_replicate = |stream| {
            let drawn = draw(&design, 2_000, stream);
            (squared_errors(&drawn, Block::independent), squared_errors(&drawn, Block::clone))
        };
        let (ratio, error) = ratio(&(0..20).map(of_replicate).collect::<Vec<_>>());
        let want = (1.0 + design.rmse_excess().expect("an excess")).powi(2);
        assert!((ratio - want).abs() < T * error, "{design:?}: {ratio} ± {error}, not {want}");
    }
}

/// Posteriors with one variant of each of 2,000 experiments, and with all, per replicate.
fn with_one_and_all(design: &Design, replicates: u64) -> Vec<[Posterior; 2]> {
    let of_replicate = |stream| {
        let drawn = draw(design, 2_000, stream);
        [posterior(&drawn, |block| block.single(0)), posterior(&drawn, Block::clone)]
    };
    (0..replicates).map(of_replicate).collect()
}

/// A figure with one variant of each experiment over that with all, and its standard error.
fn price(replicates: &[[Posterior; 2]], figure: fn(&Posterior) -> Option<f64>) -> (f64, f64) {
    let pairs = replicates.iter().map(|pair| pair.each_ref().map(|p| figure(p).expect("a number")).into());
    ratio(&pairs.collect::<Vec<_>>())
}

fn width(posterior: &Posterior) -> Option<f64> {
    Some(posterior.mu.q975? - posterior.mu.q025?)
}

/// The width of mu's interval and the posterior sd of tau, averaged over replicates, in four cells: eight ratios at 99.95% each,
/// so that by Bonferroni one fails in 0.4% of such simulations. The closed form is for many experiments: with 500 of one or three
/// variants, rho = 0.8 and tau = 1, tau's sd was 1.7% larger than it says.
#[test]
fn one_variant_per_experiment_costs_what_the_closed_form_says() {
    for design in [design(&[2], 0.5, 1.0), design(&[3], 0.5, 1.0), design(&[5], 0.25, 2.0), design(&[1, 3], 0.8, 1.0)] {
        let replicates = with_one_and_all(&design, 20);
        for ((got, error), want, what) in [
            (price(&replicates, width), design.mu_interval_ratio(), "interval of mu"),
            (price(&replicates, |posterior| posterior.tau.sd), design.tau_error_ratio(), "error of tau"),
        ] {
            assert!((got - want).abs() < T * error, "{what} of {design:?}: {got} ± {error}, not {want}");
        }
    }
}

/// Where tau is 0 its posterior differs from one replicate to the next even with many experiments, so that there are 200 replicates,
/// and its error is the median itself: the root of the mean square. Six ratios at 99.95% each. What the closed form leaves out is
/// of the order of the standard error of tau^2, which is sqrt(2 / K) with one variant of each of K experiments: the posterior of
/// tau reaches that far, and mu's intervals with it. Half of that is allowed for, 1.6%; 0.7% was seen.
#[test]
fn one_variant_per_experiment_costs_what_the_closed_form_says_where_true_effects_are_all_the_same() {
    for design in [design(&[2], 0.5, 0.0), design(&[3], 0.5, 0.0)] {
        let replicates = with_one_and_all(&design, 200);
        let tau = design.tau_error_ratio();
        for ((got, error), want, what) in [
            (price(&replicates, width), design.mu_interval_ratio(), "interval of mu"),
            (price(&replicates, |posterior| posterior.tau.sd), tau, "sd of tau"),
            (price(&replicates, |posterior| Some(posterior.tau.median?.powi(2))), tau.powi(2), "squared error of tau"),
        ] {
            let bound = T * error + 0.5 * f64::sqrt(2.0 / 2_000.0) * want;
            assert!((got - want).abs() < bound, "{what} of {design:?}: {got} ± {error}, not {want}");
        }
    }
}
