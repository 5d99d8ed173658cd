//! The likelihood of a step selection from the cells of a population, and its maximum.
//!
//! The sum over i is one over functions of the sampling variance that are smooth within an octave. So it follows from the counts'
//! Chebyshev moments in the cells, whatever the size of the population.

use super::CUT;
use crate::likelihood::{Likelihood, SketchLikelihood};
use crate::normal;
use crate::posterior::ml;
use crate::sketch::{self, Cell, Sketch};

/// How far mu may lie from where it is without a selection, and how large tau may be, in sds of an effect. Where nothing below the
/// cut arrived, the likelihood rises along a ridge to mu = -infinity, towards an exponential distribution, from which it is hardly
/// different this far out.
const FARTHEST: f64 = 20.0;

/// A step selection, with the log of its likelihood over the largest one without a selection.
pub(super) struct Step {
    pub log_lr: f64,
    pub eta: f64,
    /// The geometric mean, over the standard errors of the population, of the probability of arriving.
    pub arriving: f64,
}

/// The likelihood of the step selection model, relative to its largest value without a selection.
pub(super) struct StepModel {
    likelihood: SketchLikelihood,
    /// Standard errors, with the weight of each in a sum over all effects.
    errors: Vec<(f64, f64)>,
    below: f64,
    unselected: Unselected,
    /// The sd of an effect there: the unit of [`StepModel::at`].
    unit: f64,
}

/// The maximum of the likelihood without a selection.
struct Unselected {
    mu: f64,
    tau: f64,
    log_likelihood: f64,
}

impl StepModel {
    pub fn new(sketch: &Sketch, share_below: f64) -> Option<StepModel> {
        let likelihood = SketchLikelihood::new(sketch);
        let mode = ml(&likelihood)?;
        let (mu, tau) = (mode.mu, mode.tau);
        let typical_variance = (likelihood.at(0.0).log_det / likelihood.effects() as f64).exp();
        let unit = (typical_variance + tau * tau).sqrt();
        unit.is_finite().then(|| StepModel {
            errors: sketch.cells().flat_map(|(octave, cell)| standard_errors(octave, cell)).collect(),
            below: share_below * likelihood.effects() as f64,
            unselected: Unselected { mu, tau, log_likelihood: log_likelihood(&likelihood, mu, tau * tau) },
            unit,
            likelihood,
        })
    }

    /// The best step with mu `x` units from where it is without a selection, and a tau of `y` units.
    fn at(&self, [x, y]: [f64; 2]) -> Step {
        let none = Step { log_lr: f64::NEG_INFINITY, eta: 1.0, arriving: 1.0 };
        if x.abs() > FARTHEST || y.abs() > FARTHEST {
            return none;
        }
        let (mu, tau) = (self.unselected.mu + x * self.unit, y * self.unit);
        let arrivals: Vec<Arrival> =
            self.errors.iter().map(|&(se, weight)| Arrival::new(mu, tau, se, weight)).collect();
        let log_eta = best_log_eta(&arrivals, self.below);
        let log_arriving = sum(&arrivals, |arrival| arrival.log_probability(log_eta));
        let log_losers = if self.below > 0.0 { self.below * log_eta } else { 0.0 };
        let log_likelihood = log_likelihood(&self.likelihood, mu, tau * tau);
        let log_lr = log_likelihood - self.unselected.log_likelihood + log_losers - log_arriving;
        // Where variances are hundreds of orders of magnitude apart, two terms overflow far from the effects.
        if !log_lr.is_finite() {
            return none;
        }
        let arriving = (log_arriving / self.likelihood.effects() as f64).exp().min(1.0);
        Step { log_lr, eta: log_eta.exp(), arriving }
    }

    /// The step with the largest likelihood: over a coarse grid, and from the best of it by simplex.
    pub fn maximum(&self) -> Step {
        let unselected = [0.0, self.unselected.tau / self.unit];
        let grid = MU_GRID.into_iter().flat_map(|x| TAU_GRID.map(|y| [x, y]));
        let mut grid: Vec<(f64, [f64; 2])> = grid.map(|point| (self.at(point).log_lr, point)).collect();
        grid.sort_by(|left, right| right.0.total_cmp(&left.0));
        let starts = grid.into_iter().take(STARTS).map(|(_, point)| point).chain([unselected]);
        let ends = starts.map(|start| self.at(highest(|point| self.at(point).log_lr, start)));
        ends.fold(self.at(unselected), |best, end| if end.log_lr > best.log_lr { end } else { best })
    }
}

/// The log likelihood of all effects with a tau^2 of `t`, as if everything arrived.
fn log_likelihood(likelihood: &SketchLikelihood, mu: f64, t: f64) -> f64 {
    let terms = likelihood.at(t);
    let mu = mu - likelihood.centre();
    -0.5 * (terms.log_det + terms.c - 2.0 * mu * terms.b + mu * mu * terms.a)
}

