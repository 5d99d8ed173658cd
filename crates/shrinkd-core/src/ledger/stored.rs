//! The form in which a ledger is stored between batches: one entry for each key, and the retractions. What was sent is
//! packed into bytes (postcard), bit for bit.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{Measured, Properties, ResultKey};

/// The stored result of one key of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResult {
    pub key: ResultKey,
    pub revision: u64,
    /// What was sent, packed: see [`ExperimentLedger::statistics`](super::ExperimentLedger::statistics).
    pub statistics: Vec<u8>,
    pub properties: Properties,
    /// The block with its variants; `None` while the parts cannot be estimated.
    pub measured: Option<Measured>,
}

/// Stored bytes that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored {what} are damaged, or were written by another version: {detail}")]
pub struct DamagedBytes {
    what: &'static str,
    detail: String,
}

/// Packs a value into bytes.
pub fn pack<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Writing to memory fails only for sequences of unknown length, which no type here has.
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Unpacks what [`pack`] wrote.
///
/// # Errors
/// Where the bytes are damaged, or of another type.
pub fn unpack<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DamagedBytes> {
    let damaged = |detail: String| DamagedBytes { what, detail };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(damaged(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}
