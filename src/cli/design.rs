//! The design of a platform's experiments on the command line: how many variants, how much traffic for the control, how
//! different the true effects.

use shrinkd_model::{Quantity, rho_of_control_share};

use super::simulate::count;

/// Variants of every experiment unless `--variants` says otherwise: the fewest that share a control.
const VARIANTS: usize = 2;

/// rho where the control gets as much traffic as each variant: all arms have the same variance.
pub(super) const EQUAL_RHO: f64 = 0.5;

/// The share of the traffic that the control gets where it gets as much as each variant.
pub(super) fn equal_share(variants: usize) -> f64 {
    1.0 / (variants as f64 + 1.0)
}

/// A design in which all experiments are alike.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Design")]
pub(super) struct DesignArgs {
    /// Variants of every experiment, not counting its control [default: 2]
    #[arg(long, value_name = "N", value_parser = count(1_000))]
    variants: Option<usize>,
    /// Share of the traffic that the control gets; the variants split the rest evenly [default: 1/(N+1), as much as each
    /// variant]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = control_share, conflicts_with = "rho")]
    control_share: Option<f64>,
    /// Share of an effect's sampling variance that is the control's, which is also the correlation of two effects'
    /// errors [default: from --control-share; 0.5 where all arms get as much traffic]
    #[arg(long, allow_negative_numbers = true, value_parser = rho)]
    rho: Option<f64>,
    /// Standard deviation of the true effects in standard errors of a raw effect (0.5se); `shrinkd study` also takes it
    /// in the effects' unit (0.5) [default: 1se]
    #[arg(long, allow_negative_numbers = true, value_parser = tau)]
    tau: Option<Tau>,
}

/// A heterogeneity with its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Tau {
    /// In the effects' unit.
    Absolute(f64),
    /// In standard errors of a raw effect.
    Se(f64),
}

impl DesignArgs {
    /// Whether any of the design is given.
    pub(super) fn is_given(&self) -> bool {
        let DesignArgs { variants, control_share, rho, tau } = self;
        variants.is_some() || control_share.is_some() || rho.is_some() || tau.is_some()
    }

    /// Variants of every experiment.
    pub(super) fn variants(&self) -> usize {
        self.variants.unwrap_or(VARIANTS)
    }

    /// Share of the traffic that the control gets, if it is given.
    pub(super) fn control_share(&self) -> Option<f64> {
        self.control_share
    }

    /// Whether rho itself is given.
    pub(super) fn has_rho(&self) -> bool {
        self.rho.is_some()
    }

    /// Share of an effect's sampling variance that is the control's.
    pub(super) fn rho(&self) -> f64 {
        match (self.rho, self.control_share) {
            (Some(rho), _) => rho,
            (None, Some(share)) => rho_of_control_share(self.variants(), share),
            (None, None) => EQUAL_RHO,
        }
    }

    /// Standard deviation of the true effects.
    pub(super) fn tau(&self) -> Tau {
        self.tau.unwrap_or(Tau::Se(1.0))
    }
}

impl Tau {
    /// In the effects' unit, if a raw effect has this standard error.
    pub(super) fn absolute(self, se: f64) -> f64 {
        match self {
            Tau::Absolute(tau) => tau,
            Tau::Se(tau) => tau * se,
        }
    }
}

fn control_share(text: &str) -> Result<f64, String> {
    number_in(text, 0.001, 0.999).ok_or_else(|| {
        "expected the share of an experiment's traffic that its control gets, from 0.001 to 0.999, such as 0.25"
            .to_owned()
    })
}

fn rho(text: &str) -> Result<f64, String> {
    number_in(text, 0.0, 0.999).ok_or_else(|| {
        "expected a number from 0 (the control has no sampling error) to 0.999 (almost all of an effect's sampling error \
         is the control's)"
            .to_owned()
    })
}

fn tau(text: &str) -> Result<Tau, String> {
    let tau = match text.parse() {
        Ok(Quantity::Absolute(tau)) => Some(Tau::Absolute(tau)),
        Ok(Quantity::Se(tau)) => Some(Tau::Se(tau)),
        Ok(Quantity::Sd(_) | Quantity::Mean) | Err(()) => None,
    };
    tau.filter(|tau| (0.0..=1e6).contains(&tau.absolute(1.0))).ok_or_else(|| {
        "expected a number from 0 to 1e6 in standard errors of a raw effect, such as 0.5se; `shrinkd study` also takes it \
         in the effects' unit, such as 0.5"
            .to_owned()
    })
}

fn number_in(text: &str, least: f64, most: f64) -> Option<f64> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}
