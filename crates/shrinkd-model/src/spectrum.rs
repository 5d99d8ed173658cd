//! The spectral form of a block: one rotation turns its correlated effects into independent components, for every tau
//! at once.
//!
//! With `Sigma = Q diag(lambda) Q'` the marginal covariance is `Sigma + tau^2 I = Q diag(lambda + tau^2) Q'`, so that
//! `a = Q'1` and `b = Q'delta` are all that the likelihood needs from a block. Where the true effects of a block correlate by the
//! intraclass correlation rho, their covariance is `tau^2 R`, `R = (1 - rho) I + rho 11'`, and the same is true of
//! `Q diag(lambda) Q' = R^-1/2 Sigma R^-1/2`, `a = Q'R^-1/2 1` and `b = Q'R^-1/2 delta`, with `log|R|` beside the sum over
//! `log(lambda + tau^2)`.
//!
//! A shared control gives a diagonal plus a rank-one matrix. Its eigenvalues are the roots of the secular equation
//! `1 + c sum_i 1 / (d_i - lambda) = 0` (Golub, SIAM Review 15, 1973), found by the rational iteration of Bunch,
//! Nielsen and Sorensen (Numerische Mathematik 31, 1978) as distances from the nearest pole, so that the small ones
//! keep their relative accuracy however large the control's variance is; the eigenvectors follow from the weights
//! that fit the computed eigenvalues exactly (Gu & Eisenstat, SIAM J. Matrix Anal. Appl. 16, 1995). By the same equation a
//! component's loading on mu is `-1 / sqrt(c)` over the norm of its vector, which is small without any cancellation
//! where the control's variance is large. Work: O(n^2).
//!
//! With rho above 0 the equation is, in `x = (1 - rho) lambda`, `sum_i 1 / (d_i - x) + z / (p - x) = 0`, `z = (1 - rho) / rho` and
//! `p = c z`: the eigenvalues of `diag(d_1, .., d_n, p)` on the vectors that are orthogonal to `(1, .., 1, sqrt(z))` (Golub, section
//! 4, of the same paper), of which the first n entries are those of `Q' R^-1/2` times `sqrt(1 - rho)`. So it has one more pole and
//! no constant, all weights are positive, and the loading is `-z / (p - x)` over the norm of the vector.
//!
//! A dense matrix is decomposed in `axes`.

use serde::{Deserialize, Serialize};

use super::axes;
use super::block::{BlockError, Covariance};
use super::secular::{Equation, Pole, Root};

/// One independent component of a block: `b ~ N(mu a, lambda + tau^2)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Sampling variance, an eigenvalue of `R^-1/2 Sigma R^-1/2`.
    pub lambda: f64,
    /// Entry of `Q'R^-1/2 1`: the component's loading on mu.
    pub a: f64,
    /// Entry of `Q'R^-1/2 delta`: its observed value, in the effects' unit.
    pub b: f64,
}

/// An intraclass correlation below which no f64 can tell `R` from the identity, of 1,000 effects either.
const NEGLIGIBLE_ICC: f64 = 1e-20;

/// The components of a block: see [`Block::components_at`](super::block::Block::components_at).
pub(crate) fn components(effects: &[f64], covariance: &Covariance, icc: f64) -> Result<Vec<Component>, BlockError> {
    let icc = if effects.len() == 1 || icc < NEGLIGIBLE_ICC { 0.0 } else { icc };
    match covariance {
        Covariance::SharedControl { treatment_variances, control_variance } => {
            Ok(shared_control(effects, treatment_variances, *control_variance, icc))
        }
        Covariance::Dense { matrix } => axes::components(effects, matrix, icc),
    }
}

fn shared_control(effects: &[f64], d: &[f64], c: f64, icc: f64) -> Vec<Component> {
    if let ([effect], [d]) = (effects, d) {
        return vec![Component { lambda: d + c, a: 1.0, b: *effect }];
    }
    let mut components = Vec::with_capacity(effects.len());
    let shared = (icc > 0.0).then(|| shared_pole(c, icc));
    let equation = match shared {
        None => equation_of_control(effects, d, c, &mut components),
        Some(_) => equation_of_alike(effects, d, c, icc, &mut components),
    };
    let poles = &equation.poles;
    let own_share = 1.0 - icc;
    let roots: Vec<Root> = (0..equation.roots()).map(|j| equation.root(j)).collect();
    let refined: Vec<f64> = (0..poles.len()).map(|i| equation.refined_weight(&roots, i)).collect();
    for root in &roots {
        let (mut square, mut b) = (0.0, 0.0);
        for (pole, weight) in poles.iter().zip(&refined) {
            let entry = weight / root.distance_to(poles, pole.d);
            square += entry * entry;
            b += entry * pole.b;
        }
        let norm = square.sqrt() * own_share.sqrt();
        // By the secular equation a vector's entries, each times the root of how many effects it stands for, add up to -1 over this.
        let inverse_sum = match shared {
            None => c.sqrt(),
            Some((pole, z)) => root.distance_to(poles, pole) / (z * z),
        };
        components.push(Component {
            lambda: root.value(poles) / own_share,
            a: -1.0 / (inverse_sum * norm),
            b: b / norm,
        });
    }
    components
}

