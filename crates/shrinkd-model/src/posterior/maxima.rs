//! The local maxima of a smooth function of one variable, found from its slope and curvature along a grid.

/// The function at `x`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub x: f64,
    pub value: f64,
    pub slope: f64,
    pub curvature: f64,
    /// Whether the function only falls from here on.
    pub is_past: bool,
}

/// How often an interval is halved in search of two roots of the slope.
const HALVINGS: u32 = 3;

/// A Newton step this small, in widths of the bracket, leaves an error of the order of its square.
const LAST_STEP: f64 = 1e-8;

/// Local maxima in ascending order of `x`. The ascending grid is followed to its end or until the function is past
/// its last maximum; it must be so fine that the slope turns at most once between two of its points.
pub(super) fn maxima(grid: impl IntoIterator<Item = f64>, at: impl Fn(f64) -> Sample) -> Vec<Sample> {
    let mut found = Vec::new();
    let mut low: Option<Sample> = None;
    for x in grid {
        let high = at(x);
        if let Some(low) = low {
            search(&at, low, high, HALVINGS, &mut found);
        }
        if high.is_past {
            break;
        }
        low = Some(high);
    }
    found
}

fn search(at: &impl Fn(f64) -> Sample, low: Sample, high: Sample, halvings: u32, found: &mut Vec<Sample>) {
    let is_rising = |sample: &Sample| sample.slope > 0.0;
    if is_rising(&low) && !is_rising(&high) {
        found.push(climb(at, low.x, high.x));
        return;
    }
    // The slope's size falls from the low end and rises towards the high end: it may have crossed zero and come back.
    let turns_back = is_rising(&low) == is_rising(&high)
        && is_rising(&low) == (low.curvature < 0.0)
        && is_rising(&high) == (high.curvature > 0.0);
    if turns_back && halvings > 0 {
        let middle = at(0.5 * (low.x + high.x));
        search(at, low, middle, halvings - 1, found);
        search(at, middle, high, halvings - 1, found);
    }
}

/// Newton's method for the slope's root, by bisection where a step would leave the bracket.
fn climb(at: &impl Fn(f64) -> Sample, mut low: f64, mut high: f64) -> Sample {
    let width = high - low;
    let mut sample = at(low + 0.5 * width);
    for _ in 0..100 {
        if sample.slope > 0.0 {
            low = sample.x;
        } else {
            high = sample.x;
        }
        let newton = sample.x - sample.slope / sample.curvature;
        let next = if newton >= low && newton <= high { newton } else { 0.5 * (low + high) };
        let is_last = (next - sample.x).abs() <= LAST_STEP * width;
        sample = at(next);
        if is_last {
            break;
        }
    }
    sample
}
