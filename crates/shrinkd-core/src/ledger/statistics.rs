//! What was sent for a key: kept to recognise it when it is sent again, and to measure it again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stored::{DamagedBytes, unpack};
use crate::event::{Arms, Measured, Measurement, Reason, Refusal, Scale, measure, merge_parts};

/// What was sent for a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Statistics {
    Whole(Measurement),
    /// By event id: the order in which they are merged.
    Parts(BTreeMap<String, Arms>),
}

impl Statistics {
    pub fn measure(&self, scale: Scale) -> Result<Measured, Refusal> {
        match self {
            Statistics::Whole(measurement) => measure(scale, measurement),
            Statistics::Parts(parts) => measure(scale, &Measurement::Arms(merge_parts(parts.values())?)),
        }
    }

    /// Why the parts of a sum cannot be estimated yet.
    pub fn pending(&self, scale: Scale) -> Refusal {
        let refusal = self.measure(scale).err();
        // Only a build with other rules than the one that stored it can estimate it now; it does when the next part comes.
        refusal.unwrap_or_else(|| Refusal::new(Reason::SampleTooSmall, "waits for its next part".to_owned()))
    }
}

/// What this build makes of what was sent of a key, given as [`ExperimentLedger::statistics`] has it: the block, or why it
/// cannot be estimated.
///
/// # Errors
/// Where the bytes are something else.
pub fn remeasure(scale: Scale, statistics: &[u8]) -> Result<Result<Measured, Refusal>, DamagedBytes> {
    let statistics: Statistics = unpack("statistics", statistics)?;
    Ok(statistics.measure(scale))
}
