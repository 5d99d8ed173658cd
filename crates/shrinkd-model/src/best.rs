//! P(best in experiment): the posterior probability that each variant has the largest effect of its experiment, or the smallest
//! where less is better. The control, whose effect is exactly 0, takes part in the comparison.
//!
//! Given tau the effects of a block are jointly normal: with `t = tau^2`, `v_i = d_i + t`, `r = delta - mu`, `S = sum 1 / v_i`
//! and `e = c sum(r_i / v_i) / (1 + cS)`,
//! - the means are `mu + (t / v_i) (r_i - e)`,
//! - the covariance is `diag(t d_i / v_i) + t^2 c / (1 + cS) (1/v)(1/v)' + Var(mu) h h'`, where
//!   `h_i = d_i / v_i + (t / v_i) c S / (1 + cS)` is what a unit of mu adds to the mean of effect i.
//!
//! So the variants are independent but for two common factors, the control's error and mu. With an intraclass correlation there
//! is a third, what the variants share of their true effects (see `shrinkage`: `t = (1 - rho) tau^2`, `C = c + rho tau^2`,
//! `g = 1 / (1 + CS)`); the covariance is `diag(t d_i / v_i)` and `g (c k k' + rho tau^2 (p p' + c S 11')) + Var(mu) h h'` with
//! `k_i = t / v_i`, `p_i = d_i / v_i = 1 - k_i` and `h = g (p + cS)`. As all of these vectors are made of 1 and k, two factors will do.
//!
//! Which is the largest does not change if all of them move together, the control included. Relative to the most precise variant
//! the factors are weak: less than one of a variant's own standard deviations each, where the block is part of the population. A few
//! Gauss-Hermite points in each, and one integral over the value of the maximum, then give the probabilities of all
//! variants at once, without random numbers.
//!
//! Under a dense covariance there are as many factors as variants. Each variant's probability is then that of an orthant, by
//! separation of variables over a sequence of points that all nodes share.
//!
//! | module | contents |
//! | --- | --- |
//! | `mixture` | the posterior of tau and the intraclass correlation -> at most ten nodes at each correlation |
//! | `factors` | the average over the common factors |
//! | `control` | the control's distribution, given the factors |
//! | `maximum` | the integral: the probability that each of several independent normals is the largest |
//! | `contest` | dense covariances: the average over the nodes |
//! | `orthant` | the probability that one competitor is ahead of all others |
//! | `lattice` | the points that it is averaged over |
//! | `normal` | the normal distribution, fast, and Gauss-Hermite rules |

mod contest;
mod control;
mod factors;
mod lattice;
mod maximum;
mod mixture;
mod normal;
mod orthant;

use super::axes::{Axes, AxesByIcc};
use super::block::{Block, BlockError, Covariance};
use super::direction::Direction;
use super::posterior::Node;
use factors::{Factor, FactorModel};
use orthant::Competitors;

/// Posterior probabilities of being the best of an experiment. They add up to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct BestProbabilities {
    /// One for each effect of the block, in its order.
    pub variants: Vec<f64>,
    /// That no variant is better than the control.
    pub control: f64,
}

/// The posterior probability that each variant is the best of its experiment, averaged over a population's posterior: that its
/// effect is the largest, or where less is better the smallest.
///
/// Deterministic. One variant alone is exact. Of more, each probability is within 5e-4 where the control is shared and
/// within 1e-3 where the covariance is dense, for up to 20 variants. A tie, as at `tau = 0` where every effect is mu, is split evenly.
///
/// # Errors
/// [`BlockError::NotPositiveDefinite`] where the decomposition of a dense covariance fails.
pub fn prob_best(block: &Block, nodes: &[Node], direction: Direction) -> Result<BestProbabilities, BlockError> {
    match direction {
        Direction::Increase => prob_largest(block, nodes),
        Direction::Decrease => {
            let mirrored: Vec<Node> = nodes.iter().map(|node| Node { mu_mean: -node.mu_mean, ..*node }).collect();
            prob_largest(&block.mirrored(), &mirrored)
        }
    }
}

