//! The intraclass correlation: how alike the true effects of one experiment's variants are.
//!
//! The true effects of a block of n are `N(mu 1, tau^2 R)`, `R = (1 - icc) I + icc 11'`: a three-level model (Konstantopoulos,
//! Research Synthesis Methods 2, 2011; Cheung, Psychological Methods 19, 2014), of which network meta-analysis takes `icc = 1/2`.
//! For a fixed icc a block is independent components (see `spectrum`), so that a sketch holds all that the likelihood needs. Sketches
//! are kept at 16 nodes, and the likelihood between them is interpolated.
//!
//! Along a fixed t the likelihood is singular at `icc = 1 + d / t`. What is interpolated is therefore read at
//! `t_m = z (1 - icc_m)^(-2/3)` for one z at all nodes, in `s = log((1 + 3 icc) / (1 - icc))`, by the polynomial through the nodes
//! (barycentric form: Berrut & Trefethen, SIAM Review 46, 2004): L, log A, B / A and C - B^2 / A.

use std::cell::OnceCell;
use std::sync::LazyLock;

use super::likelihood::{Derivatives, Likelihood, SketchLikelihood, Terms};
use super::population::{Part, Sketches};
use super::posterior::panel::{self, Panel};

/// The largest icc that has any probability: up to here 16 nodes are enough, and what lies beyond differs by next to nothing.
pub const LARGEST_ICC: f64 = 0.98;

/// The most variants of an experiment with which the likelihood is interpolated between the nodes accurately enough: its singularity at
/// `icc = -(1 + (n c + d) / t) / (n - 1)` comes near the first node as n grows. Up to 10 the mean of icc is off by 5e-3 of its sd at
/// most (400 experiments with standard errors of a quarter of tau), with 20 by 7e-2.
pub const MOST_VARIANTS: u32 = 12;

/// The nodes of the intraclass correlation at which sketches are kept: `s_m = S (1 - cos(2 pi m / 31)) / 2`, with S at
/// `icc = 0.98`.
pub const ICC_NODES: [f64; 16] = [
    0.0,
    0.013700304927115613,
    0.0563196078219702,
    0.13148425748475218,
    0.2415902340538117,
    0.3818067256059889,
    0.5353055440934098,
    0.6776345658672239,
    0.7899710376244814,
    0.8676103870808225,
    0.916532611952566,
    0.945730944914184,
    0.9626730220906139,
    0.9722906167546317,
    0.9774677386426108,
    0.9797312393319515,
];

const NODES: usize = ICC_NODES.len();

/// The nodes in s, and the weights of the barycentric form.
struct Interpolation {
    s: [f64; NODES],
    weights: [f64; NODES],
}

static INTERPOLATION: LazyLock<Interpolation> = LazyLock::new(|| {
    let s = ICC_NODES.map(s_of);
    let weights = std::array::from_fn(|m| {
        let others = (0..NODES).filter(|&k| k != m);
        1.0 / others.map(|k| s[m] - s[k]).product::<f64>()
    });
    Interpolation { s, weights }
});

fn s_of(icc: f64) -> f64 {
    ((1.0 + 3.0 * icc) / (1.0 - icc)).ln()
}

/// What the polynomial through the nodes gives each node's value at this icc.
pub(crate) fn coefficients(icc: f64) -> [f64; NODES] {
    let Interpolation { s, weights } = &*INTERPOLATION;
    let at = s_of(icc);
    if let Some(node) = s.iter().position(|&node| node == at) {
        return std::array::from_fn(|m| f64::from(u8::from(m == node)));
    }
    let terms: [f64; NODES] = std::array::from_fn(|m| weights[m] / (at - s[m]));
    let sum: f64 = terms.iter().sum();
    terms.map(|term| term / sum)
}

/// Prior of the intraclass correlation, from 0 to [`LARGEST_ICC`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum PriorIcc {
    /// It is 0: true effects are independent.
    #[default]
    None,
    Uniform,
    Fixed {
        icc: f64,
    },
    /// Density proportional to `icc^(a - 1) (1 - icc)^(b - 1)`.
    Beta {
        a: f64,
        b: f64,
    },
}

impl PriorIcc {
    /// The icc where it is known.
    pub fn known(&self) -> Option<f64> {
        match *self {
            PriorIcc::None => Some(0.0),
            PriorIcc::Fixed { icc } => Some(icc),
            PriorIcc::Uniform | PriorIcc::Beta { .. } => None,
        }
    }

    /// Whether true effects are independent.
    pub fn is_zero(&self) -> bool {
        self.known() == Some(0.0)
    }

