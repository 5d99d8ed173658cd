//! The promises of the event contract, the ledger and the populations, and what hostile bytes can do to them.

mod event_contract;
mod hostile_input;
mod ledger;
mod population;
#[path = "../../../../tests/common/skipped.rs"]
mod skipped;
