//! Which decisions of a platform mean that a treatment was shipped. The event contract takes any text.

/// The spellings of a decision that mean shipped: without case, and with hyphens, underscores and spaces as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShippedDecisions(Vec<String>);

impl ShippedDecisions {
    /// The spelling that means shipped where none are configured.
    pub const DEFAULT: &str = "shipped";

    /// These spellings, and those that differ from one only by case or by what is between its words.
    pub fn new(spellings: impl IntoIterator<Item: AsRef<str>>) -> ShippedDecisions {
        ShippedDecisions(spellings.into_iter().map(|spelling| normal(spelling.as_ref())).collect())
    }

    /// Whether a decision is one of them.
    pub fn contains(&self, decision: &str) -> bool {
        self.0.contains(&normal(decision))
    }
}

impl Default for ShippedDecisions {
    fn default() -> ShippedDecisions {
        ShippedDecisions::new([ShippedDecisions::DEFAULT])
    }
}

fn normal(decision: &str) -> String {
    decision.trim().to_lowercase().replace(['-', '_'], " ")
}
