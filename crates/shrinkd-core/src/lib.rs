//! What shrinkd does with events before it estimates: the event contract, the ledger of each experiment, and the
//! populations that their blocks form. Pure: no I/O, no clock, no configuration.

#![forbid(unsafe_code)]

mod event;
mod history;
mod ledger;
mod population;

pub use event::{
    Arm, ArmStatistics, Arms, Effects, Event, MAX_MESSAGE_BYTES, MAX_RESULTS, Measured, Measurement, Message, Reason,
    Refusal, ReportedResult, ResultKey, SCHEMA_VERSION, Scale, Uncertainty, check_key, decode, decode_keyed,
    decode_tombstone, event_schema, measure, merge_parts, message_too_large,
};
pub use history::{Experiment, History, Population, UnfitBlock};
pub use ledger::{
    Applied, Change, Counts, CurrentBlock, DamagedBytes, ExperimentLedger, Latest, Outcome, StoredResult, pack,
    remeasure, unpack,
};
pub use population::{Grouping, PopulationName, PopulationNameError, chosen_variant};
