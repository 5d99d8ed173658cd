//! What several tests need: the reference posteriors, where they are available, fresh databases, topics, and workers.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod database;
pub mod folder;
pub mod protocol;
#[path = "../../crates/shrinkd-model/tests/model/reference.rs"]
pub mod reference;
pub mod settling;
pub mod topic;
pub mod worker;
