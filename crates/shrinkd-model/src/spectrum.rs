//! The spectral form of a block: one rotation turns its correlated effects into independent components, for every tau
//! at once.
//!
//! With `Sigma = Q diag(lambda) Q'` the marginal covariance is `Sigma + tau^2 I = Q diag(lambda + tau^2) Q'`, so that
//! `a = Q'1` and `b = Q'delta` are all that the likelihood needs from a block.
//!
//! A shared control gives a diagonal plus a rank-one matrix. Its eigenvalues are the roots of the secular equation
//! `1 + c sum_i 1 / (d_i - lambda) = 0` (Golub, SIAM Review 15, 1973), found by the rational iteration of Bunch,
//! Nielsen and Sorensen (Numerische Mathematik 31, 1978) as distances from the nearest pole, so that the small ones
//! keep their relative accuracy however large the control's variance is; the eigenvectors follow from the weights
//! that fit the computed eigenvalues exactly (Gu & Eisenstat, SIAM J. Matrix Anal. Appl. 16, 1995). By the same equation a
//! component's loading on mu is `-1 / sqrt(c)` over the norm of its vector, which is small without any cancellation
//! where the control's variance is large. Work: O(n^2).
//! A dense matrix is decomposed in `axes`.

use serde::{Deserialize, Serialize};

use super::axes;
use super::block::{BlockError, Covariance};

/// One independent component of a block: `b ~ N(mu a, lambda + tau^2)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Sampling variance, an eigenvalue of `Sigma`.
    pub lambda: f64,
    /// Entry of `Q'1`: the component's loading on mu.
    pub a: f64,
    /// Entry of `Q'delta`: its observed value, in the effects' unit.
    pub b: f64,
}

/// The components of a block: see [`Block::components`](super::Block::components).
pub(crate) fn components(effects: &[f64], covariance: &Covariance) -> Result<Vec<Component>, BlockError> {
    match covariance {
        Covariance::SharedControl { treatment_variances, control_variance } => {
            Ok(shared_control(effects, treatment_variances, *control_variance))
        }
        Covariance::Dense { matrix } => axes::components(effects, matrix),
    }
}

fn shared_control(effects: &[f64], d: &[f64], c: f64) -> Vec<Component> {
    if let ([effect], [d]) = (effects, d) {
        return vec![Component { lambda: d + c, a: 1.0, b: *effect }];
    }
    let mut components = Vec::with_capacity(effects.len());
    let poles = poles(effects, d, c, &mut components);
    let roots: Vec<Root> = (0..poles.len()).map(|j| root(&poles, j)).collect();
    let refined: Vec<f64> = (0..poles.len()).map(|i| refined_weight(&poles, &roots, i)).collect();
    for root in &roots {
        let (mut square, mut b) = (0.0, 0.0);
        for (pole, weight) in poles.iter().zip(&refined) {
            let entry = weight / root.distance_to(&poles, pole.d);
            square += entry * entry;
            b += entry * pole.b;
        }
        let norm = square.sqrt();
        components.push(Component { lambda: root.value(&poles), a: -1.0 / (c.sqrt() * norm), b: b / norm });
    }
    components
}

/// A direction with its own variance `d`: the sum of the `m` effects that have this variance, which the control's error
/// reaches with weight `z = sqrt(c m)`, and the coordinate of the effects in it.
struct Pole {
    d: f64,
    z: f64,
    b: f64,
}

/// The control's part of a direction, relative to its own standard error, below which the two are taken as independent: far
/// below what rounding does to any covariance, and far above where the squares of the weights vanish.
const NEGLIGIBLE: f64 = 1e-40;

/// The poles of the secular equation, by ascending `d`, all distinct. Directions that the control's error does not
/// reach are components already: variants with an error beside which the control's is nothing, and within a group of `m`
/// variants of equal variance the `m - 1` contrasts, split off by one Householder reflection, which say nothing about mu.
fn poles(effects: &[f64], d: &[f64], c: f64, components: &mut Vec<Component>) -> Vec<Pole> {
    let mut order: Vec<usize> = (0..d.len()).collect();
    order.sort_by(|&i, &j| d[i].total_cmp(&d[j]));
    let mut poles: Vec<Pole> = Vec::with_capacity(d.len());
    for group in order.chunk_by(|&i, &j| d[i] == d[j]) {
        let d = d[group[0]];
        let norm = (group.len() as f64).sqrt();
        let z = c.sqrt() * norm;
        if z <= NEGLIGIBLE * d.sqrt() {
            components.extend(group.iter().map(|&i| Component { lambda: d, a: 1.0, b: effects[i] }));
            continue;
        }
        let sum: f64 = group.iter().map(|&i| effects[i]).sum();
        poles.push(Pole { d, z, b: sum / norm });
        // The reflection that takes (1, .., 1) to -norm e_1 takes the effects to their contrasts, less the first coordinate.
        let along = (effects[group[0]] + sum / norm) / (1.0 + norm);
        components.extend(group[1..].iter().map(|&i| Component { lambda: d, a: 0.0, b: effects[i] - along }));
    }
    poles
}

/// An eigenvalue as its distance from the pole that is nearest to it, which rounding cannot blur.
struct Root {
    origin: usize,
    offset: f64,
}

