//! What the contents of a store were computed with.

use super::StoreError;

/// What the cells and blocks of a store were computed with. Others would not mix with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub arithmetic_version: u8,
    /// Event labels whose values divide populations.
    pub grouping_labels: Vec<String>,
    /// Seed of the choice of one variant per experiment.
    pub treatment_seed: u64,
}

impl Settings {
    /// Refuses a store that was filled with other settings.
    pub(super) fn check_against(&self, stored: &Settings) -> Result<(), StoreError> {
        match self == stored {
            true => Ok(()),
            false => Err(StoreError::Settings { stored: stored.to_string(), found: self.to_string() }),
        }
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { arithmetic_version, grouping_labels, treatment_seed } = self;
        write!(
            f,
            "arithmetic version {arithmetic_version}, labels {grouping_labels:?}, treatment seed {treatment_seed}"
        )
    }
}
