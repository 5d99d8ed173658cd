//! The rooms of shrinkd that do no I/O, from their own files: `src/lib.rs` says what they are.

// Two steps, because a file that is named alone would look for its own rooms in the wrong folder.
#[path = "../src"]
mod rooms {
    pub mod event;
    pub mod ledger;
    pub mod model;
    pub mod population;
}

pub use rooms::*;
