//! What the contents of a store were computed with.

use super::StoreError;
use crate::row::StoreSettings;

/// Refuses a store that is filled with other settings than one's own.
pub(super) fn check(own: &StoreSettings, stored: Option<StoreSettings>) -> Result<(), StoreError> {
    match stored {
        Some(stored) if stored == *own => Ok(()),
        Some(stored) => Err(StoreError::Settings { stored: stored.to_string(), found: own.to_string() }),
        None => Err(StoreError::Damaged { what: "store_settings", detail: "it has no row".to_owned() }),
    }
}