impl Root {
    fn value(&self, poles: &[Pole]) -> f64 {
        poles[self.origin].d + self.offset
    }

    /// `d - lambda`, to full relative accuracy.
    fn distance_to(&self, poles: &[Pole], d: f64) -> f64 {
        (d - poles[self.origin].d) - self.offset
    }
}

/// Steps of the rational iteration, which needs three or four; after these the bracket is halved.
const RATIONAL_STEPS: u32 = 20;
/// Enough to halve the exponents of any bracket, and then its mantissas.
const STEPS: u32 = 200;

/// Root `j` of the secular equation: between pole `j` and the next, or above the last.
fn root(poles: &[Pole], j: usize) -> Root {
    let square = |pole: &Pole| pole.z * pole.z;
    let gap = match poles.get(j + 1) {
        Some(next) => next.d - poles[j].d,
        None => poles.iter().map(square).sum(),
    };
    let is_last = j + 1 == poles.len();
    if is_last && j == 0 {
        return Root { origin: 0, offset: gap };
    }
    let is_lower_half = is_last || Secular::at(poles, j, j, 0.5 * gap).value >= 0.0;
    let origin = if is_lower_half { j } else { j + 1 };
    // How near to its pole the root can be: the other poles, at least half as far away as they are from this one, balance it.
    let (nearby, one, others) = match is_lower_half {
        true => (&poles[j], 1.0, &poles[j + 1..]),
        false => (&poles[j + 1], 0.0, &poles[..=j]),
    };
    let balance: f64 = one + others.iter().map(|pole| 2.0 * square(pole) / (pole.d - nearby.d).abs()).sum::<f64>();
    let nearest = (square(nearby) / balance).min(0.5 * gap);
    let farthest = if is_last { gap } else { 0.5 * gap };
    let (mut low, mut high) = if is_lower_half { (nearest, farthest) } else { (-farthest, -nearest) };
    let mut offset = 0.5 * (low + high);
    for step in 0..STEPS {
        let secular = Secular::at(poles, origin, j, offset);
        if secular.value.abs() <= 4.0 * f64::EPSILON * secular.magnitude {
            break;
        }
        if secular.value < 0.0 {
            low = offset;
        } else {
            high = offset;
        }
        // The geometric mean, because the ends can be many powers of ten apart.
        let middle = (low.abs().sqrt() * high.abs().sqrt()).copysign(high);
        let proposal = offset + secular.step(poles, origin, j, offset);
        let next = if step < RATIONAL_STEPS && proposal > low && proposal < high { proposal } else { middle };
        if next == offset || next <= low || next >= high {
            break;
        }
        offset = next;
    }
    Root { origin, offset }
}

/// The secular function `1 + sum z_i^2 / (d_i - lambda)` with its parts below and above the root.
struct Secular {
    value: f64,
    /// Sum of the absolute values of its terms: what its rounding error is measured against.
    magnitude: f64,
    below: (f64, f64),
    above: (f64, f64),
}

impl Secular {
    fn at(poles: &[Pole], origin: usize, j: usize, offset: f64) -> Secular {
        let sum = |poles_on_one_side: &[Pole]| {
            poles_on_one_side.iter().fold((0.0, 0.0), |(value, slope), pole| {
                let ratio = pole.z / ((pole.d - poles[origin].d) - offset);
                (value + pole.z * ratio, slope + ratio * ratio)
            })
        };
        let (below, above) = (sum(&poles[..=j]), sum(&poles[j + 1..]));
        Secular { value: 1.0 + below.0 + above.0, magnitude: 1.0 + below.0.abs() + above.0.abs(), below, above }
    }

    /// The step to the root of the rational function with poles at `j` and `j + 1` that has this value and slopes.
    fn step(&self, poles: &[Pole], origin: usize, j: usize, offset: f64) -> f64 {
        let to_pole = |i: usize| (poles[i].d - poles[origin].d) - offset;
        let left = to_pole(j);
        let constant_below = 1.0 + self.below.0 - left * self.below.1;
        if j + 1 == poles.len() {
            // constant + q / (left - step) = 0 with q = left^2 slope
            return left + left * left * self.below.1 / constant_below;
        }
        let right = to_pole(j + 1);
        let constant = constant_below + self.above.0 - right * self.above.1;
        let linear = constant * (left + right) + left * left * self.below.1 + right * right * self.above.1;
        let root = (linear * linear - 4.0 * constant * left * right * self.value).max(0.0).sqrt();
        if linear > 0.0 {
            2.0 * left * right * self.value / (linear + root)
        } else {
            (linear - root) / (2.0 * constant)
        }
    }
}

/// The weight of pole `i` for which the computed roots are the exact eigenvalues: eigenvectors made of these are
/// orthogonal to working precision.
fn refined_weight(poles: &[Pole], roots: &[Root], i: usize) -> f64 {
    let d = poles[i].d;
    let mut square = -roots[i].distance_to(poles, d);
    for (j, (pole, root)) in poles.iter().zip(roots).enumerate() {
        if j != i {
            square *= root.distance_to(poles, d) / (d - pole.d);
        }
    }
    square.max(0.0).sqrt()
}
