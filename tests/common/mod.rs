//! What several tests need: the reference posteriors, fresh databases, topics, and workers.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses a part of it")]

pub mod acl;
pub mod database;
pub mod docs;
pub mod folder;
pub mod forward;
pub mod pooler;
pub mod program;
mod promises;
pub mod protocol;
#[path = "../../crates/shrinkd-model/tests/model/reference.rs"]
pub mod reference;
pub mod role;
pub mod settling;
pub mod skipped;
pub mod statistics;
pub mod topic;
pub mod worker;

pub(crate) use promises::promises;
