//! Adaptive composite Gauss-Legendre quadrature of a density that is known by its log.

use super::panel::{NODES, Panel};

/// A panel with its density relative to the peak, and what was computed at its nodes.
pub(super) struct Piece<T> {
    pub panel: Panel,
    pub masses: [f64; NODES],
    pub at: [T; NODES],
}

/// The pieces of an interval, and the highest log density among their nodes, relative to which they are.
pub(super) struct Pieces<T> {
    pub pieces: Vec<Piece<T>>,
    pub peak: f64,
}

/// A panel before the peak is known.
struct Raw<T> {
    low: f64,
    high: f64,
    log_density: [f64; NODES],
    at: [T; NODES],
}

/// What a function must be integrated to beside the density itself.
pub(super) struct Promise<'a> {
    /// A positive function whose integral is to be as good.
    pub moment: &'a dyn Fn(f64) -> f64,
    /// Relative to the log density of a panel: what rounding may do to it.
    pub noise: f64,
}

/// The narrowest panel, relative to the first.
const NARROWEST: f64 = 1e-7;

impl<T> Pieces<T> {
    /// Integrates over panels with these edges, ascending, which are halved until each is resolved.
    pub fn new(edges: &[f64], promise: &Promise<'_>, mut evaluate: impl FnMut(f64) -> (f64, T)) -> Pieces<T> {
        let mut raw = |low: f64, high: f64| {
            let mut log_density = [0.0; NODES];
            let mut nodes = Panel::nodes(low, high).into_iter().zip(&mut log_density);
            let at = std::array::from_fn(|_| {
                let (x, log) = nodes.next().expect("as many");
                let (value, at) = evaluate(x);
                *log = value;
                at
            });
            Raw { low, high, log_density, at }
        };
        let mut found: Vec<Raw<T>> = edges.windows(2).map(|edge| raw(edge[0], edge[1])).collect();
        let width = edges.last().zip(edges.first()).map_or(0.0, |(last, first)| last - first);
        let highest = |found: &[Raw<T>]| {
            let of = |raw: &Raw<T>| raw.log_density.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let best = found.iter().enumerate().max_by(|(_, x), (_, y)| of(x).total_cmp(&of(y)));
            best.map(|(index, raw)| (index, of(raw)))
        };
        // A peak between two nodes may be higher than any of them by hundreds.
        let (mut index, mut peak) = highest(&found).unwrap_or((0, f64::NEG_INFINITY));
        while found.get(index).is_some_and(|raw| raw.high - raw.low > NARROWEST * width) {
            let Raw { low, high, .. } = found.remove(index);
            let middle = 0.5 * (low + high);
            found.insert(index, raw(middle, high));
            found.insert(index, raw(low, middle));
            let (next, higher) = highest(&found).unwrap_or((index, peak));
            let is_found = higher < peak + 1.0;
            (index, peak) = (next, peak.max(higher));
            if is_found {
                break;
            }
        }
        let piece = |raw: Raw<T>| {
            let panel = Panel::new(raw.low, raw.high, raw.log_density.map(|log| log - peak));
            Piece { masses: panel.masses(), panel, at: raw.at }
        };
        let moment = |piece: &Piece<T>| {
            let nodes = Panel::nodes(piece.panel.low, piece.panel.high);
            nodes.iter().zip(piece.masses).map(|(x, mass)| (promise.moment)(*x) * mass).sum::<f64>()
        };
        let mut pending: Vec<Piece<T>> = found.into_iter().rev().map(piece).collect();
        let mut total: f64 = pending.iter().flat_map(|piece| piece.masses).sum();
        let mut total_moment: f64 = pending.iter().map(moment).sum();
        let mut pieces = Vec::with_capacity(pending.len());
        while let Some(candidate) = pending.pop() {
            let Panel { low, high, .. } = candidate.panel;
            let (mass, own_moment) = (candidate.masses.iter().sum::<f64>(), moment(&candidate));
            let missed = candidate.panel.missed(Panel::nodes(low, high).map(promise.moment));
            let is_resolved = candidate.panel.is_resolved(mass, total, promise.noise)
                && missed <= promise.noise.max(1e-4) * total_moment;
            if is_resolved || high - low < NARROWEST * width || !total.is_finite() {
                pieces.push(candidate);
                continue;
            }
            let middle = 0.5 * (low + high);
            let halves = [(middle, high), (low, middle)].map(|(low, high)| piece(raw(low, high)));
            total += halves.iter().flat_map(|piece| piece.masses).sum::<f64>() - mass;
            total_moment += halves.iter().map(moment).sum::<f64>() - own_moment;
            pending.extend(halves);
        }
        Pieces { pieces, peak }
    }

    pub fn total(&self) -> f64 {
        self.pieces.iter().flat_map(|piece| piece.masses).sum()
    }
}
