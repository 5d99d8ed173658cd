//! Seeded, simulated events: populations with known truth, and a platform's mixed traffic.
//!
//! | module | contents |
//! | --- | --- |
//! | [`draws`] | random numbers: the same for a seed on every platform |
//! | [`population`] | one population of effects with a known mu and tau: the scenarios that `shrinkd study` repeats |
//! | [`portfolio`] | a platform's mixed traffic: several metrics, revisions, retractions, invalid results |
//! | [`message`] | the event contract from the producer's side |
//! | [`table`] | one population as CSV |

pub mod draws;
pub mod message;
pub mod population;
pub mod portfolio;
pub mod table;

pub use draws::Draws;
pub use message::Message;
pub use population::{Experiment, Population, Scenario};
pub use portfolio::Portfolio;
