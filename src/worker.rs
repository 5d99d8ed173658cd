//! The worker: events in from a source, estimates out to a store.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`source`] | records from Kafka or a file, decoded, in batches; which partitions are owned |

pub mod source;
