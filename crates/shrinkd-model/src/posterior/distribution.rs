//! The posterior distribution of tau: what follows from it beside the summary.

use super::panel::Panel;
use crate::normal;

/// Dyadic panels towards tau = 0, where log tau is singular: what is left beyond them is 2^-40 of the first.
const DYADIC: usize = 40;

/// The map from x, on which the posterior is integrated, to tau.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Map {
    /// `a` of `tau = a sinh(x)` or `tau = a exp(x)`.
    pub(super) scale: f64,
    /// Which of the two.
    pub(super) is_log: bool,
}

impl Map {
    pub(super) fn tau(&self, x: f64) -> f64 {
        self.scale * if self.is_log { x.exp() } else { x.sinh() }
    }

    pub(super) fn x(&self, tau: f64) -> f64 {
        if self.is_log { (tau / self.scale).ln() } else { (tau / self.scale).asinh() }
    }

    /// The log of `dtau / dx`, in units of `a`.
    pub(super) fn log_slope(&self, x: f64) -> f64 {
        if self.is_log { x } else { x.cosh().ln() }
    }
}

/// The posterior distribution of tau, in the effects' unit.
#[derive(Debug, Clone, PartialEq)]
pub struct TauDistribution(Form);

#[derive(Debug, Clone, PartialEq)]
enum Form {
    Known { tau: f64 },
    LogNormal { mean: f64, sd: f64 },
    Integrated { axis: Map, panels: Panels, is_unimodal: bool },
}

impl TauDistribution {
    pub(in super::super) fn known(tau: f64) -> TauDistribution {
        TauDistribution(Form::Known { tau })
    }

    /// `log tau ~ N(mean, sd^2)`.
    pub(super) fn log_normal(mean: f64, sd: f64) -> TauDistribution {
        TauDistribution(Form::LogNormal { mean, sd })
    }

    pub(super) fn integrated(axis: Map, panels: Panels, is_unimodal: bool) -> TauDistribution {
        TauDistribution(Form::Integrated { axis, panels, is_unimodal })
    }

    /// The probability of a tau below this one, > 0.
    pub fn below(&self, tau: f64) -> f64 {
        match &self.0 {
            Form::Known { tau: known } => f64::from(u8::from(*known < tau)),
            Form::LogNormal { mean, sd } => normal::cdf((tau.ln() - mean) / sd),
            Form::Integrated { axis, panels, .. } => panels.share_below(axis.x(tau)),
        }
    }

    /// The probability that tau is below a tenth of the typical standard error ([`DataScale::se`](crate::DataScale::se)), and
    /// so of no consequence beside it.
    pub fn negligible(&self, typical_se: f64) -> f64 {
        self.below(0.1 * typical_se)
    }

    /// Standard deviation of log tau; 0 where tau is known.
    pub fn log_sd(&self) -> f64 {
        match &self.0 {
            Form::Known { .. } => 0.0,
            Form::LogNormal { sd, .. } => *sd,
            Form::Integrated { axis, panels, .. } => panels.log_sd(axis),
        }
    }

    /// The shortest interval that holds 95% (Box & Tiao, Bayesian Inference in Statistical Analysis, 1973, section 2.8). It
    /// begins at 0 where no tau has a higher density, so that, unlike one with equal tails, it can cover a tau of 0.
    pub fn shortest95(&self) -> (f64, f64) {
        const LEVEL: f64 = 0.95;
        match &self.0 {
            Form::Known { tau } => (*tau, *tau),
            Form::LogNormal { mean, sd } => {
                // The density of tau is the same at z and at -z - 2 sd.
                let excess = |z: f64| LEVEL - (normal::cdf(-z - 2.0 * sd) - normal::cdf(z));
                let z = root(-40.0 - 2.0 * sd, -*sd, excess);
                ((mean + sd * z).exp(), (mean - sd * (z + 2.0 * sd)).exp())
            }
            Form::Integrated { axis, panels, is_unimodal } => {
                let ends = |p: f64| [panels.quantile(p), panels.quantile(p + LEVEL)];
                // In its own terms a density is nearly linear in the probability beyond it.
                let density = |x: f64| (panels.log_density(x) - axis.log_slope(x)).exp();
                // Below 0 where the interval becomes shorter when it moves up.
                let slope = |p: f64| {
                    let [low, high] = ends(p);
                    density(low) - density(high)
                };
                let width = |p: f64| {
                    let [low, high] = ends(p).map(|x| axis.tau(x));
                    high - low
                };
                const CELLS: usize = 32;
                let edge = |i: usize| (1.0 - LEVEL) * i as f64 / CELLS as f64;
                let (low, high) = if *is_unimodal {
                    (0.0, 1.0 - LEVEL)
                } else {
                    let shortest = (0..=CELLS).min_by(|&i, &j| width(edge(i)).total_cmp(&width(edge(j)))).unwrap_or(0);
                    (edge(shortest.saturating_sub(1)), edge((shortest + 1).min(CELLS)))
                };
                let p = root(low, high, slope);
                let [low, high] = ends(p).map(|x| axis.tau(x));
                (if p == 0.0 && !axis.is_log { 0.0 } else { low }, high)
            }
        }
    }
}

