//! Whether the losers arrive: a selection of results by the sign and size of their own z.
//!
//! Shrinkage undoes the winner's curse only if the losers arrive too. Where a result with `z = effect / standard error` above 1.96
//! arrives for certain and another with probability eta, what arrives has the likelihood of a step selection model (Hedges,
//! Statistical Science 7, 1992; Vevea & Hedges, Psychometrika 60, 1995; Andrews & Kasy, AER 109, 2019),
//!
//! `log L(mu, tau, eta) = log L(mu, tau) + n_below log eta - sum_i log(eta Q_i + P_i)`,
//! `P_i = Phi((mu - 1.96 sigma_i) / sqrt(sigma_i^2 + tau^2))`, `Q_i = 1 - P_i`.
//!
//! Everything arrives at eta = 1. The sum over i is one over functions of the sampling variance that are smooth within an octave,
//! and so follows from the counts of a [`Sketch`], whatever the size of the population.
//!
//! Effects are taken as independent. Those of one experiment are not, through their control, which makes this a composite likelihood
//! (Varin, Reid & Firth, Statistica Sinica 21, 2011): its ratio is somewhat larger by chance than that of independent effects. With
//! one variant of each experiment it would not be, but an experiment arrives for its best variant, which is seldom the one that is
//! kept, so that half of what there is to see would be lost with three variants.

use std::fmt;

use crate::block::Block;
use crate::distributions;
use crate::likelihood::{Likelihood, SketchLikelihood};
use crate::normal;
use crate::posterior::ml;
use crate::sketch::{self, Cell, Sketch};

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

/// Effects by where their `z = effect / standard error` lies.
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

    /// Adds the effects of a block.
    pub fn add_block(&mut self, block: &Block) {
        for (i, effect) in block.effects().iter().enumerate() {
            self.add(effect / block.sampling_variance(i).sqrt());
        }
    }

    /// Adds the counts of other effects.
    pub fn merge(&mut self, other: &SelectionCounts) {
        self.above += other.above;
        self.below += other.below;
        self.just_above += other.just_above;
        self.just_below += other.just_below;
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
    /// The share of all results that did not arrive, at the same estimates: `1 - n / sum_i 1 / (eta Q_i + P_i)`.
    pub missing_share: f64,
    /// The one-sided p of the caliper test; `None` with no result within 20% of 1.96.
    pub caliper_p: Option<f64>,
}

impl Selection {
    /// From the sketch of the effects as independent ones ([`Correlation::Ignored`]), and counts of the same effects; where a few have
    /// come or gone in between, what counts is the share of those below. `None` without effects.
    ///
    /// [`Correlation::Ignored`]: crate::Correlation::Ignored
    pub fn new(ignored: &Sketch, counts: &SelectionCounts) -> Option<Selection> {
        let counted = (counts.above + counts.below) as f64;
        let share_below = (counted > 0.0).then(|| counts.below as f64 / counted)?;
        let model = StepModel::new(ignored, share_below)?;
        let point = model.maximum();
        let (log_lr, eta) = model.at(point);
        let caliper_p = counts.caliper_p();
        Some(Selection { log_lr: log_lr.max(0.0), eta, missing_share: model.missing_share(point, eta), caliper_p })
    }

    /// Whether many results seem to be missing because of their z.
    pub fn is_suspected(&self) -> bool {
        self.log_lr > SUSPECTED && self.missing_share > MANY
    }
}

impl fmt::Display for Selection {
    /// What a suspected selection means.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only winners seem to arrive: ")?;
        match 1.0 / self.eta {
            times @ ..1e6 => {
                write!(f, "results with z above 1.96 are {times:.1} times as likely to be here as others")?
            }
            _ => f.write_str("hardly any result with z below 1.96 is here")?,
        }
        f.write_str("; shrinkage undoes the winner's curse only if the losers arrive too")
    }
}

/// How far mu may lie from where it is without a selection, and how large tau may be, in sds of an effect. Where nothing below the
/// cut arrived, the likelihood rises along a ridge to mu = -infinity, towards an exponential distribution, from which it is hardly
/// different this far out.
const FARTHEST: f64 = 20.0;

/// The likelihood of the step selection model, relative to its largest value without a selection.
struct StepModel {
    likelihood: SketchLikelihood,
    /// Standard errors, with the weight of each in a sum over all effects.
    errors: Vec<(f64, f64)>,
    below: f64,
    /// The maximum without a selection: mu, tau, and the log likelihood.
    unselected: (f64, f64, f64),
    /// The sd of an effect there: the unit of [`StepModel::at`].
    unit: f64,
}

