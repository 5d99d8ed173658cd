//! The control's part of the variances of effects, from the numbers of units.
//!
//! Where all units have one variance, `d_i = c n_c / n_i`, with n_i units of treatment i and n_c of the control. An effect with the
//! variance `d_i + w_i^2 c` (`w_i` is 1 but for the delta method on `relative`, where it is `1 + estimate_i`) so implies
//!
//! `c_i = variance_i / (n_c / n_i + w_i^2)`,
//!
//! which without w_i is `variance_i (1 / n_c) / (1 / n_i + 1 / n_c)`. Several effects imply several c_i; c is their mean, weighted by n_i,
//! because a treatment of more units tells more of the variance per unit. Where the variance per unit of a treatment is 0.8 or
//! 1.25 times the control's, and the control has up to twice its units, c is off by -13 to +17%. An effect without units takes no part in
//! the mean; it only limits it.

use crate::event::VarianceForm;

/// An effect from which the control's part is imputed.
pub(super) struct Treatment {
    /// As it was sent.
    pub variance: f64,
    /// w: how much of the control's error is in the effect.
    pub loading: f64,
    /// `None` where they were not sent.
    pub units: Option<f64>,
}

/// The share of its own variance, as its units alone would imply it, that each treatment keeps at least: its `d_i` stays above 0
/// where another treatment implies a larger control variance. One without units counts here as if it had the control's.
const LEAST_OWN: f64 = 0.5;

/// The control's variance, in the unit of the scale squared; `None` where no treatment has units.
pub(super) fn control_variance(
    form: VarianceForm,
    treatments: impl Iterator<Item = Treatment>,
    control_units: f64,
) -> Option<f64> {
    let (mut sum, mut weights, mut most) = (0.0, 0.0, f64::INFINITY);
    for Treatment { variance, loading, units } in treatments {
        let own = control_units / units.unwrap_or(control_units);
        let implied = if form == VarianceForm::Treatment {
            variance / own
        } else {
            let square = loading * loading;
            let implied = variance / (own + square);
            most = most.min(implied * (1.0 + (1.0 - LEAST_OWN) * own / square));
            implied
        };
        if let Some(units) = units {
            sum += units * implied;
            weights += units;
        }
    }
    (weights > 0.0).then(|| (sum / weights).min(most))
}
