//! The worker: events in from a source, estimates out to a store.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`source`] | records from Kafka or a file, decoded, in batches; which partitions are owned |
//! | [`fold`] | records and stored state -> changes, pure |

pub mod fold;
pub mod source;
