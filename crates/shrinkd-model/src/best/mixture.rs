//! Replaces a long mixture over tau by a short one with the same averages, at each intraclass correlation.

use crate::posterior::Node;

/// The number of runs that a long mixture is divided into.
const RUNS: f64 = 5.0;

/// Below this spread, in `tau / (tau + unit)`, the whole mixture is one run: sd(log tau) is then below 0.08, and the terms of
/// a probability beyond the cubic average to less than 1e-5.
const NARROW: f64 = 0.02;

/// A shorter mixture with the same averages: one two-point rule if the mixture is narrow, the mixture itself if it is
/// short. Otherwise runs of adjacent nodes are each replaced by their two-point Gauss rule, which is exact for cubics in
/// `tau / (tau + unit)`, a scale on which a long tail is short; mu's mean and standard deviation are taken to be linear
/// within a run.
///
/// The runs have equal sums of the cube roots of the weights: the rule's error grows with a run's weight and much faster
/// with its length, so a tail needs more than one run.
pub(super) fn condensed(nodes: &[Node]) -> Vec<Node> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by(|x, y| x.icc.total_cmp(&y.icc));
    nodes.chunk_by(|x, y| x.icc == y.icc).flat_map(condensed_in_tau).collect()
}

/// The same for nodes that differ in tau alone.
fn condensed_in_tau(nodes: &[Node]) -> Vec<Node> {
    let mut nodes = nodes.to_vec();
    if nodes.len() <= 2 {
        return nodes;
    }
    nodes.sort_by(|x, y| x.tau.total_cmp(&y.tau));
    let mut total = 0.0;
    let middles: Vec<f64> = nodes
        .iter()
        .map(|node| {
            let share = libm::cbrt(node.weight);
            total += share;
            total - 0.5 * share
        })
        .collect();
    let upper_half = nodes.iter().zip(&middles).filter(|(_, middle)| **middle >= 0.5 * total);
    let unit = upper_half.map(|(node, _)| node.tau).find(|&tau| tau > 0.0).unwrap_or(1.0);
    if spread(&nodes, unit) < NARROW {
        let mut short = Vec::with_capacity(2);
        push_two_point_rule(&nodes, unit, &mut short);
        return short;
    }
    if nodes.len() as f64 <= 2.0 * RUNS {
        return nodes;
    }
    let run_of = |i: usize| (RUNS * middles[i] / total).floor();
    let mut short = Vec::with_capacity(2 * RUNS as usize);
    let mut start = 0;
    for end in 1..=nodes.len() {
        if end == nodes.len() || run_of(end) != run_of(start) {
            push_two_point_rule(&nodes[start..end], unit, &mut short);
            start = end;
        }
    }
    short
}

/// Standard deviation of `tau / (tau + unit)`.
fn spread(nodes: &[Node], unit: f64) -> f64 {
    let average =
        |x: &dyn Fn(f64) -> f64| nodes.iter().map(|node| node.weight * x(node.tau / (node.tau + unit))).sum::<f64>();
    let total: f64 = nodes.iter().map(|node| node.weight).sum();
    let mean = average(&|place| place) / total;
    (average(&|place| (place - mean).powi(2)) / total).sqrt()
}

fn push_two_point_rule(run: &[Node], unit: f64, short: &mut Vec<Node>) {
    let weight: f64 = run.iter().map(|node| node.weight).sum();
    let average = |x: &dyn Fn(&Node) -> f64| run.iter().map(|node| node.weight * x(node)).sum::<f64>() / weight;
    let place = |node: &Node| node.tau / (node.tau + unit);
    let centre = average(&place);
    let sd = average(&|node| (place(node) - centre).powi(2)).sqrt();
    let [first, .., last] = run else { return short.extend_from_slice(run) };
    if sd.is_nan() || sd <= 0.0 {
        return short.extend_from_slice(run);
    }
    let standardised = |node: &Node| (place(node) - centre) / sd;
    let skewness = average(&|node| standardised(node).powi(3));
    let mu_mean = average(&|node| node.mu_mean);
    let mu_mean_slope = average(&|node| node.mu_mean * standardised(node));
    let mu_sd = average(&|node| node.mu_variance.sqrt());
    let mu_sd_slope = average(&|node| node.mu_variance.sqrt() * standardised(node));
    let half_width = (1.0 + 0.25 * skewness * skewness).sqrt();
    for z in [0.5 * skewness - half_width, 0.5 * skewness + half_width] {
        let place = centre + sd * z;
        short.push(Node {
            weight: weight / (1.0 + z * z),
            tau: (unit * place / (1.0 - place)).clamp(first.tau, last.tau),
            icc: first.icc,
            mu_mean: mu_mean + mu_mean_slope * z,
            mu_variance: (mu_sd + mu_sd_slope * z).powi(2),
        });
    }
}