    /// Log density, up to a constant.
    pub(crate) fn log_density(&self, icc: f64) -> f64 {
        match *self {
            PriorIcc::None | PriorIcc::Fixed { .. } | PriorIcc::Uniform => 0.0,
            PriorIcc::Beta { a, b } => {
                let log = if a == 1.0 { 0.0 } else { (a - 1.0) * icc.ln() };
                log + (b - 1.0) * (-icc).ln_1p()
            }
        }
    }

    /// The power of a variable in whose terms the density has no singularity at 0.
    pub(crate) fn power_at_zero(&self) -> f64 {
        match *self {
            PriorIcc::Beta { a, .. } if a < 1.0 => 1.0 / a,
            _ => 1.0,
        }
    }

    /// The density is like `(1 - icc)^(B - 1)` at 1: this B.
    pub(crate) fn exponent_at_one(&self) -> f64 {
        match *self {
            PriorIcc::Beta { b, .. } => b,
            _ => 1.0,
        }
    }
}

/// The likelihood of a population with blocks of several variants, at every icc.
///
/// What the sketches give is read on panels in x, `sqrt(z) = a sinh(x)`, each when it is first asked for, and interpolated by the
/// polynomial through a panel's nodes: within 1e-13 of each value, as all of them are analytic up to `|Im x| = pi / 2`.
#[derive(Debug, Clone)]
pub struct IccLikelihood {
    /// At each node, about one centre.
    nodes: Vec<SketchLikelihood>,
    /// At each node, the sum of `log|R|` over the blocks.
    log_dets: [f64; NODES],
    blocks: u64,
    /// a.
    scale: f64,
    /// By node of a panel, and by node of icc.
    panels: Vec<OnceCell<Box<[[Values; NODES]; panel::NODES]>>>,
}

/// The values that are interpolated: L, log A, B / A, and C - B^2 / A.
type Values = [f64; 4];

/// Width of a panel in x, and how many there are: x reaches as far as f64.
const WIDTH: f64 = 1.0;
const PANELS: usize = 360;

impl IccLikelihood {
    /// The likelihood of these sketches; `None` where no block has two variants, so that icc is in no way part of it.
    pub fn new(sketches: &Sketches) -> Option<IccLikelihood> {
        let [alone] = sketches.part(Part::OneVariant) else { return None };
        if sketches.blocks_of_several_variants() == 0 {
            return None;
        }
        let mut centre = None;
        let nodes = sketches.part(Part::SeveralVariants).iter().map(|sketch| {
            let mut sketch = sketch.clone();
            sketch.merge(alone);
            let likelihood = match centre {
                None => SketchLikelihood::new(&sketch),
                Some(centre) => SketchLikelihood::about(&sketch, centre),
            };
            centre = Some(likelihood.centre());
            likelihood
        });
        let nodes: Vec<SketchLikelihood> = nodes.collect();
        let log_dets = ICC_NODES.map(|icc| {
            let of_size = |(&n, &blocks): (&u32, &i64)| blocks as f64 * log_det_of_correlations(n as usize, icc);
            sketches.sizes().iter().map(of_size).sum()
        });
        let smallest = nodes.iter().map(SketchLikelihood::smallest_lambda).fold(f64::INFINITY, f64::min);
        let scale = smallest.min(1.0 / nodes[0].at(0.0).a).sqrt();
        let panels = vec![OnceCell::new(); PANELS];
        Some(IccLikelihood { nodes, log_dets, blocks: sketches.blocks(), scale, panels })
    }

    /// Number of effects, N.
    pub fn effects(&self) -> u64 {
        self.nodes[0].effects()
    }

    /// Number of blocks, K.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The likelihood at one icc, from 0 to [`LARGEST_ICC`].
    pub fn at(&self, icc: f64) -> LikelihoodAtIcc<'_> {
        let panels = vec![OnceCell::new(); PANELS];
        LikelihoodAtIcc { all: self, icc, coefficients: coefficients(icc), stretch: (1.0 - icc).cbrt(), panels }
    }

    /// The values at every node of icc, at z.
    fn read(&self, z: f64) -> [Values; NODES] {
        std::array::from_fn(|m| {
            let Terms { log_det, a, b, c } = self.nodes[m].at(z / (1.0 - ICC_NODES[m]).cbrt().powi(2));
            let mean = b / a;
            [log_det + self.log_dets[m], a.ln(), mean, c - mean * b]
        })
    }

    fn panel(&self, index: usize) -> &[[Values; NODES]; panel::NODES] {
        self.panels[index].get_or_init(|| {
            let low = WIDTH * index as f64;
            Box::new(Panel::nodes(low, low + WIDTH).map(|x| self.read((self.scale * x.sinh()).powi(2))))
        })
    }
}

