//! What the posterior of the intraclass correlation says.

use super::Summary;

/// Whether the data say anything of the intraclass correlation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IccStatus {
    Identified,
    /// Its posterior sd is above 0.2.
    Weak,
    /// No experiment has several variants.
    NoMultiVariant,
}

impl IccStatus {
    /// The name in tables and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            IccStatus::Identified => "identified",
            IccStatus::Weak => "weak",
            IccStatus::NoMultiVariant => "no_multi_variant",
        }
    }
}

/// What the posterior of the intraclass correlation says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IccPosterior {
    pub icc: Summary,
    /// Log Bayes factor of an icc under its prior against 0.
    pub log_bayes_factor: f64,
    /// Log Bayes factor of 1/2, the assumption of network meta-analysis, against 0.
    pub log_bayes_factor_half: f64,
    /// Posterior probability that icc is above .9.
    pub prob_above_090: f64,
    /// Medians of `tau sqrt(1 - icc)`, the sd within an experiment, and of `tau sqrt(icc)`, that between experiments.
    pub tau_within_median: f64,
    pub tau_shared_median: f64,
}

/// From this posterior sd on the data say little of icc.
const WEAK: f64 = 0.2;

impl IccPosterior {
    /// Whether the data say anything of icc; `None` where it is known.
    pub fn status(&self) -> Option<IccStatus> {
        let sd = self.icc.sd.filter(|sd| *sd > 0.0)?;
        Some(if sd <= WEAK { IccStatus::Identified } else { IccStatus::Weak })
    }

    /// Whether it piles up at its upper end, so that the figures depend on where that is.
    pub fn is_at_upper_end(&self) -> bool {
        self.status().is_some() && self.prob_above_090 > 0.5
    }

    /// Whether every figure that exists is a finite number.
    pub fn is_finite(&self) -> bool {
        let IccPosterior {
            icc,
            log_bayes_factor,
            log_bayes_factor_half,
            prob_above_090,
            tau_within_median,
            tau_shared_median,
        } = *self;
        let others = [log_bayes_factor, log_bayes_factor_half, prob_above_090, tau_within_median, tau_shared_median];
        icc.is_finite() && others.into_iter().all(f64::is_finite)
    }
}
