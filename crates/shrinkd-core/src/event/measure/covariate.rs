//! Means adjusted for a covariate (CUPED): Deng, Xu, Kohavi & Walker, "Improving the sensitivity of online controlled experiments by
//! utilizing pre-experiment data", WSDM 2013.
//!
//! The mean of arm i becomes `y_i - theta (x_i - x)`, with x_i the arm's mean of the covariate and x that of all arms. One theta,
//! `sum of comoments / sum of the covariate's M2` within the arms, is used in all of them: only then is the control's adjusted mean
//! one number, whose error all effects share. The variance per unit is that of `y - theta x`. Theta and x are taken as known. Their own
//! errors enter an effect multiplied by the difference of two means of the covariate, which randomisation keeps small: their part
//! of the variance is of the order of 1/n of the rest.

use std::borrow::Cow;

use crate::event::{Arm, ArmStatistics, Arms, PairedMoments};

/// The arms with adjusted means; as they are where they have no covariate.
pub(super) fn adjusted(arms: &Arms) -> Cow<'_, Arms> {
    // An arm that cannot be used takes no part.
    let all = arms.control.iter().chain(&arms.treatments);
    let usable = all.filter_map(|arm| paired(arm).filter(|moments| moments.n > 1 && moments.m2 > 0.0));
    let Some(whole) = usable.clone().copied().reduce(PairedMoments::merge) else { return Cow::Borrowed(arms) };
    let covariate_m2: f64 = usable.clone().map(|moments| moments.second_m2).sum();
    let comoment: f64 = usable.map(|moments| moments.comoment).sum();
    // A covariate that does not vary has nothing to adjust for.
    let theta = if covariate_m2 > 0.0 { comoment / covariate_m2 } else { 0.0 };
    let adjust = |arm: &Arm| match paired(arm) {
        None => arm.clone(),
        Some(moments) => {
            let mean = moments.mean - theta * (moments.second_mean - whole.second_mean);
            let statistics = ArmStatistics::Moments { n: moments.n, mean, m2: moments.residual_m2(theta) };
            Arm { variant: arm.variant.clone(), statistics }
        }
    };
    Cow::Owned(Arms {
        control: arms.control.as_ref().map(adjust),
        treatments: arms.treatments.iter().map(adjust).collect(),
    })
}

fn paired(arm: &Arm) -> Option<&PairedMoments> {
    if let ArmStatistics::Covariate(moments) = &arm.statistics { Some(moments) } else { None }
}
