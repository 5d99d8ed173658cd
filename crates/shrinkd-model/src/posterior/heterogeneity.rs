//! What meta-analysis software reports with a point estimate of (mu, tau), for whole blocks.
//!
//! With `P(t) = V^-1 - V^-1 1 1' V^-1 / A` and `V = Sigma + t I`, Cochran's statistic generalises to `Q(t) = delta'P(t)
//! delta = C - B^2 / A`, which is chi-squared with N - 1 degrees of freedom at the true t = tau^2. All else follows from it
//! and from `tr P(0)`: the Q-profile interval of tau (Viechtbauer, Stat. Med. 26, 2007; generalised by Jackson, Research
//! Synthesis Methods 4, 2013), I^2 and H^2 (Higgins & Thompson, Stat. Med. 21, 2002) about the typical sampling variance
//! `(N - 1) / tr P(0)`, and the interval of mu of Knapp & Hartung (Stat. Med. 22, 2003).

use super::PointEstimate;
use super::profile::{MuPrior, Profile};
use crate::distributions::{chi_squared_above, chi_squared_quantile, t_975};
use crate::likelihood::Likelihood;
use crate::normal::Z_975;

/// The heterogeneity of a population about a point estimate, and the interval of mu that does not take tau as known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heterogeneity {
    /// `Q(0)`, the statistic of the test that tau is 0.
    pub q: f64,
    /// Its degrees of freedom, N - 1.
    pub q_df: u64,
    /// Its p value.
    pub q_p: f64,
    /// The Q-profile interval of tau, in the effects' unit. Both ends are 0 where the effects are nearer to each other than
    /// any tau makes likely.
    pub tau_ci95: (f64, f64),
    /// `tau^2 / (tau^2 + typical sampling variance)`, from 0 to 1.
    pub i_squared: f64,
    /// `1 + tau^2 / typical sampling variance`.
    pub h_squared: f64,
    pub knapp_hartung: KnappHartung,
}

/// Knapp and Hartung's standard error and interval of mu: that of Wald times `sqrt(Q(tau^2) / (N - 1))`, with quantiles of
/// Student's t with N - 1 degrees of freedom. In the effects' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnappHartung {
    pub se: f64,
    pub ci95: (f64, f64),
}

impl Heterogeneity {
    /// Whether every figure is a finite number.
    pub(crate) fn is_finite(&self) -> bool {
        let Heterogeneity { q, q_df: _, q_p, tau_ci95, i_squared, h_squared, knapp_hartung } = *self;
        let KnappHartung { se, ci95 } = knapp_hartung;
        [q, q_p, tau_ci95.0, tau_ci95.1, i_squared, h_squared, se, ci95.0, ci95.1]
            .iter()
            .all(|figure| figure.is_finite())
    }

    /// About an estimate of this population; `None` below two effects.
    pub fn new(likelihood: &impl Likelihood, estimate: &PointEstimate) -> Option<Heterogeneity> {
        let df = likelihood.effects().checked_sub(1).filter(|&df| df > 0)?;
        let PointEstimate { mu, tau, mu_variance } = *estimate;
        let t = tau * tau;
        let at_zero = q(likelihood, 0.0);
        let tau_at = |below, z| q_falls_to(likelihood, chi_squared_quantile(below, z, df)).sqrt();
        let ratio = t / typical_variance(likelihood);
        let se = (q(likelihood, t) / df as f64 * mu_variance).sqrt();
        let half_width = t_975(df) * se;
        Some(Heterogeneity {
            q: at_zero,
            q_df: df,
            q_p: chi_squared_above(at_zero, df),
            tau_ci95: (tau_at(0.975, Z_975), tau_at(0.025, -Z_975)),
            i_squared: 1.0 - 1.0 / (1.0 + ratio),
            h_squared: 1.0 + ratio,
            knapp_hartung: KnappHartung { se, ci95: (mu - half_width, mu + half_width) },
        })
    }
}

/// `Q(t)`.
pub(super) fn q(likelihood: &impl Likelihood, t: f64) -> f64 {
    Profile::new(&likelihood.at(t), MuPrior::FLAT).misfit.max(0.0)
}

/// The t at which Q falls to a level above 0; 0 where it is not above it there.
///
/// Q falls and `1 / Q` rises, which is concave by the Cauchy-Schwarz inequality (`Q' = -delta'P^2 delta`,
/// `Q'' = 2 delta'P^3 delta`) and far above all sampling variances a straight line: Newton's steps in it reach the root from
/// below in a few. Where variances of many orders of magnitude leave the slope no digits, the bracket holds.
pub(super) fn q_falls_to(likelihood: &impl Likelihood, level: f64) -> f64 {
    if q(likelihood, 0.0) <= level {
        return 0.0;
    }
    let newton = |t: f64| {
        let derivatives = likelihood.derivatives(t);
        let profile = Profile::new(&derivatives.value, MuPrior::FLAT);
        let (value, fall) = (profile.misfit.max(0.0), -profile.misfit_slope(&derivatives.first));
        (value > level, t + value * (value / level - 1.0) / fall)
    };
    // Below a small part of the smallest lambda all sums are nearly linear in t.
    let (mut low, mut high) = (0.0, likelihood.smallest_lambda() / 64.0);
    while let (true, proposal) = newton(high) {
        low = high;
        high = proposal.clamp(2.0 * low, 1e10 * low);
        if high > 1e300 {
            return low;
        }
    }
    let mut t = high;
    for step in 1..200 {
        let (is_above, proposal) = newton(t);
        if is_above {
            low = t;
        } else {
            high = t;
        }
        let is_within = proposal > low && proposal < high;
        let next = if is_within && step % 4 != 0 { proposal } else { 0.5 * (low + high) };
        if (next - t).abs() <= 1e-14 * t {
            return next;
        }
        t = next;
    }
    t
}

/// The typical sampling variance `(N - 1) / tr P(0)` of two effects or more, in the effects' unit^2: with independent effects
/// that of Higgins and Thompson.
pub(super) fn typical_variance(likelihood: &impl Likelihood) -> f64 {
    let derivatives = likelihood.derivatives(0.0);
    let trace = derivatives.first.log_det + derivatives.first.a / derivatives.value.a;
    // Where one effect outweighs all others by as much as the digits hold, the difference is no more than rounding: no
    // eigenvalue of P but that of 1 is below the smallest of V^-1.
    let df = likelihood.effects() as f64 - 1.0;
    df / trace.max(df / likelihood.largest_lambda())
}
