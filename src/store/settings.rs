//! What the contents of a store were computed with.

use super::StoreError;

/// What the cells and blocks of a store were computed with. Others would not mix with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub arithmetic_version: u8,
    /// Event labels whose values divide populations.
    pub grouping_labels: Vec<String>,
    /// Seed of the choice of one variant per experiment.
    pub one_per_experiment_seed: u64,
}

/// Refuses a store that is filled with other settings than one's own.
pub(super) fn check(own: &Settings, stored: Option<Settings>) -> Result<(), StoreError> {
    match stored {
        Some(stored) if stored == *own => Ok(()),
        Some(stored) => Err(StoreError::Settings { stored: stored.to_string(), found: own.to_string() }),
        None => Err(StoreError::Damaged { what: "store_settings", detail: "it has no row".to_owned() }),
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { arithmetic_version, grouping_labels, one_per_experiment_seed } = self;
        write!(
            f,
            "arithmetic version {arithmetic_version}, labels {grouping_labels:?}, correlation seed {one_per_experiment_seed}"
        )
    }
}