/// The likelihood of a population at one icc, as a function of `t = tau^2`.
#[derive(Debug, Clone)]
pub struct LikelihoodAtIcc<'a> {
    all: &'a IccLikelihood,
    icc: f64,
    /// What each node's value counts for.
    coefficients: [f64; NODES],
    /// `sqrt(z) / tau`.
    stretch: f64,
    panels: Vec<OnceCell<Box<[Values; panel::NODES]>>>,
}

impl LikelihoodAtIcc<'_> {
    /// The icc.
    pub fn icc(&self) -> f64 {
        self.icc
    }

    fn combine<const N: usize>(&self, at: &[[f64; N]; NODES]) -> [f64; N] {
        std::array::from_fn(|i| self.coefficients.iter().zip(at).map(|(weight, at)| weight * at[i]).sum())
    }

    fn values(&self, t: f64) -> Values {
        let ratio = t.sqrt() * self.stretch / self.all.scale;
        // asinh; its relative error near 0 does not matter.
        let x = (ratio + (ratio * ratio + 1.0).sqrt()).min(2.0 * ratio + 1.0).ln();
        let index = (x / WIDTH) as usize;
        let Some(panel) = self.panels.get(index) else { return self.combine(&self.all.read(t * self.stretch.powi(2))) };
        let values = panel.get_or_init(|| Box::new(self.all.panel(index).map(|at| self.combine(&at))));
        let low = WIDTH * index as f64;
        panel::interpolate(values, low, low + WIDTH, x)
    }
}

impl Likelihood for LikelihoodAtIcc<'_> {
    fn effects(&self) -> u64 {
        self.all.effects()
    }

    fn smallest_lambda(&self) -> f64 {
        self.all.nodes.iter().map(SketchLikelihood::smallest_lambda).fold(f64::INFINITY, f64::min)
    }

    fn largest_lambda(&self) -> f64 {
        self.all.nodes.iter().map(SketchLikelihood::largest_lambda).fold(0.0, f64::max)
    }

    fn centre(&self) -> f64 {
        self.all.nodes[0].centre()
    }

    fn at(&self, t: f64) -> Terms {
        let [log_det, log_a, mean, misfit] = self.values(t);
        let a = log_a.exp();
        Terms { log_det, a, b: a * mean, c: misfit + a * mean * mean }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        // At each node the values, and their first and second derivatives in t.
        let at: [[f64; 12]; NODES] = std::array::from_fn(|m| {
            let scale = ((1.0 - self.icc) / (1.0 - ICC_NODES[m])).cbrt().powi(2);
            let Derivatives { value, first, second } = self.all.nodes[m].derivatives(t * scale);
            let mean = value.b / value.a;
            let slope = (first.b - mean * first.a) / value.a;
            let curvature = (second.b - 2.0 * slope * first.a - mean * second.a) / value.a;
            let log_slope = first.a / value.a;
            let along = |d: &Terms| d.c - mean * (2.0 * d.b - mean * d.a);
            let (once, twice) = (scale, scale * scale);
            [
                value.log_det + self.all.log_dets[m],
                value.a.ln(),
                mean,
                value.c - mean * value.b,
                once * first.log_det,
                once * log_slope,
                once * slope,
                once * along(&first),
                twice * second.log_det,
                twice * (second.a / value.a - log_slope * log_slope),
                twice * curvature,
                twice * (along(&second) - 2.0 * value.a * slope * slope),
            ]
        });
        let [l, log_a, m, q, l1, log_a1, m1, q1, l2, log_a2, m2, q2] = self.combine(&at);
        let a = log_a.exp();
        let (a1, a2) = (a * log_a1, a * (log_a2 + log_a1 * log_a1));
        Derivatives {
            value: Terms { log_det: l, a, b: a * m, c: q + a * m * m },
            first: Terms { log_det: l1, a: a1, b: a1 * m + a * m1, c: q1 + a1 * m * m + 2.0 * a * m * m1 },
            second: Terms {
                log_det: l2,
                a: a2,
                b: a2 * m + 2.0 * a1 * m1 + a * m2,
                c: q2 + a2 * m * m + 4.0 * a1 * m * m1 + 2.0 * a * (m1 * m1 + m * m2),
            },
        }
    }
}

/// `log|R|` of a block of n effects.
pub(crate) fn log_det_of_correlations(n: usize, icc: f64) -> f64 {
    let others = n as f64 - 1.0;
    others * (-icc).ln_1p() + (others * icc).ln_1p()
}
