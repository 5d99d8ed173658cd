//! Calibration: the predictions of a population, summarised.

use super::leave_one_out::Prediction;

/// The predictions of a population, summarised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    pub effects: u64,
    /// Root mean square of z: 1 where the predictive spread is right.
    pub rms_z: f64,
    /// Share of effects within their central 50%, 80% and 95% predictive intervals.
    pub coverage50: f64,
    pub coverage80: f64,
    pub coverage95: f64,
}

impl Calibration {
    /// Summarises predictions; `None` without any.
    pub fn new(predictions: &[Prediction]) -> Option<Calibration> {
        let count = predictions.len() as f64;
        let within =
            |level: f64| predictions.iter().filter(|p| (p.pit - 0.5).abs() <= 0.5 * level).count() as f64 / count;
        (!predictions.is_empty()).then(|| Calibration {
            effects: predictions.len() as u64,
            rms_z: (predictions.iter().map(|p| p.z * p.z).sum::<f64>() / count).sqrt(),
            coverage50: within(0.5),
            coverage80: within(0.8),
            coverage95: within(0.95),
        })
    }
}
