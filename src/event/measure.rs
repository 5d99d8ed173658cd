//! Measurements to blocks.
use super::{Measured, Measurement, Refusal, Scale};
/// Brings a measurement to its scale.
pub fn measure(_scale: Scale, _measurement: &Measurement) -> Result<Measured, Refusal> {
    todo!()
}