impl StepModel {
    fn new(sketch: &Sketch, share_below: f64) -> Option<StepModel> {
        let likelihood = SketchLikelihood::new(sketch);
        let unselected = ml(&likelihood)?;
        let typical_variance = (likelihood.at(0.0).log_det / likelihood.effects() as f64).exp();
        let mut model = StepModel {
            errors: sketch.cells().flat_map(|(octave, cell)| standard_errors(octave, cell)).collect(),
            below: share_below * likelihood.effects() as f64,
            unselected: (unselected.mu, unselected.tau, 0.0),
            unit: (typical_variance + unselected.tau * unselected.tau).sqrt(),
            likelihood,
        };
        model.unselected.2 = model.log_likelihood(unselected.mu, unselected.tau * unselected.tau);
        model.unit.is_finite().then_some(model)
    }

    /// The log likelihood of all effects, as if everything arrived.
    fn log_likelihood(&self, mu: f64, t: f64) -> f64 {
        let terms = self.likelihood.at(t);
        let mu = mu - self.likelihood.centre();
        -0.5 * (terms.log_det + terms.c - 2.0 * mu * terms.b + mu * mu * terms.a)
    }

    /// The log likelihood ratio at the best eta, and this, `x` units of mu from where it is without a selection and at a tau of `y`
    /// units.
    fn at(&self, [x, y]: [f64; 2]) -> (f64, f64) {
        if x.abs() > FARTHEST || y.abs() > FARTHEST {
            return (f64::NEG_INFINITY, 1.0);
        }
        let (mu, tau) = (self.unselected.0 + x * self.unit, y * self.unit);
        let (log_selection, eta) = best_eta(&self.arrivals([x, y]), self.below);
        let log_lr = self.log_likelihood(mu, tau * tau) - self.unselected.2 + log_selection;
        // Where variances are hundreds of orders of magnitude apart, both terms overflow far from the effects.
        (if log_lr.is_nan() { f64::NEG_INFINITY } else { log_lr }, eta)
    }

    /// Where the likelihood is largest: over a coarse grid, and from the best of it by simplex.
    fn maximum(&self) -> [f64; 2] {
        let unselected = [0.0, self.unselected.1 / self.unit];
        let grid = MU_GRID.into_iter().flat_map(|x| TAU_GRID.map(|y| [x, y]));
        let mut grid: Vec<(f64, [f64; 2])> = grid.map(|point| (self.at(point).0, point)).collect();
        grid.sort_by(|left, right| right.0.total_cmp(&left.0));
        let starts = grid.into_iter().take(STARTS).map(|(_, point)| point).chain([unselected]);
        let ends = starts.map(|start| highest(|point| self.at(point).0, start));
        ends.map(|end| (self.at(end).0, end))
            .fold((0.0, unselected), |best, end| if end.0 > best.0 { end } else { best })
            .1
    }

    fn arrivals(&self, [x, y]: [f64; 2]) -> Vec<Arrival> {
        let (mu, tau) = (self.unselected.0 + x * self.unit, y * self.unit);
        self.errors.iter().map(|&(se, weight)| Arrival::new(mu, tau, se, weight)).collect()
    }

    fn missing_share(&self, point: [f64; 2], eta: f64) -> f64 {
        let arrivals = self.arrivals(point);
        let per_result = |arrival: &Arrival| arrival.weight / (eta + (1.0 - eta) * arrival.log_above.exp());
        let results: f64 = arrivals.iter().map(per_result).sum();
        (1.0 - self.likelihood.effects() as f64 / results).max(0.0)
    }
}

const MU_GRID: [f64; 7] = [0.0, -0.5, -1.0, -2.0, -4.0, -8.0, -16.0];
const TAU_GRID: [f64; 6] = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0];
const STARTS: usize = 2;

/// Points in an octave. They leave some 1e-8 of an effect's log likelihood near the maximum, and 1e-5 where it is 5 sds away.
const POINTS: usize = 8;

