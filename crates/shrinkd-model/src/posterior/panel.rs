//! One panel of composite Gauss-Legendre quadrature, with the polynomial through its nodes.
//!
//! The log density is smooth where the density is not: its interpolant through 16 Legendre nodes carries the panel's
//! distribution function, from which quantiles are read (barycentric form: Berrut & Trefethen, SIAM Review 46, 2004).

use std::sync::LazyLock;

/// Nodes of a panel.
pub(crate) const NODES: usize = 16;

/// Legendre nodes on [-1, 1], their weights, their barycentric weights, and the matrix that takes values at the nodes
/// to the last two Legendre coefficients.
struct Rule {
    nodes: [f64; NODES],
    weights: [f64; NODES],
    barycentric: [f64; NODES],
    last_coefficients: [[f64; NODES]; 2],
}

static RULE: LazyLock<Rule> = LazyLock::new(Rule::new);

impl Rule {
    fn new() -> Rule {
        let n = NODES as f64;
        let (mut nodes, mut weights) = ([0.0; NODES], [0.0; NODES]);
        for i in 0..NODES {
            let mut x = -(std::f64::consts::PI * (i as f64 + 0.75) / (n + 0.5)).cos();
            for _ in 0..8 {
                let (value, slope) = legendre(NODES, x);
                x -= value / slope;
            }
            nodes[i] = x;
            weights[i] = 2.0 / ((1.0 - x * x) * legendre(NODES, x).1.powi(2));
        }
        let barycentric = std::array::from_fn(|i| {
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            sign * ((1.0 - nodes[i] * nodes[i]) * weights[i]).sqrt()
        });
        let last_coefficients = [NODES - 2, NODES - 1]
            .map(|degree| std::array::from_fn(|i| (degree as f64 + 0.5) * weights[i] * legendre(degree, nodes[i]).0));
        Rule { nodes, weights, barycentric, last_coefficients }
    }
}

/// The Legendre polynomial of this degree at |x| < 1, and its derivative.
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut previous, mut current) = (1.0, x);
    for k in 1..degree {
        let k = k as f64;
        (previous, current) = (current, ((2.0 * k + 1.0) * x * current - k * previous) / (k + 1.0));
    }
    (current, degree as f64 * (x * current - previous) / (x * x - 1.0))
}

/// The larger of the last two Legendre coefficients of the polynomial through values at the nodes.
fn last_coefficient(values: &[f64; NODES]) -> f64 {
    let coefficient = |row: &[f64; NODES]| row.iter().zip(values).map(|(w, x)| w * x).sum::<f64>().abs();
    RULE.last_coefficients.iter().map(coefficient).fold(0.0, f64::max)
}

/// An interval with a log density at its Legendre nodes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(super) low: f64,
    pub(super) high: f64,
    log_density: [f64; NODES],
}

impl Panel {
    /// The panel's nodes.
    pub(crate) fn nodes(low: f64, high: f64) -> [f64; NODES] {
        RULE.nodes.map(|x| 0.5 * (low + high) + 0.5 * (high - low) * x)
    }

    pub(super) fn new(low: f64, high: f64, log_density: [f64; NODES]) -> Panel {
        Panel { low, high, log_density }
    }

    /// The mass at each node: weight x density.
    pub(super) fn masses(&self) -> [f64; NODES] {
        let half = 0.5 * (self.high - self.low);
        std::array::from_fn(|i| half * RULE.weights[i] * self.log_density[i].exp())
    }

    /// Whether the panel is resolved, for a total mass of which it holds `mass`: the polynomial through the log density
    /// to 1e-9 of the whole, and the integral, whose error is some square of the interpolation's, to 1e-10; or both to the
    /// noise of the log density, where that is more.
    pub(super) fn is_resolved(&self, mass: f64, total: f64, noise: f64) -> bool {
        last_coefficient(&self.log_density) * mass <= noise.max(1e-9) * total
            && self.missed([1.0; NODES]) <= noise.max(1e-5) * total
    }

    /// How much of the integral of the density times a function, of which these are the values at the nodes, their
    /// polynomial may have missed. The error of the integral by the nodes is some square of that.
    pub(super) fn missed(&self, values: [f64; NODES]) -> f64 {
        let integrand = std::array::from_fn(|i| values[i] * self.log_density[i].exp());
        last_coefficient(&integrand) * (self.high - self.low)
    }

    /// About where this much of the panel's mass is below: the masses at the nodes, each spread evenly over its weight.
    pub(super) fn near_quantile(&self, mass: f64) -> f64 {
        let half = 0.5 * (self.high - self.low);
        let (mut below, mut x) = (0.0, self.low);
        for (weight, inside) in RULE.weights.iter().zip(self.masses()) {
            if below + inside >= mass {
                return x + half * weight * ((mass - below) / inside).clamp(0.0, 1.0);
            }
            below += inside;
            x += half * weight;
        }
        self.high
    }

    /// The mass below `x` within the panel.
    pub(super) fn mass_below(&self, x: f64) -> f64 {
        let half = 0.5 * (x - self.low);
        let masses = RULE
            .nodes
            .iter()
            .zip(&RULE.weights)
            .map(|(node, weight)| weight * self.density(self.low + half * (1.0 + node)));
        half * masses.sum::<f64>()
    }

    /// The nodes of a part of the panel, and the masses there.
    pub(super) fn part(&self, low: f64, high: f64) -> [(f64, f64); NODES] {
        let (middle, half) = (0.5 * (low + high), 0.5 * (high - low));
        std::array::from_fn(|i| {
            let x = middle + half * RULE.nodes[i];
            (x, half * RULE.weights[i] * self.density(x))
        })
    }

    /// The density at `x`, from the polynomial through the logs.
    pub(super) fn density(&self, x: f64) -> f64 {
        self.log_density(x).exp()
    }

    /// The log density at `x`, by the polynomial.
    pub(super) fn log_density(&self, x: f64) -> f64 {
        let u = (2.0 * x - self.low - self.high) / (self.high - self.low);
        let rule = &*RULE;
        // In four chains each, which do not wait for each other.
        let (mut above, mut below) = ([0.0; 4], [0.0; 4]);
        for i in (0..NODES).step_by(4) {
            for j in 0..4 {
                let ratio = rule.barycentric[i + j] / (u - rule.nodes[i + j]);
                above[j] += ratio * self.log_density[i + j];
                below[j] += ratio;
            }
        }
        let below: f64 = below.iter().sum();
        if below.is_finite() {
            return above.iter().sum::<f64>() / below;
        }
        // At a node.
        rule.nodes.iter().zip(&self.log_density).find(|(node, _)| u == **node).map_or(f64::NAN, |(_, value)| *value)
    }
}

/// The polynomials through values at a panel's nodes, at an x within it.
pub(crate) fn interpolate<const N: usize>(values: &[[f64; N]; NODES], low: f64, high: f64, x: f64) -> [f64; N] {
    let u = (2.0 * x - low - high) / (high - low);
    let (mut above, mut below) = ([0.0; N], 0.0);
    for ((node, weight), value) in RULE.nodes.iter().zip(&RULE.barycentric).zip(values) {
        if u == *node {
            return *value;
        }
        let ratio = weight / (u - node);
        above.iter_mut().zip(value).for_each(|(above, value)| *above += ratio * value);
        below += ratio;
    }
    above.map(|above| above / below)
}
