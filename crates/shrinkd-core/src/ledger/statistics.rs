//! What was sent for a key, kept to recognise it when it is sent again and to measure it again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stored::{DamagedBytes, pack, unpack};
use crate::event::{Arms, Measured, Measurement, Reason, Refusal, Scale, measure, merge_parts};

/// What was sent for a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Statistics {
    Whole(Measurement),
    /// By event id, in whose order they are merged.
    Parts(BTreeMap<String, Arms>),
}

impl Statistics {
    /// Whether both are the same whole result. Parts are compared one by one.
    pub fn is_same(&self, other: &Statistics) -> bool {
        matches!((self, other), (Statistics::Whole(own), Statistics::Whole(other)) if own.is_same(other))
    }

    pub fn measure(&self, scale: Scale) -> Result<Measured, Refusal> {
        match self {
            Statistics::Whole(measurement) => measure(scale, measurement),
            Statistics::Parts(parts) => measure(scale, &Measurement::Arms(merge_parts(parts.values())?)),
        }
    }

    /// Why the parts of a sum cannot be estimated yet.
    pub fn pending(&self, scale: Scale) -> Refusal {
        let refusal = self.measure(scale).err();
        // Where they can be estimated after all, another version with other rules stored them: the next part's arrival
        // triggers the estimate.
        refusal.unwrap_or_else(|| Refusal::new(Reason::SampleTooSmall, "waits for its next part".to_owned()))
    }
}

/// Measures again what was sent for a key, packed by [`ExperimentLedger::statistics`](super::ExperimentLedger::statistics):
/// the block, or why it cannot be estimated.
///
/// # Errors
/// [`DamagedBytes`] where the bytes cannot be read.
pub fn remeasure(scale: Scale, statistics: &[u8]) -> Result<Result<Measured, Refusal>, DamagedBytes> {
    let statistics: Statistics = unpack("statistics", statistics)?;
    Ok(statistics.measure(scale))
}

/// The statistics of a key with successes in place of the moments as which version 0.1 kept them; `None` where nothing changes.
///
/// # Errors
/// [`DamagedBytes`] where the bytes cannot be read.
pub fn with_successes(statistics: &[u8]) -> Result<Option<Vec<u8>>, DamagedBytes> {
    let counted = |arms: &mut Arms| {
        for arm in arms.control.iter_mut().chain(&mut arms.treatments) {
            arm.statistics = arm.statistics.as_successes();
        }
    };
    let mut unpacked: Statistics = unpack("statistics", statistics)?;
    match &mut unpacked {
        Statistics::Whole(Measurement::Arms(arms)) => counted(arms),
        Statistics::Whole(Measurement::Effects(_)) => {}
        Statistics::Parts(parts) => parts.values_mut().for_each(counted),
    }
    let packed = pack(&unpacked);
    Ok((packed != statistics).then_some(packed))
}
