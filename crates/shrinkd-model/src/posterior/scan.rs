//! Where the posterior of tau lies: one walk along the axis finds its support and its modes.

use super::PosteriorError;
use super::quadrature::Axis;
use crate::likelihood::Likelihood;

/// Densities this far below the highest, in logs, are left out: e^-38 of the mass.
pub(super) const CUT: f64 = 38.0;

/// Steps of a walk along the axis, and where it ends at the latest: e^300 times `a`.
pub(super) const STEP: f64 = 0.5;
pub(super) const FARTHEST: f64 = 300.0;

/// Larger tau has a square beyond f64.
pub(super) const LARGEST_TAU: f64 = 1e150;

/// The result of one walk along the axis.
pub(super) struct Scan {
    pub(super) low: f64,
    pub(super) high: f64,
    /// The highest log density in x that was seen.
    pub(super) peak: f64,
    /// Local modes of the density of tau: tau and its log density, highest first.
    pub(super) modes: Vec<(f64, f64)>,
}

/// The marginal at one x.
#[derive(Debug, Clone, Copy)]
struct Sample {
    x: f64,
    /// Log density of tau.
    log_density_tau: f64,
    /// Log density of x.
    log_density: f64,
    /// The same of the highest moment's integrand.
    log_moment: f64,
}

impl<L: Likelihood> Axis<'_, L> {
    /// Where a walk along x begins: at tau = 0, or where nothing is left of the posterior to the left.
    fn start(&self) -> f64 {
        if !self.map.is_log {
            return 0.0;
        }
        // Left of here the prior of log tau rises, and the likelihood is all but flat.
        let flat = -0.5 * (self.effects as f64).ln() - 1.0;
        let mut x = self.x(self.marginal.priors.tau.scale()).min(flat);
        let here = self.at(x).1;
        while self.at(x).1 > here - CUT - 2.0 {
            x -= STEP;
        }
        x
    }

    /// Walks along x in half units, refines the modes that it passes, and cuts the support.
    pub(super) fn scan(&self) -> Result<Scan, PosteriorError> {
        let (start, moment) = (self.start(), self.moment());
        let mut seen: Vec<Sample> = Vec::with_capacity(100);
        let mut moment_peak = f64::NEG_INFINITY;
        let mut peak = f64::NEG_INFINITY;
        loop {
            let sample = self.sample(start + STEP * seen.len() as f64, moment);
            peak = peak.max(sample.log_density);
            moment_peak = moment_peak.max(sample.log_moment);
            let is_negligible = sample.log_density < peak - CUT && sample.log_moment < moment_peak - CUT;
            let tau = self.tau(sample.x);
            seen.push(sample);
            let is_at_the_end = sample.x > FARTHEST || tau > LARGEST_TAU;
            if is_at_the_end || (tau * tau > self.far && is_negligible) {
                if sample.log_density > peak - 0.5 * CUT || !peak.is_finite() {
                    return Err(PosteriorError::OutOfRange);
                }
                break;
            }
        }
        let modes = self.modes(&seen, moment);
        seen.extend(&modes);
        seen.sort_by(|left, right| left.x.total_cmp(&right.x));
        peak = modes.iter().map(|mode| mode.log_density).fold(peak, f64::max);
        moment_peak = modes.iter().map(|mode| mode.log_moment).fold(moment_peak, f64::max);
        let is_low = |sample: &Sample| sample.log_density < peak - CUT;
        let is_high = |sample: &Sample| is_low(sample) && sample.log_moment < moment_peak - CUT;
        let first = seen.iter().position(|sample| !is_low(sample)).unwrap_or(0);
        let last = seen.iter().rposition(|sample| !is_high(sample)).unwrap_or(0);
        let highest = seen.iter().max_by(|left, right| left.log_density.total_cmp(&right.log_density));
        let peak_x = highest.map_or(0.0, |sample| sample.x);
        let low = match first {
            0 => start,
            _ => self.crossing((seen[first - 1].x, seen[first].x), peak_x, moment, is_low),
        };
        let high = match seen.get(last + 1) {
            Some(beyond) => self.crossing((beyond.x, seen[last].x), peak_x, moment, is_high),
            None => seen[last].x,
        };
        let mut modes: Vec<(f64, f64)> = modes.iter().map(|mode| (self.tau(mode.x), mode.log_density_tau)).collect();
        modes.sort_by(|left, right| right.1.total_cmp(&left.1));
        Ok(Scan { low, high, peak, modes })
    }

    fn sample(&self, x: f64, moment: f64) -> Sample {
        let (point, log_density) = self.at(x);
        let log_moment = if moment > 0.0 { log_density + moment * self.tau(x).ln() } else { log_density };
        Sample { x, log_density_tau: point.log_density, log_density, log_moment }
    }

    /// The local modes of the density of tau, from samples along x: 0 is one where the density falls from there.
    fn modes(&self, seen: &[Sample], moment: f64) -> Vec<Sample> {
        let mut modes = Vec::new();
        if self.map.is_log {
            // The density rises from tau = 0.
        } else if self.marginal.derivatives(0.0).0 <= 0.0 {
            modes.extend(seen.first());
        } else if let [first, second, ..] = seen
            && first.log_density_tau >= second.log_density_tau
        {
            modes.push(self.sample(self.mode(first.x, second.x), moment));
        }
        for neighbours in seen.windows(3) {
            let [left, middle, right] = [0, 1, 2].map(|i| neighbours[i].log_density_tau);
            if left < middle && middle >= right {
                modes.push(self.sample(self.mode(neighbours[0].x, neighbours[2].x), moment));
            }
        }
        modes
    }

    /// The mode of the density of tau between two x with slopes of opposite sign: Newton in t within the bracket.
    fn mode(&self, low: f64, high: f64) -> f64 {
        let (mut low, mut high) = (low, high);
        let mut x = 0.5 * (low + high);
        for _ in 0..60 {
            let tau = self.tau(x);
            let (slope, curvature) = self.marginal.derivatives(tau * tau);
            if slope > 0.0 {
                low = x;
            } else {
                high = x;
            }
            let t = tau * tau - slope / curvature;
            let proposal = self.x(t.max(0.0).sqrt());
            let next = if proposal > low && proposal < high { proposal } else { 0.5 * (low + high) };
            if (next - x).abs() <= 1e-9 * x.abs() {
                return next;
            }
            x = next;
        }
        x
    }

    /// Between an x that may be left out and one that may not, one that may: the edge of the support, to a tenth of its
    /// distance from the peak.
    fn crossing(&self, edge: (f64, f64), peak: f64, moment: f64, is_outside: impl Fn(&Sample) -> bool) -> f64 {
        let (mut outside, mut inside) = edge;
        while (outside - inside).abs() > 0.1 * (outside - peak).abs() {
            let x = 0.5 * (outside + inside);
            if x == outside || x == inside {
                break;
            }
            if is_outside(&self.sample(x, moment)) {
                outside = x;
            } else {
                inside = x;
            }
        }
        outside
    }
}
