//! Which of several independent normals is the largest: one integral over the height of the largest, for all of them.
//!
//! The density that variant i is the largest, at height x, is `h_i(x) prod_j F_j(x)` with `h_i = f_i / F_i`. Between the
//! highest of the variants' lower ends and their upper ends, all that still matter at x reach down to the start, so the
//! narrowest of them is no narrower than a tenth or so of the distance to it: panels as wide as it allows grow like a
//! geometric series, and standard deviations that differ by a factor of 1,000 cost some 30 panels.

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

/// The probability of a largest variant below a height from which on lower heights are left out.
const NEGLIGIBLE: f64 = 1e-6;

/// One variant: within one lane it is normal about `centre + loadings . lane` with standard deviation `sd`; over all lanes
/// its standard deviation is `spread`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    /// Its place in the block.
    pub(super) index: usize,
    pub(super) centre: f64,
    pub(super) spread: f64,
    pub(super) sd: f64,
    pub(super) loadings: [f64; 2],
}

/// A stretch of heights, and how many rivals reach above its lower end.
#[derive(Debug, Clone, Copy)]
struct Panel {
    low: f64,
    high: f64,
    rivals: usize,
}

/// The variants of one integral, and room to compute it in, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Field {
    /// By descending upper end.
    rivals: Vec<Rival>,
    panels: Vec<Panel>,
    /// What follows is rival by rival and, within, lane by lane.
    centres: Vec<f64>,
    precisions: Vec<f64>,
    hazards: Vec<f64>,
    distributions: Vec<f64>,
    /// What follows is lane by lane.
    weights: Vec<f64>,
    /// The probability that all rivals are below the height.
    all_below: Vec<f64>,
}

impl Field {
    /// Adds `weight` times each variant's probability of being the largest, the control among its rivals, to its place
    /// in `wins`. `lanes` are the factors' values, as many as the control has weights.
    pub(super) fn add_wins(
        &mut self,
        variants: impl Iterator<Item = Rival>,
        lanes: &[[f64; 2]],
        control: &mut Control,
        weight: f64,
        wins: &mut [f64],
    ) {
        // What lies farther out is less than 4e-5 of all variants' probability together.
        let reach = (16.0 + 2.0 * (wins.len() as f64).ln()).sqrt();
        self.lay_panels(variants, reach, control);
        self.place(lanes);
        while let Some(panel) = self.panels.pop() {
            let half = 0.5 * (panel.high - panel.low);
            let mut reachable = 0.0;
            for (place, panel_weight) in PANEL_RULE {
                let height = panel.low + half * (1.0 + place);
                control.weights_below(height, &mut self.weights);
                self.weights.iter_mut().for_each(|lane| *lane *= weight * half * panel_weight);
                reachable = self.add_wins_at(height, panel.rivals, wins);
            }
            if reachable < NEGLIGIBLE {
                break;
            }
        }
    }

    /// Takes the rivals that can win and cuts the heights at which they can into panels.
    fn lay_panels(&mut self, variants: impl Iterator<Item = Rival>, reach: f64, control: &Control) {
        let high_of = |rival: &Rival| rival.centre + reach * rival.spread;
        let control_high = control.centre + reach * control.spread;
        let mut low = control.centre - reach * control.spread;
        self.panels.clear();
        self.rivals.clear();
        self.rivals.extend(variants.inspect(|rival| low = low.max(rival.centre - reach * rival.spread)));
        self.rivals.retain(|rival| high_of(rival) > low);
        self.rivals.sort_unstable_by(|a, b| high_of(b).total_cmp(&high_of(a)));
        let Some(top) = self.rivals.first().map(high_of) else { return };
        // The maximum of n equal normals narrows like 1 / sqrt(log n).
        let width = PANEL_WIDTH / (1.0 + (self.rivals.len() as f64 / 2.0).ln().max(0.0)).sqrt();
        while low < top {
            let rivals = self.rivals.partition_point(|rival| high_of(rival) > low);
            let control_spread = if control_high > low { control.spread } else { f64::INFINITY };
            let narrowest = self.rivals[..rivals].iter().map(|rival| rival.sd).fold(control_spread, f64::min);
            let high = (low + width * narrowest).min(top);
            if high <= low {
                break;
            }
            self.panels.push(Panel { low, high, rivals });
            low = high;
        }
    }

    fn place(&mut self, lanes: &[[f64; 2]]) {
        self.centres.clear();
        self.precisions.clear();
        for rival in &self.rivals {
            let [first, second] = rival.loadings;
            self.centres.extend(lanes.iter().map(|lane| rival.centre + first * lane[0] + second * lane[1]));
            self.precisions.resize(self.centres.len(), 1.0 / rival.sd);
        }
        self.hazards.resize(self.centres.len(), 0.0);
        self.distributions.resize(self.centres.len(), 0.0);
        self.weights.resize(lanes.len(), 0.0);
        self.all_below.resize(lanes.len(), 0.0);
    }

    /// Adds what one height brings to the first `rivals` rivals, given the lanes' weights; returns the largest
    /// probability, over the lanes, that all of them are below it.
    fn add_wins_at(&mut self, height: f64, rivals: usize, wins: &mut [f64]) -> f64 {
        let lanes = self.weights.len();
        let size = rivals * lanes;
        let places = self.centres[..size].iter().zip(&self.precisions[..size]);
        let values = self.hazards[..size].iter_mut().zip(&mut self.distributions[..size]);
        for ((hazard, distribution), (centre, precision)) in values.zip(places) {
            let (of_unit, below) = hazard_and_distribution((height - centre) * precision);
            *hazard = of_unit * precision;
            *distribution = below;
        }
        self.all_below.fill(1.0);
        for distributions in self.distributions[..size].chunks_exact(lanes) {
            self.all_below.iter_mut().zip(distributions).for_each(|(all_below, below)| *all_below *= below);
        }
        let reachable = self.all_below.iter().copied().fold(0.0, f64::max);
        self.weights.iter_mut().zip(&self.all_below).for_each(|(weight, all_below)| *weight *= all_below);
        for (rival, hazards) in self.rivals[..rivals].iter().zip(self.hazards.chunks_exact(lanes)) {
            wins[rival.index] += hazards.iter().zip(&self.weights).map(|(hazard, weight)| hazard * weight).sum::<f64>();
        }
        reachable
    }
}
