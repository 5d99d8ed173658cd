//! Whether correlation matters: what the shared controls did to a population, and to each of its blocks.
//!
//! | module | contents |
//! | --- | --- |
//! | this file | the population, from its cells: information, effective number of effects, shifts between the models |
//! | `consequences` | what the naive model would do to whoever reads its figures |
//! | `misfit` | whether the model itself is borne out |
//! | `verdict` | both in one word |
//! | `block` | one block: its information and influence, whether its control looks shifted |
//! | `leave_one_out` | what the other experiments predict for each one |
//! | `calibration` | whether these predictions are borne out |
//! | `selection` | whether the losers arrive |

mod block;
mod calibration;
mod consequences;
mod leave_one_out;
mod misfit;
mod selection;
mod verdict;

use super::fit::Correlation;
use super::icc::IccLikelihood;
use super::likelihood::Likelihood;
use super::population::Sketches;
use super::posterior::{Node, Posterior};
use super::sketch::{self, Sketch};
pub use block::{BlockDiagnostics, set_q_values};
pub use calibration::{Calibration, CalibrationCounts, Miscalibration, PIT_BINS};
pub use consequences::Consequences;
pub(crate) use consequences::naive_coverage;
pub use leave_one_out::{LeaveOneOut, LeaveOneOuts, LeftOut, Prediction};
pub use misfit::Misfit;
pub use selection::{Selection, SelectionCounts};
pub use verdict::{Measure, NOMINAL_COVERAGE, Threshold, Thresholds, Verdict};

/// Diagnostics of a population that its sketches determine, without a pass over its blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostics {
    /// `I = E[A]` under the block model, averaged over tau, in the effects' unit^-2.
    pub information: f64,
    /// `I0 = E[A]` under the naive model, over the same tau.
    pub information_ignored: f64,
    /// `N I / I0`: how many independent effects carry as much information about mu.
    pub effective_effects: f64,
    /// Bias of the naive moment estimate of tau^2: `-sum_k sum_{i != j} Sigma_k,ij / (N (N - 1))`; `None` for one effect.
    pub tau_squared_moment_bias: Option<f64>,
    /// (mu naive - mu) in posterior sds of mu.
    pub mu_shift: Option<f64>,
    /// (log of tau's median naive - log of tau's median) in posterior sds of log tau.
    pub log_tau_shift: Option<f64>,
}

impl Diagnostics {
    /// Compares the fits of the two models of one population, of whose sketches under either, with an icc of 0, these are the likelihoods.
    pub fn new(
        sketches: &Sketches,
        (likelihood, posterior): (&impl Likelihood, &Posterior),
        (naive_likelihood, naive): (&impl Likelihood, &Posterior),
    ) -> Diagnostics {
        let cells = &sketches.of(Correlation::Modelled);
        let information = information(sketches, likelihood, &posterior.nodes);
        let information_ignored =
            posterior.nodes.iter().map(|node| node.weight * naive_likelihood.at(node.tau * node.tau).a).sum::<f64>();
        let effects = likelihood.effects() as f64;
        let off_diagonal = off_diagonal_sum(cells);
        let centre = |p: &Posterior| p.mu.mean.or(p.mu.median);
        let mu_sd =
            posterior.mu.sd.or_else(|| Some((posterior.mu.q75? - posterior.mu.q25?) / (2.0 * super::normal::Z_75)));
        Diagnostics {
            information,
            information_ignored,
            effective_effects: effects * information / information_ignored,
            tau_squared_moment_bias: (effects > 1.0).then(|| -off_diagonal / (effects * (effects - 1.0))),
            mu_shift: shift(centre(naive), centre(posterior), mu_sd),
            log_tau_shift: shift(
                naive.tau.median.map(f64::ln),
                posterior.tau.median.map(f64::ln),
                Some(posterior.tau_distribution.log_sd()),
            ),
        }
    }
}

impl Diagnostics {
    /// Whether every figure that exists is a finite number.
    pub fn is_finite(&self) -> bool {
        let Diagnostics {
            information,
            information_ignored,
            effective_effects,
            tau_squared_moment_bias,
            mu_shift,
            log_tau_shift,
        } = *self;
        let always = [information, information_ignored, effective_effects].map(Some);
        let others = [tau_squared_moment_bias, mu_shift, log_tau_shift];
        always.into_iter().chain(others).flatten().all(f64::is_finite)
    }
}

/// `E[A]` over nodes, those of one icc together. `likelihood` is that at an icc of 0.
fn information(sketches: &Sketches, likelihood: &impl Likelihood, nodes: &[Node]) -> f64 {
    let all = nodes.iter().any(|node| node.icc > 0.0).then(|| IccLikelihood::new(sketches)).flatten();
    let of_one_icc = |nodes: &[Node]| -> f64 {
        let average = |likelihood: &dyn Fn(f64) -> f64| -> f64 {
            nodes.iter().map(|node| node.weight * likelihood(node.tau * node.tau)).sum()
        };
        match all.as_ref().map(|all| all.at(nodes[0].icc)) {
            Some(likelihood) => average(&|t| likelihood.at(t).a),
            None => average(&|t| likelihood.at(t).a),
        }
    };
    nodes.chunk_by(|node, next| node.icc == next.icc).map(of_one_icc).sum()
}

/// `(naive - block model) / sd`, where there is such a number.
fn shift(naive: Option<f64>, modelled: Option<f64>, sd: Option<f64>) -> Option<f64> {
    Some((naive? - modelled?) / sd?).filter(|shift| shift.is_finite())
}

/// The sum of all off-diagonal sampling covariances, `sum lambda (a^2 - 1)` over the components, from the first two
/// moments: `lambda = s (u + 3) / 2`.
fn off_diagonal_sum(cells: &Sketch) -> f64 {
    cells
        .cells()
        .map(|(octave, cell)| {
            let excess = |m: usize| {
                let [count, aa, ..] = cell[m];
                // Both in 2^-62, so that blocks of one effect cancel exactly.
                ((aa >> (sketch::AA_BITS - sketch::COUNT_BITS)) - count) as f64
                    * sketch::power_of_two(-sketch::COUNT_BITS)
            };
            0.5 * sketch::power_of_two(i32::from(octave)) * (excess(1) + 3.0 * excess(0))
        })
        .sum()
}
