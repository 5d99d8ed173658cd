//! The average over a posterior's nodes where effects have many common factors, as under a dense covariance.
//!
//! The nodes of a competitor share one sequence of points, in proportion to their weights, so that the work hardly grows with their
//! number. Competitors have the same points: equal ones are equally probable. How many each takes follows from the spread of its
//! probability over the first few. The probabilities are then scaled to what they have to add up to.

use super::orthant::{Competitors, Orthant};

/// Points for each unit of spread.
const POINTS: f64 = 12_000.0;

/// Spread that the first points may have missed, as a part of the probability.
const MISSED: f64 = 0.1;

/// The first points of a competitor, and at least and at most so many of them at a node.
const FIRST: usize = 160;
const FIRST_AT_A_NODE: [usize; 2] = [2, 8];

/// Where a difference is known so well from others, in its standard deviations, its probability is all but a step, and takes more points.
const STEEP: f64 = 0.1;
const MORE_IF_STEEP: f64 = 4.0;

/// The probability that each competitor is ahead of all others, times the sum of the weights.
pub(super) fn probabilities(nodes: &[(f64, Competitors)]) -> Vec<f64> {
    let total: f64 = nodes.iter().map(|(weight, _)| weight).sum();
    let count = nodes.first().map_or(0, |(_, competitors)| competitors.means.len());
    let [least, most] = FIRST_AT_A_NODE;
    let first = (FIRST / nodes.len().max(1)).clamp(least, most);
    let mut ahead: Vec<f64> = (0..count).map(|i| probability(nodes, i, first)).collect();
    let sum: f64 = ahead.iter().sum();
    if sum > 0.0 {
        ahead.iter_mut().for_each(|probability| *probability *= total / sum);
    }
    ahead
}

/// The same of one competitor, not scaled, with so many first points at each node.
fn probability(nodes: &[(f64, Competitors)], i: usize, first: usize) -> f64 {
    let orthants: Vec<(f64, Orthant)> =
        nodes.iter().map(|(weight, competitors)| (*weight, Orthant::new(competitors, i))).collect();
    let mut point = 0;
    let mut sums_of = |orthant: &Orthant, count: usize| {
        let sums = orthant.sums(point, count);
        point += count;
        sums
    };
    let firsts: Vec<[f64; 2]> = orthants.iter().map(|(_, orthant)| sums_of(orthant, first)).collect();
    let (mut mean, mut variance, mut least_sd) = (0.0, 0.0, 1.0_f64);
    for ((weight, orthant), sums) in orthants.iter().zip(&firsts) {
        let [value, square] = sums.map(|sum| sum / first as f64);
        mean += weight * value;
        variance += weight * (square - value * value).max(0.0);
        least_sd = least_sd.min(orthant.least_sd);
    }
    let more = if least_sd < STEEP { MORE_IF_STEEP } else { 1.0 };
    // Weights that were damaged where they were stored must not make it endless.
    let points = more * POINTS * (variance.sqrt() + MISSED * mean).min(1.0);
    let average = |((weight, orthant), [sum, _]): (&(f64, Orthant), &[f64; 2])| {
        let count = (points * weight.min(1.0)).round() as usize;
        let [others, _] = sums_of(orthant, count);
        weight * (sum + others) / (first + count) as f64
    };
    orthants.iter().zip(&firsts).map(average).sum()
}
