//! The crates of shrinkd that do no I/O.

pub use shrinkd_core::{event, ledger, population};
pub use shrinkd_model as model;
