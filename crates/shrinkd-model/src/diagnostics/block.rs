//! One block within its population: its information about mu, and whether its control looks shifted. All but that shift at one tau,
//! the population's posterior median, and under a flat prior of mu.

use super::leave_one_out::LeftOut;
use crate::block::{Block, Covariance};
use crate::icc::log_det_of_correlations;
use crate::likelihood::Terms;
use crate::normal;
use crate::posterior::Node;
use crate::spectrum::Component;

/// The diagnostics of one block in its population.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockDiagnostics {
    /// `I_k = 1'V_k^-1 1`, in the effects' unit^-2.
    pub information: f64,
    /// `1 / (c + rho tau^2)`, which `I_k` cannot exceed however many variants there are, because they share their control's error and,
    /// by the intraclass correlation rho, a part of their true effects; `None` where they share neither, and where the covariance is
    /// dense.
    pub information_bound: Option<f64>,
    /// `I_k / I`.
    pub information_share: f64,
    /// By how much mu moves when the block is added, in sds of mu; `None` for the only block.
    pub mu_influence: Option<f64>,
    /// See [`LeftOut::control_shift_z`]; `None` also for the only block.
    pub control_shift_z: Option<f64>,
    /// Benjamini-Hochberg q of that z among the population's blocks of two and more effects; see [`set_q_values`].
    pub control_shift_q: Option<f64>,
    /// `delta'V^-1 delta - b_k^2 / I_k`, chi-squared with n - 1 degrees of freedom given tau; `None` for one effect.
    pub within_q: Option<f64>,
}

/// A control is called anomalous below this q.
const ANOMALY: f64 = 0.05;

impl BlockDiagnostics {
    /// The block with these `components` at an intraclass correlation, in a population with sums `population` at the same
    /// correlation, t = tau^2 and centre, and relative to what the rest of it predicts.
    pub fn new(
        block: &Block,
        components: &[Component],
        (t, icc): (f64, f64),
        population: &Terms,
        centre: f64,
        left_out: Option<&LeftOut>,
    ) -> BlockDiagnostics {
        let terms = block_terms(components, t, centre);
        let (information, total) = (terms.a, population.a);
        let mu = population.b / total;
        let distance = terms.b / information - mu;
        let rest = total - information;
        let is_only = rest <= 1e-12 * total;
        BlockDiagnostics {
            information,
            information_bound: information_bound(block, icc * t),
            information_share: information / total,
            // mu - mu without k = I_k (mean of k - mu) / (I - I_k)
            mu_influence: (!is_only).then(|| information * distance / rest * total.sqrt()),
            control_shift_z: left_out.and_then(|left_out| left_out.control_shift_z),
            control_shift_q: None,
            within_q: (block.len() > 1).then(|| (terms.c - terms.b * terms.b / information).max(0.0)),
        }
    }

    /// Whether the block's effects lie together so far from the rest that its control is suspect. z cannot distinguish a
    /// faulty control from variants that are all truly good.
    pub fn is_control_anomaly(&self) -> bool {
        self.control_shift_q.is_some_and(|q| q < ANOMALY)
    }
}

/// The block's own share of A, B, C and L at t, about `centre`.
pub(super) fn block_terms(components: &[Component], t: f64, centre: f64) -> Terms {
    components.iter().fold(Terms::default(), |sum, component| {
        let weight = 1.0 / (component.lambda + t);
        let b = component.b - centre * component.a;
        Terms {
            log_det: sum.log_det - weight.ln(),
            a: sum.a + component.a * component.a * weight,
            b: sum.b + component.a * b * weight,
            c: sum.c + b * b * weight,
        }
    })
}

fn information_bound(block: &Block, shared_variance: f64) -> Option<f64> {
    match block.covariance() {
        Covariance::SharedControl { control_variance, .. } => {
            let common = control_variance + if block.len() > 1 { shared_variance } else { 0.0 };
            (common > 0.0).then(|| 1.0 / common)
        }
        Covariance::Dense { .. } => None,
    }
}

/// A block's own sums at one node after the other.
pub(super) struct BlockSums<'a> {
    pub block: &'a Block,
    /// Its components where its true effects are independent.
    pub independent: &'a [Component],
    /// At the other intraclass correlations seen so far.
    alike: Vec<(f64, Vec<Component>)>,
}

impl<'a> BlockSums<'a> {
    /// Of a block with these components where its true effects are independent.
    pub fn new(block: &'a Block, independent: &'a [Component]) -> BlockSums<'a> {
        BlockSums { block, independent, alike: Vec::new() }
    }

    /// Its share of A, B, C and L, with the determinant of the correlations of its true effects, about the mean of mu; `None` where a
    /// dense covariance has no decomposition.
    pub fn at(&mut self, node: &Node) -> Option<Terms> {
        let (t, centre, n) = (node.tau * node.tau, node.mu_mean, self.independent.len());
        if node.icc == 0.0 || n == 1 {
            return Some(block_terms(self.independent, t, centre));
        }
        let known = self.alike.iter().position(|(icc, _)| *icc == node.icc);
        let known = known.or_else(|| {
            self.alike.push((node.icc, self.block.components_at(node.icc).ok()?));
            Some(self.alike.len() - 1)
        })?;
        let terms = block_terms(&self.alike[known].1, t, centre);
        Some(Terms { log_det: terms.log_det + log_det_of_correlations(n, node.icc), ..terms })
    }
}

/// Gives each block its q (Benjamini & Hochberg, JRSS B 57, 1995): the smallest false discovery rate at which its z
/// would be called.
pub fn set_q_values<'a>(blocks: impl Iterator<Item = &'a mut BlockDiagnostics>) {
    let p = |block: &BlockDiagnostics| block.control_shift_z.map(|z| 2.0 * normal::cdf(-z.abs()));
    let mut tested: Vec<(f64, &mut BlockDiagnostics)> = blocks.filter_map(|block| Some((p(block)?, block))).collect();
    tested.sort_by(|left, right| left.0.total_cmp(&right.0));
    let count = tested.len() as f64;
    let mut q = 1.0_f64;
    for (rank, (p, block)) in tested.iter_mut().enumerate().rev() {
        q = q.min(*p * count / (rank as f64 + 1.0));
        block.control_shift_q = Some(q);
    }
}