fn prob_largest(block: &Block, nodes: &[Node]) -> Result<BestProbabilities, BlockError> {
    let n = block.len();
    let mut variants = vec![0.0; n];
    if n == 1 {
        variants[0] = nodes.iter().map(|node| node.weight * prob_single_positive(block, node)).sum();
    } else {
        let smallest = (0..n).map(|i| block.sampling_variance(i)).fold(f64::INFINITY, f64::min);
        // Elsewhere the variants differ by less than 1e-10 of their standard errors.
        let (apart, alike): (Vec<Node>, Vec<Node>) =
            mixture::condensed(nodes).into_iter().partition(|node| node.tau * node.tau > 1e-20 * smallest);
        let tied: f64 = alike.iter().map(|node| node.weight * prob_common_positive(node, n) / n as f64).sum();
        match block.covariance() {
            Covariance::SharedControl { treatment_variances, control_variance } => {
                let mut points = 0;
                for node in &apart {
                    let model = shared_control(block.effects(), treatment_variances, *control_variance, node);
                    model.add_probabilities(&mut points, node.weight, &mut variants);
                }
            }
            Covariance::Dense { matrix } => {
                let mut axes = AxesByIcc::new(matrix, n);
                let given = |node: &Node| Ok((node.weight, competitors(block.effects(), &*axes.at(node.icc)?, node)));
                let contests = apart.iter().map(given).collect::<Result<Vec<_>, BlockError>>()?;
                variants.iter_mut().zip(contest::probabilities(&contests)).for_each(|(variant, p)| *variant = p);
            }
        }
        variants.iter_mut().for_each(|probability| *probability += tied);
    }
    // Rounding and the quadrature's error leave some 1e-5 on either side of [0, 1].
    variants.iter_mut().for_each(|probability| *probability = probability.clamp(0.0, 1.0));
    let total: f64 = variants.iter().sum();
    variants.iter_mut().for_each(|probability| *probability /= total.max(1.0));
    Ok(BestProbabilities { variants, control: (1.0 - total).max(0.0) })
}

/// P(theta > 0) of a block's only effect.
fn prob_single_positive(block: &Block, node: &Node) -> f64 {
    let t = node.tau * node.tau;
    let variance = block.sampling_variance(0);
    let shrinkage = variance / (variance + t);
    let mean = shrinkage * node.mu_mean + (1.0 - shrinkage) * block.effects()[0];
    let sd = (shrinkage * t + shrinkage * shrinkage * node.mu_variance).sqrt();
    prob_positive(mean, sd).unwrap_or(0.5)
}

/// P(mu > 0) where all of `n` effects are mu; all of them tie with the control where mu is 0.
fn prob_common_positive(node: &Node, n: usize) -> f64 {
    let n = n as f64;
    prob_positive(node.mu_mean, node.mu_variance.sqrt()).unwrap_or(n / (n + 1.0))
}

/// P(x > 0) for a normal x, `None` where x is exactly 0.
fn prob_positive(mean: f64, sd: f64) -> Option<f64> {
    let z = mean / sd;
    (!z.is_nan()).then(|| 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2))
}

