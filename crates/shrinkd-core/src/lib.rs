//! What shrinkd does with events before it estimates: the event contract, the ledger of each experiment, and the
//! populations that their blocks form. Pure: no I/O, no clock, no configuration.

#![forbid(unsafe_code)]

pub mod event;
pub mod history;
pub mod ledger;
pub mod population;