/// Where a function that is below 0 at `low` and above it at `high` crosses it, to 1e-11 of their distance: by the Illinois
/// form of the false position (Dowell & Jarratt, BIT 11, 1971), every fourth step halving. An end where it has no such sign.
fn root(low: f64, high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let tolerance = 1e-11 * (high - low);
    let (mut low, mut high) = ((low, f(low)), (high, f(high)));
    if low.1 >= 0.0 {
        return low.0;
    }
    if high.1 <= 0.0 {
        return high.0;
    }
    let (mut x, mut was_below) = (f64::INFINITY, None);
    for step in 1..200 {
        let position = low.0 + (high.0 - low.0) * (low.1 / (low.1 - high.1));
        let is_within = position > low.0 && position < high.0;
        let next = if is_within && step % 4 != 0 { position } else { 0.5 * (low.0 + high.0) };
        if (next - x).abs() <= tolerance {
            return next;
        }
        x = next;
        let value = f(x);
        let is_below = value < 0.0;
        // An end that stays counts for half, so that the next step goes beyond the root.
        let weight = if was_below == Some(is_below) { 0.5 } else { 1.0 };
        if is_below {
            (low, high.1) = ((x, value), weight * high.1);
        } else {
            (high, low.1) = ((x, value), weight * low.1);
        }
        was_below = Some(is_below);
    }
    x
}

/// Resolved panels in ascending order, with their masses.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panels {
    panels: Vec<(Panel, f64)>,
    total: f64,
}

impl Panels {
    pub(super) fn new(panels: Vec<(Panel, f64)>, total: f64) -> Panels {
        Panels { panels, total }
    }

    pub(super) fn share_below(&self, x: f64) -> f64 {
        let below = |(panel, mass): &(Panel, f64)| match x {
            x if x >= panel.high => *mass,
            x if x > panel.low => panel.mass_below(x),
            _ => 0.0,
        };
        (self.panels.iter().map(below).sum::<f64>() / self.total).clamp(0.0, 1.0)
    }

    /// The log density at an x within the panels.
    fn log_density(&self, x: f64) -> f64 {
        let panel = self.panels.iter().find(|(panel, _)| x <= panel.high).or(self.panels.last());
        panel.map_or(f64::NEG_INFINITY, |(panel, _)| panel.log_density(x))
    }

    /// The x below which this share of the mass lies.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let mass = share * self.total;
        let mut below = 0.0;
        for (i, (panel, inside)) in self.panels.iter().enumerate() {
            if below + inside < mass && i + 1 < self.panels.len() {
                below += inside;
                continue;
            }
            let (mut low, mut high) = (panel.low, panel.high);
            let mut x = panel.near_quantile(mass - below);
            for _ in 0..100 {
                let excess = below + panel.mass_below(x) - mass;
                if excess > 0.0 {
                    high = x;
                } else {
                    low = x;
                }
                let proposal = x - excess / panel.density(x);
                let is_within = proposal > low && proposal < high;
                let next = if is_within { proposal } else { 0.5 * (low + high) };
                // Newton squares the error: what a step of 1e-7 leaves is below rounding.
                if (is_within && excess.abs() <= 1e-7 * mass) || next == x {
                    return next;
                }
                x = next;
            }
            return x;
        }
        0.0
    }

    /// Standard deviation of log tau, by the polynomials through the log density.
    fn log_sd(&self, axis: &Map) -> f64 {
        let centre = axis.tau(self.quantile(0.5)).ln();
        let [mut first, mut second] = [0.0; 2];
        for (panel, _) in &self.panels {
            let mut high = panel.high;
            for _ in 0..DYADIC {
                let low = if axis.is_log { panel.low } else { panel.low.max(0.5 * high) };
                for (x, mass) in panel.part(low, high) {
                    let log_tau = axis.tau(x).ln() - centre;
                    first += mass * log_tau;
                    second += mass * log_tau * log_tau;
                }
                if low == panel.low {
                    break;
                }
                high = low;
            }
        }
        let mean = first / self.total;
        (second / self.total - mean * mean).max(0.0).sqrt()
    }
}
