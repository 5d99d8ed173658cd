//! What shrinkd does with events before it estimates. Pure: no I/O, no clock, no configuration.
//!
//! # The map
//!
//! In the order in which data passes through:
//!
//! | step | items |
//! | --- | --- |
//! | bytes -> message: the event contract, with one [`Reason`] for each [`Refusal`] and a [`Warning`] where figures need caution | [`decode()`], [`Message`], [`Event`] |
//! | arms or reported effects -> block: effects with their joint sampling covariance | [`measure()`], [`Measured`] |
//! | events -> ledger: revisions, retractions and parts, folded into the current blocks of one experiment | [`ExperimentLedger`] |
//! | ledger -> stored bytes, and back | [`StoredResult`], [`pack`], [`unpack`] |
//! | blocks -> populations: which of them share mu and tau | [`Grouping`], [`PopulationName`] |
//! | a whole history of events, in memory | [`History`], [`Population`], [`ShippedDecisions`] |

#![forbid(unsafe_code)]

mod decision;
mod event;
mod history;
mod ledger;
mod population;

// The event contract.
pub use event::{
    Arm, ArmStatistics, Arms, ControlVarianceSource, Effects, Event, ExperimentKind, Findings, KeyRule,
    MAX_MESSAGE_BYTES, MAX_RESULTS, Measured, Measurement, Message, PairedMoments, Properties, Reason, Refusal,
    ReportedResult, ResultKey, SCHEMA_VERSION, SCHEMA_VERSION_WITH_KIND, Scale, Uncertainty, UnknownField,
    VarianceForm, Warning, WarningCode, check_key, decode, decode_keyed, decode_tombstone, event_schema,
    is_lift_too_large, measure, merge_parts, message_too_large, nearest_field, nearest_name,
};
// The state of one experiment, and its stored form.
pub use ledger::{
    Applied, Change, Counts, CurrentBlock, DamagedBytes, ExperimentLedger, Latest, Outcome, StoredResult, pack,
    remeasure, unpack, with_successes,
};
// Populations.
pub use decision::ShippedDecisions;
pub use history::{Experiment, History, Population, UnfitBlock};
pub use population::{Grouping, PopulationName, PopulationNameError, chosen_variant};