/// The control's part of a direction, relative to its own standard error, below which the two are taken as independent: far
/// below what rounding does to any covariance, and far above where the squares of the weights vanish.
const NEGLIGIBLE: f64 = 1e-40;

/// The equation of effects that correlate by their control's error alone. Directions that this error does not reach are
/// components already: variants with an error beside which the control's is nothing, and contrasts.
fn equation_of_control(effects: &[f64], d: &[f64], c: f64, components: &mut Vec<Component>) -> Equation {
    let mut poles: Vec<Pole> = Vec::with_capacity(d.len());
    for group in ascending(d).chunk_by(|&i, &j| d[i] == d[j]) {
        let d = d[group[0]];
        let z = c.sqrt() * (group.len() as f64).sqrt();
        if z <= NEGLIGIBLE * d.sqrt() {
            components.extend(group.iter().map(|&i| Component { lambda: d, a: 1.0, b: effects[i] }));
            continue;
        }
        poles.push(Pole { d, z, b: split_contrasts(effects, group, d, 1.0, components) });
    }
    Equation { poles, constant: 1.0 }
}

/// The equation, in `x = (1 - icc) lambda`, of effects that are alike too. Where its own pole is at the variance of a group of
/// variants, these two directions become the one that the equation reaches and a component.
fn equation_of_alike(effects: &[f64], d: &[f64], c: f64, icc: f64, components: &mut Vec<Component>) -> Equation {
    let own_share = 1.0 - icc;
    let mut poles: Vec<Pole> = Vec::with_capacity(d.len() + 1);
    for group in ascending(d).chunk_by(|&i, &j| d[i] == d[j]) {
        let d = d[group[0]];
        let b = split_contrasts(effects, group, d, own_share, components);
        poles.push(Pole { d, z: (group.len() as f64).sqrt(), b });
    }
    let (shared, z) = shared_pole(c, icc);
    let at = poles.partition_point(|pole| pole.d < shared);
    match poles.get_mut(at) {
        Some(pole) if pole.d == shared => {
            let both = (pole.z * pole.z + z * z).sqrt();
            let entry = z / both / own_share.sqrt();
            components.push(Component { lambda: shared / own_share, a: entry * pole.z, b: entry * pole.b });
            *pole = Pole { d: shared, z: both, b: pole.z / both * pole.b };
        }
        _ => poles.insert(at, Pole { d: shared, z, b: 0.0 }),
    }
    Equation { poles, constant: 0.0 }
}

/// The pole that the equation of alike effects has beside their variances, and its weight.
fn shared_pole(c: f64, icc: f64) -> (f64, f64) {
    let square = (1.0 - icc) / icc;
    (c * square, square.sqrt())
}

fn ascending(d: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..d.len()).collect();
    order.sort_by(|&i, &j| d[i].total_cmp(&d[j]));
    order
}

/// The coordinate of the effects of a group of `m` variants with equal variance `d`: their sum over `sqrt(m)`. Their `m - 1`
/// contrasts, split off by one Householder reflection, are components, which say nothing about mu.
fn split_contrasts(effects: &[f64], group: &[usize], d: f64, own_share: f64, components: &mut Vec<Component>) -> f64 {
    let norm = (group.len() as f64).sqrt();
    let sum: f64 = group.iter().map(|&i| effects[i]).sum();
    // The reflection that takes (1, .., 1) to -norm e_1 takes the effects to their contrasts, less the first coordinate.
    let along = (effects[group[0]] + sum / norm) / (1.0 + norm);
    let (lambda, scale) = (d / own_share, own_share.sqrt());
    components.extend(group[1..].iter().map(|&i| Component { lambda, a: 0.0, b: (effects[i] - along) / scale }));
    sum / norm
}