/// Standard errors at Chebyshev points of an octave, with weights that take a sum over its effects from a function's values there:
/// interpolation, and the Chebyshev moments of the counts (Mason & Handscomb, Chebyshev Polynomials, 2003, section 6.3).
fn standard_errors(octave: i16, cell: &Cell) -> [(f64, f64); POINTS] {
    let s = sketch::power_of_two(i32::from(octave));
    std::array::from_fn(|p| {
        let angle = std::f64::consts::PI * (p as f64 + 0.5) / POINTS as f64;
        let term = |(m, moment): (usize, &[i128; 4])| {
            let count = moment[0] as f64 * sketch::power_of_two(-sketch::COUNT_BITS);
            let twice = if m == 0 { 1.0 } else { 2.0 };
            twice * count * (m as f64 * angle).cos()
        };
        let weight = cell.iter().enumerate().take(POINTS).map(term).sum::<f64>() / POINTS as f64;
        ((0.5 * s * (angle.cos() + 3.0)).sqrt(), weight)
    })
}

/// How likely effects of one standard error are to be above the cut.
struct Arrival {
    weight: f64,
    log_above: f64,
    /// log(Q / P)
    log_odds_below: f64,
}

impl Arrival {
    fn new(mu: f64, tau: f64, se: f64, weight: f64) -> Arrival {
        let distance = (mu - CUT * se) / se.hypot(tau);
        let log_above = normal::log_cdf(distance);
        Arrival { weight, log_above, log_odds_below: normal::log_cdf(-distance) - log_above }
    }
}

/// The largest of `n_below log eta - sum log(eta Q + P)` over eta in [0, 1], and that eta.
///
/// In `x = log eta` its slope is `n_below - sum S(x + log(Q / P))` with S the logistic function, which falls: it has one root.
fn best_eta(arrivals: &[Arrival], below: f64) -> (f64, f64) {
    let sum =
        |term: &dyn Fn(&Arrival) -> f64| arrivals.iter().map(|arrival| arrival.weight * term(arrival)).sum::<f64>();
    if below == 0.0 {
        return (-sum(&|arrival| arrival.log_above), 0.0);
    }
    let expected = |x: f64| sum(&|arrival| logistic(x + arrival.log_odds_below));
    if below >= expected(0.0) {
        return (0.0, 1.0);
    }
    // S(y) < e^y, so that the root lies above this.
    let likeliest = arrivals.iter().map(|arrival| arrival.log_odds_below).fold(f64::NEG_INFINITY, f64::max);
    let mut low = (below / sum(&|_| 1.0)).ln() - likeliest;
    let (mut high, mut x) = (0.0, low);
    for _ in 0..60 {
        let (excess, slope) = arrivals.iter().fold((-below, 0.0), |(excess, slope), arrival| {
            let share = logistic(x + arrival.log_odds_below);
            (excess + arrival.weight * share, slope + arrival.weight * share * (1.0 - share))
        });
        if excess < 0.0 {
            low = x;
        } else {
            high = x;
        }
        let newton = x - excess / slope;
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        if (next - x).abs() <= 1e-10 {
            break;
        }
        x = next;
    }
    (below * x - sum(&|arrival| arrival.log_above + log_one_plus_exp(x + arrival.log_odds_below)), x.exp())
}

