//! A ledger as it is kept between two batches: one entry for each key, and beside them what was retracted. What was sent
//! is packed into bytes (postcard), bit for bit as it was read.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::retraction::Retractions;
use super::{Entry, ExperimentLedger, Latest, Statistics};
use crate::event::measure::{measure, merge_parts};
use crate::event::{Measured, Measurement, Reason, Refusal, ResultKey, Scale};

/// What one key of an experiment holds.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResult {
    pub key: ResultKey,
    pub revision: u64,
    /// What was sent: see [`ExperimentLedger::statistics`].
    pub statistics: Vec<u8>,
    /// The block with its variants; `None` while the parts cannot be estimated.
    pub measured: Option<Measured>,
}

/// Bytes that do not hold what they should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored {what} are damaged, or were written by another version: {detail}")]
pub struct DamagedBytes {
    what: &'static str,
    detail: String,
}

impl ExperimentLedger {
    /// The ledger that was stored as these entries.
    ///
    /// # Errors
    /// Where bytes are not what they should be.
    pub fn restore(
        latest: Option<Latest>,
        retractions: Option<&[u8]>,
        results: impl IntoIterator<Item = StoredResult>,
    ) -> Result<ExperimentLedger, DamagedBytes> {
        let retractions = retractions.map(|bytes| unpack("retractions", bytes)).transpose()?.unwrap_or_default();
        let mut ledger = ExperimentLedger { retractions, latest, ..ExperimentLedger::default() };
        for StoredResult { key, revision, statistics, measured } in results {
            let statistics: Statistics = unpack("statistics", &statistics)?;
            let estimate = match measured {
                Some(measured) => Ok(measured),
                None => Err(statistics.pending(key.scale)),
            };
            ledger.results.insert(key, Entry { revision, statistics, estimate });
        }
        Ok(ledger)
    }

    /// What was sent of a key, in bytes, and the revision that last changed it; `None` where it holds no result.
    pub fn statistics(&self, key: &ResultKey) -> Option<(u64, Vec<u8>)> {
        let entry = self.results.get(key)?;
        Some((entry.revision, pack(&entry.statistics)))
    }

    /// The block of a key, or why its parts cannot be estimated yet; `None` where it holds no result.
    pub fn estimate(&self, key: &ResultKey) -> Option<Result<&Measured, &Refusal>> {
        Some(self.results.get(key)?.estimate.as_ref())
    }

    /// What was retracted, in bytes; `None` where nothing is remembered.
    pub fn retractions(&self) -> Option<Vec<u8>> {
        (!self.retractions.is_empty()).then(|| pack::<Retractions>(&self.retractions))
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

impl Statistics {
    fn measure(&self, scale: Scale) -> Result<Measured, Refusal> {
        match self {
            Statistics::Whole(measurement) => measure(scale, measurement),
            Statistics::Parts(parts) => measure(scale, &Measurement::Arms(merge_parts(parts.values())?)),
        }
    }

    /// Why the parts of a sum cannot be estimated yet.
    fn pending(&self, scale: Scale) -> Refusal {
        let refusal = self.measure(scale).err();
        // Only a build with other rules than the one that stored it can estimate it now; it does when the next part comes.
        refusal.unwrap_or_else(|| Refusal::new(Reason::SampleTooSmall, "waits for its next part".to_owned()))
    }
}

/// Packs a value into bytes.
pub fn pack<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Writing to memory has no other error than a type that does not know its length, and there is none here.
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Unpacks what [`pack`] wrote.
///
/// # Errors
/// Where the bytes are something else.
pub fn unpack<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DamagedBytes> {
    let damaged = |detail: String| DamagedBytes { what, detail };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(damaged(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}
