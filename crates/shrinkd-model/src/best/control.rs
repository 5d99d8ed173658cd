//! The control given the common factors, which determine it: it has no part of its own.
//!
//! That the control is below x is a step function of the factors, although the variants depend on them smoothly. So the
//! weights of the Gauss-Hermite nodes are those for the product with that step, whose Hermite series is known,
//! `E[He_m(Z) 1{Z < y}] = -He_{m-1}(y) phi(y)`: the tetrachoric series (Kotz, Balakrishnan & Johnson, Continuous
//! Multivariate Distributions 1, 2000, ch. 46).

use super::normal::{HermiteRule, density, hazard_and_distribution};

/// The control's distribution over the lanes of two Gauss-Hermite rules, lane `k * orders[1] + l` at node k of the first and l
/// of the second.
pub(super) struct Control {
    pub(super) centre: f64,
    /// Standard deviation from the factors.
    pub(super) spread: f64,
    orders: [usize; 2],
    /// For each rule its nodes' weighted polynomials of degree m, times `cosine^m / sqrt(m!)`, node by node.
    series: [Vec<f64>; 2],
    step: Vec<f64>,
    half_summed: Vec<f64>,
}

impl Control {
    /// A control with these loadings on the factors.
    pub(super) fn new(centre: f64, loadings: [f64; 2], rules: [&HermiteRule; 2]) -> Control {
        let spread = f64::hypot(loadings[0], loadings[1]);
        let cosine = |axis: usize| if spread > 0.0 { loadings[axis] / spread } else { 0.0 };
        let orders = rules.map(|rule| rule.nodes.len());
        Control {
            centre,
            spread,
            orders,
            series: [series(rules[0], cosine(0)), series(rules[1], cosine(1))],
            step: vec![0.0; orders[0] + orders[1] - 1],
            half_summed: vec![0.0; orders[0] * orders[1]],
        }
    }

    /// The weight of each lane in an average over the factors with the control below `x`.
    pub(super) fn weights_below(&mut self, x: f64, weights: &mut [f64]) {
        self.expand_step(x);
        let [first, second] = self.orders;
        for (half, row) in self.half_summed.chunks_exact_mut(first).zip(self.series[1].chunks_exact(second)) {
            for (m, sum) in half.iter_mut().enumerate() {
                *sum = dot(row, &self.step[m..]);
            }
        }
        for (weights, row) in weights.chunks_exact_mut(second).zip(self.series[0].chunks_exact(first)) {
            for (weight, half) in weights.iter_mut().zip(self.half_summed.chunks_exact(first)) {
                *weight = dot(row, half);
            }
        }
    }

    /// The Hermite series of the step along the control's own direction, not normalised.
    fn expand_step(&mut self, x: f64) {
        let Some((below, derivatives)) = self.step.split_first_mut() else { return };
        if self.spread == 0.0 {
            *below = if x >= self.centre { 1.0 } else { 0.0 };
            derivatives.fill(0.0);
            return;
        }
        let y = ((x - self.centre) / self.spread).clamp(-30.0, 30.0);
        *below = hazard_and_distribution(y).1;
        let (mut previous, mut value) = (0.0, -density(y));
        for (m, derivative) in derivatives.iter_mut().enumerate() {
            *derivative = value;
            (previous, value) = (value, y * value - m as f64 * previous);
        }
    }
}

fn series(rule: &HermiteRule, cosine: f64) -> Vec<f64> {
    let mut series = Vec::with_capacity(rule.nodes.len() * rule.nodes.len());
    for polynomials in &rule.weighted {
        let mut power = 1.0;
        for (m, value) in polynomials.iter().enumerate() {
            series.push(value * power);
            power *= cosine / (m as f64 + 1.0).sqrt();
        }
    }
    series
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