/// `log(1 + e^x)`
fn log_one_plus_exp(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The highest point near a start (Nelder & Mead, Computer Journal 7, 1965).
fn highest(f: impl Fn([f64; 2]) -> f64, start: [f64; 2]) -> [f64; 2] {
    let vertex = |point: [f64; 2]| (point, f(point));
    let along = |from: [f64; 2], to: [f64; 2], by: f64| [0, 1].map(|i| from[i] + by * (to[i] - from[i]));
    let [x, y] = start;
    let mut simplex = [vertex(start), vertex([x - 0.25, y]), vertex([x, y + 0.25])];
    for _ in 0..200 {
        simplex.sort_by(|left, right| right.1.total_cmp(&left.1));
        let [best, middle, worst] = simplex;
        let size = [0, 1].map(|i| (best.0[i] - worst.0[i]).abs() + (best.0[i] - middle.0[i]).abs());
        if best.1 - worst.1 <= 1e-9 && size[0].max(size[1]) <= 1e-3 {
            break;
        }
        let centre = along(best.0, middle.0, 0.5);
        let reflected = vertex(along(worst.0, centre, 2.0));
        let replacement = if reflected.1 > best.1 {
            let expanded = vertex(along(worst.0, centre, 3.0));
            if expanded.1 > reflected.1 { expanded } else { reflected }
        } else if reflected.1 > middle.1 {
            reflected
        } else {
            let is_outside = reflected.1 > worst.1;
            vertex(along(worst.0, centre, if is_outside { 1.5 } else { 0.5 }))
        };
        let is_shrinking = replacement.1 <= worst.1;
        simplex[2] = replacement;
        if is_shrinking {
            simplex[1] = vertex(along(best.0, middle.0, 0.5));
            simplex[2] = vertex(along(best.0, worst.0, 0.5));
        }
    }
    simplex.iter().fold(simplex[0], |best, &vertex| if vertex.1 > best.1 { vertex } else { best }).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::Component;

    /// Effects about 0.1 with standard errors from `least` on, over so many octaves of variance.
    fn effects(count: usize, least: f64, octaves: f64) -> Vec<Component> {
        let uniform = |i: usize, step: f64| ((i as f64 + 0.5) * step).fract();
        let effect = |i: usize| {
            let lambda = least * least * (octaves * uniform(i, 0.324_717_957_244_746)).exp2();
            let angle = std::f64::consts::TAU * uniform(i, 0.754_877_666_246_692_8);
            let normal = (-2.0 * uniform(i, 0.569_840_290_998_053_3).ln()).sqrt() * angle.cos();
            Component { lambda, a: 1.0, b: 0.1 + normal * (lambda + 0.04).sqrt() }
        };
        (0..count).map(effect).collect()
    }

    fn model(effects: &[Component]) -> StepModel {
        let mut sketch = Sketch::new();
        sketch.add(effects).expect("in range");
        let below = effects.iter().filter(|effect| effect.b <= CUT * effect.lambda.sqrt()).count();
        StepModel::new(&sketch, below as f64 / effects.len() as f64).expect("a maximum")
    }

    #[test]
    fn the_likelihood_from_the_cells_is_the_sum_over_the_effects() {
        for (count, least, octaves) in [(1, 0.3, 0.0), (50, 0.27, 0.3), (200, 0.1, 5.0), (2_000, 1e-3, 12.0)] {
            let effects = effects(count, least, octaves);
            let model = model(&effects);
            let log_likelihood = |mu: f64, tau: f64| -> f64 {
                let density =
                    |e: &Component| normal::pdf((e.b - mu) / e.lambda.sqrt().hypot(tau)) / e.lambda.sqrt().hypot(tau);
                effects.iter().map(|effect| density(effect).ln()).sum()
            };
            for [x, y] in [[0.0, 0.0], [0.5, 0.3], [-1.0, 1.0], [-4.0, 0.5], [-8.0, 2.0], [-19.0, 6.0]] {
                let (mu, tau) = (model.unselected.0 + x * model.unit, y * model.unit);
                let (got, eta) = model.at([x, y]);
                let arriving = |effect: &Component| {
                    let above = (mu - CUT * effect.lambda.sqrt()) / effect.lambda.sqrt().hypot(tau);
                    (normal::cdf(above) + eta * normal::cdf(-above)).ln()
                };
                let losers = if model.below > 0.0 { model.below * eta.ln() } else { 0.0 };
                let want = log_likelihood(mu, tau) - log_likelihood(model.unselected.0, model.unselected.1) + losers
                    - effects.iter().map(arriving).sum::<f64>();
                // The sum itself underflows where mu is hundreds of standard errors away.
                let error = if -want < 2.0 * count as f64 { 1e-8 } else { 1e-5 };
                let is_near = (got - want).abs() <= error * count as f64 + 1e-12;
                assert!(want.is_infinite() || is_near, "{count} {x} {y}: {got} instead of {want}");
            }
        }
    }

    #[test]
    fn the_largest_likelihood_is_above_that_of_a_fine_grid() {
        let winners = |effects: Vec<Component>, share: usize| -> Vec<Component> {
            let is_kept = |(i, effect): &(usize, Component)| i % 10 < share || effect.b > CUT * effect.lambda.sqrt();
            effects.into_iter().enumerate().filter(is_kept).map(|(_, effect)| effect).collect()
        };
        for (count, least, octaves) in [(3, 0.1, 0.0), (40, 0.27, 0.3), (400, 0.1, 5.0), (300, 1e-3, 12.0)] {
            for share in [0, 1, 3, 10] {
                let effects = winners(effects(count, least, octaves), share);
                if effects.is_empty() {
                    continue;
                }
                let model = model(&effects);
                let (got, _) = model.at(model.maximum());
                for i in 0..120 {
                    for j in 0..80 {
                        let point = [-19.9 + 0.2 * f64::from(i), 0.08 * f64::from(j)];
                        let (value, _) = model.at(point);
                        assert!(value < got + 1e-6, "{count} {octaves} {share}: {value} at {point:?}, above {got}");
                    }
                }
            }
        }
    }
}
