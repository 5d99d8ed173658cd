//! The probability that each of several independent normals is the largest: one integral over the value of the maximum
//! for all of them.
//!
//! The density of variant i being the largest, with value x, is `h_i(x) prod_j F_j(x)` with `h_i = f_i / F_i`. The integral
//! runs from the highest of the candidates' lower ends to the highest of their upper ends. Every candidate that matters
//! at x reaches down to the start, so the narrowest of them is no narrower than about a tenth of the distance from there:
//! panels as wide as it allows grow geometrically, and standard deviations that differ by a factor of 1,000 need some 30
//! panels.

use super::control::Control;
use super::normal::hazard_and_distribution;

/// Four-point Gauss-Legendre rule on [-1, 1], from the top down.
const PANEL_RULE: [(f64, f64); 4] = [
    (0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
    (0.339_981_043_584_856_26, 0.652_145_154_862_546_1),
    (-0.339_981_043_584_856_26, 0.652_145_154_862_546_1),
    (-0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
];

/// A panel's width in standard deviations of the narrowest variant, for two variants.
const PANEL_WIDTH: f64 = 2.2;

/// The integral stops at values below which the maximum lies with less than this probability.
const NEGLIGIBLE: f64 = 1e-6;

/// A variant that may be the largest. Given one lane of factor values it is normal about `centre + loadings . lane` with
/// standard deviation `sd`; over all lanes its standard deviation is `spread`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its index in the block.
    pub(super) index: usize,
    pub(super) centre: f64,
    pub(super) spread: f64,
    pub(super) sd: f64,
    pub(super) loadings: [f64; 2],
}

/// An interval of values, and how many candidates reach above its lower end.
#[derive(Debug, Clone, Copy)]
struct Panel {
    low: f64,
    high: f64,
    candidates: usize,
}

/// The integral over the value of the maximum, with buffers that are reused from one integral to the next.
#[derive(Debug, Default)]
pub(super) struct MaximumIntegral {
    /// By descending upper end.
    candidates: Vec<Candidate>,
    panels: Vec<Panel>,
    /// What follows is candidate by candidate and, within, lane by lane.
    centres: Vec<f64>,
    precisions: Vec<f64>,
    hazards: Vec<f64>,
    distributions: Vec<f64>,
    /// What follows is lane by lane.
    weights: Vec<f64>,
    /// The probability that all candidates are below the value.
    all_below: Vec<f64>,
}

impl MaximumIntegral {
    /// Adds `weight` times each variant's probability of being the largest, the control included in the comparison, to its
    /// entry of `probabilities`. `lanes` are the values of the factors, as many as the control has weights.
    pub(super) fn add_probabilities(
        &mut self,
        variants: impl Iterator<Item = Candidate>,
        lanes: &[[f64; 2]],
        control: &mut Control,
        weight: f64,
        probabilities: &mut [f64],
    ) {
        // What lies farther out is less than 4e-5 of all variants' probability together.
        let reach = (16.0 + 2.0 * (probabilities.len() as f64).ln()).sqrt();
        self.lay_panels(variants, reach, control);
        self.prepare_lanes(lanes);
        while let Some(panel) = self.panels.pop() {
            let half = 0.5 * (panel.high - panel.low);
            let mut reachable = 0.0;
            for (node, panel_weight) in PANEL_RULE {
                let maximum = panel.low + half * (1.0 + node);
                control.weights_below(maximum, &mut self.weights);
                self.weights.iter_mut().for_each(|lane| *lane *= weight * half * panel_weight);
                reachable = self.add_at(maximum, panel.candidates, probabilities);
            }
            if reachable < NEGLIGIBLE {
                break;
            }
        }
    }

    /// Keeps the candidates that can be the largest, and divides the values at which they can into panels.
    fn lay_panels(&mut self, variants: impl Iterator<Item = Candidate>, reach: f64, control: &Control) {
        let high_of = |candidate: &Candidate| candidate.centre + reach * candidate.spread;
        let control_high = control.centre + reach * control.spread;
        let mut low = control.centre - reach * control.spread;
        self.panels.clear();
        self.candidates.clear();
        self.candidates
            .extend(variants.inspect(|candidate| low = low.max(candidate.centre - reach * candidate.spread)));
        self.candidates.retain(|candidate| high_of(candidate) > low);
        self.candidates.sort_unstable_by(|a, b| high_of(b).total_cmp(&high_of(a)));
        let Some(top) = self.candidates.first().map(high_of) else { return };
        // The maximum of n equal normals narrows like 1 / sqrt(log n).
        let width = PANEL_WIDTH / (1.0 + (self.candidates.len() as f64 / 2.0).ln().max(0.0)).sqrt();
        while low < top {
            let candidates = self.candidates.partition_point(|candidate| high_of(candidate) > low);
            let control_spread = if control_high > low { control.spread } else { f64::INFINITY };
            let narrowest =
                self.candidates[..candidates].iter().map(|candidate| candidate.sd).fold(control_spread, f64::min);
            let high = (low + width * narrowest).min(top);
            if high <= low {
                break;
            }
            self.panels.push(Panel { low, high, candidates });
            low = high;
        }
    }

    fn prepare_lanes(&mut self, lanes: &[[f64; 2]]) {
        self.centres.clear();
        self.precisions.clear();
        for candidate in &self.candidates {
            let [first, second] = candidate.loadings;
            self.centres.extend(lanes.iter().map(|lane| candidate.centre + first * lane[0] + second * lane[1]));
            self.precisions.resize(self.centres.len(), 1.0 / candidate.sd);
        }
        self.hazards.resize(self.centres.len(), 0.0);
        self.distributions.resize(self.centres.len(), 0.0);
        self.weights.resize(lanes.len(), 0.0);
        self.all_below.resize(lanes.len(), 0.0);
    }

    /// Adds the contribution of one value of the maximum to the first `candidates` candidates, given the lanes' weights;
    /// returns the largest probability, over the lanes, that all of them are below it.
    fn add_at(&mut self, maximum: f64, candidates: usize, probabilities: &mut [f64]) -> f64 {
        let lanes = self.weights.len();
        let size = candidates * lanes;
        let normals = self.centres[..size].iter().zip(&self.precisions[..size]);
        let values = self.hazards[..size].iter_mut().zip(&mut self.distributions[..size]);
        for ((hazard, distribution), (centre, precision)) in values.zip(normals) {
            let (of_unit, below) = hazard_and_distribution((maximum - centre) * precision);
            *hazard = of_unit * precision;
            *distribution = below;
        }
        self.all_below.fill(1.0);
        for distributions in self.distributions[..size].chunks_exact(lanes) {
            self.all_below.iter_mut().zip(distributions).for_each(|(all_below, below)| *all_below *= below);
        }
        let reachable = self.all_below.iter().copied().fold(0.0, f64::max);
        self.weights.iter_mut().zip(&self.all_below).for_each(|(weight, all_below)| *weight *= all_below);
        for (candidate, hazards) in self.candidates[..candidates].iter().zip(self.hazards.chunks_exact(lanes)) {
            probabilities[candidate.index] +=
                hazards.iter().zip(&self.weights).map(|(hazard, weight)| hazard * weight).sum::<f64>();
        }
        reachable
    }
}
