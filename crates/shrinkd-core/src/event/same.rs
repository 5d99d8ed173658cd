//! Whether two messages of one revision say the same: the larger revision of the two would change no estimate.
//!
//! Figures may differ by rounding. What can be sent in several forms is kept in one, and a producer that sends a variance now and its
//! root at another time says the same, though the square of the root may differ in its last bit.

use super::arms::were_moments;
use super::{Arm, ArmStatistics, Arms, Effects, Measurement, PairedMoments, Uncertainty};

/// How far two figures may be apart, relative to the larger: some thousand roundings, and far below what any estimate shows.
const ROUNDING: f64 = 1e-12;

impl Measurement {
    /// Whether both say the same of the same variants.
    pub(crate) fn is_same(&self, other: &Measurement) -> bool {
        match (self, other) {
            (Measurement::Arms(own), Measurement::Arms(other)) => own.is_same(other),
            (Measurement::Effects(own), Measurement::Effects(other)) => own.is_same(other),
            (Measurement::Arms(_), Measurement::Effects(_)) | (Measurement::Effects(_), Measurement::Arms(_)) => false,
        }
    }
}

impl Arms {
    /// Whether both say the same of the same arms.
    pub(crate) fn is_same(&self, other: &Arms) -> bool {
        let (own, others) =
            (self.control.iter().chain(&self.treatments), other.control.iter().chain(&other.treatments));
        self.control.is_some() == other.control.is_some()
            && self.treatments.len() == other.treatments.len()
            && own.zip(others).all(|(own, other)| own.is_same(other))
    }
}

impl Arm {
    fn is_same(&self, other: &Arm) -> bool {
        self.variant == other.variant && self.statistics.is_same(&other.statistics)
    }
}

impl ArmStatistics {
    /// Successes also say what the moments say that version 0.1 kept of them, so that sending them again is a duplicate there, too.
    fn is_same(&self, other: &ArmStatistics) -> bool {
        use ArmStatistics::{Covariate, Moments, Ratio, Successes, Summary};
        match (*self, *other) {
            (Moments { n, mean, m2 }, Moments { n: other, mean: other_mean, m2: other_m2 }) => {
                n == other && are_close(&[mean, m2], &[other_mean, other_m2])
            }
            (
                Summary { n, mean, standard_error },
                Summary { n: other, mean: other_mean, standard_error: other_error },
            ) => n == other && are_close(&[mean, standard_error], &[other_mean, other_error]),
            (Successes { n, successes }, Successes { n: other, successes: other_successes }) => {
                (n, successes) == (other, other_successes)
            }
            (Successes { n, successes }, Moments { n: other, mean, m2 })
            | (Moments { n: other, mean, m2 }, Successes { n, successes }) => {
                n == other && were_moments(n, successes, mean, m2)
            }
            (Ratio(own), Ratio(other)) | (Covariate(own), Covariate(other)) => {
                own.n == other.n && are_close(&figures(&own), &figures(&other))
            }
            (Summary { .. } | Ratio(_) | Covariate(_), _) | (_, Summary { .. } | Ratio(_) | Covariate(_)) => false,
        }
    }
}

impl Effects {
    fn is_same(&self, other: &Effects) -> bool {
        self.variants == other.variants
            && are_close(&self.estimates, &other.estimates)
            && self.uncertainty.is_same(&other.uncertainty)
    }
}

impl Uncertainty {
    fn is_same(&self, other: &Uncertainty) -> bool {
        use Uncertainty::{Covariance, ScaledVariances, SharedControl, SomeUnits, TreatmentVariances, Units};
        match (self, other) {
            (
                SharedControl { variances, control_variance },
                SharedControl { variances: others, control_variance: other },
            )
            | (
                ScaledVariances { variances, control_variance },
                ScaledVariances { variances: others, control_variance: other },
            )
            | (
                TreatmentVariances { variances, control_variance },
                TreatmentVariances { variances: others, control_variance: other },
            ) => are_close(variances, others) && is_close(*control_variance, *other),
            (Covariance { matrix }, Covariance { matrix: other }) => are_close(matrix, other),
            (
                Units { variances, form, units, control_units },
                Units { variances: others, form: other_form, units: other_units, control_units: other },
            ) => are_close(variances, others) && (form, units, control_units) == (other_form, other_units, other),
            (
                SomeUnits { variances, form, units, control_units },
                SomeUnits { variances: others, form: other_form, units: other_units, control_units: other },
            ) => are_close(variances, others) && (form, units, control_units) == (other_form, other_units, other),
            _ => false,
        }
    }
}

fn figures(moments: &PairedMoments) -> [f64; 5] {
    let PairedMoments { mean, m2, second_mean, second_m2, comoment, .. } = *moments;
    [mean, m2, second_mean, second_m2, comoment]
}

fn are_close(own: &[f64], other: &[f64]) -> bool {
    own.len() == other.len() && own.iter().zip(other).all(|(own, other)| is_close(*own, *other))
}

fn is_close(own: f64, other: f64) -> bool {
    own == other || (own - other).abs() <= ROUNDING * own.abs().max(other.abs())
}
