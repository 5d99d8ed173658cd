//! The contract as a JSON Schema.