/// The effects given a node, about mu and about what the common factors do to the most precise variant. What they do to the others
/// beyond that is formed from differences of d, so that nothing cancels.
fn shared_control(effects: &[f64], d: &[f64], c: f64, node: &Node) -> FactorModel {
    let common = node.icc * (node.tau * node.tau);
    let t = (1.0 - node.icc) * (node.tau * node.tau);
    let (mut sum, mut sum_r, mut d_0) = (0.0, 0.0, f64::INFINITY);
    for (effect, d_i) in effects.iter().zip(d) {
        let weight = 1.0 / (d_i + t);
        sum += weight;
        sum_r += weight * (effect - node.mu_mean);
        d_0 = d_0.min(*d_i);
    }
    // c / (1 + CS) = 1 / ((1 + common S) / c + S), also where c is 0.
    let precision = (1.0 + common * sum) / c + sum;
    let (e, control_sd, per_mu) = (sum_r / precision, 1.0 / precision.sqrt(), sum / precision);
    let common_gain = common / (1.0 + (c + common) * sum);
    let shared = common_gain * sum_r;
    let mu_sd = node.mu_variance.sqrt();
    let (kept_0, pulled_0) = (t / (d_0 + t), d_0 / (d_0 + t));
    // h is this times p and per_mu times k.
    let per_mu_pulled = (1.0 + c * sum) / (1.0 + (c + common) * sum);

    let n = effects.len();
    let (mut centres, mut sds, mut by_d) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let own_tau = node.tau * (1.0 - node.icc).sqrt();
    for (effect, d_i) in effects.iter().zip(d) {
        let v_i = d_i + t;
        by_d.push(kept_0 * ((d_i - d_0) / v_i));
        centres.push(t / v_i * (effect - node.mu_mean - e) + d_i / v_i * shared);
        sds.push(own_tau * (d_i / v_i).sqrt());
    }
    // What of a factor differs from variant to variant, in by_d, and its loading on the control.
    let of_control = (-control_sd, -control_sd * kept_0);
    let of_mu = (mu_sd * (per_mu_pulled - per_mu), -mu_sd * (per_mu_pulled * pulled_0 + kept_0 * per_mu));
    let two = if common > 0.0 {
        let sd = common_gain.sqrt();
        let of_shared = [(sd, -sd * pulled_0), (0.0, -sd * (c * sum).sqrt())];
        two_factors([of_control, of_mu].into_iter().chain(of_shared))
    } else {
        [of_control, of_mu]
    };
    let factor = |(slope, control)| Factor { variants: by_d.iter().map(|by_d| slope * by_d).collect(), control };
    FactorModel { centres, sds, control: -node.mu_mean, factors: two.map(factor) }
}

/// Rotates factors, each with its loading on the variants' common direction and on the control, until one has all that is of the
/// variants, and another what is left of the control.
fn two_factors(factors: impl Iterator<Item = (f64, f64)>) -> [(f64, f64); 2] {
    let (mut first, mut rest) = ((0.0, 0.0), 0.0);
    for (slope, control) in factors {
        let length = f64::hypot(first.0, slope);
        let (cos, sin) = if length > 0.0 { (first.0 / length, slope / length) } else { (1.0, 0.0) };
        rest = f64::hypot(rest, cos * control - sin * first.1);
        first = (length, cos * first.1 + sin * control);
    }
    [first, (0.0, rest)]
}

/// The variants and then the control, given a node, under a dense covariance `Sigma = H diag(lambda) H'`, `R = H H'`, all about mu.
fn competitors(effects: &[f64], axes: &Axes, node: &Node) -> Competitors {
    let n = effects.len();
    let t = node.tau * node.tau;
    // An effect's mean, and then its standard deviations along the axes and from mu: distances between them are those of
    // differences. The control is known.
    let mut means = vec![0.0; n];
    let mut coordinates = vec![vec![0.0; n + 1]; n + 1];
    for (j, lambda) in axes.lambda.iter().enumerate() {
        let along = |x: &dyn Fn(usize) -> f64| axes.dual(j).iter().zip(0..n).map(|(dual, i)| dual * x(i)).sum::<f64>();
        let residual = t / (lambda + t) * along(&|i| effects[i] - node.mu_mean);
        let shrinkage = lambda / (lambda + t);
        let (sd, per_mu) = (node.tau * shrinkage.sqrt(), node.mu_variance.sqrt() * shrinkage * along(&|_| 1.0));
        for ((mean, coordinates), h) in means.iter_mut().zip(&mut coordinates).zip(axes.direction(j)) {
            *mean += h * residual;
            coordinates[j] = h * sd;
            coordinates[n] += h * per_mu;
        }
    }
    means.push(-node.mu_mean);
    let squared_distance = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
    let variances = coordinates.iter().flat_map(|x| coordinates.iter().map(|y| squared_distance(x, y))).collect();
    Competitors { means, variances }
}
