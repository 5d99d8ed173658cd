//! Seeded events for trying things out: populations with known truths, and a platform's mixed traffic.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`draws`] | the random numbers: the same bytes for a seed on every platform |
//! | [`population`] | one population of effects with a known mu and tau: the scenarios that `shrinkd study` repeats |
//! | [`portfolio`] | a platform's mix: several metrics, revisions, retractions, results that have to be refused |
//! | [`message`] | the event contract from the producer's side |

pub mod draws;
pub mod message;
pub mod population;
pub mod portfolio;

pub use draws::Draws;
pub use message::Message;
pub use population::{Experiment, Population, Scenario};
pub use portfolio::Portfolio;