const MU_GRID: [f64; 7] = [0.0, -0.5, -1.0, -2.0, -4.0, -8.0, -16.0];
const TAU_GRID: [f64; 6] = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0];
const STARTS: usize = 2;

/// Points in an octave. Eight leave some 1e-8 of an effect's log likelihood near the maximum, but 1e-5 where it is 5 sds away, which is
/// where the ridge of a population without any result below the cut leads.
const POINTS: usize = 12;

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

    /// `log(eta Q + P)`
    fn log_probability(&self, log_eta: f64) -> f64 {
        self.log_above + log_one_plus_exp(log_eta + self.log_odds_below)
    }
}

fn sum(arrivals: &[Arrival], term: impl Fn(&Arrival) -> f64) -> f64 {
    arrivals.iter().map(|arrival| arrival.weight * term(arrival)).sum()
}

/// The log of the eta in [0, 1] at which `n_below log eta - sum log(eta Q + P)` is largest: -infinity where nothing is below.
///
/// In `x = log eta` its slope is `n_below - sum S(x + log(Q / P))` with S the logistic function, which falls: it has one root.
fn best_log_eta(arrivals: &[Arrival], below: f64) -> f64 {
    if below == 0.0 {
        return f64::NEG_INFINITY;
    }
    if below >= sum(arrivals, |arrival| logistic(arrival.log_odds_below)) {
        return 0.0;
    }
    // S(y) < e^y, so that the root lies above this, which is below 0. Weights of an interpolation may be negative.
    let positive = arrivals.iter().filter(|arrival| arrival.weight > 0.0);
    let (weight, likeliest) = positive.fold((0.0, f64::NEG_INFINITY), |(weight, likeliest), arrival| {
        (weight + arrival.weight, arrival.log_odds_below.max(likeliest))
    });
    let mut low = (below / weight).ln() - likeliest;
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
    x
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
                let (mu, tau) = (model.unselected.mu + x * model.unit, y * model.unit);
                let Step { log_lr: got, eta, arriving: share } = model.at([x, y]);
                let arriving = |effect: &Component| {
                    let above = (mu - CUT * effect.lambda.sqrt()) / effect.lambda.sqrt().hypot(tau);
                    (normal::cdf(above) + eta * normal::cdf(-above)).ln()
                };
                let losers = if model.below > 0.0 { model.below * eta.ln() } else { 0.0 };
                let want = log_likelihood(mu, tau) - log_likelihood(model.unselected.mu, model.unselected.tau) + losers
                    - effects.iter().map(arriving).sum::<f64>();
                // The sum itself underflows where mu is hundreds of standard errors away.
                let error = if -want < 2.0 * count as f64 { 1e-8 } else { 1e-5 };
                let is_near = (got - want).abs() <= error * count as f64 + 1e-12;
                assert!(want.is_infinite() || is_near, "{count} {x} {y}: {got} instead of {want}");
                assert!((0.0..=1.0).contains(&share), "{share}");
            }
        }
    }

    #[test]
    fn the_best_eta_is_at_most_one_also_where_weights_are_negative() {
        let arrival = |weight, log_odds_below| Arrival { weight, log_above: 0.0, log_odds_below };
        let arrivals = [arrival(10.0, -3.0), arrival(-9.0, -6.0)];
        for below in [1e-6, 0.01, 0.3, 0.4, 0.45] {
            let log_eta = best_log_eta(&arrivals, below);
            let slope = below - sum(&arrivals, |arrival| logistic(log_eta + arrival.log_odds_below));
            assert!(log_eta <= 0.0 && slope.abs() < 1e-9, "{below}: {log_eta}, {slope}");
        }
        assert_eq!(best_log_eta(&arrivals, 0.5), 0.0);
    }

    #[test]
    fn the_largest_likelihood_is_above_that_of_a_fine_grid() {
        let winners = |effects: Vec<Component>, share: usize| -> Vec<Component> {
            let is_kept = |(i, effect): &(usize, Component)| i % 10 < share || effect.b > CUT * effect.lambda.sqrt();
            effects.into_iter().enumerate().filter(is_kept).map(|(_, effect)| effect).collect()
        };
        let populations = [(3, 0.1, 0.0), (10, 0.1, 8.0), (40, 0.27, 0.3), (400, 0.1, 5.0), (300, 1e-3, 12.0)];
        for (count, least, octaves) in populations {
            for share in [0, 1, 3, 10] {
                let effects = winners(effects(count, least, octaves), share);
                if effects.is_empty() {
                    continue;
                }
                let model = model(&effects);
                let got = model.maximum().log_lr;
                for i in 0..120 {
                    for j in 0..80 {
                        let point = [-19.9 + 0.2 * f64::from(i), 0.08 * f64::from(j)];
                        let value = model.at(point).log_lr;
                        assert!(value < got + 1e-6, "{count} {octaves} {share}: {value} at {point:?}, above {got}");
                    }
                }
            }
        }
    }
}
