//! The nodes of the intraclass correlation at which sketches are kept, and the polynomial through them.
//!
//! The likelihood of a block of n is singular at `icc = -(1 + (n c + d) / t) / (n - 1)`, which comes near 0 as n grows. In
//! `s = log((1 + (m - 1) icc) / (1 - icc))` a singularity is pi away from the real axis for every n up to m, so that a polynomial
//! through nodes in s converges as fast for all of these. A larger m needs more nodes. Most blocks have a few variants: they get a
//! set of their own.

use std::sync::LazyLock;

/// The largest icc that has any probability: up to here the nodes are enough, and what lies beyond differs by next to nothing.
pub const LARGEST_ICC: f64 = 0.98;

/// Nodes of the intraclass correlation: `s_k = S (1 - cos(2 pi k / (2 M - 1))) / 2`, k below M, with S at `icc = 0.98`.
///
/// The polynomial through them gives the log likelihood of one block to 2e-7 where it has up to 6 variants, and of any other to
/// 3e-9 times their number (up to 300; with 1,000 to 4e-6).
#[derive(Debug)]
pub struct IccNodes {
    iccs: &'static [f64],
    /// m.
    variants: f64,
    /// The nodes in s.
    s: Vec<f64>,
    /// Weights of the barycentric form (Berrut & Trefethen, SIAM Review 46, 2004).
    weights: Vec<f64>,
}

/// The most variants of a block for which the first set of nodes is meant.
const FEW_VARIANTS: usize = 6;

static FEW: LazyLock<IccNodes> = LazyLock::new(|| IccNodes::new(&FEW_ICCS, 4.0));
static MANY: LazyLock<IccNodes> = LazyLock::new(|| IccNodes::new(&MANY_ICCS, 300.0));

impl IccNodes {
    fn new(iccs: &'static [f64], variants: f64) -> IccNodes {
        let s: Vec<f64> = iccs.iter().map(|&icc| s_of(icc, variants)).collect();
        // As a product of nodes in units of a quarter of their range, which neither overflows nor underflows.
        let unit = 0.25 * s_of(LARGEST_ICC, variants);
        let weight = |k: usize| {
            let others = (0..s.len()).filter(|&other| other != k);
            1.0 / others.map(|other| (s[k] - s[other]) / unit).product::<f64>()
        };
        let weights = (0..s.len()).map(weight).collect();
        IccNodes { iccs, variants, s, weights }
    }

    /// The nodes for blocks of two to six variants.
    pub fn few() -> &'static IccNodes {
        &FEW
    }

    /// The nodes for blocks of more.
    pub fn many() -> &'static IccNodes {
        &MANY
    }

    /// The nodes for blocks of so many variants.
    pub fn of(variants: usize) -> &'static IccNodes {
        if Self::are_few(variants) { Self::few() } else { Self::many() }
    }

    /// Whether blocks of so many variants are with those of a few.
    pub(crate) fn are_few(variants: usize) -> bool {
        variants <= FEW_VARIANTS
    }

    /// The values of icc, ascending from 0.
    pub fn iccs(&self) -> &'static [f64] {
        self.iccs
    }

    /// s at this icc.
    pub(crate) fn s(&self, icc: f64) -> f64 {
        s_of(icc, self.variants)
    }

    /// icc at this s.
    pub(crate) fn icc(&self, s: f64) -> f64 {
        (s.exp_m1() / (s.exp() + self.variants - 1.0)).min(LARGEST_ICC)
    }

    /// `d icc / ds`.
    pub(crate) fn slope(&self, icc: f64) -> f64 {
        (1.0 - icc) * (1.0 + (self.variants - 1.0) * icc) / self.variants
    }

    /// What the polynomial through the nodes gives each node's value at this icc.
    pub(crate) fn coefficients(&self, icc: f64) -> Vec<f64> {
        let at = self.s(icc);
        if let Some(node) = self.s.iter().position(|&node| node == at) {
            return (0..self.s.len()).map(|k| f64::from(u8::from(k == node))).collect();
        }
        let terms: Vec<f64> = self.weights.iter().zip(&self.s).map(|(weight, node)| weight / (at - node)).collect();
        let sum: f64 = terms.iter().sum();
        terms.into_iter().map(|term| term / sum).collect()
    }
}

fn s_of(icc: f64, variants: f64) -> f64 {
    ((1.0 + (variants - 1.0) * icc) / (1.0 - icc)).ln()
}

const FEW_ICCS: [f64; 16] = [
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

const MANY_ICCS: [f64; 28] = [
    0.0,
    0.00010588117656226197,
    0.0004424485443056496,
    0.0010716347930418864,
    0.0021155759960246427,
    0.003791518433724082,
    0.006475765222181841,
    0.010816353895687488,
    0.017924963269296105,
    0.029685703391493262,
    0.049197143303225846,
    0.08124412594541858,
    0.1323464753354223,
    0.20931910091611294,
    0.3151486400525725,
    0.4434136409837371,
    0.5772054743807209,
    0.6970515926475547,
    0.7911987951030653,
    0.8583446386657256,
    0.9034020851337536,
    0.9326781330994913,
    0.9514509369073102,
    0.963442371703333,
    0.9710653316539376,
    0.9758130941481225,
    0.9785751361463574,
    0.9798460465299321,
];
